//! Verbs that work on this machine: serve, config, offline audit.

use super::args::{Output, ServerArgs};
use super::{Failure, output};
use crate::config::{Config, Layers, Sources};
use crate::logging;
use crate::serve::{self, RunningServer};
use crate::witness::WitnessFile;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long a server whose disk failed takes to end.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

pub(super) fn layers(args: &ServerArgs) -> Result<Layers, Failure> {
    Ok(Sources::of_process(args.flags()?, args.config.clone()).load()?)
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the certificates again.
pub async fn serve(args: &ServerArgs) -> Result<(), Failure> {
    let config = Config::from_layers(&layers(args)?)?;
    logging::start(&config)?;
    // Before anything else, so that no signal in between kills an opening database.
    let (mut term, mut int, mut hup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let data_dir = config.data_dir.clone();
    let mut server = tokio::select! {
        started = serve::start(config.clone()) => started?,
        _ = term.recv() => return Ok(()),
        _ = int.recv() => return Ok(()),
    };
    let token = server.setup_token.take();
    announce(&config, &server);
    hand_over(&data_dir, token)?;
    let failed = loop {
        tokio::select! {
            _ = term.recv() => break false,
            _ = int.recv() => break false,
            () = server.failed() => break true,
            _ = hup.recv() => {
                if let Err(error) = server.reload_tls() {
                    tracing::error!(cause = %error, "the TLS certificate was not replaced");
                }
            }
        }
    };
    if failed {
        tracing::error!(
            "the disk failed: stopping, since nothing can be promised any more; check the disk, then start again"
        );
        // Requests get their answers, which no write is behind any more, and that is all.
        let _ = tokio::time::timeout(LAST_ANSWERS, server.stop()).await;
        return Err(Failure::new(
            "the disk failed while writing, so the server stopped; what it had accepted before is safe. \
             Check the disk, then start it again",
        ));
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

fn announce(config: &Config, server: &RunningServer) {
    if !std::io::stdout().is_terminal() {
        return;
    }
    let mut lines = vec![
        format!("Bellwether {} serves", env!("CARGO_PKG_VERSION")),
        format!("  people, API, enrollment  {}  (listens on {})", server.public_url, server.public_addr),
        format!("  devices with certificate {}  (listens on {})", server.device_url, server.device_addr),
        format!("  data folder              {}", config.data_dir.display()),
    ];
    if let Some(path) = &server.tls_ca_path {
        lines.push(format!("  CA certificate           {}", path.display()));
    }
    if server.public_addr.ip().is_loopback() {
        lines.push(
            "Only this machine can reach it. To open it to devices, give it its permanent names:".to_owned(),
        );
        lines.push("  --set public.listen=0.0.0.0:8443 --set public_url=https://NAME:8443".to_owned());
        lines.push("  --set device.listen=0.0.0.0:8444 --set device_url=https://NAME:8444".to_owned());
    }
    lines.iter().for_each(|line| output::line(line));
}

/// The setup token goes to a terminal or into a file for its owner only; never into a log.
fn hand_over(data_dir: &std::path::Path, token: Option<SecretString>) -> Result<(), Failure> {
    let Some(token) = token else { return Ok(()) };
    if std::io::stdout().is_terminal() {
        output::line("Nobody administers this server yet. Within 24 hours:");
        output::line(&format!(
            "  bellwether login --url URL --ca CA-FILE --setup-token {}",
            token.expose_secret()
        ));
    } else {
        let path = serve::write(data_dir, "setup-token", &format!("{}\n", token.expose_secret()), 0o600)?;
        tracing::info!(path = %path.display(), "nobody administers this server yet: the setup token is in this file");
    }
    Ok(())
}

/// `config show`.
pub fn show_config(args: &ServerArgs, origin: bool, out: Output) -> Result<(), Failure> {
    let layers = layers(args)?;
    // Also says what is wrong with the values.
    Config::from_layers(&layers)?;
    let rows: Vec<serde_json::Value> = layers
        .shown()
        .into_iter()
        .map(|(key, value, from)| {
            let mut row =
                json!({ "key": key.name, "value": value, "help": key.help, "environment": key.env_name() });
            if let (true, Some(row)) = (origin, row.as_object_mut()) {
                row.insert("origin".to_owned(), from.into());
            }
            row
        })
        .collect();
    match (out, origin) {
        (Output::Json, _) => output::json(&serde_json::Value::Array(rows)),
        (Output::Table, true) => {
            output::table(&rows, &[("KEY", "/key"), ("VALUE", "/value"), ("ORIGIN", "/origin")])
        }
        (Output::Table, false) => {
            output::table(&rows, &[("KEY", "/key"), ("VALUE", "/value"), ("MEANING", "/help")])
        }
    }
    Ok(())
}

/// `audit verify` on the data itself. With SQLite the server must be stopped.
pub async fn verify_audit(args: &ServerArgs, out: Output) -> Result<(), Failure> {
    let config = Config::from_layers(&layers(args)?)?;
    let store = serve::store(&config);
    let witness = config.audit_witness.clone().map(WitnessFile::shared);
    if config.database.is_none() && !config.data_dir.join("bellwether.db").exists() {
        return Err(Failure::new(format!(
            "there is no database in {}; use --data-dir",
            config.data_dir.display()
        )));
    }
    let reports =
        bellwether_engine::verify_offline(store, &config.data_dir, config.master_key.clone(), witness)
            .await?;
    let rows: Vec<serde_json::Value> = reports
        .iter()
        .map(|site| {
            let report = &site.report;
            json!({
                "site": site.site,
                "intact": report.broken.is_none(),
                "entries": report.entries,
                "unsealed": report.unsealed,
                "checkpoints": report.checkpoints,
                "restored": report.restored,
                "broken": report.broken,
            })
        })
        .collect();
    let intact = reports.iter().all(|site| site.report.broken.is_none());
    match out {
        Output::Json => output::json(&serde_json::Value::Array(rows)),
        Output::Table => output::table(&rows, super::verbs::REPORT),
    }
    if intact {
        Ok(())
    } else {
        Err(Failure::new("the audit was changed, or written with another master key"))
    }
}
