//! Other people's programs look at the running server.

use crate::harness::{House, PATIENCE, judge, root};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether_certs::ca::TlsCa;
use bellwether_certs::cert::{CertInfo, ders_to_pem, pem_to_ders};
use bellwether_certs::hash::{hex, random_bytes};
use bellwether_certs::keys::KeyPair;
use bellwether_sim::{AppleDevice, Family, ProfileOptions, clock};
use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::x509::{X509, X509NameBuilder};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) fn script(name: &str) -> PathBuf {
    root().join("tests/judges").join(name)
}

/// A Python with a module, if there is one: the configured one first.
pub(crate) fn python(module: &str) -> Option<PathBuf> {
    let given = std::env::var_os("BELLWETHER_JUDGE_PYTHON").map(PathBuf::from);
    let made = [Path::new(env!("CARGO_TARGET_TMPDIR")).join("judge-apns/bin/python")];
    given.into_iter().chain(made).chain(["python3".into(), "/usr/bin/python3".into()]).find(|python| {
        let output = Command::new(python).args(["-c", &format!("import {module}")]).output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// Apple's schema, where it was laid out beside the repository.
fn schema() -> Option<PathBuf> {
    let given = std::env::var_os("BELLWETHER_TEST_APPLE_SCHEMA").map(PathBuf::from);
    let beside = [root().join("../shared/data/apple-device-management")];
    given.into_iter().chain(beside).find(|folder| folder.is_dir())
}

/// Has `check_plists.py` look at every file of a folder.
fn check_plists(folder: &Path) {
    let Some(python) = python("yaml").or_else(|| python("plistlib")) else {
        return judge::missing("check_plists.py", "no Python");
    };
    let mut command = Command::new(python);
    command.arg(script("check_plists.py")).arg(folder);
    let schema = schema();
    if let Some(schema) = &schema {
        command.arg("--schema").arg(schema);
    } else {
        println!("NOTICE: Apple's schema is not there; only plistlib looks");
        command.env_remove("CI");
    }
    let Some(output) = judge::run("check_plists.py", &mut command) else { return };
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let wrong: Vec<&Value> =
        report["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] != true).collect();
    assert!(output.status.success(), "{wrong:#?} {}", String::from_utf8_lossy(&output.stderr));
    let name = if report["schema"] == true {
        "check_plists.py (plistlib and Apple's schema)"
    } else {
        "check_plists.py (plistlib)"
    };
    judge::looked(name, report["checks"].as_array().unwrap().len());
}

const PROFILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict><key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>org.example.judged</string><key>PayloadUUID</key>
<string>3F7D3D56-5E5A-4C5B-8B4B-2B1C4D1B7A11</string><key>PayloadContent</key><array/></dict></plist>
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_device_takes_the_road() {
    for (family, shape) in [("mac", "real-device"), ("iphone", "sha256-attributes"), ("ipad", "real-device")]
    {
        let house = House::new().await;
        let link = house.invite_for("ann@example.org").await;
        let (ca, saved) = (house.folder().join("ca.pem"), house.folder().join("commands"));
        std::fs::write(&ca, &house.ca_pem).unwrap();
        std::fs::create_dir(&saved).unwrap();
        let mut command = Command::new("python3");
        command.arg(script("apple_device.py")).args(["--link", &link, "--family", family, "--shape", shape]);
        command.args([
            "--serial",
            "PYTHON00001",
            "--renew",
            "--check-out",
            "--timeout",
            "60",
            "--every",
            "0.3",
        ]);
        command.args(["--wait-for", "DeviceLock,InstallProfile,DeviceInformation,SecurityInfo"]);
        command.arg("--ca").arg(&ca).arg("--save-commands").arg(&saved);
        let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return judge::missing("apple_device.py", &error.to_string()),
        };
        // When it says that it is enrolled, commands are queued.
        let (tell, enrolled) = tokio::sync::oneshot::channel();
        let stderr = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut tell = Some(tell);
            let mut all = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.starts_with("enrolled")
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(());
                }
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        if tokio::time::timeout(2 * PATIENCE, enrolled).await.is_ok_and(|told| told.is_ok()) {
            let path = "/devices/PYTHON00001/commands";
            for intent in [
                json!({ "type": "lock", "message": "Ann's <phone> & \"more\"" }),
                json!({ "type": "install-profile", "profile": STANDARD.encode(PROFILE) }),
                json!({ "type": "refresh-inventory" }),
            ] {
                house.post(path, json!({ "intent": intent })).await.good();
            }
        }
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let said = said.join().unwrap();
        if output.status.code() == Some(2) {
            return judge::missing("apple_device.py", &said);
        }
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let failed: Vec<&Value> = checks.iter().filter(|check| check["ok"] != true).collect();
        assert!(output.status.success() && failed.is_empty(), "{family}: {failed:#?}\n{said}");
        assert!(checks.len() > 50, "{}", checks.len());
        judge::looked(&format!("apple_device.py ({family})"), checks.len());
        check_plists(&saved);
        let shown = house.get("/devices/PYTHON00001").await;
        assert_eq!(shown["device"]["enrollment"]["state"], "ended", "it checked out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plistlib_and_apples_schema_accept_what_we_emit() {
    let house = House::new().await;
    let saved = house.folder().join("emitted");
    std::fs::create_dir(&saved).unwrap();
    let write = |name: String, bytes: &[u8]| std::fs::write(saved.join(name), bytes).unwrap();
    for family in [Family::Mac, Family::Iphone, Family::Ipad] {
        let mut device = AppleDevice::builder(family, house.http.clone())
            .keys(crate::harness::keys().await)
            .supervised(true)
            .build()
            .unwrap();
        let link = house.invite().await;
        for (name, options) in
            [("signed", ProfileOptions::default()), ("unsigned", ProfileOptions::unsigned())]
        {
            let reply = device.post_for_profile(&link, &options).await.unwrap().ok("profile").unwrap();
            write(format!("{family:?}-{name}.mobileconfig"), &reply.body);
        }
        device.enroll(&link).await.unwrap();
        device.poll().await.unwrap();
        let mut refused = Vec::new();
        for intent in [
            json!({ "type": "lock", "message": "a & b", "phone_number": "+49 30 1" }),
            json!({ "type": "clear-passcode" }),
            json!({ "type": "restart", "notify_user": true }),
            json!({ "type": "shut-down" }),
            json!({ "type": "refresh-inventory" }),
            json!({ "type": "install-profile", "profile": STANDARD.encode(PROFILE) }),
            json!({ "type": "remove-profile", "identifier": "org.example.judged" }),
            json!({ "type": "install-app", "app": { "source": "url", "url": "https://example.org/manifest.plist" } }),
            json!({ "type": "install-app", "app": { "source": "app-store", "id": 361309726_u64 } }),
            json!({ "type": "remove-app", "identifier": "org.example.app" }),
            json!({ "type": "lost-mode-on", "message": "lost", "phone_number": "1", "footnote": "f" }),
            json!({ "type": "locate" }),
            json!({ "type": "play-sound" }),
            json!({ "type": "lost-mode-off" }),
            json!({ "type": "rename", "name": "Ann's <new> name" }),
            json!({ "type": "os-update" }),
            json!({ "type": "os-update", "version": "18.2" }),
            json!({ "type": "rotate-secret", "secret": "recovery-lock" }),
            json!({ "type": "unenroll" }),
            json!({ "type": "wipe", "preserve_data_plan": true }),
        ] {
            let sent = house.try_send(&device, intent.clone()).await;
            if sent.status != 201 {
                // A platform that cannot do it says so.
                assert_eq!(sent.refusal().0, 422, "{intent}");
                refused.push(intent["type"].clone());
                continue;
            }
            let sent_id = sent.good()["id"].as_str().unwrap().to_owned();
            // One at a time, so that a wipe cuts nothing off.
            let mut number = 0;
            let mut reply = device.idle().await.unwrap().ok("Idle").unwrap();
            while !reply.body.is_empty() && number < 20 {
                number += 1;
                let delivered = bellwether_apple::command::decode_command(&reply.body).unwrap();
                let kind = intent["type"].as_str().unwrap();
                write(format!("{family:?}-{kind}-{number}-{}.plist", delivered.request_type), &reply.body);
                if kind == "wipe" || kind == "unenroll" {
                    // Refused, so that the road goes on.
                    reply = device
                        .report(
                            bellwether_sim::Status::Error,
                            &delivered.command_uuid,
                            &[],
                            plist::Dictionary::new(),
                        )
                        .await
                        .unwrap();
                } else {
                    reply = device
                        .report(
                            bellwether_sim::Status::Acknowledged,
                            &delivered.command_uuid,
                            &[],
                            plist::Dictionary::new(),
                        )
                        .await
                        .unwrap();
                }
            }
            assert!(number > 0, "{intent} was accepted and never came: {:#}", house.command(&sent_id).await);
        }
        println!("{family:?} cannot: {refused:?}");
    }
    check_plists(&saved);
}

/// http on the loopback to the server's https: strongSwan's client knows no CA file.
fn relay(house: &House, path: &str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}{path}", listener.local_addr().unwrap());
    let (site, runtime) = (house.site.clone(), tokio::runtime::Handle::current());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (site, runtime) = (site.clone(), runtime.clone());
            std::thread::spawn(move || drop(pass_on(stream, &site, &runtime)));
        }
    });
    url
}

fn pass_on(
    mut stream: std::net::TcpStream,
    site: &crate::harness::Site,
    runtime: &tokio::runtime::Handle,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or("GET").to_owned(), words.next().unwrap_or("/").to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
            if name.eq_ignore_ascii_case("expect") {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let method: Method = method.parse().unwrap_or(Method::GET);
    let reply =
        runtime.block_on(site.raw(method, &path, &[("content-type", "application/x-pki-message")], body));
    write!(
        stream,
        "HTTP/1.1 {} X\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reply.status,
        reply.header("content-type").unwrap_or("text/plain"),
        reply.body.len()
    )?;
    stream.write_all(&reply.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_obtains_and_renews_and_scepclient_understands() {
    let house = House::new().await;
    let device = house.device(Family::Mac).await;
    let link = house.invite().await;
    let profile = device.fetch_profile(&link, &ProfileOptions::default()).await.unwrap();
    let scep = profile.details.scep.clone();
    let path = scep.url.strip_prefix(&house.url).unwrap().to_owned();
    let ca = house
        .raw(Method::GET, &format!("{path}?operation=GetCACert"), &[], Vec::new())
        .await
        .ok("CA")
        .unwrap()
        .body;
    let url = relay(&house, &path);
    let folder = house.folder().to_owned();
    let challenge = scep.challenge.expose_str().unwrap().to_owned();
    let cn = scep.common_name.clone();
    let tls_ca = house.config.data_dir.join("tls-ca.pem");
    let https = scep.url.clone();
    let judged = tokio::task::spawn_blocking(move || {
        std::fs::write(folder.join("ca.pem"), ders_to_pem(&[&ca])).unwrap();
        // The challenge is bound to the first key: keys first.
        let key = |name: &str| {
            let key = KeyPair::generate_rsa2048().unwrap();
            std::fs::write(folder.join(name), key.to_pkcs8_pem().unwrap().expose_secret()).unwrap();
            key
        };
        let (first, second) = (key("key.pem"), key("new.pem"));
        let pki = |key: &str, more: &[&str]| {
            let mut command = Command::new("pki");
            command.current_dir(&folder).args([
                "--scep",
                "--url",
                &url,
                "--in",
                key,
                "--dn",
                &format!("CN={cn}"),
            ]);
            command.args([
                "--cacert-enc",
                "ca.pem",
                "--cacert-sig",
                "ca.pem",
                "--cacert",
                "ca.pem",
                "--outform",
                "pem",
            ]);
            if let Some(plugin) = std::env::var_os("STRONGSWAN_CURL_PLUGIN") {
                command.env("LD_PRELOAD", plugin);
            }
            judge::run("strongSwan pki --scep", command.args(more))
        };
        let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
        let wrong = pki("key.pem", &["--password", "not-the-challenge"])?;
        if text(&wrong).contains("plugin 'curl': failed to load") {
            judge::missing("strongSwan pki --scep", "libstrongswan-extra-plugins");
            return None;
        }
        assert!(!wrong.status.success());
        let output = pki("key.pem", &["--password", &challenge])?;
        assert!(output.status.success(), "{}", text(&output));
        std::fs::write(folder.join("old.pem"), &output.stdout).unwrap();
        let cert = pem_to_ders(&output.stdout).unwrap().remove(0);
        let info = CertInfo::parse(&cert).unwrap();
        assert_eq!(info.spki_der, first.public_key_der().unwrap());
        assert_eq!(info.subject_cn.as_deref(), Some(cn.as_str()));
        // A spent challenge is nothing to another key; an identity that never checked in renews nothing.
        assert!(!pki("new.pem", &["--password", &challenge])?.status.success());
        assert!(!pki("new.pem", &["--cert", "old.pem", "--key", "key.pem"])?.status.success());
        judge::looked("strongSwan pki --scep (first identity)", 4);

        // Debian's scepclient speaks single DES only. Its Go reads SSL_CERT_FILE.
        std::fs::create_dir(folder.join("scepclient")).unwrap();
        let mut command = Command::new("scepclient");
        command
            .current_dir(folder.join("scepclient"))
            .env("SSL_CERT_FILE", &tls_ca)
            .env("SSL_CERT_DIR", "/nonexistent");
        command.args([
            "-server-url",
            &https,
            "-challenge",
            &challenge,
            "-cn",
            &cn,
            "-private-key",
            "k.pem",
            "-certificate",
            "c.pem",
        ]);
        command.args(["-keySize", "2048", "-ca-fingerprint", &hex(&bellwether_certs::hash::sha256(&ca))]);
        if let Some(output) = judge::run("scepclient", &mut command) {
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), text(&output));
            assert!(!output.status.success() && said.contains("badAlg"), "{said}");
            judge::looked("scepclient (GetCACert, refusal)", 2);
        }
        Some((folder, url, cn, cert, first, second))
    })
    .await
    .unwrap();
    let Some((folder, url, cn, cert, first, second)) = judged else { return };
    // The identity checks in; then strongSwan renews it.
    let mut mac = device;
    mac.install_enrollment(profile);
    mac.set_identity(bellwether_sim::Identity { key: first, cert_der: cert }).unwrap();
    mac.authenticate().await.unwrap().ok("Authenticate").unwrap();
    mac.token_update().await.unwrap().ok("TokenUpdate").unwrap();
    let renewed = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("pki");
        command.current_dir(&folder).args([
            "--scep",
            "--url",
            &url,
            "--in",
            "new.pem",
            "--dn",
            &format!("CN={cn}"),
        ]);
        command.args([
            "--cacert-enc",
            "ca.pem",
            "--cacert-sig",
            "ca.pem",
            "--cacert",
            "ca.pem",
            "--outform",
            "pem",
        ]);
        let output = command.args(["--cert", "old.pem", "--key", "key.pem"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        pem_to_ders(&output.stdout).unwrap().remove(0)
    })
    .await
    .unwrap();
    mac.set_identity(bellwether_sim::Identity { key: second, cert_der: renewed }).unwrap();
    assert_eq!(mac.idle().await.unwrap().status, 200);
    judge::looked("strongSwan pki --scep (renewal)", 1);
}

/// A push certificate as Apple's look, self-signed: PEM of certificate and key.
pub fn push_certificate(topic: &str) -> (String, String) {
    let key = KeyPair::generate_rsa2048().unwrap();
    let pkey =
        openssl::pkey::PKey::private_key_from_pkcs8(key.to_pkcs8_der().unwrap().expose_secret()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("UID", topic).unwrap();
    name.append_entry_by_text("CN", "APSP:e2e").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial: [u8; 8] = random_bytes().unwrap();
    let serial = Asn1Integer::from_bn(&BigNum::from_slice(&serial).unwrap()).unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(clock::now_ms() / 1000 - 3600).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(300).unwrap()).unwrap();
    builder.set_pubkey(&pkey).unwrap();
    builder.sign(&pkey, MessageDigest::sha256()).unwrap();
    let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (pem(builder.build().to_pem().unwrap()), pem(pkey.private_key_to_pem_pkcs8().unwrap()))
}

/// `apns_standin.py`, with a TLS certificate of its own CA.
struct Apns {
    child: Child,
    url: String,
    trust: PathBuf,
    log: PathBuf,
    folder: tempfile::TempDir,
}

impl Apns {
    fn start(topic: &str, push_cert: &str) -> Option<Self> {
        static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
        let Some(python) = PYTHON.get_or_init(|| python("h2")) else {
            judge::missing("apns_standin.py", "no Python with h2 (BELLWETHER_JUDGE_PYTHON)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let now = clock::now_ms();
        let ca = TlsCa::create(now, random_bytes().unwrap()).unwrap();
        let key = KeyPair::generate_p256().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = ca
            .issue_server(&names, &key.public_key_der().unwrap(), random_bytes().unwrap(), now, 30)
            .unwrap();
        let file = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let trust = file("trust.pem", ders_to_pem(&[ca.cert_der()]).as_bytes());
        let log = file("log", b"");
        let mut command = Command::new(python);
        command.arg(script("apns_standin.py")).args(["--topic", topic, "--stop-with-stdin"]);
        command.arg("--cert").arg(file("tls.pem", ders_to_pem(&[&leaf]).as_bytes()));
        command.arg("--key").arg(file("tls.key", key.to_pkcs8_pem().unwrap().expose_secret()));
        command.arg("--client-cert").arg(file("push.pem", push_cert.as_bytes())).arg("--log").arg(&log);
        // A token that begins with dead is one.
        command.args(["--answer", "dead=410:Unregistered"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let hello: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Some(Self { child, url: format!("https://localhost:{}", hello["port"]), trust, log, folder })
    }

    /// All wakes until now.
    fn wakes(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "push").collect()
    }

    async fn wait_for(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let wakes = self.wakes();
            if wakes.len() >= count {
                return wakes;
            }
            assert!(
                Instant::now() < until,
                "{} of {count} wakes in {}",
                wakes.len(),
                self.folder.path().display()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Apns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_command_wakes_its_device_once() {
    let topic = "com.apple.mgmt.External.5f0d3a52-6f3b-4f5a-9c61-0d1e2f3a4b5c";
    let (certificate, key) = push_certificate(topic);
    let Some(apns) = Apns::start(topic, &certificate) else { return };
    let house = House::with(|config| {
        config.apns_endpoint = apns.url.parse().unwrap();
        config.apns_trust = Some(apns.trust.clone());
    })
    .await;
    // Without a certificate only test devices can be invited.
    let real = json!({ "platform": "apple" });
    assert_eq!(house.post("/invitations", real.clone()).await.refusal().0, 409);
    let import = |certificate: &str, key: &str, confirm: Option<i64>| {
        let body = json!({ "certificate": certificate, "key": key, "confirm_loss": confirm });
        let site = house.site.clone();
        async move { site.post("/push/apple", body).await }
    };
    let (other_certificate, other_key) =
        push_certificate("com.apple.mgmt.External.11111111-6f3b-4f5a-9c61-0d1e2f3a4b5c");
    assert_eq!(import(&certificate, &other_key, None).await.refusal().0, 400, "another's key");
    assert_eq!(import(&certificate, &key, None).await.good()["topic"], topic);

    let mut macs = Vec::new();
    for _ in 0..2 {
        let link = house.post("/invitations", real.clone()).await.good()["link"].as_str().unwrap().to_owned();
        let mut mac = house.device(Family::Mac).await;
        mac.enroll(&link).await.unwrap();
        assert_eq!(mac.enrollment().unwrap().mdm.topic, topic);
        mac.poll().await.unwrap();
        macs.push(mac);
    }
    let mut test_only = house.enrolled(Family::Mac).await;
    // What the first inventory may have caused has passed.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = apns.wakes().len();
    // Several commands, one wake; the other devices sleep on.
    for intent in
        [json!({ "type": "lock" }), json!({ "type": "restart" }), json!({ "type": "refresh-inventory" })]
    {
        house.send(&macs[0], intent.clone()).await;
        house.send(&test_only, intent).await;
    }
    let wakes = apns.wait_for(before + 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(apns.wakes().len(), before + 1, "{:#?}", apns.wakes());
    let wake = wakes.last().unwrap();
    assert_eq!(wake["ok"], true, "{wake:#}");
    assert_eq!(wake["token"], hex(macs[0].push_token()).as_str());
    assert_eq!(wake["topic"], topic);
    assert_eq!(wake["magic"], macs[0].push_magic());
    assert_eq!(
        macs[0].poll().await.unwrap().iter().filter(|told| told.request_type == "DeviceLock").count(),
        1
    );
    assert_eq!(
        test_only.poll().await.unwrap().iter().filter(|told| told.request_type == "DeviceLock").count(),
        1
    );

    // A dead token is retired and said; the device's next TokenUpdate brings a new one.
    macs[1].set_push_token([&[0xDE, 0xAD][..], &[7; 30]].concat());
    macs[1].token_update().await.unwrap().ok("TokenUpdate").unwrap();
    house.send(&macs[1], json!({ "type": "lock" })).await;
    let count = apns.wait_for(before + 2).await.len();
    let until = Instant::now() + PATIENCE;
    loop {
        let channels = house.show(&macs[1]).await["channels"].clone();
        let channel = &channels.as_array().unwrap()[0];
        if channel["pushable"] == false {
            assert!(channel["wake_note"].as_str().is_some_and(|note| !note.is_empty()), "{channel:#}");
            break;
        }
        assert!(Instant::now() < until, "{channel:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    macs[1].set_push_token(vec![8; 32]);
    macs[1].token_update().await.unwrap().ok("TokenUpdate").unwrap();
    house.send(&macs[1], json!({ "type": "restart" })).await;
    let wakes = apns.wait_for(count + 1).await;
    assert_eq!(wakes.last().unwrap()["token"], "08".repeat(32));
    assert_eq!(macs[1].poll().await.unwrap().len(), 2);

    // Another topic would strand the enrolled devices: refused, unless the admin names how many.
    let (status, why) = import(&other_certificate, &other_key, None).await.refusal();
    assert_eq!(status, 409, "{why}");
    assert!(why.contains('2') && why.contains(topic), "{why}");
    assert_eq!(import(&other_certificate, &other_key, Some(1)).await.refusal().0, 409);
    // The same topic again is a renewal.
    let (renewed, renewed_key) = push_certificate(topic);
    import(&renewed, &renewed_key, None).await.good();
    import(&other_certificate, &other_key, Some(2)).await.good();
    let all = house.get("/push/apple").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(!all.to_string().contains("PRIVATE"), "a key is never shown");
    let wrong: Vec<Value> = apns.wakes().into_iter().filter(|wake| wake["ok"] != true).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    judge::looked("apns_standin.py", apns.wakes().len());
}
