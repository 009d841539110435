//! Sessions of PCs: how many whole ones a server holds in a second, and how long each of their messages takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::runtime::Handle;
use url::Url;

use super::resuming::Resuming;
use super::wire::Wire;
use super::{Figures, Report, Tally, check};
use crate::api::Api;
use crate::windows::Outgoing;
use crate::{Error, Http, Identity, KeyPool, Reply, Result, SessionOptions, WindowsPc};

/// Sessions before the measurement, in which the server asks what it wants to know of a new machine.
const MAX_FIRST_SESSIONS: usize = 5;

/// How machines reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// Every machine keeps its connection.
    Keep,
    /// Every session makes a new connection that resumes the TLS session of the one before.
    Resume,
    /// Every session makes a new connection with a full handshake of both sides, as real machines do.
    Full,
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct WindowsOptions {
    /// How many machines.
    pub devices: usize,
    /// How many are busy at the same time.
    pub clients: usize,
    /// Where their keys come from.
    pub keys: KeyPool,
    /// For how long.
    pub duration: Duration,
    /// How they reach the server.
    pub connections: Connections,
    /// Send a last message although the server had no command, so that every session has three.
    pub acknowledge: bool,
    /// The certificate that the server's TLS certificate stands under.
    pub ca_pem: Vec<u8>,
}

/// Sessions, and what the messages in them were.
#[derive(Debug, Clone, Serialize)]
pub struct Sessions {
    /// Whole sessions.
    #[serde(flatten)]
    pub figures: Figures,
    /// Messages that were challenged.
    pub challenged: u64,
    /// Messages that proved the machine.
    pub authenticated: u64,
    /// Messages after that: statuses and results.
    pub acknowledged: u64,
    /// TLS handshakes.
    pub handshakes: u64,
    /// Those that resumed a TLS session.
    pub resumed: u64,
}

/// Enrolls PCs by invitations and measures their sessions.
///
/// # Errors
/// When the options are out of bounds or no machine at all could be enrolled.
pub async fn run_windows(api: &Api, http: &Http, options: &WindowsOptions) -> Result<Report> {
    check(options.devices, options.duration, 1)?;
    let missing = options.devices.saturating_sub(options.keys.ready());
    if options.keys.ready() == 0 {
        options.keys.prepare(missing).await?;
    }
    let clients = options.clients.clamp(1, options.devices);
    let (mut pcs, enrollment, mut errors) =
        enrolled(api, http, &options.keys, options.devices, clients).await?;
    let firsts =
        stream::iter(pcs.iter_mut()).map(first_sessions).buffer_unordered(clients).collect::<Vec<_>>();
    errors.extend(firsts.await.into_iter().filter_map(|result| Some(result.err()?.to_string())));
    let options = options.clone();
    let measuring = tokio::task::spawn_blocking(move || measure(pcs, &options));
    let mut report =
        measuring.await.map_err(|error| Error::Usage(format!("the measurement failed: {error}")))??;
    report.enrollment = enrollment;
    errors.append(&mut report.errors);
    report.errors = errors;
    Ok(report)
}

/// Enrolls machines: those that are in, the figures, and the first errors.
pub(super) async fn enrolled(
    api: &Api,
    http: &Http,
    keys: &KeyPool,
    devices: usize,
    clients: usize,
) -> Result<(Vec<WindowsPc>, Figures, Vec<String>)> {
    let began = Instant::now();
    let results: Vec<_> = stream::iter(1..=devices)
        .map(|number| enroll(api, http, keys, number))
        .buffered(clients)
        .collect()
        .await;
    let elapsed = began.elapsed();
    let mut tally = Tally::new()?;
    let mut pcs = Vec::new();
    for (took, result) in results {
        tally.count(Instant::now().checked_sub(took).unwrap_or(began), &result);
        pcs.extend(result.ok());
    }
    let errors = std::mem::take(&mut tally.errors);
    if pcs.is_empty() {
        return Err(Error::Usage(format!("no machine could be enrolled: {}", errors.join("; "))));
    }
    Ok((pcs, tally.figures(elapsed), errors))
}

async fn enroll(api: &Api, http: &Http, keys: &KeyPool, number: usize) -> (Duration, Result<WindowsPc>) {
    let link = api.invite("windows").await;
    let began = Instant::now();
    let enrolled = async {
        let mut pc = WindowsPc::builder(http.clone())
            .name(format!("SIM-{number}"))
            .keys(keys.clone())
            .keep_connections(true)
            .build()?;
        pc.enroll_by_link(&link?).await?;
        Ok(pc)
    }
    .await;
    (began.elapsed(), enrolled)
}

pub(super) async fn first_sessions(pc: &mut WindowsPc) -> Result<()> {
    for _ in 0..MAX_FIRST_SESSIONS {
        if pc.session().await?.is_empty() {
            break;
        }
    }
    pc.drop_connections();
    Ok(())
}

/// A machine and its way to the server.
struct Driver {
    pc: WindowsPc,
    wire: Way,
}

/// How it is connected.
enum Way {
    Plain(Wire),
    Resuming(Resuming),
}

impl Way {
    fn new(options: &WindowsOptions, identity: &Identity, url: &Url) -> Result<Self> {
        Ok(match options.connections {
            Connections::Resume => {
                Self::Resuming(Resuming::new(&options.ca_pem, identity, Handle::current())?)
            }
            Connections::Keep | Connections::Full => Self::Plain(Wire::new(&options.ca_pem, identity, url)?),
        })
    }

    fn post(&mut self, target: &Url, outgoing: &Outgoing) -> Result<Reply> {
        match self {
            Self::Plain(wire) => wire.post(target, outgoing),
            Self::Resuming(wire) => wire.post(target, outgoing),
        }
    }

    fn close(&mut self) {
        match self {
            Self::Plain(wire) => wire.close(),
            Self::Resuming(wire) => wire.close(),
        }
    }

    /// TLS handshakes, and how many of them resumed a session.
    fn handshakes(&self) -> (u64, u64) {
        match self {
            Self::Plain(wire) => (wire.handshakes, 0),
            Self::Resuming(wire) => (wire.handshakes, wire.resumed),
        }
    }
}

/// What one thread saw.
struct Seen {
    sessions: Tally,
    messages: Tally,
    challenged: u64,
    authenticated: u64,
    acknowledged: u64,
}

/// Sessions of these machines, one after another on every client, until the time is over.
pub(super) fn measure(pcs: Vec<WindowsPc>, options: &WindowsOptions) -> Result<Report> {
    let devices = pcs.len();
    let mut drivers = Vec::with_capacity(devices);
    for pc in pcs {
        let account = pc.account().ok_or(Error::Missing("enrollment"))?;
        let url = Url::parse(&account.address)
            .map_err(|_| Error::Enrollment(format!("ADDR is no URL: {}", account.address)))?;
        let identity = pc.identity().ok_or(Error::Missing("identity"))?;
        drivers.push(Mutex::new(Driver { wire: Way::new(options, &identity, &url)?, pc }));
    }
    let (drivers, turn) = (Arc::new(drivers), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let until = began + options.duration;
    let clients = options.clients.clamp(1, devices.max(1));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (drivers, turn, options) = (Arc::clone(&drivers), Arc::clone(&turn), options.clone());
            std::thread::spawn(move || worker(&drivers, &turn, until, &options))
        })
        .collect();
    let (mut sessions, mut messages) = (Tally::new()?, Tally::new()?);
    let (mut challenged, mut authenticated, mut acknowledged) = (0, 0, 0);
    for thread in threads {
        let seen = thread.join().map_err(|_| Error::Usage("a client failed".to_owned()))??;
        sessions.add(&seen.sessions);
        messages.add(&seen.messages);
        challenged += seen.challenged;
        authenticated += seen.authenticated;
        acknowledged += seen.acknowledged;
    }
    let elapsed = began.elapsed();
    let (mut handshakes, mut resumed) = (0, 0);
    for driver in drivers.iter() {
        let of_driver = driver.lock().unwrap_or_else(PoisonError::into_inner).wire.handshakes();
        handshakes += of_driver.0;
        resumed += of_driver.1;
    }
    let requests = messages.figures(elapsed);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let per_client_second = requests.per_second / clients as f64;
    Ok(Report {
        mode: "windows-sessions",
        devices,
        clients,
        new_connections: options.connections != Connections::Keep,
        enrollment: Tally::new()?.figures(Duration::ZERO),
        queueing: None,
        round_trips: None,
        sessions: Some(Sessions {
            figures: sessions.figures(elapsed),
            challenged,
            authenticated,
            acknowledged,
            handshakes,
            resumed,
        }),
        p99_to_p50: requests.p99_ms / requests.p50_ms.max(f64::EPSILON),
        per_client_second,
        requests,
        errors: sessions.errors,
    })
}

fn worker(
    drivers: &[Mutex<Driver>],
    turn: &AtomicUsize,
    until: Instant,
    options: &WindowsOptions,
) -> Result<Seen> {
    let mut seen = Seen {
        sessions: Tally::new()?,
        messages: Tally::new()?,
        challenged: 0,
        authenticated: 0,
        acknowledged: 0,
    };
    while Instant::now() < until {
        let Some(driver) = drivers.get(turn.fetch_add(1, Ordering::Relaxed) % drivers.len()) else { break };
        let driver = &mut *driver.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let result = session(driver, options, &mut seen);
        seen.sessions.count(began, &result);
        if options.connections != Connections::Keep || result.is_err() {
            driver.wire.close();
        }
    }
    Ok(seen)
}

fn session(driver: &mut Driver, options: &WindowsOptions, seen: &mut Seen) -> Result<()> {
    let Driver { pc, wire } = driver;
    let mut session = pc.open_session_over(pc.http().clone(), SessionOptions::default())?;
    let target = Url::parse(session.url()).map_err(|_| Error::Enrollment("ADDR is no URL".to_owned()))?;
    let mut proved = false;
    let mut messages = 0_u32;
    loop {
        let outgoing = session.outgoing()?;
        let began = Instant::now();
        let reply = wire.post(&target, &outgoing);
        seen.messages.count(began, &reply);
        messages += 1;
        let step = session.take(reply?)?;
        match (step.challenged, proved) {
            (true, _) => seen.challenged += 1,
            (false, false) => seen.authenticated += 1,
            (false, true) => seen.acknowledged += 1,
        }
        proved |= !step.challenged;
        match step.reply {
            Some(reply) if step.over && options.acknowledge && messages < 3 => session.acknowledge(&reply),
            _ if step.over => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::tests::{CODE, Server, USER};

    #[tokio::test]
    async fn sessions_are_counted_over_every_kind_of_connection() {
        let server = Server::start();
        let keys = KeyPool::shared(1).await.unwrap();
        for (connections, acknowledge) in
            [(Connections::Keep, true), (Connections::Full, false), (Connections::Resume, false)]
        {
            let mut pcs = Vec::new();
            for _ in 0..2 {
                let mut pc = WindowsPc::builder(server.http()).keys(keys.clone()).build().unwrap();
                pc.enroll(&server.discovery(), USER, CODE).await.unwrap();
                pcs.push(pc);
            }
            let options = WindowsOptions {
                devices: 2,
                clients: 2,
                keys: keys.clone(),
                duration: Duration::from_secs(1),
                connections,
                acknowledge,
                ca_pem: server.ca_pem(),
            };
            let report = tokio::task::spawn_blocking(move || measure(pcs, &options)).await.unwrap().unwrap();
            assert!(report.errors.is_empty(), "{:?}", report.errors);
            let sessions = report.sessions.unwrap();
            let count = sessions.figures.count;
            assert!(count >= 2 && sessions.figures.failed == 0);
            assert_eq!((sessions.challenged, sessions.authenticated), (count, count));
            assert_eq!(sessions.acknowledged, if acknowledge { count } else { 0 });
            assert_eq!(sessions.handshakes, if connections == Connections::Keep { 2 } else { count });
            // All but the first of each machine.
            let resumed = if connections == Connections::Resume { count - 2 } else { 0 };
            assert_eq!(sessions.resumed, resumed);
            assert_eq!(report.requests.count, count * if acknowledge { 3 } else { 2 });
        }
    }
}
