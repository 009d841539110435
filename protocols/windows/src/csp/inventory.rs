//! What we ask a machine. Each node is a `Get` of its own: a 404 for one must not spoil the others.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::actions::provider_node;
use super::document::Xml;
use super::{Error, NodeCommand, Step, device};
use crate::syncml::Format;

/// Facts about the machine (DevInfo, DevDetail).
pub const DEVICE_INFORMATION: &[&str] = &[
    "./DevInfo/Man",
    "./DevInfo/Mod",
    "./DevInfo/Lang",
    "./DevDetail/SwV",
    "./DevDetail/FwV",
    "./DevDetail/HwV",
    "./DevDetail/OEM",
    "./DevDetail/DevTyp",
    "./DevDetail/Ext/Microsoft/SMBIOSSerialNumber",
    "./DevDetail/Ext/Microsoft/DeviceName",
    "./DevDetail/Ext/Microsoft/DNSComputerName",
    "./DevDetail/Ext/Microsoft/OSPlatform",
    "./DevDetail/Ext/Microsoft/ProcessorArchitecture",
    "./DevDetail/Ext/Microsoft/TotalRAM",
    "./DevDetail/Ext/Microsoft/TotalStorage",
    "./DevDetail/Ext/Microsoft/FreeStorage",
    "./DevDetail/Ext/WLANMACAddress",
];

/// Its security (DeviceStatus, BitLocker).
pub const POSTURE: &[&str] = &[
    "./Vendor/MSFT/DeviceStatus/OS/Edition",
    "./Vendor/MSFT/DeviceStatus/SecureBootState",
    "./Vendor/MSFT/DeviceStatus/TPM/SpecificationVersion",
    "./Vendor/MSFT/DeviceStatus/Antivirus/Status",
    "./Vendor/MSFT/DeviceStatus/Antivirus/SignatureStatus",
    "./Vendor/MSFT/DeviceStatus/Firewall/Status",
    "./Vendor/MSFT/DeviceStatus/UAC/Status",
    "./Vendor/MSFT/DeviceStatus/Compliance/EncryptionCompliance",
    "./Vendor/MSFT/DeviceStatus/DomainName",
    "./Device/Vendor/MSFT/BitLocker/Status/DeviceEncryptionStatus",
    "./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/Status",
];

/// One `Get` for each node.
#[must_use]
pub fn gets(nodes: &[&str]) -> Vec<Step> {
    nodes.iter().map(|node| NodeCommand::get(*node).into()).collect()
}

/// Facts about the enrollment (DMClient CSP).
///
/// # Errors
/// For a provider id that cannot stand in a LocURI.
pub fn enrollment_information(provider: &str) -> Result<Vec<Step>, Error> {
    ["EntDMID", "AADDeviceID", "EnrollmentType", "HWDevID", "Push/ChannelURI", "Push/Status"]
        .into_iter()
        .map(|leaf| Ok(NodeCommand::get(provider_node(provider, leaf)?).into()))
        .collect()
}

/// The hardware hash for Autopilot.
#[must_use]
pub fn hardware_hash() -> Step {
    NodeCommand::get("./DevDetail/Ext/DeviceHardwareData").into()
}

/// The software: product codes of MSI packages, and MSIX packages by query and results.
///
/// # Errors
/// Never in practice: the query is a constant.
pub fn software() -> Result<Vec<Step>, Error> {
    let attributes =
        [("Output", "PackageDetails"), ("Source", "nonStore|AppStore"), ("PackageTypeFilter", "Main")];
    let query = Xml::parent("Inventory", vec![Xml::empty("Query", &attributes)]).write()?;
    let apps = "EnterpriseModernAppManagement/AppManagement/";
    Ok(vec![
        NodeCommand::get(device("EnterpriseDesktopAppManagement/MSI")).into(),
        NodeCommand::replace(device(&[apps, "AppInventoryQuery"].concat()), Format::Xml, query).into(),
        NodeCommand::get(device(&[apps, "AppInventoryResults"].concat())).into(),
    ])
}

/// A package that `AppInventoryResults` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstalledPackage {
    /// `PackageFamilyName`.
    pub family_name: String,
    /// `Name`.
    pub name: Option<String>,
    /// `Version`.
    pub version: Option<String>,
    /// `Publisher`.
    pub publisher: Option<String>,
}

/// Reads `AppInventoryResults`. What is said of a package stands in attributes; a package without a family name is
/// left out. Stops at `max` packages, or where the document stops being XML: what was read counts.
#[must_use]
pub fn installed_packages(xml: &str, max: usize) -> Vec<InstalledPackage> {
    let mut reader = Reader::from_str(xml);
    let mut packages = Vec::new();
    while packages.len() < max {
        let tag = match reader.read_event() {
            Ok(Event::Start(tag) | Event::Empty(tag)) => tag,
            Ok(Event::Eof | Event::DocType(_)) | Err(_) => break,
            Ok(_) => continue,
        };
        if tag.local_name().as_ref() != "Package" {
            continue;
        }
        let mut package = InstalledPackage::default();
        for attribute in tag.attributes().take(32).filter_map(Result::ok) {
            let Ok(value) = quick_xml::escape::unescape(&attribute.value) else { continue };
            let value = value.into_owned();
            match attribute.key.local_name().as_ref() {
                "PackageFamilyName" => package.family_name = value,
                "Name" => package.name = Some(value),
                "Version" => package.version = Some(value),
                "Publisher" => package.publisher = Some(value),
                _ => {}
            }
        }
        if !package.family_name.is_empty() {
            packages.push(package);
        }
    }
    packages
}
