//! The nodes that we emit: what they take, since when, and for whom.

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

const fn node(
    pattern: &'static str,
    format: Option<Format>,
    verbs: &'static str,
    builds: &'static [(u32, u32)],
    atomic: bool,
) -> Node {
    Node { pattern, format, verbs, builds, atomic }
}

/// The table, for what the constructors of this module emit.
pub const NODES: &[Node] = &[
    node("./DevInfo/Man", Some(Format::Chr), "Get", &[], false),
    node("./DevInfo/Mod", Some(Format::Chr), "Get", &[], false),
    node("./DevInfo/Lang", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/SwV", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/FwV", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/HwV", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/OEM", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/DevTyp", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/Ext/Microsoft/SMBIOSSerialNumber", Some(Format::Chr), "Get", &[(17763, 0)], false),
    node("./DevDetail/Ext/Microsoft/DeviceName", Some(Format::Chr), "Get Replace", &[], false),
    node("./DevDetail/Ext/Microsoft/DNSComputerName", Some(Format::Chr), "Get Replace", &[(19041, 0)], false),
    node("./DevDetail/Ext/Microsoft/OSPlatform", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/Ext/Microsoft/ProcessorArchitecture", Some(Format::Int), "Get", &[], false),
    node("./DevDetail/Ext/Microsoft/TotalRAM", Some(Format::Int), "Get", &[], false),
    node("./DevDetail/Ext/Microsoft/TotalStorage", Some(Format::Int), "Get", &[], false),
    node("./DevDetail/Ext/Microsoft/FreeStorage", Some(Format::Int), "Get", &[], false),
    node("./DevDetail/Ext/WLANMACAddress", Some(Format::Chr), "Get", &[], false),
    node("./DevDetail/Ext/DeviceHardwareData", Some(Format::Chr), "Get", &[(15063, 0)], false),
    node("./Vendor/MSFT/DeviceStatus/OS/Edition", Some(Format::Chr), "Get", &[(15063, 0)], false),
    node("./Vendor/MSFT/DeviceStatus/SecureBootState", Some(Format::Int), "Get", &[], false),
    node(
        "./Vendor/MSFT/DeviceStatus/TPM/SpecificationVersion",
        Some(Format::Chr),
        "Get",
        &[(15063, 0)],
        false,
    ),
    node("./Vendor/MSFT/DeviceStatus/Antivirus/Status", Some(Format::Int), "Get", &[(15063, 0)], false),
    node(
        "./Vendor/MSFT/DeviceStatus/Antivirus/SignatureStatus",
        Some(Format::Int),
        "Get",
        &[(15063, 0)],
        false,
    ),
    node("./Vendor/MSFT/DeviceStatus/Firewall/Status", Some(Format::Int), "Get", &[(15063, 0)], false),
    node("./Vendor/MSFT/DeviceStatus/UAC/Status", Some(Format::Int), "Get", &[(15063, 0)], false),
    node("./Vendor/MSFT/DeviceStatus/Compliance/EncryptionCompliance", Some(Format::Bool), "Get", &[], false),
    node("./Vendor/MSFT/DeviceStatus/DomainName", Some(Format::Chr), "Get", &[(17134, 0)], false),
    node("./Device/Vendor/MSFT/RemoteWipe/doWipe", Some(Format::Chr), "Exec", &[], false),
    node(
        "./Device/Vendor/MSFT/RemoteWipe/doWipePersistProvisionedData",
        Some(Format::Chr),
        "Exec",
        &[],
        false,
    ),
    node("./Device/Vendor/MSFT/RemoteWipe/doWipeProtected", Some(Format::Chr), "Exec", &[(15063, 0)], false),
    node(
        "./Device/Vendor/MSFT/RemoteWipe/doWipePersistUserData",
        Some(Format::Chr),
        "Exec",
        &[(16299, 0)],
        false,
    ),
    node("./Device/Vendor/MSFT/RemoteWipe/doWipeCloud", Some(Format::Chr), "Exec", &[(22621, 0)], false),
    node(
        "./Device/Vendor/MSFT/RemoteWipe/doWipeCloudPersistUserData",
        Some(Format::Chr),
        "Exec",
        &[(22621, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/RemoteWipe/doWipeCloudPersistProvisionedData",
        Some(Format::Chr),
        "Exec",
        &[(22621, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/RemoteWipe/AutomaticRedeployment/doAutomaticRedeployment",
        Some(Format::Chr),
        "Exec",
        &[(17763, 0)],
        false,
    ),
    node("./Device/Vendor/MSFT/RemoteLock/Lock", Some(Format::Null), "Get Exec", &[], false),
    node("./Device/Vendor/MSFT/Reboot/RebootNow", Some(Format::Null), "Get Exec", &[(14393, 0)], false),
    node(
        "./Device/Vendor/MSFT/BitLocker/RequireDeviceEncryption",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(15063, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/BitLocker/AllowWarningForOtherDiskEncryption",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(15063, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/BitLocker/AllowStandardUserEncryption",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(17763, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/BitLocker/RotateRecoveryPasswords",
        Some(Format::Chr),
        "Exec",
        &[(18363, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/BitLocker/Status/DeviceEncryptionStatus",
        Some(Format::Int),
        "Get",
        &[(18362, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/LAPS/Policies/BackupDirectory",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(17763, 4244), (19041, 2784), (20348, 1663), (22000, 1754), (22621, 1480), (25145, 0)],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/LAPS/Policies/PasswordAgeDays",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(17763, 4244), (19041, 2784), (20348, 1663), (22000, 1754), (22621, 1480), (25145, 0)],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/LAPS/Policies/PasswordLength",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(17763, 4244), (19041, 2784), (20348, 1663), (22000, 1754), (22621, 1480), (25145, 0)],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/LAPS/Policies/AdministratorAccountName",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(17763, 4244), (19041, 2784), (20348, 1663), (22000, 1754), (22621, 1480), (25145, 0)],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/LAPS/Actions/ResetPassword",
        Some(Format::Null),
        "Exec",
        &[(17763, 4244), (19041, 2784), (20348, 1663), (22000, 1754), (22621, 1480), (25145, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/RootCATrustedCertificates/Root/{}",
        Some(Format::Node),
        "Get Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/RootCATrustedCertificates/Root/{}/EncodedCertificate",
        Some(Format::B64),
        "Get Add Replace",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/RenewNow",
        Some(Format::Null),
        "Exec",
        &[(14393, 0)],
        true,
    ),
    node("./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/Status", Some(Format::Int), "Get", &[], true),
    node("./Device/Vendor/MSFT/Defender/Scan", Some(Format::Chr), "Get Exec", &[], false),
    node("./Device/Vendor/MSFT/Defender/OfflineScan", Some(Format::Chr), "Get Exec", &[(17134, 0)], false),
    node("./Device/Vendor/MSFT/Defender/UpdateSignature", Some(Format::Chr), "Get Exec", &[], false),
    node("./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI", Some(Format::Node), "Get", &[], false),
    node(
        "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{}",
        Some(Format::Node),
        "Get Add Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{}/DownloadInstall",
        Some(Format::Xml),
        "Get Add Replace Delete Exec",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{}/Status",
        Some(Format::Int),
        "Get",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{}/LastError",
        Some(Format::Int),
        "Get",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppInstallation/{}/HostedInstall",
        Some(Format::Xml),
        "Get Add Delete Exec",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/nonStore/{}",
        Some(Format::Node),
        "Get Add Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/AppInventoryQuery",
        Some(Format::Xml),
        "Get Replace",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/EnterpriseModernAppManagement/AppManagement/AppInventoryResults",
        Some(Format::Xml),
        "Get",
        &[],
        false,
    ),
    node("./Device/Vendor/MSFT/WiFi/Profile/{}", Some(Format::Node), "Get Add Replace Delete", &[], false),
    node(
        "./Device/Vendor/MSFT/WiFi/Profile/{}/WlanXml",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/VPNv2/{}/ProfileXML",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(14393, 0)],
        true,
    ),
    node("./Device/Vendor/MSFT/Policy/Config/{}/{}", None, "Get Add Replace Delete", &[], false),
    node(
        "./Device/Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/{}/{}/{}",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(16299, 0)],
        false,
    ),
    node("./Device/Vendor/MSFT/Accounts/Users/{}/Password", Some(Format::Chr), "Add Replace", &[], false),
    node(
        "./Device/Vendor/MSFT/Accounts/Users/{}/LocalUserGroup",
        Some(Format::Int),
        "Add Replace",
        &[],
        false,
    ),
    node("./Device/Vendor/MSFT/DMClient/Provider/{}/Unenroll", Some(Format::Null), "Get Exec", &[], false),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/RequireMessageSigning",
        Some(Format::Bool),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Push/PFN",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node("./Device/Vendor/MSFT/DMClient/Provider/{}/Push/ChannelURI", Some(Format::Chr), "Get", &[], false),
    node("./Device/Vendor/MSFT/DMClient/Provider/{}/Push/Status", Some(Format::Int), "Get", &[], false),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/EntDMID",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/AADDeviceID",
        Some(Format::Chr),
        "Get",
        &[(14393, 0)],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/EnrollmentType",
        Some(Format::Chr),
        "Get",
        &[(14393, 0)],
        false,
    ),
    node("./Device/Vendor/MSFT/DMClient/Provider/{}/HWDevID", Some(Format::Chr), "Get", &[(14393, 0)], false),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Poll/NumberOfFirstRetries",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Poll/IntervalForFirstSetOfRetries",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Poll/NumberOfSecondRetries",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Poll/IntervalForSecondSetOfRetries",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Poll/NumberOfRemainingScheduledRetries",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Device/Vendor/MSFT/DMClient/Provider/{}/Poll/IntervalForRemainingScheduledRetries",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        false,
    ),
    node(
        "./Vendor/MSFT/DiagnosticLog/DiagnosticArchive/ArchiveDefinition",
        Some(Format::Chr),
        "Get Replace Exec",
        &[(18362, 0)],
        false,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/Name",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/Protocol",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/App/FilePath",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/LocalPortRanges",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/RemotePortRanges",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/RemoteAddressRanges",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/Profiles",
        Some(Format::Int),
        "Get Replace",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/Direction",
        Some(Format::Chr),
        "Get Replace",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/Action/Type",
        Some(Format::Int),
        "Get Replace",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Vendor/MSFT/Firewall/MdmStore/FirewallRules/{}/Enabled",
        Some(Format::Bool),
        "Get Replace",
        &[(16299, 0)],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/ServerURL",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/Challenge",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/EKUMapping",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/KeyUsage",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/SubjectName",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/KeyProtection",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/KeyLength",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/HashAlgorithm",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/CAThumbprint",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/SubjectAlternativeNames",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/Enroll",
        Some(Format::Null),
        "Exec",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/KeyLocation",
        Some(Format::Int),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXCertPassword",
        Some(Format::Chr),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXCertPasswordEncryptionType",
        Some(Format::Int),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXKeyExportable",
        Some(Format::Bool),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXCertBlob",
        Some(Format::Bin),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/ServerURL",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/Challenge",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/EKUMapping",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/KeyUsage",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/SubjectName",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/KeyProtection",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/KeyLength",
        Some(Format::Int),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/HashAlgorithm",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/CAThumbprint",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/SubjectAlternativeNames",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/SCEP/{}/Install/Enroll",
        Some(Format::Null),
        "Exec",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/KeyLocation",
        Some(Format::Int),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXCertPassword",
        Some(Format::Chr),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXCertPasswordEncryptionType",
        Some(Format::Int),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXKeyExportable",
        Some(Format::Bool),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/{}/PFXCertBlob",
        Some(Format::Bin),
        "Get Add Replace",
        &[],
        true,
    ),
    node(
        "./User/Vendor/MSFT/VPNv2/{}/ProfileXML",
        Some(Format::Chr),
        "Get Add Replace Delete",
        &[(14393, 0)],
        true,
    ),
    node("./User/Vendor/MSFT/Policy/Config/{}/{}", None, "Get Add Replace Delete", &[], false),
];
