//! Settings of a fleet of PCs, twice: what it costs to bring them, and what it costs when nothing has changed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwether_windows::syncml::Verb;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::windows::{enrolled, first_sessions};
use super::{Figures, MAX_DEVICES, PATIENCE, Tally, device_ids};
use crate::api::Api;
use crate::{Error, Http, KeyPool, Result, WindowsPc};

/// Integers of Policy CSP that every edition has, so that a real machine would take them as well.
const AREAS: [(&str, &[&str]); 3] = [
    (
        "Experience",
        &[
            "AllowCortana",
            "AllowFindMyDevice",
            "AllowWindowsSpotlight",
            "AllowSyncMySettings",
            "AllowTailoredExperiencesWithDiagnosticData",
        ],
    ),
    (
        "Privacy",
        &[
            "LetAppsAccessAccountInfo",
            "LetAppsAccessCalendar",
            "LetAppsAccessCallHistory",
            "LetAppsAccessCamera",
            "LetAppsAccessContacts",
            "LetAppsAccessEmail",
            "LetAppsAccessLocation",
            "LetAppsAccessMessaging",
            "LetAppsAccessMicrophone",
            "LetAppsAccessMotion",
            "LetAppsAccessNotifications",
            "LetAppsAccessPhone",
            "LetAppsAccessRadios",
            "LetAppsAccessTasks",
            "LetAppsAccessTrustedDevices",
        ],
    ),
    (
        "System",
        &[
            "AllowLocation",
            "AllowStorageCard",
            "AllowTelemetry",
            "AllowUserToResetPhone",
            "AllowBuildPreview",
        ],
    ),
];

/// How to measure.
#[derive(Debug, Clone)]
pub struct SettingsOptions {
    /// How many machines.
    pub devices: usize,
    /// How many are busy at the same time.
    pub clients: usize,
    /// Where their keys come from.
    pub keys: KeyPool,
    /// The server's data folder, when it is on this machine: its size is taken after each step.
    pub data: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct SettingsReport {
    /// `windows-settings`.
    pub mode: &'static str,
    /// Machines that were enrolled.
    pub devices: usize,
    /// Settings for each of them.
    pub settings: usize,
    /// The enrollments.
    pub enrollment: Figures,
    /// The first time: everything is sent.
    pub first: Round,
    /// The second time: nothing has changed.
    pub again: Round,
    /// Three sessions of every machine with an empty queue, as on a day.
    pub idle: Figures,
    /// Bytes of the server's data folder by machine; none when it was not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
    /// The first errors, in words.
    pub errors: Vec<String>,
}

/// One `configure` of all machines, and the session of each after it.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Seconds until the server had worked off the job.
    pub job_seconds: f64,
    /// Settings that machines were sent.
    pub sent: u64,
    /// Their sessions.
    pub sessions: Figures,
}

/// Bytes for each machine.
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    /// Enrolled, with its first inventory.
    pub enrolled: f64,
    /// More, with the settings, their command and its answers.
    pub settings: f64,
    /// More, for a day on which all settings were looked at again and nothing had changed: that command and three
    /// sessions.
    pub day: f64,
}

/// Enrolls PCs, configures them, and configures them again.
///
/// # Errors
/// When the options are out of bounds, the API refuses, or no machine at all could be enrolled.
pub async fn run_settings(api: &Api, http: &Http, options: &SettingsOptions) -> Result<SettingsReport> {
    if !(1..=MAX_DEVICES).contains(&options.devices) {
        return Err(Error::Usage(format!("1 to {MAX_DEVICES} devices")));
    }
    let clients = options.clients.clamp(1, options.devices);
    let before = size(options.data.as_deref())?;
    let (mut pcs, enrollment, mut errors) =
        enrolled(api, http, &options.keys, options.devices, clients).await?;
    let firsts = stream::iter(pcs.iter_mut()).map(first_sessions).buffer_unordered(clients);
    errors.extend(firsts.collect::<Vec<_>>().await.into_iter().filter_map(|r| Some(r.err()?.to_string())));
    let ids = device_ids(api, &pcs.iter().map(WindowsPc::serial).collect()).await?;
    let at_rest = size(options.data.as_deref())?;
    let first = round(api, &mut pcs, &ids, clients, &mut errors).await?;
    let configured = size(options.data.as_deref())?;
    let again = round(api, &mut pcs, &ids, clients, &mut errors).await?;
    let mut idle = Tally::new()?;
    let began = Instant::now();
    // The round before had the first session of the day.
    for _ in 0..2 {
        sessions(&mut pcs, clients, &mut idle).await;
    }
    let idle_took = began.elapsed();
    let day = size(options.data.as_deref())?;
    errors.append(&mut idle.errors);
    errors.truncate(10);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / pcs.len() as f64;
    Ok(SettingsReport {
        mode: "windows-settings",
        devices: pcs.len(),
        settings: settings().len(),
        enrollment,
        first,
        again,
        idle: idle.figures(idle_took),
        stored: options.data.as_ref().map(|_| Stored {
            enrolled: each(before, at_rest),
            settings: each(at_rest, configured),
            day: each(configured, day),
        }),
        errors,
    })
}

fn settings() -> Vec<Value> {
    let of_area = |(area, names): &(&'static str, &'static [&'static str])| {
        let area = *area;
        names
            .iter()
            .map(move |name| json!({ "area": area, "name": name, "value": { "int": 0 } }))
            .collect::<Vec<_>>()
    };
    AREAS.iter().flat_map(of_area).collect()
}

async fn round(
    api: &Api,
    pcs: &mut [WindowsPc],
    ids: &[String],
    clients: usize,
    errors: &mut Vec<String>,
) -> Result<Round> {
    let wish = json!({ "devices": ids, "intent": { "type": "configure", "settings": settings() } });
    let began = Instant::now();
    let job = api.call(Method::POST, "/api/v1/commands", Some(&wish)).await?;
    let id = job.get("id").and_then(Value::as_str).ok_or(Error::Missing("the job's id"))?.to_owned();
    loop {
        let job = api.call(Method::GET, &format!("/api/v1/jobs/{id}"), None).await?;
        if job.get("finished_at").is_some_and(|at| !at.is_null()) {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Usage("the server did not finish the job".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let job_seconds = began.elapsed().as_secs_f64();
    let mut tally = Tally::new()?;
    let began = Instant::now();
    let sent = sessions(pcs, clients, &mut tally).await;
    let took = began.elapsed();
    errors.append(&mut tally.errors);
    Ok(Round { job_seconds, sent, sessions: tally.figures(took) })
}

/// One session of every machine; how many settings they were sent.
async fn sessions(pcs: &mut [WindowsPc], clients: usize, tally: &mut Tally) -> u64 {
    let mut running = stream::iter(pcs.iter_mut())
        .map(|pc| async move {
            let began = Instant::now();
            let told = pc.session().await;
            pc.drop_connections();
            (began, told)
        })
        .buffer_unordered(clients);
    let mut sent = 0;
    while let Some((began, told)) = running.next().await {
        tally.count(began, &told);
        let told = told.unwrap_or_default();
        let settings =
            told.iter().filter(|told| told.verb == Verb::Replace && told.uri.contains("/Policy/Config/"));
        sent += u64::try_from(settings.count()).unwrap_or_default();
    }
    sent
}

fn size(folder: Option<&Path>) -> Result<u64> {
    let Some(folder) = folder else { return Ok(0) };
    let wrong =
        |error: std::io::Error| Error::File { path: folder.display().to_string(), reason: error.to_string() };
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The write-ahead log is emptied again and again; what it holds is in the database sooner or later.
        if path.is_file() && !name.ends_with("-wal") && !name.ends_with("-shm") {
            bytes += path.metadata().map_err(wrong)?.len();
        }
    }
    Ok(bytes)
}
