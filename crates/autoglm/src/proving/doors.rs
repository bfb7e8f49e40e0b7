//! The doors of a rollout, at which others have a say: before each stage on live traffic, before the champion's place,
//! and, while users hear the candidate, whether it should go.
//!
//! Questions are asked beside the looks, so that a hook that is slow holds up nothing but the door that it stands at: a
//! guard that breaks meanwhile still takes the candidate down. No answer opens no door; when the policy's time is used
//! up, the stage ends undecided.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use autoglm_domain::{
    Clock, Gatekeeper, Inquiry, Live, LiveStage, Outcome, Question, Rollout, RolloutId, Say, StageRuling,
    Timestamp, Verdict,
};
use autoglm_rollout::{Confirm, RolloutPolicy, StageResult};
use autoglm_webhook::Backoff;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

/// Who is asked at the doors, and what they said so far.
pub(crate) struct Doors {
    gates: Arc<dyn Gatekeeper>,
    clock: Arc<dyn Clock>,
    backoff: Arc<Backoff>,
    /// Longest at the first door.
    wait: Duration,
    rollback_every: Duration,
    asked: Mutex<BTreeMap<Question, Asked>>,
}

/// How the reason of a stage begins that is passed but for somebody's word.
const PASSED: &str = "passed, and waits for";

/// Whether a look says so.
pub(super) fn is_passed(reason: &str) -> bool {
    reason.starts_with(PASSED)
}

/// A question under way, or answered for good.
struct Asked {
    rollout: RolloutId,
    stage: Option<LiveStage>,
    said: Arc<Mutex<Option<Say>>>,
    task: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Doors {
    /// Doors at which `gates` stand. `seed` is that of the pauses' jitter.
    pub(crate) fn new(
        gates: Arc<dyn Gatekeeper>,
        clock: Arc<dyn Clock>,
        config: &autoglm_webhook::Config,
        seed: u64,
    ) -> Self {
        Self {
            gates,
            clock,
            backoff: Arc::new(Backoff::new(Duration::from_secs(config.max_pause_s), seed)),
            wait: Duration::from_secs(config.wait_s),
            rollback_every: Duration::from_millis(config.rollback_every_ms),
            asked: Mutex::default(),
        }
    }

    /// What becomes of a look's result when the others are heard.
    pub(super) fn hear(
        &self,
        policy: &RolloutPolicy,
        rollout: &Rollout,
        live: &Live,
        result: StageResult,
        now: Timestamp,
    ) -> StageResult {
        let rule = |ruling, reason, result: StageResult| StageResult { ruling, reason, ..result };
        if live.stage != LiveStage::Shadow
            && result.ruling != StageRuling::Fail
            && let Some(Say::Refused { by, reason }) =
                self.said(Question::Rollback, rollout, Some(live.stage), &result.reason)
        {
            return rule(StageRuling::Fail, format!("`{by}` asked for a rollback: {reason}"), result);
        }
        if result.ruling != StageRuling::Succeed {
            return result;
        }
        let Some((question, next)) = door(policy, &live.stage) else { return result };
        if !self.gates.is_asked(question) {
            return result;
        }
        match self.said(question, rollout, next, &result.reason) {
            Some(Say::GoOn) => result,
            Some(Say::Refused { by, reason }) => {
                rule(StageRuling::Fail, refusal(&by, question, &reason), result)
            }
            None => rule(StageRuling::Wait, format!("{PASSED} `{question}`"), result),
            Some(Say::Later { reason }) => {
                let spent_s = live.spent_ms(now) / 1000;
                match spent_s >= limit_s(policy, &live.stage) {
                    true => rule(
                        StageRuling::Inconclusive,
                        format!("the {} ended after {spent_s} s without `{question}`: {reason}", live.stage),
                        result,
                    ),
                    false => rule(StageRuling::Wait, format!("{PASSED} `{question}`: {reason}"), result),
                }
            }
        }
    }

    /// Nobody is asked any more.
    pub(super) fn close(&self) {
        self.asked.lock().clear();
    }

    /// What was said to a question, which is asked from now on if it is not yet; `None` where nothing was said so far.
    fn said(
        &self,
        question: Question,
        rollout: &Rollout,
        stage: Option<LiveStage>,
        reason: &str,
    ) -> Option<Say> {
        if !self.gates.is_asked(question) {
            return None;
        }
        let mut asked = self.asked.lock();
        if let Some(asked) = asked.get(&question).filter(|it| it.rollout == rollout.id && it.stage == stage) {
            return asked.said.lock().clone();
        }
        let inquiry = Inquiry { question, rollout: rollout.clone(), stage, reason: reason.to_owned() };
        let said = Arc::new(Mutex::new(None));
        let task = tokio::spawn(ask_on(
            Arc::clone(&self.gates),
            inquiry,
            Arc::clone(&said),
            Arc::clone(&self.backoff),
            self.rollback_every,
        ));
        let one = Asked { rollout: rollout.id, stage, said, task: task.abort_handle() };
        asked.insert(question, one);
        None
    }
}

/// Asks until there is an answer that stands.
async fn ask_on(
    gates: Arc<dyn Gatekeeper>,
    inquiry: Inquiry,
    said: Arc<Mutex<Option<Say>>>,
    backoff: Arc<Backoff>,
    rollback_every: Duration,
) {
    let mut failed = 0;
    loop {
        let say = gates.ask(&inquiry).await;
        let stands = match (&say, inquiry.question) {
            (Say::Refused { .. }, _) => true,
            (Say::GoOn, question) => question != Question::Rollback,
            (Say::Later { .. }, _) => false,
        };
        failed = if matches!(say, Say::Later { .. }) { failed + 1 } else { 0 };
        *said.lock() = Some(say);
        if stands {
            return;
        }
        let pause = match inquiry.question {
            Question::Rollback => rollback_every,
            _ => backoff.pause(failed),
        };
        tokio::time::sleep(pause).await;
    }
}

#[async_trait::async_trait]
impl Confirm for Doors {
    async fn confirm(&self, rollout: &Rollout, next: Option<LiveStage>, verdict: Verdict) -> Verdict {
        let question = match next {
            Some(_) => Question::ConfirmRollout,
            None => Question::ConfirmPromotion,
        };
        if !self.gates.is_asked(question) {
            return verdict;
        }
        let inquiry =
            Inquiry { question, rollout: rollout.clone(), stage: next, reason: verdict.reason.clone() };
        let begin = Instant::now();
        for failed in 1.. {
            let (outcome, reason) = match self.gates.ask(&inquiry).await {
                Say::GoOn => return verdict,
                Say::Refused { by, reason } => (Outcome::Reject, refusal(&by, question, &reason)),
                Say::Later { reason } if begin.elapsed() >= self.wait => {
                    let waited_s = self.wait.as_secs();
                    let reason = format!("after {waited_s} s there is no `{question}`: {reason}");
                    (Outcome::Inconclusive, reason)
                }
                Say::Later { reason } => {
                    if failed == 1 {
                        tracing::warn!(candidate = %rollout.candidate, reason, "a candidate waits for `{question}`");
                    }
                    let left = self.wait.saturating_sub(begin.elapsed());
                    tokio::time::sleep(self.backoff.pause(failed).min(left)).await;
                    continue;
                }
            };
            return Verdict { outcome, reason, at: self.clock.now(), ..verdict };
        }
        verdict
    }
}

fn refusal(by: &str, question: Question, reason: &str) -> String {
    format!("`{by}` refused `{question}`: {reason}")
}

/// The question at the end of a stage, and what comes behind the door.
fn door(policy: &RolloutPolicy, stage: &LiveStage) -> Option<(Question, Option<LiveStage>)> {
    let step = match stage {
        LiveStage::Shadow => 0,
        LiveStage::Canary { step, .. } => step + 1,
        LiveStage::Watch => return None,
    };
    Some(match policy.canary.steps.get(step as usize) {
        Some(percent) => (Question::ConfirmRollout, Some(LiveStage::Canary { step, percent: *percent })),
        None => (Question::ConfirmPromotion, (policy.watch.window_s > 0).then_some(LiveStage::Watch)),
    })
}

/// Seconds at which a stage ends undecided.
fn limit_s(policy: &RolloutPolicy, stage: &LiveStage) -> u64 {
    match stage {
        LiveStage::Shadow => policy.shadow.max_s,
        LiveStage::Canary { .. } => policy.canary.max_s,
        LiveStage::Watch => policy.watch.window_s,
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{Evidence, Id, RolloutState, SystemClock, VersionNumber};

    use super::*;

    /// Says one thing after another, the last for ever.
    struct Script(Mutex<Vec<Say>>);

    #[async_trait::async_trait]
    impl Gatekeeper for Script {
        fn is_asked(&self, _: Question) -> bool {
            true
        }

        async fn ask(&self, _: &Inquiry) -> Say {
            let mut left = self.0.lock();
            if left.len() > 1 { left.remove(0) } else { left[0].clone() }
        }
    }

    fn later() -> Say {
        Say::Later { reason: "`quality` answered 503".into() }
    }

    fn no() -> Say {
        Say::Refused { by: "quality".into(), reason: "tickets".into() }
    }

    fn doors(script: Vec<Say>, wait_s: u64) -> Doors {
        let config = autoglm_webhook::Config { wait_s, rollback_every_ms: 100, ..Default::default() };
        Doors::new(Arc::new(Script(Mutex::new(script))), Arc::new(SystemClock), &config, 7)
    }

    fn policy() -> RolloutPolicy {
        let mut policy = RolloutPolicy { live: true, ..RolloutPolicy::default() };
        policy.canary.steps = vec![5.0, 50.0];
        policy.shadow.max_s = 100;
        policy.canary.max_s = 100;
        policy
    }

    fn rollout() -> Rollout {
        Rollout {
            id: Id::new(uuid::Uuid::from_u128(7)),
            at: Timestamp(1),
            candidate: VersionNumber(2),
            champion: VersionNumber(1),
            state: RolloutState::OfflineGate,
            evidence: Evidence::default(),
        }
    }

    fn result(ruling: StageRuling) -> StageResult {
        StageResult { ruling, reason: "by the numbers".into(), observations: 9, metrics: Vec::new() }
    }

    fn look(doors: &Doors, stage: LiveStage, ruling: StageRuling, spent_s: i64) -> (StageRuling, String) {
        let live = Live::begin(stage, Timestamp(0));
        let heard = doors.hear(&policy(), &rollout(), &live, result(ruling), Timestamp(spent_s * 1000));
        (heard.ruling, heard.reason)
    }

    /// Lets the questions under way be answered.
    async fn moment() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[test]
    fn each_stage_ends_at_its_door() {
        let policy = policy();
        let canary = |step, percent| LiveStage::Canary { step, percent };
        let rollout = Question::ConfirmRollout;
        assert_eq!(door(&policy, &LiveStage::Shadow), Some((rollout, Some(canary(0, 5.0)))));
        assert_eq!(door(&policy, &canary(0, 5.0)), Some((rollout, Some(canary(1, 50.0)))));
        let promotion = Some((Question::ConfirmPromotion, Some(LiveStage::Watch)));
        assert_eq!(door(&policy, &canary(1, 50.0)), promotion);
        assert_eq!(door(&policy, &LiveStage::Watch), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_opens_with_a_yes_and_stays_shut_without() {
        let doors = doors(vec![later(), later(), Say::GoOn], 60);
        let at = |spent_s| look(&doors, LiveStage::Shadow, StageRuling::Succeed, spent_s);
        assert_eq!(at(1), (StageRuling::Wait, "passed, and waits for `confirm-rollout`".into()));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let waiting = "passed, and waits for `confirm-rollout`: `quality` answered 503";
        assert_eq!(at(1), (StageRuling::Wait, waiting.into()));
        moment().await;
        moment().await;
        assert_eq!(at(2), (StageRuling::Succeed, "by the numbers".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_no_fails_the_candidate_and_silence_leaves_it_undecided() {
        let refusing = doors(vec![no()], 60);
        let last = LiveStage::Canary { step: 1, percent: 50.0 };
        assert_eq!(look(&refusing, last, StageRuling::Wait, 1).0, StageRuling::Wait);
        moment().await;
        // To the question of a rollback, the refusal takes it down before any door.
        let asked = "`quality` asked for a rollback: tickets";
        assert_eq!(look(&refusing, last, StageRuling::Wait, 1), (StageRuling::Fail, asked.into()));
        let shadow = |doors: &Doors, spent_s| look(doors, LiveStage::Shadow, StageRuling::Succeed, spent_s);
        assert_eq!(shadow(&refusing, 1).0, StageRuling::Wait);
        moment().await;
        let refused = "`quality` refused `confirm-rollout`: tickets";
        assert_eq!(shadow(&refusing, 1), (StageRuling::Fail, refused.into()));

        let silent = doors(vec![later()], 60);
        assert_eq!(shadow(&silent, 200).0, StageRuling::Wait, "it is asked once at least");
        moment().await;
        assert_eq!(shadow(&silent, 99).0, StageRuling::Wait);
        let (ruling, reason) = shadow(&silent, 100);
        assert_eq!(ruling, StageRuling::Inconclusive);
        assert_eq!(reason, "the shadow ended after 100 s without `confirm-rollout`: `quality` answered 503");
        // A breach goes before every question.
        assert_eq!(look(&silent, LiveStage::Shadow, StageRuling::Fail, 1).0, StageRuling::Fail);
        silent.close();
        assert!(silent.asked.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_gate_a_verdict_waits_for_its_confirmation() {
        let verdict = Verdict {
            outcome: Outcome::Promote,
            reason: "better".into(),
            at: Timestamp(1),
            evidence: Evidence::default(),
        };
        let confirmed = doors(vec![later(), Say::GoOn], 60).confirm(&rollout(), None, verdict.clone()).await;
        assert_eq!(confirmed, verdict);
        let refused = doors(vec![no()], 60).confirm(&rollout(), None, verdict.clone()).await;
        assert_eq!(refused.outcome, Outcome::Reject);
        assert_eq!(refused.reason, "`quality` refused `confirm-promotion`: tickets");
        let begin = Instant::now();
        let unheard = doors(vec![later()], 60).confirm(&rollout(), Some(LiveStage::Shadow), verdict).await;
        assert_eq!(unheard.outcome, Outcome::Inconclusive);
        assert_eq!(unheard.reason, "after 60 s there is no `confirm-rollout`: `quality` answered 503");
        assert!((60..62).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }
}
