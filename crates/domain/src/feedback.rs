//! What a person or program said of an interaction.

use serde::{Deserialize, Serialize};

use crate::{FeedbackId, InteractionId, Timestamp};

/// A thumb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thumb {
    /// The answer was right.
    Up,
    /// The answer was wrong.
    Down,
}

/// A named measurement, such as `resolved = 1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The measurement's name.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// One piece of feedback; at least one of its optional parts is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    /// Its id.
    pub id: FeedbackId,
    /// The interaction it speaks of.
    pub interaction: InteractionId,
    /// When it came in.
    pub at: Timestamp,
    /// Who said it.
    pub principal: String,
    /// Up or down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumb: Option<Thumb>,
    /// A grade from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// A named measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// The answer that would have been right (a demonstration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Labels of the client's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}
