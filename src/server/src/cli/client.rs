//! The API as the client verbs call it, and what `login` remembers.

use super::Failure;
use super::args::ClientArgs;
use crate::problem::Problem;
use reqwest::{Certificate, Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a file may take.
const UPLOAD_TIME: Duration = Duration::from_secs(30 * 60);

/// What `login` remembers, in a file for its owner only.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    key: String,
}

/// A connection to a server.
pub struct Client {
    http: reqwest::Client,
    url: Url,
    ca: Option<String>,
    key: Option<SecretString>,
    site: Option<uuid::Uuid>,
}

impl Client {
    /// From flags and environment, and for what they leave open from what `login` remembered.
    pub fn open(args: &ClientArgs) -> Result<Self, Failure> {
        let remembered = remembered()?;
        // A key is only good for the server it was made for: another --url does not get the remembered one.
        let same = |url: &str| {
            remembered.as_ref().is_some_and(|r| r.url.trim_end_matches('/') == url.trim_end_matches('/'))
        };
        let url = args.url.clone().or_else(|| remembered.as_ref().map(|r| r.url.clone()));
        let url = url.ok_or_else(|| Failure::new("which server? Use --url, or \"bellwether login\" once"))?;
        let known = if same(&url) { remembered } else { None };
        let (known_ca, known_key) = known.map_or((None, None), |r| (r.ca, Some(r.key)));
        let ca = match &args.ca {
            Some(path) => Some(read(path)?),
            None => known_ca,
        };
        let key = match (&args.key_file, std::env::var("BELLWETHER_KEY").ok()) {
            (Some(path), _) => Some(read(path)?.trim().to_owned()),
            (None, Some(key)) => Some(key),
            (None, None) => known_key,
        };
        Self::new(&url, ca, key.map(SecretString::from), args.site)
    }

    /// Without anything remembered.
    pub fn new(
        url: &str,
        ca: Option<String>,
        key: Option<SecretString>,
        site: Option<uuid::Uuid>,
    ) -> Result<Self, Failure> {
        let url: Url = url.parse().map_err(|_| Failure::new("--url is no URL"))?;
        if url.scheme() != "https" {
            return Err(Failure::new("--url must begin with https://: a key never travels in the clear"));
        }
        let mut builder = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("bellwether/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &ca {
            let roots = Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|_| Failure::new("--ca holds no PEM certificate"))?;
            builder = builder.tls_certs_only(roots);
        }
        let http = builder.build().map_err(|e| Failure::new(format!("cannot set up TLS: {e}")))?;
        Ok(Self { http, url, ca, key, site })
    }

    /// Gives it the key that everything else needs.
    pub fn with_key(mut self, key: SecretString) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether there is a key.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// GET.
    pub async fn get(&self, path: &[&str], query: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        self.call(Method::GET, path, query, None, None).await
    }

    /// POST.
    pub async fn post(
        &self,
        path: &[&str],
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<Value, Failure> {
        self.call(Method::POST, path, &[], Some(body), idempotency_key).await
    }

    /// POST of what may take as long as a file.
    pub async fn post_slow(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(self.endpoint(path, &[])?).timeout(UPLOAD_TIME).json(body);
        self.answer(request).await
    }

    /// POST of a file, as it is.
    pub async fn upload(
        &self,
        path: &[&str],
        query: &[(&str, Option<String>)],
        bytes: Vec<u8>,
    ) -> Result<Value, Failure> {
        let request = self
            .http
            .post(self.endpoint(path, query)?)
            .timeout(UPLOAD_TIME)
            .header("content-type", "application/octet-stream")
            .body(bytes);
        self.answer(request).await
    }

    /// GET into a new file for its owner only; its bytes.
    pub async fn download(&self, path: &[&str], to: &Path, replace: bool) -> Result<u64, Failure> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let fail = |e: std::io::Error| Failure::new(format!("cannot write {}: {e}", to.display()));
        if !replace && to.symlink_metadata().is_ok() {
            return Err(Failure::new(format!("{} is there already; --force replaces it", to.display())));
        }
        let mut response = self.send(self.http.get(self.endpoint(path, &[])?).timeout(UPLOAD_TIME)).await?;
        if replace && to.symlink_metadata().is_ok() {
            std::fs::remove_file(to).map_err(fail)?;
        }
        // Only a file that is made here: what stands there by now, or a link, is not written to.
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(fail)?;
        let taken = async {
            let mut bytes = 0_u64;
            while let Some(chunk) = response.chunk().await.map_err(|e| unreachable_server(&self.url, &e))? {
                file.write_all(&chunk).map_err(fail)?;
                bytes = bytes.saturating_add(chunk.len() as u64);
            }
            file.sync_all().map_err(fail)?;
            Ok(bytes)
        }
        .await;
        if taken.is_err() {
            // Half a file is no file.
            std::fs::remove_file(to).map_err(fail)?;
        }
        taken
    }

    /// DELETE.
    pub async fn delete(&self, path: &[&str], body: Option<&Value>) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, &[], body, None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<String>)],
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Value, Failure> {
        let mut request = self.http.request(method, self.endpoint(path, query)?);
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        let bytes = response.bytes().await.map_err(|e| unreachable_server(&self.url, &e))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|_| Failure::new("the server answered something that is no JSON"))
    }

    /// An answer that is a success; its body is still to come.
    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        let response = request.send().await.map_err(|e| unreachable_server(&self.url, &e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.map_err(|e| unreachable_server(&self.url, &e))?;
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Failure::refused(problem),
            Err(_) => Failure::new(format!("the server answered {status}; is --url a Bellwether server?")),
        })
    }

    fn endpoint(&self, path: &[&str], query: &[(&str, Option<String>)]) -> Result<Url, Failure> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::new("--url is no base URL"))?
            .clear()
            .extend(["api", "v1"])
            .extend(path);
        {
            let mut pairs = url.query_pairs_mut();
            if let Some(site) = self.site {
                pairs.append_pair("site", &site.to_string());
            }
            for (name, value) in query {
                if let Some(value) = value {
                    pairs.append_pair(name, value);
                }
            }
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }

    /// Remembers this server and key.
    pub fn remember(&self) -> Result<PathBuf, Failure> {
        let key = self.key.as_ref().ok_or_else(|| Failure::new("there is no key to remember"))?;
        let remembered = Remembered {
            url: self.url.as_str().trim_end_matches('/').to_owned(),
            ca: self.ca.clone(),
            key: key.expose_secret().to_owned(),
        };
        let text = toml::to_string(&remembered).map_err(|e| Failure::new(e.to_string()))?;
        let path = file().ok_or_else(|| Failure::new("there is no home folder (HOME) to remember it in"))?;
        let folder = path.parent().ok_or_else(|| Failure::new("no folder"))?;
        std::fs::create_dir_all(folder)
            .map_err(|e| Failure::new(format!("cannot make {}: {e}", folder.display())))?;
        crate::serve::write(folder, "cli.toml", &text, 0o600).map_err(|e| Failure::new(e.to_string()))
    }
}

fn unreachable_server(url: &Url, error: &reqwest::Error) -> Failure {
    let mut text = format!("cannot reach {url}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    if text.contains("certificate") {
        text.push_str("\nDoes the server use its own CA? Give its tls-ca.pem with --ca.");
    }
    Failure::new(text)
}

fn file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(folder.join("bellwether").join("cli.toml"))
}

fn remembered() -> Result<Option<Remembered>, Failure> {
    let Some(path) = file() else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::new(format!("cannot read {}: {e}", path.display()))),
    };
    let damaged = || Failure::new(format!("{} is damaged; log in again", path.display()));
    toml::from_str(&text).map(Some).map_err(|_| damaged())
}

fn read(path: &std::path::Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_path_segment() {
        let client = Client::new("https://mdm.example.org/", None, None, None).unwrap();
        let url = client
            .endpoint(&["devices", "../keys?x=1#y"], &[("limit", Some("5".into())), ("cursor", None)])
            .unwrap();
        assert_eq!(url.as_str(), "https://mdm.example.org/api/v1/devices/..%2Fkeys%3Fx=1%23y?limit=5");
        assert!(Client::new("http://mdm.example.org", None, None, None).is_err());
    }
}
