//! A candidate on its way to the users.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, ExperienceId, JudgeStanding, RolloutId, Timestamp, VersionNumber};

/// How far a candidate is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RolloutState {
    /// File form, shapes, norms, numbers.
    Scanning,
    /// Held-out experiences, candidate against champion.
    OfflineGate,
    /// On live traffic: it answers beside the champion, or some of the requests, or all of them.
    Live(Live),
    /// Held where it was on live traffic, until a person or a hook lets it go on.
    Paused {
        /// Where it was.
        live: Live,
        /// Since when.
        since: Timestamp,
        /// Who holds it.
        by: String,
        /// Why.
        reason: String,
        /// Whether it has passed where it was, and goes on as soon as somebody says so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        confirm: bool,
    },
    /// A verdict was given: with `promote` the rollout succeeded, with `reject` it failed.
    Decided {
        /// What it was.
        verdict: Verdict,
    },
    /// Stopped before a verdict.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// Where a candidate is on live traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Which stage.
    #[serde(flatten)]
    pub stage: LiveStage,
    /// When it entered the stage, or resumed it.
    pub since: Timestamp,
    /// Milliseconds that it had spent in the stage before `since`; pauses are not counted.
    #[serde(default)]
    pub spent_ms: u64,
}

impl Live {
    /// A stage that begins at `now`.
    pub fn begin(stage: LiveStage, now: Timestamp) -> Self {
        Self { stage, since: now, spent_ms: 0 }
    }

    /// Milliseconds in the stage up to `now`. A clock that stepped back adds nothing.
    pub fn spent_ms(&self, now: Timestamp) -> u64 {
        self.spent_ms.saturating_add(u64::try_from(now.0.saturating_sub(self.since.0)).unwrap_or(0))
    }
}

/// A stage on live traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum LiveStage {
    /// The champion answers; the candidate answers a sample of the requests too, unseen.
    Shadow,
    /// The candidate answers a share of the sessions.
    Canary {
        /// Which of the policy's steps, from 0.
        step: u32,
        /// The share, in percent.
        percent: f64,
    },
    /// The candidate is champion already and may still lose that.
    Watch,
}

impl std::fmt::Display for LiveStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shadow => f.write_str("shadow"),
            Self::Canary { percent, .. } => write!(f, "canary at {percent}%"),
            Self::Watch => f.write_str("watch"),
        }
    }
}

/// What the analysis of a stage came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageRuling {
    /// The stage is passed.
    Succeed,
    /// The candidate has to go.
    Fail,
    /// Nothing is decided yet.
    Wait,
    /// The time is up and nothing is decided.
    Inconclusive,
}

/// How one metric of the policy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricStatus {
    /// Shown to be within its limit.
    Shown,
    /// Its estimate is within the limit.
    Within,
    /// Its estimate is beyond the limit, which chance may have done.
    Beyond,
    /// Shown to be beyond its limit.
    Breached,
    /// Too few observations to say anything.
    Open,
}

/// One metric of both versions, in its own unit. Ends that are not known yet are `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricEvidence {
    /// The metric's name.
    pub metric: String,
    /// Observations of the champion.
    pub champion_count: u64,
    /// Observations of the candidate.
    pub candidate_count: u64,
    /// The champion's estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<f64>,
    /// The candidate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<f64>,
    /// What is held against `limit`: a difference, a ratio, or the candidate's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
    /// Lower end of its confidence sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// How it stands.
    pub status: MetricStatus,
}

/// One look at a rollout on live traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutProgress {
    /// The rollout.
    pub rollout: RolloutId,
    /// When it was looked at.
    pub at: Timestamp,
    /// The stage.
    #[serde(flatten)]
    pub stage: LiveStage,
    /// What the analysis came to.
    pub ruling: StageRuling,
    /// Why, in one sentence.
    pub reason: String,
    /// Pairs of this stage (shadow), or requests that the candidate answered in it.
    pub observations: u64,
    /// Every metric of the policy.
    pub metrics: Vec<MetricEvidence>,
    /// How far the judge agrees with people, where one compared the pairs and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeStanding>,
}

/// The way of one candidate; recorded again at every change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// When it began.
    pub at: Timestamp,
    /// The new version.
    pub candidate: VersionNumber,
    /// The version that answered users when it began.
    pub champion: VersionNumber,
    /// How far it is.
    #[serde(flatten)]
    pub state: RolloutState,
    /// What was found so far, from the offline gate on; empty once a verdict carries it.
    #[serde(default, skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
}

impl Rollout {
    /// Whether it still awaits its verdict.
    pub fn is_unfinished(&self) -> bool {
        match self.state {
            RolloutState::Scanning | RolloutState::OfflineGate => true,
            RolloutState::Live(_) | RolloutState::Paused { .. } => true,
            RolloutState::Decided { .. } | RolloutState::Aborted { .. } => false,
        }
    }

    /// Where it is on live traffic, paused or not.
    pub fn live(&self) -> Option<&Live> {
        match &self.state {
            RolloutState::Live(live) | RolloutState::Paused { live, .. } => Some(live),
            _ => None,
        }
    }

    /// What was found so far, or what its verdict rests on.
    pub fn evidence(&self) -> &Evidence {
        match &self.state {
            RolloutState::Decided { verdict } => &verdict.evidence,
            _ => &self.evidence,
        }
    }
}

/// What a verdict can be. Only `Promote` moves an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Better on what is new, not worse on what was learned.
    Promote,
    /// Shown to be worse, or broken.
    Reject,
    /// The evidence does not suffice either way.
    Inconclusive,
}

/// A paired comparison: mean of (candidate - champion) with its confidence sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedEvidence {
    /// Pairs looked at.
    pub pairs: u64,
    /// Champion's mean score, 0 to 1.
    pub champion_mean: f64,
    /// Candidate's mean score, 0 to 1.
    pub candidate_mean: f64,
    /// Mean difference, -1 to 1.
    pub difference: f64,
    /// Lower end of the confidence sequence for the mean difference.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Error probability that the sequence holds at.
    pub alpha: f64,
}

/// Retention of one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterEvidence {
    /// The cluster.
    pub cluster: ClusterId,
    /// A name for people: the task where known.
    pub name: String,
    /// How far it may fall, 0 to 1.
    pub tolerance: f64,
    /// The comparison.
    pub paired: PairedEvidence,
    /// Whether it fell by more than its tolerance.
    pub fell: bool,
}

/// Two versions' answers to one held-out experience that differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateAnswer {
    /// What was asked.
    pub experience: ExperienceId,
    /// The champion's answer; a long one is cut.
    pub champion: String,
    /// The candidate's, likewise.
    pub candidate: String,
    /// The champion's score, 0 to 1.
    pub champion_score: f64,
    /// The candidate's score, 0 to 1.
    pub candidate_score: f64,
}

/// How many answers to held-out experiences changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GateAnswers {
    /// Experiences that both versions answered.
    pub compared: u64,
    /// Of these, the ones with another answer.
    pub changed: u64,
    /// Some of those, the ones whose score changed most first.
    pub examples: Vec<GateAnswer>,
}

impl GateAnswers {
    /// Whether nothing was compared.
    pub fn is_empty(&self) -> bool {
        self.compared == 0
    }
}

/// All that a verdict rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Held-out experiences of what is new.
    pub new_skill: Option<PairedEvidence>,
    /// Held-out experiences of everything learned before, pooled.
    pub retention: Option<PairedEvidence>,
    /// The same by cluster.
    pub clusters: Vec<ClusterEvidence>,
    /// Answers of both to these experiences.
    #[serde(default, skip_serializing_if = "GateAnswers::is_empty")]
    pub answers: Box<GateAnswers>,
    /// What the scan found; empty when it passed.
    pub scan: Vec<String>,
    /// What the offline gate came to, in one sentence, where live traffic decided after it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gate: String,
    /// The last look at each stage on live traffic, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live: Vec<RolloutProgress>,
}

impl Evidence {
    /// Whether nothing was found yet.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in a look at a stage, in the place of an earlier one at the same stage.
    pub fn look(&mut self, look: RolloutProgress) {
        if self.live.last().is_some_and(|last| last.stage == look.stage) {
            self.live.pop();
        }
        self.live.push(look);
    }
}

/// The end of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Promote, reject or inconclusive.
    pub outcome: Outcome,
    /// One sentence with the deciding numbers.
    pub reason: String,
    /// When it was given.
    pub at: Timestamp,
    /// What it rests on.
    pub evidence: Evidence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_states_read_back_what_they_write() {
        let canary =
            Live { stage: LiveStage::Canary { step: 1, percent: 5.0 }, since: Timestamp(7), spent_ms: 3 };
        let state = RolloutState::Live(canary);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(
            text,
            r#"{"state":"live","stage":"canary","step":1,"percent":5.0,"since":7,"spent_ms":3}"#
        );
        assert_eq!(serde_json::from_str::<RolloutState>(&text).unwrap(), state);
        let paused = RolloutState::Paused {
            live: Live::begin(LiveStage::Watch, Timestamp(9)),
            since: Timestamp(11),
            by: "ada".into(),
            reason: "lunch".into(),
            confirm: false,
        };
        let text = serde_json::to_string(&paused).unwrap();
        assert_eq!(serde_json::from_str::<RolloutState>(&text).unwrap(), paused);
    }

    #[test]
    fn time_in_a_stage_leaves_pauses_out_and_never_runs_back() {
        let live = Live { spent_ms: 500, ..Live::begin(LiveStage::Shadow, Timestamp(1_000)) };
        assert_eq!(live.spent_ms(Timestamp(1_250)), 750);
        assert_eq!(live.spent_ms(Timestamp(10)), 500);
    }
}
