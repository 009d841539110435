//! What we ask a machine. Each node is a `Get` of its own: a 404 for one must not spoil the others.

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
