//! What PCs send us: the archive of `collect-diagnostics`, over TLS, and who tries more than that.

use super::{msi, upload_as};
use crate::attacks::floods::{connect, status};
use crate::harness::{House, Process, Site, memory_of, walk};
use bellwether_sim::{Reply, WindowsPc};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const RESULTS: &str = "./Device/Vendor/MSFT/DiagnosticLog/DiagnosticArchive/ArchiveResults";

impl Site {
    /// Tells a PC to collect diagnostics and lets it hear that, and do nothing; the command, and the path it was told.
    pub async fn told_where_to(&self, pc: &mut WindowsPc) -> (String, String) {
        pc.hold_jobs(true);
        let command = self.tell(pc, json!({ "type": "collect-diagnostics" })).await;
        let told = pc.session().await.unwrap();
        let definition = told.iter().find_map(|t| t.data.clone().filter(|d| d.contains("<SasUrl>"))).unwrap();
        let url = definition.split("<SasUrl>").nth(1).unwrap().split('<').next().unwrap();
        (command, url.strip_prefix(&self.url).expect("an address of the public listener").to_owned())
    }

    pub async fn put(&self, path: &str, bytes: &[u8]) -> u16 {
        let headers = [("x-ms-blob-type", "BlockBlob"), ("content-type", "application/zip")];
        let reply = self.raw(Method::PUT, path, &headers, bytes.to_vec()).await;
        assert!(reply.body.is_empty() && reply.header("content-length") == Some("0"), "{}", reply.text());
        reply.status
    }

    async fn fetched(&self, command: &str) -> Reply {
        let bearer = format!("Bearer {}", self.key.expose_secret());
        let headers = [("authorization", bearer.as_str()), ("accept-encoding", "gzip")];
        self.raw(Method::GET, &format!("/api/v1/commands/{command}/upload"), &headers, Vec::new()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostics_are_uploaded_shown_and_downloaded() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let command = house.tell(&pc, json!({ "type": "collect-diagnostics" })).await;
    pc.session().await.unwrap();
    let shown = house.command(&command).await;
    assert_eq!(shown["command"]["state"], "acknowledged", "{shown:#}");
    assert!(pc.node(RESULTS).is_some_and(|results| results.contains("HRESULT=\"0\"")), "the PC is content");
    house.audited("upload.received", 1).await;
    let reply = house.fetched(&command).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with(b"PK\x05\x06"));
    assert_eq!(shown["upload"]["size"].as_u64(), Some(reply.body.len() as u64));
    let digest = bellwether_certs::hash::hex(&bellwether_certs::hash::sha256(&reply.body));
    assert_eq!(shown["upload"]["sha256"], digest);
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "private, no-store"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
    let disposition = format!("attachment; filename=\"diagnostics-{command}.zip\"");
    assert_eq!(reply.header("content-disposition"), Some(disposition.as_str()));
    // A key that may only read devices sees that it is there, and not what is in it.
    let wish = json!({ "name": "reader", "grants": ["device:read@server"], "expires_in_days": 1 });
    let reader = house.post("/keys", wish).await.good()["secret"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {reader}");
    for (path, status) in [("", 200), ("/upload", 403)] {
        let path = format!("/api/v1/commands/{command}{path}");
        let reply = house.raw(Method::GET, &path, &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!(reply.status, status, "{path}");
    }
    // On the command line: a file for its owner, never over another one unless that is said.
    let to = house.folder().join("diagnostics.zip");
    let to = to.to_str().unwrap();
    let download = ["command", "download", &command, "--to", to];
    let first = house.cli(&download).await;
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(std::fs::read(to).unwrap(), reply.body);
    assert_eq!(std::fs::metadata(to).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(to, "mine").unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!house.cli(&download).await.status.success());
    assert_eq!(std::fs::read(to).unwrap(), b"mine");
    assert!(house.cli(&[&download[..], &["--force"]].concat()).await.status.success());
    assert_eq!(std::fs::read(to).unwrap(), reply.body);
    assert_eq!(std::fs::metadata(to).unwrap().permissions().mode() & 0o777, 0o600);
    house.audited("upload.downloaded", 3).await;
    // A command without a file.
    let scan = house.tell(&pc, json!({ "type": "defender", "action": "quick-scan" })).await;
    assert_eq!(house.command(&scan).await["upload"], Value::Null);
    assert_eq!(house.fetched(&scan).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_37_windows_an_upload_address_takes_one_file_of_one_pc() {
    let house = House::new().await;
    let (mut pc, mut other) = (house.enrolled_pc().await, house.enrolled_pc().await);
    let (command, path) = house.told_where_to(&mut pc).await;
    let (others, others_path) = house.told_where_to(&mut other).await;
    assert_eq!(house.state(&command).await, "acknowledged", "it does not wait for the file");
    for guess in [
        format!("{path}x"),
        path[..path.len() - 1].to_owned(),
        format!("/uploads/{command}"),
        "/uploads/1".to_owned(),
        path.replace("/uploads/", "/uploads/x/"),
    ] {
        assert_eq!(house.put(&guess, b"PK").await, 404, "{guess}");
    }
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        assert_eq!(house.raw(method, &path, &[], Vec::new()).await.status, 405);
    }
    let package = path.replace("/uploads/", "/packages/");
    assert_eq!(house.raw(Method::GET, &package, &[], Vec::new()).await.status, 404);
    // What is no file leaves the address as good as it was.
    assert_eq!(house.put(&format!("{path}?comp=block&blockid=AAAA"), b"PK").await, 400);
    assert_eq!(house.put(&format!("{path}?comp=blocklist"), b"<BlockList/>").await, 400);
    assert_eq!(house.put(&path, b"").await, 400);
    let packed = house.raw(Method::PUT, &path, &[("content-encoding", "gzip")], vec![0x1f, 0x8b]).await;
    assert_eq!((packed.status, packed.body.len()), (415, 0));
    // Once, and nobody writes over it: not the PC itself, not another one with the same address or with its own.
    assert_eq!(house.put(&path, b"PK mine").await, 201);
    assert_eq!(house.put(&path, b"PK again").await, 404);
    let identity = other.identity().unwrap();
    let http = house.http.with_client_certificate(&identity.cert_der, &identity.key).unwrap();
    let request = http.request(Method::PUT, &format!("{}{path}", house.device_url)).body("PK theirs");
    assert_eq!(http.send("upload", request).await.unwrap().status, 404, "not on that listener at all");
    assert_eq!(house.put(&format!("{others_path}/{command}"), b"PK other").await, 201);
    assert_eq!(house.fetched(&command).await.body, b"PK mine");
    assert_eq!(house.fetched(&others).await.body, b"PK other");
    // It ends with the enrollment.
    let (_, late) = house.told_where_to(&mut pc).await;
    house.delete(&format!("/devices/{}/enrollment", pc.serial())).await;
    assert_eq!(house.put(&late, b"PK").await, 404);
    house.audited("upload.received", 2).await;
}

/// The status of a request whose body never comes, and how long it took to say it.
fn unread(site: &Site, path: &str, length: usize) -> (u16, Duration) {
    let mut stream = connect(site, &site.url);
    let begun = Instant::now();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nPK");
    stream.write_all(head.as_bytes()).unwrap();
    (status(&mut stream), begun.elapsed())
}

/// Sends chunks until the server has had enough or `pieces` are through.
fn pour(site: &Site, path: &str, pieces: usize) -> u16 {
    let mut stream = connect(site, &site.url);
    let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut chunk = format!("{MIB:x}\r\n").into_bytes();
    chunk.extend(vec![b'A'; MIB]);
    chunk.extend_from_slice(b"\r\n");
    let sent = (0..pieces).all(|_| stream.write_all(&chunk).is_ok());
    if sent {
        let _ = stream.write_all(b"0\r\n\r\n");
    }
    status(&mut stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_51_windows_large_uploads_are_refused_early_and_memory_stays() {
    let mut process =
        Process::start(&["limits.upload_body=100663296", "uploads.total_bytes=150000000"]).await;
    let site = process.site().clone();
    let mut pc = site.enrolled_pc().await;
    let (command, path) = site.told_where_to(&mut pc).await;
    let mut other = site.enrolled_pc().await;
    let (_, others_path) = site.told_where_to(&mut other).await;
    let (pid, before) = (process.id(), process.memory());
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watching = done.clone();
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        while !watching.load(std::sync::atomic::Ordering::Relaxed) {
            most = most.max(memory_of(pid));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let (one, at, others_at) = (site.clone(), path.clone(), others_path.clone());
    tokio::task::spawn_blocking(move || {
        // Announced: refused before a byte of it is read.
        for (path, length, expected) in [
            (at.as_str(), 96 * MIB + 1, 413),
            (&at[..at.len() - 1], 1 << 30, 404),
            ("/uploads/x", 1 << 30, 404),
        ] {
            let (got, took) = unread(&one, path, length);
            assert_eq!(got, expected, "{path}");
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
        // Not announced: cut at the limit. The answer can be lost when a connection is closed over unread bytes.
        assert!([0, 413].contains(&pour(&one, &at, 200)));
        // As much as is allowed comes through.
        assert_eq!(pour(&one, &at, 96), 201);
        // Together they may not be more than the server's share.
        assert_eq!(unread(&one, &others_at, 90 * MIB).0, 507);
    })
    .await
    .unwrap();
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let grown = watcher.join().unwrap().saturating_sub(before) as usize / MIB;
    println!("{grown} MiB more at the worst moment");
    assert!(grown < 64, "{grown} MiB for a file of 96");
    assert!(process.is_alive(), "{}", process.log());
    assert_eq!(site.command(&command).await["upload"]["size"], 96 * MIB);
    assert_eq!(site.put(&others_path, b"PK").await, 201, "a small one fits");
}

/// What the server says to a request that no library makes.
fn verbatim(site: &Site, request: &str, body: &[u8]) -> String {
    let mut stream = connect(site, &site.url);
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Names that want to be paths.
const PATHS: [&str; 8] = [
    "..",
    "../../etc/passwd",
    "%2e%2e%2fpwned.zip",
    "..%5c..%5cpwned.zip",
    "a/../../pwned.zip",
    "/pwned.zip",
    "C:%5cpwned.zip",
    "%00pwned.zip",
];

#[tokio::test(flavor = "multi_thread")]
async fn at_56_windows_a_name_that_is_a_path_never_becomes_one() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let (command, path) = house.told_where_to(&mut pc).await;
    let put = |path: &str, extra: &str| {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n{extra}\r\n"
        );
        tokio::task::block_in_place(|| verbatim(&house, &head, b"PK"))
    };
    for name in PATHS {
        let answer = put(&format!("{path}/{name}"), "");
        assert_eq!(code(&answer), 404, "{name}: {answer}");
    }
    assert_eq!(house.command(&command).await["upload"], Value::Null);
    // A name that is none is taken for what it is worth: nothing. Neither is what headers say.
    let extra =
        "Content-Disposition: attachment; filename=\"../../pwned.zip\"\r\nx-ms-meta-name: ../pwned.zip\r\n";
    let answer = put(&format!("{path}/DiagLogs-pwned-20261125T120000Z.zip"), extra);
    assert_eq!(code(&answer), 201, "{answer}");
    let disposition = format!("attachment; filename=\"diagnostics-{command}.zip\"");
    let reply = house.fetched(&command).await;
    assert_eq!(
        (reply.body.as_slice(), reply.header("content-disposition")),
        (&b"PK"[..], Some(&*disposition))
    );
    assert_no_pwned_file(&house);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_56_windows_a_packages_name_is_never_a_path() {
    let house = House::new().await;
    let mut pc = house.enrolled_pc().await;
    let names =
        ["../../pwned.msi", "..\\..\\pwned.msi", "/pwned.msi", "C:\\pwned.msi", "a\"; filename=\"pwned.exe"];
    for (n, name) in names.into_iter().enumerate() {
        let id = upload_as(&house, name, msi(50_000 + n)).await;
        pc.hold_jobs(true);
        house.tell(&pc, json!({ "type": "install-app", "app": { "source": "package", "id": id } })).await;
        let told = pc.session().await.unwrap();
        let job = told.iter().find_map(|t| t.data.clone().filter(|d| d.contains("MsiInstallJob"))).unwrap();
        assert!(!job.contains("pwned"), "the PC is told no name: {job}");
        let url = job.split("<ContentURL>").nth(1).unwrap().split('<').next().unwrap();
        let path = url.strip_prefix(&house.url).unwrap();
        let reply = house.raw(Method::GET, path, &[], Vec::new()).await;
        let disposition = reply.header("content-disposition").unwrap();
        let file =
            disposition.strip_prefix("attachment; filename=\"").and_then(|rest| rest.strip_suffix('"'));
        let file = file.unwrap_or_else(|| panic!("{name}: {disposition}"));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        assert!(
            file.chars().all(plain) && !file.starts_with('.') && file.ends_with(".msi"),
            "{name}: {file}"
        );
        for wish in PATHS {
            let head = format!("GET {path}/{wish} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = tokio::task::block_in_place(|| verbatim(&house, &head, b""));
            assert_eq!(code(&answer), 404, "{wish}: {answer}");
        }
        pc.hold_jobs(false);
        pc.session().await.unwrap();
    }
    assert_no_pwned_file(&house);
}

fn assert_no_pwned_file(house: &House) {
    let mut files = Vec::new();
    walk(house.folder(), &mut files);
    assert!(!files.is_empty());
    let named = |file: &&std::path::PathBuf| file.to_string_lossy().contains("pwned");
    assert_eq!(files.iter().find(named), None);
    for place in ["/pwned.zip", "/pwned.msi", "/etc/pwned.zip"] {
        assert!(!std::path::Path::new(place).exists(), "{place}");
    }
}
