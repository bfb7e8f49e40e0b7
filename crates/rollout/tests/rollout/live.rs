//! The recorded way of a candidate over live traffic.

use std::sync::Arc;

use autoglm_domain::*;
use autoglm_doubles::{MemoryStore, version};
use autoglm_rollout::{OfflineGate, OnTraffic, RolloutRunner, Scanned, Stage};

const CHAMPION: VersionNumber = VersionNumber(1);
const CANDIDATE: VersionNumber = VersionNumber(2);

async fn past_the_gate() -> (Arc<MemoryStore>, RolloutRunner, Stage<OfflineGate>) {
    let store = Arc::new(MemoryStore::default());
    let versions = [1, 2].map(|number| Event::Version(Box::new(version(number))));
    store.append(versions.to_vec()).await.unwrap();
    store.append(vec![move_to(VersionNumber::BASE, CHAMPION)]).await.unwrap();
    let ids = Arc::new(SequentialIds::default());
    let runner = RolloutRunner::new(store.clone(), Arc::new(ManualClock::default()), ids);
    let stage = runner.begin(CANDIDATE, CHAMPION).await.unwrap();
    let Scanned::Clean(stage) = stage.scanned(None).await.unwrap() else { panic!("no findings") };
    (store, runner, *stage)
}

fn move_to(from: VersionNumber, to: VersionNumber) -> Event {
    let (alias, by, reason) = (Alias::champion(), "gate".into(), "shown".into());
    Event::AliasMoved(AliasMove { alias, from, to, at: Timestamp(5), by, reason, rollout: None })
}

fn verdict(outcome: Outcome) -> Verdict {
    Verdict { outcome, reason: "p95 doubled".into(), at: Timestamp(9), evidence: Evidence::default() }
}

async fn champion(store: &MemoryStore) -> VersionNumber {
    store.aliases().await.unwrap()[0].1
}

#[tokio::test]
async fn promotion_and_rollback_are_one_append_with_the_state_that_brings_them() {
    let (store, _, stage) = past_the_gate().await;
    let stage = stage.shadow(Timestamp(10)).await.unwrap();
    let stage = stage.canary(1.0, Timestamp(20)).await.unwrap();
    let stage = stage.next_step(25.0, Timestamp(30)).await.unwrap();
    assert_eq!(
        stage.rollout().state,
        RolloutState::Live(Live::begin(LiveStage::Canary { step: 1, percent: 25.0 }, Timestamp(30)))
    );
    // Somebody moved the alias by hand: nothing is recorded, and the stage is where it was.
    let stale = vec![move_to(VersionNumber::BASE, CANDIDATE)];
    let (stage, error) = stage.promote(Timestamp(40), stale).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(store.rollouts().await.unwrap()[0].state, stage.rollout().state);
    let stage = stage.promote(Timestamp(40), vec![move_to(CHAMPION, CANDIDATE)]).await.unwrap();
    assert_eq!(champion(&store).await, CANDIDATE);
    let back = vec![move_to(CANDIDATE, CHAMPION)];
    let decided = stage.decide(verdict(Outcome::Reject), back).await.map_err(|(_, error)| error).unwrap();
    assert_eq!(champion(&store).await, CHAMPION);
    assert_eq!(store.rollouts().await.unwrap(), [decided.rollout]);
}

#[tokio::test]
async fn a_rollout_on_traffic_survives_a_restart_and_its_pauses() {
    let (store, runner, stage) = past_the_gate().await;
    drop(stage.shadow(Timestamp(100)).await.unwrap()); // as a crash does
    assert_eq!(runner.recover().await.unwrap(), [], "a rollout on traffic is not aborted");
    assert_eq!(runner.begin(VersionNumber(1), CANDIDATE).await.unwrap_err().kind(), ErrorKind::Conflict);
    let Some(OnTraffic::Shadow(stage)) = runner.on_traffic().await.unwrap() else { panic!("shadow") };
    drop(stage.hold(Timestamp(130), "ada", "a look", false).await.unwrap());
    let Some(OnTraffic::Paused(stage)) = runner.on_traffic().await.unwrap() else { panic!("paused") };
    let resumed = stage.resume(Timestamp(900)).await.unwrap();
    assert_eq!(resumed.rollout().live().unwrap().spent_ms(Timestamp(910)), 40);
    let OnTraffic::Shadow(stage) = resumed else { panic!("{resumed:?}") };
    stage.abort("ada: enough").await.unwrap();
    assert_eq!(runner.on_traffic().await.unwrap().map(|it| it.rollout().id), None);
    assert!(matches!(store.rollouts().await.unwrap()[0].state, RolloutState::Aborted { .. }));
}

fn look(stage: LiveStage, observations: u64) -> RolloutProgress {
    RolloutProgress {
        rollout: Id::new(uuid::Uuid::from_u128(1)),
        at: Timestamp(7),
        stage,
        ruling: StageRuling::Succeed,
        reason: format!("{observations} pairs"),
        observations,
        metrics: Vec::new(),
        judge: None,
    }
}

#[tokio::test]
async fn what_was_found_goes_along_and_ends_in_the_verdict() {
    let (store, runner, stage) = past_the_gate().await;
    let stage =
        stage.with_evidence(|it| it.gate = "shown offline".into()).shadow(Timestamp(10)).await.unwrap();
    drop(stage);
    let restored = runner.on_traffic().await.unwrap().unwrap();
    // The second look at a stage takes the place of the first.
    let looked_at = restored.looked_at(look(LiveStage::Shadow, 5)).looked_at(look(LiveStage::Shadow, 9));
    let OnTraffic::Shadow(stage) = looked_at else { panic!("shadow") };
    drop(stage.hold(Timestamp(20), "rollout", "passed", true).await.unwrap());
    let Some(OnTraffic::Paused(stage)) = runner.on_traffic().await.unwrap() else { panic!("paused") };
    assert!(matches!(stage.rollout().state, RolloutState::Paused { confirm: true, .. }));
    let OnTraffic::Shadow(stage) = stage.resume(Timestamp(30)).await.unwrap() else { panic!("shadow") };
    let canary = LiveStage::Canary { step: 0, percent: 5.0 };
    let stage = stage.canary(5.0, Timestamp(40)).await.unwrap().with_evidence(|it| it.look(look(canary, 3)));
    let found = stage.rollout().evidence.clone();
    assert_eq!(found.gate, "shown offline");
    assert_eq!(found.live.iter().map(|look| look.observations).collect::<Vec<_>>(), [9, 3]);
    let verdict = Verdict { evidence: found.clone(), ..verdict(Outcome::Reject) };
    stage.decide(verdict, Vec::new()).await.map_err(|(_, error)| error).unwrap();
    let rollout = store.rollouts().await.unwrap().remove(0);
    assert!(rollout.evidence.is_empty(), "the verdict carries it");
    let RolloutState::Decided { verdict } = rollout.state else { panic!("decided") };
    assert_eq!(verdict.evidence, found);
}
