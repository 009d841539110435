//! The wall clock. The only module of the server that reads it, and the place where it is not believed.
//!
//! A clock that jumps by a year (a dead battery, a wrong time server, a restored machine) must not expire every command,
//! renew every identity, delete what is kept for a month, or issue certificates that are not valid yet (RT-19). So the
//! wall clock is compared with the machine's monotonic one. A jump of more than [`JUMP`] is not followed: the server's
//! time goes on from where it was, loudly, until the wall clock comes back, or has said the same for [`SETTLED`], or the
//! server is started again.

use bellwether_model::Timestamp;
use bellwether_model::time::{DAY, MINUTE};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

/// More than daylight saving, time zones and a night's suspend.
const JUMP: i64 = DAY;
/// A new time that has held for so long is meant: a machine that was suspended for a week gets there by itself.
const SETTLED: i64 = DAY;
/// How often the log says that the clock is not followed.
const REMIND: i64 = 10 * MINUTE;

/// The machine's clock, without its jumps.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Milliseconds since the Unix epoch. A clock before 1970 reads as 1970.
    pub fn read() -> Timestamp {
        let (steady, wall) = clocks();
        Timestamp(held().lock().unwrap_or_else(PoisonError::into_inner).read(steady, wall))
    }

    /// By how much the wall clock is away from the time that the server goes by, in milliseconds, while it is not
    /// followed.
    pub fn held_by() -> Option<i64> {
        let (steady, wall) = clocks();
        let mut held = held().lock().unwrap_or_else(PoisonError::into_inner);
        let time = held.read(steady, wall);
        held.jump.map(|_| wall - time)
    }
}

impl bellwether_engine::Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Self::read()
    }
}

/// The two clocks of the machine, in milliseconds: since the first look, and since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the Clock port's adapter: the one place that reads the time"
)]
fn clocks() -> (i64, i64) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let steady = FIRST.get_or_init(Instant::now).elapsed();
    let wall = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (millis(steady), millis(wall))
}

fn held() -> &'static Mutex<Held> {
    static HELD: OnceLock<Mutex<Held>> = OnceLock::new();
    HELD.get_or_init(|| {
        let (steady, wall) = clocks();
        Mutex::new(Held::new(steady, wall))
    })
}

/// The time that the server goes by. All fields are milliseconds.
struct Held {
    /// Wall minus steady clock: what is believed.
    believed: i64,
    jump: Option<Jump>,
}

/// A wall clock that is somewhere else.
#[derive(Clone, Copy)]
struct Jump {
    /// Wall minus steady clock: what it says now.
    says: i64,
    /// Steady time since which it has said so.
    since: i64,
    /// Steady time of the last word in the log.
    told: i64,
}

impl Held {
    fn new(steady: i64, wall: i64) -> Self {
        Self { believed: wall.saturating_sub(steady), jump: None }
    }

    fn read(&mut self, steady: i64, wall: i64) -> i64 {
        let says = wall.saturating_sub(steady);
        if is_near(says, self.believed) {
            if self.jump.take().is_some() {
                tracing::warn!("the machine's clock is back where it was; the server follows it again");
            }
            self.believed = says;
            return wall;
        }
        let known = self.jump.filter(|jump| is_near(says, jump.says));
        let mut jump = known.unwrap_or(Jump { says, since: steady, told: i64::MIN });
        if steady.saturating_sub(jump.since) >= SETTLED {
            tracing::warn!(
                seconds = (says - self.believed) / 1000,
                "the machine's clock has stayed where it jumped to; the server follows it from now on"
            );
            *self = Self { believed: says, jump: None };
            return wall;
        }
        jump.says = says;
        if steady.saturating_sub(jump.told) >= REMIND {
            jump.told = steady;
            tracing::error!(
                seconds = (says - self.believed) / 1000,
                "the machine's clock jumped. The server goes on by its own time: nothing expires and nothing is renewed by \
                 the jump. Set the clock right; if it is right now, restart the server, or wait a day"
            );
        }
        self.jump = Some(jump);
        steady.saturating_add(self.believed)
    }
}

fn is_near(one: i64, other: i64) -> bool {
    one.abs_diff(other) <= JUMP.unsigned_abs()
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

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_model::time::{HOUR, SECOND};

    const START: i64 = 1_800_000_000_000;
    const YEAR: i64 = 365 * DAY;

    #[test]
    fn rt_19_a_year_forward_or_back_is_not_followed_until_it_ends() {
        for year in [YEAR, -YEAR] {
            let mut held = Held::new(0, START);
            assert_eq!(held.read(SECOND, START + SECOND), START + SECOND);
            assert_eq!(held.read(2 * SECOND, START + year + 2 * SECOND), START + 2 * SECOND);
            assert_eq!(held.read(HOUR, START + year + HOUR), START + HOUR, "the time goes on");
            assert!(held.jump.is_some());
            assert_eq!(held.read(2 * HOUR, START + 2 * HOUR + 3), START + 2 * HOUR + 3);
            assert!(held.jump.is_none());
        }
    }

    #[test]
    fn a_new_time_that_stays_for_a_day_is_believed_and_one_that_wanders_is_not() {
        let mut held = Held::new(0, START);
        assert_eq!(held.read(SECOND, START + YEAR), START + SECOND);
        assert_eq!(held.read(DAY, START + YEAR + DAY), START + DAY, "a second is missing");
        assert_eq!(held.read(DAY + HOUR, START + YEAR + DAY + HOUR), START + YEAR + DAY + HOUR);
        assert!(held.jump.is_none());

        let mut held = Held::new(0, START);
        for hour in 1..100 {
            let elsewhere = START + YEAR + hour * 30 * DAY;
            assert_eq!(held.read(hour * HOUR, elsewhere), START + hour * HOUR, "hour {hour}");
        }
    }

    #[test]
    fn small_steps_are_followed_at_once() {
        let mut held = Held::new(0, START);
        for step in [HOUR, -HOUR, 14 * HOUR, -SECOND] {
            assert_eq!(held.read(SECOND, START + step), START + step);
            assert!(held.jump.is_none());
        }
    }
}
