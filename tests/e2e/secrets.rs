//! Secrets stay where they belong: a different one is planted in every field that takes or makes one, the whole road is
//! driven with real calls and simulated devices, errors are provoked, and then everything that the server said, wrote
//! and stored is searched for all of them, in every spelling. AT-16, AT-34, AT-42.

mod life;

use crate::harness::{Database, configure, program};
use crate::needles::{Found, Needles};
use life::Life;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokio::sync::OnceCell;

/// One life of a server for all tests of this file: it takes half a minute.
async fn life() -> &'static Life {
    static LIFE: OnceCell<Life> = OnceCell::const_new();
    LIFE.get_or_init(Life::lived).await
}

fn none() -> BTreeSet<Found> {
    BTreeSet::new()
}

/// Keys, tokens and passwords are in no log, however much is logged, in no metric, and in no answer but the one that
/// hands them out.
#[tokio::test(flavor = "multi_thread")]
async fn at_16_secrets_are_in_no_log_and_in_one_answer() {
    let life = life().await;
    let found = life.needles.find(life.log.as_bytes());
    let lines = life.log.lines().filter(|line| !life.needles.find(line.as_bytes()).is_empty());
    assert_eq!(
        found,
        none(),
        "{:#?}",
        lines.map(|line| line.chars().take(600).collect::<String>()).collect::<Vec<_>>()
    );
    // That it is the log of all this: down to the last level, errors too.
    for level in ["TRACE", "DEBUG", "INFO", "WARN"] {
        assert!(life.log.contains(&format!("\"level\":\"{level}\"")), "{level}");
    }
    assert!(life.log.lines().count() > 1_000, "{}", life.log.lines().count());
    assert!(life.metrics.contains("bellwether_http_request_duration_seconds_count{route=\"/enroll/{code}\""));
    assert_eq!(life.needles.find(life.metrics.as_bytes()), none());
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for exchange in &life.exchanges {
        let mut told = exchange.reply.body.clone();
        for (name, value) in &exchange.reply.headers {
            told.extend_from_slice(format!("\n{name}: {value}").as_bytes());
        }
        for (name, spelling) in life.needles.find(&told) {
            assert!(
                may_show(&exchange.called, &name),
                "{} ({}) shows {name} ({spelling}): {}",
                exchange.called,
                exchange.reply.status,
                String::from_utf8_lossy(&told)
            );
            shown.entry(name).or_default().insert(exchange.called.clone());
        }
    }
    // That the answers were searched: what must be handed out was found in the answer that does.
    for name in [
        "second key",
        "invitation link",
        "short code",
        "password of an account",
        "SCEP challenge",
        "secret: PIN",
        "syncml password",
        "mac: Wi-Fi password",
        "pc: passphrase",
        "pc: token of a package",
    ] {
        assert!(shown.contains_key(name), "{name} was never handed out: {:#?}", shown.keys());
    }
    assert!(life.needles.len() >= 40, "{}", life.needles.len());
}

/// Which answer shows what.
fn may_show(called: &str, name: &str) -> bool {
    let (method, url) = called.split_once(' ').unwrap();
    let path = url.split("://").nth(1).and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = path.split('?').next().unwrap();
    match path {
        "api/v1/setup" => name == "first key",
        "api/v1/keys" => method == "POST" && name == "second key",
        "api/v1/invitations" => method == "POST" && ["invitation link", "short code"].contains(&name),
        "api/v1/enrollment-accounts" => method == "POST" && name == "password of an account",
        "apple/mdm" => {
            name.starts_with("mac: ") || name.starts_with("phone: ") || name.starts_with("secret: ")
        }
        "EnrollmentServer/Enrollment.svc" => name.starts_with("syncml "),
        "ManagementServer/MDM.svc" => name.starts_with("pc: ") || name.starts_with("secret: "),
        _ if path.starts_with("enroll/") => ["SCEP challenge", "invitation link"].contains(&name),
        _ if path.starts_with("api/v1/commands/") && path.ends_with("/secret") => {
            name.starts_with("secret: ")
        }
        _ if path.starts_with("api/v1/commands/") && path.ends_with("/result") => name.ends_with(": answer"),
        _ if path.starts_with("api/v1/commands/") && path.ends_with("/upload") => {
            name.starts_with("pc: upload")
        }
        _ => false,
    }
}

/// The database as whoever steals its disk sees it: tables, indexes, write-ahead log, and after a clean end as well.
#[tokio::test(flavor = "multi_thread")]
async fn at_34_secrets_are_sealed_in_database_and_write_ahead_log() {
    let life = life().await;
    for (when, places) in [("running", &life.running), ("stopped", &life.stopped)] {
        // That these are the bytes that hold everything else.
        let control: BTreeSet<&String> = places
            .values()
            .flatten()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("control: "))
            .collect();
        assert_eq!(control.len(), 2, "{when}: {:#?}", places.keys());
        for (place, found) in places {
            let found: BTreeSet<&Found> =
                found.iter().filter(|(name, _)| !name.starts_with("control: ")).collect();
            assert!(found.is_empty(), "{when}, {place}: {found:?}");
        }
    }
    if life.on_postgres {
        assert!(life.running.keys().any(|place| place.contains("pg_wal")), "{:#?}", life.running.keys());
    } else {
        assert!(life.running.keys().any(|place| place.ends_with("-wal")), "{:#?}", life.running.keys());
    }
    assert_eq!(life.needles.find(life.dump.as_bytes()), none());
}

/// What is in the audit and in events, and that nothing else is missing from them because of it.
#[tokio::test(flavor = "multi_thread")]
async fn at_42_no_secret_is_in_the_audit_or_in_an_event() {
    let life = life().await;
    for table in ["audit", "events"] {
        for row in &life.rows[table] {
            assert_eq!(life.needles.find(row.to_string().as_bytes()), none(), "{table}: {row:#}");
        }
    }
    let kinds: BTreeSet<&str> = life.rows["audit"].iter().filter_map(|row| row["kind"].as_str()).collect();
    for kind in [
        "server.set-up",
        "key.created",
        "invitation.created",
        "challenge.minted",
        "identity.issued",
        "command.queued",
        "secret.revealed",
        "push-cert.imported",
        "enrollment-account.created",
        "upload.received",
        "device.refused",
        "certificate.issued",
        "job.created",
    ] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    let events: BTreeSet<&str> = life.rows["events"].iter().filter_map(|row| row["kind"].as_str()).collect();
    assert!(events.len() >= 5, "{events:?}");
}

/// What the program says about its configuration, and when it cannot start with it.
#[tokio::test(flavor = "multi_thread")]
async fn at_16_the_configurations_secrets_are_not_repeated() {
    let mut needles = Needles::new();
    let secret = |name: &str| format!("canary-{name}-7d1f93ab20c4");
    for name in ["database", "wns", "master"] {
        needles.add(name, secret(name).as_bytes());
    }
    let folder = tempfile::tempdir().unwrap();
    let wns = [
        "wns.package_sid=ms-app://s-1-15-2-1-2-3-4-5-6-7".to_owned(),
        "wns.package_family_name=Example.App_8wekyb3d8bbwe".to_owned(),
        format!("wns.client_secret={}", secret("wns")),
    ];
    let run_with = |verb: &[&str], sets: Vec<String>, flags: &[&str]| {
        let mut command = program("bellwether");
        command.args(verb).arg("--data-dir").arg(folder.path().join("data")).env("HOME", folder.path());
        for set in ["public.listen=127.0.0.1:0", "device.listen=127.0.0.1:0", "log.level=trace"] {
            command.args(["--set", set]);
        }
        sets.iter().for_each(|set| configure(&mut command, set));
        command.args(flags);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(needles.find(&said), none(), "{verb:?} {sets:?}: {}", String::from_utf8_lossy(&said));
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let run = |verb: &[&str], sets: Vec<String>| run_with(verb, sets, &[]);
    let url = |host: &str| format!("database=postgres://bellwether:{}@{host}/mdm", secret("database"));
    let (shown, said) = run(&["config", "show"], [&wns[..], &[url("127.0.0.1:1")]].concat());
    assert!(shown && said.contains("wns.client_secret"), "{said}");
    // Nobody there, nonsense in the URL, a wrong key.
    for sets in [
        vec![url("127.0.0.1:1")],
        vec![url("127.0.0.1:port")],
        vec![url("[::1")],
        vec![url("no-such-host.invalid:5432")],
        vec![format!("database=mysql://bellwether:{}@127.0.0.1/mdm", secret("database"))],
        vec![format!("master_key={}", secret("master"))],
        vec![wns[2].clone()],
        [&wns[..], &["wns.package_sid=wrong".to_owned()]].concat(),
    ] {
        let (started, said) = run(&["serve"], sets);
        assert!(!started && said.len() > 20, "{said}");
    }
    // A secret is no flag, and the refusal does not say it once more.
    let (started, said) = run_with(&["serve"], Vec::new(), &["--set", &wns[2]]);
    assert!(!started && said.contains("wns.client_secret is a secret"), "{said}");
}

/// Every file of a folder, searched.
fn search(needles: &Needles, folder: &Path, skip: &[&str], into: &mut BTreeMap<String, BTreeSet<Found>>) {
    let mut files = Vec::new();
    crate::harness::walk(folder, &mut files);
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if skip.contains(&name.as_str()) {
            continue;
        }
        // PostgreSQL's own files come and go.
        let Ok(bytes) = std::fs::read(&file) else { continue };
        into.insert(file.display().to_string(), needles.find(&bytes));
    }
}

/// Where the cluster keeps this database, and its write-ahead log.
fn cluster_folders(database: &Database) -> Vec<std::path::PathBuf> {
    let url = database.admin_url();
    let folder = crate::harness::psql(&url, "SHOW data_directory");
    let id = crate::harness::psql(&url, "SELECT oid FROM pg_database WHERE datname = current_database()");
    let folder = Path::new(folder.trim());
    vec![folder.join("base").join(id.trim()), folder.join("pg_wal")]
}
