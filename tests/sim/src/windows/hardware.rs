//! What a PC is made of: never changed by a wipe.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::hash::{hex, random_bytes};
use bellwether_windows::csp;
use bellwether_windows::enrollment::EnrollmentType;
use bellwether_windows::syncml::Format;

use crate::Result;

/// Windows Home, in its four editions (`OperatingSystemSKU`).
const HOME: &[u32] = &[98, 99, 100, 101];

/// The unchangeable part of a PC, and the Windows on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// The SMBIOS serial number.
    pub serial: String,
    /// `DeviceID`: 32 hexadecimal digits, the name of the machine in every session.
    pub device_id: String,
    /// `HWDevID`: 64 hexadecimal digits. Cloned machines share it.
    pub hw_dev_id: String,
    /// `10.0.build.revision`.
    pub os_version: String,
    /// The number of the edition: 48 is Pro, 101 is Home.
    pub edition: u32,
    /// `Manufacturer`.
    pub manufacturer: String,
    /// `DeviceModel`.
    pub model: String,
    /// The network card.
    pub mac: String,
    /// The hardware hash for Autopilot, base64.
    pub hash: String,
    /// A person's enrollment or the machine's own.
    pub enrollment_type: EnrollmentType,
}

impl Hardware {
    /// An invented PC with random identifiers.
    ///
    /// # Errors
    /// When no random bytes can be had.
    pub fn invent() -> Result<Self> {
        let noise: [u8; 16] = random_bytes()?;
        let hardware: [u8; 32] = random_bytes()?;
        let id = hex(&noise).to_uppercase();
        let mac: Vec<String> = hardware.iter().take(5).map(|byte| format!("{byte:02X}")).collect();
        Ok(Self {
            serial: format!("BW-{}", id.chars().take(10).collect::<String>()),
            device_id: id,
            hw_dev_id: hex(&hardware).to_uppercase(),
            os_version: "10.0.26100.2033".to_owned(),
            edition: 48,
            manufacturer: "Example, Inc.".to_owned(),
            model: "Example PC 7".to_owned(),
            // Locally administered, so that it is nobody's.
            mac: format!("02-{}", mac.join("-")),
            hash: STANDARD.encode(hardware.repeat(60)),
            enrollment_type: EnrollmentType::Full,
        })
    }

    /// Build and revision.
    #[must_use]
    pub fn build(&self) -> Option<(u32, u32)> {
        let mut numbers = self.os_version.split('.').skip(2).map(|part| part.parse().ok());
        Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
    }

    /// Edge's `User-Agent`; Windows 11 still says 10.0.
    #[must_use]
    pub fn edge(&self) -> &'static str {
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 \
         Safari/537.36 Edg/131.0.0.0"
    }

    /// What the table of nodes wants to know.
    pub(super) fn machine(&self, user_signed_in: bool) -> csp::Machine {
        csp::Machine { build: self.build(), home: HOME.contains(&self.edition), user_signed_in }
    }

    /// The nodes that describe the machine.
    pub(super) fn facts(&self, name: &str) -> Vec<(String, Format, String)> {
        let chr = |uri: &str, value: &str| (uri.to_owned(), Format::Chr, value.to_owned());
        let int = |uri: &str, value: &str| (uri.to_owned(), Format::Int, value.to_owned());
        let windows_11 = self.build().is_some_and(|(build, _)| build >= 22_000);
        vec![
            chr("./DevInfo/DevId", &self.device_id),
            chr("./DevInfo/Man", &self.manufacturer),
            chr("./DevInfo/Mod", &self.model),
            chr("./DevInfo/DmV", "1.3"),
            chr("./DevInfo/Lang", "en-US"),
            chr("./DevDetail/SwV", &self.os_version),
            chr("./DevDetail/FwV", "F.42"),
            chr("./DevDetail/HwV", "1.0"),
            chr("./DevDetail/OEM", &self.manufacturer),
            chr("./DevDetail/DevTyp", "PC"),
            (String::from("./DevDetail/LrgObj"), Format::Bool, "false".to_owned()),
            chr("./DevDetail/Ext/Microsoft/SMBIOSSerialNumber", &self.serial),
            chr("./DevDetail/Ext/Microsoft/DeviceName", name),
            chr("./DevDetail/Ext/Microsoft/DNSComputerName", name),
            chr("./DevDetail/Ext/Microsoft/OSPlatform", if windows_11 { "Windows 11" } else { "Windows 10" }),
            int("./DevDetail/Ext/Microsoft/ProcessorArchitecture", "9"),
            int("./DevDetail/Ext/Microsoft/TotalRAM", "16384"),
            int("./DevDetail/Ext/Microsoft/TotalStorage", "487424"),
            int("./DevDetail/Ext/Microsoft/FreeStorage", "301150"),
            chr("./DevDetail/Ext/WLANMACAddress", &self.mac.replace('-', "")),
            chr("./DevDetail/Ext/DeviceHardwareData", &self.hash),
            chr("./Vendor/MSFT/DeviceStatus/OS/Edition", &self.edition.to_string()),
            int("./Vendor/MSFT/DeviceStatus/SecureBootState", "1"),
            chr("./Vendor/MSFT/DeviceStatus/TPM/SpecificationVersion", "2.0"),
            int("./Vendor/MSFT/DeviceStatus/Antivirus/Status", "0"),
            int("./Vendor/MSFT/DeviceStatus/Antivirus/SignatureStatus", "0"),
            int("./Vendor/MSFT/DeviceStatus/Firewall/Status", "0"),
            int("./Vendor/MSFT/DeviceStatus/UAC/Status", "0"),
            (
                String::from("./Vendor/MSFT/DeviceStatus/Compliance/EncryptionCompliance"),
                Format::Bool,
                "true".to_owned(),
            ),
            chr("./Vendor/MSFT/DeviceStatus/DomainName", ""),
            int("./Device/Vendor/MSFT/BitLocker/Status/DeviceEncryptionStatus", "0"),
            int("./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/Status", "0"),
            int("./Device/Vendor/MSFT/CertificateStore/MY/WSTEP/Renew/ErrorCode", "0"),
        ]
    }
}
