//! Reading: each question is one statement, two where feedback belongs to the answer.

use std::collections::HashMap;

use autoglm_domain::{
    Alias, AliasMove, Assessment, ErrorPattern, Experience, ExperienceAmendment, Feedback, InteractionRecord,
    ModelVersion, PairOrder, RecordedEvent, Rollout, RolloutId, RolloutProgress, ShadowPair, TrainingRun,
    VersionNumber,
};
use serde::de::DeserializeOwned;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, query::QueryAs, sqlite::SqliteArguments};

use crate::{
    JournalError,
    record::{decode, decode_as, from_bytes},
};

/// A statement that gives a position and the JSON that is stored there.
pub(crate) type Bodies = QueryAs<'static, Sqlite, (i64, String), SqliteArguments>;

/// The columns of an interaction with its latest assessment.
macro_rules! interactions {
    ($rest:literal) => {
        concat!(
            "SELECT i.seq, e.json, a.seq, a.json FROM interactions i JOIN events e ON e.seq = i.seq
             LEFT JOIN events a ON a.seq = i.assessment_seq ",
            $rest
        )
    };
}

pub(crate) const INTERACTION: &str = interactions!("WHERE i.id = ?");
pub(crate) const RECENT: &str = interactions!("ORDER BY i.seq DESC LIMIT ?");
pub(crate) const AWAITING: &str = interactions!("WHERE i.awaiting = 1 ORDER BY i.seq LIMIT ?");
pub(crate) const LAG: &str = "SELECT count(*) FROM interactions WHERE awaiting = 1";
pub(crate) const FEEDBACK: &str = "SELECT f.interaction_seq, f.seq, e.json FROM json_each(?) one
    JOIN feedback f ON f.interaction_seq = one.value JOIN events e ON e.seq = f.seq ORDER BY f.seq";
pub(crate) const EVENTS: &str =
    "SELECT seq, name, json, vector FROM events WHERE seq > ? ORDER BY seq LIMIT ?";
pub(crate) const JUDGED: &str =
    "SELECT e.seq, e.json FROM interactions i JOIN events e ON e.seq = i.judged_seq
    WHERE i.judged_seq IS NOT NULL ORDER BY i.judged_seq DESC LIMIT ?";

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
pub(crate) const EXPERIENCE: &str = experiences!("WHERE x.id = ?");
pub(crate) const PATTERNS: &str = "SELECT e.seq, e.json, e.vector FROM patterns p
    JOIN events e ON e.seq = p.latest_seq ORDER BY p.count DESC, p.first_seq";
pub(crate) const VERSIONS: &str =
    "SELECT e.seq, e.json FROM versions v JOIN events e ON e.seq = v.seq ORDER BY v.seq";
pub(crate) const VERSION: &str =
    "SELECT e.seq, e.json FROM versions v JOIN events e ON e.seq = v.seq WHERE v.number = ?";
pub(crate) const RUNS: &str =
    "SELECT e.seq, e.json FROM runs r JOIN events e ON e.seq = r.latest_seq ORDER BY r.first_seq";
pub(crate) const RUN: &str =
    "SELECT e.seq, e.json FROM runs r JOIN events e ON e.seq = r.latest_seq WHERE r.id = ?";
pub(crate) const ROLLOUTS: &str =
    "SELECT e.seq, e.json FROM rollouts r JOIN events e ON e.seq = r.latest_seq ORDER BY r.first_seq";
pub(crate) const OLDEST_PAIRS: &str =
    "SELECT e.seq, e.json FROM shadow_pairs p JOIN events e ON e.seq = p.latest_seq
    WHERE p.rollout = ? ORDER BY p.first_seq LIMIT ?";
pub(crate) const WORST_PAIRS: &str =
    "SELECT e.seq, e.json FROM shadow_pairs p JOIN events e ON e.seq = p.latest_seq
    WHERE p.rollout = ? ORDER BY p.gain, p.first_seq LIMIT ?";
pub(crate) const MOST_DIFFERENT_PAIRS: &str =
    "SELECT e.seq, e.json FROM shadow_pairs p JOIN events e ON e.seq = p.latest_seq
    WHERE p.rollout = ? ORDER BY p.distance DESC, p.first_seq LIMIT ?";
pub(crate) const PROGRESS: &str =
    "SELECT e.seq, e.json FROM rollout_progress p JOIN events e ON e.seq = p.seq
    WHERE p.rollout = ? ORDER BY p.seq DESC LIMIT ?";
pub(crate) const ALIASES: &str = "SELECT name, number FROM aliases ORDER BY name";
pub(crate) const ALIAS_MOVES: &str = "SELECT e.seq, e.json FROM alias_moves m JOIN events e ON e.seq = m.seq
    WHERE m.alias = ? ORDER BY m.seq";
pub(crate) const LAST_SEQ: &str = "SELECT coalesce(max(seq), 0) FROM events";

/// A limit as SQLite's signed integer.
pub(crate) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(crate) async fn bodies<T: DeserializeOwned>(
    pool: &SqlitePool,
    query: Bodies,
) -> Result<Vec<T>, JournalError> {
    let rows = query.fetch_all(pool).await?;
    rows.into_iter().map(|(seq, json)| decode_as(seq, &json)).collect()
}

pub(crate) async fn body<T: DeserializeOwned>(
    pool: &SqlitePool,
    query: Bodies,
) -> Result<Option<T>, JournalError> {
    let row = query.fetch_optional(pool).await?;
    row.map(|(seq, json)| decode_as(seq, &json)).transpose()
}

pub(crate) async fn events_after(
    pool: &SqlitePool,
    seq: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>, JournalError> {
    let rows: Vec<(i64, String, String, Option<Vec<u8>>)> =
        sqlx::query_as(EVENTS).bind(seq).bind(limit).fetch_all(pool).await?;
    let recorded = |(seq, name, json, vector): (i64, String, String, Option<Vec<u8>>)| {
        Ok(RecordedEvent { seq, event: decode(seq, &name, &json, vector.as_deref())? })
    };
    rows.into_iter().map(recorded).collect()
}

type InteractionRow = (i64, String, Option<i64>, Option<String>);

/// Interactions of `query`, in its order, with their feedback: both statements see one moment.
pub(crate) async fn interactions(
    pool: &SqlitePool,
    query: QueryAs<'static, Sqlite, InteractionRow, SqliteArguments>,
) -> Result<Vec<InteractionRecord>, JournalError> {
    let mut moment = pool.begin().await?;
    let rows = query.fetch_all(&mut *moment).await?;
    let mut feedback = feedback_of(&mut moment, rows.iter().map(|row| row.0).collect()).await?;
    moment.rollback().await?;
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

/// The feedback on each of `interactions`, oldest first.
async fn feedback_of(
    db: &mut SqliteConnection,
    interactions: Vec<i64>,
) -> Result<HashMap<i64, Vec<Feedback>>, JournalError> {
    let mut feedback = HashMap::<i64, Vec<Feedback>>::new();
    if interactions.is_empty() {
        return Ok(feedback);
    }
    let interactions = format!("{interactions:?}"); // `[1, 2]`, which is JSON
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(FEEDBACK).bind(interactions).fetch_all(db).await?;
    for (interaction, seq, json) in rows {
        feedback.entry(interaction).or_default().push(decode_as(seq, &json)?);
    }
    Ok(feedback)
}

type ExperienceRow = (i64, String, Option<Vec<u8>>, Option<i64>, Option<String>);

/// Experiences of `query`, in its order, with their embeddings and latest amendments.
pub(crate) async fn experiences(
    pool: &SqlitePool,
    query: QueryAs<'static, Sqlite, ExperienceRow, SqliteArguments>,
) -> Result<Vec<Experience>, JournalError> {
    let rows = query.fetch_all(pool).await?;
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

pub(crate) async fn patterns(pool: &SqlitePool) -> Result<Vec<ErrorPattern>, JournalError> {
    let rows: Vec<(i64, String, Option<Vec<u8>>)> = sqlx::query_as(PATTERNS).fetch_all(pool).await?;
    let pattern = |(seq, json, vector): (i64, String, Option<Vec<u8>>)| {
        let mut pattern: ErrorPattern = decode_as(seq, &json)?;
        pattern.centroid = from_bytes(seq, vector.as_deref().unwrap_or_default())?;
        Ok(pattern)
    };
    rows.into_iter().map(pattern).collect()
}

pub(crate) async fn aliases(pool: &SqlitePool) -> Result<Vec<(Alias, VersionNumber)>, JournalError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(ALIASES).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(name, number)| (Alias(name), VersionNumber(number.unsigned_abs()))).collect())
}

pub(crate) async fn versions(pool: &SqlitePool) -> Result<Vec<ModelVersion>, JournalError> {
    bodies(pool, sqlx::query_as(VERSIONS)).await
}

pub(crate) async fn runs(pool: &SqlitePool) -> Result<Vec<TrainingRun>, JournalError> {
    bodies(pool, sqlx::query_as(RUNS)).await
}

pub(crate) async fn rollouts(pool: &SqlitePool) -> Result<Vec<Rollout>, JournalError> {
    bodies(pool, sqlx::query_as(ROLLOUTS)).await
}

pub(crate) async fn shadow_pairs(
    pool: &SqlitePool,
    rollout: RolloutId,
    order: PairOrder,
    limit: i64,
) -> Result<Vec<ShadowPair>, JournalError> {
    let statement = match order {
        PairOrder::Oldest => OLDEST_PAIRS,
        PairOrder::Worst => WORST_PAIRS,
        PairOrder::MostDifferent => MOST_DIFFERENT_PAIRS,
    };
    bodies(pool, sqlx::query_as(statement).bind(rollout.to_string()).bind(limit)).await
}

pub(crate) async fn rollout_progress(
    pool: &SqlitePool,
    rollout: RolloutId,
    limit: i64,
) -> Result<Vec<RolloutProgress>, JournalError> {
    bodies(pool, sqlx::query_as(PROGRESS).bind(rollout.to_string()).bind(limit)).await
}

pub(crate) async fn alias_history(pool: &SqlitePool, alias: &Alias) -> Result<Vec<AliasMove>, JournalError> {
    bodies(pool, sqlx::query_as(ALIAS_MOVES).bind(alias.0.clone())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each statement finds its rows by an index, or walks a table in the order it is asked for.
    #[tokio::test]
    async fn no_question_scans_or_sorts_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite");
        let (mut db, _) = crate::open::open(&path, &crate::Config::default()).await.unwrap();
        let whole_tables =
            [EXPERIENCES, VERSIONS, RUNS, ROLLOUTS, RECENT, PATTERNS, ALIASES, JUDGED, AWAITING, LAG];
        let by_key = [INTERACTION, FEEDBACK, EVENTS, EXPERIENCE, VERSION, RUN, ALIAS_MOVES, LAST_SEQ];
        let of_a_rollout = [OLDEST_PAIRS, WORST_PAIRS, MOST_DIFFERENT_PAIRS, PROGRESS];
        for statement in whole_tables.iter().chain(&by_key).chain(&of_a_rollout) {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&mut db).await.unwrap();
            let plan: Vec<String> = plan.into_iter().map(|row| row.3).collect();
            let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
            // Feedback of a few interactions is put in order, which no index of the whole table could do.
            assert!(!sorts || *statement == FEEDBACK, "{statement}\n{plan:#?}");
            let scans = plan.iter().filter(|step| step.starts_with("SCAN") && !step.contains("VIRTUAL"));
            let scans: Vec<_> = scans.filter(|step| !step.contains("INDEX interactions_")).collect();
            assert!(scans.is_empty() || whole_tables.contains(statement), "{statement}\n{plan:#?}");
        }
        for (statement, index) in [
            (AWAITING, "interactions_awaiting"),
            (LAG, "interactions_awaiting"),
            (JUDGED, "interactions_judged"),
        ] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(&mut db).await.unwrap();
            assert!(plan[0].3.contains(index), "{statement}\n{plan:#?}");
        }
    }
}
