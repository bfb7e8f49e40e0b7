//! The gate against an engine of rules.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use autoglm_domain::{Error, ErrorKind, Outcome, SequentialIds, VersionNumber};
use autoglm_rollout::{GateConfig, Part, RolloutError, Suites};

use crate::fakes::{Bench, RuleEngine, experiences, knows, suites};

const CHAMPION: VersionNumber = VersionNumber(1);
const CANDIDATE: VersionNumber = VersionNumber(2);

fn engine(candidate: crate::fakes::Behaviour) -> RuleEngine {
    RuleEngine::new(vec![(1, knows(&["old"])), (2, candidate)])
}

#[tokio::test]
async fn a_candidate_that_learned_is_promoted_and_asked_no_more_than_needed() {
    let (engine, bench) = (engine(knows(&["old", "new"])), Bench::default());
    let verdict = bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Promote, "{}", verdict.reason);
    let new_skill = verdict.evidence.new_skill.as_ref().unwrap();
    assert_eq!((new_skill.champion_mean, new_skill.candidate_mean), (0.0, 1.0));
    assert!(new_skill.pairs < 60, "the new skill was decided after {} pairs", new_skill.pairs);
    assert_eq!(verdict.evidence.retention.as_ref().unwrap().pairs, 60, "clusters are looked at in full");
    assert_eq!(verdict.evidence.clusters[0].name, "old");
    let answers = &verdict.evidence.answers;
    assert_eq!((answers.compared, answers.changed), (new_skill.pairs + 60, new_skill.pairs));
    assert_eq!(
        (answers.examples[0].champion.as_str(), answers.examples[0].candidate.as_str()),
        ("wrong", "Right.")
    );
    let most = engine.most_at_once.load(Ordering::SeqCst);
    assert!((17..=32).contains(&most), "{most} requests at once with 16 pairs in flight");
    // `right` is one token, and 8 more are slack.
    assert!(engine.requests.lock().unwrap().iter().all(|(.., tokens)| *tokens == Some(9)));
}

#[tokio::test]
async fn the_same_seed_gives_the_same_verdict_and_a_cached_champion_is_not_asked_again() {
    let bench = Bench::default();
    let first = engine(knows(&["old", "new"]));
    let one = bench.gate(&first).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();

    let mut again = engine(knows(&["old", "new"]));
    again.delay = Duration::from_millis(1);
    let fresh = Bench::default();
    let two = fresh.gate(&again).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(one, two);

    let next = RuleEngine::new(vec![(1, knows(&[])), (3, knows(&["old", "new"]))]);
    let verdict = bench.gate(&next).run(VersionNumber(3), CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Promote);
    assert_eq!(verdict.evidence.retention.unwrap().champion_mean, 1.0, "from the cache");
    assert_eq!(next.asked(1), 0);
}

#[tokio::test]
async fn a_forgetful_candidate_is_rejected_before_all_is_asked() {
    let (engine, bench) = (engine(knows(&["new"])), Bench::default());
    let verdict = bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Reject);
    assert!(verdict.reason.contains("fell by more than"), "{}", verdict.reason);
    assert!(engine.asked(2) < 110, "{} of 120 asked", engine.asked(2));
}

#[tokio::test]
async fn scan_findings_reject_without_a_request() {
    let (engine, bench) = (engine(knows(&["old", "new"])), Bench::default());
    let scan = ["layer 3 holds NaN".to_owned(), "norm 1e9".to_owned()];
    let verdict = bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites(), &scan, 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Reject);
    assert_eq!(verdict.reason, "the scan found: layer 3 holds NaN and 1 more");
    assert_eq!(verdict.evidence.scan, scan);
    assert_eq!(engine.requests.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn errors_and_silence_of_the_candidate_are_wrong_answers() {
    let failing = Box::new(|prompt: &str| match prompt.starts_with("old") {
        true => Err(Error::internal("kernel fault")),
        false => Ok("never".to_owned()),
    });
    let config = GateConfig { request_timeout_ms: 20, ..GateConfig::default() };
    let (engine, bench) = (engine(failing), Bench { config, ..Bench::default() });
    let verdict = bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Reject);
    assert!(verdict.reason.contains("the candidate failed to answer"), "{}", verdict.reason);
    assert!(bench.cache.get(CANDIDATE, suites().new_skill[0].id).is_none(), "failures are not cached");
}

#[tokio::test]
async fn an_engine_without_room_gives_an_error_and_no_verdict() {
    let full = || Box::new(|_: &str| Err(Error::unavailable("the queue of 64 is full")));
    let config = GateConfig { retries: 2, retry_pause_ms: 1, ..GateConfig::default() };
    let bench = Bench { config, ..Bench::default() };
    let both = RuleEngine::new(vec![(1, full()), (2, full())]);
    let error = bench.gate(&both).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.to_string(), "the gate stopped after 0 pairs: the queue of 64 is full");

    // With the champion's answers cached, nothing shows that the engine is there at all.
    for experience in suites().new_skill.iter().chain(&suites().retention[0].experiences) {
        bench.cache.insert(CHAMPION, experience.id, "right".into());
    }
    let alone = RuleEngine::new(vec![(2, full())]);
    let error = bench.gate(&alone).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    // While the champion answers, no room for the candidate alone is the candidate's loss.
    let bench = Bench { config: bench.config, ..Bench::default() };
    let one = RuleEngine::new(vec![(1, knows(&["old", "new"])), (2, full())]);
    let verdict = bench.gate(&one).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Reject);
}

#[tokio::test]
async fn a_queue_that_is_full_for_a_moment_changes_nothing() {
    let calls = AtomicUsize::new(0);
    let busy = Box::new(move |prompt: &str| {
        if calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
            return Err(Error::unavailable("the queue of 64 is full"));
        }
        knows(&["old", "new"])(prompt)
    });
    let config = GateConfig { retry_pause_ms: 1, ..GateConfig::default() };
    let (engine, bench) = (engine(busy), Bench { config, ..Bench::default() });
    let verdict = bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Promote);
    assert_eq!(verdict.evidence.retention.unwrap().candidate_mean, 1.0);
}

#[tokio::test]
async fn an_absent_champion_does_not_make_a_candidate_good() {
    let bench = Bench::default();
    let engine = RuleEngine::new(vec![(2, knows(&["old", "new"]))]);
    let error = bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites(), &[], 7).await.unwrap_err();
    assert!(matches!(&error, RolloutError::NotResident { version: CHAMPION, .. }), "{error}");
    let error = bench.gate(&engine).run(CANDIDATE, CANDIDATE, &suites(), &[], 7).await.unwrap_err();
    assert_eq!(error.to_string(), "v2 cannot be compared with itself");
}

#[tokio::test]
async fn too_few_held_out_examples_are_inconclusive_without_a_request() {
    let (engine, bench) = (engine(knows(&["old", "new"])), Bench::default());
    let few = Suites { new_skill: experiences(&SequentialIds::default(), "new", 1, 5), retention: vec![] };
    let verdict = bench.gate(&engine).run(CANDIDATE, CHAMPION, &few, &[], 7).await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    assert_eq!(verdict.reason, "5 held-out examples of the new material, at least 20 are needed");
    assert_eq!(engine.requests.lock().unwrap().len(), 0);
}

#[test]
fn suites_hold_no_training_example_and_their_order_follows_the_seed() {
    let ids = SequentialIds::default();
    let mut all = experiences(&ids, "new", 1, 30);
    all.extend(experiences(&ids, "old", 2, 300));
    all[0].held_out = false;
    all[1].weight = 0.0;
    let suites = Suites::split(all, |experience| experience.task.as_deref() == Some("new"));
    assert_eq!((suites.new_skill.len(), suites.retention[0].experiences.len()), (28, 300));
    let config = GateConfig::default();
    let order = |seed| -> Vec<_> {
        suites.questions(&config, seed).iter().map(|question| question.experience.id).collect()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let first: Vec<Part> = suites.questions(&config, 1).iter().take(40).map(|q| q.part).collect();
    let new = first.iter().filter(|part| **part == Part::NewSkill).count();
    assert!((4..=6).contains(&new), "28 new among 228 are interleaved, {new} of the first 40");
    assert_eq!(order(1).len(), 228, "at most 200 of a cluster");
}

#[test]
fn a_gate_can_run_on_another_thread() {
    fn is_send<T: Send>(_: T) {}
    let (engine, bench, suites) = (engine(knows(&[])), Bench::default(), suites());
    is_send(bench.gate(&engine).run(CANDIDATE, CHAMPION, &suites, &[], 7));
}
