//! `POST /v1/feedback`: what a user or program says of an answer, durable before it is acknowledged.

use std::sync::Arc;

use autoglm_domain::{ErrorKind, Event, Feedback, FeedbackId, InteractionId, Metric, Thumb};
use axum::{Extension, Json, body::Body, extract::State};
use serde::Serialize;
use serde_json::Value;

use crate::{
    GatewayError,
    fields::{Fields, missing, wrong_type},
    gateway::Shared,
    intake::{Arrival, read_json},
};

type Result<T> = std::result::Result<T, GatewayError>;

const MAX_TAGS: usize = 16;
const MAX_NAME_CHARS: usize = 128;

/// The acknowledgement: the feedback as it was recorded.
#[derive(Debug, Serialize)]
pub(crate) struct Acknowledged {
    object: &'static str,
    created: i64,
    request_id: InteractionId,
    #[serde(flatten)]
    feedback: Feedback,
}

/// Feedback as the client sends it, without what the server adds.
#[derive(Debug)]
struct Said {
    interaction: InteractionId,
    user: Option<String>,
    thumb: Option<Thumb>,
    score: Option<f64>,
    metric: Option<Metric>,
    correction: Option<String>,
    comment: Option<String>,
    tags: Vec<String>,
}

/// Records feedback. The answer it speaks of can be named once its response has ended.
pub(crate) async fn feedback(
    State(shared): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Json<Acknowledged>> {
    let said = parse(read_json(body, &shared.gateway.config).await?)?;
    let feedback = Feedback {
        id: FeedbackId::next(&*shared.gateway.ids),
        interaction: said.interaction,
        at: arrival.at,
        principal: arrival.caller.principal(said.user.as_deref()),
        thumb: said.thumb,
        score: said.score,
        metric: said.metric,
        correction: said.correction,
        comment: said.comment,
        tags: said.tags,
    };
    // On a task of its own, so that a client that hangs up early cannot part the append from the notice.
    let recorder = Arc::clone(&shared);
    let recording = shared.recordings.begin();
    let recorded = tokio::spawn(async move {
        recorder.gateway.store.append(vec![Event::Feedback(feedback.clone())]).await?;
        recorder.gateway.observer.feedback(&feedback);
        drop(recording);
        Ok::<_, autoglm_domain::Error>(feedback)
    });
    let recorded =
        recorded.await.map_err(|error| GatewayError::Internal(format!("recording ended: {error}")))?;
    let feedback = recorded.map_err(|error| match error.kind {
        ErrorKind::NotFound => unknown(said.interaction),
        _ => error.into(),
    })?;
    measure(&feedback);
    Ok(Json(Acknowledged {
        object: "feedback",
        created: feedback.at.0.div_euclid(1000),
        request_id: feedback.interaction,
        feedback,
    }))
}

fn unknown(id: InteractionId) -> GatewayError {
    GatewayError::NotFound(format!(
        "there is no interaction `{id}` (hint: give the `id` of a completion, or its `x-request-id`)"
    ))
}

fn parse(body: Value) -> Result<Said> {
    let mut fields = Fields::of_body(body)?;
    let said = Said {
        interaction: interaction(&mut fields)?,
        user: fields.string("user")?,
        thumb: thumb(&mut fields)?,
        score: fields.number("score", 0.0..=100.0)?,
        metric: metric(&mut fields)?,
        correction: fields.string("correction")?,
        comment: fields.string("comment")?,
        tags: tags(&mut fields)?,
    };
    fields.finish()?;
    if said.correction.as_ref().is_some_and(|correction| correction.trim().is_empty()) {
        return Err(GatewayError::value(
            "correction",
            "`correction` is empty (hint: for a wrong answer use `thumb`)",
        ));
    }
    let says_nothing = said.thumb.is_none()
        && said.score.is_none()
        && said.metric.is_none()
        && said.correction.is_none()
        && said.comment.is_none()
        && said.tags.is_empty();
    if says_nothing {
        let message = "the feedback says nothing (hint: give at least one of `thumb`, `score`, `metric` with \
                       `value`, `correction`, `comment`, `tags`)";
        return Err(GatewayError::field("thumb", "missing_required_parameter", message));
    }
    Ok(said)
}

/// `request_id` or `id`.
fn interaction(fields: &mut Fields) -> Result<InteractionId> {
    let (request_id, id) = (fields.string("request_id")?, fields.string("id")?);
    let (param, text) = match (request_id, id) {
        (Some(request_id), Some(id)) if request_id != id => {
            let message = "`request_id` and `id` name different interactions (hint: give one)";
            return Err(GatewayError::value("request_id", message));
        }
        (Some(id), _) => ("request_id", id),
        (None, Some(id)) => ("id", id),
        (None, None) => return Err(missing("request_id")),
    };
    parse_id(&text, param)
}

/// The id of an interaction, as it stands in `param`; a response's id is the interaction's with another beginning.
pub(crate) fn parse_id(text: &str, param: &str) -> Result<InteractionId> {
    let of_response = text.strip_prefix("resp_").map(|digits| format!("chatcmpl-{digits}"));
    of_response.as_deref().unwrap_or(text).parse().map_err(|_| {
        let message = format!(
            "`{text}` is not the id of an interaction (hint: they begin with `chatcmpl-` or `resp_`)"
        );
        GatewayError::value(param, message)
    })
}

/// `"up"`, `true`, `1` and `"+1"` are one thing.
fn thumb(fields: &mut Fields) -> Result<Option<Thumb>> {
    let Some(value) = fields.any("thumb") else { return Ok(None) };
    let thumb = match &value {
        Value::Bool(true) => Thumb::Up,
        Value::Bool(false) => Thumb::Down,
        Value::Number(number) if number.as_f64() == Some(1.0) => Thumb::Up,
        Value::Number(number) if number.as_f64() == Some(-1.0) => Thumb::Down,
        Value::String(word) => match word.as_str() {
            "up" | "+1" | "1" => Thumb::Up,
            "down" | "-1" => Thumb::Down,
            _ => {
                return Err(GatewayError::value(
                    "thumb",
                    format!("`thumb` is `{word}`, neither `up` nor `down`"),
                ));
            }
        },
        Value::Number(number) => {
            return Err(GatewayError::value("thumb", format!("`thumb` is {number}, neither 1 nor -1")));
        }
        other => return Err(wrong_type("thumb", "`up`, `down`, a boolean, 1 or -1", other)),
    };
    Ok(Some(thumb))
}

/// `metric` and `value` belong together.
fn metric(fields: &mut Fields) -> Result<Option<Metric>> {
    let name = fields.string("metric")?;
    let value = fields.number("value", f64::MIN..=f64::MAX)?;
    match (name, value) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing("metric")),
        (Some(_), None) => Err(missing("value")),
        (Some(name), Some(_)) if name.is_empty() || name.chars().count() > MAX_NAME_CHARS => {
            let message = format!("`metric` must have 1 to {MAX_NAME_CHARS} characters");
            Err(GatewayError::value("metric", message))
        }
        (Some(name), Some(value)) => Ok(Some(Metric { name, value })),
    }
}

fn tags(fields: &mut Fields) -> Result<Vec<String>> {
    let tags = fields.array("tags")?.unwrap_or_default();
    if tags.len() > MAX_TAGS {
        return Err(GatewayError::value("tags", format!("`tags` has {}, more than {MAX_TAGS}", tags.len())));
    }
    tags.into_iter()
        .enumerate()
        .map(|(i, tag)| match tag {
            Value::String(tag) if (1..=MAX_NAME_CHARS).contains(&tag.chars().count()) => Ok(tag),
            Value::String(_) => {
                let message = format!("`tags[{i}]` must have 1 to {MAX_NAME_CHARS} characters");
                Err(GatewayError::value(format!("tags[{i}]"), message))
            }
            other => Err(wrong_type(&format!("tags[{i}]"), "a string", &other)),
        })
        .collect()
}

fn measure(feedback: &Feedback) {
    let parts = [
        ("thumb_up", feedback.thumb == Some(Thumb::Up)),
        ("thumb_down", feedback.thumb == Some(Thumb::Down)),
        ("score", feedback.score.is_some()),
        ("metric", feedback.metric.is_some()),
        ("correction", feedback.correction.is_some()),
        ("comment", feedback.comment.is_some()),
        ("tags", !feedback.tags.is_empty()),
    ];
    for (kind, _) in parts.into_iter().filter(|(_, there)| *there) {
        metrics::counter!("autoglm_feedback_total", "kind" => kind).increment(1);
    }
    tracing::info!(feedback = %feedback.id, interaction = %feedback.interaction, "feedback recorded");
}
