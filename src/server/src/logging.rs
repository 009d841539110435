//! Structured logs. What may be logged is decided where it is logged: routes, never paths; never a header.
//!
//! Names and texts of devices and strangers get into them all the same, as the reason of a refusal does. One event is one
//! line, whatever stands in it: nobody writes a second one, and nobody steers the terminal on which it is read (AT-41).

use crate::config::{Config, ConfigError, LogFormat};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging to standard output. A second call in one process (tests) changes nothing.
pub fn start(config: &Config) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(|e| ConfigError::Invalid {
        key: "log.level".to_owned(),
        place: "configuration".to_owned(),
        reason: e.to_string(),
    })?;
    let as_json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stdout().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let done = if as_json {
        registry.with(json(io::stdout)).try_init()
    } else {
        registry.with(text(io::stdout, io::stdout().is_terminal())).try_init()
    };
    if done.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// One JSON object for each event.
fn json<S, W>(to: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
    layer.with_writer(Escapes(to))
}

/// Text for people; with colours on a terminal.
fn text<S, W>(to: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer()
        .with_ansi(colours)
        .with_target(false)
        .fmt_fields(debug_fn(field).delimited(" "))
        .with_writer(to)
}

fn field(to: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => to.write_str(&escaped(&value)),
        // Where an event of the log crate came from.
        name if name.starts_with("log.") => Ok(()),
        name => write!(to, "{name}={}", escaped(&value)),
    }
}

/// Characters that end a line somewhere, move a cursor, or turn the direction of writing.
fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with odd characters as JSON spells them.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_odd(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Takes one event at a time, as the JSON layer writes it: odd characters stand inside of its strings only, where an
/// escape means the same. JSON itself asks for an escape of the ones below U+0020 alone.
struct Escaping<W>(W);

/// Makes [`Escaping`] writers.
struct Escapes<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escapes<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for Escaping<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(event) {
            Ok(text) => {
                let (line, end) = text.strip_suffix('\n').map_or((text, ""), |line| (line, "\n"));
                self.0.write_all(escaped(line).as_bytes())?;
                self.0.write_all(end.as_bytes())?;
            }
            Err(_) => self.0.write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const HOSTILE: [&str; 7] = [
        "a\r\n2026-11-25T00:00:00Z  INFO forged=true",
        "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m",
        "a\0b\u{8}\u{7f}",
        "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f",
        "\",\"level\":\"ERROR\",\"x\":\"",
        "}\n{\"message\":\"forged\"}",
        "a\u{202e}gpj.exe",
    ];

    /// What is written when every kind of field holds something hostile.
    fn written(
        layer: impl FnOnce(Kept) -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>,
    ) -> String {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(layer(kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            for text in HOSTILE {
                let error = io::Error::other(text);
                tracing::info!(name = text, shown = %text, debugged = ?text, cause = %error, "device {text}");
            }
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn at_41_one_event_is_one_line_in_json() {
        let text = written(|kept| Box::new(json(move || kept.clone())));
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!((lines.len(), lines.last()), (HOSTILE.len() + 1, Some(&"")), "{text:?}");
        for (line, hostile) in lines.iter().zip(HOSTILE) {
            assert!(!line.contains(is_odd), "{line:?}");
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            // Nothing is lost and nothing was added.
            assert_eq!(
                (&event["name"], &event["shown"], &event["cause"]),
                (&hostile.into(), &hostile.into(), &hostile.into())
            );
            assert_eq!((&event["level"], event.as_object().unwrap().len()), (&"INFO".into(), 8), "{line}");
        }
    }

    #[test]
    fn at_41_one_event_is_one_line_in_text() {
        let text = written(|kept| Box::new(text(move || kept.clone(), false)));
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!((lines.len(), lines.last()), (HOSTILE.len() + 1, Some(&"")), "{text:?}");
        for line in lines.iter().filter(|line| !line.is_empty()) {
            // The layer's own colours stand before the fields.
            let (_, fields) = line.split_once("device ").unwrap();
            assert!(!fields.contains(is_odd), "{fields:?}");
            assert!(
                ["name=", "shown=", "debugged=", "cause="].iter().all(|name| fields.contains(name)),
                "{line}"
            );
        }
    }

    #[test]
    fn escapes_are_those_of_json() {
        assert_eq!(escaped("plain \u{e9} text"), Cow::Borrowed("plain \u{e9} text"));
        assert_eq!(escaped("a\n\r\t\0\u{1b}\u{9b}\u{2028}z"), "a\\n\\r\\t\\u0000\\u001b\\u009b\\u2028z");
    }
}
