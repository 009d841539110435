//! The APNs client against an APNs that is not ours: `tests/judges/apns_standin.py`, HTTP/2 by PyPI's h2.
//!
//! It asks for the push certificate, checks every request as Apple would, and answers by a script. Its Python is
//! `BELLWETHER_JUDGE_PYTHON`, or `python3` if that has h2, or a virtual environment below the target folder. Without it
//! the tests pass with a notice, except in CI.

#[cfg(test)]
mod apns {
    use bellwether::clock::SystemClock;
    use bellwether::wakers::{Apns, ApnsConfig};
    use bellwether_certs::ca::TlsCa;
    use bellwether_certs::cert::ders_to_pem;
    use bellwether_certs::hash::{hex, sha256};
    use bellwether_certs::keys::KeyPair;
    use bellwether_engine::{PushIdentity, WakeOutcome, WakeTarget, Waker};
    use bellwether_model::time::{DAY, HOUR, SECOND};
    use openssl::asn1::{Asn1Integer, Asn1Time};
    use openssl::bn::BigNum;
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::{X509, X509Name};
    use secrecy::{ExposeSecret as _, SecretBox, SecretString};
    use serde_json::Value;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Mutex, OnceLock};
    use std::time::{Duration, Instant};
    use tempfile::TempDir;

    const TOPIC: &str = "com.apple.mgmt.External.8c9f1a02-6f0e-4c3a-9c51-2f1f7f0a4a11";
    const MAGIC: &str = "3F2504E0-4F89-41D3-9A0C-0305E82C3301";

    #[tokio::test]
    async fn a_wake_is_what_apple_asks_for() {
        let Some(apns) = Standin::start(&[]) else { return };
        let waker = apns.waker();
        let mut token = vec![0xFF, 0x0A, 0xBC];
        token.extend([7; 29]);
        let before = SystemClock::read();
        assert_eq!(waker.wake(Some(&apns.identity(0)), &target(&token, MAGIC)).await, WakeOutcome::Sent);
        let push = apns.only_push();
        assert_eq!(push["ok"], true, "{push}");
        assert_eq!(push["path"], format!("/3/device/ff0abc{}", "07".repeat(29)));
        assert_eq!(push["push_type"], "mdm");
        assert_eq!(push["topic"], TOPIC);
        assert_eq!(push["priority"], "10");
        let expiration: i64 = push["expiration"].as_str().unwrap().parse().unwrap();
        assert!((0..=5).contains(&(expiration - before.plus(7 * DAY).0 / 1000)), "{expiration}");
        assert_eq!(push["body"], format!(r#"{{"mdm":"{MAGIC}"}}"#));
        let connection = apns.events("connected").remove(0);
        assert_eq!(connection["client"], apns.fingerprint(0));
        let headers = push["headers"].as_array().unwrap();
        for strange in ["authorization", "cookie", "referer", "accept-encoding"] {
            assert!(!headers.iter().any(|h| h == strange), "{strange}");
        }
    }

    #[tokio::test]
    async fn a_push_magic_is_escaped() {
        let Some(apns) = Standin::start(&[]) else { return };
        let magic = "a\"},\"aps\":{\"alert\":\"x\\ \u{1}\n\u{2028}\u{1F4E3}é</script>";
        assert_eq!(
            apns.waker().wake(Some(&apns.identity(0)), &target(&[1; 32], magic)).await,
            WakeOutcome::Sent
        );
        let push = apns.only_push();
        assert_eq!(push["ok"], true, "{push}");
        assert_eq!(push["magic"], magic);
    }

    #[tokio::test]
    async fn every_answer_has_its_class() {
        let answers = [
            ("01=400:BadDeviceToken", "rejected", "BadDeviceToken"),
            ("02=410:Unregistered", "dead", "Unregistered"),
            ("03=410:ExpiredToken", "dead", "ExpiredToken"),
            ("04=400:DeviceTokenNotForTopic", "rejected", "enrolled with"),
            ("05=400:BadTopic", "rejected", "topic"),
            ("06=400:IdleTimeout", "transient -", "IdleTimeout"),
            ("07=403:BadCertificate", "rejected", "identity.apple.com"),
            ("08=403:BadCertificateEnvironment", "rejected", "production"),
            ("09=404:BadPath", "rejected", "address"),
            ("0a=405:MethodNotAllowed", "rejected", "address"),
            ("0b=413:PayloadTooLarge", "rejected", "PushMagic"),
            ("0c=429:TooManyRequests:7", "transient 7000", "TooManyRequests"),
            ("0d=429:TooManyRequests", "transient -", "TooManyRequests"),
            ("0e=500:InternalServerError", "transient -", "InternalServerError"),
            ("0f=503:ServiceUnavailable:120", "transient 120000", "ServiceUnavailable"),
            ("10=503:Shutdown:Sun, 06 Nov 1994 08:49:37 GMT", "transient -", "Shutdown"),
            ("11=410:@none", "dead", "410"),
            ("12=410:@html", "dead", "410"),
            ("13=400:@none", "rejected", "400"),
            ("14=403:@huge", "rejected", "403"),
            ("15=503:@html", "transient -", "503"),
            ("16=302:Found", "rejected", "302"),
        ];
        let script: Vec<&str> = answers.iter().map(|(answer, ..)| *answer).collect();
        let Some(apns) = Standin::start(&script) else { return };
        let (waker, identity) = (apns.waker(), apns.identity(0));
        for (answer, class, says) in answers {
            let prefix = u8::from_str_radix(&answer[..2], 16).unwrap();
            let outcome = waker.wake(Some(&identity), &target(&[prefix; 32], MAGIC)).await;
            let (got, note) = described(&outcome);
            assert_eq!(got, class, "{answer}: {note}");
            assert!(note.contains(says), "{answer}: {note}");
            assert!(!note.contains(&hex(&[prefix; 4])) && !note.contains(MAGIC), "{answer}: {note}");
        }
        assert_eq!(waker.wake(Some(&identity), &target(&[0xEE; 32], MAGIC)).await, WakeOutcome::Sent);
        assert_eq!(apns.events("connected").len(), 1, "refusals and unread bodies cost no connection");
        assert!(apns.events("push").iter().all(|push| push["ok"] == true));
    }

    #[tokio::test]
    async fn a_retry_after_date_counts_from_now() {
        let at = SystemClock::read().plus(HOUR).0 / 1000;
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::from_second(at).unwrap())
            .unwrap();
        let Some(apns) = Standin::start(&[&format!("01=503:ServiceUnavailable:{date}")]) else { return };
        let outcome = apns.waker().wake(Some(&apns.identity(0)), &target(&[1; 32], MAGIC)).await;
        let WakeOutcome::Transient { retry_after: Some(millis), .. } = outcome else { panic!("{outcome:?}") };
        assert!((HOUR - 20 * SECOND..=HOUR).contains(&millis), "{millis}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_wakes_share_one_connection() {
        let Some(apns) = Standin::start(&[]) else { return };
        let (waker, identity) = (Arc::new(apns.waker()), Arc::new(apns.identity(0)));
        let mut wakes = tokio::task::JoinSet::new();
        for number in 0..64_u8 {
            let (waker, identity) = (Arc::clone(&waker), Arc::clone(&identity));
            wakes.spawn(async move { waker.wake(Some(&identity), &target(&[number; 32], MAGIC)).await });
        }
        assert!(wakes.join_all().await.iter().all(|outcome| *outcome == WakeOutcome::Sent));
        assert_eq!(apns.events("push").len(), 64);
        assert_eq!(apns.events("connected").len(), 1);
    }

    #[tokio::test]
    async fn a_lost_connection_is_transient_and_the_next_wake_reconnects() {
        let script = ["0a=goawayx1", "0b=closex1", "0c=silentx1"];
        let Some(apns) = Standin::start(&script) else { return };
        let waker = apns.waker_with(|config| config.timeout = Duration::from_secs(1));
        let identity = apns.identity(0);
        for (connections, prefix) in [(1, 0x0A), (2, 0x0B), (3, 0x0C)] {
            let sent = waker.wake(Some(&identity), &target(&[0xEE; 32], MAGIC)).await;
            assert_eq!(sent, WakeOutcome::Sent);
            assert_eq!(apns.events("connected").len(), connections);
            let lost = waker.wake(Some(&identity), &target(&[prefix; 32], MAGIC)).await;
            let (class, note) = described(&lost);
            assert_eq!(class, "transient -", "{note}");
            assert!(!note.contains("/3/device") && !note.contains(&hex(&[prefix; 4])), "{note}");
            assert_eq!(apns.pushes_to(prefix), 1, "no second try of its own");
            let again = waker.wake(Some(&identity), &target(&[prefix; 32], MAGIC)).await;
            assert_eq!(again, WakeOutcome::Sent);
            assert_eq!(apns.events("connected").len(), connections + 1);
        }
    }

    #[tokio::test]
    async fn an_unreachable_service_is_transient() {
        let Some(mut apns) = Standin::start(&[]) else { return };
        let (waker, identity) = (apns.waker(), apns.identity(0));
        let wake = target(&[0xAB; 32], MAGIC);
        assert_eq!(waker.wake(Some(&identity), &wake).await, WakeOutcome::Sent);
        apns.stop();
        for _ in 0..2 {
            let (class, note) = described(&waker.wake(Some(&identity), &wake).await);
            assert_eq!(class, "transient -", "{note}");
            assert!(!note.contains("abab"), "{note}");
        }
    }

    #[tokio::test]
    async fn a_service_with_a_foreign_certificate_gets_no_token() {
        let Some(apns) = Standin::start(&[]) else { return };
        let stranger = TlsCa::create(SystemClock::read().0, [9; 16]).unwrap();
        let waker = apns.waker_with(|config| {
            config.trust_pem = Some(ders_to_pem(&[stranger.cert_der()]).into_bytes());
        });
        let (class, note) = described(&waker.wake(Some(&apns.identity(0)), &target(&[1; 32], MAGIC)).await);
        assert_eq!(class, "transient -", "{note}");
        assert!(note.contains("certificate verify failed"), "{note}");
        assert!(apns.events("push").is_empty());
    }

    #[tokio::test]
    async fn another_version_connects_anew_with_its_certificate() {
        let Some(apns) = Standin::start(&[]) else { return };
        let waker = apns.waker();
        let wake = target(&[1; 32], MAGIC);
        for identity in [apns.identity(0), apns.identity(0), apns.identity(1), apns.identity(1)] {
            assert_eq!(waker.wake(Some(&identity), &wake).await, WakeOutcome::Sent);
        }
        let shown: Vec<Value> = apns.events("connected").into_iter().map(|c| c["client"].clone()).collect();
        assert_eq!(shown, [apns.fingerprint(0), apns.fingerprint(1)]);
        apns.wait_for("closed", 1);

        // The same certificate, imported again.
        let again = PushIdentity { version: 3, ..apns.identity(1) };
        assert_eq!(waker.wake(Some(&again), &wake).await, WakeOutcome::Sent);
        assert_eq!(apns.events("connected").len(), 3);
    }

    #[tokio::test]
    async fn unusable_certificates_are_rejected_with_a_reason() {
        let Some(apns) = Standin::start(&[]) else { return };
        let waker = apns.waker();
        let now = SystemClock::read().0;
        let stranger = push_certificate(p256(), now - DAY, 30 * DAY);
        let expired = push_certificate(p256(), now - 30 * DAY, 29 * DAY);
        let soon = push_certificate(p256(), now - DAY, DAY + 2 * SECOND);
        let good = || apns.identity(0);
        let garbage = |bytes: &[u8]| SecretBox::new(Box::new(bytes.to_vec()));
        for (identity, says) in [
            (PushIdentity { certificate_pem: "garbage".into(), ..good() }, "PEM"),
            (PushIdentity { key: garbage(b"garbage"), ..good() }, "key"),
            (PushIdentity { key: identity(&stranger, 1).key, ..good() }, "does not belong"),
            (PushIdentity { topic: "com.apple.mgmt.External.other".into(), ..good() }, "topic"),
            (identity(&expired, 1), "expired"),
        ] {
            let (class, note) = described(&waker.wake(Some(&identity), &target(&[1; 32], MAGIC)).await);
            assert_eq!(class, "rejected", "{says}: {note}");
            assert!(note.contains("certificate") && note.contains(says), "{says}: {note}");
        }
        let (class, note) = described(&waker.wake(Some(&good()), &target(&[], MAGIC)).await);
        assert_eq!(class, "rejected", "{note}");
        assert!(apns.events("push").is_empty());

        // One that expires while it is in use.
        let soon = identity(&soon, 7);
        let _ = waker.wake(Some(&soon), &target(&[1; 32], MAGIC)).await;
        tokio::time::sleep(Duration::from_millis(3100)).await;
        let (class, note) = described(&waker.wake(Some(&soon), &target(&[1; 32], MAGIC)).await);
        assert_eq!(class, "rejected", "{note}");
        assert!(note.contains("expired; renew"), "{note}");
        assert_eq!(waker.wake(Some(&good()), &target(&[1; 32], MAGIC)).await, WakeOutcome::Sent);
    }

    #[tokio::test]
    async fn a_certificate_that_the_service_does_not_know_is_named_as_the_cause() {
        let stranger = push_certificate(p256(), SystemClock::read().0 - DAY, 30 * DAY);
        // TLS 1.2 refuses it in the handshake; TLS 1.3 after it, where a client sees a closed connection.
        for (version, class, says) in
            [("1.2", "rejected", "unknown CA"), ("1.3", "transient -", "may not accept")]
        {
            let Some(apns) = Standin::start_with(&[], &["--tls-max", version]) else { return };
            let waker = apns.waker();
            let (got, note) =
                described(&waker.wake(Some(&identity(&stranger, 1)), &target(&[1; 32], MAGIC)).await);
            assert_eq!(got, class, "{note}");
            assert!(note.contains(says) && note.contains("identity.apple.com"), "{note}");
            assert_eq!(
                waker.wake(Some(&apns.identity(0)), &target(&[1; 32], MAGIC)).await,
                WakeOutcome::Sent
            );
            assert_eq!(apns.events("push").len(), 1);
        }
    }

    #[tokio::test]
    async fn token_and_magic_are_in_no_log() {
        static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        struct Sink;
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                LOG.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let Some(apns) = Standin::start(&["c0=410:Unregistered", "c1=close"]) else { return };
        // Everything that this crate and those below it say, in the whole process.
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Sink).init();
        let (waker, identity) = (apns.waker(), apns.identity(0));
        for prefix in [0xC0, 0xC1, 0xC2] {
            let mut token = vec![prefix];
            token.extend([0x5A; 31]);
            let _ = waker.wake(Some(&identity), &target(&token, "a-magic-that-nobody-may-see")).await;
        }
        assert_eq!(apns.events("push").len(), 3);
        let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned();
        assert!(log.contains("127.0.0.1"), "the libraries were heard: {log}");
        for line in log.lines() {
            assert!(!line.contains("5a5a5a5a") && !line.contains("nobody-may-see"), "{line}");
            assert!(!line.contains("/3/device"), "{line}");
        }
    }

    fn target(token: &[u8], magic: &str) -> WakeTarget {
        WakeTarget {
            token: SecretBox::new(Box::new(token.to_vec())),
            magic: Some(SecretString::from(magic)),
            expires_at: SystemClock::read().plus(7 * DAY),
        }
    }

    /// Class (with the pause, if the service named one) and note.
    fn described(outcome: &WakeOutcome) -> (String, String) {
        match outcome {
            WakeOutcome::Sent => ("sent".into(), String::new()),
            WakeOutcome::Transient { retry_after: None, note } => ("transient -".into(), note.clone()),
            WakeOutcome::Transient { retry_after: Some(t), note } => (format!("transient {t}"), note.clone()),
            WakeOutcome::Rejected { note } => ("rejected".into(), note.clone()),
            WakeOutcome::Dead { note } => ("dead".into(), note.clone()),
        }
    }

    /// Apple's are RSA. It takes long to make: one for all tests.
    fn rsa() -> KeyPair {
        static KEY: OnceLock<KeyPair> = OnceLock::new();
        KEY.get_or_init(|| KeyPair::generate_rsa2048().unwrap()).clone()
    }

    fn p256() -> KeyPair {
        KeyPair::generate_p256().unwrap()
    }

    /// As identity.apple.com/pushcert makes them, but signed by itself.
    fn push_certificate(key: KeyPair, from: i64, life: i64) -> (Vec<u8>, KeyPair) {
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_nid(Nid::USERID, TOPIC).unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "APSP:8c9f1a02").unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        let serial: [u8; 8] = bellwether_certs::hash::random_bytes().unwrap();
        let serial = Asn1Integer::from_bn(&BigNum::from_slice(&serial).unwrap()).unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(from / 1000).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix((from + life) / 1000).unwrap()).unwrap();
        builder.set_pubkey(key.pkey()).unwrap();
        builder.sign(key.pkey(), MessageDigest::sha256()).unwrap();
        (builder.build().to_der().unwrap(), key)
    }

    fn identity((certificate, key): &(Vec<u8>, KeyPair), version: i32) -> PushIdentity {
        PushIdentity {
            topic: TOPIC.to_owned(),
            version,
            certificate_pem: ders_to_pem(&[certificate]),
            key: key.to_pkcs8_der().unwrap(),
        }
    }

    /// A running stand-in that knows two push certificates.
    struct Standin {
        folder: TempDir,
        child: Child,
        port: u16,
        ca: TlsCa,
        push: [(Vec<u8>, KeyPair); 2],
    }

    impl Standin {
        /// Nothing if this machine has no judge.
        fn start(answers: &[&str]) -> Option<Self> {
            Self::start_with(answers, &[])
        }

        fn start_with(answers: &[&str], options: &[&str]) -> Option<Self> {
            let python = judge()?;
            let folder = tempfile::tempdir().unwrap();
            let now = SystemClock::read().0;
            let ca = TlsCa::create(now, [1; 16]).unwrap();
            let key = KeyPair::generate_p256().unwrap();
            let spki = key.public_key_der().unwrap();
            let leaf = ca.issue_server(&["127.0.0.1".into()], &spki, [2; 16], now, 30).unwrap();
            let push = [rsa(), p256()].map(|key| push_certificate(key, now - DAY, 365 * DAY));
            let file = |name: &str, bytes: &[u8]| {
                let path = folder.path().join(name);
                std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
                path
            };
            let known: Vec<&[u8]> = push.iter().map(|(der, _)| der.as_slice()).collect();
            let mut command = Command::new(python);
            command
                .arg(standin())
                .arg("--cert")
                .arg(file("tls.pem", ders_to_pem(&[&leaf]).as_bytes()))
                .arg("--key")
                .arg(file("tls.key", key.to_pkcs8_pem().unwrap().expose_secret()))
                .arg("--client-cert")
                .arg(file("push.pem", ders_to_pem(&known).as_bytes()))
                .args(["--topic", TOPIC, "--stop-with-stdin"])
                .args(options)
                .arg("--log")
                .arg(file("log", b""))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            for answer in answers {
                command.args(["--answer", answer]);
            }
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let hello: Value = serde_json::from_str(&line).unwrap();
            let port = u16::try_from(hello["port"].as_u64().unwrap()).unwrap();
            Some(Self { folder, child, port, ca, push })
        }

        fn waker(&self) -> Apns {
            self.waker_with(|_| ())
        }

        fn waker_with(&self, change: impl FnOnce(&mut ApnsConfig)) -> Apns {
            let mut config = ApnsConfig {
                endpoint: format!("https://127.0.0.1:{}", self.port).parse().unwrap(),
                trust_pem: Some(ders_to_pem(&[self.ca.cert_der()]).into_bytes()),
                ..ApnsConfig::default()
            };
            change(&mut config);
            Apns::new(config).unwrap()
        }

        fn identity(&self, which: usize) -> PushIdentity {
            identity(&self.push[which], i32::try_from(which).unwrap() + 1)
        }

        fn fingerprint(&self, which: usize) -> String {
            hex(&sha256(&self.push[which].0))
        }

        fn events(&self, event: &str) -> Vec<Value> {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.filter(|line| line["event"] == event).collect()
        }

        fn only_push(&self) -> Value {
            let mut pushes = self.events("push");
            assert_eq!(pushes.len(), 1, "{pushes:?}");
            pushes.remove(0)
        }

        fn pushes_to(&self, prefix: u8) -> usize {
            let token = hex(&[prefix; 32]);
            self.events("push").iter().filter(|push| push["token"] == token.as_str()).count()
        }

        fn wait_for(&self, event: &str, count: usize) {
            let begun = Instant::now();
            while self.events(event).len() < count {
                assert!(begun.elapsed() < Duration::from_secs(5), "no {event}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }

        fn stop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Drop for Standin {
        fn drop(&mut self) {
            self.stop();
        }
    }

    fn standin() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/judges/apns_standin.py")
    }

    /// A Python with h2.
    fn judge() -> Option<&'static Path> {
        static JUDGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        match JUDGE.get_or_init(find_judge) {
            Ok(python) => Some(python),
            Err(reason) if std::env::var_os("CI").is_some() => panic!("no judge for APNs: {reason}"),
            Err(reason) => {
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("NOTICE: not tested, no judge for APNs: {reason}\n"),
                );
                None
            }
        }
    }

    fn find_judge() -> Result<PathBuf, String> {
        if let Some(given) = std::env::var_os("BELLWETHER_JUDGE_PYTHON") {
            let given = PathBuf::from(given);
            return run(&given, &["-c", "import h2"]).map(|()| given);
        }
        let system = PathBuf::from("python3");
        if run(&system, &["-c", "import h2"]).is_ok() {
            return Ok(system);
        }
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("judge-apns");
        let python = home.join("bin/python");
        if run(&python, &["-c", "import h2"]).is_err() {
            run(&system, &["-m", "venv", "--clear", &home.to_string_lossy()])?;
            run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "h2>=4.1,<5"])?;
        }
        Ok(python)
    }

    fn run(program: &Path, arguments: &[&str]) -> Result<(), String> {
        let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let done = done.map_err(|e| format!("{}: {e}", program.display()))?;
        if done.status.success() {
            return Ok(());
        }
        Err(format!("{} {arguments:?}: {}", program.display(), String::from_utf8_lossy(&done.stderr).trim()))
    }
}
