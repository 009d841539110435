//! What several test files share: one sample of everything that the crate can say.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use bellwether_apple::Opaque;
use bellwether_apple::command::{
    AccountConfiguration, AdminAccount, AppSource, Command, DeviceLock, EraseDevice, FileVaultKeyType,
    InstallAction, InstallApplication, InstallEnterpriseApplication, MdmOptions, ObliterationBehavior,
    OrganizationInfo, OsUpdate, RawCommand, RestartDevice, ReturnToService, RotateFileVaultKey, Setting,
    default_queries,
};
use bellwether_apple::family::Family;
use bellwether_apple::profile::{
    AccessRights, EnrollmentProfile, MdmSettings, PayloadUuids, RootCertificate, ScepSettings, Scope,
};
use plist::{Dictionary, Value};

pub const UUID: &str = "3f6d1a52-0000-4000-8000-00000000abcd";

pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(testdata(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares with a frozen output, or writes it anew when asked to.
pub fn expected(name: &str, bytes: &[u8]) {
    if std::env::var_os("BELLWETHER_UPDATE_EXPECTED").is_some() {
        std::fs::write(testdata(name), bytes).unwrap();
    }
    let frozen = String::from_utf8(read(name)).unwrap();
    assert_eq!(frozen, String::from_utf8_lossy(bytes), "{name}");
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn dictionary(key: &str, value: &str) -> Dictionary {
    [(key.to_owned(), Value::String(value.to_owned()))].into_iter().collect()
}

/// Every typed command, most of them twice: with nothing and with everything that is optional.
pub fn commands() -> Vec<Command> {
    let mut store_app = InstallApplication::new(AppSource::StoreId(361_309_726));
    store_app.device_licence = true;
    store_app.management_flags = 5;
    store_app.configuration = Some(dictionary("server", "https://example.org"));
    store_app.attributes = Some(dictionary("VPNUUID", "6C0F"));
    store_app.take_management = true;
    store_app.install_as_managed = true;
    store_app.ios_app = true;
    vec![
        Command::DeviceLock(DeviceLock::default()),
        Command::DeviceLock(DeviceLock {
            message: text("Lost <this> & \"that\"? Zurück bitte."),
            phone_number: text("+49 170 1234567"),
            pin: Some(Opaque::from("123456")),
        }),
        Command::EraseDevice(EraseDevice::default()),
        Command::EraseDevice(EraseDevice {
            pin: Some(Opaque::from("000000")),
            preserve_data_plan: true,
            disallow_proximity_setup: true,
            obliteration_behavior: Some(ObliterationBehavior::ObliterateWithWarning),
            return_to_service: Some(ReturnToService {
                enabled: true,
                wifi_profile: Some(Opaque::from("wifi")),
                mdm_profile: Some(Opaque::from("mdm")),
                bootstrap_token: Some(Opaque::from("token")),
            }),
        }),
        Command::RestartDevice(RestartDevice::default()),
        Command::RestartDevice(RestartDevice {
            notify_user: true,
            rebuild_kernel_cache: true,
            kext_paths: vec!["/Library/Extensions/a.kext".to_owned()],
        }),
        Command::ShutDownDevice,
        Command::ClearPasscode { unlock_token: Opaque::from("unlock") },
        Command::InstallProfile { payload: Opaque::from("profile") },
        Command::RemoveProfile { identifier: "org.example.wifi".to_owned() },
        Command::ProfileList { managed_only: false },
        Command::ProfileList { managed_only: true },
        Command::DeviceInformation { queries: default_queries(Family::Mac), attestation_nonce: None },
        Command::DeviceInformation {
            queries: default_queries(Family::Iphone),
            attestation_nonce: Some(vec![1, 2, 3]),
        },
        Command::DeviceInformation { queries: default_queries(Family::AppleTv), attestation_nonce: None },
        Command::SecurityInfo,
        Command::InstalledApplicationList { identifiers: vec![], managed_only: false },
        Command::InstalledApplicationList { identifiers: vec!["a.b".to_owned()], managed_only: true },
        Command::ManagedApplicationList { identifiers: vec!["a.b".to_owned()] },
        Command::CertificateList { managed_only: true },
        Command::InstallApplication(store_app),
        Command::InstallApplication(InstallApplication::new(AppSource::BundleIdentifier("a.b".to_owned()))),
        Command::InstallApplication(InstallApplication::new(AppSource::ManifestUrl(
            "https://mdm.example.org/packages/t".to_owned(),
        ))),
        Command::InstallEnterpriseApplication(InstallEnterpriseApplication {
            manifest_url: text("https://mdm.example.org/packages/t"),
            pinning_certificates: vec![vec![0x30, 0x00]],
            pinning_revocation_check_required: true,
            install_as_managed: true,
            remove_with_enrollment: true,
            configuration: Some(dictionary("a", "b")),
            take_management: true,
            ios_app: true,
            manifest: None,
        }),
        Command::InstallEnterpriseApplication(InstallEnterpriseApplication {
            manifest: Some(dictionary("items", "none")),
            ..InstallEnterpriseApplication::default()
        }),
        Command::RemoveApplication { identifier: "a.b".to_owned() },
        Command::EnableLostMode { message: text("Call us"), phone_number: None, footnote: None },
        Command::EnableLostMode {
            message: text("Call us"),
            phone_number: text("+49 170 1234567"),
            footnote: text("Example Ltd"),
        },
        Command::DisableLostMode,
        Command::DeviceLocation,
        Command::PlayLostModeSound,
        Command::Settings { items: settings() },
        Command::ScheduleOsUpdate {
            updates: vec![OsUpdate {
                product_key: text("MSU_UPDATE_24C101_patch_15.2"),
                product_version: text("15.2"),
                action: InstallAction::InstallLater,
                max_user_deferrals: Some(3),
                high_priority: true,
            }],
        },
        Command::AvailableOsUpdates,
        Command::OsUpdateStatus,
        Command::DeviceConfigured,
        Command::UserConfigured,
        Command::DeclarativeManagement { data: None },
        Command::DeclarativeManagement { data: Some(b"{}".to_vec()) },
        Command::ActivationLockBypassCode,
        Command::ClearActivationLockBypassCode,
        Command::SetRecoveryLock { current: Some(Opaque::from("old")), new: Opaque::from("new") },
        Command::SetRecoveryLock { current: None, new: Opaque::from("") },
        Command::VerifyRecoveryLock { password: Opaque::from("new") },
        Command::RotateFileVaultKey(RotateFileVaultKey {
            key_type: FileVaultKeyType::Personal,
            password: Opaque::from("secret"),
            new_certificate: None,
            reply_encryption_certificate: Some(vec![0x30, 0x00]),
        }),
        Command::RotateFileVaultKey(RotateFileVaultKey {
            key_type: FileVaultKeyType::Institutional,
            password: Opaque::from("secret"),
            new_certificate: Some(vec![0x30, 0x00]),
            reply_encryption_certificate: None,
        }),
        Command::SetAutoAdminPassword { guid: "G-1".to_owned(), password_hash: Opaque::from("hash") },
        Command::AccountConfiguration(AccountConfiguration {
            skip_primary_setup_account_creation: true,
            set_primary_setup_account_as_regular_user: true,
            primary_account_full_name: text("Ann Example"),
            primary_account_user_name: text("ann"),
            dont_auto_populate_primary_account_info: true,
            lock_primary_account_info: true,
            admin_account: Some(AdminAccount {
                short_name: "admin".to_owned(),
                full_name: text("Administrator"),
                password_hash: Opaque::from("hash"),
                hidden: true,
            }),
            managed_local_user_short_name: text("ann"),
        }),
        Command::AccountConfiguration(AccountConfiguration::default()),
        Command::UserList,
        Command::DeleteUser { user_name: text("ann"), force: true, all_users: false },
        Command::DeleteUser { user_name: None, force: false, all_users: true },
        Command::LogOutUser,
        Command::UnlockUserAccount { user_name: "ann".to_owned() },
        Command::EnableRemoteDesktop,
        Command::DisableRemoteDesktop,
        Command::Raw(RawCommand::from_dictionary(dictionary("RequestType", "ValidateApplications")).unwrap()),
    ]
}

fn settings() -> Vec<Setting> {
    vec![
        Setting::DeviceName("Ann’s Mac".to_owned()),
        Setting::HostName("ann-mac".to_owned()),
        Setting::Bluetooth(false),
        Setting::DataRoaming(true),
        Setting::PersonalHotspot(false),
        Setting::DiagnosticSubmission(false),
        Setting::AppAnalytics(false),
        Setting::TimeZone("Europe/Berlin".to_owned()),
        Setting::OrganizationInfo(OrganizationInfo {
            name: "Example Ltd".to_owned(),
            short_name: text("Example"),
            address: text("1 Road\nTown"),
            phone: text("+49 30 123"),
            email: text("it@example.org"),
            magic: text("m"),
        }),
        Setting::MdmOptions(MdmOptions {
            activation_lock_allowed_while_supervised: Some(false),
            prompt_user_to_allow_bootstrap_token_for_authentication: Some(false),
        }),
        Setting::Wallpaper { image: vec![1, 2, 3], place: 3 },
        Setting::ApplicationConfiguration {
            identifier: "a.b".to_owned(),
            configuration: Some(dictionary("server", "x")),
        },
        Setting::ApplicationAttributes {
            identifier: "a.b".to_owned(),
            attributes: Some(dictionary("VPNUUID", "6C0F")),
        },
        Setting::Other(
            [
                ("Item".to_owned(), Value::String("VoiceRoaming".to_owned())),
                ("Enabled".to_owned(), Value::Boolean(false)),
            ]
            .into_iter()
            .collect(),
        ),
    ]
}

/// A profile with everything, and one for user enrollment.
pub fn profiles() -> Vec<EnrollmentProfile> {
    let namespace = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let base = "org.bellwether.example";
    let full = EnrollmentProfile {
        organization: "Example & Söhne <Ltd>".to_owned(),
        display_name: "Device management of Example Ltd".to_owned(),
        description: text("Lets Example Ltd manage this device."),
        identifier_base: base.to_owned(),
        uuids: PayloadUuids::derive(namespace, base),
        scep: ScepSettings {
            name: text("devices"),
            ca_fingerprint: Some(vec![7; 20]),
            ..ScepSettings::new(
                "https://mdm.example.org:8443/scep/abc",
                Opaque::from("one-time <challenge>"),
                "0123456789abcdef",
            )
        },
        mdm: MdmSettings {
            check_in_url: text("https://mdm.example.org:8443/apple/mdm"),
            ..MdmSettings::new(
                "https://mdm.example.org:8443/apple/mdm",
                "com.apple.mgmt.External.3a1b2c3d-0000-4000-8000-000000000001",
            )
        },
        roots: vec![
            RootCertificate { name: "Example root".to_owned(), der: vec![0x30, 0x03, 1, 2, 3] },
            RootCertificate { name: "Second root".to_owned(), der: vec![0x30, 0x01, 9] },
        ],
        scope: Some(Scope::User),
    };
    let byod = EnrollmentProfile {
        mdm: MdmSettings {
            access_rights: None,
            enrollment_mode: text("BYOD"),
            assigned_managed_apple_id: text("ann@example.org"),
            check_in_url: None,
            ..full.mdm.clone()
        },
        roots: Vec::new(),
        scope: None,
        description: None,
        ..full.clone()
    };
    let few_rights = EnrollmentProfile {
        mdm: MdmSettings { access_rights: Some(AccessRights(19)), ..full.mdm.clone() },
        scope: Some(Scope::System),
        ..full.clone()
    };
    vec![full, byod, few_rights]
}
