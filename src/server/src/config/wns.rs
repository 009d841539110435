//! The push service for Windows: off, or one app's credentials (spec/windows.md 3.12, point 1).

use super::ConfigError;
use super::typed::Reader;
use secrecy::SecretString;
use std::path::PathBuf;
use url::Url;

/// The app that PCs are woken through.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WnsSettings {
    /// `ms-app://S-1-15-2-…`.
    pub package_sid: String,
    /// Of the same app.
    pub client_secret: SecretString,
    /// Of the same app; PCs are told it.
    pub package_family_name: String,
    /// Where access tokens come from.
    pub token_endpoint: Url,
    /// Hosts that channels may have; empty: Microsoft's own.
    pub hosts: Vec<String>,
    /// PEM roots for all of it.
    pub trust: Option<PathBuf>,
}

impl WnsSettings {
    pub(super) fn read(read: &Reader<'_>) -> Result<Option<Self>, ConfigError> {
        let text = |name: &str| Some(read.text(name).trim().to_owned()).filter(|text| !text.is_empty());
        let (package_sid, client_secret, package_family_name) = match (
            text("wns.package_sid"),
            read.secret("wns.client_secret"),
            text("wns.package_family_name"),
        ) {
            (Some(sid), Some(secret), Some(name)) => (sid, secret, name),
            (None, None, None) => return Ok(None),
            _ => {
                return Err(ConfigError::Contradiction(
                    "wns.package_sid, wns.client_secret and wns.package_family_name go together: set all three"
                        .to_owned(),
                ));
            }
        };
        if !is_package_sid(&package_sid) {
            return Err(read.wrong("wns.package_sid", "a Package SID such as ms-app://S-1-15-2-… is wanted"));
        }
        if !is_family_name(&package_family_name) {
            return Err(read.wrong(
                "wns.package_family_name",
                "a name such as Example.App_8wekyb3d8bbwe is wanted, without version",
            ));
        }
        Ok(Some(Self {
            package_sid,
            client_secret,
            package_family_name,
            token_endpoint: read.parse("wns.token_endpoint", "an absolute URL is wanted")?,
            hosts: read.list("wns.hosts"),
            trust: read.path("wns.trust"),
        }))
    }
}

/// An app container's SID as a URL.
fn is_package_sid(text: &str) -> bool {
    const START: &str = "ms-app://s-1-15-2-";
    text.split_at_checked(START.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(START)
            && rest.len() <= 100
            && rest.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Name and publisher's hash; a package *full* name has more parts.
fn is_family_name(text: &str) -> bool {
    text.split_once('_').is_some_and(|(name, publisher)| {
        (3..=50).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
            && publisher.len() == 13
            && publisher.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError, Sources};

    const SID: (&str, &str) = ("wns.package_sid", "ms-app://S-1-15-2-2972962901-2322836549-3722629029");
    const SECRET: (&str, &str) = ("wns.client_secret", "hunter2/+ &=");
    const NAME: (&str, &str) = ("wns.package_family_name", "Example.Bell_8wekyb3d8bbwe");

    fn with(flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags = flags.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Config::from_layers(&Sources { flags, ..Sources::default() }.load()?)
    }

    #[test]
    fn all_three_or_none() {
        for some in [&[SID][..], &[SECRET], &[NAME], &[SID, SECRET], &[SID, NAME], &[SECRET, NAME]] {
            let error = with(some).err().unwrap().to_string();
            assert!(error.contains("set all three") && !error.contains("hunter2"), "{error}");
        }
        assert!(with(&[("wns.hosts", "localhost"), ("wns.package_sid", " ")]).unwrap().wns.is_none());
        let config = with(&[SID, SECRET, NAME]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.wns.as_ref().map(|w| w.package_family_name.as_str()), Some(NAME.1));
        let wns = config.wns.unwrap();
        assert_eq!(wns.package_sid, SID.1);
        assert_eq!(wns.token_endpoint.as_str(), "https://login.live.com/accesstoken.srf");
        assert!(wns.hosts.is_empty() && wns.trust.is_none());
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (key, wrong) in [
            ("wns.package_sid", "S-1-15-2-1"),
            ("wns.package_sid", "ms-app://S-1-15-3-1"),
            ("wns.package_sid", "ms-app://S-1-15-2-"),
            ("wns.package_sid", "ms-app://S-1-15-2-1--2"),
            ("wns.package_sid", "ms-app://S-1-15-2-1&scope=x"),
            ("wns.package_sid", "00000000-0000-0000-0000-000000000000"),
            ("wns.package_family_name", "Example.Bell"),
            ("wns.package_family_name", "Example.Bell_1.0.0.0_x64__8wekyb3d8bbwe"),
            ("wns.package_family_name", "Example Bell_8wekyb3d8bbwe"),
            ("wns.package_family_name", "Example.Bell_8wekyb3d8bb"),
            ("wns.package_family_name", "<Bell>_8wekyb3d8bbwe"),
            ("wns.token_endpoint", "login.live.com"),
        ] {
            let error = with(&[SID, SECRET, NAME, (key, wrong)]).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{key} (flag): ")), "{error}");
        }
    }

    #[test]
    fn hosts_are_a_list() {
        let hosts = ("wns.hosts", "127.0.0.1:4711, *.push.example.org,,");
        let wns = with(&[SID, SECRET, NAME, hosts]).unwrap().wns.unwrap();
        assert_eq!(wns.hosts, ["127.0.0.1:4711", "*.push.example.org"]);
    }
}
