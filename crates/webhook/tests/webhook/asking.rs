//! Questions: who is asked, and what is made of silence.

use std::sync::Arc;

use autoglm_domain::{
    Clock, Gatekeeper as _, Id, Inquiry, LiveStage, Question, Rollout, RolloutState, Say, SystemClock,
    Timestamp, VersionNumber,
};
use autoglm_webhook::{Config, GateConfig, Gates};

use crate::receiver::{Receiver, SecretFile};

fn gates(secret: &SecretFile, addresses: &[(&str, &str, &[Question])]) -> Gates {
    let gate = |(name, address, questions): &(&str, &str, &[Question])| {
        let gate = GateConfig {
            url: format!("http://{address}/ask"),
            questions: questions.to_vec(),
            secret_env: String::new(),
            secret_file: secret.0.clone(),
            timeout_ms: 5000,
        };
        ((*name).to_owned(), gate)
    };
    let config = Config { gates: addresses.iter().map(gate).collect(), ..Config::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Gates::new(&config, &clock).unwrap()
}

fn inquiry(question: Question) -> Inquiry {
    let rollout = Rollout {
        id: Id::new(uuid::Uuid::from_u128(7)),
        at: Timestamp(1),
        candidate: VersionNumber(2),
        champion: VersionNumber(1),
        state: RolloutState::OfflineGate,
        evidence: Default::default(),
    };
    let stage = Some(LiveStage::Canary { step: 0, percent: 5.0 });
    Inquiry { question, rollout, stage, reason: "better by 3 points".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_must_agree_and_the_first_no_decides() {
    let secret = SecretFile::new();
    let yes = Receiver::default();
    let no = Receiver::answering(&[(403, r#"{"reason": "not on a Friday"}"#)]);
    let (yes_at, _a) = yes.start(None).await;
    let (no_at, _b) = no.start(None).await;
    let promotion = [Question::ConfirmPromotion];
    let both = [Question::ConfirmPromotion, Question::ConfirmRollout];
    let gates = gates(&secret, &[("a", &yes_at, &both), ("b", &no_at, &promotion)]);
    assert!(gates.is_asked(Question::ConfirmRollout) && !gates.is_asked(Question::Rollback));
    assert_eq!(gates.ask(&inquiry(Question::ConfirmRollout)).await, Say::GoOn);
    let body = yes.taken.lock()[0].body.clone();
    assert_eq!(
        body,
        serde_json::json!({
            "question": "confirm-rollout", "rollout": "roll_00000000000000000000000000000007", "candidate": "v2",
            "champion": "v1", "stage": {"stage": "canary", "step": 0, "percent": 5.0},
            "reason": "better by 3 points",
        })
    );
    let refused = Say::Refused { by: "b".into(), reason: "not on a Friday".into() };
    assert_eq!(gates.ask(&inquiry(Question::ConfirmPromotion)).await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_failures_are_no_answer() {
    let secret = SecretFile::new();
    let receiver =
        Receiver::answering(&[(0, ""), (503, ""), (200, "no JSON"), (200, r#"{"rollback": true}"#)]);
    let (address, serving) = receiver.start(None).await;
    let gates = gates(&secret, &[("slow", &address, &[Question::Rollback])]);
    let ask = || async { gates.ask(&inquiry(Question::Rollback)).await };
    let later = |reason: &str| Say::Later { reason: reason.to_owned() };
    assert_eq!(ask().await, later("`slow` did not answer: no answer within 5000 ms"));
    assert_eq!(ask().await, later("`slow` answered 503"));
    assert_eq!(ask().await, later("`slow` answered neither yes nor no"));
    assert_eq!(ask().await, Say::Refused { by: "slow".into(), reason: "without a reason".into() });
    drop(serving);
    let Say::Later { reason } = ask().await else { panic!("nobody is there") };
    assert!(reason.starts_with("`slow` did not answer: "), "{reason}");
}
