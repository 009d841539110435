//! How many durable operations a second: enqueue and poll-with-answer, half and half, for 1, 16, 64 and 256 callers.
//!
//! `cargo bench -p bellwether-store` (SQLite); with `BELLWETHER_BENCH_POSTGRES_URL` (an empty database, a plain role)
//! PostgreSQL too. `--statements` writes every statement to standard error, and costs time.
//!
//! `cargo bench -p bellwether-store -- audit`: what an audit entry in each transaction costs, for 16 callers.
//! `cargo bench -p bellwether-store -- history 1000000`: what a poll costs with so many finished commands behind it.

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
    runtime.block_on(asked("SQLite", &sqlite))?;
    if let Ok(url) = std::env::var("BELLWETHER_BENCH_POSTGRES_URL") {
        let url = PostgresUrl::new(url);
        let postgres =
            Store::open(StoreConfig::Postgres { url, max_connections: 16, allow_rls_bypass: false })?;
        runtime.block_on(asked("PostgreSQL", &postgres))?;
    }
    Ok(())
}

async fn asked(name: &str, store: &Store) -> Outcome<()> {
    let words: Vec<String> = std::env::args().collect();
    let after = |word: &str| words.iter().position(|w| w == word).and_then(|at| words.get(at + 1));
    if words.iter().any(|word| word == "audit") {
        return audit(name, store).await;
    }
    if words.iter().any(|word| word == "history") {
        let commands = after("history").and_then(|count| count.parse().ok()).unwrap_or(100_000);
        return history(name, store, commands).await;
    }
    measure(name, store).await
}

/// Commands queued by 16 callers, without an audit entry and with one, three times in turn.
async fn audit(name: &str, store: &Store) -> Outcome<()> {
    let mut out = std::io::stdout();
    let mut rates = [0.0, 0.0];
    for _ in 0..3 {
        for (audited, rate) in [false, true].into_iter().zip(&mut rates) {
            let (site, channels) = fleet(store, 16).await?;
            let started = Instant::now();
            let mut tasks = Vec::new();
            for (channel, enrollment) in channels {
                let store = store.clone();
                tasks.push(tokio::spawn(async move {
                    let mut count = 0_u32;
                    while started.elapsed() < RUN {
                        let (new, entry) = (command(channel, enrollment).0, audit_entry());
                        store
                            .write(Scope::Site(site), move |tx| {
                                if audited {
                                    tx.audit_append(&entry)?;
                                }
                                tx.command_insert(&new)
                            })
                            .await?;
                        count += 1;
                    }
                    Ok::<_, StoreError>(count)
                }));
            }
            let mut count = 0;
            for task in tasks {
                count += task.await??;
            }
            *rate += f64::from(count) / started.elapsed().as_secs_f64() / 3.0;
        }
    }
    let [plain, audited] = rates;
    let share = 100.0 * audited / plain;
    Ok(writeln!(out, "{name}: 16 callers {plain:.0}/s without audit, {audited:.0}/s with: {share:.0} %")?)
}

/// A poll with its answer, alone, before and after a channel and its site have finished many commands.
async fn history(name: &str, store: &Store, commands: usize) -> Outcome<()> {
    let mut out = std::io::stdout();
    let (site, channels) = fleet(store, 64).await?;
    for behind in [0, commands] {
        let filling = Instant::now();
        let each = behind / channels.len();
        let mut tasks = Vec::new();
        for (channel, enrollment) in &channels {
            let (store, channel, enrollment) = (store.clone(), *channel, *enrollment);
            tasks.push(tokio::spawn(async move {
                for _ in 0..each {
                    let (new, part) = command(channel, enrollment);
                    store
                        .write(Scope::Site(site), move |tx| {
                            tx.command_insert(&new)?;
                            let peek = Peek { now: NOW, answering: vec![], skip_not_now: false };
                            tx.hand_over(channel, id(), &[(part, Some(vec![8; 100]))], &peek, &RULES)?;
                            let reply = Reply {
                                outcome: bellwether_model::Outcome::Acknowledged,
                                answer: None,
                                error: None,
                            };
                            tx.answer(channel, part, &reply, NOW, &RULES)
                        })
                        .await?;
                }
                Ok::<_, StoreError>(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        let filled = filling.elapsed().as_secs_f64();
        let mut times = Vec::new();
        if let Some((channel, enrollment)) = channels.first() {
            let started = Instant::now();
            times = caller(store.clone(), site, *channel, *enrollment, started).await?;
        }
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        writeln!(
            out,
            "{name}: {behind:>8} finished commands (made in {filled:.0} s): queue or poll p50 {:.2?}  p99 {:.2?}",
            at(50),
            at(99)
        )?;
    }
    Ok(())
}

fn command(channel_id: ChannelId, enrollment_id: EnrollmentId) -> (NewCommand, PartId) {
    let part = id();
    let new = NewCommand {
        id: id(),
        enrollment_id,
        channel_id,
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
    (new, part)
}

fn audit_entry() -> AuditEntry {
    AuditEntry {
        id: id(),
        at: NOW,
        actor: "key:bench".into(),
        kind: EventKind::CommandQueued,
        target: "device:1".into(),
        source: None,
        details_digest: vec![9; 32],
        details: Some("{}".into()),
        position: None,
        chain: None,
    }
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
        let (new, part) = command(channel, enrollment);
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
