//! CSP nodes: what to send to a Windows machine for what an administrator wants (Microsoft's CSP reference).
//!
//! Each constructor yields [`Step`]s with verb, LocURI, format and data as the node wants them. [`check`] compares
//! a step with the machine by a small table of the nodes that we emit.

mod actions;
mod apps;
mod certificates;
mod document;
mod inventory;
mod network;
mod nodes;
mod policy;

pub use actions::*;
pub use apps::*;
pub use certificates::*;
pub use inventory::*;
pub use network::*;
pub use nodes::{Machine, NODES, Node, Refusal, Scope, check, find};
pub use policy::*;

use crate::syncml::{Command, Data, Format, Group, GroupKind, Item, Location, Meta, Request, Verb};

/// Why a command cannot be built from what an administrator gave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value has a form that the node does not take.
    #[error("{field} is unusable: {reason}")]
    Unusable {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

pub(crate) fn unusable(field: &'static str, reason: &'static str) -> Error {
    Error::Unusable { field, reason }
}

/// One command about one node.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeCommand {
    /// What to do.
    pub verb: Verb,
    /// The node.
    pub uri: String,
    /// The format of the data; none for `Get` and `Delete`.
    pub format: Option<Format>,
    /// The data. May be a secret: not in `Debug`.
    pub data: Option<String>,
}

impl std::fmt::Debug for NodeCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCommand")
            .field("verb", &self.verb)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

impl NodeCommand {
    pub(crate) fn get(uri: impl Into<String>) -> Self {
        Self { verb: Verb::Get, uri: uri.into(), format: None, data: None }
    }

    pub(crate) fn delete(uri: impl Into<String>) -> Self {
        Self { verb: Verb::Delete, uri: uri.into(), format: None, data: None }
    }

    pub(crate) fn exec(uri: impl Into<String>) -> Self {
        Self { verb: Verb::Exec, uri: uri.into(), format: None, data: None }
    }

    pub(crate) fn with(verb: Verb, uri: impl Into<String>, format: Format, data: impl Into<String>) -> Self {
        Self { verb, uri: uri.into(), format: Some(format), data: Some(data.into()) }
    }

    pub(crate) fn add(uri: impl Into<String>, format: Format, data: impl Into<String>) -> Self {
        Self::with(Verb::Add, uri, format, data)
    }

    pub(crate) fn replace(uri: impl Into<String>, format: Format, data: impl Into<String>) -> Self {
        Self::with(Verb::Replace, uri, format, data)
    }

    /// As a SyncML command without `CmdID`.
    #[must_use]
    pub fn to_command(&self) -> Command {
        let meta = Meta {
            kind: self
                .format
                .as_ref()
                .filter(|format| **format != Format::Null)
                .map(|_| "text/plain".to_owned()),
            format: self.format.clone(),
            ..Meta::default()
        };
        let item = Item {
            target: Some(Location::new(&*self.uri)),
            meta,
            data: self.data.as_ref().map(|data| Data::text(&**data)),
            ..Item::default()
        };
        Command::Request(Request::new(self.verb, item))
    }
}

/// One command, or several that succeed or fail together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One command.
    One(NodeCommand),
    /// `Atomic`: for nodes that are marked so, and never with a `Get` inside.
    Atomic(Vec<NodeCommand>),
}

impl Step {
    /// The commands in it.
    #[must_use]
    pub fn commands(&self) -> &[NodeCommand] {
        match self {
            Self::One(command) => std::slice::from_ref(command),
            Self::Atomic(commands) => commands,
        }
    }

    /// As a SyncML command without `CmdID`, for [`Offer`](crate::syncml::session::Offer).
    #[must_use]
    pub fn to_command(&self) -> Command {
        match self {
            Self::One(command) => command.to_command(),
            Self::Atomic(commands) => Command::Group(Group {
                kind: GroupKind::Atomic,
                cmd_id: String::new(),
                no_resp: false,
                meta: Meta::default(),
                commands: commands.iter().map(NodeCommand::to_command).collect(),
            }),
        }
    }
}

impl From<NodeCommand> for Step {
    fn from(command: NodeCommand) -> Self {
        Self::One(command)
    }
}

pub(crate) const DEVICE: &str = "./Device/Vendor/MSFT/";

/// `./Device/Vendor/MSFT/` and a path.
pub(crate) fn device(path: &str) -> String {
    [DEVICE, path].concat()
}

/// A byte as two upper-case digits.
fn hex_digits(byte: u8) -> impl Iterator<Item = char> {
    let digit = |digit: u8| char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase());
    [byte >> 4, byte & 15].into_iter().filter_map(digit)
}

/// A name as one segment of a LocURI: UTF-8, everything but unreserved characters as `%XX` (MS-MDM 2.2.4.1).
///
/// # Errors
/// For a name that is empty, a wildcard (`*`), one that leads elsewhere (`.`, `..`), or has a control character.
pub fn segment(field: &'static str, name: &str) -> Result<String, Error> {
    if matches!(name, "" | "*" | "." | "..") || name.chars().any(char::is_control) {
        return Err(unusable(field, "a name must not be empty, only * or dots, or have control characters"));
    }
    if name.len() > 512 {
        return Err(unusable(field, "it is longer than 512 bytes"));
    }
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(hex_digits(byte));
        }
    }
    Ok(out)
}
