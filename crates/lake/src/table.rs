//! The tables: which columns an event has, and what stands in them.
//!
//! Every table begins with `seq`, the position in the journal, by which a row is recognised, and `happened_at`. Ids are what the
//! API calls them: `request_id` is an interaction's. What has no column of its own is in `data`, the event as JSON.

use autoglm_domain::{
    AbState, AnswerSource, Event, Interaction, Outcome, RecordedEvent, RolloutState, RunState, ShadowPair,
    Timestamp, VersionNumber, dimension,
};
use serde::Serialize;

use crate::LakeError;

/// What stands in a column. Every column but `seq` and `happened_at` may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A whole number, 64 bits.
    Int,
    /// A number with a fraction, 64 bits.
    Real,
    /// Text, also JSON.
    Text,
    /// Yes or no.
    Bool,
    /// A moment, milliseconds, UTC.
    Time,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What stands in it.
    pub kind: ColumnKind,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The event whose table it is, which is also its name.
    pub event: &'static str,
    /// Its columns in order.
    pub columns: &'static [Column],
}

#[cfg(feature = "parquet")]
impl Table {
    /// Its columns as Arrow has them.
    pub fn schema(&self) -> arrow_schema::SchemaRef {
        use arrow_schema::{DataType, Field, Schema, TimeUnit};
        let field = |(at, column): (usize, &Column)| {
            let kind = match column.kind {
                ColumnKind::Int => DataType::Int64,
                ColumnKind::Real => DataType::Float64,
                ColumnKind::Text => DataType::Utf8,
                ColumnKind::Bool => DataType::Boolean,
                ColumnKind::Time => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            };
            // `seq` and `happened_at` are always there.
            Field::new(column.name, kind, at >= 2)
        };
        Schema::new(self.columns.iter().enumerate().map(field).collect::<Vec<_>>()).into()
    }
}

/// What stands in one column of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
    /// Yes or no.
    Bool(bool),
    /// A moment.
    Time(Timestamp),
}

/// Declares the tables: a name and the columns of each kind in order.
macro_rules! tables {
    ($($event:literal: $($column:ident $kind:ident),+;)+) => {
        /// Every table.
        pub const TABLES: &[Table] = &[$(Table {
            event: $event,
            columns: &[
                Column { name: "seq", kind: ColumnKind::Int },
                Column { name: "happened_at", kind: ColumnKind::Time },
                $(Column { name: stringify!($column), kind: ColumnKind::$kind }),+
            ],
        }),+];
    };
}

tables! {
    "interaction": request_id Text, model_version Int, latency_ms Real, first_token_ms Real, principal Text,
        session Text, endpoint Text, model Text, task Text, prompt_tokens Int, completion_tokens Int,
        finish_reason Text, source Text, experience_id Text, messages Text, answer Text, tools Text, turn Text,
        sampling Text, metadata Text;
    "feedback": feedback_id Text, request_id Text, principal Text, thumb Text, score Real, metric Text, value Real,
        correction Text, comment Text, tags Text, data Text;
    "assessment": assessment_id Text, request_id Text, model_version Int, overall Real, label Text, accuracy Real,
        logic Real, safety Real, consistency Real, similarity Real, reference Text, feedback_seen Int,
        evaluator Text, pattern_id Text, data Text;
    "pattern": pattern_id Text, name Text, failures Int, first_at Time, data Text;
    "experience": experience_id Text, target Text, weight Real, cluster Int, held_out Bool, task Text, data Text;
    "experience_amended": experience_id Text, weight Real, data Text;
    "run": run_id Text, state Text, trigger_kind Text, strategy Text, parent Int, model_version Int, new_experiences Int,
        replayed_experiences Int, ended_at Time, data Text;
    "version": model_version Int, hash Text, parent Int, run_id Text, code_version Text, note Text, data Text;
    "rollout": rollout_id Text, candidate Int, champion Int, state Text, outcome Text, reason Text, data Text;
    "shadow_pair": pair_id Text, request_id Text, rollout_id Text, champion_version Int, candidate_version Int,
        champion_latency_ms Real, candidate_latency_ms Real, champion_overall Real, candidate_overall Real,
        gain Real, distance Real, preference Text, route Text, principal_group Text, data Text;
    "rollout_progress": rollout_id Text, stage Text, ruling Text, observations Int, reason Text, data Text;
    "ab_test": test_id Text, metric Text, allocation Text, state Text, best Int, reason Text, data Text;
    "alias_moved": alias Text, from_version Int, to_version Int, moved_by Text, reason Text, rollout_id Text, data Text;
}

/// The table of an event.
pub fn table(event: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.event == event)
}

/// The row of an event, in the order of its table's columns.
///
/// # Errors
/// [`LakeError::Encoding`] where it has no JSON.
pub fn cells(recorded: &RecordedEvent) -> Result<Vec<Cell>, LakeError> {
    let event = &recorded.event;
    let mut row = vec![Cell::Int(recorded.seq), Cell::Time(event.at())];
    row.extend(columns(event)?);
    if !matches!(event, Event::Interaction(_)) {
        row.push(json(&event.data().map_err(encoding)?)?);
    }
    Ok(row)
}

/// What stands between `happened_at` and `data`.
fn columns(event: &Event) -> Result<Vec<Cell>, LakeError> {
    Ok(match event {
        Event::Interaction(it) => interaction(it)?,
        Event::Feedback(it) => vec![
            id(it.id),
            id(it.interaction),
            text(&it.principal),
            it.thumb.map_or(Ok(Cell::Null), |thumb| word(&thumb))?,
            real(it.score),
            it.metric.as_ref().map_or(Cell::Null, |metric| text(&metric.name)),
            real(it.metric.as_ref().map(|metric| metric.value)),
            maybe(it.correction.as_ref()),
            maybe(it.comment.as_ref()),
            json(&it.tags)?,
        ],
        Event::Assessment(it) => {
            let score = |name: &str| real(it.scores.get(name).copied());
            vec![
                id(it.id),
                id(it.interaction),
                version(it.version),
                Cell::Real(it.overall),
                word(&it.label)?,
                score(dimension::ACCURACY),
                score(dimension::LOGIC),
                score(dimension::SAFETY),
                score(dimension::CONSISTENCY),
                real(it.similarity),
                maybe(it.reference.as_ref().map(|reference| &reference.text)),
                Cell::Int(it.feedback_seen.into()),
                text(&it.evaluator),
                maybe(it.pattern),
            ]
        }
        Event::Pattern(it) => vec![id(it.id), text(&it.name), count(it.count), Cell::Time(it.first_at)],
        Event::Experience(it) => vec![
            id(it.id),
            text(&it.target),
            Cell::Real(it.weight.into()),
            Cell::Int(it.cluster.0.into()),
            Cell::Bool(it.held_out),
            maybe(it.task.as_ref()),
        ],
        Event::ExperienceAmended(it) => vec![id(it.experience), Cell::Real(it.weight.into())],
        Event::Run(it) => {
            let trained = match it.state {
                RunState::Succeeded { version } => Some(version),
                _ => None,
            };
            vec![
                id(it.id),
                tag(&it.state, "state")?,
                tag(&it.trigger, "kind")?,
                text(&it.strategy),
                version(it.parent),
                trained.map_or(Cell::Null, version),
                count(it.new_experiences),
                count(it.replayed_experiences),
                it.ended_at.map_or(Cell::Null, Cell::Time),
            ]
        }
        Event::Version(it) => vec![
            version(it.number),
            id(it.hash),
            version(it.parent),
            maybe(it.run),
            text(&it.code_version),
            maybe(it.note.as_ref()),
        ],
        Event::Rollout(it) => {
            let (outcome, reason) = ended(&it.state)?;
            vec![
                id(it.id),
                version(it.candidate),
                version(it.champion),
                tag(&it.state, "state")?,
                outcome,
                reason,
            ]
        }
        Event::ShadowPair(it) => shadow_pair(it)?,
        Event::RolloutProgress(it) => vec![
            id(it.rollout),
            tag(&it.stage, "stage")?,
            word(&it.ruling)?,
            count(it.observations),
            text(&it.reason),
        ],
        Event::AbTest(it) => {
            let best = match it.state {
                AbState::Decided { best, .. } => best,
                _ => None,
            };
            vec![
                id(it.id),
                text(&it.metric),
                word(&it.allocation)?,
                tag(&it.state, "state")?,
                best.map_or(Cell::Null, version),
                text(&it.reason),
            ]
        }
        Event::AliasMoved(it) => vec![
            text(&it.alias.0),
            version(it.from),
            version(it.to),
            text(&it.by),
            text(&it.reason),
            maybe(it.rollout),
        ],
    })
}

fn interaction(it: &Interaction) -> Result<Vec<Cell>, LakeError> {
    let experience = match it.source {
        AnswerSource::Memory { experience } => id(experience),
        AnswerSource::Weights | AnswerSource::Examples { .. } => Cell::Null,
    };
    Ok(vec![
        id(it.id),
        version(it.version),
        Cell::Real(it.latency_ms),
        Cell::Real(it.first_token_ms),
        text(&it.principal),
        maybe(it.session.as_ref()),
        word(&it.endpoint)?,
        text(&it.model),
        maybe(it.metadata.get("task")),
        Cell::Int(it.usage.prompt_tokens.into()),
        Cell::Int(it.usage.completion_tokens.into()),
        word(&it.finish_reason)?,
        tag(&it.source, "kind")?,
        experience,
        json(&it.messages)?,
        text(&it.answer),
        if it.tools.is_empty() { Cell::Null } else { json(&it.tools)? },
        it.turn.as_ref().map_or(Ok(Cell::Null), json)?,
        json(&it.sampling)?,
        json(&it.metadata)?,
    ])
}

fn shadow_pair(it: &ShadowPair) -> Result<Vec<Cell>, LakeError> {
    Ok(vec![
        id(it.id),
        id(it.interaction),
        id(it.rollout),
        version(it.champion.version),
        version(it.candidate.version),
        Cell::Real(it.champion.latency_ms),
        Cell::Real(it.candidate.latency_ms),
        real(it.champion.overall),
        real(it.candidate.overall),
        Cell::Real(it.gain()),
        Cell::Real(it.diff.distance),
        it.preference.map_or(Ok(Cell::Null), |preference| word(&preference))?,
        text(&it.route),
        text(&it.principal_group),
    ])
}

/// Outcome and reason of a rollout that has them.
fn ended(state: &RolloutState) -> Result<(Cell, Cell), LakeError> {
    let outcome = |outcome: &Outcome| word(outcome);
    Ok(match state {
        RolloutState::Decided { verdict } => (outcome(&verdict.outcome)?, text(&verdict.reason)),
        RolloutState::Aborted { reason } | RolloutState::Paused { reason, .. } => (Cell::Null, text(reason)),
        RolloutState::Scanning | RolloutState::OfflineGate | RolloutState::Live(_) => {
            (Cell::Null, Cell::Null)
        }
    })
}

fn id(id: impl ToString) -> Cell {
    Cell::Text(id.to_string())
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn maybe(value: Option<impl ToString>) -> Cell {
    value.map_or(Cell::Null, |value| Cell::Text(value.to_string()))
}

fn real(value: Option<f64>) -> Cell {
    value.map_or(Cell::Null, Cell::Real)
}

fn count(value: u64) -> Cell {
    Cell::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn version(number: VersionNumber) -> Cell {
    count(number.0)
}

fn json(value: &impl Serialize) -> Result<Cell, LakeError> {
    serde_json::to_string(value).map(Cell::Text).map_err(encoding)
}

/// What serialises as a string: the word without quotes.
fn word(value: &impl Serialize) -> Result<Cell, LakeError> {
    Ok(match serde_json::to_value(value).map_err(encoding)? {
        serde_json::Value::String(word) => Cell::Text(word),
        other => Cell::Text(other.to_string()),
    })
}

/// The tag of an enum with fields.
fn tag(value: &impl Serialize, name: &str) -> Result<Cell, LakeError> {
    let value = serde_json::to_value(value).map_err(encoding)?;
    Ok(maybe(value.get(name).and_then(serde_json::Value::as_str)))
}

fn encoding(error: serde_json::Error) -> LakeError {
    LakeError::Encoding { reason: error.to_string() }
}
