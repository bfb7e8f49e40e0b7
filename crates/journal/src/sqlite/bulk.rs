//! What comes in most, answers, their assessments and pairs of a shadow, written many rows at a time.
//!
//! A statement of its own for each row costs more in handing it to SQLite's thread and back than in SQLite. Appends that
//! hold nothing else are therefore put together: a batch of one kind is one round from `BEGIN` to `COMMIT`, others are a
//! round for every [`MOST`] rows. A row that cannot be (an id that is there already, an assessment of no interaction)
//! breaks a constraint of its table; then the transaction is taken back and the appends are applied one by one, which
//! finds out whose it was.

use std::{ops::Range, sync::LazyLock};

use autoglm_domain::Event;
use sqlx::SqliteConnection;

use crate::{
    JournalError,
    apply::SHADOW_PAIR,
    db::{Arg, Db},
    record::Prepared,
    writer::{Append, Outcome, apply_batch},
};

/// Most rows of one round.
const MOST: usize = 32;

/// Statements by the number of their rows, from 1 on.
type ByRows = LazyLock<Vec<String>>;

static INTERACTIONS: ByRows = LazyLock::new(|| (1..=MOST).map(interactions).collect());
static ASSESSMENTS: ByRows = LazyLock::new(|| (1..=MOST).map(assessments).collect());
static PAIRS: ByRows = LazyLock::new(|| (1..=MOST).map(pairs).collect());
/// The same with a transaction around them.
static INTERACTIONS_ALONE: ByRows = LazyLock::new(|| alone(&INTERACTIONS));
static ASSESSMENTS_ALONE: ByRows = LazyLock::new(|| alone(&ASSESSMENTS));
static PAIRS_ALONE: ByRows = LazyLock::new(|| alone(&PAIRS));

fn alone(statements: &[String]) -> Vec<String> {
    statements.iter().map(|statement| format!("BEGIN IMMEDIATE; {statement}; COMMIT")).collect()
}

/// `$1` position, `$2` time, `$3` JSON, `$4` id, and so on for every row.
fn interactions(rows: usize) -> String {
    let at = |n: usize, place: usize| format!("${}", n * 4 + place);
    let marks = values(rows, |n| format!("({}, {})", at(n, 1), at(n, 4)));
    format!("{}; INSERT INTO interactions (seq, id) VALUES {marks}", events("interaction", rows, at))
}

/// `$1` position, `$2` time, `$3` JSON, `$4` gain, `$5` distance, `$6` the rollout's id, `$7` its own, and so on for every
/// row.
fn pairs(rows: usize) -> String {
    let at = |n: usize, place: usize| format!("${}", n * 7 + place);
    let of_row =
        |n| format!("({}, {}, {}, {}, {}, {})", at(n, 1), at(n, 7), at(n, 1), at(n, 6), at(n, 4), at(n, 5));
    let marks = values(rows, of_row);
    let pairs = SHADOW_PAIR.replacen("($1, $2, $1, $3, $4, $5)", &marks, 1);
    format!("{}; {pairs}", events("shadow_pair", rows, at))
}

/// `$1` position, `$2` time, `$3` JSON, `$4` position where it is judged, `$5` feedback seen, `$6` the interaction's id,
/// `$7` its own, and so on for every row.
fn assessments(rows: usize) -> String {
    let at = |n: usize, place: usize| format!("${}", n * 7 + place);
    let events = events("assessment", rows, at);
    let taken_in = values(rows, |n| format!("({}, {}, {}, {})", at(n, 1), at(n, 4), at(n, 5), at(n, 6)));
    // Where there is no such interaction the place of its position stays empty, which the table refuses.
    let marks = values(rows, |n| {
        format!("({}, {}, (SELECT seq FROM interactions WHERE id = {}))", at(n, 1), at(n, 7), at(n, 6))
    });
    format!(
        "{events};
         WITH it (seq, judged, seen, id) AS (VALUES {taken_in})
         UPDATE interactions SET
            assessment_seq = it.seq, judged_seq = it.judged, feedback_seen = it.seen,
            awaiting = CASE WHEN feedback_count > it.seen THEN 2 ELSE 0 END
         FROM it WHERE interactions.id = it.id;
         INSERT INTO assessments (seq, id, interaction_seq) VALUES {marks}"
    )
}

/// The rows in `events`; `at` gives the name of a value by its row and its place there.
fn events(name: &str, rows: usize, at: impl Fn(usize, usize) -> String) -> String {
    let rows = values(rows, |n| format!("({}, '{name}', {}, {})", at(n, 1), at(n, 2), at(n, 3)));
    format!("INSERT INTO events (seq, name, at, json) VALUES {rows}")
}

fn values(rows: usize, row: impl Fn(usize) -> String) -> String {
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// What an append holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Interactions,
    /// Of as many interactions.
    Assessments,
    Pairs,
    /// Something else, or several things, or a mirror's cursor.
    Other,
}

pub(super) fn kind(append: &Append) -> Kind {
    let all = |is: fn(&Event) -> bool| append.records.iter().all(|record| is(&record.event));
    match append.records.first().map(|record| &record.event) {
        _ if append.cursor.is_some() => Kind::Other,
        Some(Event::Interaction(_)) if all(|it| matches!(it, Event::Interaction(_))) => Kind::Interactions,
        Some(Event::Assessment(_)) if all(|it| matches!(it, Event::Assessment(_))) => Kind::Assessments,
        Some(Event::ShadowPair(_)) if all(|it| matches!(it, Event::ShadowPair(_))) => Kind::Pairs,
        _ => Kind::Other,
    }
}

/// What a row is made of.
struct Row<'a> {
    seq: i64,
    record: &'a Prepared,
    id: String,
    of: Of,
}

/// What else is in it.
enum Of {
    Interaction,
    /// Where it was judged, the feedback that it has seen, the interaction.
    Assessment(Option<i64>, i64, String),
    /// Gain, distance, the rollout.
    Pair(f64, f64, String),
}

impl<'a> Row<'a> {
    /// `None` of other events than these.
    fn of(record: &'a Prepared, seq: i64) -> Option<Self> {
        let (id, of) = match &record.event {
            Event::Interaction(it) => (it.id.to_string(), Of::Interaction),
            Event::Assessment(it) => {
                let judged = it.is_judged().then_some(seq);
                let of = Of::Assessment(judged, i64::from(it.feedback_seen), it.interaction.to_string());
                (it.id.to_string(), of)
            }
            Event::ShadowPair(it) => {
                (it.id.to_string(), Of::Pair(it.gain(), it.diff.distance, it.rollout.to_string()))
            }
            _ => return None,
        };
        Some(Self { seq, record, id, of })
    }

    /// In the order of the statements.
    fn args(&self) -> impl Iterator<Item = Arg<'_>> {
        let all = [self.seq.into(), self.record.event.at().0.into(), (&self.record.json).into()];
        let of = match &self.of {
            Of::Interaction => None,
            Of::Assessment(judged, seen, of) => Some([Arg::from(*judged), Arg::from(*seen), Arg::from(of)]),
            Of::Pair(gain, distance, of) => Some([Arg::from(*gain), Arg::from(*distance), Arg::from(of)]),
        };
        all.into_iter().chain(of.into_iter().flatten()).chain([Arg::from(&self.id)])
    }
}

fn rows(run: &[Append], last: i64) -> Vec<Row<'_>> {
    let records = run.iter().flat_map(|append| &append.records);
    records.zip(last + 1..).filter_map(|(record, seq)| Row::of(record, seq)).collect()
}

/// Neighbours of one kind. A second assessment of one interaction begins another run, for which of the two comes last is
/// what counts.
fn runs(appends: &[Append]) -> Vec<(Kind, Range<usize>)> {
    let mut runs: Vec<(Kind, Range<usize>)> = Vec::new();
    let mut assessed = std::collections::HashSet::new();
    for (at, append) in appends.iter().enumerate() {
        let mut kind = kind(append);
        let mut goes_on = runs.last().is_some_and(|(before, _)| *before == kind);
        if kind == Kind::Assessments {
            let of = |record: &Prepared| match &record.event {
                Event::Assessment(it) => Some(it.interaction),
                _ => None,
            };
            let new = append.records.iter().filter_map(of).filter(|of| assessed.insert(*of)).count();
            if new < append.records.len() {
                (kind, goes_on) = (Kind::Other, false);
            }
        }
        match runs.last_mut() {
            Some((_, run)) if goes_on => run.end = at + 1,
            _ => runs.push((kind, at..at + 1)),
        }
    }
    runs
}

/// Whether a statement was refused by a table, and nothing is wrong with the database.
pub(super) fn is_refusal(error: &JournalError) -> bool {
    matches!(error, JournalError::Sql { .. })
}

/// Writes a batch that is small and of one kind, from the beginning of its transaction to its end, after position `last`:
/// how many events. `None` where it is not such a batch, and nothing was done.
pub(super) async fn commit(
    db: &mut SqliteConnection,
    last: i64,
    appends: &[Append],
) -> Option<Result<i64, JournalError>> {
    let [(kind, _)] = runs(appends)[..] else { return None };
    let statements = match kind {
        Kind::Interactions => &INTERACTIONS_ALONE,
        Kind::Assessments => &ASSESSMENTS_ALONE,
        Kind::Pairs => &PAIRS_ALONE,
        Kind::Other => return None,
    };
    let rows = rows(appends, last);
    let statement = statements.get(rows.len().checked_sub(1)?)?;
    let args: Vec<Arg<'_>> = rows.iter().flat_map(Row::args).collect();
    Some(db.execute(statement, &args).await.map(|_| rows.len() as i64))
}

/// Applies a batch after position `last` within a transaction, as [`apply_batch`] does for whoever leads; the position of
/// its last event.
pub(super) async fn apply(
    db: &mut SqliteConnection,
    mut last: i64,
    appends: &[Append],
) -> Result<(i64, Vec<Outcome>), JournalError> {
    let mut outcomes = Vec::with_capacity(appends.len());
    for (kind, run) in runs(appends) {
        let run = appends.get(run).unwrap_or_default();
        let statements = match kind {
            Kind::Interactions => &INTERACTIONS,
            Kind::Assessments => &ASSESSMENTS,
            Kind::Pairs => &PAIRS,
            Kind::Other => {
                let (reached, found) = apply_batch(db, last, true, run).await?;
                last = reached;
                outcomes.extend(found);
                continue;
            }
        };
        let rows = rows(run, last);
        for some in rows.chunks(MOST) {
            let args: Vec<Arg<'_>> = some.iter().flat_map(Row::args).collect();
            if let Some(statement) = statements.get(some.len() - 1) {
                db.execute(statement, &args).await?;
            }
        }
        last += rows.len() as i64;
        outcomes.extend(run.iter().map(|_| Ok(())));
    }
    Ok((last, outcomes))
}
