//! The typed form of a SyncML message (SyncML Representation Protocol 1.2, DTD), as far as OMA-DM uses it.

use serde::{Deserialize, Serialize};

/// One message: a header, the commands of its body, and whether it ends the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `SyncHdr`.
    pub header: Header,
    /// The children of `SyncBody` in document order.
    pub commands: Vec<Command>,
    /// Whether `Final` was there: the last message of a package.
    pub last: bool,
}

/// `SyncHdr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `VerDTD`, `1.2` (or `1.1` in older samples).
    pub ver_dtd: String,
    /// `VerProto`, `DM/1.2` (or `DM/1.1`).
    pub ver_proto: String,
    /// `SessionID`, opaque: decimal, or hexadecimal with SyncApplicationVersion 2.0 and above. Echo it.
    pub session_id: String,
    /// `MsgID`; each side counts its own from 1.
    pub msg_id: u32,
    /// `Target`.
    pub target: Location,
    /// `Source`: from a device, its DevId; `LocName` is the user name of the credential.
    pub source: Location,
    /// `RespURI`.
    pub resp_uri: Option<String>,
    /// `NoResp`.
    pub no_resp: bool,
    /// `Cred`.
    pub cred: Option<Cred>,
    /// `Meta`: sizes that the peer announces.
    pub meta: Meta,
}

/// `Target` or `Source`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// `LocURI`.
    pub uri: String,
    /// `LocName`.
    pub name: Option<String>,
}

impl Location {
    /// A location without a name.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), name: None }
    }
}

/// `Cred`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cred {
    /// `Meta/Type`: `syncml:auth-md5` or `syncml:auth-basic`.
    pub kind: Option<String>,
    /// `Meta/Format`: `b64`.
    pub format: Option<Format>,
    /// `Data`, as it stands.
    pub data: String,
}

impl std::fmt::Debug for Cred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cred").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// `Chal`: what the other side wants as credential next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chal {
    /// `Type`, `Format` and `NextNonce`.
    pub meta: Meta,
}

/// `Meta`, with the elements of `syncml:metinf` that OMA-DM uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// `Format`.
    pub format: Option<Format>,
    /// `Type`.
    pub kind: Option<String>,
    /// `Mark`: the urgency of an alert.
    pub mark: Option<String>,
    /// `Size`: bytes of the whole object.
    pub size: Option<u64>,
    /// `NextNonce`, base64.
    pub next_nonce: Option<String>,
    /// `MaxMsgSize` in bytes.
    pub max_msg_size: Option<u64>,
    /// `MaxObjSize` in bytes.
    pub max_obj_size: Option<u64>,
}

impl Meta {
    /// A meta with a format only.
    #[must_use]
    pub fn format(format: Format) -> Self {
        Self { format: Some(format), ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `Format`: how `Data` is to be read (OMA-DM tree and description, MS-MDM 2.2.5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the values")]
pub enum Format {
    Chr,
    Int,
    Bool,
    B64,
    Bin,
    Null,
    Xml,
    Node,
    Float,
    Date,
    Time,
    /// A format that the specification does not name.
    Other(String),
}

impl Format {
    /// The value on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Chr => "chr",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::B64 => "b64",
            Self::Bin => "bin",
            Self::Null => "null",
            Self::Xml => "xml",
            Self::Node => "node",
            Self::Float => "float",
            Self::Date => "date",
            Self::Time => "time",
            Self::Other(name) => name,
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "chr" => Self::Chr,
            "int" => Self::Int,
            "bool" => Self::Bool,
            "b64" => Self::B64,
            "bin" => Self::Bin,
            "null" => Self::Null,
            "xml" => Self::Xml,
            "node" => Self::Node,
            "float" => Self::Float,
            "date" => Self::Date,
            "time" => Self::Time,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// `Data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// Character data, unescaped.
    Text(String),
    /// Child elements: the bytes between the tags exactly as they stood.
    Markup(String),
    /// Bytes that are not text; only WBXML can carry them. The XML writer refuses them: use base64.
    Binary(Vec<u8>),
}

impl Data {
    /// Text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The text or markup.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Markup(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The size in bytes, as `Meta/Size` counts it.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Markup(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `Item`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// `Target`.
    pub target: Option<Location>,
    /// `Source`.
    pub source: Option<Location>,
    /// `Meta`.
    pub meta: Meta,
    /// `Data`.
    pub data: Option<Data>,
    /// `MoreData`: the object continues in the next message.
    pub more: bool,
}

impl Item {
    /// The node that the item is about: its target or, in what devices send, its source.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        self.source.as_ref().or(self.target.as_ref()).map(|location| location.uri.as_str())
    }
}

/// A child of `SyncBody`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `Alert`.
    Alert(Alert),
    /// `Status`.
    Status(Status),
    /// `Results`.
    Results(Results),
    /// `Get`, `Add`, `Replace`, `Delete` or `Exec`.
    Request(Request),
    /// `Atomic` or `Sequence`.
    Group(Group),
    /// Any other command. It is answered with one status; the rest of the message counts.
    Unknown {
        /// The element's name.
        name: String,
        /// Its `CmdID`, when it has one.
        cmd_id: String,
    },
}

/// `Alert`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alert {
    /// `CmdID`.
    pub cmd_id: String,
    /// `NoResp`.
    pub no_resp: bool,
    /// `Data`: the alert code, 1200 to 1226.
    pub code: u16,
    /// `Correlator`.
    pub correlator: Option<String>,
    /// `Item`s.
    pub items: Vec<Item>,
}

/// `Status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// `CmdID`.
    pub cmd_id: String,
    /// `MsgRef`.
    pub msg_ref: Option<u32>,
    /// `CmdRef`; `0` is the header.
    pub cmd_ref: String,
    /// `Cmd`.
    pub cmd: String,
    /// `TargetRef`s.
    pub target_refs: Vec<String>,
    /// `SourceRef`s.
    pub source_refs: Vec<String>,
    /// `Chal`.
    pub chal: Option<Chal>,
    /// `Data`: the status code.
    pub code: u16,
    /// `msft:originalerror` of `Data`: the HRESULT behind the code (MS-MDM 2.2.7.11).
    pub original_error: Option<String>,
    /// `Item`s.
    pub items: Vec<Item>,
}

/// `Results`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// `CmdID`.
    pub cmd_id: String,
    /// `MsgRef`; absent means 1 by the representation protocol, and in practice "the last one".
    pub msg_ref: Option<u32>,
    /// `CmdRef`.
    pub cmd_ref: String,
    /// `Cmd`, which Windows adds.
    pub cmd: Option<String>,
    /// `Meta`.
    pub meta: Meta,
    /// `Item`s.
    pub items: Vec<Item>,
}

/// The verbs that act on nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the elements")]
pub enum Verb {
    Get,
    Add,
    Replace,
    Delete,
    Exec,
}

impl Verb {
    /// The element's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "Get",
            Self::Add => "Add",
            Self::Replace => "Replace",
            Self::Delete => "Delete",
            Self::Exec => "Exec",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Get, Self::Add, Self::Replace, Self::Delete, Self::Exec]
            .into_iter()
            .find(|verb| verb.as_str() == name)
    }
}

/// `Get`, `Add`, `Replace`, `Delete` or `Exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The element.
    pub verb: Verb,
    /// `CmdID`. Empty in what callers hand to a session, which numbers its commands itself.
    pub cmd_id: String,
    /// `NoResp`.
    pub no_resp: bool,
    /// `Meta` of the command.
    pub meta: Meta,
    /// `Item`s.
    pub items: Vec<Item>,
}

impl Request {
    /// A request about one node.
    #[must_use]
    pub fn new(verb: Verb, item: Item) -> Self {
        Self { verb, cmd_id: String::new(), no_resp: false, meta: Meta::default(), items: vec![item] }
    }
}

/// `Atomic` or `Sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// All or nothing.
    Atomic,
    /// In order.
    Sequence,
}

impl GroupKind {
    /// The element's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Atomic => "Atomic",
            Self::Sequence => "Sequence",
        }
    }
}

/// A group of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The element.
    pub kind: GroupKind,
    /// `CmdID`.
    pub cmd_id: String,
    /// `NoResp`.
    pub no_resp: bool,
    /// `Meta`.
    pub meta: Meta,
    /// The commands inside.
    pub commands: Vec<Command>,
}

impl Command {
    /// The element's name, as `Cmd` of a status names it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Alert(_) => "Alert",
            Self::Status(_) => "Status",
            Self::Results(_) => "Results",
            Self::Request(request) => request.verb.as_str(),
            Self::Group(group) => group.kind.as_str(),
            Self::Unknown { name, .. } => name,
        }
    }

    /// The `CmdID`.
    #[must_use]
    pub fn cmd_id(&self) -> &str {
        match self {
            Self::Alert(alert) => &alert.cmd_id,
            Self::Status(status) => &status.cmd_id,
            Self::Results(results) => &results.cmd_id,
            Self::Request(request) => &request.cmd_id,
            Self::Group(group) => &group.cmd_id,
            Self::Unknown { cmd_id, .. } => cmd_id,
        }
    }

    pub(crate) fn set_cmd_id(&mut self, id: String) {
        match self {
            Self::Alert(alert) => alert.cmd_id = id,
            Self::Status(status) => status.cmd_id = id,
            Self::Results(results) => results.cmd_id = id,
            Self::Request(request) => request.cmd_id = id,
            Self::Group(group) => group.cmd_id = id,
            Self::Unknown { cmd_id, .. } => *cmd_id = id,
        }
    }

    /// Whether the sender wants no status for it.
    #[must_use]
    pub fn no_resp(&self) -> bool {
        match self {
            Self::Alert(alert) => alert.no_resp,
            Self::Request(request) => request.no_resp,
            Self::Group(group) => group.no_resp,
            Self::Status(_) | Self::Results(_) | Self::Unknown { .. } => false,
        }
    }
}
