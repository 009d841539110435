//! A load test: enrolls devices, then measures how fast the server answers them.

mod job;
mod resuming;
mod settings;
mod windows;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bellwether_apple::checkin::REPORT_CONTENT_TYPE;
use hdrhistogram::Histogram;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::{AppleDevice, Error, Fleet, FleetOptions, Http, Result};

pub use job::{JobReport, run_job};
pub use settings::{Round, SettingsOptions, SettingsReport, Stored, run_settings};
pub use windows::{Connections, Sessions, WindowsOptions, run_windows};

/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// More devices are refused: this is no weapon.
pub const MAX_DEVICES: usize = 20_000;
/// Longer runs are refused.
pub const MAX_SECONDS: u64 = 3_600;
/// More commands to one device in one run are refused.
pub const MAX_COMMANDS: usize = 1_000;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `Idle` with an empty queue: the request that every server gets most.
    Idle,
    /// Commands are queued through the API, fetched and reported.
    Commands,
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// What.
    pub mode: Mode,
    /// Devices and how they are made. `concurrency` is also the number of busy clients.
    pub fleet: FleetOptions,
    /// For how long.
    pub duration: Duration,
    /// A new connection, with its TLS handshake, for every request.
    pub new_connections: bool,
    /// Commands for each device per round, in [`Mode::Commands`].
    pub commands: usize,
    /// What is commanded: `{"type": "restart"}`.
    pub intent: Value,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `idle`, `commands` or `windows-sessions`.
    pub mode: &'static str,
    /// Devices that were enrolled.
    pub devices: usize,
    /// Clients that were busy at the same time.
    pub clients: usize,
    /// Whether every request, or every session of a PC, made a new connection.
    pub new_connections: bool,
    /// The enrollments: page, profile, SCEP, check-in. One entry per device.
    pub enrollment: Figures,
    /// Queueing through the API, one entry per command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queueing: Option<Figures>,
    /// Commands queued, delivered and acknowledged, per second of queueing and calling together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trips: Option<f64>,
    /// Whole sessions of PCs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// The requests of the devices.
    pub requests: Figures,
    /// The p99 as a multiple of the p50: how even the answers come.
    pub p99_to_p50: f64,
    /// Requests per second and client.
    pub per_client_second: f64,
    /// The first errors, in words.
    pub errors: Vec<String>,
}

/// Throughput and latency of one kind of thing.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// How many succeeded.
    pub count: u64,
    /// How many failed.
    pub failed: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Successes per second.
    pub per_second: f64,
    /// Half were faster, milliseconds.
    pub p50_ms: f64,
    /// Nine in ten were faster.
    pub p90_ms: f64,
    /// 99 in 100 were faster.
    pub p99_ms: f64,
    /// 999 in 1000 were faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Latencies and failures of one worker.
struct Tally {
    latencies: Histogram<u64>,
    failed: u64,
    errors: Vec<String>,
}

impl Tally {
    fn new() -> Result<Self> {
        // One microsecond to two minutes, three digits.
        let latencies = Histogram::new_with_bounds(1, 120_000_000, 3)
            .map_err(|error| Error::Usage(format!("histogram: {error}")))?;
        Ok(Self { latencies, failed: 0, errors: Vec::new() })
    }

    fn count<T>(&mut self, began: Instant, result: &Result<T>) {
        match result {
            Ok(_) => {
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(micros.max(1));
            }
            Err(error) => {
                self.failed += 1;
                if self.errors.len() < 5 {
                    self.errors.push(error.to_string());
                }
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.failed += other.failed;
        // The bounds are the same, so adding cannot fail.
        let _ = self.latencies.add(&other.latencies);
        let room = 5_usize.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.iter().take(room).cloned());
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn figures(&self, elapsed: Duration) -> Figures {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let seconds = elapsed.as_secs_f64();
        Figures {
            count: self.latencies.len(),
            failed: self.failed,
            seconds,
            per_second: self.latencies.len() as f64 / seconds.max(f64::EPSILON),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: self.latencies.max() as f64 / 1000.0,
        }
    }
}

/// Enrolls the devices and measures.
///
/// # Errors
/// When the options are out of bounds or no device at all could be enrolled. Errors of single devices
/// and requests are counted instead.
pub async fn run(api: &Api, http: &Http, options: &Options) -> Result<Report> {
    check(options.fleet.devices, options.duration, options.commands)?;
    let fleet = Fleet::new(http, &options.fleet).await?;
    let (enrolled, enrollment, mut errors) = enroll(api, &fleet).await?;
    if enrolled.is_empty() {
        return Err(Error::Usage(format!("no device could be enrolled: {}", errors.join("; "))));
    }
    // What the server wants to know of a new device is not what is measured.
    for result in fleet.poll_enrolled().await {
        if let Err(error) = result {
            errors.push(error.to_string());
        }
    }
    let measured = match options.mode {
        Mode::Idle => idle(&enrolled, http, options).await?,
        Mode::Commands => commands(api, &enrolled, options).await?,
    };
    errors.extend(measured.tally.errors.iter().cloned());
    let requests = measured.tally.figures(measured.elapsed);
    let clients = options.fleet.concurrency.clamp(1, enrolled.len());
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let per_client_second = requests.per_second / clients as f64;
    Ok(Report {
        mode: match options.mode {
            Mode::Idle => "idle",
            Mode::Commands => "commands",
        },
        devices: enrolled.len(),
        clients,
        new_connections: options.new_connections,
        enrollment,
        queueing: measured.queueing,
        round_trips: measured.round_trips,
        sessions: None,
        p99_to_p50: requests.p99_ms / requests.p50_ms.max(f64::EPSILON),
        per_client_second,
        requests,
        errors,
    })
}

fn check(devices: usize, duration: Duration, commands: usize) -> Result<()> {
    let bounded = (1..=MAX_DEVICES).contains(&devices)
        && (1..=MAX_SECONDS).contains(&duration.as_secs())
        && (1..=MAX_COMMANDS).contains(&commands);
    if bounded {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "at most {MAX_DEVICES} devices, {MAX_SECONDS} seconds and {MAX_COMMANDS} commands, and at least one of each"
    )))
}

type Enrolled = Vec<Arc<tokio::sync::Mutex<AppleDevice>>>;

async fn enroll(api: &Api, fleet: &Fleet) -> Result<(Enrolled, Figures, Vec<String>)> {
    let began = Instant::now();
    let results = fleet
        .each(|_, device| async move {
            let link = api.invite("apple").await;
            let began = Instant::now();
            let result = match link {
                Ok(link) => device.lock().await.enroll(&link).await,
                Err(error) => Err(error),
            };
            (began, Instant::now(), result, device)
        })
        .await;
    let elapsed = began.elapsed();
    let mut tally = Tally::new()?;
    let mut enrolled = Vec::new();
    for (began, ended, result, device) in results {
        // Measured when it ended, not now.
        let began = Instant::now().checked_sub(ended.duration_since(began)).unwrap_or(began);
        tally.count(began, &result);
        if result.is_ok() {
            enrolled.push(device);
        }
    }
    let errors = std::mem::take(&mut tally.errors);
    Ok((enrolled, tally.figures(elapsed), errors))
}

struct Measured {
    tally: Tally,
    elapsed: Duration,
    queueing: Option<Figures>,
    round_trips: Option<f64>,
}

/// `Idle` as fast as the clients can. Its body never changes and neither does its signature (RSA with
/// PKCS#1 v1.5, nothing else signed), so each device signs once and the server is what is measured.
async fn idle(devices: &Enrolled, http: &Http, options: &Options) -> Result<Measured> {
    let http = if options.new_connections { http.with_new_connections()? } else { http.clone() };
    let phase = Arc::new(AtomicU8::new(0));
    let clients = options.fleet.concurrency.clamp(1, devices.len());
    let workers = polls(devices, &http, clients, &phase).await?;
    let began = Instant::now();
    tokio::time::sleep(options.duration).await;
    phase.store(2, Ordering::Relaxed);
    let elapsed = began.elapsed();
    let mut tally = Tally::new()?;
    for worker in workers {
        let [told, _] = worker.await.map_err(|error| Error::Usage(format!("a client failed: {error}")))??;
        tally.add(&told);
    }
    Ok(Measured { tally, elapsed, queueing: None, round_trips: None })
}

/// Clients that let the devices call in turn. What a call took counts for the phase in which it began, 0 or 1; in phase 2
/// they stop.
async fn polls(
    devices: &Enrolled,
    http: &Http,
    clients: usize,
    phase: &Arc<AtomicU8>,
) -> Result<Vec<JoinHandle<Result<[Tally; 2]>>>> {
    let mut prepared = Vec::with_capacity(devices.len());
    for device in devices {
        let device = device.lock().await;
        let body = device.idle_body()?;
        let url = device.enrollment().map(|profile| profile.mdm.server_url.clone()).unwrap_or_default();
        prepared.push((url, device.signature(&body)?, body));
    }
    let prepared = Arc::new(prepared);
    let turn = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..clients {
        let (prepared, turn, http, phase) =
            (Arc::clone(&prepared), Arc::clone(&turn), http.clone(), Arc::clone(phase));
        workers.push(tokio::spawn(async move {
            let mut tallies = [Tally::new()?, Tally::new()?];
            while let Some(tally) = tallies.get_mut(usize::from(phase.load(Ordering::Relaxed))) {
                let next = turn.fetch_add(1, Ordering::Relaxed) % prepared.len();
                let Some((url, signature, body)) = prepared.get(next) else { break };
                let request = http
                    .request(Method::PUT, url)
                    .header("content-type", REPORT_CONTENT_TYPE)
                    .header("mdm-signature", signature)
                    .body(body.clone());
                let began = Instant::now();
                let result = http.send("Idle", request).await.and_then(|reply| reply.ok("Idle"));
                tally.count(began, &result);
            }
            Ok::<_, Error>(tallies)
        }));
    }
    Ok(workers)
}

/// Rounds: commands are queued for every device through the API, then all devices call and answer.
/// Only the devices' requests are in the figures of the requests.
async fn commands(api: &Api, devices: &Enrolled, options: &Options) -> Result<Measured> {
    use futures_util::{StreamExt as _, stream};

    let concurrency = options.fleet.concurrency.max(1);
    let until = Instant::now() + options.duration;
    let mut ids = Vec::with_capacity(devices.len());
    for device in devices {
        let serial = device.lock().await.serial().to_owned();
        let id = api.device_id(&serial).await?;
        ids.push(id.ok_or_else(|| Error::Channel(format!("the API does not know the device {serial}")))?);
    }
    let (mut queueing, mut tally) = (Tally::new()?, Tally::new()?);
    let (mut queueing_time, mut session_time) = (Duration::ZERO, Duration::ZERO);
    let mut acknowledged = 0_u32;
    while Instant::now() < until {
        let began = Instant::now();
        let intents = ids.iter().flat_map(|id| std::iter::repeat_n(id, options.commands));
        let queued: Vec<_> = stream::iter(intents)
            .map(|id| async move {
                let began = Instant::now();
                let result = api.command(id, &options.intent).await;
                (began.elapsed(), result)
            })
            .buffer_unordered(concurrency)
            .collect()
            .await;
        queueing_time += began.elapsed();
        for (took, result) in queued {
            queueing.count(Instant::now().checked_sub(took).unwrap_or(began), &result);
        }

        let began = Instant::now();
        let sessions: Vec<_> = stream::iter(devices.iter())
            .map(|device| async move {
                let mut device = device.lock().await;
                let began = Instant::now();
                let result = device.poll().await;
                (began.elapsed(), result)
            })
            .buffer_unordered(concurrency)
            .collect()
            .await;
        session_time += began.elapsed();
        for (took, result) in sessions {
            // A session with n commands has n + 1 requests; each counts with its share of the time.
            let told = result.as_ref().map_or(0, Vec::len);
            acknowledged = acknowledged.saturating_add(u32::try_from(told).unwrap_or(u32::MAX));
            let requests = told + 1;
            let share = took / u32::try_from(requests).unwrap_or(1);
            for _ in 0..requests {
                tally.count(Instant::now().checked_sub(share).unwrap_or(began), &result);
            }
        }
    }
    tally.errors.extend(std::mem::take(&mut queueing.errors));
    let both = (queueing_time + session_time).as_secs_f64().max(f64::EPSILON);
    Ok(Measured {
        tally,
        elapsed: session_time,
        queueing: Some(queueing.figures(queueing_time)),
        round_trips: Some(f64::from(acknowledged) / both),
    })
}

/// The server's ids of the devices with these serial numbers, by the pages of all devices.
async fn device_ids(api: &Api, serials: &HashSet<String>) -> Result<Vec<String>> {
    let (mut ids, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = api.call(Method::GET, &format!("/api/v1/devices?limit=500{after}"), None).await?;
        for device in page.get("items").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| device.get(key).and_then(Value::as_str);
            if let (Some(serial), Some(id)) = (text("serial"), text("id"))
                && serials.contains(serial)
            {
                ids.push(id.to_owned());
            }
        }
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(ids);
        }
    }
}
