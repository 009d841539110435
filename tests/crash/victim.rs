//! The server as a process that dies and comes back on the same data and ports.

use crate::harness::{Database, PATIENCE, Site, program};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Victim {
    pub folder: TempDir,
    pub database: Option<Database>,
    ports: [u16; 2],
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// More of its configuration, `key=value`.
    pub sets: Vec<String>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Victim {
    /// Starts a server with an empty database and sets it up.
    pub async fn start(postgres: bool, env: Vec<(String, String)>) -> (Self, Site) {
        let mut victim = Self::new(postgres);
        victim.env = env;
        let site = victim.set_up().await;
        (victim, site)
    }

    /// A server that was not started yet.
    pub fn new(postgres: bool) -> Self {
        let database = if postgres { Database::fresh() } else { None };
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            database,
            ports: [0, 0],
            env: Vec::new(),
            sets: vec!["limits.drain_seconds=0".to_owned()],
            child: None,
            log: Arc::default(),
        }
    }

    /// The first start.
    pub async fn set_up(&mut self) -> Site {
        let serving = self.spawn();
        let text = |name: &str| serving[name].as_str().unwrap().to_owned();
        self.set_up_at(&text("public_url"), &text("device_url")).await
    }

    /// Spends the token of a first start, at these addresses.
    pub async fn set_up_at(&self, public: &str, device: &str) -> Site {
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
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(sent.unwrap().success(), "{name} could not be sent");
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it again; what it logged that it serves.
    pub fn spawn(&mut self) -> Value {
        self.launch();
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

    /// Starts it and waits for nothing.
    pub fn launch(&mut self) {
        let [public, device] = self.ports;
        let mut command = program("bellwether");
        command.arg("serve").arg("--data-dir").arg(self.data());
        for set in [
            format!("public.listen=127.0.0.1:{public}"),
            format!("device.listen=127.0.0.1:{device}"),
            "log.format=json".to_owned(),
        ]
        .iter()
        .chain(&self.sets)
        {
            command.args(["--set", set]);
        }
        if let Some(database) = &self.database {
            command.env("BELLWETHER_DATABASE", database.url());
        }
        command.envs(self.env.iter().cloned());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A log of its own for each life: what the last one still says must not mix in.
        self.log = Arc::default();
        read_into(child.stdout.take().unwrap(), self.log.clone());
        read_into(child.stderr.take().unwrap(), self.log.clone());
        self.child = Some(child);
    }

    /// How it ended, if it does within this time. By a signal is no exit code.
    pub fn ended(&mut self, within: Duration) -> Option<Option<i32>> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                // What it said last is still on its way.
                std::thread::sleep(Duration::from_millis(100));
                return Some(status.code());
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM: the orderly end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
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

fn read_into(out: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
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
