//! The WNS client against a stand-in on the loopback.

#[cfg(test)]
mod wns {
    mod standin;

    use bellwether::clock::SystemClock;
    use bellwether::config::{Config, Sources};
    use bellwether::serve;
    use bellwether::wakers::WnsConfig;
    use bellwether_certs::ca::TlsCa;
    use bellwether_certs::cert::ders_to_pem;
    use bellwether_engine::{WakeOutcome, WakeTarget, Waker as _};
    use bellwether_model::time::{DAY, HOUR, SECOND};
    use secrecy::SecretBox;
    use standin::{Answer, Standin, http, token};
    use std::collections::BTreeMap;
    use std::net::TcpListener;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    const SID: &str = "ms-app://S-1-15-2-2972962901-2322836549";
    const SECRET: &str = "hunter2/+ &=";
    const CHANNEL: &str = "/?token=AwYAAAD8sfbDrL9h7mN%2bmwlkSk%3d";

    #[tokio::test]
    async fn a_wake_is_what_wns_asks_for() {
        let wns = Standin::start();
        assert_eq!(wns.waker().wake(None, &wns.target()).await, WakeOutcome::Sent);
        let [token, push] = wns.seen().try_into().unwrap();

        assert_eq!((token.method.as_str(), token.path.as_str()), ("POST", "/accesstoken.srf"));
        assert_eq!(token.header("content-type"), Some("application/x-www-form-urlencoded"));
        let form: BTreeMap<_, _> = url::form_urlencoded::parse(&token.body).into_owned().collect();
        let wanted = [
            ("client_id", SID),
            ("client_secret", SECRET),
            ("grant_type", "client_credentials"),
            ("scope", "notify.windows.com"),
        ];
        assert_eq!(form, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(String::from_utf8_lossy(&token.body).contains("client_id=ms-app%3A%2F%2FS-1-15-2-"));
        assert_eq!(token.header("authorization"), None);

        assert_eq!((push.method.as_str(), push.path.as_str()), ("POST", CHANNEL));
        assert_eq!(push.header("authorization"), Some("Bearer T1+/="));
        assert_eq!(push.header("x-wns-type"), Some("wns/raw"));
        assert_eq!(push.header("content-type"), Some("application/octet-stream"));
        assert_eq!(push.header("x-wns-cache-policy"), Some("cache"));
        let ttl: i64 = push.header("x-wns-ttl").unwrap().parse().unwrap();
        assert!((DAY / SECOND - 10..=DAY / SECOND).contains(&ttl), "{ttl}");
        assert!(!push.body.is_empty());
        for strange in ["cookie", "referer", "accept-encoding", "transfer-encoding", "expect", "user-agent"] {
            assert_eq!(push.header(strange), None, "{strange}");
        }
    }

    #[tokio::test]
    async fn every_answer_has_its_class() {
        let wns = Standin::start();
        let waker = wns.waker();
        let word = |word: &'static str| http(200, &[("X-WNS-Status", word)], "");
        let wait = |status, seconds: &'static str| http(status, &[("Retry-After", seconds)], "");
        let answers = [
            (word("received"), "sent", ""),
            (http(200, &[], ""), "sent", ""),
            (http(200, &[("X-WNS-NotificationStatus", "dropped")], ""), "transient -", "dropped it"),
            (word("dropped"), "transient -", "dropped it"),
            (word("channelthrottled"), "transient -", "no more wakes"),
            (
                http(200, &[("X-WNS-Status", "channelthrottled"), ("Retry-After", "60")], ""),
                "transient 60000",
                "no more wakes",
            ),
            (http(400, &[], ""), "rejected", "400"),
            (http(403, &[], ""), "rejected", "another app"),
            (http(404, &[], ""), "dead", "404"),
            (http(405, &[], ""), "rejected", "405"),
            (http(406, &[], ""), "transient -", "406"),
            (wait(406, "7"), "transient 7000", "406"),
            (http(410, &[], "<html>gone</html>"), "dead", "410"),
            (http(413, &[], ""), "rejected", "too large"),
            (wait(429, "120"), "transient 120000", "429"),
            (wait(429, "Sun, 06 Nov 1994 08:49:37 GMT"), "transient -", "429"),
            (http(500, &[], ""), "transient -", "500"),
            (wait(503, "30"), "transient 30000", "503"),
            (http(418, &[("X-WNS-Error-Description", "AwYAAAD8sfbDrL9h7mN")], ""), "rejected", "418"),
        ];
        let count = answers.len();
        for (answer, class, says) in answers {
            wns.push_answers([answer.clone()]);
            let (got, note) = described(&waker.wake(None, &wns.target()).await);
            assert_eq!(got, class, "{answer:?}: {note}");
            assert!(note.contains(says), "{answer:?}: {note}");
            innocent(&note);
        }
        assert_eq!((wns.tokens(), wns.pushes()), (1, count));
        assert_eq!(wns.connections.load(Ordering::SeqCst), 1, "refusals cost no connection");
    }

    #[tokio::test]
    async fn one_token_serves_many_wakes() {
        let wns = Standin::start();
        wns.token_answers([Answer::Late(Duration::from_millis(300), Box::new(token(1, 86_400)))]);
        let outcomes = wns.crowd(&Arc::new(wns.waker()), 40).await;
        assert!(outcomes.iter().all(|outcome| *outcome == WakeOutcome::Sent), "{outcomes:?}");
        assert_eq!((wns.tokens(), wns.pushes()), (1, 40));
    }

    #[tokio::test]
    async fn a_token_is_renewed_when_its_life_is_over() {
        let wns = Standin::start();
        wns.token_answers([token(1, 2)]);
        let waker = wns.waker();
        for _ in 0..3 {
            assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        }
        assert_eq!(wns.tokens(), 1);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        assert_eq!(wns.tokens(), 2);
        assert_eq!(wns.seen().last().unwrap().header("authorization"), Some("Bearer T2+/="));
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once() {
        let wns = Standin::start();
        wns.push_answers([http(401, &[], ""), http(404, &[], "")]);
        let waker = wns.waker();
        assert_eq!(described(&waker.wake(None, &wns.target()).await).0, "dead", "the second answer counts");
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        let bearers: Vec<_> =
            wns.seen().iter().filter_map(|seen| seen.header("authorization").map(str::to_owned)).collect();
        assert_eq!(bearers, ["Bearer T1+/=", "Bearer T2+/=", "Bearer T2+/="]);
        assert_eq!(wns.tokens(), 2);
    }

    #[tokio::test]
    async fn a_crowd_with_a_refused_token_asks_for_one_new_token() {
        let wns = Standin::start();
        let waker = Arc::new(wns.waker());
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        wns.spent.lock().unwrap().push("Bearer T1+/=".to_owned());
        let outcomes = wns.crowd(&waker, 20).await;
        assert!(outcomes.iter().all(|outcome| *outcome == WakeOutcome::Sent), "{outcomes:?}");
        assert_eq!(wns.tokens(), 2);
    }

    #[tokio::test]
    async fn tokens_that_are_always_refused_are_not_asked_for_in_a_hurry() {
        let wns = Standin::start();
        let waker = Arc::new(wns.waker_with(|config| config.pause = Duration::from_secs(2)));
        wns.spent.lock().unwrap().extend((1..9).map(|n| format!("Bearer T{n}+/=")));
        for pushes in [2, 3, 4] {
            let (class, note) = described(&waker.wake(None, &wns.target()).await);
            assert_eq!(class, "rejected", "{note}");
            assert!(note.contains("even a fresh access token"), "{note}");
            assert_eq!((wns.tokens(), wns.pushes()), (2, pushes));
        }
        wns.crowd(&waker, 20).await;
        assert_eq!(wns.tokens(), 2);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        wns.crowd(&waker, 20).await;
        assert_eq!(wns.tokens(), 3);
        // As soon as one is taken, everything is as before.
        tokio::time::sleep(Duration::from_millis(4100)).await;
        wns.spent.lock().unwrap().truncate(3);
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        wns.push_answers([http(401, &[], "")]);
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        assert_eq!(wns.tokens(), 5);
    }

    #[tokio::test]
    async fn a_wrong_secret_is_not_hammered() {
        let wns = Standin::start();
        let body = format!(r#"{{"error":"invalid_client","error_description":"{SECRET}"}}"#);
        wns.token_answers([http(400, &[], &body), http(400, &[], &body)]);
        let waker = Arc::new(wns.waker_with(|config| config.pause = Duration::from_secs(2)));
        for outcome in wns.crowd(&waker, 20).await {
            let (class, note) = described(&outcome);
            assert_eq!(class, "rejected", "{note}");
            assert!(note.contains("400 invalid_client") && note.contains("wns.client_secret"), "{note}");
            innocent(&note);
        }
        assert_eq!(wns.tokens(), 1);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        wns.crowd(&waker, 20).await;
        assert_eq!(wns.tokens(), 2);
        // The pause has doubled.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        wns.crowd(&waker, 20).await;
        assert_eq!((wns.tokens(), wns.pushes()), (2, 0));
        tokio::time::sleep(Duration::from_millis(2000)).await;
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
    }

    #[tokio::test]
    async fn a_sick_token_endpoint_gets_no_wake_sent() {
        let wns = Standin::start();
        let waker = wns.waker_with(|config| {
            config.timeout = Duration::from_secs(1);
            config.pause = Duration::ZERO;
        });
        let huge = format!(r#"{{"access_token":"T","pad":"{}"}}"#, "x".repeat(1 << 20));
        let answers = [
            (http(503, &[], ""), "transient -", "503"),
            (http(500, &[], "<html>"), "transient -", "500"),
            (http(401, &[], r#"{"error":"unauthorized_client"}"#), "rejected", "no access token (401 unauth"),
            (http(404, &[], ""), "rejected", "wns.token_endpoint"),
            (http(204, &[], ""), "rejected", "wns.token_endpoint"),
            (http(200, &[], ""), "rejected", "wns.token_endpoint"),
            (http(200, &[], "<html>Sign in</html>"), "rejected", "wns.token_endpoint"),
            (http(200, &[], r#"{"access_token":"a\r\nX-Evil: 1"}"#), "rejected", "cannot be sent"),
            (http(200, &[], r#"{"access_token":"T","token_type":"mac"}"#), "rejected", "bearer"),
            (http(200, &[], &huge), "rejected", "too long"),
            (Answer::Endless, "rejected", "too long"),
            (Answer::Close, "transient -", "cannot be reached"),
            (Answer::Silence, "transient -", "cannot be reached"),
            (Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "transient -", "cannot be reached"),
            (
                Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"access_token\":\"T\""),
                "transient -",
                "cannot be reached",
            ),
        ];
        for (answer, class, says) in answers {
            wns.token_answers([answer.clone()]);
            let begun = Instant::now();
            let (got, note) = described(&waker.wake(None, &wns.target()).await);
            assert_eq!(got, class, "{answer:?}: {note}");
            assert!(note.contains(says), "{answer:?}: {note}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{answer:?}");
            innocent(&note);
        }
        assert_eq!(wns.pushes(), 0);
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);

        // A named pause is kept.
        let waker = wns.waker_with(|config| config.pause = Duration::ZERO);
        wns.token_answers([http(429, &[("Retry-After", "30")], "")]);
        let before = wns.tokens();
        for _ in 0..3 {
            assert_eq!(described(&waker.wake(None, &wns.target()).await).0, "transient 30000");
        }
        assert_eq!(wns.tokens(), before + 1);
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (wns, elsewhere) = (Standin::start(), Standin::start());
        let target = format!("https://127.0.0.1:{}/caught", elsewhere.port);
        let inside = format!("https://127.0.0.1:{}/caught", wns.port);
        let trusting = |config: &mut WnsConfig| {
            let pem = [&wns.ca, &elsewhere.ca].map(TlsCa::cert_der);
            config.trust_pem = Some(ders_to_pem(&pem).into_bytes());
            config.hosts.push(format!("127.0.0.1:{}", elsewhere.port));
            config.pause = Duration::ZERO;
        };
        let waker = wns.waker_with(trusting);
        for status in [301, 302, 303, 307, 308] {
            for location in [&target, &inside] {
                wns.token_answers([http(status, &[("Location", location)], "")]);
                let (class, note) = described(&waker.wake(None, &wns.target()).await);
                assert_eq!(class, "rejected", "{note}");
                assert!(note.contains("wns.token_endpoint") && !note.contains("caught"), "{note}");
            }
        }
        assert_eq!(wns.pushes(), 0);
        assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
        for status in [301, 302, 303, 307, 308] {
            for location in [&target, &inside] {
                wns.push_answers([http(status, &[("Location", location)], "")]);
                let (class, note) = described(&waker.wake(None, &wns.target()).await);
                assert_eq!(class, "rejected", "{note}");
                assert!(note.contains(&status.to_string()) && !note.contains("caught"), "{note}");
            }
        }
        assert!(wns.seen().iter().all(|seen| seen.path != "/caught"));
        assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn foreign_hosts_are_refused_without_any_request() {
        let (wns, elsewhere) = (Standin::start(), Standin::start());
        let (own, other) = (wns.port, elsewhere.port);
        for (hosts, uri) in [
            (vec![format!("127.0.0.1:{own}")], format!("https://127.0.0.1:{other}/?token=x")),
            (vec![format!("127.0.0.1:{own}")], format!("https://localhost:{own}/?token=x")),
            (vec![format!("127.0.0.1:{own}")], format!("http://127.0.0.1:{own}/?token=x")),
            (vec![format!("127.0.0.1:{own}")], format!("https://127.1:{own}/?token=x")),
            (vec![format!("127.0.0.1:{own}")], format!("https://u@127.0.0.1:{own}/?token=x")),
            (vec![format!("127.0.0.1:{own}")], format!("https://127.0.0.1:{own}@127.0.0.1:{other}/?token=x")),
            (vec![format!("127.0.0.1:{own}")], format!("https://127.0.0.1:{other}\\@127.0.0.1:{own}/")),
            (vec![format!("127.0.0.1:{own}")], "https://db5.notify.windows.com/?token=x".to_owned()),
            // Microsoft's own hosts.
            (vec![], format!("https://127.0.0.1:{own}/?token=x")),
            (vec![], format!("https://localhost:{own}/?token=x")),
            (vec![], format!("https://127.0.0.1:{own}/.notify.windows.com")),
            (vec![], format!("https://127.0.0.1:{own}#.notify.windows.com")),
            (vec![], format!("https://db5.notify.windows.com:{own}/")),
            (vec![], format!("https://db5.notify.windows.com@127.0.0.1:{own}/")),
            (vec![], String::new()),
            (vec![], "\u{0}".to_owned()),
        ] {
            let waker = wns.waker_with(|config| config.hosts.clone_from(&hosts));
            let (class, note) = described(&waker.wake(None, &target(&uri)).await);
            assert_eq!(class, "rejected", "{uri}: {note}");
            assert!(note.contains("nothing was sent"), "{uri}: {note}");
            assert!(!note.contains("127.") && !note.contains("token=x"), "{uri}: {note}");
        }
        for standin in [&wns, &elsewhere] {
            assert_eq!(standin.connections.load(Ordering::SeqCst), 0, "not even for a token");
        }
    }

    #[tokio::test]
    async fn a_lost_connection_is_transient_and_is_not_tried_again() {
        let wns = Standin::start();
        let waker = wns.waker_with(|config| config.timeout = Duration::from_secs(1));
        let mut pushes = 0;
        for answer in [Answer::Close, Answer::Silence, Answer::Raw(b"nonsense\r\n\r\n")] {
            assert_eq!(waker.wake(None, &wns.target()).await, WakeOutcome::Sent);
            wns.push_answers([answer.clone()]);
            let begun = Instant::now();
            let (class, note) = described(&waker.wake(None, &wns.target()).await);
            assert_eq!(class, "transient -", "{answer:?}: {note}");
            assert!(note.contains("cannot be reached"), "{note}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{answer:?}");
            innocent(&note);
            pushes += 2;
            assert_eq!(wns.pushes(), pushes, "no second try of its own");
        }
        // The status has decided; what follows is read within bounds.
        for (status, class) in [(200, "sent"), (410, "dead")] {
            wns.push_answers([Answer::EndlessAfter(status)]);
            let begun = Instant::now();
            assert_eq!(described(&waker.wake(None, &wns.target()).await).0, class);
            assert!(begun.elapsed() < Duration::from_secs(4));
        }
        assert_eq!(wns.tokens(), 1);
    }

    #[tokio::test]
    async fn an_unreachable_service_is_transient() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let wns = Standin::start();
        let gone = format!("127.0.0.1:{port}");
        let waker = wns.waker_with(|config| config.hosts.push(gone.clone()));
        let (class, note) = described(&waker.wake(None, &target(&format!("https://{gone}{CHANNEL}"))).await);
        assert_eq!(class, "transient -", "{note}");
        innocent(&note);
        let waker =
            wns.waker_with(|config| config.token_endpoint = format!("https://{gone}/").parse().unwrap());
        let (class, note) = described(&waker.wake(None, &wns.target()).await);
        assert_eq!(class, "transient -", "{note}");
        innocent(&note);
        assert_eq!((wns.tokens(), wns.pushes()), (1, 0));
    }

    #[tokio::test]
    async fn a_service_with_a_foreign_certificate_gets_neither_secret_nor_token() {
        let wns = Standin::start();
        let stranger = Standin::start();
        let waker = wns.waker_with(|config| config.hosts.push(format!("127.0.0.1:{}", stranger.port)));
        let (class, note) = described(&waker.wake(None, &stranger.target()).await);
        assert_eq!(class, "transient -", "{note}");
        assert!(note.contains("certificate verify failed"), "{note}");
        let endpoint = stranger.token_endpoint();
        let waker = wns.waker_with(|config| config.token_endpoint = endpoint.parse().unwrap());
        assert_eq!(described(&waker.wake(None, &wns.target()).await).0, "transient -");
        assert!(stranger.seen().is_empty());
        assert_eq!((wns.tokens(), wns.pushes()), (1, 0));
    }

    #[tokio::test]
    async fn secret_token_and_channel_are_in_no_log() {
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
        // Everything that this crate and those below it say, in the whole process.
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(|| Sink).init();
        let wns = Standin::start();
        let waker = wns.waker();
        wns.push_answers([http(401, &[], ""), http(410, &[], ""), Answer::Close]);
        for _ in 0..3 {
            let _ = waker.wake(None, &wns.target()).await;
        }
        let _ = waker.wake(None, &target("https://evil.example/?token=AwYAAAD8sfbDrL9h7mN")).await;
        assert_eq!((wns.tokens(), wns.pushes()), (2, 4));
        let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned();
        assert!(log.contains("127.0.0.1"), "the libraries were heard: {log}");
        log.lines().for_each(innocent);
    }

    #[tokio::test]
    async fn a_server_with_wns_configured_starts_and_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let wns = Standin::start();
        let pem = folder.path().join("trust.pem");
        std::fs::write(&pem, ders_to_pem(&[wns.ca.cert_der()])).unwrap();
        let hosts = format!("127.0.0.1:{}", wns.port);
        let data = folder.path().join("data");
        let with = |key: &'static str, value: &str| {
            let mut flags = BTreeMap::from([
                ("data_dir", data.display().to_string()),
                ("public.listen", "127.0.0.1:0".to_owned()),
                ("device.listen", "127.0.0.1:0".to_owned()),
                ("limits.workers", "1".to_owned()),
                ("wns.package_sid", SID.to_owned()),
                ("wns.client_secret", SECRET.to_owned()),
                ("wns.package_family_name", "Example.Bell_8wekyb3d8bbwe".to_owned()),
                ("wns.token_endpoint", wns.token_endpoint()),
                ("wns.hosts", hosts.clone()),
                ("wns.trust", pem.display().to_string()),
            ]);
            flags.insert(key, value.to_owned());
            let flags = flags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            Config::from_layers(&Sources { flags, ..Sources::default() }.load().unwrap()).unwrap()
        };
        for (key, value, says) in [
            ("wns.token_endpoint", "http://127.0.0.1/", "https://"),
            ("wns.hosts", "https://127.0.0.1/", "wns.hosts"),
            ("wns.trust", "/nonexistent/trust.pem", "/nonexistent/trust.pem"),
        ] {
            let error = serve::start(with(key, value)).await.err().unwrap().to_string();
            assert!(error.contains(says), "{key}: {error}");
        }
        serve::start(with("limits.workers", "1")).await.unwrap().stop().await;
        assert_eq!(wns.connections.load(Ordering::SeqCst), 0, "nobody is to be woken yet");
    }

    #[tokio::test]
    async fn a_retry_after_date_counts_from_now() {
        let at = SystemClock::read().plus(HOUR).0 / 1000;
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::from_second(at).unwrap())
            .unwrap();
        let wns = Standin::start();
        wns.push_answers([http(503, &[("Retry-After", &date)], "")]);
        let outcome = wns.waker().wake(None, &wns.target()).await;
        let WakeOutcome::Transient { retry_after: Some(millis), .. } = outcome else { panic!("{outcome:?}") };
        assert!((HOUR - 20 * SECOND..=HOUR).contains(&millis), "{millis}");
    }

    fn target(uri: &str) -> WakeTarget {
        WakeTarget {
            token: SecretBox::new(Box::new(uri.as_bytes().to_vec())),
            magic: None,
            expires_at: SystemClock::read().plus(DAY),
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

    /// Nothing secret, neither plain nor as it stands in a form.
    fn innocent(text: &str) {
        for secret in ["hunter2", "T1+/=", "T2+/=", "AwYAAAD8", "?token", "accesstoken.srf"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
