//! The nodes that we emit: what they take, since when, and for whom.

mod table;

pub use table::NODES;

use super::{NodeCommand, Step};
use crate::syncml::{Format, Verb};

/// Whose settings a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The machine's.
    Device,
    /// Those of the user of the session.
    User,
}

impl Scope {
    /// The start of a LocURI.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Device => super::DEVICE,
            Self::User => "./User/Vendor/MSFT/",
        }
    }

    /// The scope of a LocURI; without a prefix it is the device's.
    #[must_use]
    pub fn of(uri: &str) -> Self {
        let user = uri.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("./User/"));
        if user { Self::User } else { Self::Device }
    }
}

/// A node of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The LocURI; `{}` stands for one segment that is a name.
    pub pattern: &'static str,
    /// The format; none where the setting decides (policies).
    pub format: Option<Format>,
    /// The verbs that it takes, separated by blanks.
    pub verbs: &'static str,
    /// (build, revision) from which it exists; several for several servicing branches, none for every build.
    pub builds: &'static [(u32, u32)],
    /// It belongs to a subtree that is set as a whole.
    pub atomic: bool,
}

/// What is known about a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Build and revision, from `10.0.22621.1480`; none when it is not known, which refuses nothing.
    pub build: Option<(u32, u32)>,
    /// It runs a Home edition.
    pub home: bool,
    /// The enrolled user is signed in.
    pub user_signed_in: bool,
}

/// Why a machine will not take a command, in words for administrators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The node came with a later build.
    #[error("{uri} needs Windows build {needs}; this machine has build {has}")]
    Build {
        /// The node.
        uri: String,
        /// The build that it came with.
        needs: u32,
        /// The machine's build.
        has: u32,
    },
    /// The Home edition does not have it.
    #[error("{uri} is not available in Windows Home")]
    Edition {
        /// The node.
        uri: String,
    },
    /// A user's setting while that user is not signed in.
    #[error("{uri} is a setting of the user, who is not signed in")]
    NoUser {
        /// The node.
        uri: String,
    },
    /// The node does not take the verb.
    #[error("{uri} does not take {verb}")]
    Verb {
        /// The node.
        uri: String,
        /// The verb.
        verb: &'static str,
    },
    /// The node has another format.
    #[error("{uri} takes data of another format")]
    Format {
        /// The node.
        uri: String,
    },
    /// One Atomic cannot hold it.
    #[error("an Atomic holds nodes of one scope and no Get")]
    Atomic,
}

/// Subtrees that Windows Home lacks.
const NOT_IN_HOME: &[&str] = &[
    "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/",
    "./Device/Vendor/MSFT/BitLocker/",
    "./Device/Vendor/MSFT/LAPS/",
];

/// The node behind a LocURI.
#[must_use]
pub fn find(uri: &str) -> Option<&'static Node> {
    NODES.iter().find(|node| {
        let mut names = uri.split('/');
        let fits = node.pattern.split('/').all(|part| {
            names.next().is_some_and(|name| {
                if part == "{}" { !name.is_empty() } else { part.eq_ignore_ascii_case(name) }
            })
        });
        fits && names.next().is_none()
    })
}

/// Whether a machine can take a step. Nodes that are not in the table pass: raw commands are the administrator's.
///
/// # Errors
/// The first reason why it cannot.
pub fn check(step: &Step, machine: &Machine) -> Result<(), Refusal> {
    if let Step::Atomic(commands) = step {
        let mut scopes = commands.iter().map(|command| Scope::of(&command.uri));
        let first = scopes.next();
        if scopes.any(|scope| Some(scope) != first)
            || commands.iter().any(|command| command.verb == Verb::Get)
        {
            return Err(Refusal::Atomic);
        }
    }
    step.commands().iter().try_for_each(|command| check_one(command, machine))
}

fn check_one(command: &NodeCommand, machine: &Machine) -> Result<(), Refusal> {
    let uri = || command.uri.clone();
    if Scope::of(&command.uri) == Scope::User && !machine.user_signed_in {
        return Err(Refusal::NoUser { uri: uri() });
    }
    let Some(node) = find(&command.uri) else { return Ok(()) };
    if !node.verbs.split(' ').any(|verb| verb == command.verb.as_str()) {
        return Err(Refusal::Verb { uri: uri(), verb: command.verb.as_str() });
    }
    if command.format.is_some() && node.format.is_some() && command.format != node.format {
        return Err(Refusal::Format { uri: uri() });
    }
    if machine.home && NOT_IN_HOME.iter().any(|start| command.uri.starts_with(start)) {
        return Err(Refusal::Edition { uri: uri() });
    }
    if let (Some((build, revision)), Some(first)) = (machine.build, node.builds.first()) {
        // The branch that the machine is on, or came from: the newest that is not newer than it.
        let branch = node.builds.iter().rfind(|(branch, _)| *branch <= build);
        let old = branch.is_none_or(|(branch, needs)| *branch == build && revision < *needs);
        if old {
            return Err(Refusal::Build { uri: uri(), needs: branch.unwrap_or(first).0, has: build });
        }
    }
    Ok(())
}
