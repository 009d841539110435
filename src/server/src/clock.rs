//! The wall clock. The only module of the server that reads it.

use bellwether_model::Timestamp;
use std::time::UNIX_EPOCH;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Milliseconds since the Unix epoch. A clock before 1970 reads as 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Clock port's adapter: the one place that reads the time"
    )]
    pub fn read() -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl bellwether_engine::Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Self::read()
    }
}

/// RFC 3339 in UTC, for JSON and tables.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |t| t.to_string())
}

/// Day and minute in UTC, for pages.
pub fn for_people(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |t| t.strftime("%-d %B %Y, %H:%M UTC").to_string())
}
