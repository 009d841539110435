//! Which command may go to which device (`supportedOS` in `mdm/commands/*.yaml`).
//!
//! Unknown is not yes: a device that has not said what it is gets questions only, and a command that
//! needs supervision waits until the device has reported it. Deprecated is not removed: a deprecated
//! command is still delivered.

mod rule;
mod table;

use crate::family::{Family, Os, Version};
use rule::{Row, Rule, Shared};

/// What every device may be asked, whatever is known about it.
const ALWAYS: &[&str] = &["DeviceInformation", "SecurityInfo"];

/// What must work before the first inventory: every system that can enroll and has these commands at
/// all has had them since its first version with device management, so the family is enough.
const BEFORE_INVENTORY: &[&str] = &[
    "DeviceLock",
    "EraseDevice",
    "InstallProfile",
    "RemoveProfile",
    "ProfileList",
    "CertificateList",
    "DeviceConfigured",
];

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
        command: &'static str,
    },
    /// The device has not said which version it runs.
    #[error("{command} has to wait: this {} has not reported its version of {} yet.", .family.noun(), .os.name())]
    VersionUnknown {
        /// The command in words.
        command: &'static str,
        /// The family.
        family: Family,
        /// Its system.
        os: Os,
    },
    /// No device of the family has the command.
    #[error("{command} works on {only} only; this device is {}.", with_article(*.family))]
    WrongFamily {
        /// The command in words.
        command: &'static str,
        /// The families that have it.
        only: String,
        /// This device's family.
        family: Family,
    },
    /// The system is too old.
    #[error("{command} needs {} {needed} or later; this device runs {version}.", .os.name())]
    TooOld {
        /// The command in words.
        command: &'static str,
        /// The system.
        os: Os,
        /// The first version that has it.
        needed: Version,
        /// The device's version.
        version: Version,
    },
    /// Apple removed the command.
    #[error(
        "Apple removed this command from {} {removed}, and this device runs {version}: {command} is \
         no longer possible this way. Use a declarative policy instead.", .os.name()
    )]
    Removed {
        /// The command in words.
        command: &'static str,
        /// The system.
        os: Os,
        /// The first version without it.
        removed: Version,
        /// The device's version.
        version: Version,
    },
    /// The device is not supervised, or has not said so.
    #[error(
        "{command} needs a supervised {}; this device {}.", class(*.os),
        if *.reported { "is not supervised" } else { "has not reported that it is supervised" }
    )]
    NotSupervised {
        /// The command in words.
        command: &'static str,
        /// The system.
        os: Os,
        /// Whether the device said that it is not.
        reported: bool,
    },
    /// The device was not enrolled by Automated Device Enrollment.
    #[error("{command} needs a device that came by Automated Device Enrollment; this one did not.")]
    NotAutomated {
        /// The command in words.
        command: &'static str,
    },
    /// User enrollment protects the owner from the command.
    #[error("{command} is not allowed on a personal device (user enrollment).")]
    UserEnrollment {
        /// The command in words.
        command: &'static str,
    },
    /// The command belongs to the other channel.
    #[error(
        "{command} is a command for the {}, not for the {}.",
        if *.wanted == ChannelKind::User { "device" } else { "user" },
        if *.wanted == ChannelKind::User { "user" } else { "device" }
    )]
    WrongChannel {
        /// The command in words.
        command: &'static str,
        /// The channel that was asked for.
        wanted: ChannelKind,
    },
    /// Shared iPads do not take the command.
    #[error("{command} is not possible on a Shared iPad.")]
    SharedIpad {
        /// The command in words.
        command: &'static str,
    },
    /// Only Shared iPads take the command.
    #[error("{command} needs a Shared iPad; this device has not reported that it is one.")]
    NotSharedIpad {
        /// The command in words.
        command: &'static str,
    },
    /// The enrollment profile did not ask for the right.
    #[error(
        "{command} is not permitted: the enrollment profile of this device lacks the access right \
         {right}. Rights can only be given by enrolling again."
    )]
    NoRight {
        /// The command in words.
        command: &'static str,
        /// The bit in `AccessRights`.
        right: u32,
    },
}

/// Decides whether a command may go to a device. Call it when a command is asked for, and again
/// before it is delivered: the device may have changed in between.
///
/// # Errors
/// [`Unsupported`] says why not.
pub fn check(request_type: &str, target: &Target) -> Result<(), Unsupported> {
    let row = find(request_type)
        .ok_or_else(|| Unsupported::UnknownCommand { request_type: request_type.to_owned() })?;
    let command = row.title;
    let Some(os) = target.family.os() else {
        return if ALWAYS.contains(&row.request_type) {
            Ok(())
        } else {
            Err(Unsupported::FamilyUnknown { command })
        };
    };
    let Some(rule) = row.rule(os) else {
        return Err(Unsupported::WrongFamily { command, only: families(row), family: target.family });
    };
    check_version(row, &rule, os, target)?;
    check_channel(row, &rule, os, target)?;
    if target.user_enrollment && !rule.byod && !matches!(os, Os::Tvos | Os::Watchos) {
        return Err(Unsupported::UserEnrollment { command });
    }
    if rule.supervised && target.supervised != Some(true) {
        let reported = target.supervised == Some(false);
        return Err(Unsupported::NotSupervised { command, os, reported });
    }
    // Nothing but the enrollment itself tells; where it is not recorded the device decides.
    if rule.automated && target.automated_enrollment == Some(false) {
        return Err(Unsupported::NotAutomated { command });
    }
    match target.access_rights {
        // User enrollment ignores access rights (com.apple.mdm.yaml).
        Some(rights) if !target.user_enrollment && rights & rule.right != rule.right => {
            Err(Unsupported::NoRight { command, right: rule.right })
        }
        _ => Ok(()),
    }
}

/// The command at the beginning of a sentence: "Lost mode", "Restarting".
#[must_use]
pub fn title(request_type: &str) -> Option<&'static str> {
    find(request_type).map(|row| row.title)
}

/// Every request type that is known, sorted.
pub fn request_types() -> impl Iterator<Item = &'static str> {
    table::TABLE.iter().map(|row| row.request_type)
}

fn find(request_type: &str) -> Option<&'static Row> {
    table::TABLE.iter().find(|row| row.request_type == request_type)
}

fn check_version(row: &Row, rule: &Rule, os: Os, target: &Target) -> Result<(), Unsupported> {
    let command = row.title;
    let Some(version) = target.os_version else {
        let early = ALWAYS.contains(&row.request_type) || BEFORE_INVENTORY.contains(&row.request_type);
        return if early {
            Ok(())
        } else {
            Err(Unsupported::VersionUnknown { command, family: target.family, os })
        };
    };
    if version < rule.introduced {
        return Err(Unsupported::TooOld { command, os, needed: rule.introduced, version });
    }
    match rule.removed {
        Some(removed) if version >= removed => Err(Unsupported::Removed { command, os, removed, version }),
        _ => Ok(()),
    }
}

fn check_channel(row: &Row, rule: &Rule, os: Os, target: &Target) -> Result<(), Unsupported> {
    let command = row.title;
    let wanted = target.channel;
    let wrong = Err(Unsupported::WrongChannel { command, wanted });
    if os != Os::Ios {
        let open = match wanted {
            ChannelKind::Device => rule.device_channel,
            ChannelKind::User => rule.user_channel,
        };
        return if open { Ok(()) } else { wrong };
    }
    // On iOS the only user channel is that of a Shared iPad.
    let shared = target.shared_ipad == Some(true) || wanted == ChannelKind::User;
    if !shared {
        return if rule.shared_only { Err(Unsupported::NotSharedIpad { command }) } else { Ok(()) };
    }
    match (rule.shared, wanted) {
        (None, _) => Err(Unsupported::SharedIpad { command }),
        (Some(Shared::Both), _)
        | (Some(Shared::Device), ChannelKind::Device)
        | (Some(Shared::User), ChannelKind::User) => Ok(()),
        _ => wrong,
    }
}

/// "iPhone, iPad and Mac".
fn families(row: &Row) -> String {
    let mut names = Vec::new();
    for (os, families) in [
        (Os::Ios, &["iPhone", "iPad"][..]),
        (Os::Macos, &["Mac"]),
        (Os::Tvos, &["Apple TV"]),
        (Os::Visionos, &["Apple Vision"]),
        (Os::Watchos, &["Apple Watch"]),
    ] {
        if row.rule(os).is_some() {
            names.extend_from_slice(families);
        }
    }
    match names.split_last() {
        None => "no device".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

fn class(os: Os) -> &'static str {
    match os {
        Os::Ios => "iPhone or iPad",
        Os::Macos => "Mac",
        Os::Tvos => "Apple TV",
        Os::Visionos => "Apple Vision",
        Os::Watchos => "Apple Watch",
    }
}

fn with_article(family: Family) -> String {
    let article = match family {
        Family::Mac => "a",
        _ => "an",
    };
    format!("{article} {}", family.noun())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac() -> Target {
        Target { family: Family::Mac, os_version: Version::parse("15.2"), ..Target::default() }
    }

    fn iphone() -> Target {
        Target { family: Family::Iphone, os_version: Version::parse("18.1"), ..Target::default() }
    }

    fn sentence(request_type: &str, target: &Target) -> String {
        check(request_type, target).unwrap_err().to_string()
    }

    #[test]
    fn sentences_for_administrators() {
        assert_eq!(
            sentence("EnableLostMode", &iphone()),
            "Lost mode needs a supervised iPhone or iPad; this device has not reported that it is \
             supervised."
        );
        assert_eq!(
            sentence("EnableLostMode", &Target { supervised: Some(false), ..iphone() }),
            "Lost mode needs a supervised iPhone or iPad; this device is not supervised."
        );
        assert_eq!(
            sentence("EnableLostMode", &mac()),
            "Lost mode works on iPhone and iPad only; this device is a Mac."
        );
        assert_eq!(
            sentence("SetRecoveryLock", &Target { os_version: Version::parse("11.4"), ..mac() }),
            "Setting the recovery lock needs macOS 11.5 or later; this device runs 11.4."
        );
        assert_eq!(
            sentence("EraseDevice", &Target { user_enrollment: true, ..iphone() }),
            "Erasing is not allowed on a personal device (user enrollment)."
        );
        assert_eq!(
            sentence("DeviceLock", &Target { channel: ChannelKind::User, ..mac() }),
            "Locking is a command for the device, not for the user."
        );
        assert_eq!(
            sentence("RestartDevice", &Target { family: Family::Unknown, ..mac() }),
            "Restarting has to wait: this device has not reported yet what it is."
        );
        assert_eq!(
            sentence("RestartDevice", &Target { os_version: None, ..mac() }),
            "Restarting has to wait: this Mac has not reported its version of macOS yet."
        );
        assert!(sentence("EraseDevice", &Target { access_rights: Some(19), ..mac() }).contains("right 8"));
    }

    #[test]
    fn unknown_is_not_yes() {
        let nothing = Target::default();
        for request_type in request_types() {
            assert_eq!(
                check(request_type, &nothing).is_ok(),
                matches!(request_type, "DeviceInformation" | "SecurityInfo"),
                "{request_type}"
            );
        }
        assert!(matches!(check("MakeCoffee", &mac()), Err(Unsupported::UnknownCommand { .. })));
    }

    #[test]
    fn lock_erase_and_profiles_work_before_the_first_inventory() {
        for target in [mac(), iphone(), Target { os_version: None, ..mac() }] {
            for request_type in ["DeviceLock", "EraseDevice", "InstallProfile", "RemoveProfile"] {
                assert_eq!(check(request_type, &target), Ok(()), "{request_type} {target:?}");
            }
        }
    }

    #[test]
    fn removed_from_macos_27() {
        let new = Target { os_version: Version::parse("27.0"), supervised: Some(true), ..mac() };
        let old = Target { os_version: Version::parse("26.6.2"), ..new };
        assert_eq!(check("ScheduleOSUpdate", &old), Ok(()));
        assert!(matches!(check("ScheduleOSUpdate", &new), Err(Unsupported::Removed { .. })));
    }

    #[test]
    fn shared_ipads() {
        let ipad = Target { family: Family::Ipad, ..iphone() };
        assert!(matches!(check("UserList", &ipad), Err(Unsupported::NotSharedIpad { .. })));
        let shared = Target { shared_ipad: Some(true), supervised: Some(true), ..ipad };
        assert_eq!(check("UserList", &shared), Ok(()));
        assert!(matches!(check("ClearPasscode", &shared), Err(Unsupported::SharedIpad { .. })));
        let user = Target { channel: ChannelKind::User, ..shared };
        assert_eq!(check("UserConfigured", &user), Ok(()));
        assert!(matches!(check("UserList", &user), Err(Unsupported::WrongChannel { .. })));
    }

    #[test]
    fn the_table_is_sorted_and_titled() {
        let types: Vec<_> = request_types().collect();
        assert!(types.is_sorted() && types.len() == 66);
        assert!(table::TABLE.iter().all(|row| !row.title.is_empty()));
    }
}
