//! Too much, too slowly: AT-51, against the program itself.

use crate::harness::{Process, Site};
use bellwether_sim::Family;
use openssl::ssl::{SslConnector, SslMethod, SslStream};
use secrecy::ExposeSecret as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

pub(crate) fn connect(site: &Site, base: &str) -> SslStream<TcpStream> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    let ca = openssl::x509::X509::from_pem(site.ca_pem.as_bytes()).unwrap();
    builder.cert_store_mut().add_cert(ca).unwrap();
    let stream =
        TcpStream::connect(base.strip_prefix("https://").unwrap().replace("localhost", "127.0.0.1")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    builder.build().connect("localhost", stream).unwrap()
}

/// The status of what the server says next; 0 when it says nothing more.
pub(crate) fn status(stream: &mut SslStream<TcpStream>) -> u16 {
    let mut answer = [0_u8; 64];
    let count = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..count])
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Sends chunk after chunk, as fast as a good line; when the connection ended, and the answer.
fn pour(site: &Site, head: &str) -> (Duration, u16) {
    let mut stream = connect(site, &site.url);
    stream.write_all(head.as_bytes()).unwrap();
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend_from_slice(&[b'A'; 0x10000]);
    chunk.extend_from_slice(b"\r\n");
    let begun = Instant::now();
    for _ in 0..(1024 * MIB / 0x10000) {
        if begun.elapsed() > Duration::from_secs(25) || stream.write_all(&chunk).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (begun.elapsed(), status(&mut stream))
}

fn targets(site: &Site, scep: &str) -> Vec<(String, String)> {
    let key = site.key.expose_secret();
    vec![
        ("PUT /apple/mdm".into(), "Mdm-Signature: AAAA\r\n".into()),
        (format!("POST {scep}?operation=PKIOperation"), "Content-Type: application/x-pki-message\r\n".into()),
        (
            "POST /api/v1/invitations".into(),
            format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"),
        ),
        ("POST /api/v1/invitations".into(), "Content-Type: application/json\r\n".into()),
        ("POST /api/v1/setup".into(), "Content-Type: application/json\r\n".into()),
        ("POST /enroll".into(), "Content-Type: application/x-www-form-urlencoded\r\n".into()),
        ("POST /enroll/AAAA".into(), "Content-Type: application/x-www-form-urlencoded\r\n".into()),
        ("GET /livez".into(), String::new()),
        ("POST /nothing/here".into(), String::new()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn at_51_a_gigabyte_is_refused_early_and_memory_stays() {
    let mut process = Process::start(&[]).await;
    let site = process.site().clone();
    let mut mac = site.enrolled(Family::Mac).await;
    let scep = mac.enrollment().unwrap().scep.url.strip_prefix(&site.url).unwrap().to_owned();
    let before = process.memory();
    let pid = process.id();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watching = done.clone();
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        while !watching.load(std::sync::atomic::Ordering::Relaxed) {
            most = most.max(crate::harness::memory_of(pid));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    let (one, path) = (site.clone(), scep.clone());
    tokio::task::spawn_blocking(move || {
        for (line, headers) in targets(&one, &path) {
            // Announced: refused before a byte of it is read. A page that takes no body answers and closes.
            let mut stream = connect(&one, &one.url);
            let head =
                format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1073741824\r\n\r\n");
            let begun = Instant::now();
            stream.write_all(head.as_bytes()).unwrap();
            let got = status(&mut stream);
            assert!(
                [400, 401, 404, 413].contains(&got) || (line.starts_with("GET") && got == 200),
                "{line}: {got}"
            );
            assert!(begun.elapsed() < Duration::from_secs(3), "{line}: {:?}", begun.elapsed());
        }
        // Not announced: refused when the limit is reached, and not listened to for much longer.
        let mut pours = Vec::new();
        for (line, headers) in targets(&one, &path) {
            let head =
                format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
            let one = one.clone();
            pours.push((line, std::thread::spawn(move || pour(&one, &head))));
        }
        for (line, poured) in pours {
            let (after, got) = poured.join().unwrap();
            assert!(after < Duration::from_secs(18), "{line}: still listened to after {after:?}");
            // The answer can be lost when the connection is closed over unread bytes.
            assert!(
                [0, 400, 401, 404, 413].contains(&got) || (line.starts_with("GET") && got == 200),
                "{line}: {got}"
            );
        }
        // A header block without an end, and one header without an end.
        for filler in [
            "X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            let mut stream = connect(&one, &one.url);
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
            let filler = filler.repeat(1000);
            let taken =
                (0..2000).take_while(|_| stream.write_all(filler.as_bytes()).is_ok()).count() * filler.len();
            assert!(taken < 16 << 20, "{taken} bytes of headers were taken");
        }
    })
    .await
    .unwrap();
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let grown = watcher.join().unwrap().saturating_sub(before) / MIB;
    println!("{grown} MiB more at the worst moment");
    assert!(grown < 200, "{grown} MiB");
    assert!(process.is_alive(), "{}", process.log());
    assert_eq!(mac.idle().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_51_nothing_is_unpacked() {
    let process = Process::start(&[]).await;
    let site = process.site().clone();
    let mut mac = site.enrolled(Family::Mac).await;
    let scep = mac.enrollment().unwrap().scep.url.strip_prefix(&site.url).unwrap().to_owned();
    let before = process.memory();
    let bomb = gzip_of_zeros();
    for (line, headers) in targets(&site, &scep).into_iter().filter(|(line, _)| !line.starts_with("GET")) {
        for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip", "GZIP"] {
            let (site, bomb, line, headers) = (site.clone(), bomb.clone(), line.clone(), headers.clone());
            let got = tokio::task::spawn_blocking(move || {
                let mut stream = connect(&site, &site.url);
                let head = format!(
                    "{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
                    bomb.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                let _ = stream.write_all(&bomb);
                let got = status(&mut stream);
                assert!([400, 401, 404, 413, 415].contains(&got), "{line} {encoding}: {got}");
                got
            })
            .await
            .unwrap();
            assert_ne!(got, 200);
        }
    }
    assert!(process.memory().saturating_sub(before) < 64 * MIB);
    assert_eq!(mac.idle().await.unwrap().status, 200);
}

/// A gigabyte of zeros, by Python's zlib, in one megabyte.
fn gzip_of_zeros() -> Vec<u8> {
    let script = "import gzip,sys\nw=gzip.GzipFile(fileobj=sys.stdout.buffer,mode='wb',compresslevel=9)\nz=bytes(1<<20)\n\
                  for _ in range(256): w.write(z)\nw.close()";
    let output = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    assert!(output.status.success() && output.stdout.len() < 4 << 20);
    output.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn at_51_slow_clients_are_cut_and_stop_nobody() {
    let mut process = Process::start(&["limits.request_seconds=4"]).await;
    let site = process.site().clone();
    let mut mac = site.enrolled(Family::Mac).await;
    let one = site.clone();
    let slow = tokio::task::spawn_blocking(move || {
        let body = "PUT /apple/mdm HTTP/1.1\r\nHost: localhost\r\nMdm-Signature: AAAA\r\nContent-Length: 1000\r\n\r\n";
        let mut all = Vec::new();
        // One hundred that never finish their headers, one hundred that never finish their body, and some that never
        // begin to speak TLS.
        for number in 0..200 {
            let mut stream = connect(&one, &one.url);
            stream.get_ref().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let head =
                if number % 2 == 0 { "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: " } else { body };
            stream.write_all(head.as_bytes()).unwrap();
            all.push(Some(stream));
        }
        let address = one.url.strip_prefix("https://").unwrap().replace("localhost", "127.0.0.1");
        let mut mute: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(40) && all.iter().any(Option::is_some) {
            std::thread::sleep(Duration::from_secs(1));
            for place in &mut all {
                let Some(stream) = place else { continue };
                let mut buffer = [0_u8; 512];
                // Cut: an answer and then an end, or an error.
                let over = match stream.read(&mut buffer) {
                    Ok(_) => true,
                    Err(error) => {
                        !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
                    }
                };
                if over || stream.write_all(b"a").is_err() {
                    *place = None;
                }
            }
        }
        let left = all.iter().filter(|place| place.is_some()).count();
        let closed = mute.iter_mut().all(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            matches!(stream.read(&mut [0_u8; 8]), Ok(0)) || stream.take_error().is_ok_and(|e| e.is_some())
        });
        (left, begun.elapsed(), closed)
    });
    // Meanwhile a good device is served as ever.
    let mut worst = Duration::ZERO;
    let mut polls = 0;
    while !slow.is_finished() {
        let begun = Instant::now();
        mac.idle().await.unwrap().ok("a good device").unwrap();
        worst = worst.max(begun.elapsed());
        polls += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (left, after, closed) = slow.await.unwrap();
    assert_eq!(left, 0, "slow connections left after {after:?}");
    assert!(closed, "a connection without TLS stays open");
    assert!(after < Duration::from_secs(35), "{after:?}");
    assert!(worst < Duration::from_secs(3) && polls > 5, "{worst:?} {polls}");
    assert!(process.is_alive());
}
