//! What the server does without being asked: wakes, jobs, the audit's sealer, housekeeping, certificates.

use crate::serve::TlsState;
use bellwether_engine::{Engine, Error};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SEAL: Duration = Duration::from_secs(1);
const LAST_SEEN: Duration = Duration::from_secs(5);
const HOUSEKEEP: Duration = Duration::from_secs(30);
const RESERVE: Duration = Duration::from_secs(2);
/// How often it is asked whether a backup is due. The first time is this long after a start.
const BACKUP: Duration = Duration::from_secs(60);
const CERTIFICATE: Duration = Duration::from_secs(3600);

/// The running loops.
pub struct Background {
    stop: watch::Sender<bool>,
    loops: JoinSet<()>,
    engine: Arc<Engine>,
}

impl Background {
    /// Starts every loop.
    pub fn start(engine: &Arc<Engine>, tls: &Arc<TlsState>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut loops = JoinSet::new();
        let of = |engine: &Arc<Engine>| Arc::clone(engine);
        loops.spawn(until(stopped.clone(), work(of(engine), stopped.clone())));
        let e = of(engine);
        loops.spawn(every(SEAL, stopped.clone(), "sealer", move || {
            let engine = Arc::clone(&e);
            async move { engine.seal_once().await }
        }));
        let e = of(engine);
        loops.spawn(every(LAST_SEEN, stopped.clone(), "last-seen", move || {
            let engine = Arc::clone(&e);
            async move { if engine.is_disk_full() { Ok(()) } else { engine.flush_last_seen().await } }
        }));
        let e = of(engine);
        loops.spawn(every(RESERVE, stopped.clone(), "reserve", move || {
            let engine = Arc::clone(&e);
            async move { engine.tend_reserve().await }
        }));
        let e = of(engine);
        loops.spawn(every(HOUSEKEEP, stopped.clone(), "housekeeping", move || {
            let engine = Arc::clone(&e);
            async move { if engine.is_disk_full() { Ok(()) } else { engine.housekeep_once().await } }
        }));
        let e = of(engine);
        loops.spawn(every(BACKUP, stopped.clone(), "backup", move || {
            let engine = Arc::clone(&e);
            async move { engine.backup_if_due().await }
        }));
        let tls = Arc::clone(tls);
        loops.spawn(every(CERTIFICATE, stopped, "tls-certificate", move || {
            let tls = Arc::clone(&tls);
            async move {
                if tls.is_due()
                    && let Err(error) = tls.reload()
                {
                    tracing::error!(cause = %error, "the TLS certificate could not be renewed");
                }
                Ok(())
            }
        }));
        Self { stop, loops, engine: of(engine) }
    }

    /// Ends the loops and writes down what they still held.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        while self.loops.join_next().await.is_some() {}
        for (what, result) in
            [("last-seen", self.engine.flush_last_seen().await), ("sealer", self.engine.seal_once().await)]
        {
            if let Err(error) = result {
                tracing::warn!(what, cause = %error, "could not finish before the end");
            }
        }
    }
}

/// Jobs and wakes: at once when something was requested, and at least every second.
async fn work(engine: Arc<Engine>, stopped: watch::Receiver<bool>) {
    let mut calm = Calm::new("wakes");
    while !*stopped.borrow() {
        engine.wait_for_work().await;
        if engine.is_disk_full() {
            // Commands of jobs are new data, and nobody who is woken would be served.
            tokio::time::sleep(SEAL).await;
            continue;
        }
        let (jobs, wakes) = tokio::join!(engine.run_jobs_once(), engine.wake_once());
        calm.after(jobs.map(|_| ()).and(wakes.map(|_| ()))).await;
    }
}

async fn every<F, Fut>(pause: Duration, stopped: watch::Receiver<bool>, name: &'static str, mut f: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let looped = async {
        let mut calm = Calm::new(name);
        loop {
            tokio::time::sleep(pause).await;
            calm.after(f().await).await;
        }
    };
    until(stopped, looped).await;
}

/// Runs until told to stop. What is dropped in the middle is a transaction that never committed.
async fn until(mut stopped: watch::Receiver<bool>, looped: impl Future<Output = ()>) {
    tokio::select! {
        () = looped => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// Pauses after failures, longer each time up to half a minute, and logs the first and the recovery.
struct Calm {
    name: &'static str,
    failures: u32,
}

impl Calm {
    fn new(name: &'static str) -> Self {
        Self { name, failures: 0 }
    }

    async fn after(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) if self.failures > 0 => {
                tracing::info!(what = self.name, failures = self.failures, "works again");
                self.failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures.is_power_of_two() {
                    tracing::error!(what = self.name, failures = self.failures, cause = %error, "background work failed");
                }
                tokio::time::sleep(Duration::from_secs(1 << self.failures.min(5))).await;
            }
        }
    }
}
