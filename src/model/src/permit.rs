//! What somebody may do, and where. API keys carry sets of these; roles will carry the same.

use crate::id::SiteId;
use crate::words;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

words!(
    /// One thing somebody may do. The spelling is part of the API.
    Action {
        /// Make, list and revoke invitations.
        InvitationWrite = "invitation:write",
        /// See invitations.
        InvitationRead = "invitation:read",
        /// See devices, their facts and commands.
        DeviceRead = "device:read",
        /// Approve or end enrollments, name owners.
        DeviceWrite = "device:write",
        /// Send commands that destroy nothing.
        CommandSend = "command:send",
        /// Send wipe and unenroll.
        CommandDestroy = "command:destroy",
        /// Send raw platform payloads.
        CommandRaw = "command:raw",
        /// See stored secrets (PINs, escrow).
        SecretReveal = "secret:reveal",
        /// Import push certificates.
        PushWrite = "push:write",
        /// See push certificates' state.
        PushRead = "push:read",
        /// Read the audit.
        AuditRead = "audit:read",
        /// Mint and revoke API keys.
        KeyWrite = "key:write",
        /// Upload and delete packages.
        PackageWrite = "package:write",
        /// See packages.
        PackageRead = "package:read",
        /// Change server and site settings.
        SettingsWrite = "settings:write",
        /// Make backups. On the whole server only.
        BackupWrite = "backup:write",
        /// See which backups there are. On the whole server only.
        BackupRead = "backup:read",
    }
);

/// Where somebody may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere on this server.
    Server,
    /// Inside one site.
    Site(SiteId),
}

impl Scope {
    /// Whether a grant for this scope covers the site.
    pub fn covers(self, site: SiteId) -> bool {
        match self {
            Self::Server => true,
            Self::Site(own) => own == site,
        }
    }
}

/// One action in one scope. Text: `device:read@server` or `device:read@<site uuid>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// What.
    pub action: Action,
    /// Where.
    pub scope: Scope,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Server => write!(f, "{}@server", self.action),
            Scope::Site(site) => write!(f, "{}@{site}", self.action),
        }
    }
}

/// A text that is no grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAGrant(String);

impl fmt::Display for NotAGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no grant; write ACTION@server or ACTION@SITE-ID, such as device:read@server",
            self.0
        )
    }
}

impl std::error::Error for NotAGrant {}

impl FromStr for Grant {
    type Err = NotAGrant;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAGrant(s.chars().take(80).collect());
        let (action, scope) = s.split_once('@').ok_or_else(wrong)?;
        let action = action.parse().map_err(|_| wrong())?;
        let scope = match scope {
            "server" => Scope::Server,
            site => Scope::Site(site.parse().map_err(|_| wrong())?),
        };
        Ok(Self { action, scope })
    }
}

impl Serialize for Grant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// All that a key or a role may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grants(pub Vec<Grant>);

impl Grants {
    /// Every action everywhere: what the setup token mints.
    pub fn everything() -> Self {
        Self(Action::ALL.iter().map(|action| Grant { action: *action, scope: Scope::Server }).collect())
    }

    /// Whether they allow an action in a site.
    pub fn allow(&self, action: Action, site: SiteId) -> bool {
        self.0.iter().any(|g| g.action == action && g.scope.covers(site))
    }

    /// Whether they allow an action on the whole server.
    pub fn allow_server(&self, action: Action) -> bool {
        self.0.iter().any(|g| g.action == action && g.scope == Scope::Server)
    }

    /// Whether every grant of `other` is covered by one of these: nobody can hand out more than they have.
    pub fn cover(&self, other: &Grants) -> bool {
        other.0.iter().all(|wanted| match wanted.scope {
            Scope::Server => self.allow_server(wanted.action),
            Scope::Site(site) => self.allow(wanted.action, site),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_site_grant_stops_at_the_site() {
        let (a, b) = (SiteId(Uuid::from_u128(1)), SiteId(Uuid::from_u128(2)));
        let grants = Grants(vec![Grant { action: Action::DeviceRead, scope: Scope::Site(a) }]);
        assert!(grants.allow(Action::DeviceRead, a));
        assert!(!grants.allow(Action::DeviceRead, b));
        assert!(!grants.allow(Action::CommandSend, a));
        assert!(!grants.cover(&Grants::everything()));
        assert!(Grants::everything().cover(&grants));
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        for grant in &Grants::everything().0 {
            assert_eq!(grant.to_string().parse::<Grant>().as_ref(), Ok(grant));
        }
        for bad in ["", "device:read", "device:read@", "device:read@everywhere", "root@server"] {
            assert!(bad.parse::<Grant>().is_err(), "{bad}");
        }
    }
}
