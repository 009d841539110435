//! What is kept for a PC between two requests: its OMA-DM account, and its open sessions. All of it sealed.

use super::Refused;
use super::applied::Setting;
use crate::Engine;
use crate::error::Error;
use bellwether_model::{ChannelId, IdentityId, SiteId, Timestamp};
use bellwether_store::Tx;
use bellwether_store::records::{ProtocolState, Sealed};
use bellwether_windows::syncml::Verb;
use bellwether_windows::syncml::auth::Nonces;
use bellwether_windows::syncml::session::Session;
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of an account.
pub(super) const ACCOUNT: &str = "account";
/// What the keys of sessions begin with.
pub(crate) const SESSION: &str = "session:";

/// What the PC and this server know of each other (the `APPLICATION` and `DMClient` blocks of the provisioning
/// document).
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Account {
    /// `./DevInfo/DevId`, the source of every session.
    pub device_id: String,
    /// What the device row is found by.
    pub hardware_id: String,
    /// `PROVIDER-ID`.
    pub provider: String,
    /// `ADDR`.
    pub address: String,
    /// `b64(MD5(name:password))` of the PC; the password itself is nowhere.
    pub client_secret: String,
    /// The same of the server.
    pub server_secret: String,
    /// Nonces of the PC's digests.
    pub nonces: Nonces,
    /// The nonce that the PC wants from us in its next session.
    pub server_nonce: Option<Vec<u8>>,
    /// `My/User` or `My/System`: where renewed certificates go.
    pub system_store: bool,
    /// Whose PC.
    pub upn: Option<String>,
    /// What it said of itself when it enrolled.
    pub claims: Claims,
    /// Digest of the `./DevInfo` that was stored last, and when.
    #[serde(default)]
    pub device_info: Option<(String, i64)>,
    /// `RequireMessageSigning` was confirmed.
    #[serde(default)]
    pub signs: bool,
    /// The package family name whose channel it was told to open.
    #[serde(default)]
    pub push_package: Option<String>,
}

/// What a PC said of itself when it enrolled.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Claims {
    pub serial: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub name: Option<String>,
    pub os_version: Option<String>,
    pub os_edition: Option<u32>,
    pub macs: Vec<String>,
    pub locale: Option<String>,
}

/// One OMA-DM session.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Open {
    pub session: Session,
    /// Parts that went out in this session, by id.
    pub parts: BTreeMap<String, Going>,
    /// Outcomes that are awaited were asked for in this session.
    pub watched: bool,
    /// What is not a command was offered in this session.
    pub settled: bool,
    /// `mode` of the request: which of the PC's schedules opened the session.
    #[serde(default)]
    pub mode: Option<String>,
}

/// A part on its way.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Going {
    pub channel: ChannelId,
    pub kind: String,
    pub until_silent: bool,
    pub request: String,
    pub awaits: bool,
    /// The commands by their place in the part.
    pub verbs: Vec<(Vec<u16>, Verb)>,
    pub statuses: Vec<Answered>,
    pub results: Vec<(String, String)>,
    /// What the PC has when it confirms the part.
    #[serde(default)]
    pub setting: Option<Setting>,
}

/// A status of one command of a part.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Answered {
    pub path: Vec<u16>,
    pub uri: String,
    pub code: u16,
    pub original_error: Option<String>,
}

/// A value with the version that was read.
pub(super) struct Read<T> {
    pub value: T,
    pub version: Option<i64>,
}

impl Engine {
    pub(super) fn seal_state<T: Serialize>(
        &self,
        site: SiteId,
        identity: IdentityId,
        key: &str,
        value: &T,
    ) -> Result<Sealed, Error> {
        let plain = zeroize::Zeroizing::new(
            serde_json::to_vec(value).map_err(|e| Error::Internal(format!("a protocol state: {e}")))?,
        );
        self.vault.seal(site, "protocol-state", identity.as_bytes(), key, &plain)
    }

    fn open_state<T: DeserializeOwned>(
        &self,
        site: SiteId,
        identity: IdentityId,
        row: &ProtocolState,
    ) -> Result<T, Error> {
        let opened = self.vault.open(site, "protocol-state", identity.as_bytes(), &row.key, &row.value)?;
        serde_json::from_slice(opened.expose_secret())
            .map_err(|_| Error::Internal(format!("the state {} of identity {identity} is damaged", row.key)))
    }

    /// The account among an identity's states. A renewed identity that is seen for the first time goes on with the one
    /// of the old.
    pub(super) fn account_of(
        &self,
        site: SiteId,
        identity: IdentityId,
        states: &[ProtocolState],
        before: &[ProtocolState],
    ) -> Result<Read<Account>, Refused> {
        let own = states.iter().find(|row| row.key == ACCOUNT);
        let row = own.or_else(|| before.iter().find(|row| row.key == ACCOUNT));
        let Some(row) = row else {
            return Err(Refused::Forbidden(format!("identity {identity} has no account here")));
        };
        let value = self.open_state(site, row.identity_id, row)?;
        Ok(Read { value, version: own.map(|row| row.version) })
    }

    /// The session with this id, and the other sessions of the identity that may still go on.
    pub(super) fn sessions_of(
        &self,
        site: SiteId,
        identity: IdentityId,
        states: &[ProtocolState],
        session_id: &str,
        alive_since: Timestamp,
    ) -> Result<(Option<Read<Open>>, Vec<Open>), Error> {
        let key = session_key(session_id);
        let (mut this, mut others) = (None, Vec::new());
        for row in states.iter().filter(|row| row.key.starts_with(SESSION)) {
            if row.key == key {
                let value = self.open_state(site, identity, row)?;
                this = Some(Read { value, version: Some(row.version) });
            } else if row.touched_at > alive_since {
                others.push(self.open_state(site, identity, row)?);
            }
        }
        Ok((this, others))
    }
}

/// SessionIDs are opaque and come from the device: their digest is the key.
pub(super) fn session_key(session_id: &str) -> String {
    let digest = bellwether_certs::hash::sha256(session_id.as_bytes());
    format!("{SESSION}{}", bellwether_certs::hash::hex(digest.get(..16).unwrap_or(&digest)))
}

/// Sessions that nobody will go on with, in the transaction that opens a new one.
pub(super) fn forget_sessions(
    tx: &mut Tx<'_>,
    identity: IdentityId,
    states: &[(String, Timestamp)],
    before: Timestamp,
    most: usize,
) -> Result<(), Error> {
    let mut sessions: Vec<&(String, Timestamp)> =
        states.iter().filter(|(key, _)| key.starts_with(SESSION)).collect();
    sessions.sort_by_key(|(_, touched_at)| std::cmp::Reverse(*touched_at));
    for (place, (key, touched_at)) in sessions.into_iter().enumerate() {
        if *touched_at < before || place + 1 >= most {
            tx.protocol_state_delete(identity, key)?;
        }
    }
    Ok(())
}
