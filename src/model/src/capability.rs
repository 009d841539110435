//! Which platform can do which intent at all, and why not, in words for an admin.
//!
//! This is the first of two gates. It knows only the platform; what a particular device can do (supervision, OS
//! version, channel) is judged by the platform's own room when the command is planned.

use crate::intent::{AppSource, Intent, RotatableSecret, WipeScope};
use crate::platform::Platform;
use std::fmt;

/// A platform cannot do what is asked. Displays as a sentence for an admin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotDo {
    /// The intent's kind.
    pub intent: &'static str,
    /// The platform.
    pub platform: Platform,
    /// Why, and what to do instead.
    pub reason: &'static str,
}

impl fmt::Display for CannotDo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot do \"{}\": {}", self.platform, self.intent, self.reason)
    }
}

impl std::error::Error for CannotDo {}

/// Whether a platform knows this intent; the reason when it does not.
pub fn check(platform: Platform, intent: &Intent) -> Result<(), CannotDo> {
    let reason = match platform {
        Platform::Apple => apple(intent),
        Platform::Windows => windows(intent),
        Platform::Android => android(intent),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(CannotDo { intent: intent.kind(), platform, reason }),
    }
}

const ONLY_WINDOWS: &str = "this exists on Windows only.";

fn apple(intent: &Intent) -> Option<&'static str> {
    match intent {
        Intent::Message { .. } => Some(
            "Apple has no command that shows a text on an unlocked device. Use lock or lost mode with a message.",
        ),
        Intent::Wipe(o) if o.scope == WipeScope::WorkData => {
            Some("Apple removes the organisation's data when the device leaves management: use unenroll.")
        }
        Intent::RotateSecret { secret: RotatableSecret::LocalAdminPassword } => Some(
            "the administrator account is not managed on this device; only accounts made in automated enrollment can be rotated.",
        ),
        Intent::InstallApp { app: AppSource::Package { .. } } => {
            Some("installing from the package store is not built for Apple yet; give the URL of a manifest.")
        }
        Intent::SetWifi { .. }
        | Intent::RemoveWifi { .. }
        | Intent::SetVpn { .. }
        | Intent::RemoveVpn { .. }
        | Intent::RemoveCertificate { .. }
        | Intent::RequestCertificate { .. }
        | Intent::InstallIdentity { .. } => {
            Some("Apple takes this as a configuration profile: use install-profile.")
        }
        Intent::Wipe(o) if o.windows.is_some() => {
            Some("\"windows\" names a way in which Windows wipes; leave it out.")
        }
        Intent::Defender { .. }
        | Intent::Configure { .. }
        | Intent::IngestAdmx { .. }
        | Intent::EncryptDisk
        | Intent::SetLaps(_)
        | Intent::SetLocalAdmin { .. }
        | Intent::SetFirewallRule(_)
        | Intent::RemoveFirewallRule { .. }
        | Intent::CollectDiagnostics { .. } => Some(ONLY_WINDOWS),
        Intent::CallOften => Some("an Apple device is woken by push and has no schedule."),
        _ => None,
    }
}

fn windows(intent: &Intent) -> Option<&'static str> {
    match intent {
        Intent::ClearPasscode => Some(
            "a Windows PC's passwords belong to its accounts; reset the account, or rotate the local administrator's password.",
        ),
        Intent::ShutDown => Some("Windows lets an MDM restart a PC but not power it off."),
        Intent::LostModeOn { .. } | Intent::LostModeOff | Intent::PlaySound => {
            Some("lost mode exists on iPhone and iPad only. Use lock or wipe.")
        }
        Intent::Locate => Some("Windows does not report its place to an MDM."),
        Intent::Message { .. } => Some("Windows has no MDM command that shows a text."),
        Intent::InstallProfile { .. } | Intent::RemoveProfile { .. } => {
            Some("configuration profiles are an Apple format. Use configure, set-wifi, set-vpn or raw.")
        }
        Intent::InstallApp { app: AppSource::AppStore { .. } } => {
            Some("this is a number of Apple's App Store.")
        }
        Intent::InstallApp { app: AppSource::StoreIdentifier { .. } } => {
            Some("Microsoft's store has no command that installs by name alone; upload the package.")
        }
        Intent::InstallApp { app: AppSource::Url { .. } } => {
            Some("Windows wants the package's hash and product code; upload the package.")
        }
        Intent::Wipe(o) if o.scope == WipeScope::WorkData => Some(
            "Windows removes what the organisation configured when the PC leaves management: use unenroll.",
        ),
        Intent::RotateSecret { secret: RotatableSecret::RecoveryLock } => {
            Some("the recovery lock exists on Apple silicon Macs only.")
        }
        _ => None,
    }
}

fn android(intent: &Intent) -> Option<&'static str> {
    match intent {
        Intent::ShutDown => Some("Android lets an MDM restart a device but not power it off."),
        Intent::InstallProfile { .. } | Intent::RemoveProfile { .. } => {
            Some("configuration profiles are an Apple format. Use a policy.")
        }
        Intent::RenewIdentity => Some("the agent renews its certificate by itself."),
        Intent::Defender { .. }
        | Intent::Configure { .. }
        | Intent::IngestAdmx { .. }
        | Intent::EncryptDisk
        | Intent::SetLaps(_)
        | Intent::SetLocalAdmin { .. }
        | Intent::SetFirewallRule(_)
        | Intent::RemoveFirewallRule { .. }
        | Intent::CollectDiagnostics { .. } => Some(ONLY_WINDOWS),
        Intent::CallOften => Some("the agent keeps its own schedule."),
        Intent::RotateSecret { .. } => Some("Android keeps no such secret with the server."),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_platform_intent_and_a_way_out() {
        let refusal = check(Platform::Apple, &Intent::Message { text: "hi".into() }).expect_err("refused");
        let text = refusal.to_string();
        assert!(text.starts_with("apple cannot do \"message\": "), "{text}");
        assert!(text.contains("lock"), "{text}");
        assert!(check(Platform::Apple, &Intent::ShutDown).is_ok());
        assert!(check(Platform::Windows, &Intent::ShutDown).is_err());
    }
}
