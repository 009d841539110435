//! How many durable operations a second: enqueue and poll-with-answer, half and half, for 1, 16, 64 and 256 callers.
//!
//! `cargo bench -p bellwether-store` (SQLite); with `BELLWETHER_BENCH_POSTGRES_URL` (an empty database, a plain role)
//! PostgreSQL too. `--statements` writes every statement to standard error, and costs time.

use bellwether_model::device::IdentityState;
use bellwether_model::*;
use bellwether_store::records::*;
use bellwether_store::{PostgresUrl, Scope, Store, StoreConfig, StoreError};
use diesel::connection::{InstrumentationEvent, set_default_instrumentation};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const RULES: QueueRules =
    QueueRules { max_sends: 3, park_for: 60_000, not_now_pause: 0, silent_pause: 1_000, accepted_for: 1_000 };
const RUN: Duration = Duration::from_secs(3);

fn id<T: From<Uuid>>() -> T {
    T::from(Uuid::now_v7())
}

fn main() -> Outcome<()> {
    if !std::env::args().any(|word| word == "--bench") {
        // `cargo test --all-targets` runs this file too, without the word.
        return Ok(());
    }
    if std::env::args().any(|word| word == "--statements") {
        set_default_instrumentation(|| Some(Box::new(count)))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let sqlite = Store::open(StoreConfig::Sqlite { folder: folder.path().to_path_buf(), readers: 4 })?;
    runtime.block_on(measure("SQLite", &sqlite))?;
    if let Ok(url) = std::env::var("BELLWETHER_BENCH_POSTGRES_URL") {
        let url = PostgresUrl::new(url);
        let postgres =
            Store::open(StoreConfig::Postgres { url, max_connections: 16, allow_rls_bypass: false })?;
        runtime.block_on(measure("PostgreSQL", &postgres))?;
    }
    Ok(())
}

static STATEMENTS: AtomicUsize = AtomicUsize::new(0);

/// Says every statement.
fn count(event: InstrumentationEvent<'_>) {
    if let InstrumentationEvent::StartQuery { query, .. } = event {
        let number = STATEMENTS.fetch_add(1, Ordering::Relaxed);
        let said = writeln!(std::io::stderr(), "{number}: {query}");
        drop(said);
    }
}

async fn measure(name: &str, store: &Store) -> Outcome<()> {
    let mut out = std::io::stdout();
    for callers in [1, 16, 64, 256] {
        let mut tasks = Vec::new();
        let (site, channels) = fleet(store, callers).await?;
        let started = Instant::now();
        for (channel, enrollment) in channels {
            tasks.push(tokio::spawn(caller(store.clone(), site, channel, enrollment, started)));
        }
        let mut times: Vec<Duration> = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        let took = started.elapsed().as_secs_f64();
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 1_000).copied().unwrap_or_default();
        writeln!(
            out,
            "{name}: {callers:>3} callers {:>7.0} ops/s  p50 {:>9.2?}  p99 {:>9.2?}  worst {:>9.2?}",
            times.len() as f64 / took,
            at(500),
            at(990),
            times.last().copied().unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// One device and one admin in turn: a command is queued, then polled for with the last one's answer.
async fn caller(
    store: Store,
    site: SiteId,
    channel: ChannelId,
    enrollment: EnrollmentId,
    started: Instant,
) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    let mut last: Option<PartId> = None;
    while started.elapsed() < RUN {
        let (command, part) = (id(), id());
        let new = NewCommand {
            id: command,
            enrollment_id: enrollment,
            channel_id: channel,
            kind: "refresh".into(),
            lane: Lane::Interactive,
            guarantee: Guarantee::UntilAnswered,
            intent: vec![7; 700],
            job_id: None,
            coalesce_key: None,
            held_reason: None,
            not_before: None,
            expires_at: NOW.plus(1_000_000),
            created_at: NOW,
            created_by: "bench".into(),
            parts: vec![(part, "DeviceInformation".into())],
        };
        let begun = Instant::now();
        store.write(Scope::Site(site), move |tx| tx.command_insert(&new)).await?;
        times.push(begun.elapsed());
        let answering = last.map(|part| (part, bellwether_model::Outcome::Acknowledged));
        let peek = Peek { now: NOW, answering: last.into_iter().collect(), skip_not_now: false };
        let delivery = id();
        let begun = Instant::now();
        store
            .write(Scope::Site(site), move |tx| {
                if let Some((part, outcome)) = answering {
                    let reply = Reply { outcome, answer: Some(vec![9; 700]), error: None };
                    tx.answer(channel, part, &reply, NOW, &RULES)?;
                }
                let parts = [(part, Some(vec![8; 700]))];
                tx.hand_over(channel, delivery, &parts, &peek, &RULES)
            })
            .await?;
        times.push(begun.elapsed());
        last = Some(part);
    }
    Ok(times)
}

async fn fleet(store: &Store, size: usize) -> Outcome<(SiteId, Vec<(ChannelId, EnrollmentId)>)> {
    let site: SiteId = id();
    let authority: AuthorityId = id();
    store
        .write(Scope::System, move |tx| {
            tx.site_insert(&Site { id: site, name: "bench".into(), wrapped_key: vec![], created_at: NOW })?;
            let ca = Authority {
                id: authority,
                certificate: vec![],
                key: vec![],
                created_at: NOW,
                retired_at: None,
            };
            tx.authority_insert(site, &ca)
        })
        .await?;
    let mut channels = Vec::new();
    for _ in 0..size {
        let made = store.write(Scope::Site(site), move |tx| device(tx, authority)).await?;
        channels.push(made);
    }
    Ok((site, channels))
}

fn device(
    tx: &mut bellwether_store::Tx<'_>,
    authority_id: AuthorityId,
) -> Result<(ChannelId, EnrollmentId), StoreError> {
    let (device_id, identity_id, enrollment_id, channel_id): (DeviceId, IdentityId, EnrollmentId, ChannelId) =
        (id(), id(), id(), id());
    tx.device_insert(&Device {
        id: device_id,
        platform: Platform::Apple,
        hardware_id: device_id.to_string(),
        claims_device_id: None,
        serial: None,
        product: None,
        model: None,
        name: None,
        os_version: None,
        os_build: None,
        supervised: None,
        ownership: Ownership::Company,
        created_at: NOW,
    })?;
    tx.identity_insert(&Identity {
        id: identity_id,
        authority_id,
        serial: identity_id.to_string(),
        fingerprint: identity_id.as_bytes().to_vec(),
        key_hash: vec![],
        certificate: vec![],
        common_name: String::new(),
        not_before: NOW,
        not_after: NOW,
        state: IdentityState::Live,
        challenge_id: None,
        invitation_id: None,
        enrollment_id: None,
        issued_at: NOW,
        revoked_at: None,
        revoked_reason: None,
    })?;
    tx.enrollment_insert(&Enrollment {
        id: enrollment_id,
        device_id,
        epoch: 1,
        platform: Platform::Apple,
        state: EnrollmentState::Active,
        user_enrollment: false,
        invitation_id: None,
        person_id: None,
        identity_id,
        staged_identity_id: None,
        topic: None,
        test_only: true,
        awaiting_configuration: false,
        started_at: NOW,
        activated_at: Some(NOW),
        ended_at: None,
        end_reason: None,
        last_seen_at: None,
    })?;
    tx.channel_insert(&Channel {
        id: channel_id,
        enrollment_id,
        kind: ChannelKind::Device,
        user_key: String::new(),
        user_name: None,
        enabled: true,
        push_token: None,
        push_magic: None,
        push_dead: false,
        last_seq: 0,
        token_updates: 1,
        last_was_not_now: false,
        wake_due_at: None,
        wake_attempts: 0,
        woken_at: None,
        wake_note: None,
    })?;
    Ok((channel_id, enrollment_id))
}
