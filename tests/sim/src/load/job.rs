//! One command for all devices while they call: how soon it is accepted, how soon it waits for each of them, and whether
//! anybody who calls meanwhile feels it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Figures, Options, PATIENCE, Tally, check, device_ids, enroll, polls};
use crate::api::Api;
use crate::{Error, Fleet, Http, Result};

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    /// `job`.
    pub mode: &'static str,
    /// Devices that were enrolled.
    pub devices: usize,
    /// Clients that called at the same time.
    pub clients: usize,
    /// The enrollments.
    pub enrollment: Figures,
    /// Calls before the job.
    pub before: Figures,
    /// From the request to its 2xx, milliseconds.
    pub accepted_ms: f64,
    /// From the request until a command waits for every device, seconds.
    pub job_seconds: f64,
    /// Calls from the request until then.
    pub during: Figures,
    /// The first errors, in words.
    pub errors: Vec<String>,
}

/// Enrolls, lets the devices call for the options' time, then gives all of them one command.
///
/// # Errors
/// When the options are out of bounds, no device could be enrolled or the job does not end. Errors of single calls are
/// counted instead.
pub async fn run_job(api: &Api, http: &Http, options: &Options) -> Result<JobReport> {
    check(options.fleet.devices, options.duration, options.commands)?;
    let fleet = Fleet::new(http, &options.fleet).await?;
    let (enrolled, enrollment, mut errors) = enroll(api, &fleet).await?;
    // What the server wants to know of a new device is not what is measured.
    errors.extend(fleet.poll_enrolled().await.into_iter().filter_map(|r| Some(r.err()?.to_string())));
    let mut serials = HashSet::new();
    for device in &enrolled {
        serials.insert(device.lock().await.serial().to_owned());
    }
    let ids = device_ids(api, &serials).await?;
    let clients = options.fleet.concurrency.clamp(1, enrolled.len().max(1));
    let phase = Arc::new(AtomicU8::new(0));
    let workers = polls(&enrolled, http, clients, &phase).await?;
    tokio::time::sleep(options.duration).await;
    let began = Instant::now();
    phase.store(1, Ordering::Relaxed);
    let posted = post(api, &ids, &options.intent, began).await;
    let (before, during) = (options.duration, began.elapsed());
    phase.store(2, Ordering::Relaxed);
    let mut tallies = [Tally::new()?, Tally::new()?];
    for worker in workers {
        let told = worker.await.map_err(|error| Error::Usage(format!("a client failed: {error}")))??;
        for (all, own) in tallies.iter_mut().zip(&told) {
            all.add(own);
        }
    }
    let (accepted_ms, job_seconds) = posted?;
    let [calm, busy] = &tallies;
    errors.extend(calm.errors.iter().chain(&busy.errors).cloned());
    errors.truncate(10);
    Ok(JobReport {
        mode: "job",
        devices: enrolled.len(),
        clients,
        enrollment,
        before: calm.figures(before),
        accepted_ms,
        job_seconds,
        during: busy.figures(during),
        errors,
    })
}

/// Milliseconds until the job was accepted, seconds until it was done.
async fn post(api: &Api, ids: &[String], intent: &Value, began: Instant) -> Result<(f64, f64)> {
    let wish = json!({ "devices": ids, "intent": intent });
    let job = api.call(Method::POST, "/api/v1/commands", Some(&wish)).await?;
    let accepted_ms = began.elapsed().as_secs_f64() * 1_000.0;
    let id = job.get("id").and_then(Value::as_str).ok_or(Error::Missing("the job's id"))?.to_owned();
    loop {
        let job = api.call(Method::GET, &format!("/api/v1/jobs/{id}"), None).await?;
        if job.get("finished_at").is_some_and(|at| !at.is_null()) {
            return Ok((accepted_ms, began.elapsed().as_secs_f64()));
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Usage("the server did not finish the job".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
