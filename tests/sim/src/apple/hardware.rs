//! What a device is made of: never changed by a wipe.

use bellwether_certs::hash::{hex, random_bytes};
use uuid::Uuid;

use crate::{Family, Result};

/// The unchangeable part of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// iPhone, iPad or Mac.
    pub family: Family,
    /// `UDID`.
    pub udid: String,
    /// `SerialNumber`.
    pub serial: String,
    /// `OSVersion`.
    pub os_version: String,
    /// `BuildVersion`.
    pub build: String,
    /// `ProductName`, such as `Mac14,2`.
    pub product_name: String,
    /// `ModelName`, such as `MacBook Air`.
    pub model_name: String,
    /// `Model`.
    pub model: String,
    /// `IMEI`, for phones.
    pub imei: Option<String>,
    /// Whether the device is supervised.
    pub supervised: bool,
}

impl Hardware {
    /// An invented device of this family with random identifiers.
    ///
    /// # Errors
    /// When no random bytes can be had.
    pub fn invent(family: Family) -> Result<Self> {
        let noise: [u8; 16] = random_bytes()?;
        let id = hex(&noise).to_uppercase();
        let digits: String = noise.iter().map(|byte| char::from(b'0' + byte % 10)).collect();
        let serial = format!("BW{}", id.chars().take(10).collect::<String>());
        let chip_udid = |chip: &str| format!("{chip}-{}", id.chars().take(16).collect::<String>());
        Ok(match family {
            Family::Mac => Self {
                family,
                udid: Uuid::from_bytes(noise).hyphenated().to_string().to_uppercase(),
                serial,
                os_version: "15.1".to_owned(),
                build: "24B83".to_owned(),
                product_name: "Mac14,2".to_owned(),
                model_name: "MacBook Air".to_owned(),
                model: "MLY33LL/A".to_owned(),
                imei: None,
                // User-approved MDM makes a Mac supervised since macOS 11.
                supervised: true,
            },
            Family::Ipad => Self {
                family,
                udid: chip_udid("00008112"),
                serial,
                os_version: "18.1".to_owned(),
                build: "22B83".to_owned(),
                product_name: "iPad14,3".to_owned(),
                model_name: "iPad".to_owned(),
                model: "MNXD3LL/A".to_owned(),
                imei: None,
                supervised: false,
            },
            _ => Self {
                family,
                udid: chip_udid("00008120"),
                serial,
                os_version: "18.1".to_owned(),
                build: "22B83".to_owned(),
                product_name: "iPhone15,3".to_owned(),
                model_name: "iPhone".to_owned(),
                model: "MQ8N3LL/A".to_owned(),
                imei: Some(format!("35{}", digits.chars().take(13).collect::<String>())),
                supervised: false,
            },
        })
    }

    /// Whether it is a Mac.
    #[must_use]
    pub fn is_mac(&self) -> bool {
        self.family == Family::Mac
    }

    /// Safari's `User-Agent` on this device. Safari on an iPad claims to be on a Mac.
    #[must_use]
    pub fn safari(&self) -> &'static str {
        match self.family {
            Family::Mac | Family::Ipad => {
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                 Version/18.1 Safari/605.1.15"
            }
            _ => {
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                 Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
            }
        }
    }
}
