//! The edge as a client meets it: real sockets, real TLS, a real engine on SQLite.

mod api;
mod limits;
mod packages;
mod pages;
mod routes;
mod tls;
mod windows;

use crate::config::{Config, Sources};
use crate::serve::{self, RunningServer};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A server of one test.
pub struct World {
    pub server: RunningServer,
    pub folder: tempfile::TempDir,
    pub http: reqwest::Client,
    pub url: String,
}

impl World {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With other configuration than the defaults.
    pub async fn with(flags: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = serve::start(config(folder.path(), flags)).await.unwrap();
        let roots = reqwest::Certificate::from_pem_bundle(server.tls_ca_pem.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .unwrap();
        let url = server.public_url.clone();
        Self { server, folder, http, url }
    }

    /// The first key.
    pub async fn key(&mut self) -> String {
        let token = self.server.setup_token.take().unwrap();
        let body = json!({ "token": token.expose_secret(), "name": "test" });
        let answer = self.http.post(self.at("/api/v1/setup")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let answer: Value = answer.json().await.unwrap();
        answer["secret"].as_str().unwrap().to_owned()
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

pub fn config(folder: &std::path::Path, flags: &[(&str, &str)]) -> Config {
    let base = [
        ("data_dir", folder.to_str().unwrap()),
        ("public.listen", "127.0.0.1:0"),
        ("device.listen", "127.0.0.1:0"),
        ("limits.workers", "1"),
    ];
    let flags = base.iter().chain(flags).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::from_layers(&Sources { flags, ..Sources::default() }.load().unwrap()).unwrap()
}

/// Sends bytes as they are, over TLS, and reads the head of the answer.
pub fn raw(addr: SocketAddr, request: &[u8]) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = tls::connect(addr, None).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut buffer = [0_u8; 4096];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => answer.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}
