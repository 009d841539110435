//! RT-18: SIGTERM under load, and a new start, again and again. Whoever was served is served to the end; whoever comes
//! in between finds a closed door and comes again.

use crate::chance::Chance;
use crate::load::{CLOSED, Scene};
use crate::victim::Victim;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const DEVICES: usize = 8;
const DRAIN: Duration = Duration::from_secs(4);

pub async fn run(rounds: u32, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut victim = Victim::new(false);
    victim.sets = vec![format!("limits.drain_seconds={}", DRAIN.as_secs())];
    let site = victim.set_up().await;
    let scene = Scene::new(site, DEVICES).await;
    let rounds = rounds.div_ceil(8).max(3);
    let (mut slowest, mut closed) = (Duration::ZERO, 0);
    let load = tokio::spawn({
        let scene = scene.clone();
        async move { scene.run().await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(chance.between(100, 900))).await;
        let took = stop(&mut victim).await;
        assert!(took < DRAIN, "nobody was in the way, and it took {took:?}");
        slowest = slowest.max(took);
        victim.spawn();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    scene.stop();
    load.await.unwrap();
    for trouble in scene.troubles() {
        assert!(trouble.starts_with(CLOSED), "a call was taken and not served: {trouble}");
        closed += 1;
    }
    scene.collect().await;
    victim.sound();

    // Somebody who never finishes keeps nobody waiting for longer than he may.
    let held = half_a_request(&scene.site.url, &victim.data().join("tls-ca.pem"));
    let took = stop(&mut victim).await;
    drop(held);
    assert!(took < DRAIN + Duration::from_secs(3), "{took:?}");
    victim.spawn();
    scene.collect().await;
    scene.drain().await;
    println!(
        "drain, SQLite: {rounds} stops and starts under load, the slowest {slowest:?}; no call was broken off, {closed} \
         found a closed door; {took:?} with a client that never finishes; {} commands, all done",
        scene.ledger().wishes.len()
    );
}

/// SIGTERM; how long it took. The exit code is 0.
async fn stop(victim: &mut Victim) -> Duration {
    let started = Instant::now();
    victim.terminate();
    let code = tokio::task::block_in_place(|| victim.ended(DRAIN + Duration::from_secs(5)));
    assert_eq!(code, Some(Some(0)), "{}", victim.log());
    started.elapsed()
}

/// A request whose body does not come.
fn half_a_request(url: &str, ca: &Path) -> openssl::ssl::SslStream<std::net::TcpStream> {
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let mut connector = openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls()).unwrap();
    connector.set_ca_file(ca).unwrap();
    let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut tls = connector.build().connect("localhost", stream).unwrap();
    tls.write_all(b"PUT /apple/mdm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf").unwrap();
    tls.flush().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    tls
}
