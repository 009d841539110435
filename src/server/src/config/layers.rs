//! Collects raw values from the four places and keeps their origin.

use super::ConfigError;
use super::keys::{self, KEYS, Key};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Environment variables of ours that are no configuration keys: they belong to the client verbs and the tests.
const CLIENT_VARIABLES: &[&str] = &[
    "BELLWETHER_CONFIG",
    "BELLWETHER_URL",
    "BELLWETHER_KEY",
    "BELLWETHER_KEY_FILE",
    "BELLWETHER_CA",
    SIM_KEY,
];
/// The load test's key; often exported in the shell that starts the server.
const SIM_KEY: &str = "BELLWETHER_API_KEY";
/// What the test suites read.
const TEST_PREFIXES: &[&str] = &["BELLWETHER_TEST_", "BELLWETHER_JUDGE_", "BELLWETHER_MODEL_"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command line flag.
    Flag,
    /// An environment variable.
    Environment(String),
    /// The file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A raw value.
#[derive(Clone)]
pub struct Value {
    /// As text; lists are joined by commas.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// What the process was given. Tests make their own.
#[derive(Clone, Default)]
pub struct Sources {
    /// `key=value` from flags.
    pub flags: Vec<(String, String)>,
    /// All environment variables.
    pub environment: Vec<(String, String)>,
    /// `--config` (or `BELLWETHER_CONFIG`).
    pub file: Option<PathBuf>,
}

/// The winning value of every key that has one.
#[derive(Clone)]
pub struct Layers {
    values: BTreeMap<&'static str, Value>,
}

impl Sources {
    /// Flags as given, the environment and the configuration file of this process.
    pub fn of_process(flags: Vec<(String, String)>, file: Option<PathBuf>) -> Self {
        // A variable that is not Unicode cannot be one of ours.
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { flags, environment: environment.collect(), file }
    }

    /// Reads everything and lets the strongest win.
    pub fn load(&self) -> Result<Layers, ConfigError> {
        let mut values = BTreeMap::new();
        for key in KEYS {
            if let Some(text) = key.default {
                values.insert(key.name, Value { text: text.to_owned(), origin: Origin::Default });
            }
        }
        if let Some(path) = &self.file {
            read_file(path, &mut values)?;
        }
        self.read_environment(&mut values)?;
        for (name, text) in &self.flags {
            let key = known(name, "a flag")?;
            values.insert(key.name, Value { text: text.clone(), origin: Origin::Flag });
        }
        Ok(Layers { values })
    }

    fn read_environment(&self, values: &mut BTreeMap<&'static str, Value>) -> Result<(), ConfigError> {
        for (name, text) in &self.environment {
            let Some(rest) = name.strip_prefix("BELLWETHER_") else { continue };
            if CLIENT_VARIABLES.contains(&name.as_str())
                || TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            {
                continue;
            }
            let dotted = rest.to_ascii_lowercase().replace("__", ".");
            let origin = Origin::Environment(name.clone());
            let (key, text) = match keys::find(&dotted) {
                Some(key) => (key, text.clone()),
                None => match secret_of_file_key(&dotted) {
                    Some(key) => (key, secret_from(Path::new(text))?),
                    None => return Err(unknown(&dotted, &format!("the environment ({name})"))),
                },
            };
            let both = matches!(values.get(key.name), Some(Value { origin: Origin::Environment(_), .. }));
            if both {
                let name = key.env_name();
                return Err(ConfigError::Contradiction(format!("set {name} or {name}_FILE, not both")));
            }
            values.insert(key.name, Value { text, origin });
        }
        Ok(())
    }
}

impl Layers {
    /// The value of a key, if it has one.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Every key with the value to show (secrets masked) and its origin.
    pub fn shown(&self) -> Vec<(&'static Key, String, String)> {
        let row = |key: &'static Key| match self.values.get(key.name) {
            Some(value) if key.secret => (key, "********".to_owned(), value.origin.to_string()),
            Some(value) => (key, value.text.clone(), value.origin.to_string()),
            None => (key, String::new(), "not set".to_owned()),
        };
        KEYS.iter().map(row).collect()
    }
}

fn read_file(path: &Path, values: &mut BTreeMap<&'static str, Value>) -> Result<(), ConfigError> {
    let fail = |reason: String| ConfigError::File { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    // The message without the snippet: a snippet could show a secret.
    let table: toml::Table =
        toml::from_str(&text).map_err(|e: toml::de::Error| fail(e.message().to_owned()))?;
    let mut flat = Vec::new();
    flatten("", &table, &mut flat);
    let place = format!("the file {}", path.display());
    for (name, value) in flat {
        let (key, text) = match keys::find(&name) {
            Some(key) => (key, plain(&name, value, &place)?),
            None => match secret_of_file_key(&name) {
                Some(key) => {
                    let file = plain(&name, value, &place)?;
                    // Relative to the configuration file, as people expect.
                    (key, secret_from(&path.parent().unwrap_or(Path::new(".")).join(file))?)
                }
                None => return Err(unknown(&name, &place)),
            },
        };
        let twice = matches!(values.get(key.name), Some(Value { origin: Origin::File(_), .. }));
        if twice {
            return Err(ConfigError::Contradiction(format!("set {0} or {0}_file, not both", key.name)));
        }
        values.insert(key.name, Value { text, origin: Origin::File(path.to_owned()) });
    }
    Ok(())
}

fn flatten<'a>(prefix: &str, table: &'a toml::Table, out: &mut Vec<(String, &'a toml::Value)>) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => flatten(&name, inner, out),
            // An empty section says nothing, but its name must exist.
            toml::Value::Table(_) if KEYS.iter().any(|k| k.name.starts_with(&format!("{name}."))) => {}
            other => out.push((name, other)),
        }
    }
}

fn plain(name: &str, value: &toml::Value, place: &str) -> Result<String, ConfigError> {
    let wrong = |reason: &str| ConfigError::Invalid {
        key: name.to_owned(),
        place: place.to_owned(),
        reason: reason.to_owned(),
    };
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(yes) => Ok(yes.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|t| t.join(",")).ok_or_else(|| wrong("a list of texts is wanted"))
        }
        _ => Err(wrong("a text, number, true, false or a list of texts is wanted")),
    }
}

/// `master_key` for `master_key_file`.
fn secret_of_file_key(name: &str) -> Option<&'static Key> {
    keys::find(name.strip_suffix("_file")?).filter(|key| key.secret)
}

fn secret_from(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|e| ConfigError::File { path: path.display().to_string(), reason: e.to_string() })
}

fn known(name: &str, place: &str) -> Result<&'static Key, ConfigError> {
    keys::find(name).ok_or_else(|| unknown(name, place))
}

fn unknown(name: &str, place: &str) -> ConfigError {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().replace('_', "");
    let wanted = last(name);
    let hint = KEYS
        .iter()
        .find(|key| last(key.name) == wanted || key.name.contains(name) || name.contains(key.name))
        .map(|key| format!("; did you mean \"{}\"?", key.name));
    let shown = name.chars().take(80).collect();
    ConfigError::Unknown { key: shown, place: place.to_owned(), hint: hint.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bellwether.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn the_strongest_place_wins() {
        let (_dir, path) =
            file("organization = 'file'\n[public]\nlisten = '127.0.0.1:1'\n[log]\nlevel = 'debug'\n");
        let sources = Sources {
            flags: vec![pair("organization", "flag")],
            environment: vec![
                pair("BELLWETHER_ORGANIZATION", "env"),
                pair("BELLWETHER_PUBLIC__LISTEN", "127.0.0.1:2"),
            ],
            file: Some(path.clone()),
        };
        let layers = sources.load().unwrap();
        let of = |name: &str| layers.get(name).map(|v| (v.text.clone(), v.origin.clone())).unwrap();
        assert_eq!(of("organization"), ("flag".to_owned(), Origin::Flag));
        assert_eq!(
            of("public.listen"),
            ("127.0.0.1:2".to_owned(), Origin::Environment("BELLWETHER_PUBLIC__LISTEN".into()))
        );
        assert_eq!(of("log.level"), ("debug".to_owned(), Origin::File(path)));
        assert_eq!(of("data_dir"), ("./data".to_owned(), Origin::Default));
        assert!(layers.get("database").is_none());
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let (_dir, path) = file("[public]\nlisten = '127.0.0.1:1'\nlisten_adress = 'x'\n");
        let error = Sources { file: Some(path), ..Sources::default() }.load().err().unwrap();
        assert!(error.to_string().contains("\"public.listen_adress\""), "{error}");
        let (_dir, path) = file("public_listen = 'x'\n[nonsense]\n");
        assert!(Sources { file: Some(path), ..Sources::default() }.load().is_err());
        let (_dir, path) = file("[nonsense]\n");
        assert!(Sources { file: Some(path), ..Sources::default() }.load().is_err());
        let env = Sources { environment: vec![pair("BELLWETHER_DATADIR", "x")], ..Sources::default() };
        let error = env.load().err().unwrap().to_string();
        assert!(error.contains("BELLWETHER_DATADIR") && error.contains("data_dir"), "{error}");
        let flag = Sources { flags: vec![pair("nope", "x")], ..Sources::default() };
        assert!(flag.load().is_err());
        let client = Sources {
            environment: vec![
                pair("BELLWETHER_URL", "x"),
                pair("BELLWETHER_TEST_PG", "y"),
                pair("HOME", "/"),
            ],
            ..Sources::default()
        };
        assert!(client.load().is_ok());
    }

    #[test]
    fn secrets_come_from_files_and_are_masked() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("db");
        std::fs::write(&secret, "postgres://u:hunter2@db/mdm\n\n").unwrap();
        let sources = Sources {
            environment: vec![pair("BELLWETHER_DATABASE_FILE", &secret.display().to_string())],
            ..Sources::default()
        };
        let layers = sources.load().unwrap();
        assert_eq!(layers.get("database").unwrap().text, "postgres://u:hunter2@db/mdm");
        for (_, shown, origin) in layers.shown() {
            assert!(!shown.contains("hunter2") && !origin.contains("hunter2"));
        }
        // The same from the file, relative to it.
        let (dir, path) = file("master_key_file = 'key'\n");
        std::fs::write(dir.path().join("key"), "abc\n").unwrap();
        let layers = Sources { file: Some(path), ..Sources::default() }.load().unwrap();
        assert_eq!(layers.get("master_key").unwrap().text, "abc");
        // A file for something that is no secret is an unknown key; so is both forms at once a contradiction.
        let env = vec![pair("BELLWETHER_ORGANIZATION_FILE", "/dev/null")];
        assert!(Sources { environment: env, ..Sources::default() }.load().is_err());
        let env = vec![
            pair("BELLWETHER_DATABASE_FILE", &secret.display().to_string()),
            pair("BELLWETHER_DATABASE", "postgres://x"),
        ];
        assert!(Sources { environment: env, ..Sources::default() }.load().is_err());
    }

    #[test]
    fn a_broken_file_does_not_echo_its_content() {
        let (_dir, path) = file("database = 'postgres://u:hunter2@db\n");
        let error = Sources { file: Some(path), ..Sources::default() }.load().err().unwrap();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
