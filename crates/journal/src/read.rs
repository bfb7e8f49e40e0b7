//! Reading: each question is one statement, two where feedback belongs to the answer. The same for every engine.

use std::collections::HashMap;

use autoglm_domain::{
    Alias, Assessment, Cursor, ErrorPattern, Experience, ExperienceAmendment, Feedback, Id, IdKind,
    InteractionRecord, RecordedEvent, VersionNumber,
};
use serde::de::DeserializeOwned;

use crate::{
    JournalError,
    db::{Arg, Db},
    record::{decode, decode_as, from_bytes},
};

/// The columns of an interaction with its latest assessment.
macro_rules! interaction_rows {
    ($rest:literal) => {
        concat!(
            "SELECT i.seq, e.json, a.seq, a.json FROM interactions i JOIN events e ON e.seq = i.seq
             LEFT JOIN events a ON a.seq = i.assessment_seq ",
            $rest
        )
    };
}

/// Pairs as they were last recorded.
macro_rules! pair_rows {
    ($rest:literal) => {
        concat!("SELECT e.seq, e.json FROM shadow_pairs p JOIN events e ON e.seq = p.latest_seq ", $rest)
    };
}

pub(crate) use {interaction_rows, pair_rows};

pub(crate) const INTERACTION: &str = interaction_rows!("WHERE i.id = $1");
pub(crate) const RECENT: &str = interaction_rows!("ORDER BY i.seq DESC LIMIT $1");
pub(crate) const AWAITING: &str =
    interaction_rows!("WHERE i.awaiting > 0 ORDER BY i.awaiting DESC, i.seq LIMIT $1");
pub(crate) const LAG: &str = "SELECT count(*) FROM interactions WHERE awaiting > 0";
pub(crate) const EVENTS: &str =
    "SELECT seq, name, json, vector FROM events WHERE seq > $1 ORDER BY seq LIMIT $2";
pub(crate) const JUDGED: &str =
    "SELECT e.seq, e.json FROM interactions i JOIN events e ON e.seq = i.judged_seq
    WHERE i.judged_seq IS NOT NULL ORDER BY i.judged_seq DESC LIMIT $1";

macro_rules! experiences {
    ($rest:literal) => {
        concat!(
            "SELECT x.seq, e.json, e.vector, a.seq, a.json FROM experiences x JOIN events e ON e.seq = x.seq
             LEFT JOIN events a ON a.seq = x.amended_seq ",
            $rest
        )
    };
}

pub(crate) const EXPERIENCES: &str = experiences!("ORDER BY x.seq");
pub(crate) const EXPERIENCE: &str = experiences!("WHERE x.id = $1");
pub(crate) const PATTERNS: &str = "SELECT e.seq, e.json, e.vector FROM patterns p
    JOIN events e ON e.seq = p.latest_seq ORDER BY p.count DESC, p.first_seq";
pub(crate) const VERSIONS: &str =
    "SELECT e.seq, e.json FROM versions v JOIN events e ON e.seq = v.seq ORDER BY v.seq";
pub(crate) const VERSION: &str =
    "SELECT e.seq, e.json FROM versions v JOIN events e ON e.seq = v.seq WHERE v.number = $1";
pub(crate) const RUNS: &str =
    "SELECT e.seq, e.json FROM runs r JOIN events e ON e.seq = r.latest_seq ORDER BY r.first_seq";
pub(crate) const RUN: &str =
    "SELECT e.seq, e.json FROM runs r JOIN events e ON e.seq = r.latest_seq WHERE r.id = $1";
pub(crate) const ROLLOUTS: &str =
    "SELECT e.seq, e.json FROM rollouts r JOIN events e ON e.seq = r.latest_seq ORDER BY r.first_seq";
pub(crate) const ROLLOUT: &str =
    "SELECT e.seq, e.json FROM rollouts r JOIN events e ON e.seq = r.latest_seq WHERE r.id = $1";
pub(crate) const AB_TESTS: &str =
    "SELECT e.seq, e.json FROM ab_tests t JOIN events e ON e.seq = t.latest_seq ORDER BY t.first_seq";
pub(crate) const AB_TEST: &str =
    "SELECT e.seq, e.json FROM ab_tests t JOIN events e ON e.seq = t.latest_seq WHERE t.id = $1";
pub(crate) const PAIR: &str = pair_rows!("WHERE p.id = $1");
pub(crate) const OLDEST_PAIRS: &str = pair_rows!("WHERE p.rollout = $1 ORDER BY p.first_seq LIMIT $2");
pub(crate) const WORST_PAIRS: &str = pair_rows!("WHERE p.rollout = $1 ORDER BY p.gain, p.first_seq LIMIT $2");
pub(crate) const MOST_DIFFERENT_PAIRS: &str =
    pair_rows!("WHERE p.rollout = $1 ORDER BY p.distance DESC, p.first_seq LIMIT $2");
pub(crate) const PROGRESS: &str =
    "SELECT e.seq, e.json FROM rollout_progress p JOIN events e ON e.seq = p.seq
    WHERE p.rollout = $1 ORDER BY p.seq DESC LIMIT $2";
pub(crate) const ALIASES: &str = "SELECT name, number FROM aliases ORDER BY name";
pub(crate) const ALIAS_MOVES: &str = "SELECT e.seq, e.json FROM alias_moves m JOIN events e ON e.seq = m.seq
    WHERE m.alias = $1 ORDER BY m.seq";
pub(crate) const ANSWERED: &str =
    "SELECT id, seq FROM interactions WHERE seq > $1 AND seq <= $2 ORDER BY seq";
pub(crate) const SAID: &str =
    "SELECT i.id, f.seq FROM feedback f JOIN interactions i ON i.seq = f.interaction_seq
    WHERE f.seq > $1 AND f.seq <= $2 ORDER BY f.seq";
pub(crate) const NEW_PAIRS: &str =
    "SELECT e.seq, e.json FROM shadow_pairs p JOIN events e ON e.seq = p.first_seq
    WHERE p.first_seq > $1 AND p.first_seq <= $2 ORDER BY p.first_seq";
pub(crate) const LAST_SEQ: &str = "SELECT coalesce(max(seq), 0) FROM events";
pub(crate) const CURSORS: &str = "SELECT mirror, seq, begun FROM cursors ORDER BY mirror";
pub(crate) const NAMES: &str = "SELECT name, max(seq) FROM events WHERE seq > $1 AND seq <= $2 GROUP BY name";
pub(crate) const EXPERIENCE_EVENTS: &str = "SELECT seq, name, json, vector FROM events
    WHERE seq > $1 AND seq <= $2 AND name IN ('experience', 'experience_amended') ORDER BY seq LIMIT $3";

/// Position of the latest event.
pub(crate) async fn last_seq(db: &mut impl Db) -> Result<i64, JournalError> {
    let row: Option<(i64,)> = db.row(LAST_SEQ, &[]).await?;
    Ok(row.unwrap_or_default().0)
}

/// A limit as a database's signed integer.
pub(crate) fn limit(limit: usize) -> Arg<'static> {
    i64::try_from(limit).unwrap_or(i64::MAX).into()
}

/// The records whose positions and bodies `statement` gives.
pub(crate) async fn bodies<T: DeserializeOwned>(
    db: &mut impl Db,
    statement: &'static str,
    args: &[Arg<'_>],
) -> Result<Vec<T>, JournalError> {
    let rows: Vec<(i64, String)> = db.rows(statement, args).await?;
    rows.into_iter().map(|(seq, json)| decode_as(seq, &json)).collect()
}

/// The one record whose position and body `statement` gives.
pub(crate) async fn body<T: DeserializeOwned>(
    db: &mut impl Db,
    statement: &'static str,
    args: &[Arg<'_>],
) -> Result<Option<T>, JournalError> {
    Ok(bodies(db, statement, args).await?.pop())
}

/// The events that `statement` gives.
pub(crate) async fn events(
    db: &mut impl Db,
    statement: &'static str,
    args: &[Arg<'_>],
) -> Result<Vec<RecordedEvent>, JournalError> {
    let rows: Vec<(i64, String, String, Option<Vec<u8>>)> = db.rows(statement, args).await?;
    let recorded = |(seq, name, json, vector): (i64, String, String, Option<Vec<u8>>)| {
        Ok(RecordedEvent { seq, event: decode(seq, &name, &json, vector.as_deref())? })
    };
    rows.into_iter().map(recorded).collect()
}

type InteractionRow = (i64, String, Option<i64>, Option<String>);

/// Interactions of `statement`, in its order, with their feedback. In a transaction of [`Db::MOMENT`], so that both
/// statements see one moment.
pub(crate) async fn interactions<D: Db>(
    db: &mut D,
    statement: &'static str,
    args: &[Arg<'_>],
) -> Result<Vec<InteractionRecord>, JournalError> {
    let rows: Vec<InteractionRow> = db.rows(statement, args).await?;
    let mut feedback = feedback_of(db, rows.iter().map(|row| row.0).collect()).await?;
    let record = |(seq, json, assessment_seq, assessment): InteractionRow| {
        Ok(InteractionRecord {
            interaction: decode_as(seq, &json)?,
            feedback: feedback.remove(&seq).unwrap_or_default(),
            assessment: match (assessment_seq, assessment) {
                (Some(seq), Some(json)) => Some(decode_as::<Assessment>(seq, &json)?),
                _ => None,
            },
        })
    };
    rows.into_iter().map(record).collect()
}

/// Ids as a JSON array.
pub(crate) fn list<K: IdKind>(ids: &[Id<K>]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", ids.join(","))
}

/// The feedback on each of `interactions`, oldest first.
async fn feedback_of<D: Db>(
    db: &mut D,
    interactions: Vec<i64>,
) -> Result<HashMap<i64, Vec<Feedback>>, JournalError> {
    let mut feedback = HashMap::<i64, Vec<Feedback>>::new();
    if interactions.is_empty() {
        return Ok(feedback);
    }
    let interactions = format!("{interactions:?}"); // `[1, 2]`, which is JSON
    let rows: Vec<(i64, i64, String)> = db.rows(D::FEEDBACK, &[(&interactions).into()]).await?;
    for (interaction, seq, json) in rows {
        feedback.entry(interaction).or_default().push(decode_as(seq, &json)?);
    }
    Ok(feedback)
}

type ExperienceRow = (i64, String, Option<Vec<u8>>, Option<i64>, Option<String>);

/// Experiences of `statement`, in its order, with their embeddings and latest amendments.
pub(crate) async fn experiences(
    db: &mut impl Db,
    statement: &'static str,
    args: &[Arg<'_>],
) -> Result<Vec<Experience>, JournalError> {
    let rows: Vec<ExperienceRow> = db.rows(statement, args).await?;
    let experience = |(seq, json, vector, amended_seq, amendment): ExperienceRow| {
        let mut experience: Experience = decode_as(seq, &json)?;
        experience.embedding = from_bytes(seq, vector.as_deref().unwrap_or_default())?;
        if let (Some(seq), Some(json)) = (amended_seq, amendment) {
            let amendment: ExperienceAmendment = decode_as(seq, &json)?;
            experience.weight = amendment.weight;
            experience.provenance = amendment.provenance;
        }
        Ok(experience)
    };
    rows.into_iter().map(experience).collect()
}

pub(crate) async fn patterns(db: &mut impl Db) -> Result<Vec<ErrorPattern>, JournalError> {
    let rows: Vec<(i64, String, Option<Vec<u8>>)> = db.rows(PATTERNS, &[]).await?;
    let pattern = |(seq, json, vector): (i64, String, Option<Vec<u8>>)| {
        let mut pattern: ErrorPattern = decode_as(seq, &json)?;
        pattern.centroid = from_bytes(seq, vector.as_deref().unwrap_or_default())?;
        Ok(pattern)
    };
    rows.into_iter().map(pattern).collect()
}

pub(crate) async fn aliases(db: &mut impl Db) -> Result<Vec<(Alias, VersionNumber)>, JournalError> {
    let rows: Vec<(String, i64)> = db.rows(ALIASES, &[]).await?;
    Ok(rows.into_iter().map(|(name, number)| (Alias(name), VersionNumber(number.unsigned_abs()))).collect())
}

pub(crate) async fn cursors(db: &mut impl Db) -> Result<Vec<(String, Cursor)>, JournalError> {
    let rows: Vec<(String, i64, i64)> = db.rows(CURSORS, &[]).await?;
    Ok(rows.into_iter().map(|(mirror, seq, begun)| (mirror, Cursor { seq, begun })).collect())
}
