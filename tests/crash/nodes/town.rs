//! Two nodes as processes, what stands in front of them, and their roads to PostgreSQL.

use crate::harness::{Database, Site, psql, root};
use crate::nodes::history::{Row, Truth};
use crate::preload::library;
use crate::victim::Victim;
use crate::wire::{Choice, Gate, Splitter};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Town {
    /// Through the splitters.
    pub site: Site,
    pub nodes: Vec<Victim>,
    pub gates: Vec<Gate>,
    pub database: Database,
    /// Where the cluster's administrator reaches it.
    cluster: String,
    _folder: TempDir,
    _splitters: [Splitter; 2],
}

impl Town {
    pub async fn new(cluster: String) -> Self {
        let database = Database::fresh().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("master.key");
        std::fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
        let splitters = [Splitter::new().await, Splitter::new().await];
        let [public, device] = [0, 1].map(|n: usize| format!("https://localhost:{}", splitters[n].port));
        let (mut nodes, mut gates) = (Vec::new(), Vec::new());
        for node in 0..2 {
            let gate = Gate::new(database.address()).await;
            let mut env = vec![
                ("BELLWETHER_DATABASE".to_owned(), database.url_over(gate.port)),
                ("BELLWETHER_MASTER_KEY_FILE".to_owned(), key.display().to_string()),
                ("BELLWETHER_PUBLIC_URL".to_owned(), public.clone()),
                ("BELLWETHER_DEVICE_URL".to_owned(), device.clone()),
                ("BELLWETHER_LOG__LEVEL".to_owned(), "warn,bellwether::serve=info".to_owned()),
            ];
            if node == 1 {
                env.extend(skewed(folder.path()));
            }
            let mut victim = Victim::new(false);
            victim.env = env;
            tokio::task::block_in_place(|| victim.spawn());
            nodes.push(victim);
            gates.push(gate);
        }
        for (splitter, side) in splitters.iter().zip(0..) {
            let side: usize = side;
            splitter.set_nodes(nodes.iter().map(|node| node.ports()[side]).collect());
            splitter.choose(Choice::Chance);
        }
        // The token of the one that was started last is the one that counts.
        let site = nodes[1].set_up_at(&public, &device).await;
        Self { site, nodes, gates, database, cluster, _folder: folder, _splitters: splitters }
    }

    /// One node, past the splitter.
    pub fn node(&self, node: usize) -> Site {
        let [public, device] = self.nodes[node].ports().map(|port| format!("https://localhost:{port}"));
        Site { url: public, device_url: device, ..self.site.clone() }
    }

    /// Runs a program of `tests/` on the cluster.
    pub async fn cluster(&self, program: &str, more: &[&str]) {
        let mut command = Command::new(root().join("tests").join(program));
        command.arg(&self.cluster).args(more);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// SQL behind the servers' back.
    pub fn sql(&self, sql: &str) -> String {
        tokio::task::block_in_place(|| psql(&self.database.admin_url(), sql))
    }

    /// Waits until each node says that it can work; how long that took.
    pub async fn recovered(&self, within: Duration) -> Duration {
        let since = Instant::now();
        for node in 0..self.nodes.len() {
            let site = self.node(node);
            loop {
                let request = site.http.request(reqwest::Method::GET, &format!("{}/readyz", site.url));
                let asked = tokio::time::timeout(within, site.http.send("readyz", request)).await;
                if matches!(asked, Ok(Ok(reply)) if reply.status == 200) {
                    break;
                }
                assert!(since.elapsed() < within, "node {node} is stuck: {}", tail(&self.nodes[node].log()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        since.elapsed()
    }

    /// Q6 and the audit's order, as the database has them.
    pub fn sound(&self) {
        let most = self.sql(
            "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM deliveries WHERE closed_at IS NULL \
             GROUP BY site_id, channel_id) AS open",
        );
        assert!(["0", "1"].contains(&most.trim()), "{} deliveries of one channel are open", most.trim());
        // Positions have no holes and no twins, for there is one sealer at a time.
        for table in ["audit", "events"] {
            let holes = self.sql(&format!(
                "SELECT count(*) FROM (SELECT coalesce(max(position), 0) - count(position) AS holes, \
                 count(position) - count(DISTINCT position) AS twins FROM {table} GROUP BY site_id) AS s \
                 WHERE holes <> 0 OR twins <> 0"
            ));
            assert_eq!(holes.trim(), "0", "positions of {table}");
        }
    }

    /// What there is in the end.
    pub fn truth(&self) -> Truth {
        let rows = self.sql(
            "SELECT encode(c.id, 'hex')::uuid, c.state, coalesce((encode(c.job_id, 'hex')::uuid)::text, ''), \
             (SELECT max(p.sends) FROM parts p WHERE p.site_id = c.site_id AND p.command_id = c.id), \
             (SELECT count(*) FROM audit a WHERE a.kind = 'command.queued' \
              AND a.target = 'command:' || encode(c.id, 'hex')::uuid), \
             (SELECT count(*) FROM events e WHERE e.subject = 'command:' || encode(c.id, 'hex')::uuid \
              AND e.kind = 'command.changed' AND e.data LIKE '%\"state\":\"acknowledged\"%') \
             FROM commands c WHERE c.kind = 'rename'",
        );
        let mut truth = Truth::default();
        for line in rows.lines().filter(|line| !line.is_empty()) {
            let cells: Vec<&str> = line.split('|').collect();
            let number = |at: usize| cells[at].parse().unwrap_or_default();
            let job = (!cells[2].is_empty()).then(|| cells[2].to_owned());
            let row =
                Row { state: cells[1].to_owned(), job, sends: number(3), made: number(4), ended: number(5) };
            truth.commands.insert(cells[0].to_owned(), row);
        }
        truth
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The environment of a node whose clock is wrong, where there is a C compiler.
fn skewed(folder: &Path) -> Option<(String, String)> {
    let library = library(folder, "skew");
    Some(("LD_PRELOAD".to_owned(), library?.display().to_string()))
}
