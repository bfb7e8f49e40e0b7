//! What each event does to the tables: one row in the journal, and its mark on a projection.

use autoglm_domain::{
    AliasMove, Assessment, ErrorPattern, Event, Feedback, Id, IdKind, ShadowPair, VersionNumber,
};
use sqlx::{SqliteConnection, sqlite::SqliteQueryResult};

use crate::{JournalError, record::Prepared};

type Applied = Result<(), JournalError>;

/// Writes `record`; the caller's transaction or savepoint makes it whole.
pub(crate) async fn apply(db: &mut SqliteConnection, record: &Prepared) -> Applied {
    let seq = journal(db, record).await?;
    match &record.event {
        Event::Interaction(it) => {
            let row = sqlx::query("INSERT INTO interactions (seq, id) VALUES (?, ?) ON CONFLICT DO NOTHING");
            unique(row.bind(seq).bind(it.id.to_string()).execute(db).await?, noun(it.id), &it.id)
        }
        Event::Feedback(it) => feedback(db, seq, it).await,
        Event::Assessment(it) => assessment(db, seq, it).await,
        Event::Pattern(it) => pattern(db, seq, it).await,
        Event::Experience(it) => {
            let row = sqlx::query("INSERT INTO experiences (seq, id) VALUES (?, ?) ON CONFLICT DO NOTHING");
            unique(row.bind(seq).bind(it.id.to_string()).execute(db).await?, noun(it.id), &it.id)
        }
        Event::ExperienceAmended(it) => {
            let row = sqlx::query("UPDATE experiences SET amended_seq = ? WHERE id = ?");
            let changed = row.bind(seq).bind(it.experience.to_string()).execute(db).await?;
            match changed.rows_affected() {
                0 => Err(missing(noun(it.experience), &it.experience)),
                _ => Ok(()),
            }
        }
        Event::Run(it) => {
            let row = sqlx::query(
                "INSERT INTO runs (first_seq, id, latest_seq) VALUES (?1, ?2, ?1)
                 ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq",
            );
            row.bind(seq).bind(it.id.to_string()).execute(db).await?;
            Ok(())
        }
        Event::Version(it) => {
            let row = sqlx::query("INSERT INTO versions (seq, number) VALUES (?, ?) ON CONFLICT DO NOTHING");
            let done = row.bind(seq).bind(column(&record.event, it.number)?).execute(db).await?;
            unique(done, "version", &it.number)
        }
        Event::Rollout(it) => {
            let row = sqlx::query(
                "INSERT INTO rollouts (first_seq, id, latest_seq) VALUES (?1, ?2, ?1)
                 ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq",
            );
            row.bind(seq).bind(it.id.to_string()).execute(db).await?;
            Ok(())
        }
        Event::ShadowPair(it) => shadow_pair(db, seq, it).await,
        Event::RolloutProgress(it) => {
            let row = sqlx::query("INSERT INTO rollout_progress (seq, rollout) VALUES (?, ?)");
            row.bind(seq).bind(it.rollout.to_string()).execute(db).await?;
            Ok(())
        }
        Event::AliasMoved(it) => alias_moved(db, seq, &record.event, it).await,
    }
}

/// Appends to `events` and returns the position.
async fn journal(db: &mut SqliteConnection, record: &Prepared) -> Result<i64, JournalError> {
    let row = sqlx::query("INSERT INTO events (name, at, json, vector) VALUES (?, ?, ?, ?)");
    let row = row.bind(record.event.name()).bind(record.at().0).bind(&record.json).bind(&record.vector);
    Ok(row.execute(db).await?.last_insert_rowid())
}

async fn feedback(db: &mut SqliteConnection, seq: i64, it: &Feedback) -> Applied {
    let interaction: Option<i64> = sqlx::query_scalar(
        "UPDATE interactions SET
                feedback_count = feedback_count + 1,
                awaiting = feedback_seen IS NULL OR feedback_count + 1 > feedback_seen
             WHERE id = ? RETURNING seq",
    )
    .bind(it.interaction.to_string())
    .fetch_optional(&mut *db)
    .await?;
    let interaction = interaction.ok_or_else(|| missing(noun(it.interaction), &it.interaction))?;
    let row = sqlx::query(
        "INSERT INTO feedback (seq, id, interaction_seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    );
    unique(row.bind(seq).bind(it.id.to_string()).bind(interaction).execute(db).await?, noun(it.id), &it.id)
}

async fn assessment(db: &mut SqliteConnection, seq: i64, it: &Assessment) -> Applied {
    let judged = it.is_judged().then_some(seq);
    let interaction: Option<i64> = sqlx::query_scalar(
        "UPDATE interactions SET
            assessment_seq = ?1, judged_seq = ?2, feedback_seen = ?3, awaiting = feedback_count > ?3
         WHERE id = ?4 RETURNING seq",
    )
    .bind(seq)
    .bind(judged)
    .bind(it.feedback_seen)
    .bind(it.interaction.to_string())
    .fetch_optional(&mut *db)
    .await?;
    let interaction = interaction.ok_or_else(|| missing(noun(it.interaction), &it.interaction))?;
    let row = sqlx::query(
        "INSERT INTO assessments (seq, id, interaction_seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    );
    unique(row.bind(seq).bind(it.id.to_string()).bind(interaction).execute(db).await?, noun(it.id), &it.id)
}

async fn pattern(db: &mut SqliteConnection, seq: i64, it: &ErrorPattern) -> Applied {
    // The count only orders patterns, so the largest ones may tie.
    let count = i64::try_from(it.count).unwrap_or(i64::MAX);
    let row = sqlx::query(
        "INSERT INTO patterns (first_seq, id, latest_seq, count) VALUES (?1, ?2, ?1, ?3)
         ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq, count = excluded.count",
    );
    row.bind(seq).bind(it.id.to_string()).bind(count).execute(db).await?;
    Ok(())
}

/// What pairs are sorted by is kept beside them.
async fn shadow_pair(db: &mut SqliteConnection, seq: i64, it: &ShadowPair) -> Applied {
    let row = sqlx::query(
        "INSERT INTO shadow_pairs (first_seq, id, latest_seq, rollout, gain, distance)
         VALUES (?1, ?2, ?1, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET
            latest_seq = excluded.latest_seq, rollout = excluded.rollout, gain = excluded.gain,
            distance = excluded.distance",
    );
    let row = row.bind(seq).bind(it.id.to_string()).bind(it.rollout.to_string());
    row.bind(it.gain()).bind(it.diff.distance).execute(db).await?;
    Ok(())
}

/// An alias that was never moved points at the base model.
async fn alias_moved(db: &mut SqliteConnection, seq: i64, event: &Event, it: &AliasMove) -> Applied {
    let (from, to) = (column(event, it.from)?, column(event, it.to)?);
    let actual: Option<i64> = sqlx::query_scalar("SELECT number FROM aliases WHERE name = ?")
        .bind(&it.alias.0)
        .fetch_optional(&mut *db)
        .await?;
    let actual = actual.unwrap_or_default();
    if actual != from {
        let actual = VersionNumber(actual.unsigned_abs());
        return Err(JournalError::AliasElsewhere { alias: it.alias.clone(), expected: it.from, actual });
    }
    let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM versions WHERE number = ?)")
        .bind(to)
        .fetch_one(&mut *db)
        .await?;
    if !known && it.to != VersionNumber::BASE {
        return Err(missing("version", &it.to));
    }
    sqlx::query(
        "INSERT INTO aliases (name, number) VALUES (?, ?)
         ON CONFLICT (name) DO UPDATE SET number = excluded.number",
    )
    .bind(&it.alias.0)
    .bind(to)
    .execute(&mut *db)
    .await?;
    let row = sqlx::query("INSERT INTO alias_moves (seq, alias) VALUES (?, ?)");
    row.bind(seq).bind(&it.alias.0).execute(db).await?;
    Ok(())
}

/// A version number as SQLite's signed integer.
fn column(event: &Event, number: VersionNumber) -> Result<i64, JournalError> {
    i64::try_from(number.0).map_err(|_| JournalError::Unstorable {
        name: event.name(),
        reason: format!("version number {} is larger than {}", number.0, i64::MAX),
    })
}

fn unique(done: SqliteQueryResult, noun: &'static str, id: &impl ToString) -> Applied {
    match done.rows_affected() {
        0 => Err(JournalError::Exists { noun, id: id.to_string() }),
        _ => Ok(()),
    }
}

fn missing(noun: &'static str, id: &impl ToString) -> JournalError {
    JournalError::Missing { noun, id: id.to_string() }
}

fn noun<K: IdKind>(_: Id<K>) -> &'static str {
    K::NOUN
}
