//! A server for every test: in this process, or the built program when a test looks at the process itself.

use bellwether::config::Config;
use bellwether::serve::{self, RunningServer};
use bellwether_sim::{AppleDevice, Family, Http, KeyPool};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The role that servers work under: plain, so that row-level security holds for it.
const ROLE: &str = "bellwether_e2e";
/// How long anything may take that is not being measured.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Few RSA keys for many devices: making one takes longer than everything else in a test.
pub async fn keys() -> KeyPool {
    static POOL: OnceCell<KeyPool> = OnceCell::const_new();
    POOL.get_or_init(|| async { KeyPool::shared(8).await.unwrap() }).await.clone()
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    pub headers: Vec<(String, String)>,
}

impl Answer {
    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub fn good(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json
    }

    /// The status and detail of an answer that must be a refusal in the API's own form.
    #[track_caller]
    pub fn refusal(self) -> (u16, String) {
        assert!(self.status >= 400, "{self:?}");
        let kind =
            self.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        (self.status, self.json["detail"].as_str().unwrap_or_default().to_owned())
    }
}

/// The HTTP API of a running server, and devices for it.
#[derive(Clone)]
pub struct Site {
    pub url: String,
    pub device_url: String,
    pub ca_pem: String,
    pub http: Http,
    pub key: SecretString,
    /// Calls name this site; without it they are for the default site.
    pub site_id: Option<String>,
}

impl Site {
    /// Spends the setup token.
    pub async fn set_up(url: &str, device_url: &str, ca_pem: &str, token: &str) -> Self {
        let http = Http::new(ca_pem.as_bytes()).unwrap();
        let mut site = Self {
            url: url.to_owned(),
            device_url: device_url.to_owned(),
            ca_pem: ca_pem.to_owned(),
            http,
            key: SecretString::default(),
            site_id: None,
        };
        let made = site
            .call(Method::POST, "/setup", Some(json!({ "token": token, "name": "e2e" })), &[])
            .await
            .good();
        site.key = SecretString::from(made["secret"].as_str().unwrap().to_owned());
        site
    }

    /// One call of the API, with more headers.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.http.request(method, &self.api(path));
        if !self.key.expose_secret().is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key.expose_secret()));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let reply = self.http.send("API", request).await.unwrap();
        let json = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        Answer { status: reply.status, json, headers: reply.headers }
    }

    /// The URL of a path of the API, in this site.
    pub fn api(&self, path: &str) -> String {
        let site = self.site_id.as_ref().map_or_else(String::new, |site| {
            format!("{}site={site}", if path.contains('?') { '&' } else { '?' })
        });
        format!("{}/api/v1{path}{site}", self.url)
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None, &[]).await.good()
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None, &[]).await
    }

    /// A test-only invitation; its link.
    pub async fn invite(&self) -> String {
        self.invite_with(json!({})).await
    }

    /// A test-only invitation for a person; its link.
    pub async fn invite_for(&self, account: &str) -> String {
        self.invite_with(json!({ "account": account })).await
    }

    /// An invitation with more fields; its link.
    pub async fn invite_with(&self, fields: Value) -> String {
        let mut wish = json!({ "platform": "apple", "test_only": true, "ownership": "company" });
        wish.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.post("/invitations", wish).await.good()["link"].as_str().unwrap().to_owned()
    }

    /// A device out of its box.
    pub async fn device(&self, family: Family) -> AppleDevice {
        AppleDevice::builder(family, self.http.clone()).keys(keys().await).build().unwrap()
    }

    /// A device that has enrolled and reported its first inventory.
    pub async fn enrolled(&self, family: Family) -> AppleDevice {
        let mut device = self.device(family).await;
        device.enroll(&self.invite().await).await.unwrap();
        device.poll().await.unwrap();
        device
    }

    /// What the server knows of a device.
    pub async fn show(&self, device: &AppleDevice) -> Value {
        self.get(&format!("/devices/{}", device.serial())).await
    }

    /// Queues a command; its id.
    pub async fn send(&self, device: &AppleDevice, intent: Value) -> String {
        self.try_send(device, intent).await.good()["id"].as_str().unwrap().to_owned()
    }

    /// Tries to queue a command.
    pub async fn try_send(&self, device: &AppleDevice, intent: Value) -> Answer {
        self.post(&format!("/devices/{}/commands", device.serial()), json!({ "intent": intent })).await
    }

    /// A command with its parts.
    pub async fn command(&self, id: &str) -> Value {
        self.get(&format!("/commands/{id}")).await
    }

    /// A command's state.
    pub async fn state(&self, id: &str) -> String {
        self.command(id).await["command"]["state"].as_str().unwrap().to_owned()
    }

    /// Sealed audit entries of a kind; waits until there are `least`.
    pub async fn audited(&self, kind: &str, least: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let page = self.get("/audit?limit=500").await;
            let found: Vec<Value> =
                page["items"].as_array().unwrap().iter().filter(|e| e["kind"] == kind).cloned().collect();
            if found.len() >= least {
                return found;
            }
            assert!(Instant::now() < until, "{} of {least} audit entries {kind}: {page:#}", found.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A request to the server outside the API.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> bellwether_sim::Reply {
        let mut request = self.http.request(method, &format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.http.send("request", request).await.unwrap()
    }
}

/// A server in this process, set up, with its data folder.
pub struct House {
    pub site: Site,
    pub config: Config,
    pub database: Option<Database>,
    server: Option<RunningServer>,
    folder: TempDir,
}

impl std::ops::Deref for House {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl House {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::ephemeral(folder.path().join("data")).unwrap();
        config.limits.drain_seconds = 0;
        let database = Database::fresh();
        config.database = database.as_ref().map(|d| SecretString::from(d.url()));
        change(&mut config);
        let mut server = serve::start(config.clone()).await.unwrap();
        let token = server.setup_token.take().expect("a fresh server mints a setup token");
        let site =
            Site::set_up(&server.public_url, &server.device_url, &server.tls_ca_pem, token.expose_secret())
                .await;
        Self { site, config, database, server: Some(server), folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The use cases, for what has no route.
    pub fn engine(&self) -> &bellwether_engine::Engine {
        &self.server.as_ref().expect("it runs").engine
    }

    /// The id of the site that exists from the first start.
    pub fn default_site(&self) -> String {
        self.server.as_ref().unwrap().engine.default_site().to_string()
    }

    /// Stops the server; the data stays.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Starts again on the same data and ports.
    pub async fn start(&mut self) {
        let port = |url: &str| format!("127.0.0.1:{}", url.rsplit(':').next().unwrap()).parse().unwrap();
        self.config.public_listen = port(&self.site.url);
        self.config.device_listen = port(&self.site.device_url);
        let server = serve::start(self.config.clone()).await.unwrap();
        assert!(server.setup_token.is_none(), "a server with an administrator mints no token");
        self.server = Some(server);
    }

    /// Runs the built command-line program against this server.
    pub async fn cli(&self, args: &[&str]) -> Output {
        let key = self.folder.path().join("key");
        std::fs::write(&key, self.site.key.expose_secret()).unwrap();
        let mut command = program("bellwether");
        command
            .args(["--url", &self.site.url, "--key-file", key.to_str().unwrap()])
            .arg("--ca")
            .arg(self.config.data_dir.join("tls-ca.pem"))
            .args(args)
            .env("HOME", self.folder.path());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The same with `--output json`, which must succeed.
    pub async fn cli_json(&self, args: &[&str]) -> Value {
        let output = self.cli(&[&["--output", "json"], args].concat()).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && !std::thread::panicking()
        {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(server.stop()));
        }
    }
}

/// A database of PostgreSQL for one server, if there is a cluster.
pub struct Database {
    admin: String,
    name: String,
    /// What the role shows; the cluster looks at no password.
    password: String,
}

impl Database {
    pub fn fresh() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let admin = std::env::var("BELLWETHER_TEST_POSTGRES_URL").ok()?;
        let name = format!("e2e_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let role = format!(
            "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}' NOSUPERUSER NOBYPASSRLS; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        psql(&admin, &role);
        psql(&admin, &format!("CREATE DATABASE {name} OWNER {ROLE}"));
        Some(Self { admin, name, password: ROLE.to_owned() })
    }

    /// The same with another password.
    pub fn with_password(self, password: &str) -> Self {
        // Not by a struct's update: a database that was taken apart would be dropped.
        let mut database = self;
        password.clone_into(&mut database.password);
        database
    }

    /// As the plain role.
    pub fn url(&self) -> String {
        self.url_as(&format!("{ROLE}:{}", self.password))
    }

    /// As the plain role, over another port of this machine.
    pub fn url_over(&self, port: u16) -> String {
        let url = self.url();
        let (head, name) = url.rsplit_once('/').unwrap();
        format!("{}@127.0.0.1:{port}/{name}", head.rsplit_once('@').unwrap().0)
    }

    /// Where PostgreSQL listens.
    pub fn address(&self) -> std::net::SocketAddr {
        let url = self.url();
        let host = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        std::net::ToSocketAddrs::to_socket_addrs(host).unwrap().next().unwrap()
    }

    /// As the cluster's administrator, for whom row-level security does not hold.
    pub fn admin_url(&self) -> String {
        let rest = self.admin.split_once("://").unwrap().1;
        self.url_as(rest.rsplit_once('@').map_or("", |(user, _)| user))
    }

    fn url_as(&self, user: &str) -> String {
        let rest = self.admin.split_once("://").unwrap().1;
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).split(['/', '?']).next().unwrap();
        format!("postgres://{user}@{host}/{}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = Command::new("psql")
            .args([
                "-q",
                "-d",
                &self.admin,
                "-c",
                &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
            ])
            .output();
    }
}

/// Speaks SQL behind the server's back.
pub fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql")
        .args(["-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql])
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The built program, without this process's configuration in its environment.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(built().join(name));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("BELLWETHER_") {
            command.env_remove(key);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Gives a program `key=value`; a secret by the environment, because it takes none as a flag.
pub fn configure(command: &mut Command, set: &str) {
    let (key, value) = set.split_once('=').unwrap();
    if bellwether::config::keys::find(key).is_some_and(|key| key.secret) {
        command.env(format!("BELLWETHER_{}", key.to_uppercase().replace('.', "__")), value);
    } else {
        command.args(["--set", set]);
    }
}

/// The folder of the built programs. Builds them when they are missing or older than their sources.
fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().unwrap().parent().unwrap().to_owned();
        let age = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
        let newest = newest_source(&root());
        let fresh = ["bellwether", "bellwether-sim"].iter().all(|name| age(&folder.join(name)) > newest);
        if !fresh {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            build.args(["build", "-q", "-p", "bellwether", "-p", "bellwether-sim"]).current_dir(root());
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "the programs build");
        }
        folder
    })
}

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn newest_source(root: &Path) -> Option<std::time::SystemTime> {
    let rooms = ["src", "certs", "protocols", "migrations", "tests/sim"];
    let mut files = Vec::new();
    rooms.iter().for_each(|room| walk(&root.join(room), &mut files));
    files.iter().filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

/// Every file below a folder.
pub fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, into) } else { into.push(path) }
    }
}

/// The built server as a process of its own.
pub struct Process {
    pub site: Option<Site>,
    pub folder: TempDir,
    /// What it was given to begin with; spent.
    pub setup_token: String,
    pub database: Option<Database>,
    child: Child,
    log: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Process {
    /// Starts it with more configuration (`key=value`) and sets it up.
    pub async fn start(sets: &[&str]) -> Self {
        Self::start_on(sets, Database::fresh()).await
    }

    /// The same on this database.
    pub async fn start_on(sets: &[&str], database: Option<Database>) -> Self {
        let mut process = Self::start_bare(sets, database);
        let serving = process.serving();
        let text = |name: &str| serving[name].as_str().unwrap().to_owned();
        let data = process.folder.path().join("data");
        let ca = std::fs::read_to_string(data.join("tls-ca.pem")).unwrap();
        let until = Instant::now() + PATIENCE;
        let token = loop {
            match std::fs::read_to_string(data.join("setup-token")) {
                Ok(token) => break token,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        token.trim().clone_into(&mut process.setup_token);
        process.site = Some(Site::set_up(&text("public_url"), &text("device_url"), &ca, token.trim()).await);
        process
    }

    fn start_bare(sets: &[&str], database: Option<Database>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program("bellwether");
        command.arg("serve").arg("--data-dir").arg(folder.path().join("data"));
        for set in
            ["public.listen=127.0.0.1:0", "device.listen=127.0.0.1:0", "log.format=json"].iter().chain(sets)
        {
            configure(&mut command, set);
        }
        if let Some(database) = &database {
            command.env("BELLWETHER_DATABASE", database.url());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        keep_lines(child.stdout.take().unwrap(), log.clone());
        keep_lines(child.stderr.take().unwrap(), log.clone());
        Self { site: None, folder, setup_token: String::new(), database, child, log }
    }

    /// Ends it as an operator does, and waits for that.
    pub fn stop(&mut self) {
        let ended = Command::new("kill").arg(self.id().to_string()).status().unwrap();
        assert!(ended.success() && self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// The log line that tells the addresses.
    fn serving(&mut self) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.log().lines().find(|line| line.contains("bellwether serves")).map(str::to_owned);
            if let Some(line) = line {
                // As text: `name=value`, with a blank between two of them.
                let fields = || line.split(' ').filter_map(|field| field.split_once('='));
                let text = || fields().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
                return serde_json::from_str(&line).unwrap_or_else(|_| text());
            }
            assert!(self.is_alive() && Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote to standard output and standard error until now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        memory_of(self.id())
    }
}

/// Adds every line to the log, until there are no more.
fn keep_lines(from: impl std::io::Read + Send + 'static, log: std::sync::Arc<std::sync::Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process in bytes.
pub fn memory_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split_whitespace().nth(1).map_or(0, |pages| pages.parse::<u64>().unwrap() * 4096)
}

/// Other people's programs. Under CI a missing one is a failure, elsewhere a notice.
pub mod judge {
    use super::*;

    /// Says that a judge is missing.
    pub fn missing(name: &str, why: &str) {
        assert!(std::env::var_os("CI").is_none(), "judge {name} is missing: {why}");
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: judge {name} did not look: {why}\n"),
        );
    }

    /// Writes down that a judge looked, and how many things it checked.
    pub fn looked(name: &str, checks: usize) {
        println!("judge {name}: {checks} checks");
        if let Some(path) = std::env::var_os("BELLWETHER_JUDGE_LOG") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "judge\t{name}\t{checks}").unwrap();
        }
    }

    /// Runs a judge; `None` where it is not installed.
    pub fn run(name: &str, command: &mut Command) -> Option<Output> {
        match command.output() {
            Ok(output) => Some(output),
            Err(error) => {
                missing(name, &error.to_string());
                None
            }
        }
    }
}
