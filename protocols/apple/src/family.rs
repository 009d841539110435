//! What kind of device it is, from the little that it says before the first inventory.

use std::cmp::Ordering;

/// A family of Apple devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Family {
    /// iPhone.
    Iphone,
    /// iPad.
    Ipad,
    /// Any Mac, virtual ones too.
    Mac,
    /// Apple TV.
    AppleTv,
    /// Apple Vision.
    Vision,
    /// Apple Watch.
    Watch,
    /// iPod touch.
    Ipod,
    /// It has not said, or said something we do not know.
    #[default]
    Unknown,
}

/// The operating system, as Apple's schema divides its `supportedOS` tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Os {
    /// iOS and iPadOS.
    Ios,
    /// macOS.
    Macos,
    /// tvOS.
    Tvos,
    /// visionOS.
    Visionos,
    /// watchOS.
    Watchos,
}

/// What a browser's `User-Agent` says about the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guess {
    /// An Apple device of this family.
    Known(Family),
    /// A Mac or an iPad that claims to be one: offer both.
    MacOrIpad,
    /// No device that speaks this protocol.
    NotApple,
}

impl Family {
    /// The family of a `ProductName` such as `Mac14,2` or `iPhone15,3`
    /// (`mdm/checkin/authenticate.yaml`).
    #[must_use]
    pub fn from_product_name(name: &str) -> Self {
        const PREFIXES: &[(&str, Family)] = &[
            ("iphone", Family::Iphone),
            ("ipad", Family::Ipad),
            ("ipod", Family::Ipod),
            ("imac", Family::Mac),
            ("mac", Family::Mac),
            ("virtualmac", Family::Mac),
            ("xserve", Family::Mac),
            ("appletv", Family::AppleTv),
            ("realitydevice", Family::Vision),
            ("watch", Family::Watch),
        ];
        let name: String =
            name.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).take(64).collect();
        PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Unknown, |(_, family)| *family)
    }

    /// The family that an `Authenticate` describes. `DeviceName` and `ModelName` exist on Macs only;
    /// they decide when the product name is that of a virtual machine.
    #[must_use]
    pub fn from_authenticate(message: &crate::checkin::Authenticate) -> Self {
        let by_product = message.product_name.as_deref().map_or(Self::Unknown, Self::from_product_name);
        if by_product != Self::Unknown {
            return by_product;
        }
        let by_name = |name: &Option<String>| name.as_deref().map_or(Self::Unknown, Self::from_product_name);
        match (by_name(&message.model), by_name(&message.model_name)) {
            (Self::Unknown, family) | (family, _) => family,
        }
    }

    /// What the browser on the enrollment page runs on. `touch` is what a script may have learned:
    /// whether the screen takes more than one finger. iPadOS claims to be a Mac, so without that
    /// hint Safari on a "Macintosh" is [`Guess::MacOrIpad`].
    #[must_use]
    pub fn from_user_agent(user_agent: &str, touch: Option<bool>) -> Guess {
        let has = |word: &str| user_agent.contains(word);
        if has("Windows") || has("Android") {
            Guess::NotApple
        } else if has("iPhone") {
            Guess::Known(Self::Iphone)
        } else if has("iPad") {
            Guess::Known(Self::Ipad)
        } else if has("iPod") {
            Guess::Known(Self::Ipod)
        } else if has("AppleTV") || has("Apple TV") {
            Guess::Known(Self::AppleTv)
        } else if has("Macintosh") {
            // These browsers name themselves CriOS, FxiOS, EdgiOS on an iPad.
            let only_on_macs = has("Chrome/") || has("Firefox/") || has("Edg/");
            match touch {
                Some(true) if !only_on_macs => Guess::Known(Self::Ipad),
                None if !only_on_macs => Guess::MacOrIpad,
                _ => Guess::Known(Self::Mac),
            }
        } else {
            Guess::NotApple
        }
    }

    /// The operating system of the family, when the family is known.
    #[must_use]
    pub fn os(self) -> Option<Os> {
        match self {
            Self::Iphone | Self::Ipad | Self::Ipod => Some(Os::Ios),
            Self::Mac => Some(Os::Macos),
            Self::AppleTv => Some(Os::Tvos),
            Self::Vision => Some(Os::Visionos),
            Self::Watch => Some(Os::Watchos),
            Self::Unknown => None,
        }
    }

    /// The family in a sentence: "Mac", "iPhone", "Apple device".
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Iphone => "iPhone",
            Self::Ipad => "iPad",
            Self::Mac => "Mac",
            Self::AppleTv => "Apple TV",
            Self::Vision => "Apple Vision",
            Self::Watch => "Apple Watch",
            Self::Ipod => "iPod touch",
            Self::Unknown => "Apple device",
        }
    }
}

impl Os {
    /// The name of the system: "iOS", "macOS" …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ios => "iOS",
            Self::Macos => "macOS",
            Self::Tvos => "tvOS",
            Self::Visionos => "visionOS",
            Self::Watchos => "watchOS",
        }
    }
}

/// A version of an operating system. Missing parts are zero; comparison is by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version {
    /// 14 in 14.2.1.
    pub major: u32,
    /// 2 in 14.2.1.
    pub minor: u32,
    /// 1 in 14.2.1.
    pub patch: u32,
}

impl Version {
    /// A version from its parts.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `14.2.1`, `17`, or `16.1 (a)`; anything else is nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.trim().split([' ', '(']).next()?;
        let mut parts = number.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        });
        let major = parts.next()??;
        let minor = parts.next().unwrap_or(Some(0))?;
        let patch = parts.next().unwrap_or(Some(0))?;
        // A fourth part (10.15.7.1) does not matter for what a system can do.
        parts.all(|part| part.is_some()).then_some(Self { major, minor, patch })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch != 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_product_names() {
        for (name, family) in [
            ("Mac14,2", Family::Mac),
            ("MacBookPro18,3", Family::Mac),
            ("iMac21,1", Family::Mac),
            ("iMacPro1,1", Family::Mac),
            ("Macmini9,1", Family::Mac),
            ("VirtualMac2,1", Family::Mac),
            ("iPhone15,3", Family::Iphone),
            ("iPad13,1", Family::Ipad),
            ("iPod9,1", Family::Ipod),
            ("AppleTV11,1", Family::AppleTv),
            ("RealityDevice14,1", Family::Vision),
            ("Watch6,1", Family::Watch),
            ("VMware7,1", Family::Unknown),
            ("", Family::Unknown),
        ] {
            assert_eq!(Family::from_product_name(name), family, "{name}");
        }
    }

    #[test]
    fn browsers() {
        let safari_mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 \
                          (KHTML, like Gecko) Version/18.1 Safari/605.1.15";
        let chrome_mac = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 \
                          (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
        let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15";
        assert_eq!(Family::from_user_agent(safari_mac, None), Guess::MacOrIpad);
        assert_eq!(Family::from_user_agent(safari_mac, Some(true)), Guess::Known(Family::Ipad));
        assert_eq!(Family::from_user_agent(safari_mac, Some(false)), Guess::Known(Family::Mac));
        assert_eq!(Family::from_user_agent(chrome_mac, None), Guess::Known(Family::Mac));
        assert_eq!(Family::from_user_agent(iphone, None), Guess::Known(Family::Iphone));
        let windows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)";
        assert_eq!(Family::from_user_agent(windows, None), Guess::NotApple);
        assert_eq!(Family::from_user_agent("", None), Guess::NotApple);
    }

    #[test]
    fn versions_compare_by_number() {
        let v = |s| Version::parse(s).unwrap();
        assert!(v("10.9") < v("10.13.4"));
        assert_eq!(v("17"), v("17.0.0"));
        assert_eq!(v("16.1 (a)"), Version::new(16, 1, 0));
        assert_eq!(v("13.4.1 (c)").to_string(), "13.4.1");
        for bad in ["", "abc", "1.x", "-1", "1..2", "99999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
