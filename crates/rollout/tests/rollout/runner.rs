//! Rollouts as they are recorded.

use std::sync::Arc;

use autoglm_domain::{
    Error, ErrorKind, Event, ManualClock, Outcome, RolloutState, SequentialIds, Store as _, VersionNumber,
};
use autoglm_rollout::{Finished, GateConfig, RolloutRunner, promote_champion};

use crate::fakes::{Bench, RolloutStore, RuleEngine, knows, suites};

const CHAMPION: VersionNumber = VersionNumber(1);
const CANDIDATE: VersionNumber = VersionNumber(2);

fn runner() -> (Arc<RolloutStore>, RolloutRunner) {
    let store = Arc::new(RolloutStore::default());
    *store.champion.lock().unwrap() = CHAMPION;
    let ports = (Arc::new(ManualClock::default()), Arc::new(SequentialIds::default()));
    (store.clone(), RolloutRunner::new(store, ports.0, ports.1))
}

/// The recorded states, in order.
fn states(store: &RolloutStore) -> Vec<&'static str> {
    let names = |event: &Event| match event {
        Event::Rollout(rollout) => match rollout.state {
            RolloutState::Scanning => "scanning",
            RolloutState::OfflineGate => "offline_gate",
            RolloutState::Decided { .. } => "decided",
            RolloutState::Aborted { .. } => "aborted",
        },
        _ => "alias",
    };
    store.events.lock().unwrap().iter().map(names).collect()
}

#[tokio::test]
async fn a_promotion_moves_the_alias_in_the_same_append_as_its_verdict() {
    let ((store, runner), bench) = (runner(), Bench::default());
    let engine = RuleEngine::new(vec![(1, knows(&["old"])), (2, knows(&["old", "new"]))]);
    let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
    let finished = runner.run(stage, bench.gate(&engine), &suites(), &[], 7, promote_champion).await.unwrap();
    let Finished::Decided(decided) = finished else { panic!("{finished:?}") };
    assert_eq!(decided.verdict.outcome, Outcome::Promote);
    assert_eq!(states(&store), ["scanning", "offline_gate", "decided", "alias"]);
    assert_eq!(*store.champion.lock().unwrap(), CANDIDATE);
    assert_eq!(store.rollouts().await.unwrap(), [decided.rollout]);
}

#[tokio::test]
async fn rejections_move_nothing() {
    let ((store, runner), bench) = (runner(), Bench::default());
    let engine = RuleEngine::new(vec![(1, knows(&["old"])), (2, knows(&["new"]))]);
    for scan in [vec![], vec!["shape [3] where [4] is expected".to_owned()]] {
        let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
        let finished =
            runner.run(stage, bench.gate(&engine), &suites(), &scan, 7, promote_champion).await.unwrap();
        assert!(matches!(&finished, Finished::Decided(d) if d.verdict.outcome == Outcome::Reject));
    }
    assert_eq!(states(&store), ["scanning", "offline_gate", "decided", "scanning", "decided"]);
    assert_eq!(*store.champion.lock().unwrap(), CHAMPION);
}

#[tokio::test]
async fn a_verdict_on_a_champion_that_was_rolled_back_meanwhile_promotes_nothing() {
    let ((store, runner), bench) = (runner(), Bench::default());
    let engine = RuleEngine::new(vec![(1, knows(&["old"])), (2, knows(&["old", "new"]))]);
    let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
    *store.champion.lock().unwrap() = VersionNumber::BASE;
    let finished = runner.run(stage, bench.gate(&engine), &suites(), &[], 7, promote_champion).await.unwrap();
    let Finished::Overtaken(rollout) = finished else { panic!("{finished:?}") };
    let RolloutState::Aborted { reason } = &rollout.state else { panic!("{rollout:?}") };
    assert_eq!(reason, "its verdict came too late: champion points at v0");
    assert_eq!(states(&store), ["scanning", "offline_gate", "aborted"]);
    assert_eq!(*store.champion.lock().unwrap(), VersionNumber::BASE);
}

#[tokio::test]
async fn a_gate_without_a_verdict_is_recorded_as_aborted() {
    let (store, runner) = runner();
    let config = GateConfig { retries: 0, ..GateConfig::default() };
    let bench = Bench { config, ..Bench::default() };
    let full = || Box::new(|_: &str| Err(Error::unavailable("the queue of 64 is full")));
    let engine = RuleEngine::new(vec![(1, full()), (2, full())]);
    let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
    let error =
        runner.run(stage, bench.gate(&engine), &suites(), &[], 7, promote_champion).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(states(&store), ["scanning", "offline_gate", "aborted"]);
}

#[tokio::test]
async fn an_unfinished_rollout_blocks_the_next_until_it_is_recovered() {
    let (store, runner) = runner();
    drop(runner.begin(CANDIDATE, CHAMPION).await.unwrap()); // as a crash does
    let busy = runner.begin(VersionNumber(3), CHAMPION).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Conflict);
    assert!(busy.to_string().ends_with("of v2 is not finished"), "{busy}");

    let recovered = runner.recover().await.unwrap();
    assert_eq!(recovered.iter().map(|r| r.candidate).collect::<Vec<_>>(), [CANDIDATE]);
    assert_eq!(states(&store), ["scanning", "aborted"]);
    assert_eq!(runner.recover().await.unwrap(), [], "a second time there is nothing to do");
    assert!(runner.begin(CANDIDATE, CHAMPION).await.is_ok());
}
