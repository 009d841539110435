//! Which command may go to which device (`supportedOS` in `mdm/commands/*.yaml`).
//!
//! Unknown is not yes: a device that has not said what it is gets questions only, and a command that
//! needs supervision waits until the device has reported it.

use crate::family::{Family, Os, Version};

/// The channel a command is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ChannelKind {
    /// The device.
    #[default]
    Device,
    /// A user of a Mac or of a Shared iPad.
    User,
}

/// What is known about the device. `Default` is "nothing".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target {
    /// The family.
    pub family: Family,
    /// The version of its system.
    pub os_version: Option<Version>,
    /// Whether it is supervised.
    pub supervised: Option<bool>,
    /// Whether this is a user enrollment.
    pub user_enrollment: bool,
    /// The channel.
    pub channel: ChannelKind,
    /// Whether it is a Shared iPad.
    pub shared_ipad: Option<bool>,
    /// Whether Automated Device Enrollment brought it.
    pub automated_enrollment: Option<bool>,
    /// The `AccessRights` of its enrollment profile; none when not recorded.
    pub access_rights: Option<u32>,
}

/// Why a command may not go to a device. `Display` is a sentence for an administrator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// Apple's schema, as far as we know it, has no such command. A caller that lets administrators
    /// send raw commands may accept this one variant.
    #[error("{request_type} is not a command that this server knows.")]
    UnknownCommand {
        /// The request type.
        request_type: String,
    },
    /// The device has not said what it is.
    #[error("{command} has to wait: this device has not reported yet what it is.")]
    FamilyUnknown {
        /// The command in words.
        command: String,
    },
    /// The device has not said which version it runs.
    #[error("{command} has to wait: this {} has not reported its version of {} yet.", .family.noun(), .os.name())]
    VersionUnknown {
        /// The command in words.
        command: String,
        /// The family.
        family: Family,
        /// Its system.
        os: Os,
    },
}

/// Decides whether a command may go to a device.
///
/// # Errors
/// [`Unsupported`] says why not.
pub fn check(request_type: &str, target: &Target) -> Result<(), Unsupported> {
    let _ = target;
    Err(Unsupported::UnknownCommand { request_type: request_type.to_owned() })
}
