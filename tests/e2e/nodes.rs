//! Several nodes on one PostgreSQL, without affinity: whatever is asked may go to any of them. Nothing of this exists on
//! SQLite, where one process is the rule.

mod commits;
mod limits;
mod start;
mod talks;
mod wakes;

use crate::harness::{Database, Site, psql};
use crate::wire::{Choice, Gate, Splitter};
use bellwether::config::Config;
use bellwether::serve::{self, RunningServer};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

/// Nodes in this process, behind one address for people and one for devices, each with a road of its own to PostgreSQL.
struct Nodes {
    /// Through the splitter; every request makes a new connection.
    site: Site,
    public: Splitter,
    device: Splitter,
    gates: Vec<Gate>,
    servers: Vec<RunningServer>,
    database: Database,
    _folder: TempDir,
}

impl std::ops::Deref for Nodes {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Nodes {
    /// Two nodes; none without PostgreSQL.
    async fn two() -> Option<Self> {
        let Some(database) = Database::fresh() else {
            said_skipped();
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (public, device) = (Splitter::new().await, Splitter::new().await);
        let url = |port: u16| Some(format!("https://localhost:{port}").parse().unwrap());
        let (mut gates, mut servers, mut token, mut ca) = (Vec::new(), Vec::new(), None, String::new());
        for node in 0..2 {
            let gate = Gate::new(database.address()).await;
            let mut config = Config::ephemeral(folder.path().join(format!("node-{node}"))).unwrap();
            config.limits.drain_seconds = 0;
            config.database = Some(SecretString::from(database.url_over(gate.port)));
            config.master_key = Some(SecretString::from("5a".repeat(32)));
            config.public_url = url(public.port);
            config.device_url = url(device.port);
            let mut server = serve::start(config).await.unwrap();
            // Nobody has set the server up yet: each start makes another token, and the newest counts.
            token = server.setup_token.take();
            ca.clone_from(&server.tls_ca_pem);
            gates.push(gate);
            servers.push(server);
        }
        public.set_nodes(servers.iter().map(|server| server.public_addr.port()).collect());
        device.set_nodes(servers.iter().map(|server| server.device_addr.port()).collect());
        let base = |port: u16| format!("https://localhost:{port}");
        let token = token.expect("a fresh server mints a setup token");
        let mut site = Site::set_up(&base(public.port), &base(device.port), &ca, token.expose_secret()).await;
        site.http = site.http.with_new_connections().unwrap();
        Some(Self { site, public, device, gates, servers, database, _folder: folder })
    }

    /// Where new connections go from now on.
    fn choose(&self, choice: Choice) {
        self.public.choose(choice);
        self.device.choose(choice);
    }

    /// One node, without the splitter.
    fn node(&self, node: usize) -> Site {
        let url = |address: std::net::SocketAddr| format!("https://localhost:{}", address.port());
        let server = &self.servers[node];
        Site { url: url(server.public_addr), device_url: url(server.device_addr), ..self.site.clone() }
    }

    /// A number, from behind the servers' back.
    fn count(&self, sql: &str) -> i64 {
        psql(&self.database.admin_url(), sql).trim().parse().unwrap()
    }

    /// Q6, as the database has it.
    #[track_caller]
    fn at_most_one_open_delivery(&self) {
        let most = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM deliveries \
                    WHERE closed_at IS NULL GROUP BY site_id, channel_id) AS open";
        assert!(self.count(most) <= 1, "two deliveries of one channel are open");
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let servers = std::mem::take(&mut self.servers);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for server in servers {
                    server.stop().await;
                }
            });
        });
    }
}

/// Says once that nothing of this was tried.
fn said_skipped() {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED: several nodes: BELLWETHER_TEST_POSTGRES_URL is not set (see tests/postgres-up)\n",
        );
    });
}
