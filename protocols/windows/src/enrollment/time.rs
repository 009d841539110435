//! The validity window that a reply carries in its security header.

use super::Error;

/// `u:Timestamp` of a reply, in milliseconds since 1970 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// `u:Created`.
    pub created: u64,
    /// `u:Expires`.
    pub expires: u64,
}

impl Timestamp {
    /// The window of Microsoft's samples: five minutes from now.
    #[must_use]
    pub fn five_minutes(now: u64) -> Self {
        Self { created: now, expires: now.saturating_add(300_000) }
    }
}

/// `2026-11-22T03:46:09.123Z`.
pub(super) fn format(milliseconds: u64) -> Result<String, Error> {
    const MILLISECONDS_A_DAY: u64 = 86_400_000;
    let (days, rest) = (milliseconds / MILLISECONDS_A_DAY, milliseconds % MILLISECONDS_A_DAY);
    let (year, month, day) = civil(days);
    if year > 9999 {
        return Err(Error::NotWritable("a time is after the year 9999"));
    }
    let (seconds, fraction) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z"))
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Counts in eras of 400 years
/// that begin on the first of March, so that the leap day is an era's and a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_AN_ERA: u64 = 146_097;
    const DAYS_FROM_YEAR_0: u64 = 719_468;
    let shifted = days + DAYS_FROM_YEAR_0;
    let (era, day_of_era) = (shifted / DAYS_AN_ERA, shifted % DAYS_AN_ERA);
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_795_319_169_001, "2026-11-22T03:46:09.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(milliseconds).unwrap(), text);
        }
        assert!(format(253_402_300_800_000).is_err());
        assert!(format(u64::MAX).is_err());
    }
}
