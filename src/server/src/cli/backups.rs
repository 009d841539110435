//! Backups on this machine: made, looked at, tried and brought back without a server.

use super::args::{Output, RestoreArgs, ServerArgs};
use super::server::layers;
use super::verbs::{BACKUPS, MADE};
use super::{Failure, output};
use crate::api::backups::Backup;
use crate::clock::{SystemClock, rfc3339};
use crate::config::Config;
use crate::serve;
use bellwether_engine::{OfflineBackups, RestoreWish, Verified};
use serde_json::{Value, json};
use std::path::PathBuf;

fn open(args: &ServerArgs) -> Result<(Config, OfflineBackups), Failure> {
    let config = Config::from_layers(&layers(args)?)?;
    let folder = config.backup_folder.clone();
    let backups = OfflineBackups::new(folder, &config.data_dir, config.master_key.clone())?;
    Ok((config, backups))
}

/// `backup now --offline`.
pub async fn now(args: &ServerArgs, out: Output) -> Result<(), Failure> {
    let (config, backups) = open(args)?;
    let made = backups.make(serve::store(&config), serve::backups(&config), SystemClock::read()).await?;
    let row = json!({ "name": made.name, "at": rfc3339(made.at), "bytes": made.bytes, "tables": made.tables, "rows": made.rows });
    print(row.clone(), &[row], MADE, out);
    Ok(())
}

/// `backup list --offline`.
pub fn list(args: &ServerArgs, out: Output) -> Result<(), Failure> {
    let (_, backups) = open(args)?;
    let rows: Vec<Value> =
        backups.list()?.into_iter().filter_map(|one| serde_json::to_value(Backup::from(one)).ok()).collect();
    print(Value::Array(rows.clone()), &rows, BACKUPS, out);
    Ok(())
}

/// `backup verify`.
pub async fn verify(args: &ServerArgs, file: Option<PathBuf>, all: bool, out: Output) -> Result<(), Failure> {
    let (config, backups) = open(args)?;
    let files = match (file, all) {
        (Some(file), _) => vec![backups.find(&file)],
        (None, true) => backups.list()?.into_iter().map(|one| config.backup_folder.join(one.name)).collect(),
        (None, false) => vec![backups.newest()?],
    };
    if files.is_empty() {
        return Err(Failure::new(format!("there is no backup in {}", config.backup_folder.display())));
    }
    let mut rows = Vec::with_capacity(files.len());
    for file in files {
        let row = match backups.verify(&file).await {
            Ok(verified) => good(&verified),
            Err(why) => {
                json!({ "name": file.display().to_string(), "good": false, "problem": why.to_string() })
            }
        };
        rows.push(row);
    }
    print(Value::Array(rows.clone()), &rows, MADE, out);
    let bad = rows.iter().filter(|row| row.get("good") != Some(&Value::Bool(true))).count();
    if bad == 0 { Ok(()) } else { Err(Failure::new(format!("{bad} of {} backups are not good", rows.len()))) }
}

/// `backup drill`.
pub async fn drill(args: &ServerArgs, out: Output) -> Result<(), Failure> {
    let (_, backups) = open(args)?;
    let (drill, verified) = backups.drill(SystemClock::read()).await?;
    let row = match &verified {
        Some(verified) => good(verified),
        None => json!({ "name": drill.backup, "good": false, "problem": drill.problem }),
    };
    print(row.clone(), &[row], MADE, out);
    match drill.problem {
        None => Ok(()),
        Some(why) => Err(Failure::new(format!("the drill failed: {}", output::clean(&why)))),
    }
}

/// `restore`.
pub async fn restore(args: &ServerArgs, wish: RestoreArgs, out: Output) -> Result<(), Failure> {
    let config = Config::from_layers(&layers(args)?)?;
    let inside = config.backup_folder.join(&wish.file);
    let file = if !wish.file.exists() && inside.exists() { inside } else { wish.file };
    let restored = bellwether_engine::restore(RestoreWish {
        file,
        store: serve::store(&config),
        data_dir: config.data_dir.clone(),
        master_key: config.master_key.clone(),
        replace: wish.replace,
        revoke_keys: wish.revoke_api_keys,
        actor: std::env::var("USER").unwrap_or_else(|_| "terminal".to_owned()),
        now: SystemClock::read(),
    })
    .await?;
    let mut row = good(&restored.verified);
    if let Some(row) = row.as_object_mut() {
        row.insert("aside".into(), json!(restored.aside));
        row.insert("invitations_closed".into(), json!(restored.invitations));
        row.insert("api_keys_removed".into(), json!(restored.keys));
    }
    match out {
        Output::Json => output::json(&row),
        Output::Table => {
            output::facts(&row);
            output::note(
                "The server will start in quarantine: nothing that wipes, locks, removes or unenrolls is sent until you \
                 end it. See: bellwether quarantine show",
            );
        }
    }
    Ok(())
}

fn good(verified: &Verified) -> Value {
    let broken: Vec<&String> = verified.audit.iter().filter_map(|site| site.report.broken.as_ref()).collect();
    json!({
        "name": verified.file.file_name().unwrap_or_default().to_string_lossy(),
        "at": rfc3339(verified.header.at),
        "bytes": verified.file.metadata().map(|meta| meta.len()).ok(),
        "tables": verified.tables,
        "rows": verified.rows,
        "audit_entries": verified.audit.iter().map(|site| site.report.entries).sum::<i64>(),
        "audit_broken": broken,
        "good": broken.is_empty(),
    })
}

fn print(whole: Value, rows: &[Value], columns: &[output::Column], out: Output) {
    match out {
        Output::Json => output::json(&whole),
        Output::Table => output::table(rows, columns),
    }
}
