//! Names of files: table, day and the positions that they cover.

use std::{collections::BTreeMap, fmt, str::FromStr};

use autoglm_domain::{Span, Timestamp};

/// A file's name below the lake's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// The event's name.
    pub event: String,
    /// The day on which the events happened, UTC: `2026-11-29`.
    pub date: String,
    /// First position that it covers. It holds those events of the stretch that are of its table and day.
    pub first: i64,
    /// Last position that it covers.
    pub last: i64,
}

impl FileName {
    /// The file of `event` for a day that covers `span`.
    pub fn new(event: &str, date: &str, span: Span) -> Self {
        Self { event: event.to_owned(), date: date.to_owned(), first: span.after + 1, last: span.upto }
    }

    /// What it covers.
    pub fn span(&self) -> Span {
        Span { after: self.first - 1, upto: self.last }
    }

    /// The folder that it is in.
    pub fn folder(&self) -> String {
        format!("event={}/date={}", self.event, self.date)
    }

    /// The day of a moment.
    pub fn date(at: Timestamp) -> String {
        let moment = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        moment.strftime("%Y-%m-%d").to_string()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016}-{:016}.parquet", self.folder(), self.first, self.last)
    }
}

impl FromStr for FileName {
    type Err = ();

    /// The inverse of `to_string`; anything else is none of our files.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('/');
        let (Some(event), Some(date), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        let (first, last) = file.strip_suffix(".parquet").and_then(|it| it.split_once('-')).ok_or(())?;
        let name = Self {
            event: event.strip_prefix("event=").ok_or(())?.to_owned(),
            date: date.strip_prefix("date=").ok_or(())?.to_owned(),
            first: first.parse().map_err(|_| ())?,
            last: last.parse().map_err(|_| ())?,
        };
        if name.first >= 1 && name.first <= name.last && name.to_string() == text {
            Ok(name)
        } else {
            Err(())
        }
    }
}

/// The files that count: those that no other file of the same table and day covers. In order of their names.
pub fn counting(names: impl IntoIterator<Item = FileName>) -> Vec<FileName> {
    let mut folders = BTreeMap::<(String, String), Vec<FileName>>::new();
    for name in names {
        folders.entry((name.event.clone(), name.date.clone())).or_default().push(name);
    }
    let mut counted = Vec::new();
    for (_, mut files) in folders {
        // Where two begin at one position the wider one comes first.
        files.sort_by_key(|file| (file.first, -file.last));
        let mut reached = 0;
        for file in files {
            if file.last > reached {
                reached = file.last;
                counted.push(file);
            }
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: i64, last: i64) -> FileName {
        FileName { event: "feedback".into(), date: "2026-11-29".into(), first, last }
    }

    #[test]
    fn a_name_reads_back_and_nothing_else_is_one() {
        let text = "event=feedback/date=2026-11-29/0000000000000001-0000000000000256.parquet";
        assert_eq!(name(1, 256).to_string(), text);
        assert_eq!(text.parse(), Ok(name(1, 256)));
        assert_eq!(name(1, 256).span(), Span { after: 0, upto: 256 });
        for other in [
            "_lake.json",
            "event=feedback/date=2026-11-29/1-256.parquet",
            "event=feedback/date=2026-11-29/0000000000000256-0000000000000001.parquet",
            "event=feedback/date=2026-11-29/0000000000000001-0000000000000256.parquet#1",
            "feedback/2026-11-29/0000000000000001-0000000000000256.parquet",
        ] {
            assert_eq!(other.parse::<FileName>(), Err(()), "{other}");
        }
    }

    #[test]
    fn of_files_that_cover_the_same_the_widest_counts() {
        let files = [name(1, 7), name(8, 256), name(1, 256), name(257, 260), name(257, 300)];
        assert_eq!(counting(files), [name(1, 256), name(257, 300)]);
        assert_eq!(counting([name(8, 256), name(1, 7)]), [name(1, 7), name(8, 256)]);
    }

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(FileName::date(Timestamp(1_795_996_799_999)), "2026-11-29");
        assert_eq!(FileName::date(Timestamp(1_795_996_800_000)), "2026-11-30");
        assert_eq!(FileName::date(Timestamp(i64::MAX)), "1970-01-01");
    }
}
