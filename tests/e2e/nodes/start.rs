//! RT-27: nodes that start in one moment. One migrates, the others wait and serve.

use crate::harness::{Database, PATIENCE, Site, program, psql, root, walk};
use bellwether_sim::Family;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One process on a database that others use too.
struct Node {
    child: Child,
    log: Arc<Mutex<String>>,
    folder: std::path::PathBuf,
}

impl Node {
    fn start(database: &Database, folder: &Path) -> Self {
        let mut command = program("bellwether");
        command.arg("serve").arg("--data-dir").arg(folder);
        for set in [
            "public.listen=127.0.0.1:0",
            "device.listen=127.0.0.1:0",
            "log.format=json",
            "limits.drain_seconds=0",
            "limits.workers=1",
            // All nodes have the same name; it is not looked up here.
            "public_url=https://localhost:9443",
            "device_url=https://localhost:9444",
        ] {
            command.args(["--set", set]);
        }
        command.env("BELLWETHER_DATABASE", database.url()).env("BELLWETHER_MASTER_KEY", "5a".repeat(32));
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let into = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log, folder: folder.to_owned() }
    }

    /// Waits until it serves; the ports of its listeners.
    async fn serving(&mut self) -> [u16; 2] {
        let until = Instant::now() + PATIENCE * 2;
        loop {
            let log = self.log.lock().unwrap().clone();
            if let Some(line) = log.lines().find(|line| line.contains("bellwether serves")) {
                let serving: Value = serde_json::from_str(line).unwrap();
                let port = |name: &str| {
                    let address = serving[name].as_str().unwrap();
                    address.rsplit(':').next().unwrap().parse().unwrap()
                };
                return [port("public"), port("device")];
            }
            let alive = self.child.try_wait().unwrap().is_none();
            assert!(alive && Instant::now() < until, "a node does not start: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts so many in one moment; all of them, and their ports.
async fn together(count: usize, database: &Database, folder: &TempDir) -> (Vec<Node>, Vec<[u16; 2]>) {
    let folders: Vec<_> = (0..count).map(|n| folder.path().join(format!("node-{n}"))).collect();
    let mut nodes: Vec<Node> = folders.iter().map(|folder| Node::start(database, folder)).collect();
    let mut ports = Vec::new();
    for node in &mut nodes {
        ports.push(node.serving().await);
    }
    (nodes, ports)
}

fn count(database: &Database, sql: &str) -> i64 {
    psql(&database.admin_url(), sql).trim().parse().unwrap()
}

/// What must be there once, however many nodes made it.
#[track_caller]
fn made_once(database: &Database) {
    for (what, sql) in [
        ("site", "SELECT count(*) FROM sites"),
        ("device CA", "SELECT count(*) FROM authorities WHERE retired_at IS NULL"),
        ("TLS CA", "SELECT count(*) FROM server_settings WHERE key = 'tls-ca'"),
    ] {
        assert_eq!(count(database, sql), 1, "{what}");
    }
    let mut folders = Vec::new();
    walk(&root().join("migrations/postgres"), &mut folders);
    let wanted = folders.iter().filter(|file| file.ends_with("up.sql")).count();
    let ran = count(database, "SELECT count(*) FROM __diesel_schema_migrations");
    assert_eq!(ran, i64::try_from(wanted).unwrap(), "migrations that ran");
}

/// The token that counts: the one of the node that was last to make one.
async fn set_up(nodes: &[Node], ports: &[[u16; 2]]) -> Site {
    let url = |port: u16| format!("https://localhost:{port}");
    let ca = std::fs::read_to_string(nodes[0].folder.join("tls-ca.pem")).unwrap();
    let http = bellwether_sim::Http::new(ca.as_bytes()).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        for node in nodes {
            let Ok(token) = std::fs::read_to_string(node.folder.join("setup-token")) else { continue };
            let mut site = Site {
                url: url(ports[0][0]),
                device_url: url(ports[0][1]),
                ca_pem: ca.clone(),
                http: http.clone(),
                key: secrecy::SecretString::default(),
                site_id: None,
            };
            let answer = site.post("/setup", json!({ "token": token.trim(), "name": "e2e" })).await;
            if answer.status == 401 {
                continue;
            }
            site.key = secrecy::SecretString::from(answer.good()["secret"].as_str().unwrap().to_owned());
            return site;
        }
        assert!(Instant::now() < until, "no node's setup token is good");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each node works with what the others made.
async fn each_serves(site: &Site, ports: &[[u16; 2]]) {
    for [public, device] in ports {
        let node = Site {
            url: format!("https://localhost:{public}"),
            device_url: format!("https://localhost:{device}"),
            ..site.clone()
        };
        assert_eq!(node.raw(reqwest::Method::GET, "/readyz", &[], Vec::new()).await.status, 200);
        node.get("/devices").await;
        let made = node.invite().await;
        let shown = node.device(Family::Mac).await;
        // The link names the address of all nodes; asked is this one.
        let link = format!("{}/enroll/{}", node.url, made.rsplit('/').next().unwrap());
        shown.fetch_profile(&link, &Default::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_27_nodes_start_together_on_an_empty_database() {
    for nodes in [2, 4] {
        let Some(database) = Database::fresh() else { return super::said_skipped() };
        let folder = tempfile::tempdir().unwrap();
        let (running, ports) = together(nodes, &database, &folder).await;
        made_once(&database);
        let site = set_up(&running, &ports).await;
        each_serves(&site, &ports).await;
        assert_eq!(site.get("/audit/verify").await["intact"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_27_nodes_start_together_on_an_older_schema() {
    for nodes in [2, 4] {
        let Some(database) = Database::fresh() else { return super::said_skipped() };
        let folder = tempfile::tempdir().unwrap();
        let site = {
            let (running, ports) = together(1, &database, &folder).await;
            set_up(&running, &ports).await
        };
        let left = older(&database);
        assert!(left >= 2, "an older schema");
        let (_running, ports) = together(nodes, &database, &folder).await;
        made_once(&database);
        each_serves(&site, &ports).await;
    }
}

/// Takes the newest half of the migrations back; how many are left.
fn older(database: &Database) -> usize {
    let mut files = Vec::new();
    walk(&root().join("migrations/postgres"), &mut files);
    let mut downs: Vec<_> = files.into_iter().filter(|file| file.ends_with("down.sql")).collect();
    downs.sort();
    let left = downs.len() / 2;
    for down in downs[left..].iter().rev() {
        let output = Command::new("psql")
            .args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &database.url(), "-f"])
            .arg(down)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}", down.display(), String::from_utf8_lossy(&output.stderr));
        let name = down.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let version: String = name.split('_').next().unwrap().chars().filter(char::is_ascii_digit).collect();
        psql(&database.url(), &format!("DELETE FROM __diesel_schema_migrations WHERE version = '{version}'"));
    }
    left
}
