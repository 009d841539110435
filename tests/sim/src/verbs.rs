//! What each verb does.

use std::path::Path;
use std::time::Duration;

use bellwether_sim::api::Api;
use bellwether_sim::{Error, FleetOptions, Http, KeyPool, Result, files, load};
use secrecy::SecretString;

use crate::cli::{Cli, Enroll, Kept, Load, LoadMode, Output, Poll, Reach, Tour, Verb};
use crate::device::Device;
use crate::{guard, out};

/// After so many failures in a row a device gives up.
const PATIENCE: u32 = 10;

/// Does what the command line says.
///
/// # Errors
/// Whatever went wrong, in words for a person.
pub async fn run(cli: Cli) -> Result<()> {
    let (output, owned) = (cli.output, cli.i_own_this_server);
    match cli.verb {
        Verb::Enroll(args) => enroll(&args, output, owned).await.map(|_| ()),
        Verb::Poll(args) => poll(&args, output, owned).await,
        Verb::Tour(args) => tour(&args, output, owned).await,
        Verb::Renew(args) => renew(&args, output, owned).await,
        Verb::Checkout(args) => checkout(&args, output, owned).await,
        Verb::Load(args) => measure(&args, output, owned).await,
    }
}

async fn enroll(args: &Enroll, output: Output, owned: bool) -> Result<Device> {
    guard::check(&args.link, owned)?;
    if args.state.as_deref().is_some_and(Path::exists) {
        return Err(Error::Usage("the state file exists already; poll it, or name another".to_owned()));
    }
    let mut device = Device::build(&args.device, http(&args.ca)?)?;
    device.enroll(args.link.as_str()).await?;
    if let Some(path) = &args.state {
        device.save(path)?;
    }
    out::device(output, "enrolled", &device);
    Ok(device)
}

async fn poll(args: &Poll, output: Output, owned: bool) -> Result<()> {
    let mut device = load_device(&args.kept, owned)?;
    if args.forever {
        return keep_polling(&mut device, Some(&args.kept.state), args.every, output).await;
    }
    let told = device.poll().await?;
    device.save(&args.kept.state)?;
    out::told(output, &told);
    out::note(output, &format!("{} commands", told.len()));
    Ok(())
}

async fn tour(args: &Tour, output: Output, owned: bool) -> Result<()> {
    let mut device = enroll(&args.enroll, output, owned).await?;
    out::note(output, "It calls home and answers every command. Stop it with Ctrl-C.");
    keep_polling(&mut device, args.enroll.state.as_deref(), args.every, output).await
}

async fn renew(args: &Kept, output: Output, owned: bool) -> Result<()> {
    let mut device = load_device(args, owned)?;
    device.renew().await?;
    device.save(&args.state)?;
    out::device(output, "renewed", &device);
    Ok(())
}

async fn checkout(args: &Kept, output: Output, owned: bool) -> Result<()> {
    let mut device = load_device(args, owned)?;
    device.leave().await?;
    device.save(&args.state)?;
    out::device(output, "checked out", &device);
    Ok(())
}

async fn measure(args: &Load, output: Output, owned: bool) -> Result<()> {
    guard::check(&args.url, owned)?;
    if args.devices > load::MAX_DEVICES {
        return Err(Error::Usage(format!("at most {} devices", load::MAX_DEVICES)));
    }
    let ca_pem = files::read(&args.ca)?;
    let http = Http::new(&ca_pem)?;
    let api = Api::new(http.clone(), args.url.as_str(), SecretString::from(args.key.clone()));
    let keys = match &args.key_cache {
        Some(path) => KeyPool::cached(path, args.devices).await?,
        None => KeyPool::distinct(),
    };
    let keys = match (args.shared_keys, args.mode) {
        (Some(count), LoadMode::WindowsSettings | LoadMode::Job) => KeyPool::shared(count).await?,
        _ => keys,
    };
    let (clients, duration) = (args.clients.clamp(1, 1_024), Duration::from_secs(args.seconds));
    out::note(output, &format!("Enrolling {} devices at {} …", args.devices, args.url));
    let apple = |mode, keys| load::Options {
        mode,
        fleet: FleetOptions { concurrency: clients, keys, ..FleetOptions::new(args.devices) },
        duration,
        new_connections: args.new_connections,
        commands: args.commands,
        intent: args.intent.clone(),
    };
    let report = match args.mode {
        LoadMode::Idle => load::run(&api, &http, &apple(load::Mode::Idle, keys)).await?,
        LoadMode::Commands => load::run(&api, &http, &apple(load::Mode::Commands, keys)).await?,
        LoadMode::Job => {
            let report = load::run_job(&api, &http, &apple(load::Mode::Idle, keys)).await?;
            out::job_report(output, &report);
            let failed = report.enrollment.failed + report.before.failed + report.during.failed;
            return if failed > 0 { Err(Error::Usage(format!("{failed} requests failed"))) } else { Ok(()) };
        }
        LoadMode::WindowsSettings => {
            let options =
                load::SettingsOptions { devices: args.devices, clients, keys, data: args.data.clone() };
            let report = load::run_settings(&api, &http, &options).await?;
            out::settings_report(output, &report);
            let failed =
                report.enrollment.failed + report.first.sessions.failed + report.again.sessions.failed;
            return if failed > 0 { Err(Error::Usage(format!("{failed} requests failed"))) } else { Ok(()) };
        }
        LoadMode::WindowsSessions => {
            let connections = match args.connections {
                Reach::Keep => load::Connections::Keep,
                Reach::Resume => load::Connections::Resume,
                Reach::Full => load::Connections::Full,
            };
            let options = load::WindowsOptions {
                devices: args.devices,
                clients,
                keys,
                duration,
                connections,
                acknowledge: args.acknowledge,
                ca_pem,
            };
            load::run_windows(&api, &http, &options).await?
        }
    };
    out::report(output, &report);
    let queueing = report.queueing.as_ref().map_or(0, |figures| figures.failed);
    let sessions = report.sessions.as_ref().map_or(0, |sessions| sessions.figures.failed);
    let failed = report.enrollment.failed + queueing + sessions + report.requests.failed;
    if failed > 0 {
        return Err(Error::Usage(format!("{failed} requests failed")));
    }
    Ok(())
}

async fn keep_polling(
    device: &mut Device,
    state: Option<&Path>,
    every: Duration,
    output: Output,
) -> Result<()> {
    let mut failures = 0;
    loop {
        match device.poll().await {
            Ok(told) => {
                failures = 0;
                out::told(output, &told);
            }
            Err(error) => {
                failures += 1;
                out::error(&error.to_string());
                if failures >= PATIENCE {
                    return Err(error);
                }
            }
        }
        if let Some(path) = state {
            device.save(path)?;
        }
        if !device.is_enrolled() {
            out::device(output, "erased", device);
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn load_device(args: &Kept, owned: bool) -> Result<Device> {
    let device = Device::load(&args.state, http(&args.ca)?)?;
    guard::check(&device.server()?, owned)?;
    Ok(device)
}

fn http(ca: &Path) -> Result<Http> {
    Http::new(&files::read(ca)?)
}
