//! What each event does to the tables: one row in the journal, and its mark on a projection. The same for every engine.

use autoglm_domain::{
    AbTest, AliasMove, Assessment, Cursor, ErrorPattern, Event, Feedback, Id, IdKind, Rollout, ShadowPair,
    VersionNumber,
};

use crate::{
    JournalError,
    db::{Arg, Db},
    read,
    record::Prepared,
    writer::Append,
};

type Applied = Result<(), JournalError>;

/// Writes an append after position `last`; the position of its last event. The caller's transaction or savepoint
/// makes it whole, and nobody else may write meanwhile.
pub(crate) async fn apply_append(
    db: &mut impl Db,
    mut last: i64,
    append: &Append,
) -> Result<i64, JournalError> {
    for record in &append.records {
        last += 1;
        apply(db, last, record).await?;
    }
    if let Some((mirror, cursor)) = &append.cursor {
        cursor_moved(db, last, mirror, *cursor).await?;
    }
    Ok(last)
}

/// A cursor is no event: it is written over.
async fn cursor_moved(db: &mut impl Db, last: i64, mirror: &str, to: Cursor) -> Applied {
    let wrong = || JournalError::Cursor { mirror: mirror.to_owned(), seq: to.seq, begun: to.begun, last };
    if to.seq < 0 || to.begun < to.seq || to.begun > last {
        return Err(wrong());
    }
    let row = "INSERT INTO cursors (mirror, seq, begun) VALUES ($1, $2, $3)
         ON CONFLICT (mirror) DO UPDATE SET seq = excluded.seq, begun = excluded.begun
         WHERE cursors.seq <= excluded.seq";
    match db.execute(row, &[mirror.into(), to.seq.into(), to.begun.into()]).await? {
        0 => Err(JournalError::CursorAhead { mirror: mirror.to_owned(), seq: to.seq }),
        _ => Ok(()),
    }
}

async fn apply(db: &mut impl Db, seq: i64, record: &Prepared) -> Applied {
    journal(db, seq, record).await?;
    match &record.event {
        Event::Interaction(it) => {
            let row = "INSERT INTO interactions (seq, id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let id = it.id.to_string();
            unique(db.execute(row, &[seq.into(), (&id).into()]).await?, noun(it.id), id)
        }
        Event::Feedback(it) => feedback(db, seq, it).await,
        Event::Assessment(it) => assessment(db, seq, it).await,
        Event::Pattern(it) => pattern(db, seq, it).await,
        Event::Experience(it) => {
            let row = "INSERT INTO experiences (seq, id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let id = it.id.to_string();
            unique(db.execute(row, &[seq.into(), (&id).into()]).await?, noun(it.id), id)
        }
        Event::ExperienceAmended(it) => {
            let row = "UPDATE experiences SET amended_seq = $1 WHERE id = $2";
            let id = it.experience.to_string();
            match db.execute(row, &[seq.into(), (&id).into()]).await? {
                0 => Err(missing(noun(it.experience), id)),
                _ => Ok(()),
            }
        }
        Event::Run(it) => {
            let row = "INSERT INTO runs (first_seq, id, latest_seq) VALUES ($1, $2, $1)
                 ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq";
            replaced(db, row, seq, it.id).await
        }
        Event::Version(it) => {
            let row = "INSERT INTO versions (seq, number) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let number = column(&record.event, it.number)?;
            unique(db.execute(row, &[seq.into(), number.into()]).await?, "version", it.number)
        }
        Event::Rollout(it) => rollout(db, seq, it).await,
        Event::ShadowPair(it) => shadow_pair(db, seq, it).await,
        Event::RolloutProgress(it) => {
            let row = "INSERT INTO rollout_progress (seq, rollout) VALUES ($1, $2)";
            db.execute(row, &[seq.into(), (&it.rollout.to_string()).into()]).await.map(drop)
        }
        Event::AbTest(it) => ab_test(db, seq, it).await,
        Event::AliasMoved(it) => alias_moved(db, seq, &record.event, it).await,
    }
}

/// The row in `events`.
async fn journal(db: &mut impl Db, seq: i64, record: &Prepared) -> Applied {
    let row = "INSERT INTO events (seq, name, at, json, vector) VALUES ($1, $2, $3, $4, $5)";
    let values = [
        seq.into(),
        record.event.name().into(),
        record.event.at().0.into(),
        (&record.json).into(),
        Arg::Bytes(record.vector.as_deref()),
    ];
    db.execute(row, &values).await.map(drop)
}

/// A record that keeps the place of its first event and gets the body of this one.
async fn replaced<K: IdKind>(db: &mut impl Db, row: &'static str, seq: i64, id: Id<K>) -> Applied {
    db.execute(row, &[seq.into(), (&id.to_string()).into()]).await.map(drop)
}

/// One that has ended stays as it ended: of two that decide at once, the second is told so.
async fn rollout(db: &mut impl Db, seq: i64, it: &Rollout) -> Applied {
    let latest: Option<Rollout> = read::body(db, read::ROLLOUT, &[(&it.id.to_string()).into()]).await?;
    if latest.is_some_and(|latest| !latest.is_unfinished()) {
        return Err(JournalError::Ended { noun: noun(it.id), id: it.id.to_string() });
    }
    let row = "INSERT INTO rollouts (first_seq, id, latest_seq) VALUES ($1, $2, $1)
         ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq";
    replaced(db, row, seq, it.id).await
}

/// The same for a test of versions.
async fn ab_test(db: &mut impl Db, seq: i64, it: &AbTest) -> Applied {
    let latest: Option<AbTest> = read::body(db, read::AB_TEST, &[(&it.id.to_string()).into()]).await?;
    if latest.is_some_and(|latest| !latest.is_running()) {
        return Err(JournalError::Ended { noun: noun(it.id), id: it.id.to_string() });
    }
    let row = "INSERT INTO ab_tests (first_seq, id, latest_seq) VALUES ($1, $2, $1)
         ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq";
    replaced(db, row, seq, it.id).await
}

async fn feedback(db: &mut impl Db, seq: i64, it: &Feedback) -> Applied {
    let counted = "UPDATE interactions SET
            feedback_count = feedback_count + 1,
            awaiting = CASE WHEN feedback_seen IS NULL OR feedback_count + 1 > feedback_seen THEN 2 ELSE 0 END
         WHERE id = $1 RETURNING seq";
    let of = it.interaction.to_string();
    let interaction: Option<(i64,)> = db.row(counted, &[(&of).into()]).await?;
    let (interaction,) = interaction.ok_or_else(|| missing(noun(it.interaction), of))?;
    let row = "INSERT INTO feedback (seq, id, interaction_seq) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let id = it.id.to_string();
    unique(db.execute(row, &[seq.into(), (&id).into(), interaction.into()]).await?, noun(it.id), id)
}

async fn assessment(db: &mut impl Db, seq: i64, it: &Assessment) -> Applied {
    let taken_in = "UPDATE interactions SET
            assessment_seq = $1, judged_seq = $2, feedback_seen = $3,
            awaiting = CASE WHEN feedback_count > $3 THEN 2 ELSE 0 END
         WHERE id = $4 RETURNING seq";
    let (judged, of) = (it.is_judged().then_some(seq), it.interaction.to_string());
    let values = [seq.into(), judged.into(), i64::from(it.feedback_seen).into(), (&of).into()];
    let interaction: Option<(i64,)> = db.row(taken_in, &values).await?;
    let (interaction,) = interaction.ok_or_else(|| missing(noun(it.interaction), of))?;
    let row = "INSERT INTO assessments (seq, id, interaction_seq) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let id = it.id.to_string();
    unique(db.execute(row, &[seq.into(), (&id).into(), interaction.into()]).await?, noun(it.id), id)
}

async fn pattern(db: &mut impl Db, seq: i64, it: &ErrorPattern) -> Applied {
    // The count only orders patterns, so the largest ones may tie.
    let count = i64::try_from(it.count).unwrap_or(i64::MAX);
    let row = "INSERT INTO patterns (first_seq, id, latest_seq, count) VALUES ($1, $2, $1, $3)
         ON CONFLICT (id) DO UPDATE SET latest_seq = excluded.latest_seq, count = excluded.count";
    db.execute(row, &[seq.into(), (&it.id.to_string()).into(), count.into()]).await.map(drop)
}

/// What pairs are sorted by is kept beside them: `$1` position, `$2` id, `$3` rollout, `$4` gain, `$5` distance.
pub(crate) const SHADOW_PAIR: &str =
    "INSERT INTO shadow_pairs (first_seq, id, latest_seq, rollout, gain, distance)
     VALUES ($1, $2, $1, $3, $4, $5)
     ON CONFLICT (id) DO UPDATE SET
        latest_seq = excluded.latest_seq, rollout = excluded.rollout, gain = excluded.gain,
        distance = excluded.distance";

async fn shadow_pair(db: &mut impl Db, seq: i64, it: &ShadowPair) -> Applied {
    let (id, rollout) = (it.id.to_string(), it.rollout.to_string());
    let values = [seq.into(), (&id).into(), (&rollout).into(), it.gain().into(), it.diff.distance.into()];
    db.execute(SHADOW_PAIR, &values).await.map(drop)
}

/// An alias that was never moved points at the base model.
async fn alias_moved(db: &mut impl Db, seq: i64, event: &Event, it: &AliasMove) -> Applied {
    let (from, to) = (column(event, it.from)?, column(event, it.to)?);
    let alias = &it.alias.0;
    let actual: Option<(i64,)> =
        db.row("SELECT number FROM aliases WHERE name = $1", &[alias.into()]).await?;
    let (actual,) = actual.unwrap_or_default();
    if actual != from {
        let actual = VersionNumber(actual.unsigned_abs());
        return Err(JournalError::AliasElsewhere { alias: it.alias.clone(), expected: it.from, actual });
    }
    let known: Option<(i64,)> = db.row("SELECT number FROM versions WHERE number = $1", &[to.into()]).await?;
    if known.is_none() && it.to != VersionNumber::BASE {
        return Err(missing("version", it.to.to_string()));
    }
    let point = "INSERT INTO aliases (name, number) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET number = excluded.number";
    db.execute(point, &[alias.into(), to.into()]).await?;
    let row = "INSERT INTO alias_moves (seq, alias) VALUES ($1, $2)";
    db.execute(row, &[seq.into(), alias.into()]).await.map(drop)
}

/// A version number as a database's signed integer.
fn column(event: &Event, number: VersionNumber) -> Result<i64, JournalError> {
    i64::try_from(number.0).map_err(|_| JournalError::Unstorable {
        name: event.name(),
        reason: format!("version number {} is larger than {}", number.0, i64::MAX),
    })
}

fn unique(changed: u64, noun: &'static str, id: impl ToString) -> Applied {
    match changed {
        0 => Err(JournalError::Exists { noun, id: id.to_string() }),
        _ => Ok(()),
    }
}

fn missing(noun: &'static str, id: String) -> JournalError {
    JournalError::Missing { noun, id }
}

fn noun<K: IdKind>(_: Id<K>) -> &'static str {
    K::NOUN
}
