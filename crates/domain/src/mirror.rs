//! Ports of the mirrors: copies of the journal where other systems read it.
//!
//! The journal is the truth. A mirror follows it batch by batch, and a [`Cursor`] that is kept durably says how far it
//! is. Before a batch is delivered its end is written down, so that whoever repeats it after a crash delivers the same
//! batch: neither more of the journal nor less.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, RecordedEvent, Result, Store, Timestamp};

/// A stretch of the journal: the positions `after + 1` to `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The position before the first.
    pub after: i64,
    /// The last position.
    pub upto: i64,
}

impl Span {
    /// How many positions there are in it.
    pub fn len(self) -> u64 {
        self.upto.saturating_sub(self.after).try_into().unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.upto <= self.after
    }

    /// Whether every position of `other` is in it.
    pub fn holds(self, other: Self) -> bool {
        self.after <= other.after && other.upto <= self.upto
    }

    /// Its events, up to `most` at a time.
    pub fn pages(self, store: &dyn Store, most: usize) -> Pages<'_> {
        Pages { store, span: self, at: self.after, found: 0, most }
    }
}

/// Reads a stretch of the journal page by page, and makes sure that nothing is lacking.
pub struct Pages<'a> {
    store: &'a dyn Store,
    span: Span,
    at: i64,
    found: u64,
    most: usize,
}

impl Pages<'_> {
    /// The next page; `None` after the last.
    ///
    /// # Errors
    /// Those of the store, and `Internal` where it does not give every event of the stretch.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordedEvent>>> {
        if self.at < self.span.upto {
            let mut page = self.store.events_after(self.at, self.most).await?;
            page.retain(|recorded| recorded.seq <= self.span.upto);
            if let Some(last) = page.last() {
                self.at = last.seq;
                self.found += page.len() as u64;
                return Ok(Some(page));
            }
        }
        let (Span { after, .. }, found, expected) = (self.span, self.found, self.span.len());
        match found == expected {
            true => Ok(None),
            false => Err(Error::internal(format!(
                "the journal gave {found} of {expected} events after position {after}"
            ))),
        }
    }
}

/// How far a mirror is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything up to here was delivered.
    pub seq: i64,
    /// The end of the batch after it that was begun; `seq` where none was.
    pub begun: i64,
}

impl Cursor {
    /// Everything up to `seq` was delivered, and nothing is begun.
    pub fn at(seq: i64) -> Self {
        Self { seq, begun: seq }
    }

    /// The batch that was begun.
    pub fn batch(self) -> Option<Span> {
        (self.begun > self.seq).then_some(Span { after: self.seq, upto: self.begun })
    }
}

/// Port: the cursors, kept where the journal is.
#[async_trait::async_trait]
pub trait Cursors: Send + Sync {
    /// Position of the latest event; 0 when there is none.
    async fn last_seq(&self) -> Result<i64>;

    /// Every cursor with its mirror's name, by name.
    async fn cursors(&self) -> Result<Vec<(String, Cursor)>>;

    /// The cursor of `mirror`; `None` where it never had one.
    async fn cursor(&self, mirror: &str) -> Result<Option<Cursor>> {
        let all = self.cursors().await?;
        Ok(all.into_iter().find(|(name, _)| name == mirror).map(|(_, cursor)| cursor))
    }

    /// Keeps the cursor of `mirror` durably. `Conflict` when that one is further already: a cursor never goes back.
    /// `Invalid` when it begins a batch before its own position, or at one that is not there.
    async fn set_cursor(&self, mirror: &str, cursor: Cursor) -> Result<()>;
}

/// Port: one copy of the journal. Reads what it delivers from a [`crate::Store`] of its own.
#[async_trait::async_trait]
pub trait Mirror: Send + Sync {
    /// Its name: `kafka`, `lake`.
    fn name(&self) -> &'static str;

    /// How long to wait after everything was delivered before looking for more.
    fn pace(&self) -> Duration;

    /// Where the batch after position `after` ends, when the journal ends at `last`, which is beyond `after`.
    fn batch_end(&self, after: i64, last: i64) -> i64;

    /// Delivers every event of `span`, and returns once it is sure that whoever reads the mirror has them. What was
    /// delivered before and is delivered again must be recognisable, or change nothing.
    ///
    /// `Unavailable` when a broker or a bucket stands in the way, for as long as it does; `Denied` where it refuses.
    async fn deliver(&self, span: Span) -> Result<()>;
}

/// How a mirror is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorHealth {
    /// It has everything, but for what is being delivered now.
    Healthy,
    /// It is further behind than one batch, and on its way.
    CatchingUp,
    /// The last try failed; it is tried again.
    Failing,
    /// Another process feeds it, or none does.
    Idle,
}

/// How far a mirror is and why it is not further.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MirrorState {
    /// Its name.
    pub name: String,
    /// How it is doing.
    pub health: MirrorHealth,
    /// Everything up to here was delivered.
    pub seq: i64,
    /// Events that it lacks.
    pub behind: u64,
    /// Since when it has been doing so.
    pub since: Timestamp,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure, also when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_and_holds_what_it_says() {
        let span = |after, upto| Span { after, upto };
        assert_eq!((span(3, 7).len(), span(3, 3).len(), span(3, 1).len()), (4, 0, 0));
        assert!(span(3, 7).holds(span(3, 5)) && span(3, 7).holds(span(6, 7)));
        assert!(!span(3, 7).holds(span(2, 5)) && !span(3, 7).holds(span(6, 8)));
        assert_eq!(Cursor { seq: 3, begun: 7 }.batch(), Some(span(3, 7)));
        assert_eq!(Cursor::at(3).batch(), None);
    }
}
