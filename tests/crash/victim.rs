//! The server as a process that dies and comes back on the same data and ports.

use crate::harness::{Database, PATIENCE, Site, program, root};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Compiles a library of this folder to be preloaded; none without a C compiler.
pub fn preload(source: &str, folder: &Path) -> Option<PathBuf> {
    let library = folder.join(source).with_extension("so");
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library);
    command.arg(root().join("tests/crash").join(source));
    let status = command.args(["-ldl", "-lpthread"]).status().ok()?;
    assert!(status.success(), "{source} compiles");
    Some(library)
}

pub struct Victim {
    pub folder: TempDir,
    pub database: Option<Database>,
    ports: [u16; 2],
    /// More of its environment.
    pub env: Vec<(String, String)>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Victim {
    /// Starts a server with an empty database and sets it up.
    pub async fn start(postgres: bool, env: Vec<(String, String)>) -> (Self, Site) {
        let database = if postgres { Database::fresh() } else { None };
        let mut victim = Self::new(database, env);
        let serving = victim.spawn();
        let text = |name: &str| serving[name].as_str().unwrap().to_owned();
        let site = victim.set_up(&text("public_url"), &text("device_url")).await;
        (victim, site)
    }

    /// One that was never started.
    pub fn new(database: Option<Database>, env: Vec<(String, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, database, ports: [0, 0], env, child: None, log: Arc::default() }
    }

    /// Spends the token of a first start, at these addresses.
    pub async fn set_up(&self, public: &str, device: &str) -> Site {
        let ca = std::fs::read_to_string(self.data().join("tls-ca.pem")).unwrap();
        let until = Instant::now() + PATIENCE;
        let token = loop {
            match std::fs::read_to_string(self.data().join("setup-token")) {
                Ok(token) => break token,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Site::set_up(public, device, &ca, token.trim()).await
    }

    /// The ports of the two listeners.
    pub fn ports(&self) -> [u16; 2] {
        self.ports
    }

    /// Sends a signal to the process that runs.
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().unwrap();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
        assert!(sent.unwrap().success(), "{name} could not be sent");
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it again; what it logged that it serves.
    pub fn spawn(&mut self) -> Value {
        let [public, device] = self.ports;
        let mut command = program("bellwether");
        command.arg("serve").arg("--data-dir").arg(self.data());
        for set in [
            format!("public.listen=127.0.0.1:{public}"),
            format!("device.listen=127.0.0.1:{device}"),
            "log.format=json".to_owned(),
            "limits.drain_seconds=0".to_owned(),
        ] {
            command.args(["--set", &set]);
        }
        if let Some(database) = &self.database {
            command.env("BELLWETHER_DATABASE", database.url());
        }
        command.envs(self.env.iter().cloned());
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        self.log.lock().unwrap().clear();
        let into = self.log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.log().lines().find(|line| line.contains("bellwether serves")).map(str::to_owned);
            if let Some(line) = line {
                let serving: Value = serde_json::from_str(&line).unwrap();
                let port = |name: &str| serving[name].as_str()?.rsplit(':').next()?.parse().ok();
                self.ports = [port("public").unwrap(), port("device").unwrap()];
                return serving;
            }
            let alive = self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none());
            assert!(alive && Instant::now() < until, "the server does not come back: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL: nothing is said, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SQLite itself looks at every page, by Python's own library.
    pub fn sound(&self) {
        if self.database.is_some() {
            return;
        }
        let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=20); \
                      print(c.execute('PRAGMA integrity_check').fetchall(), c.execute('PRAGMA foreign_key_check').fetchall())";
        let database = self.data().join("bellwether.db");
        match Command::new("python3").args(["-c", script]).arg(database).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(said.trim(), "[('ok',)] []", "{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => assert!(std::env::var_os("CI").is_none(), "python3: {error}"),
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
