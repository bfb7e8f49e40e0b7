//! What a message from elsewhere says: an interaction, with or without feedback, or feedback alone.
//!
//! Two forms are understood. An *envelope*, as another autoglm's mirror writes it, of an interaction or of feedback; and a
//! plain one, `{"messages": […], "answer": "…"}`, with more fields where the sender has them ([`Plain`]). The same message
//! makes the same ids, so that it can come as often as it likes.

use std::collections::BTreeMap;

use autoglm_domain::{
    AnswerSource, ChatMessage, ContentHash, Endpoint, Event, Feedback, FeedbackId, FinishReason, Interaction,
    InteractionId, Metric, Sampling, Thumb, Timestamp, Usage, VersionNumber,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{Envelope, KafkaError, SCHEMA};

/// Largest message that is looked into.
pub const MAX_BYTES: usize = 8 << 20;

/// Where a message was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// The plain form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    /// The conversation up to the answer.
    messages: Vec<ChatMessage>,
    answer: String,
    /// The sender's own id, in place of the message's key.
    id: Option<String>,
    /// Milliseconds since the Unix epoch; when it was taken in where it is missing.
    at: Option<Timestamp>,
    model: Option<String>,
    principal: Option<String>,
    session: Option<String>,
    latency_ms: Option<f64>,
    #[serde(default)]
    usage: Usage,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    feedback: Option<PlainFeedback>,
}

/// What was said of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainFeedback {
    principal: Option<String>,
    thumb: Option<Thumb>,
    score: Option<f64>,
    metric: Option<Metric>,
    correction: Option<String>,
    comment: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

/// The events that a message stands for. `now` is for what does not say when it happened.
///
/// # Errors
/// [`KafkaError::Message`] says why nothing can be made of it.
pub fn read(
    payload: Option<&[u8]>,
    key: Option<&[u8]>,
    place: &Place,
    now: Timestamp,
) -> Result<Vec<Event>, KafkaError> {
    let payload = payload.ok_or_else(|| wrong("the message has no value"))?;
    if payload.len() > MAX_BYTES {
        return Err(wrong(format!("the message has {} bytes, more than {MAX_BYTES}", payload.len())));
    }
    let value: Value =
        serde_json::from_slice(payload).map_err(|error| wrong(format!("the message is no JSON: {error}")))?;
    if value.get("schema").is_some() {
        return Ok(vec![enveloped(value)?]);
    }
    let plain: Plain = serde_json::from_value(value)
        .map_err(|error| wrong(format!("the message is no interaction: {error}")))?;
    plain.events(key, place, now)
}

/// The event in an envelope. Versions and experiences of another autoglm are not ours: the answer counts as one of the
/// base model, and its metadata say which version it was there.
fn enveloped(value: Value) -> Result<Event, KafkaError> {
    let envelope: Envelope = serde_json::from_value(value)
        .map_err(|error| wrong(format!("the message is no envelope: {error}")))?;
    if envelope.schema != SCHEMA {
        return Err(wrong(format!(
            "the envelope has schema {}, and {SCHEMA} is understood",
            envelope.schema
        )));
    }
    let data =
        |error: serde_json::Error| wrong(format!("the envelope's `data` is no {}: {error}", envelope.event));
    match envelope.event.as_str() {
        "interaction" => {
            let mut it: Interaction = serde_json::from_value(envelope.data.clone()).map_err(data)?;
            check_conversation(&it.messages)?;
            it.metadata.entry("source_version".into()).or_insert(it.version.to_string());
            it.version = VersionNumber::BASE;
            it.source = AnswerSource::Weights;
            Ok(Event::Interaction(Box::new(it)))
        }
        "feedback" => {
            let it: Feedback = serde_json::from_value(envelope.data.clone()).map_err(data)?;
            check_score(it.score)?;
            Ok(Event::Feedback(it))
        }
        other => {
            Err(wrong(format!("an envelope of `{other}` is not taken in, only interaction and feedback")))
        }
    }
}

impl Plain {
    fn events(self, key: Option<&[u8]>, place: &Place, now: Timestamp) -> Result<Vec<Event>, KafkaError> {
        check_conversation(&self.messages)?;
        if self.latency_ms.is_some_and(|latency| latency < 0.0) {
            return Err(wrong("`latency_ms` is below 0"));
        }
        let id = match &self.id {
            Some(id) => {
                id.parse().unwrap_or_else(|_| InteractionId::new(name_based(&["id", &place.topic, id])))
            }
            None => InteractionId::new(match key {
                Some(key) => name_based(&["key", &place.topic, &String::from_utf8_lossy(key)]),
                None => name_based(&[
                    "offset",
                    &place.topic,
                    &place.partition.to_string(),
                    &place.offset.to_string(),
                ]),
            }),
        };
        let at = self.at.unwrap_or(now);
        let principal = self.principal.unwrap_or_else(|| "anonymous".into());
        let latency_ms = self.latency_ms.unwrap_or_default();
        let feedback = match self.feedback {
            Some(said) => Some(said.of(id, at, &principal)?),
            None => None,
        };
        let interaction = Interaction {
            id,
            at,
            endpoint: Endpoint::Chat,
            model: self.model.unwrap_or_else(|| place.topic.clone()),
            version: VersionNumber::BASE,
            messages: self.messages,
            instructed: false,
            tools: Vec::new(),
            sampling: Sampling::default(),
            answer: self.answer,
            turn: None,
            source: AnswerSource::Weights,
            finish_reason: FinishReason::Stop,
            usage: self.usage,
            logprobs: Vec::new(),
            latency_ms,
            first_token_ms: latency_ms,
            principal,
            session: self.session,
            metadata: self.metadata,
        };
        let mut events = vec![Event::Interaction(Box::new(interaction))];
        events.extend(feedback.map(Event::Feedback));
        Ok(events)
    }
}

impl PlainFeedback {
    fn of(self, interaction: InteractionId, at: Timestamp, principal: &str) -> Result<Feedback, KafkaError> {
        check_score(self.score)?;
        let says_nothing = self.thumb.is_none()
            && self.score.is_none()
            && self.metric.is_none()
            && self.correction.is_none()
            && self.comment.is_none()
            && self.tags.is_empty();
        if says_nothing {
            return Err(wrong("the feedback says nothing"));
        }
        Ok(Feedback {
            id: FeedbackId::new(name_based(&["feedback", &interaction.to_string()])),
            interaction,
            at,
            principal: self.principal.unwrap_or_else(|| principal.to_owned()),
            thumb: self.thumb,
            score: self.score,
            metric: self.metric,
            correction: self.correction,
            comment: self.comment,
            tags: self.tags,
        })
    }
}

fn check_conversation(messages: &[ChatMessage]) -> Result<(), KafkaError> {
    if messages.is_empty() { Err(wrong("`messages` is empty")) } else { Ok(()) }
}

fn check_score(score: Option<f64>) -> Result<(), KafkaError> {
    match score {
        Some(score) if !(0.0..=100.0).contains(&score) => {
            Err(wrong(format!("`score` is {score}; it must be from 0 to 100")))
        }
        _ => Ok(()),
    }
}

/// An id that the same words always make: version 8 of RFC 9562, with bits of BLAKE3.
fn name_based(words: &[&str]) -> uuid::Uuid {
    // Lengths, so that no two lists of words run together.
    let text: String = words.iter().map(|word| format!("{}:{word}", word.len())).collect();
    let ContentHash(hash) = ContentHash::of(text.as_bytes());
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = hash;
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn wrong(reason: impl Into<String>) -> KafkaError {
    KafkaError::Message { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64) -> Place {
        Place { topic: "in".into(), partition: 0, offset }
    }

    fn read_at(text: &str, key: Option<&str>, offset: i64) -> Result<Vec<Event>, KafkaError> {
        read(Some(text.as_bytes()), key.map(str::as_bytes), &place(offset), Timestamp(7))
    }

    fn id_of(events: &[Event]) -> InteractionId {
        match &events[0] {
            Event::Interaction(it) => it.id,
            other => panic!("{other:?}"),
        }
    }

    const LEAST: &str = r#"{"messages": [{"role": "user", "content": "hi"}], "answer": "hello"}"#;

    #[test]
    fn the_least_message_is_an_interaction_and_comes_once_by_its_key() {
        let first = read_at(LEAST, Some("a"), 1).unwrap();
        assert_eq!(first.len(), 1);
        let Event::Interaction(it) = &first[0] else { panic!("{first:?}") };
        assert_eq!((it.answer.as_str(), it.principal.as_str(), it.at), ("hello", "anonymous", Timestamp(7)));
        assert_eq!(it.id.uuid().get_version_num(), 8);
        assert_eq!(id_of(&first), id_of(&read_at(LEAST, Some("a"), 2).unwrap()), "the same key");
        assert_ne!(id_of(&first), id_of(&read_at(LEAST, Some("b"), 1).unwrap()));
        // Without a key it is what lies at its place.
        assert_eq!(id_of(&read_at(LEAST, None, 3).unwrap()), id_of(&read_at(LEAST, None, 3).unwrap()));
        assert_ne!(id_of(&read_at(LEAST, None, 3).unwrap()), id_of(&read_at(LEAST, None, 4).unwrap()));
    }

    #[test]
    fn the_senders_own_id_and_feedback_are_taken() {
        let text = r#"{"id": "order-7", "messages": [{"role": "user", "content": "hi"}], "answer": "no",
            "principal": "ada", "session": "s", "latency_ms": 12.5, "at": 1795000000000,
            "feedback": {"correction": "hello", "score": 10}}"#;
        let events = read_at(text, Some("a"), 1).unwrap();
        assert_eq!(id_of(&events), id_of(&read_at(text, None, 9).unwrap()));
        let Event::Feedback(said) = &events[1] else { panic!("{events:?}") };
        assert_eq!((said.interaction, said.principal.as_str()), (id_of(&events), "ada"));
        assert_eq!(said.correction.as_deref(), Some("hello"));
        let own = text.replace("order-7", &id_of(&events).to_string());
        assert_eq!(id_of(&read_at(&own, None, 1).unwrap()), id_of(&events), "an id of ours stays");
    }

    #[test]
    fn what_nothing_can_be_made_of_is_refused_with_the_reason() {
        let refused = |text: &str| read_at(text, None, 1).unwrap_err().to_string();
        assert!(refused("{").starts_with("the message is no JSON"));
        assert!(refused("[]").starts_with("the message is no interaction"));
        assert!(refused(r#"{"answer": "x"}"#).contains("messages"));
        assert!(refused(r#"{"messages": [], "answer": "x"}"#).contains("`messages` is empty"));
        assert!(refused(&LEAST.replace("answer", "anser")).contains("anser"));
        assert!(refused(&LEAST.replace("\"user\"", "\"robot\"")).contains("robot"));
        let with = |extra: &str| LEAST.replacen("{\"m", &format!("{{{extra}, \"m"), 1);
        assert!(refused(&with(r#""feedback": {"score": 101}"#)).contains("from 0 to 100"));
        assert!(refused(&with(r#""feedback": {}"#)).contains("says nothing"));
        assert!(refused(&with(r#""latency_ms": -1"#)).contains("below 0"));
        assert!(refused(r#"{"schema": 1}"#).starts_with("the message is no envelope"));
        let envelope = r#"{"schema": 2, "seq": 1, "event": "run", "key": "k", "at": 1, "data": {}}"#;
        assert!(refused(envelope).contains("schema 2"));
        assert!(
            refused(&envelope.replace("\"schema\": 2", "\"schema\": 1")).contains("`run` is not taken in")
        );
        assert!(read(None, None, &place(1), Timestamp(7)).unwrap_err().to_string().contains("no value"));
    }
}
