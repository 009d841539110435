//! Who calls, and what they may do, as types: a use case that needs a [`Permit`] cannot be reached without one.

use bellwether_model::permit::Grants;
use bellwether_model::{Action, Actor, SiteId};
use std::marker::PhantomData;

/// An authenticated caller of the API. Made only by [`crate::Engine::caller`].
#[derive(Clone, Debug)]
pub struct Caller {
    pub(crate) actor: Actor,
    pub(crate) grants: Grants,
    pub(crate) source: Option<String>,
}

/// The caller lacks a grant. Displays what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this key does not allow {action}; ask for a key with that grant")]
pub struct Denied {
    /// What was wanted.
    pub action: Action,
}

/// Leave to do `A` in one site, with the name under which the audit will record it.
#[derive(Clone, Debug)]
pub struct Permit<A> {
    pub(crate) site: SiteId,
    pub(crate) actor: Actor,
    pub(crate) source: Option<String>,
    pub(crate) grants: Grants,
    _action: PhantomData<A>,
}

/// A type that names one [`Action`].
pub trait Allows {
    /// Which.
    const ACTION: Action;
}

impl Caller {
    /// Who it is, for logs and the audit.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// What the caller's key allows.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Leave to do `A` in a site, or the refusal.
    pub fn permit<A: Allows>(&self, site: SiteId) -> Result<Permit<A>, Denied> {
        if self.grants.allow(A::ACTION, site) {
            Ok(Permit {
                site,
                actor: self.actor.clone(),
                source: self.source.clone(),
                grants: self.grants.clone(),
                _action: PhantomData,
            })
        } else {
            Err(Denied { action: A::ACTION })
        }
    }
}

/// Leave to do `A` on the whole server: a grant for one site is not enough.
#[derive(Clone, Debug)]
pub struct ServerPermit<A> {
    pub(crate) actor: Actor,
    pub(crate) source: Option<String>,
    _action: PhantomData<A>,
}

impl Caller {
    /// Leave to do `A` on the whole server, or the refusal.
    pub fn server_permit<A: Allows>(&self) -> Result<ServerPermit<A>, Denied> {
        if self.grants.allow_server(A::ACTION) {
            let (actor, source) = (self.actor.clone(), self.source.clone());
            Ok(ServerPermit { actor, source, _action: PhantomData })
        } else {
            Err(Denied { action: A::ACTION })
        }
    }
}

impl<A> Permit<A> {
    /// The site it is good for.
    pub fn site(&self) -> SiteId {
        self.site
    }
}

/// One type per action.
pub mod may {
    use super::{Action, Allows};

    macro_rules! allow {
        ($($name:ident = $action:ident),+ $(,)?) => {
            $(
                #[doc = concat!("[`Action::", stringify!($action), "`].")]
                #[derive(Clone, Copy, Debug)]
                pub enum $name {}
                impl Allows for $name {
                    const ACTION: Action = Action::$action;
                }
            )+
        };
    }

    allow!(
        WriteInvitations = InvitationWrite,
        ReadInvitations = InvitationRead,
        ReadDevices = DeviceRead,
        WriteDevices = DeviceWrite,
        SendCommands = CommandSend,
        Destroy = CommandDestroy,
        SendRaw = CommandRaw,
        RevealSecrets = SecretReveal,
        WritePush = PushWrite,
        ReadPush = PushRead,
        ReadAudit = AuditRead,
        WriteKeys = KeyWrite,
        WritePackages = PackageWrite,
        ReadPackages = PackageRead,
        WriteSettings = SettingsWrite,
        WriteBackups = BackupWrite,
        ReadBackups = BackupRead,
    );
}
