//! Entra ID: whose tokens may enroll Windows.

use super::typed::Reader;
use super::{ConfigError, Origin};
use bellwether_engine::{EntraSettings, EntraTerms};
use std::path::{Path, PathBuf};
use url::Url;
use uuid::Uuid;

const TENANTS: &str = "windows.entra.tenants";
const AUDIENCES: &str = "windows.entra.audiences";
const AUTHORITY: &str = "windows.entra.authority";
const KEYS_URL: &str = "windows.entra.keys_url";
const TRUST: &str = "windows.entra.trust";
const MAX_DEVICES: &str = "windows.entra.max_devices_per_person";
const KNOWN: &str = "windows.entra.known_people_only";
const TERMS: &str = "windows.entra.terms";
const TERMS_REQUIRED: &str = "windows.entra.terms_required";
/// The longest text of terms.
const MAX_TERMS: usize = 128 * 1024;

const A_COUNT: &str = "a whole number is wanted, 1 or more";

/// Stands in [`EntraConfig::keys_url`] where the tenant's id goes.
pub const ENTRA_TENANT: &str = "{tenant}";

/// Checked values of `windows.entra`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntraConfig {
    /// Tenant ids, lower case; at least one.
    pub tenants: Vec<String>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Scheme, host and port, without a slash at the end.
    pub authority: String,
    /// Where a tenant's keys are: an https URL with `{tenant}`.
    pub keys_url: String,
    /// PEM roots for it.
    pub trust: Option<PathBuf>,
    /// How many PCs one person may have; at least one.
    pub max_devices_per_person: u32,
    /// Only people whom an admin has made known may enroll.
    pub known_people_only: bool,
    /// A text file: what the terms-of-use page shows.
    pub terms: Option<PathBuf>,
    /// No PC enrolls by Entra ID before its person accepted them.
    pub terms_required: bool,
}

impl EntraConfig {
    /// The engine's part of it, with the text of the terms.
    pub fn settings(&self) -> Result<EntraSettings, ConfigError> {
        let text = self.terms.as_deref().map(read_terms).transpose()?;
        Ok(EntraSettings {
            tenants: self.tenants.clone(),
            audiences: self.audiences.clone(),
            authority: self.authority.clone(),
            max_devices_per_person: self.max_devices_per_person,
            known_people_only: self.known_people_only,
            terms: EntraTerms { text, required: self.terms_required },
        })
    }
}

/// Nothing without tenants: a token of Entra ID is good for nobody then.
pub(super) fn read(read: &Reader<'_>) -> Result<Option<EntraConfig>, ConfigError> {
    let tenants = read.list(TENANTS);
    if tenants.is_empty() {
        let others = [AUDIENCES, AUTHORITY, KEYS_URL, TRUST, MAX_DEVICES, KNOWN, TERMS, TERMS_REQUIRED];
        return match others.iter().find(|name| is_set(read, name)) {
            Some(name) => Err(ConfigError::Contradiction(format!("{name} says nothing without {TENANTS}"))),
            None => Ok(None),
        };
    }
    let guid = |text: &String| (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
    let tenants = tenants.iter().map(|text| guid(text).map(|id| id.to_string())).collect::<Option<_>>();
    let tenants = tenants.ok_or_else(|| {
        read.wrong(TENANTS, "tenant ids such as 72f988bf-86f1-41af-91ab-2d7cd011db47 are wanted, no names")
    })?;
    let audiences = read.list(AUDIENCES);
    if audiences.is_empty() {
        return Err(ConfigError::Contradiction(format!("{TENANTS} and {AUDIENCES} go together: set both")));
    }
    let authority = match read.url(AUTHORITY)? {
        Some(url) => url.origin().ascii_serialization(),
        None => read.text(AUTHORITY),
    };
    let keys_url = match read.text(KEYS_URL) {
        none if none.is_empty() => format!("{authority}/{ENTRA_TENANT}/discovery/v2.0/keys"),
        given => given,
    };
    if !is_keys_url(&keys_url) {
        return Err(read.wrong(KEYS_URL, "an https URL with {tenant} in its path is wanted"));
    }
    let max_devices_per_person = read.parse(MAX_DEVICES, A_COUNT)?;
    if max_devices_per_person == 0 {
        return Err(read.wrong(MAX_DEVICES, A_COUNT));
    }
    Ok(Some(EntraConfig {
        tenants,
        audiences,
        authority,
        keys_url,
        trust: read.path(TRUST),
        max_devices_per_person,
        known_people_only: read.parse(KNOWN, "true or false is wanted")?,
        terms: read.path(TERMS),
        terms_required: read.parse(TERMS_REQUIRED, "true or false is wanted")?,
    }))
}

fn read_terms(path: &Path) -> Result<String, ConfigError> {
    let wrong =
        |reason: &str| ConfigError::File { path: path.display().to_string(), reason: reason.to_owned() };
    let bytes = std::fs::read(path).map_err(|e| wrong(&e.to_string()))?;
    if bytes.len() > MAX_TERMS {
        return Err(wrong("terms of use may have 128 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("terms of use must be text in UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() { Err(wrong("terms of use are empty")) } else { Ok(text.to_owned()) }
}

fn is_set(read: &Reader<'_>, name: &str) -> bool {
    read.layers.get(name).is_some_and(|value| value.origin != Origin::Default && !value.text.is_empty())
}

fn is_keys_url(template: &str) -> bool {
    let tenant = Uuid::nil().to_string();
    let Ok(url) = Url::parse(&template.replace(ENTRA_TENANT, &tenant)) else { return false };
    url.scheme() == "https"
        && url.path().contains(&tenant)
        && !url.host_str().unwrap_or_default().contains(&tenant)
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn with(flags: &[(&str, &str)]) -> Result<Option<EntraConfig>, ConfigError> {
        let flags = flags.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Ok(Config::from_layers(&Sources { flags, ..Sources::default() }.load()?)?.entra)
    }

    fn and(name: &str, value: &str) -> Result<EntraConfig, String> {
        with(&[(TENANTS, TENANT), (AUDIENCES, "https://mdm.example.org"), (name, value)])
            .map(Option::unwrap)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn it_is_off_without_tenants() {
        assert_eq!(with(&[]).unwrap(), None);
        assert_eq!(with(&[(TENANTS, " , ")]).unwrap(), None);
        for name in [AUDIENCES, AUTHORITY, KEYS_URL, TRUST, MAX_DEVICES, TERMS, TERMS_REQUIRED] {
            let error = with(&[(name, "https://x.example/{tenant}")]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(TENANTS), "{error}");
        }
        let error = with(&[(TENANTS, TENANT)]).unwrap_err().to_string();
        assert!(error.contains(AUDIENCES), "{error}");
    }

    #[test]
    fn tenants_and_audiences_are_lists() {
        let other = "AAAAAAAA-0000-4000-8000-00000000000A";
        let config = with(&[
            (TENANTS, &format!(" {TENANT}, {other},")),
            (AUDIENCES, "https://mdm.example.org,29d9ed98-a469-4536-ade2-f981bc1d605e"),
        ]);
        let config = config.unwrap().unwrap();
        assert_eq!(config.tenants, [TENANT, &other.to_lowercase()]);
        assert_eq!(config.audiences, ["https://mdm.example.org", "29d9ed98-a469-4536-ade2-f981bc1d605e"]);
        assert_eq!(config.authority, "https://login.microsoftonline.com");
        assert_eq!(config.keys_url, "https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys");
        assert_eq!(config.settings().unwrap().tenants, config.tenants);
    }

    #[test]
    fn a_list_of_the_file_is_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bellwether.toml");
        let text = format!("[windows.entra]\ntenants = ['{TENANT}']\naudiences = ['a', 'b']\n");
        std::fs::write(&path, text).unwrap();
        let layers = Sources { file: Some(path), ..Sources::default() }.load().unwrap();
        let config = Config::from_layers(&layers).unwrap().entra.unwrap();
        assert_eq!(
            (config.tenants, config.audiences),
            (vec![TENANT.to_owned()], vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn terms_are_text_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terms.txt");
        let terms = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            and(TERMS, path.to_str().unwrap()).unwrap().settings().map(|settings| settings.terms)
        };
        let read = terms("\u{feff}Be kind.\r\n".as_bytes()).unwrap();
        assert_eq!(read, EntraTerms { text: Some("Be kind.\r\n".into()), required: false });
        for bad in [&b""[..], b" \n", b"\xff", &vec![b'a'; MAX_TERMS + 1]] {
            let error = terms(bad).unwrap_err().to_string();
            assert!(error.contains("terms.txt"), "{error}");
        }
        assert!(and(TERMS, "/nowhere/terms.txt").unwrap().settings().is_err());
        let required = and(TERMS_REQUIRED, "true").unwrap().settings().unwrap().terms;
        assert_eq!(required, EntraTerms { text: None, required: true });
    }

    #[test]
    fn wrong_values_name_their_key() {
        let no_dashes = TENANT.replace('-', "");
        let one_bad = format!("{TENANT},contoso.onmicrosoft.com");
        for (name, value) in [
            (TENANTS, "contoso.onmicrosoft.com"),
            (TENANTS, "common"),
            (TENANTS, no_dashes.as_str()),
            (TENANTS, one_bad.as_str()),
            (AUTHORITY, "http://login.microsoftonline.com"),
            (AUTHORITY, "https://login.microsoftonline.com/common"),
            (AUTHORITY, "login.microsoftonline.com"),
            (KEYS_URL, "http://127.0.0.1/{tenant}/keys"),
            (KEYS_URL, "https://127.0.0.1/keys"),
            (KEYS_URL, "https://127.0.0.1/keys?tenant={tenant}"),
            (KEYS_URL, "https://{tenant}.example/{tenant}"),
            (KEYS_URL, "https://u:p@127.0.0.1/{tenant}"),
            (KEYS_URL, "{tenant}"),
            (MAX_DEVICES, "0"),
            (MAX_DEVICES, "-1"),
            (MAX_DEVICES, "many"),
            (TERMS_REQUIRED, "yes"),
        ] {
            let error = and(name, value).unwrap_err();
            assert!(error.starts_with(&format!("{name} (flag): ")), "{value}: {error}");
        }
        let national = and(AUTHORITY, "https://login.microsoftonline.us/").unwrap();
        assert_eq!(national.authority, "https://login.microsoftonline.us");
        assert_eq!(national.keys_url, "https://login.microsoftonline.us/{tenant}/discovery/v2.0/keys");
        let test = and(KEYS_URL, "https://127.0.0.1:4443/keys/{tenant}").unwrap();
        assert_eq!(test.keys_url, "https://127.0.0.1:4443/keys/{tenant}");
        assert_eq!(test.authority, "https://login.microsoftonline.com");
        assert_eq!(
            (test.max_devices_per_person, and(MAX_DEVICES, "3").unwrap().max_devices_per_person),
            (15, 3)
        );
    }
}
