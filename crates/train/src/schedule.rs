//! The schedule of runs, written as one setting.

use std::{fmt, str::FromStr};

use autoglm_domain::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// When a run is due by the clock: `off`, `daily 03:00` (UTC) or `every 3600` (seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Never.
    Off,
    /// Once a day.
    Daily {
        /// Hour, UTC, 0 to 23.
        hour: u8,
        /// Minute, 0 to 59.
        minute: u8,
    },
    /// Again and again.
    Every {
        /// Seconds from one to the next, at least 1.
        seconds: u32,
    },
}

impl Schedule {
    /// Whether an appointment lies after `since` and not after `now`. One that was missed, because the
    /// machine was off or there was nothing new, is made up for once.
    pub fn is_due(self, since: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::Off => false,
            Self::Every { seconds } => now.since_ms(since) >= i64::from(seconds) * 1000,
            Self::Daily { hour, minute } => {
                let offset = (i64::from(hour) * 60 + i64::from(minute)) * 60_000;
                let latest = now.0 - (now.0 - offset).rem_euclid(DAY_MS);
                since.0 < latest
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Daily { hour, minute } => write!(f, "daily {hour:02}:{minute:02}"),
            Self::Every { seconds } => write!(f, "every {seconds}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || match text.split_once(' ') {
            None if text == "off" => Some(Self::Off),
            Some(("daily", time)) => {
                let (hour, minute) = time.split_once(':')?;
                let (hour, minute) = (digits(hour)?, digits(minute)?);
                (hour < 24 && minute < 60).then_some(Self::Daily { hour, minute })
            }
            Some(("every", seconds)) => {
                let seconds: u32 = seconds.parse().ok()?;
                (seconds > 0).then_some(Self::Every { seconds })
            }
            _ => None,
        };
        read().ok_or_else(|| Error::Schedule(text.to_owned()))
    }
}

/// Exactly two digits.
fn digits(text: &str) -> Option<u8> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| {
            let hint = error.hint().unwrap_or_default();
            serde::de::Error::custom(format!("{error}; {hint}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_schedule_reads_what_it_writes_and_refuses_the_rest() {
        for text in ["off", "daily 03:00", "daily 23:59", "every 90"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "on",
            "daily",
            "daily 3:00",
            "daily 24:00",
            "daily 12:60",
            "daily +1:00",
            "every 0",
            "every -1",
            "every x",
            "daily 03:00 ",
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert_eq!(error, Error::Schedule(text.to_owned()));
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn daily_is_due_once_after_its_time() {
        let daily: Schedule = "daily 03:00".parse().unwrap();
        let due = |since, now| daily.is_due(Timestamp(since), Timestamp(now));
        let day = 20_000 * DAY_MS;
        assert!(!due(day, day + 3 * HOUR - 1));
        assert!(due(day, day + 3 * HOUR));
        assert!(due(day + 3 * HOUR - 1, day + 3 * HOUR));
        assert!(!due(day + 3 * HOUR, day + 26 * HOUR), "it ran today");
        assert!(due(day + 3 * HOUR, day + 27 * HOUR));
        assert!(due(day, day + 90 * HOUR), "missed appointments are made up for");
        assert!(!due(day + 90 * HOUR, day + 90 * HOUR + 1), "but once");
    }

    #[test]
    fn every_counts_from_the_last() {
        let every = Schedule::Every { seconds: 60 };
        assert!(!every.is_due(Timestamp(0), Timestamp(59_999)));
        assert!(every.is_due(Timestamp(0), Timestamp(60_000)));
        assert!(!Schedule::Off.is_due(Timestamp(0), Timestamp(i64::MAX)));
    }
}
