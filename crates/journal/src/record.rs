//! Events as they are written: a name, JSON, and beside it the vector that JSON would bloat.

use autoglm_domain::Event;
use serde::{Serialize, de::DeserializeOwned};

use crate::JournalError;

/// An event ready to be written, checked to read back as it was given.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The event, its vector taken out.
    pub(crate) event: Event,
    /// The event's data.
    pub(crate) json: String,
    /// Embedding or centroid, little-endian f32.
    pub(crate) vector: Option<Vec<u8>>,
}

impl Prepared {
    /// Encodes `event`. `Unstorable` when it would not read back equal, as with a NaN in it.
    pub(crate) fn new(mut event: Event) -> Result<Self, JournalError> {
        let name = event.name();
        let unstorable = |reason: String| JournalError::Unstorable { name, reason };
        let vector = match vector_of(&mut event).map(std::mem::take) {
            Some(vector) if vector.iter().all(|value| value.is_finite()) => Some(to_bytes(&vector)),
            Some(_) => return Err(unstorable("its vector holds a number that is not finite".into())),
            None => None,
        };
        let json = encode(&event).map_err(|error| unstorable(error.to_string()))?;
        // JSON writes NaN and infinity as null, so a record can be written that is never read again.
        match decode_data(name, &json) {
            Ok(same) if same == event => Ok(Self { event, json, vector }),
            _ => Err(unstorable("one of its numbers is not finite".into())),
        }
    }
}

/// The event that was stored at `seq` under `name`.
pub(crate) fn decode(seq: i64, name: &str, json: &str, vector: Option<&[u8]>) -> Result<Event, JournalError> {
    let mut event = decode_data(name, json).map_err(|reason| damaged(seq, reason))?;
    if let (Some(place), Some(bytes)) = (vector_of(&mut event), vector) {
        *place = from_bytes(seq, bytes)?;
    }
    Ok(event)
}

/// One record's data, as it was stored at `seq`.
pub(crate) fn decode_as<T: DeserializeOwned>(seq: i64, json: &str) -> Result<T, JournalError> {
    serde_json::from_str(json).map_err(|error| damaged(seq, error.to_string()))
}

/// The vector that was stored at `seq`.
pub(crate) fn from_bytes(seq: i64, bytes: &[u8]) -> Result<Vec<f32>, JournalError> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(damaged(seq, format!("{} bytes are not whole 32-bit numbers", bytes.len())));
    }
    Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

fn to_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn damaged(seq: i64, reason: String) -> JournalError {
    JournalError::Damaged { what: format!("event {seq}"), reason }
}

/// Where an event keeps its vector, if it has one.
fn vector_of(event: &mut Event) -> Option<&mut Vec<f32>> {
    match event {
        Event::Experience(experience) => Some(&mut experience.embedding),
        Event::Pattern(pattern) => Some(&mut pattern.centroid),
        _ => None,
    }
}

fn encode(event: &Event) -> serde_json::Result<String> {
    fn json(data: &impl Serialize) -> serde_json::Result<String> {
        serde_json::to_string(data)
    }
    match event {
        Event::Interaction(data) => json(data),
        Event::Feedback(data) => json(data),
        Event::Assessment(data) => json(data),
        Event::Pattern(data) => json(data),
        Event::Experience(data) => json(data),
        Event::ExperienceAmended(data) => json(data),
        Event::Run(data) => json(data),
        Event::Version(data) => json(data),
        Event::Rollout(data) => json(data),
        Event::ShadowPair(data) => json(data),
        Event::RolloutProgress(data) => json(data),
        Event::AbTest(data) => json(data),
        Event::AliasMoved(data) => json(data),
    }
}

fn decode_data(name: &str, json: &str) -> Result<Event, String> {
    fn data<T: DeserializeOwned>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
    Ok(match name {
        "interaction" => Event::Interaction(data(json)?),
        "feedback" => Event::Feedback(data(json)?),
        "assessment" => Event::Assessment(data(json)?),
        "pattern" => Event::Pattern(data(json)?),
        "experience" => Event::Experience(data(json)?),
        "experience_amended" => Event::ExperienceAmended(data(json)?),
        "run" => Event::Run(data(json)?),
        "version" => Event::Version(data(json)?),
        "rollout" => Event::Rollout(data(json)?),
        "shadow_pair" => Event::ShadowPair(data(json)?),
        "rollout_progress" => Event::RolloutProgress(data(json)?),
        "ab_test" => Event::AbTest(data(json)?),
        "alias_moved" => Event::AliasMoved(data(json)?),
        other => return Err(format!("`{other}` is not the name of an event")),
    })
}
