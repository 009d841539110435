//! AT-51: bodies and slow clients.

use super::{World, raw, status};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_51_large_bodies_are_refused_before_they_are_read() {
    let world = World::new().await;
    let addr = world.server.public_addr;
    for path in [
        "/apple/mdm",
        "/scep/0190a5d0-0000-4000-8000-000000000000?operation=PKIOperation",
        "/enroll/x",
        "/enroll",
        "/api/v1/setup",
        "/EnrollmentServer/Auth",
        "/EnrollmentServer/TermsOfUse",
        "/EnrollmentServer/Discovery.svc",
        "/EnrollmentServer/Policy.svc",
        "/EnrollmentServer/Enrollment.svc",
    ] {
        let method = if path == "/apple/mdm" { "PUT" } else { "POST" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\nxxxx"
        );
        let answer = tokio::task::spawn_blocking(move || raw(addr, request.as_bytes())).await.unwrap();
        assert_eq!(status(&answer), 413, "{path}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{path}: {answer}");
    }
    // Without an announced length the bytes are counted.
    let counted = tokio::task::spawn_blocking(move || {
        let mut stream = super::tls::connect(addr, None).unwrap();
        stream
            .write_all(b"POST /enroll HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
        for _ in 0..200 {
            if stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
        }
        let mut answer = vec![0_u8; 4096];
        let n = stream.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..n]).into_owned()
    })
    .await
    .unwrap();
    assert_eq!(status(&counted), 413, "{counted}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_51_nothing_is_unpacked() {
    let world = World::new().await;
    for path in [
        "/apple/mdm",
        "/api/v1/setup",
        "/enroll/x",
        "/EnrollmentServer/Auth",
        "/EnrollmentServer/TermsOfUse",
        "/EnrollmentServer/Policy.svc",
    ] {
        let answer = world
            .http
            .post(world.at(path))
            .header("content-encoding", "gzip")
            .body(vec![0x1f, 0x8b, 8, 0])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 415, "{path}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_51_slow_bodies_end() {
    let world = World::with(&[("limits.request_seconds", "1")]).await;
    let addr = world.server.public_addr;
    let started = Instant::now();
    let answer = tokio::task::spawn_blocking(move || {
        raw(addr, b"PUT /apple/mdm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx")
    })
    .await
    .unwrap();
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(started.elapsed() < Duration::from_secs(10));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_of_sixteen_kilobytes_arrives() {
    let world = World::new().await;
    let answer = world
        .http
        .put(world.at("/apple/mdm"))
        .header("mdm-signature", "A".repeat(16 * 1024))
        .body("<plist/>")
        .send()
        .await
        .unwrap();
    assert!([400, 403].contains(&answer.status().as_u16()), "{}", answer.status());
    assert_eq!(answer.headers().get("content-length").unwrap(), "0");
    world.server.stop().await;
}
