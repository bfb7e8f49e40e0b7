//! A request that two versions answered: the champion its user, the candidate nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, FinishReason, InteractionId, PairDiff, RolloutId, ShadowPairId, Timestamp, ToolCall, Usage,
    VersionNumber,
};

/// One version's answer of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowAnswer {
    /// The version.
    pub version: VersionNumber,
    /// The answer's text; what there was of it where it failed.
    pub text: String,
    /// The tool calls, which nobody carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended; `None` where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Why it failed: an error of the engine or the upstream, or the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Token counts.
    pub usage: Usage,
    /// From its start to the last token, or to its failure.
    pub latency_ms: f64,
    /// From its start to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<f64>,
    /// 0 to 100 for each dimension that could be judged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// Weighted mean of the scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
}

/// Whose answer a judge prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The champion's.
    Champion,
    /// Neither, also where the judge contradicts itself once the answers change places.
    Tie,
    /// The candidate's.
    Candidate,
}

impl Preference {
    /// -1 for the champion, 0 for a tie, 1 for the candidate.
    pub fn sign(self) -> f64 {
        match self {
            Self::Champion => -1.0,
            Self::Tie => 0.0,
            Self::Candidate => 1.0,
        }
    }
}

/// How far a judge agrees with people, on pairs that they have labelled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct JudgeStanding {
    /// Labelled pairs.
    pub pairs: u64,
    /// Share of equal verdicts.
    pub share: f64,
    /// Cohen's kappa: 1 is always, 0 no more than by chance.
    pub kappa: f64,
    /// Lower end of its 95% interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Whether that is enough for its verdicts to count.
    pub trusted: bool,
}

/// A pair of answers to one request. Recorded when both are there, and once more when they have been judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowPair {
    /// Its id.
    pub id: ShadowPairId,
    /// When the request came in.
    pub at: Timestamp,
    /// The request with the champion's answer.
    pub interaction: InteractionId,
    /// The rollout that asked for it.
    pub rollout: RolloutId,
    /// The answer that the user got.
    pub champion: ShadowAnswer,
    /// The answer that nobody got.
    pub candidate: ShadowAnswer,
    /// How they differ.
    pub diff: PairDiff,
    /// What a judge prefers, where one was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// The kind of request: its `task`, or the API call.
    pub route: String,
    /// The cluster of its prompt, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// The group of its principal.
    pub principal_group: String,
}

impl ShadowPair {
    /// How much better the candidate's answer is, -1 to 1: a failure against an answer is -1 (or 1), then the
    /// difference of the overall scores, then what a judge prefers; 0 where nothing tells.
    pub fn gain(&self) -> f64 {
        match (&self.champion.error, &self.candidate.error) {
            (None, Some(_)) => return -1.0,
            (Some(_), None) => return 1.0,
            (Some(_), Some(_)) => return 0.0,
            (None, None) => {}
        }
        match (self.champion.overall, self.candidate.overall) {
            (Some(champion), Some(candidate)) => ((candidate - champion) / 100.0).clamp(-1.0, 1.0),
            _ => self.preference.map_or(0.0, Preference::sign),
        }
    }
}

/// Which pairs of a rollout come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairOrder {
    /// The oldest, which is the order that an analysis takes them in.
    #[default]
    Oldest,
    /// Those where the candidate did worst, by [`ShadowPair::gain`].
    Worst,
    /// Those whose answers differ most, by [`PairDiff::distance`].
    MostDifferent,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(error: Option<&str>, overall: Option<f64>) -> ShadowAnswer {
        ShadowAnswer {
            version: VersionNumber(1),
            text: String::new(),
            tool_calls: Vec::new(),
            finish_reason: None,
            error: error.map(Into::into),
            usage: Usage::default(),
            latency_ms: 1.0,
            first_token_ms: None,
            scores: BTreeMap::new(),
            overall,
        }
    }

    fn gain(champion: ShadowAnswer, candidate: ShadowAnswer, preference: Option<Preference>) -> f64 {
        let id = uuid::Uuid::from_u128(1);
        ShadowPair {
            id: ShadowPairId::new(id),
            at: Timestamp(1),
            interaction: InteractionId::new(id),
            rollout: RolloutId::new(id),
            champion,
            candidate,
            diff: PairDiff::default(),
            preference,
            route: "chat".into(),
            cluster: None,
            principal_group: "all".into(),
        }
        .gain()
    }

    #[test]
    fn a_failure_outweighs_scores_and_scores_outweigh_a_judge() {
        let prefer = Some(Preference::Candidate);
        assert_eq!(gain(answer(None, Some(90.0)), answer(Some("NaN"), Some(100.0)), prefer), -1.0);
        assert_eq!(gain(answer(Some("down"), None), answer(None, None), None), 1.0);
        assert_eq!(gain(answer(Some("down"), None), answer(Some("down"), None), prefer), 0.0);
        assert_eq!(gain(answer(None, Some(90.0)), answer(None, Some(65.0)), prefer), -0.25);
        assert_eq!(gain(answer(None, Some(90.0)), answer(None, None), prefer), 1.0);
        assert_eq!(gain(answer(None, None), answer(None, None), None), 0.0);
    }
}
