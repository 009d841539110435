//! Everything that this program prints goes through here.

use std::io::Write as _;

use bellwether_sim::load::{Figures, JobReport, Report, SettingsReport, Stored};
use bellwether_sim::{AppleDevice, PcTold, Told, WindowsPc};
use serde_json::json;

use crate::cli::Output;
use crate::device::{Device, Heard};

/// A reader that went away (`| head`) is no reason to panic.
fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An error, for people.
pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "bellwether-sim: {text}");
}

/// Something that goes on, for people only.
pub fn note(output: Output, text: &str) {
    if output == Output::Table {
        line(text);
    }
}

/// A device and what just happened to it.
pub fn device(output: Output, event: &str, device: &Device) {
    match device {
        Device::Apple(device) => apple(output, event, device),
        Device::Pc(pc) => self::pc(output, event, pc),
    }
}

fn pc(output: Output, event: &str, pc: &WindowsPc) {
    let (hardware, name) = (pc.hardware(), pc.inventory().name);
    match output {
        Output::Json => line(
            &json!({
                "event": event,
                "device_id": hardware.device_id,
                "hw_dev_id": hardware.hw_dev_id,
                "serial": hardware.serial,
                "os_version": hardware.os_version,
                "name": name,
                "enrolled": pc.is_enrolled(),
            })
            .to_string(),
        ),
        Output::Table => line(&format!(
            "{event}: PC “{name}”, serial {}, DeviceID {}",
            hardware.serial, hardware.device_id
        )),
    }
}

fn apple(output: Output, event: &str, device: &AppleDevice) {
    let hardware = device.hardware();
    match output {
        Output::Json => line(
            &json!({
                "event": event,
                "udid": hardware.udid,
                "serial": hardware.serial,
                "product_name": hardware.product_name,
                "name": device.inventory().name,
                "enrolled": device.is_enrolled(),
            })
            .to_string(),
        ),
        Output::Table => line(&format!(
            "{event}: {} “{}”, serial {}, UDID {}",
            hardware.family.noun(),
            device.inventory().name,
            hardware.serial,
            hardware.udid
        )),
    }
}

/// Commands that a device was given. Their arguments can be secret (PINs, profiles), so only the type, or the
/// node, is printed.
pub fn told(output: Output, heard: &Heard) {
    match heard {
        Heard::Apple(told) => apple_told(output, told),
        Heard::Pc(told) => pc_told(output, told),
    }
}

fn pc_told(output: Output, told: &[PcTold]) {
    for told in told {
        let code = told.answer.as_ref().map(|answer| answer.code);
        let error = told.answer.as_ref().and_then(|answer| answer.original_error.as_deref());
        match output {
            Output::Json => line(
                &json!({
                    "event": "command",
                    "verb": told.verb.as_str(),
                    "uri": told.uri,
                    "code": code,
                    "original_error": error,
                })
                .to_string(),
            ),
            Output::Table => {
                let code = code.map_or_else(|| "(no answer)".to_owned(), |code| code.to_string());
                line(&format!("  {:<8} {code:<12} {}", told.verb.as_str(), told.uri));
            }
        }
    }
}

fn apple_told(output: Output, told: &[Told]) {
    for told in told {
        let status = told.reported.map_or("(no answer)", |status| status.as_str());
        match output {
            Output::Json => line(
                &json!({
                    "event": "command",
                    "command_uuid": told.command_uuid,
                    "request_type": told.request_type,
                    "user": told.user,
                    "reported": told.reported.map(|status| status.as_str()),
                })
                .to_string(),
            ),
            Output::Table => line(&format!("  {:<28} {status:<20} {}", told.request_type, told.command_uuid)),
        }
    }
}

/// The result of a load test.
pub fn report(output: Output, report: &Report) {
    if as_json(output, report) {
        return;
    }
    let connections = match (report.new_connections, report.sessions.is_some()) {
        (true, true) => "a new connection per session",
        (true, false) => "a new connection per request",
        (false, _) => "connections kept",
    };
    line(&format!(
        "{}: {} devices, {} clients at a time, {connections}",
        report.mode, report.devices, report.clients
    ));
    line("");
    line(COLUMNS);
    figures("enrollments", &report.enrollment);
    if let Some(queueing) = &report.queueing {
        figures("queueing", queueing);
    }
    if let Some(sessions) = &report.sessions {
        figures("sessions", &sessions.figures);
    }
    figures("requests", &report.requests);
    line("");
    line(&format!(
        "p99 / p50: {:.1}    requests per second and client: {:.1}",
        report.p99_to_p50, report.per_client_second
    ));
    if let Some(sessions) = &report.sessions {
        line(&format!(
            "messages challenged: {}    with the right credential: {}    answers: {}    TLS handshakes: {} ({} \
             resumed)",
            sessions.challenged,
            sessions.authenticated,
            sessions.acknowledged,
            sessions.handshakes,
            sessions.resumed
        ));
    }
    if let Some(round_trips) = report.round_trips {
        line(&format!("commands queued, delivered and acknowledged: {round_trips:.0} per s"));
    }
    for problem in &report.errors {
        line(&format!("error: {problem}"));
    }
}

/// The result of a load test with one command for all.
pub fn job_report(output: Output, report: &JobReport) {
    if as_json(output, report) {
        return;
    }
    line(&format!("{}: {} devices, {} clients at a time", report.mode, report.devices, report.clients));
    line("");
    line(COLUMNS);
    figures("enrollments", &report.enrollment);
    figures("before", &report.before);
    figures("during", &report.during);
    line("");
    line(&format!(
        "accepted in {:.0} ms; it waited for every device after {:.2} s",
        report.accepted_ms, report.job_seconds
    ));
    for problem in &report.errors {
        line(&format!("error: {problem}"));
    }
}

/// The result of a load test with settings.
pub fn settings_report(output: Output, report: &SettingsReport) {
    if as_json(output, report) {
        return;
    }
    line(&format!("{}: {} devices, {} settings each", report.mode, report.devices, report.settings));
    line("");
    line(COLUMNS);
    figures("enrollments", &report.enrollment);
    figures("first", &report.first.sessions);
    figures("again", &report.again.sessions);
    figures("idle", &report.idle);
    line("");
    for (name, round) in [("first", &report.first), ("again", &report.again)] {
        line(&format!("{name}: the job took {:.1} s; {} settings were sent", round.job_seconds, round.sent));
    }
    if let Some(Stored { enrolled, settings, day }) = &report.stored {
        line(&format!(
            "bytes for each device: {enrolled:.0} enrolled, {settings:.0} more with its settings, {day:.0} more a day"
        ));
    }
    for problem in &report.errors {
        line(&format!("error: {problem}"));
    }
}

/// Whether the report was wanted as JSON, and is written.
fn as_json(output: Output, report: &impl serde::Serialize) -> bool {
    if output == Output::Json {
        match serde_json::to_string_pretty(report) {
            Ok(text) => line(&text),
            Err(problem) => error(&problem.to_string()),
        }
    }
    output == Output::Json
}

const COLUMNS: &str =
    "                  count   failed      per s    p50 ms    p90 ms    p99 ms  p99.9 ms    max ms";

fn figures(name: &str, figures: &Figures) {
    let Figures { count, failed, per_second, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = figures;
    line(&format!(
        "{name:<13} {count:>9} {failed:>8} {per_second:>10.1} {p50_ms:>9.2} {p90_ms:>9.2} {p99_ms:>9.2} \
         {p999_ms:>9.2} {max_ms:>9.2}"
    ));
}
