//! The server's side of one OMA-DM session, as plain state (OMA-TS-DM_Protocol 8; MS-MDM 3.2).
//!
//! A caller keeps one [`Session`] per (enrollment, `SessionID`), stores it between two requests, and for each
//! message calls [`Session::receive`], acts on the [`Event`]s, and calls [`Session::reply`] with what the device
//! should do next. Correlation needs nothing but the state: `MsgRef` and `CmdRef` lead back to the part that the
//! caller named in its [`Offer`].
//!
//! * Commands go only to a session whose transport is proved; a digest alone never suffices.
//! * A challenge carries no commands, and nothing of the challenged message is processed.
//! * A message that comes again is answered again, not processed again.

mod collect;
mod receive;
mod reply;

use serde::{Deserialize, Serialize};

use super::auth::{Md5, Nonces, Scheme, Secret};
use super::{Command, Item};
use collect::Partial;

pub use reply::{Held, Reply, ServerProof};

/// Bounds of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Challenges per session; native clients give up after two.
    pub max_challenges: u8,
    /// Bytes of one object that comes in several messages.
    pub max_object: usize,
    /// Messages that one object may come in.
    pub max_chunks: u32,
    /// Commands that one reply carries.
    pub max_commands: usize,
    /// Bytes of a reply, unless a single part is larger. A smaller `MaxMsgSize` of the device goes before.
    pub max_message: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_challenges: 2,
            max_object: 16 * 1024 * 1024,
            max_chunks: 10_000,
            max_commands: 60,
            max_message: 256 * 1024,
        }
    }
}

/// What is known about who sent a message.
#[derive(Debug)]
pub struct Proof<'a> {
    /// A client certificate, a message signature or a trusted proxy's header names this enrollment.
    pub transport: bool,
    /// What `Cred` must prove beside it, when the enrollment has such a secret.
    pub secret: Option<&'a Secret>,
    /// The nonces of that secret. Changed when a fresh one goes out: store them before the reply leaves.
    pub nonces: &'a mut Nonces,
    /// 16 or more random bytes, never used before.
    pub fresh: &'a [u8],
    /// The caller's MD5.
    pub md5: Md5,
}

/// What [`Session::receive`] decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is a challenge (401 or 407).
    Challenge,
    /// The device did not prove itself; the reply says so and ends the session.
    Refused,
    /// Commands may be offered.
    Ready,
    /// The reply carries statuses only: the device's package goes on, or it is still busy.
    Hold,
    /// The message came again. Parts that the lost reply had carried are no longer counted as sent.
    Repeated,
    /// The device aborted the session. An empty answer is enough.
    Aborted,
}

/// What [`Session::receive`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What happens next.
    pub outcome: Outcome,
    /// What the message said, in its order.
    pub events: Vec<Event>,
}

/// One thing that a message said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Alert 1200 (`pushed`) or 1201.
    Started {
        /// The session answers a notification of ours.
        pushed: bool,
    },
    /// The device began anew under the same `SessionID`; these parts never got an answer.
    Restarted {
        /// Parts without a final status.
        unanswered: Vec<String>,
    },
    /// Nodes that the device sent with `Replace`: `./DevInfo`.
    DeviceInfo(Vec<(String, String)>),
    /// 1224 `com.microsoft/MDM/LoginStatus`.
    Login(Login),
    /// 1224 `com.microsoft/MDM/AADUserToken`. A secret.
    UserToken(String),
    /// 1224 `com.microsoft.mdm.declaredconfigurationdocuments`: markup.
    DeclaredConfiguration(String),
    /// 1226 `com.microsoft:mdm.unenrollment.userrequest`.
    Unenrolled,
    /// Any other item of an alert.
    Alert {
        /// 1224, 1226 or another code.
        code: u16,
        /// `Correlator`.
        correlator: Option<String>,
        /// The item, when the alert has one.
        item: Option<Item>,
    },
    /// A status of a command that we sent.
    Status {
        /// The caller's name for it.
        part: String,
        /// Which command of the offer: its index, then the index inside a group.
        path: Vec<u16>,
        /// The node.
        uri: String,
        /// The status code.
        code: u16,
        /// The HRESULT behind it.
        original_error: Option<String>,
        /// How many commands of the part have no status yet.
        remaining: usize,
    },
    /// One item of the results of a `Get` that we sent, complete even when it came in pieces.
    Results {
        /// The caller's name for it.
        part: String,
        /// Which command of the offer.
        path: Vec<u16>,
        /// The item.
        item: Item,
    },
    /// A status or results for a command that this session did not send, or has closed.
    Unmatched {
        /// `CmdRef`.
        cmd_ref: String,
    },
    /// The device wanted our credential first: these parts were not processed and can be offered again.
    Unprocessed {
        /// The parts.
        parts: Vec<String>,
    },
    /// The nonce that the device wants from us in its next session.
    ServerNonce(Vec<u8>),
    /// The device did not accept our credential twice.
    ServerRejected,
    /// Alert 1223; these parts never got an answer.
    Aborted {
        /// Parts without a final status.
        unanswered: Vec<String>,
    },
}

/// Who is signed in at the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Login {
    /// Not said.
    #[default]
    Unknown,
    /// The enrolled user: `./User` nodes can be reached.
    User,
    /// Somebody else.
    Others,
    /// Nobody.
    Nobody,
}

/// Something for the device to do: commands that belong together and travel in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The caller's name for it.
    pub part: String,
    /// The commands; the session numbers them.
    pub commands: Vec<Command>,
}

/// One session. Serialise it between two messages; it outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    session_id: String,
    device: String,
    server: String,
    phase: Phase,
    our_msg: u32,
    peer_msg: u32,
    last_seen: i64,
    challenges: u8,
    server_challenges: u8,
    proved: bool,
    login: Login,
    /// May the reply carry commands?
    ready: bool,
    header: HeaderStatus,
    owed: Vec<Owed>,
    alerts: Vec<u16>,
    sent: Vec<Sent>,
    partial: Option<Partial>,
    sending: Option<Sending>,
    max_message: Option<u64>,
    max_object: Option<u64>,
    /// With what the next reply proves the server, when the device asks.
    prove: Option<(Scheme, Vec<u8>)>,
    last: LastReply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Fresh,
    Challenged,
    Open,
    Ended,
}

/// The status of the header that the next reply carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct HeaderStatus {
    code: u16,
    challenge: Option<(Scheme, Vec<u8>)>,
}

/// A status that we owe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owed {
    msg_ref: u32,
    cmd_ref: String,
    cmd: String,
    code: u16,
}

/// A command that we sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    msg: u32,
    cmd: String,
    part: String,
    path: Vec<u16>,
    uri: String,
    answered: bool,
    /// A piece of an object of which more will follow.
    piece: bool,
}

/// An object on its way to the device in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sending {
    part: String,
    offset: usize,
    /// Bytes in the piece that has not been confirmed.
    pending: usize,
}

/// What is needed to answer once more when the last reply was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LastReply {
    owed: Vec<Owed>,
    alerts: Vec<u16>,
    ready: bool,
}

impl Session {
    /// A session that a device opens. `server` is the address as it was provisioned (`ADDR`).
    #[must_use]
    pub fn new(session_id: impl Into<String>, device: impl Into<String>, server: impl Into<String>) -> Self {
        Self {
            session_id: session_id.into(),
            device: device.into(),
            server: server.into(),
            phase: Phase::Fresh,
            our_msg: 0,
            peer_msg: 0,
            last_seen: 0,
            challenges: 0,
            server_challenges: 0,
            proved: false,
            login: Login::Unknown,
            ready: false,
            header: HeaderStatus::default(),
            owed: Vec::new(),
            alerts: Vec::new(),
            sent: Vec::new(),
            partial: None,
            sending: None,
            max_message: None,
            max_object: None,
            prove: None,
            last: LastReply::default(),
        }
    }

    /// `SessionID`.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// Who is signed in, as far as the device said.
    #[must_use]
    pub fn login(&self) -> Login {
        self.login
    }

    /// When the last message came, as the caller counts time.
    #[must_use]
    pub fn last_seen(&self) -> i64 {
        self.last_seen
    }

    /// Whether the device has proved itself in this session and it has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The part whose object is on its way in pieces: its offer must come again with the next reply.
    #[must_use]
    pub fn in_pieces(&self) -> Option<&str> {
        self.sending.as_ref().map(|sending| sending.part.as_str())
    }

    /// Parts that were sent and have no final status: to be offered again in a later session, or, when they must
    /// not run twice, to be reported as unknown.
    #[must_use]
    pub fn unanswered(&self) -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        for sent in self.sent.iter().filter(|sent| !sent.answered) {
            if parts.last() != Some(&sent.part) && !parts.contains(&sent.part) {
                parts.push(sent.part.clone());
            }
        }
        parts
    }

    /// The next reply proves the server, without waiting to be asked.
    pub fn prove(&mut self, scheme: Scheme, nonce: impl Into<Vec<u8>>) {
        self.prove = Some((scheme, nonce.into()));
    }
}
