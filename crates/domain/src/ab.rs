//! Versions against one another on live traffic.

use serde::{Deserialize, Serialize};

use crate::{AbTestId, Timestamp, VersionNumber};

/// How conversations are shared out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// By the arms' shares, to the end.
    #[default]
    Fixed,
    /// By the arms' shares among those that may still be best.
    Bandit,
}

/// One version of a test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbArm {
    /// The version.
    pub version: VersionNumber,
    /// Its share of the conversations, in relation to the others'.
    pub share: f64,
}

/// One arm so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbArmReport {
    /// The version.
    pub version: VersionNumber,
    /// Answers with a value.
    pub count: u64,
    /// Their mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Lower end of its confidence sequence.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Whether it may still be best.
    pub is_in: bool,
}

/// How far a test is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AbState {
    /// It shares out conversations.
    Running,
    /// It ended by itself.
    Decided {
        /// The best version; `None` where none was shown to be.
        best: Option<VersionNumber>,
        /// When.
        ended: Timestamp,
    },
    /// Somebody ended it, or it could not go on.
    Stopped {
        /// When.
        ended: Timestamp,
        /// Who.
        stopped_by: String,
    },
}

/// A test of two or more versions; recorded again as answers come in, and when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbTest {
    /// Its id.
    pub id: AbTestId,
    /// When it began.
    pub at: Timestamp,
    /// Who began it.
    pub by: String,
    /// The version that answered users when it began.
    pub champion: VersionNumber,
    /// The versions; at least two.
    pub arms: Vec<AbArm>,
    /// How conversations are shared out.
    pub allocation: Allocation,
    /// What they are compared by: a dimension, a rate, `tokens`, or an expression of the rollout policy.
    pub metric: String,
    /// Most probability of naming an arm that is not best.
    pub alpha: f64,
    /// Arms this close are as good as one another, in the metric's unit.
    pub indifference: f64,
    /// Answers that every arm must have given before one is named.
    pub min_requests: u64,
    /// Answers, all arms together, at which it ends undecided.
    pub max_requests: u64,
    /// How far it is.
    #[serde(flatten)]
    pub state: AbState,
    /// How it stands, in one sentence.
    pub reason: String,
    /// The arms, in the order of `arms`.
    pub found: Vec<AbArmReport>,
}

impl AbTest {
    /// Whether it shares out conversations.
    pub fn is_running(&self) -> bool {
        matches!(self.state, AbState::Running)
    }

    /// The arms that get new conversations: with a bandit those that may still be best.
    pub fn open_arms(&self) -> Vec<AbArm> {
        let is_out = |arm: &AbArm| {
            self.allocation == Allocation::Bandit
                && self.found.iter().any(|found| found.version == arm.version && !found.is_in)
        };
        self.arms.iter().filter(|arm| !is_out(arm)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_reads_back_what_it_writes_and_a_bandit_leaves_out_what_is_out() {
        let arm = |version, share| AbArm { version: VersionNumber(version), share };
        let found = |version, is_in| AbArmReport {
            version: VersionNumber(version),
            count: 7,
            mean: Some(0.5),
            lower: 0.25,
            upper: 0.75,
            is_in,
        };
        let mut test = AbTest {
            id: AbTestId::new(uuid::Uuid::from_u128(1)),
            at: Timestamp(1),
            by: "ada".into(),
            champion: VersionNumber(1),
            arms: vec![arm(1, 0.5), arm(2, 0.25), arm(3, 0.25)],
            allocation: Allocation::Bandit,
            metric: "accuracy".into(),
            alpha: 0.05,
            indifference: 0.0,
            min_requests: 10,
            max_requests: 100,
            state: AbState::Running,
            reason: "v1 answered 7 of 10 requests".into(),
            found: vec![found(1, true), found(2, false), found(3, true)],
        };
        assert_eq!(test.open_arms(), [arm(1, 0.5), arm(3, 0.25)]);
        test.allocation = Allocation::Fixed;
        assert_eq!(test.open_arms(), test.arms);
        test.state = AbState::Decided { best: Some(VersionNumber(3)), ended: Timestamp(9) };
        let text = serde_json::to_string(&test).unwrap();
        assert!(text.contains(r#""state":"decided","best":3,"ended":9"#), "{text}");
        assert_eq!(serde_json::from_str::<AbTest>(&text).unwrap(), test);
        test.state = AbState::Stopped { ended: Timestamp(9), stopped_by: "bob".into() };
        let text = serde_json::to_string(&test).unwrap();
        assert_eq!(serde_json::from_str::<AbTest>(&text).unwrap(), test);
    }
}
