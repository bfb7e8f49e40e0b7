//! Whole rollouts on the traffic of a real server: two versions that were trained to say one word each, and users who
//! say what would have been right.

use std::time::Duration;

use autoglm_domain::{Alias, RolloutState};
use autoglm_rollout::{MetricConfig, RolloutPolicy, Scanned};

use super::*;
use crate::{
    bench::Host,
    demo::{Asking, RecallMode, users::Opinion},
    settings::Settings,
};

const WORDS: [&str; 2] = ["balance", "weather"];

/// Two versions on a server with `policy`; the first is champion.
async fn host(policy: RolloutPolicy) -> (Host, [VersionNumber; 2]) {
    let rollout = RolloutPolicy { live: true, settle_s: 5, ..policy };
    let settings = Settings { rollout, ..Settings::default() };
    let host = Host::start(settings).await.unwrap();
    let versions =
        [host.teach(WORDS[0], 40).await.unwrap().number, host.teach(WORDS[1], 40).await.unwrap().number];
    let parts = host.parts();
    let first = parts.registry.point(Alias::champion(), None, versions[0], "test", "the first", None).await;
    first.unwrap();
    parts.residents.follow(parts).await.unwrap();
    (host, versions)
}

/// Accuracy alone, judged by what users say.
fn accuracy(config: MetricConfig) -> RolloutPolicy {
    let mut policy = RolloutPolicy { alpha: 0.05, ..RolloutPolicy::default() };
    policy.metrics = [("accuracy".to_owned(), config)].into();
    policy.shadow.share = 1.0;
    policy.shadow.min_pairs = 5;
    policy.shadow.max_pairs = 200;
    policy.canary.steps = vec![50.0];
    policy.canary.min_requests = 5;
    policy.canary.min_s = 0;
    policy.canary.max_s = 120;
    policy.watch.window_s = 1;
    policy
}

/// A candidate that passed the gate.
async fn begin(host: &Host, [champion, candidate]: [VersionNumber; 2]) -> RolloutId {
    let parts = host.parts();
    let stage = parts.rollouts.begin(candidate, champion).await.unwrap();
    let Scanned::Clean(stage) = stage.scanned(None).await.unwrap() else { unreachable!() };
    let rollout = match parts.settings.rollout.has_shadow() {
        true => stage.shadow(parts.clock.now()).await.unwrap().rollout().clone(),
        false => stage.canary(50.0, parts.clock.now()).await.unwrap().rollout().clone(),
    };
    parts.traffic.follow(&rollout);
    rollout.id
}

/// Asks and says that `right` is right, until the rollout has ended; gives who answered, in order, and how it ended.
async fn converse(host: &Host, id: RolloutId, right: &str) -> (Vec<VersionNumber>, RolloutState) {
    let client = host.client().unwrap();
    let mut answered = Vec::new();
    let utterances: Vec<_> = host.stream.tasks.iter().flat_map(|task| &task.traffic).collect();
    for utterance in utterances.into_iter().cycle().take(2000) {
        let asking = Asking { task: None, recall: Some(RecallMode::Off) };
        let answer = client.ask(utterance, asking).await.unwrap_or_else(|error| panic!("{error}"));
        answered.push(answer.version.unwrap());
        client.tell(&answer.id, &Opinion::Correction(right.to_owned())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let rollouts = host.parts().store.rollouts().await.unwrap();
        let rollout = rollouts.into_iter().find(|rollout| rollout.id == id).unwrap();
        if !rollout.is_unfinished() {
            return (answered, rollout.state);
        }
    }
    panic!("the rollout did not end: {:?}", host.parts().store.rollouts().await.unwrap().last());
}

fn outcome(state: &RolloutState) -> (Outcome, &str) {
    match state {
        RolloutState::Decided { verdict } => (verdict.outcome, &verdict.reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_candidate_goes_from_the_shadow_to_the_champion_s_place() {
    let (host, versions) = host(accuracy(MetricConfig::improve(0.0))).await;
    let id = begin(&host, versions).await;
    let (answered, state) = converse(&host, id, WORDS[1]).await;
    assert_eq!(outcome(&state).0, Outcome::Promote, "{state:?}");
    let parts = host.parts();
    assert_eq!(parts.residents.serving(&Alias::champion()), versions[1]);
    let pairs = parts.store.shadow_pairs(id, PairOrder::Worst, 1000).await.unwrap();
    assert!(pairs.len() >= 5, "{}", pairs.len());
    let shadowed: Vec<_> = pairs.iter().map(|pair| pair.candidate.text.trim().to_lowercase()).collect();
    assert!(shadowed.iter().all(|text| text == WORDS[1]), "{shadowed:?}");
    // Nobody heard it while it was in the shadow, and it was heard before it was champion.
    let heard = answered.iter().position(|version| *version == versions[1]).unwrap();
    assert!(heard >= 5, "{answered:?}");
    let looks = parts.store.rollout_progress(id, 1000).await.unwrap();
    let mut stages: Vec<String> = looks.iter().rev().map(|look| look.stage.to_string()).collect();
    stages.dedup();
    assert_eq!(stages, ["shadow", "canary at 50%", "watch"]);
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worse_candidate_is_taken_out_of_its_canary_and_fails_nobody() {
    let mut policy = accuracy(MetricConfig::guard_difference(-5.0));
    policy.shadow.min_pairs = 0;
    policy.canary.min_requests = 500;
    let (host, versions) = host(policy).await;
    let id = begin(&host, versions).await;
    let (answered, state) = converse(&host, id, WORDS[0]).await;
    let (ruling, reason) = outcome(&state);
    assert_eq!(ruling, Outcome::Reject, "{state:?}");
    assert!(reason.contains("accuracy"), "{reason}");
    assert!(answered.contains(&versions[0]) && answered.contains(&versions[1]), "{answered:?}");
    // From the decision on the champion alone answers.
    let client = host.client().unwrap();
    for utterance in host.stream.tasks.iter().flat_map(|task| &task.traffic).take(20) {
        let asking = Asking { task: None, recall: Some(RecallMode::Off) };
        assert_eq!(client.ask(utterance, asking).await.unwrap().version, Some(versions[0]));
    }
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_that_disappoints_while_it_is_watched_gives_its_place_back() {
    let mut policy = accuracy(MetricConfig::guard_difference(-5.0));
    policy.shadow.min_pairs = 0;
    policy.watch.window_s = 600;
    let (host, versions) = host(policy).await;
    let parts = host.parts();
    // The champion answers well before the candidate takes its place.
    let client = host.client().unwrap();
    for utterance in host.stream.tasks.iter().flat_map(|task| &task.traffic).take(60) {
        let asking = Asking { task: None, recall: Some(RecallMode::Off) };
        let answer = client.ask(utterance, asking).await.unwrap();
        client.tell(&answer.id, &Opinion::Correction(WORDS[0].to_owned())).await.unwrap();
    }
    while parts.store.assessment_lag().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let turn = parts.proving.turn().await;
    let id = begin(&host, versions).await;
    let Some(OnTraffic::Canary(stage)) = parts.rollouts.on_traffic().await.unwrap() else { unreachable!() };
    promote(parts, stage, "a person was sure", parts.clock.now()).await.unwrap();
    drop(turn);
    assert_eq!(parts.residents.serving(&Alias::champion()), versions[1]);
    let (_, state) = converse(&host, id, WORDS[0]).await;
    assert_eq!(outcome(&state).0, Outcome::Reject, "{state:?}");
    assert_eq!(parts.residents.serving(&Alias::champion()), versions[0]);
    host.close().await.unwrap();
}
