//! The three dialects and the streams inside an enrollment.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Declares a closed set of words with one stable spelling for the store, the API and the logs.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every word of the set.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable spelling.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::platform::UnknownWord;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::platform::UnknownWord {
                        kind: stringify!($name),
                        expected: &[$($text),+],
                    }),
                }
            }
        }
    };
}

/// A word that is not in a closed set; says which ones are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The set's name.
    pub kind: &'static str,
    /// The words that are in it.
    pub expected: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a {}; one of: {}", self.kind, self.expected.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

words!(
    /// The dialect a device speaks.
    Platform {
        /// iPhone, iPad, Mac, Apple TV, Vision, Watch.
        Apple = "apple",
        /// Windows 10, 11.
        Windows = "windows",
        /// Android.
        Android = "android",
    }
);

words!(
    /// Which stream of commands inside an enrollment.
    ChannelKind {
        /// The machine itself.
        Device = "device",
        /// One user of the machine.
        User = "user",
    }
);

words!(
    /// What kind of file a package of the package store is.
    PackageKind {
        /// Windows Installer.
        Msi = "msi",
        /// A signed app package of Windows.
        Msix = "msix",
    }
);

/// A dotted version of an operating system, compared number by number ("9.0" < "10.0").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OsVersion(pub Vec<u32>);

impl FromStr for OsVersion {
    type Err = UnknownWord;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let numbers: Result<Vec<u32>, _> = s.split('.').map(str::parse).collect();
        match numbers {
            Ok(mut n) if !n.is_empty() && n.len() <= 6 => {
                while n.len() > 1 && n.last() == Some(&0) {
                    n.pop();
                }
                Ok(Self(n))
            }
            _ => Err(UnknownWord { kind: "OsVersion", expected: &["numbers and dots, such as 18.1.1"] }),
        }
    }
}

impl fmt::Display for OsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}
