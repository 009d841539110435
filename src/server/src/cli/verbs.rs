//! Verbs that speak to a server.

use super::Failure;
use super::args::{
    Apns, Audit, Backup, ClientArgs, Command, Device, EnrollmentAccounts, Invitation, Job, Key, Login,
    Output, Packages, Paging, Quarantine, Send, Verb,
};
use super::client::Client;
use super::output::{self, Column};
use bellwether_model::CommandState;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Columns of the audit's finding.
pub const REPORT: &[Column] = &[
    ("SITE", "/site"),
    ("INTACT", "/intact"),
    ("ENTRIES", "/entries"),
    ("UNSEALED", "/unsealed"),
    ("CHECKPOINTS", "/checkpoints"),
    ("BROKEN", "/broken"),
];
/// Columns of backups.
pub const BACKUPS: &[Column] = &[
    ("NAME", "/name"),
    ("AT", "/at"),
    ("BYTES", "/bytes"),
    ("BACKEND", "/backend"),
    ("SERVER", "/server"),
    ("PROBLEM", "/problem"),
];
/// Columns of a backup that was just made or tried.
pub const MADE: &[Column] = &[
    ("NAME", "/name"),
    ("AT", "/at"),
    ("BYTES", "/bytes"),
    ("TABLES", "/tables"),
    ("ROWS", "/rows"),
    ("GOOD", "/good"),
    ("PROBLEM", "/problem"),
];
const WITHHELD: &[Column] = &[
    ("ID", "/id"),
    ("KIND", "/kind"),
    ("DEVICE", "/device_id"),
    ("CREATED", "/created_at"),
    ("BY", "/created_by"),
];
const COMMANDS: &[Column] = &[
    ("ID", "/id"),
    ("KIND", "/kind"),
    ("STATE", "/state"),
    ("NOTE", "/note"),
    ("CREATED", "/created_at"),
    ("DEVICE", "/device_id"),
];
const DEVICES: &[Column] = &[
    ("SERIAL", "/serial"),
    ("NAME", "/name"),
    ("PRODUCT", "/product"),
    ("OS", "/os_version"),
    ("STATE", "/enrollment/state"),
    ("USER", "/enrollment/account"),
    ("LAST SEEN", "/enrollment/last_seen_at"),
    ("ID", "/id"),
];
const CERTIFICATES: &[Column] = &[
    ("REQUESTED", "/requested"),
    ("SERIAL", "/serial"),
    ("STATE", "/state"),
    ("ISSUED", "/issued_at"),
    ("EXPIRES", "/not_after"),
    ("ID", "/id"),
];
const INVITATIONS: &[Column] = &[
    ("ID", "/id"),
    ("PLATFORM", "/platform"),
    ("USER", "/account"),
    ("STATE", "/state"),
    ("EXPIRED", "/expired"),
    ("EXPIRES", "/expires_at"),
    ("TEST ONLY", "/test_only"),
];
const JOBS: &[Column] = &[
    ("ID", "/id"),
    ("KIND", "/kind"),
    ("DEVICES", "/total"),
    ("DONE", "/done"),
    ("REFUSED", "/refused"),
    ("CREATED", "/created_at"),
];
const PACKAGES: &[Column] = &[
    ("ID", "/id"),
    ("KIND", "/kind"),
    ("NAME", "/name"),
    ("VERSION", "/version"),
    ("PRODUCT", "/product"),
    ("BYTES", "/size"),
    ("CREATED", "/created_at"),
];
const ACCOUNTS: &[Column] = &[
    ("ID", "/id"),
    ("NAME", "/name"),
    ("PLATFORM", "/platform"),
    ("USER", "/account"),
    ("USED", "/used"),
    ("CAP", "/cap"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
];
const PUSH: &[Column] = &[
    ("TOPIC", "/topic"),
    ("VALID UNTIL", "/not_after"),
    ("IMPORTED", "/imported_at"),
    ("DEVICES", "/enrollments"),
];
const AUDIT: &[Column] = &[
    ("POSITION", "/position"),
    ("AT", "/at"),
    ("ACTOR", "/actor"),
    ("WHAT", "/kind"),
    ("TARGET", "/target"),
    ("FROM", "/source"),
];
const KEYS: &[Column] = &[
    ("ID", "/id"),
    ("NAME", "/name"),
    ("PREFIX", "/prefix"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
    ("LAST USED", "/last_used_at"),
];

/// `login`.
pub async fn login(args: &ClientArgs, login: Login) -> Result<(), Failure> {
    let client = match &login.setup_token {
        Some(token) => {
            let url = args.url.as_deref().ok_or_else(|| Failure::new("login needs --url"))?;
            let ca = match &args.ca {
                Some(path) => Some(std::fs::read_to_string(path)?),
                None => None,
            };
            let client = Client::new(url, ca, None, args.site)?;
            let token = if token == "-" { ask_line("setup token: ")? } else { token.clone() };
            let made =
                client.post(&["setup"], &json!({ "token": token.trim(), "name": login.name }), None).await?;
            let key =
                text(&made, "/secret").ok_or_else(|| Failure::new("the server's answer holds no key"))?;
            client.with_key(SecretString::from(key))
        }
        None => {
            let client = Client::open(args)?;
            let client = if client.has_key() {
                client
            } else {
                client.with_key(SecretString::from(ask_line("API key: ")?.trim().to_owned()))
            };
            client.get(&["openapi.json"], &[]).await?;
            client
        }
    };
    let path = client.remember()?;
    output::line(&format!("remembered in {}", path.display()));
    Ok(())
}

/// Every verb that needs a key.
pub async fn run(client: &Client, verb: Verb, out: Output) -> Result<(), Failure> {
    match verb {
        Verb::Invitation(verb) => invitation(client, verb, out).await,
        Verb::Device(verb) => device(client, verb, out).await,
        Verb::Command(verb) => command(client, verb, out).await,
        Verb::Job(Job::List(paging)) => list(client, &["jobs"], paging, Vec::new(), JOBS, out).await,
        Verb::Job(Job::Show { id }) => show(client, &["jobs", &id.to_string()], out).await,
        Verb::Packages(verb) => packages(client, verb, out).await,
        Verb::EnrollmentAccounts(verb) => enrollment_accounts(client, verb, out).await,
        Verb::Apns(verb) => apns(client, verb, out).await,
        Verb::Audit(Audit::List(paging)) => list(client, &["audit"], paging, Vec::new(), AUDIT, out).await,
        Verb::Audit(Audit::Verify { .. }) => {
            let report = client.get(&["audit", "verify"], &[]).await?;
            print_rows(&report, std::slice::from_ref(&report), REPORT, out);
            match report.get("intact") {
                Some(Value::Bool(true)) => Ok(()),
                _ => Err(Failure::new("the audit is not intact")),
            }
        }
        Verb::Backup(Backup::Now { .. }) => {
            let made = client.post_slow(&["backups"], &json!({})).await?;
            print_rows(&made, std::slice::from_ref(&made), MADE, out);
            Ok(())
        }
        Verb::Backup(_) => backups(client, out).await,
        Verb::Quarantine(verb) => quarantine(client, verb, out).await,
        Verb::Key(verb) => key(client, verb, out).await,
        Verb::Restore(_)
        | Verb::Serve
        | Verb::Login(_)
        | Verb::Config(_)
        | Verb::Openapi
        | Verb::Completions { .. } => Err(Failure::new("this verb needs no server")),
    }
}

async fn invitation(client: &Client, verb: Invitation, out: Output) -> Result<(), Failure> {
    match verb {
        Invitation::Create(wish) => {
            let body = json!({
                "platform": wish.platform,
                "account": wish.user,
                "name": wish.name,
                "device_id": wish.device,
                "expires_in_seconds": wish.expires,
                "short_code": wish.short_code,
                "test_only": wish.test_only,
                "unsigned": wish.unsigned,
                "ownership": wish.ownership,
            });
            let made = client.post(&["invitations"], &body, None).await?;
            if out == Output::Json {
                output::json(&made);
                return Ok(());
            }
            let link = text(&made, "/link").unwrap_or_default();
            if let Some(qr) = output::qr(&link).filter(|_| std::io::stdout().is_terminal()) {
                output::line(&qr);
            }
            output::line(&format!("link   {}", output::clean(&link)));
            if let Some(code) = text(&made, "/short_code") {
                let base = link.rsplit_once('/').map_or(link.as_str(), |(base, _)| base);
                output::line(&format!(
                    "code   {}   to type at {}",
                    output::clean(&code),
                    output::clean(base)
                ));
            }
            let field = |path| output::clean(&text(&made, path).unwrap_or_default());
            output::line(&format!("until  {}", field("/invitation/expires_at")));
            output::line(&format!("id     {}", field("/invitation/id")));
            output::line("Link and code are shown only now.");
            Ok(())
        }
        Invitation::List(paging) => {
            list(client, &["invitations"], paging, Vec::new(), INVITATIONS, out).await
        }
        Invitation::Revoke { id } => {
            let gone = client.delete(&["invitations", &id.to_string()], None).await?;
            print_rows(&gone, std::slice::from_ref(&gone), INVITATIONS, out);
            Ok(())
        }
    }
}

async fn device(client: &Client, verb: Device, out: Output) -> Result<(), Failure> {
    match verb {
        Device::List { search, platform, state, paging } => {
            let filter = vec![
                ("search", search),
                ("platform", platform.map(|p| p.to_string())),
                ("state", state.map(|s| s.to_string())),
            ];
            list(client, &["devices"], paging, filter, DEVICES, out).await
        }
        Device::Show { device } => show(client, &["devices", &device], out).await,
        Device::Certificates { device, paging } => {
            list(client, &["devices", &device, "certificates"], paging, Vec::new(), CERTIFICATES, out).await
        }
        Device::Commands { device, paging } => {
            list(client, &["devices", &device, "commands"], paging, Vec::new(), COMMANDS, out).await
        }
        Device::Approve { device } => {
            let found = client.get(&["devices", &device], &[]).await?;
            let id = text(&found, "/device/enrollment/id")
                .ok_or_else(|| Failure::new("this device has no enrollment"))?;
            client.post(&["enrollments", &id, "approve"], &json!({}), None).await?;
            output::line("approved");
            Ok(())
        }
        Device::End { device, reason, yes } => {
            confirm(client, std::slice::from_ref(&device), "end the enrollment of", yes.as_deref()).await?;
            client.delete(&["devices", &device, "enrollment"], Some(&json!({ "reason": reason }))).await?;
            output::line("ended; the device is refused from now on");
            Ok(())
        }
    }
}

async fn command(client: &Client, verb: Command, out: Output) -> Result<(), Failure> {
    match verb {
        Command::Send(send) => send_command(client, *send, out).await,
        Command::List { device, state, job, paging } => {
            let filter = vec![
                ("device", device),
                ("state", state.map(|s| s.to_string())),
                ("job", job.map(|j| j.to_string())),
            ];
            list(client, &["commands"], paging, filter, COMMANDS, out).await
        }
        Command::Show { id } => show(client, &["commands", &id.to_string()], out).await,
        Command::Cancel { id } => {
            let gone = client.delete(&["commands", &id.to_string()], None).await?;
            print_rows(&gone, std::slice::from_ref(&gone), COMMANDS, out);
            Ok(())
        }
        Command::Retry { id } => {
            let again = client.post(&["commands", &id.to_string(), "retry"], &json!({}), None).await?;
            print_rows(&again, std::slice::from_ref(&again), COMMANDS, out);
            Ok(())
        }
        Command::Pin { id } => show(client, &["commands", &id.to_string(), "secret"], out).await,
        Command::Result { id } => {
            output::json(&client.get(&["commands", &id.to_string(), "result"], &[]).await?);
            Ok(())
        }
        Command::Download { id, to, force } => {
            let bytes = client.download(&["commands", &id.to_string(), "upload"], &to, force).await?;
            output::line(&format!("{bytes} bytes in {}", output::clean(&to.display().to_string())));
            Ok(())
        }
    }
}

async fn send_command(client: &Client, send: Send, out: Output) -> Result<(), Failure> {
    let intent = send.intent.into_intent()?;
    let devices: Vec<String> =
        send.device.split(',').map(str::trim).filter(|d| !d.is_empty()).map(str::to_owned).collect();
    if intent.is_destructive() {
        let act = if intent.kind() == "wipe" { "wipe" } else { "unenroll" };
        confirm(client, &devices, act, send.yes.as_deref()).await?;
    }
    let mut body = json!({ "intent": intent, "expires_in_seconds": send.expires, "user": send.user });
    // A lost answer is asked for again with the same key: nothing happens twice.
    let key = send.idempotency_key.unwrap_or_else(fresh_key);
    match devices.as_slice() {
        [] => Err(Failure::new("which device?")),
        [device] => {
            let sent = client.post(&["devices", device, "commands"], &body, Some(&key)).await?;
            let (sent, done) =
                if send.wait { wait(client, sent, send.wait_for).await? } else { (sent, Ok(())) };
            print_rows(&sent, std::slice::from_ref(&sent), COMMANDS, out);
            done
        }
        many => {
            if let Some(body) = body.as_object_mut() {
                body.insert("devices".to_owned(), json!(many));
            }
            let job = client.post(&["commands"], &body, Some(&key)).await?;
            print_rows(&job, std::slice::from_ref(&job), JOBS, out);
            if send.wait {
                Err(Failure::new("--wait is for one device; follow the job with: job show"))
            } else {
                Ok(())
            }
        }
    }
}

/// Asks until the command is final.
async fn wait(client: &Client, sent: Value, seconds: i64) -> Result<(Value, Result<(), Failure>), Failure> {
    let id = text(&sent, "/id").ok_or_else(|| Failure::new("the server's answer holds no id"))?;
    let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let started = Instant::now();
    let mut pause = Duration::from_millis(200);
    loop {
        let now = client.get(&["commands", &id], &[]).await?;
        let now = now.get("command").cloned().unwrap_or(now);
        let state = text(&now, "/state").unwrap_or_default();
        match state.parse::<CommandState>() {
            Ok(CommandState::Acknowledged) => return Ok((now, Ok(()))),
            Ok(state) if state.is_terminal() => {
                return Ok((now, Err(Failure::new(format!("it ended as {state}")))));
            }
            _ if started.elapsed() >= patience => {
                let text = format!("still {}; it goes on, see: command show {id}", output::clean(&state));
                return Ok((now, Err(Failure::new(text))));
            }
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(Duration::from_secs(2));
    }
}

/// Shows what will be hit and has the serial number (or the number of devices) typed.
async fn confirm(client: &Client, devices: &[String], act: &str, yes: Option<&str>) -> Result<(), Failure> {
    let word = match devices {
        [device] => {
            let found = client.get(&["devices", device], &[]).await?;
            let field = |path| text(&found, path).map(|t| output::clean(&t));
            let serial = field("/device/serial").or_else(|| field("/device/hardware_id")).unwrap_or_default();
            output::note(&format!(
                "About to {act} {} ({}, serial {serial}, {}).",
                field("/device/name").unwrap_or_else(|| "a device without a name".to_owned()),
                field("/device/product").unwrap_or_else(|| "unknown product".to_owned()),
                field("/device/ownership").unwrap_or_default(),
            ));
            serial
        }
        many => {
            output::note(&format!("About to {act} {} devices.", many.len()));
            many.len().to_string()
        }
    };
    let typed = match yes {
        Some(yes) => yes.to_owned(),
        None if std::io::stdin().is_terminal() => ask_line(&format!("Type {word} to go on: "))?,
        None => return Err(Failure::new(format!("confirm with --yes {word}"))),
    };
    if !word.is_empty() && typed.trim() == word {
        Ok(())
    } else {
        Err(Failure::new("not confirmed; nothing was done"))
    }
}

async fn packages(client: &Client, verb: Packages, out: Output) -> Result<(), Failure> {
    match verb {
        Packages::Upload { file, kind, product, version, name } => {
            let fail = |e: std::io::Error| {
                Failure::new(format!("cannot read {}: {e}", output::clean(&file.display().to_string())))
            };
            let bytes = std::fs::read(&file).map_err(fail)?;
            let stem = || file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let query = [
                ("kind", Some(kind.to_string())),
                ("name", name.or_else(stem)),
                ("product", Some(product)),
                ("version", Some(version)),
            ];
            let made = client.upload(&["packages"], &query, bytes).await?;
            print_rows(&made, std::slice::from_ref(&made), PACKAGES, out);
        }
        Packages::List(paging) => list(client, &["packages"], paging, Vec::new(), PACKAGES, out).await?,
        Packages::Show { id } => show(client, &["packages", &id.to_string()], out).await?,
        Packages::Delete { id } => {
            let gone = client.delete(&["packages", &id.to_string()], None).await?;
            print_rows(&gone, std::slice::from_ref(&gone), PACKAGES, out);
        }
    }
    Ok(())
}

async fn enrollment_accounts(client: &Client, verb: EnrollmentAccounts, out: Output) -> Result<(), Failure> {
    match verb {
        EnrollmentAccounts::Create { name, platform, cap, expires, user, ownership } => {
            let body = json!({
                "platform": platform,
                "name": name,
                "cap": cap,
                "expires_in_seconds": expires,
                "account": user,
                "ownership": ownership,
            });
            let made = client.post(&["enrollment-accounts"], &body, None).await?;
            if out == Output::Json {
                output::json(&made);
                return Ok(());
            }
            let field = |path| output::clean(&text(&made, path).unwrap_or_default());
            output::line(&format!("name      {}", field("/account/name")));
            output::line(&format!("password  {}", field("/password")));
            output::line(&format!("until     {}", field("/account/expires_at")));
            output::line(&format!("id        {}", field("/account/id")));
            output::line("The password is shown only now.");
        }
        EnrollmentAccounts::List(paging) => {
            list(client, &["enrollment-accounts"], paging, Vec::new(), ACCOUNTS, out).await?;
        }
        EnrollmentAccounts::Revoke { id } => {
            let gone = client.delete(&["enrollment-accounts", &id.to_string()], None).await?;
            print_rows(&gone, std::slice::from_ref(&gone), ACCOUNTS, out);
        }
    }
    Ok(())
}

async fn apns(client: &Client, verb: Apns, out: Output) -> Result<(), Failure> {
    match verb {
        Apns::Import { certificate, key, confirm_loss } => {
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path)
                    .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))
            };
            let body = json!({ "certificate": read(&certificate)?, "key": read(&key)?, "confirm_loss": confirm_loss });
            let made = client.post(&["push", "apple"], &body, None).await?;
            print_rows(&made, std::slice::from_ref(&made), PUSH, out);
        }
        Apns::Status => print_list(&client.get(&["push", "apple"], &[]).await?, PUSH, out),
    }
    Ok(())
}

async fn backups(client: &Client, out: Output) -> Result<(), Failure> {
    let all = client.get(&["backups"], &[]).await?;
    let rows = all.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    print_rows(&all, &rows, BACKUPS, out);
    if out == Output::Table {
        let field = |path| output::clean(&text(&all, path).unwrap_or_else(|| "never".to_owned()));
        output::note(&format!("last good    {}", field("/last_good_at")));
        output::note(&format!("last drill   {}", field("/drill/at")));
        for (what, path) in [("FAILED", "/failure"), ("DRILL FAILED", "/drill/problem")] {
            if let Some(why) = text(&all, path) {
                output::note(&format!("{what}: {}", output::clean(&why)));
            }
        }
    }
    Ok(())
}

async fn quarantine(client: &Client, verb: Quarantine, out: Output) -> Result<(), Failure> {
    match verb {
        Quarantine::Show => {
            let found = client.get(&["quarantine"], &[]).await?;
            let rows = found.get("withheld").and_then(Value::as_array).cloned().unwrap_or_default();
            print_rows(&found, &rows, WITHHELD, out);
            if out == Output::Table {
                let field = |path| output::clean(&text(&found, path).unwrap_or_default());
                output::note(&match found.get("active") {
                    Some(Value::Bool(true)) => format!(
                        "In quarantine since {}: restored from {}, with data from {}. {} commands wait.",
                        field("/since"),
                        field("/backup"),
                        field("/data_from"),
                        found.get("withheld_total").and_then(Value::as_u64).unwrap_or_default()
                    ),
                    _ => "Not in quarantine.".to_owned(),
                });
            }
        }
        Quarantine::End { cancel_withheld, send_withheld } => {
            let fate = match (cancel_withheld, send_withheld) {
                (true, _) => Some("cancel"),
                (_, true) => Some("send"),
                _ => None,
            };
            let ended = client.post_slow(&["quarantine", "end"], &json!({ "withheld": fate })).await?;
            match out {
                Output::Json => output::json(&ended),
                Output::Table => output::facts(&ended),
            }
        }
    }
    Ok(())
}

async fn key(client: &Client, verb: Key, out: Output) -> Result<(), Failure> {
    match verb {
        Key::Create { name, grants, days } => {
            let body = json!({ "name": name, "grants": grants, "expires_in_days": days });
            let made = client.post(&["keys"], &body, None).await?;
            match out {
                Output::Json => output::json(&made),
                Output::Table => {
                    output::line(&text(&made, "/secret").unwrap_or_default());
                    output::note("The key is shown only now.");
                }
            }
        }
        Key::List => print_list(&client.get(&["keys"], &[]).await?, KEYS, out),
        Key::Revoke { id } => {
            client.delete(&["keys", &id.to_string()], None).await?;
            output::line("revoked");
        }
    }
    Ok(())
}

async fn list(
    client: &Client,
    path: &[&str],
    paging: Paging,
    mut query: Vec<(&'static str, Option<String>)>,
    columns: &[Column],
    out: Output,
) -> Result<(), Failure> {
    query.push(("limit", Some(paging.limit.to_string())));
    query.push(("cursor", paging.cursor));
    let page = client.get(path, &query).await?;
    let rows = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    print_rows(&page, &rows, columns, out);
    if let (Output::Table, Some(next)) = (out, text(&page, "/next")) {
        output::note(&format!("more: --cursor {}", output::clean(&next)));
    }
    Ok(())
}

async fn show(client: &Client, path: &[&str], out: Output) -> Result<(), Failure> {
    let found = client.get(path, &[]).await?;
    match out {
        Output::Json => output::json(&found),
        Output::Table => output::facts(&found),
    }
    Ok(())
}

fn print_list(value: &Value, columns: &[Column], out: Output) {
    print_rows(value, value.as_array().map(Vec::as_slice).unwrap_or_default(), columns, out);
}

fn print_rows(whole: &Value, rows: &[Value], columns: &[Column], out: Output) {
    match out {
        Output::Json => output::json(whole),
        Output::Table => output::table(rows, columns),
    }
}

fn text(value: &Value, path: &str) -> Option<String> {
    value.pointer(path).and_then(Value::as_str).map(str::to_owned)
}

fn ask_line(prompt: &str) -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        output::note(prompt);
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line)
}

fn fresh_key() -> String {
    let mut bytes = [0_u8; 16];
    let _ = getrandom::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
