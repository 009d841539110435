//! The house has rooms and floors; arrows only go down.

use crate::harness::{root, walk};
use cargo_metadata::{Metadata, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Every crate of ours and the crates of ours that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("bellwether-model", &[]),
    ("bellwether-certs", &[]),
    ("bellwether-apple", &[]),
    ("bellwether-windows", &[]),
    ("bellwether-store", &["bellwether-model"]),
    ("bellwether-scep", &["bellwether-certs"]),
    (
        "bellwether-engine",
        &[
            "bellwether-model",
            "bellwether-certs",
            "bellwether-apple",
            "bellwether-windows",
            "bellwether-scep",
            "bellwether-store",
        ],
    ),
    (
        "bellwether",
        &[
            "bellwether-model",
            "bellwether-certs",
            "bellwether-apple",
            "bellwether-windows",
            "bellwether-scep",
            "bellwether-store",
            "bellwether-engine",
        ],
    ),
    // A device is the protocol crates turned around. It must not know the server.
    ("bellwether-sim", &["bellwether-certs", "bellwether-apple", "bellwether-windows", "bellwether-scep"]),
    (
        "e2e",
        &[
            "bellwether-model",
            "bellwether-certs",
            "bellwether-apple",
            "bellwether-windows",
            "bellwether-scep",
            "bellwether-store",
            "bellwether-engine",
            "bellwether",
            "bellwether-sim",
        ],
    ),
];

/// Crates of the outside world that only some of ours may know.
const RESERVED: &[(&str, &[&str])] = &[
    ("diesel", &["bellwether-store"]),
    ("diesel_migrations", &["bellwether-store"]),
    ("libsqlite3-sys", &["bellwether-store"]),
    ("r2d2", &["bellwether-store"]),
    ("actix-web", &["bellwether"]),
    ("actix-tls", &["bellwether"]),
    ("clap", &["bellwether", "bellwether-sim"]),
    ("jiff", &["bellwether"]),
    ("reqwest", &["bellwether", "bellwether-sim", "e2e"]),
    ("tokio", &["bellwether", "bellwether-engine", "bellwether-store", "bellwether-sim", "e2e"]),
];

/// Who may open a transaction over all sites, and why.
const SYSTEM_SCOPE: &[(&str, &str)] = &[
    ("src/engine/src/apple/identify.rs", "a certificate tells the site, not the other way round"),
    ("src/engine/src/apple/renew.rs", "finds identities that are due in every site"),
    ("src/engine/src/audit.rs", "the sealer works for every site"),
    ("src/engine/src/authorities.rs", "a CA's opaque id tells the site"),
    ("src/engine/src/background.rs", "housekeeping of every site"),
    ("src/engine/src/backup/mod.rs", "a backup is the whole server's"),
    ("src/engine/src/backup/verify.rs", "the sites in a backup"),
    ("src/engine/src/invitations.rs", "a code tells the site"),
    ("src/engine/src/jobs.rs", "jobs of every site are worked off"),
    ("src/engine/src/keys.rs", "a key tells what it may do"),
    ("src/engine/src/lib.rs", "whether the database answers"),
    ("src/engine/src/offline.rs", "the audit of every site"),
    ("src/engine/src/packages.rs", "a token tells the site; what is over is swept up in every site"),
    ("src/engine/src/quarantine.rs", "the whole server was restored"),
    ("src/engine/src/scep.rs", "a challenge or certificate tells the site"),
    ("src/engine/src/setup.rs", "the first start, before there is a site"),
    ("src/engine/src/sites.rs", "a site is made"),
    ("src/engine/src/uploads.rs", "a token tells the site; what is over is swept up in every site"),
    ("src/engine/src/wake.rs", "wakes of every site"),
    ("src/engine/src/windows/credential.rs", "a code, token or password tells the site"),
    ("src/engine/src/windows/identify.rs", "a certificate tells the site, not the other way round"),
    ("src/engine/src/windows/mod.rs", "PROVIDER-ID is the server's"),
    ("src/engine/src/windows/renew.rs", "the signer's certificate tells the site"),
    ("src/engine/src/windows/session.rs", "the certificate is looked up anew after it was pinned"),
    ("src/store/src/backend/postgres.rs", "its implementation"),
    ("src/store/src/backend/postgres/writer.rs", "its implementation"),
    ("src/store/src/backup/fill.rs", "rows of every site are brought back"),
    ("src/store/src/backup/mod.rs", "rows of every site are backed up"),
    ("src/store/src/tx/mod.rs", "its definition"),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

#[test]
fn arrows_only_go_down() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name}: which floor? Add it to ALLOWED"));
        // Development dependencies count as well: a test that needs the floor above is on the wrong floor.
        for dependency in package.dependencies.iter().filter(|d| ours.contains(d.name.as_str())) {
            assert!(may.contains(&dependency.name.as_str()), "{name} must not know {}", dependency.name);
        }
    }
}

#[test]
fn only_one_room_knows_each_tool() {
    for package in &metadata().packages {
        for dependency in &package.dependencies {
            if let Some((tool, who)) = RESERVED.iter().find(|(tool, _)| *tool == dependency.name) {
                let tests_only = dependency.kind == cargo_metadata::DependencyKind::Development;
                let may = who.contains(&package.name.as_str()) || (tests_only && *tool == "tokio");
                assert!(may, "{} must not know {tool}", package.name);
            }
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for package in &metadata().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{}: [lints] workspace = true is missing",
            package.name
        );
    }
}

/// Every Rust file below `src/` that is no test, as path and text without its test module.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    for room in ["src", "certs", "protocols"] {
        walk(&root.join(room), &mut files);
    }
    let name = |path: &std::path::Path| path.strip_prefix(&root).unwrap().display().to_string();
    let all = files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        (name(path), text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned())
    });
    let tests = |path: &str| ["/tests/", "/benches/", "/examples/"].iter().any(|part| path.contains(part));
    all.filter(|(path, _)| !tests(path) && !path.ends_with("/tests.rs")).collect()
}

#[test]
fn transactions_over_all_sites_are_listed() {
    let listed: BTreeSet<&str> = SYSTEM_SCOPE.iter().map(|(path, _)| *path).collect();
    let used: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(path, text)| path.starts_with("src/") && text.contains("Scope::System"))
        .map(|(path, _)| path)
        .collect();
    let unlisted: Vec<&String> = used.iter().filter(|path| !listed.contains(path.as_str())).collect();
    assert!(unlisted.is_empty(), "Scope::System without a reason in SYSTEM_SCOPE: {unlisted:?}");
    let stale: Vec<&&str> = listed.iter().filter(|path| !used.contains(**path)).collect();
    assert!(stale.is_empty(), "listed and not used any more: {stale:?}");
}

#[test]
fn no_sql_is_made_of_strings() {
    const SQL: &[&str] = &[
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE ",
        "CREATE ",
        "ALTER ",
        "DROP ",
        "TRUNCATE ",
        "SET ",
        "PRAGMA ",
        "GRANT ",
        "NOTIFY ",
        "LISTEN ",
        "LOCK ",
        "COPY ",
    ];
    for (path, text) in sources() {
        for call in ["format!(", "push_str(", "concat!(", "format_args!(", "write!("] {
            for (at, _) in text.match_indices(call) {
                let rest: String = text[at + call.len()..].chars().take(200).collect();
                let Some(literal) = rest.split('"').nth(1) else { continue };
                // The literal must belong to this call, not to a later statement.
                if rest.split('"').next().is_some_and(|before| before.contains(';')) {
                    continue;
                }
                let line = text[..at].lines().count();
                assert!(
                    !SQL.iter().any(|word| literal.starts_with(word)),
                    "{path}:{line}: SQL by {call}…): {literal}"
                );
            }
        }
        if !path.starts_with("src/store/src/backend/") {
            assert!(!text.contains("batch_execute(&format!"), "{path}: SQL by format!");
        }
        if !path.starts_with("src/store/") {
            assert!(!text.contains("diesel::"), "{path}: only the store knows diesel");
        }
    }
}

#[test]
fn protocol_crates_read_no_clock_and_open_no_socket() {
    for (path, text) in
        sources().into_iter().filter(|(path, _)| path.starts_with("protocols/") || path.starts_with("certs/"))
    {
        for word in [
            "SystemTime::now",
            "Instant::now",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "std::fs",
            "std::env",
            "std::process",
            "async fn",
        ] {
            assert!(!text.contains(word), "{path}: {word}");
        }
    }
}

/// AT-43: of audit, checkpoints and events nothing is deleted by any code of ours, and what is updated is the position
/// that the sealer gives once.
#[test]
fn at_43_no_code_takes_from_the_audit() {
    let (mut deletes, mut updates) = (0, BTreeSet::new());
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("src/store/src/")) {
        for (call, is_delete) in [("diesel::delete(", true), ("diesel::update(", false)] {
            for (at, _) in text.match_indices(call) {
                // What the statement is about stands in it, or in the `let` right before it.
                let before = text[..at].rfind("fn ").unwrap_or(0);
                let after = at + text[at..].find(';').unwrap_or(0);
                let about = ["audit::", "audit_checkpoints::", "events::"].iter().any(|table| {
                    text[before..after].match_indices(table).any(|(found, _)| {
                        // `api_events::` and the like are other tables.
                        !text[..before + found].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                    })
                });
                deletes += usize::from(is_delete);
                if about {
                    let function = text[before + 3..].split(['(', '<']).next().unwrap().to_owned();
                    assert!(!is_delete, "{path}: {function} deletes from the audit");
                    updates.insert(function);
                }
            }
        }
    }
    assert!(deletes > 10, "{deletes}");
    assert_eq!(updates, BTreeSet::from(["audit_seal".to_owned(), "event_seal".to_owned()]));
    // Neither does the database by itself, when something else goes.
    for dialect in ["sqlite", "postgres"] {
        let mut files = Vec::new();
        walk(&root().join("migrations").join(dialect), &mut files);
        for file in files.iter().filter(|file| file.ends_with("up.sql")) {
            let text = std::fs::read_to_string(file).unwrap();
            for statement in text.split(';') {
                let statement = statement.to_lowercase();
                let about =
                    ["table audit", "table events", "from audit", "from events", "on audit", "on events"];
                let takes = ["cascade", "delete from", "drop ", "create trigger"];
                assert!(
                    !(about.iter().any(|word| statement.contains(word))
                        && takes.iter().any(|word| statement.contains(word))),
                    "{}: {statement}",
                    file.display()
                );
            }
        }
    }
}
