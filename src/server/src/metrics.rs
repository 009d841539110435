//! Counters of the HTTP edge, in Prometheus' text form, on their own plain listener.

use crate::clock::SystemClock;
use crate::edge::Edge;
use actix_web::{HttpResponse, web};
use bellwether_engine::{BackupStatus, Drill};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the duration buckets, seconds.
const BUCKETS: [f64; 8] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Requests by route. Labels are bounded: routes come from the table, methods and statuses from short lists.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str, u16), Histogram>>,
}

#[derive(Clone, Copy, Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    /// Counts one request.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let method = match method {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let row = requests.entry((route.to_owned(), method, status)).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, end) in row.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= end);
        }
        row.count += 1;
        row.seconds += seconds;
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut out = String::from("# TYPE bellwether_build_info gauge\n");
        let _ = writeln!(out, "bellwether_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        out.push_str("# TYPE bellwether_http_request_duration_seconds histogram\n");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, method, status), row) in requests.iter() {
            let name = "bellwether_http_request_duration_seconds";
            let labels = format!("route=\"{route}\",method=\"{method}\",status=\"{status}\"");
            for (count, end) in row.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{end}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", row.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", row.seconds);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", row.count);
        }
        out
    }
}

/// `GET /metrics` of the metrics listener.
pub async fn page(edge: web::Data<Edge>) -> HttpResponse {
    let mut text = edge.metrics.render();
    text.push_str(&gauges(edge.engine.is_disk_full(), SystemClock::held_by()));
    // Without the database there are the other figures still.
    if let Ok((status, drill)) = edge.engine.backup_health().await {
        text.push_str(&backups(&status, drill.as_ref()));
    }
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

/// What is worth an alarm.
fn gauges(disk_full: bool, clock_off_by: Option<i64>) -> String {
    format!(
        "# TYPE bellwether_disk_full gauge\nbellwether_disk_full {}\n\
         # TYPE bellwether_clock_jump_seconds gauge\nbellwether_clock_jump_seconds {}\n",
        i32::from(disk_full),
        clock_off_by.unwrap_or_default() / 1000
    )
}

/// When backups and drills went well or did not; a figure is missing until it happened once.
fn backups(status: &BackupStatus, drill: Option<&Drill>) -> String {
    let good_drill = drill.filter(|drill| drill.problem.is_none());
    let figures = [
        ("bellwether_backup_last_success_timestamp_seconds", status.last_good),
        ("bellwether_backup_last_failure_timestamp_seconds", status.last_failed),
        ("bellwether_backup_drill_last_success_timestamp_seconds", good_drill.map(|drill| drill.at)),
    ];
    let mut out = String::new();
    for (name, at) in figures {
        if let Some(at) = at {
            let _ = writeln!(out, "# TYPE {name} gauge\n{name} {}", at.0 / 1_000);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_clock_that_jumped_are_seen() {
        assert!(gauges(true, Some(-7_200_000)).contains("bellwether_disk_full 1\n"));
        assert!(gauges(true, Some(-7_200_000)).ends_with("bellwether_clock_jump_seconds -7200\n"));
        assert!(gauges(false, None).contains("bellwether_disk_full 0\n"));
    }

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.request("/enroll/{code}", "GET", 200, Duration::from_millis(20));
        metrics.request("/enroll/{code}", "GET", 200, Duration::from_secs(60));
        metrics.request("none", "BREW", 404, Duration::ZERO);
        let text = metrics.render();
        assert!(
            text.contains("route=\"/enroll/{code}\",method=\"GET\",status=\"200\",le=\"0.01\"} 0"),
            "{text}"
        );
        assert!(text.contains("status=\"200\",le=\"0.05\"} 1"), "{text}");
        assert!(text.contains("status=\"200\",le=\"+Inf\"} 2"), "{text}");
        assert!(text.contains("method=\"other\",status=\"404\""), "{text}");
    }
}
