//! Typed ids: a UUID that knows what it names, written with a prefix (`exp_0193…`).

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::Error;

/// What an [`Id`] names.
pub trait IdKind: 'static {
    /// Written before the UUID.
    const PREFIX: &'static str;
    /// For messages: "no interaction `…`".
    const NOUN: &'static str;
}

/// A typed id. The UUIDs are of version 7, so ids sort by the time of their making.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

impl<K: IdKind> Id<K> {
    /// Wraps a UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    /// The UUID without its type.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K: IdKind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", K::PREFIX, self.0.simple())
    }
}
impl<K: IdKind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl<K: IdKind> FromStr for Id<K> {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.strip_prefix(K::PREFIX).and_then(|rest| Uuid::try_parse(rest).ok()).map(Self::new).ok_or_else(
            || {
                Error::invalid(format!("`{text}` is not the id of a {}", K::NOUN))
                    .with_hint(format!("such an id is `{}` followed by 32 hexadecimal digits", K::PREFIX))
            },
        )
    }
}
impl<K: IdKind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K: IdKind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $alias:ident, $kind:ident, $prefix:literal, $noun:literal;)*) => {$(
        /// Marker of the id type beside it.
        #[derive(Debug)]
        pub enum $kind {}
        impl IdKind for $kind {
            const PREFIX: &'static str = $prefix;
            const NOUN: &'static str = $noun;
        }
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

ids! {
    /// Names one request and its answer; the completion's `id` in the API.
    InteractionId, InteractionKind, "chatcmpl-", "interaction";
    /// Names one piece of feedback.
    FeedbackId, FeedbackKind, "fb_", "feedback";
    /// Names one assessment.
    AssessmentId, AssessmentKind, "as_", "assessment";
    /// Names one experience.
    ExperienceId, ExperienceKind, "exp_", "experience";
    /// Names a cluster of failures.
    PatternId, PatternKind, "pat_", "error pattern";
    /// Names one training run.
    TrainingRunId, TrainingRunKind, "run_", "training run";
    /// Names the way of one candidate through the gate.
    RolloutId, RolloutKind, "roll_", "rollout";
    /// Names a test of versions against one another.
    AbTestId, AbTestKind, "ab_", "test of versions";
    /// Names a request that two versions answered.
    ShadowPairId, ShadowPairKind, "pair_", "shadow pair";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_writes_and_refuses_another_kind() {
        let id = ExperienceId::new(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_002a));
        assert_eq!(id.to_string(), "exp_0193000000007000800000000000002a");
        assert_eq!(id.to_string().parse::<ExperienceId>(), Ok(id));
        let refused = id.to_string().parse::<FeedbackId>().unwrap_err();
        assert_eq!(refused.message, "`exp_0193000000007000800000000000002a` is not the id of a feedback");
    }
}
