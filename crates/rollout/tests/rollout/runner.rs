//! Rollouts as they are recorded.

use std::sync::Arc;

use autoglm_domain::{
    Alias, AliasMove, Error, ErrorKind, Event, LiveStage, ManualClock, Outcome, RolloutState, SequentialIds,
    Store as _, Timestamp, VersionNumber,
};
use autoglm_doubles::{MemoryStore, version};
use autoglm_rollout::{Finished, GateConfig, RolloutRunner, promote_champion};

use crate::fakes::{Bench, RuleEngine, knows, suites};

const CHAMPION: VersionNumber = VersionNumber(1);
const CANDIDATE: VersionNumber = VersionNumber(2);

/// Events that a store of [`runner`] begins with.
const GIVEN: usize = 3;

/// A runner over a store with both versions, the champion in its place.
async fn runner() -> (Arc<MemoryStore>, RolloutRunner) {
    let store = Arc::new(MemoryStore::default());
    let versions = [CHAMPION, CANDIDATE].map(|it| Event::Version(Box::new(version(it.0))));
    store.append(versions.to_vec()).await.unwrap();
    move_champion(&store, VersionNumber::BASE, CHAMPION).await;
    let ports = (Arc::new(ManualClock::default()), Arc::new(SequentialIds::default()));
    (store.clone(), RolloutRunner::new(store, ports.0, ports.1))
}

async fn move_champion(store: &MemoryStore, from: VersionNumber, to: VersionNumber) {
    let (alias, at) = (Alias::champion(), Timestamp(0));
    let step = AliasMove { alias, from, to, at, by: "me".into(), reason: "by hand".into(), rollout: None };
    store.append(vec![Event::AliasMoved(step)]).await.unwrap();
}

async fn champion(store: &MemoryStore) -> VersionNumber {
    store.alias_history(&Alias::champion()).await.unwrap().last().unwrap().to
}

/// The states that were recorded since, in order, and moves of the alias between them.
fn states(store: &MemoryStore) -> Vec<&'static str> {
    let names = |event: &Event| match event {
        Event::Rollout(rollout) => match rollout.state {
            RolloutState::Scanning => "scanning",
            RolloutState::OfflineGate => "offline_gate",
            RolloutState::Live(live) => match live.stage {
                LiveStage::Shadow => "shadow",
                LiveStage::Canary { .. } => "canary",
                LiveStage::Watch => "watch",
            },
            RolloutState::Paused { .. } => "paused",
            RolloutState::Decided { .. } => "decided",
            RolloutState::Aborted { .. } => "aborted",
        },
        _ => "alias",
    };
    store.events().iter().skip(GIVEN).map(names).collect()
}

#[tokio::test]
async fn a_promotion_moves_the_alias_in_the_same_append_as_its_verdict() {
    let ((store, runner), bench) = (runner().await, Bench::default());
    let engine = RuleEngine::new(vec![(1, knows(&["old"])), (2, knows(&["old", "new"]))]);
    let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
    let finished = runner.run(stage, bench.gate(&engine), &suites(), &[], 7, promote_champion).await.unwrap();
    let Finished::Decided(decided) = finished else { panic!("{finished:?}") };
    assert_eq!(decided.verdict.outcome, Outcome::Promote);
    assert_eq!(states(&store), ["scanning", "offline_gate", "decided", "alias"]);
    assert_eq!(champion(&store).await, CANDIDATE);
    assert_eq!(store.rollouts().await.unwrap(), [decided.rollout]);
}

#[tokio::test]
async fn rejections_move_nothing() {
    let ((store, runner), bench) = (runner().await, Bench::default());
    let engine = RuleEngine::new(vec![(1, knows(&["old"])), (2, knows(&["new"]))]);
    for scan in [vec![], vec!["shape [3] where [4] is expected".to_owned()]] {
        let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
        let finished =
            runner.run(stage, bench.gate(&engine), &suites(), &scan, 7, promote_champion).await.unwrap();
        assert!(matches!(&finished, Finished::Decided(d) if d.verdict.outcome == Outcome::Reject));
    }
    assert_eq!(states(&store), ["scanning", "offline_gate", "decided", "scanning", "decided"]);
    assert_eq!(champion(&store).await, CHAMPION);
}

#[tokio::test]
async fn a_verdict_on_a_champion_that_was_rolled_back_meanwhile_promotes_nothing() {
    let ((store, runner), bench) = (runner().await, Bench::default());
    let engine = RuleEngine::new(vec![(1, knows(&["old"])), (2, knows(&["old", "new"]))]);
    let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
    move_champion(&store, CHAMPION, VersionNumber::BASE).await;
    let finished = runner.run(stage, bench.gate(&engine), &suites(), &[], 7, promote_champion).await.unwrap();
    let Finished::Overtaken(rollout) = finished else { panic!("{finished:?}") };
    let RolloutState::Aborted { reason } = &rollout.state else { panic!("{rollout:?}") };
    assert_eq!(reason, "its verdict came too late: alias `champion` points at v0, not at v1");
    assert_eq!(states(&store), ["scanning", "alias", "offline_gate", "aborted"], "no move but the rollback");
    assert_eq!(champion(&store).await, VersionNumber::BASE);
}

#[tokio::test]
async fn a_gate_without_a_verdict_is_recorded_as_aborted() {
    let (store, runner) = runner().await;
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
    let (store, runner) = runner().await;
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
