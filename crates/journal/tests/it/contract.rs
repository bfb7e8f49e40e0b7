//! What every implementation of [`Store`] must do. A new one adds a test that calls [`run`].

use autoglm_domain::*;
use autoglm_doubles::MemoryStore;
use autoglm_journal::{Config, SqliteStore};

use crate::{
    postgres::Database,
    samples::{self, event, id},
};

#[tokio::test]
async fn the_naive_store_keeps_the_contract() {
    run(async || MemoryStore::default()).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let opened = std::cell::Cell::new(0);
    run(async || {
        opened.set(opened.get() + 1);
        let path = folder.path().join(format!("{}.sqlite", opened.get()));
        SqliteStore::open(path, Config::default()).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let Some(server) = Database::server() else { return };
    run(async || server.fresh().await.open().await).await;
}

/// Holds a store to the contract; `fresh` opens a new, empty one.
pub(crate) async fn run<S: Store + Cursors>(fresh: impl AsyncFn() -> S) {
    an_empty_store_answers(&fresh().await).await;
    events_come_back_whole_and_in_order(&fresh().await).await;
    an_append_is_all_or_nothing(&fresh().await).await;
    ids_are_taken_once(&fresh().await).await;
    what_is_spoken_of_must_be_there(&fresh().await).await;
    numbers_must_be_finite(&fresh().await).await;
    answers_that_are_recorded_are_seen_at_once(&fresh().await).await;
    interactions_come_with_all_that_was_said(&fresh().await).await;
    assessment_is_awaited_until_all_feedback_is_in_it(&fresh().await).await;
    feedback_during_an_assessment_is_not_passed_over(&fresh().await).await;
    what_somebody_spoke_of_is_awaited_first(&fresh().await).await;
    recent_assessments_are_the_latest_that_were_judged(&fresh().await).await;
    experiences_are_amended_in_place(&fresh().await).await;
    patterns_runs_and_rollouts_are_replaced(&fresh().await).await;
    pairs_of_a_rollout_come_in_the_order_asked_for(&fresh().await).await;
    looks_at_a_rollout_come_newest_first(&fresh().await).await;
    tests_of_versions_are_replaced_until_they_end(&fresh().await).await;
    an_alias_moves_only_from_where_it_is(&fresh().await).await;
    of_racing_appends_one_wins(&fresh().await).await;
    cursors_go_forward_and_never_beyond_the_journal(&fresh().await).await;
}

async fn refused(store: &impl Store, events: Vec<Event>) -> ErrorKind {
    store.append(events).await.unwrap_err().kind
}

async fn an_empty_store_answers(store: &impl Store) {
    assert_eq!(store.append(vec![]).await, Ok(()));
    assert_eq!(store.events_after(0, 10).await, Ok(vec![]));
    assert_eq!(store.recent_interactions(10).await, Ok(vec![]));
    assert_eq!(store.awaiting_assessment(10).await, Ok(vec![]));
    assert_eq!(store.assessment_lag().await, Ok(0));
    assert_eq!(store.recent_assessments(10).await, Ok(vec![]));
    assert_eq!(store.experiences().await, Ok(vec![]));
    assert_eq!(store.patterns().await, Ok(vec![]));
    assert_eq!(store.versions().await, Ok(vec![]));
    assert_eq!(store.runs().await, Ok(vec![]));
    assert_eq!(store.rollouts().await, Ok(vec![]));
    assert_eq!(store.shadow_pairs(id(1), PairOrder::Worst, 10).await, Ok(vec![]));
    assert_eq!(store.rollout_progress(id(1), 10).await, Ok(vec![]));
    assert_eq!(store.ab_tests().await, Ok(vec![]));
    assert_eq!(store.aliases().await, Ok(vec![]));
    assert_eq!(store.alias_history(&Alias::champion()).await, Ok(vec![]));
    let kinds = [
        store.interaction(id(1)).await.unwrap_err().kind,
        store.experience(id(1)).await.unwrap_err().kind,
        store.version(VersionNumber(1)).await.unwrap_err().kind,
        store.version(VersionNumber(u64::MAX)).await.unwrap_err().kind,
        store.run(id(1)).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [ErrorKind::NotFound; 5]);
}

async fn events_come_back_whole_and_in_order(store: &impl Store) {
    let events = vec![
        event::interaction(1),
        event::feedback(1, 1),
        event::assessment(1, 1, true),
        event::pattern(1, 4),
        event::experience(1),
        event::amendment(1, 0.1),
        event::run(1, RunState::Succeeded { version: VersionNumber(1) }),
        event::version(1),
        event::rollout(1, samples::verdict(Outcome::Promote)),
        event::alias_move("champion", 0, 1),
    ];
    store.append(events[..4].to_vec()).await.unwrap();
    store.append(events[4..].to_vec()).await.unwrap();
    let recorded = store.events_after(0, 100).await.unwrap();
    assert_eq!(recorded.iter().map(|it| it.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!(recorded.iter().map(|it| it.event.clone()).collect::<Vec<_>>(), events);
    assert_eq!(store.events_after(3, 2).await.unwrap(), recorded[3..5]);
    assert_eq!(store.events_after(10, 2).await, Ok(vec![]));
    assert_eq!(store.events_after(0, 0).await, Ok(vec![]));
}

async fn an_append_is_all_or_nothing(store: &impl Store) {
    store.append(vec![event::interaction(1)]).await.unwrap();
    let halves = vec![
        event::interaction(2),
        event::feedback(1, 1),
        event::experience(1),
        event::version(1),
        event::alias_move("champion", 0, 1),
        event::interaction(1),
    ];
    assert_eq!(refused(store, halves).await, ErrorKind::Conflict);
    assert_eq!(store.events_after(1, 10).await, Ok(vec![]));
    assert_eq!(store.interaction(id(2)).await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.interaction(id(1)).await.unwrap().feedback, vec![]);
    assert_eq!(store.experiences().await, Ok(vec![]));
    assert_eq!(store.versions().await, Ok(vec![]));
    assert_eq!(store.aliases().await, Ok(vec![]));
    // What was refused leaves no gap in the positions.
    store.append(vec![event::interaction(3)]).await.unwrap();
    let next = RecordedEvent { seq: 2, event: event::interaction(3) };
    assert_eq!(store.events_after(1, 10).await, Ok(vec![next]));
}

async fn ids_are_taken_once(store: &impl Store) {
    let first = vec![
        event::interaction(1),
        event::interaction(2),
        event::feedback(1, 1),
        event::assessment(1, 1, true),
        event::experience(1),
        event::version(1),
    ];
    store.append(first.clone()).await.unwrap();
    for again in first {
        assert_eq!(refused(store, vec![again]).await, ErrorKind::Conflict);
    }
    assert_eq!(refused(store, vec![event::feedback(1, 2)]).await, ErrorKind::Conflict);
    assert_eq!(refused(store, vec![event::experience(2), event::experience(2)]).await, ErrorKind::Conflict);
    assert_eq!(store.interaction(id(2)).await.unwrap().feedback, vec![]);
    assert_eq!(store.events_after(0, 100).await.unwrap().len(), 6);
}

async fn what_is_spoken_of_must_be_there(store: &impl Store) {
    for stray in [
        event::feedback(1, 9),
        event::assessment(1, 9, true),
        event::amendment(9, 0.5),
        event::alias_move("champion", 0, 9),
    ] {
        assert_eq!(refused(store, vec![stray]).await, ErrorKind::NotFound);
    }
    // An append may speak of what it brings itself, but not before it does.
    assert_eq!(refused(store, vec![event::feedback(1, 1), event::interaction(1)]).await, ErrorKind::NotFound);
    store.append(vec![event::interaction(1), event::feedback(1, 1)]).await.unwrap();
    assert_eq!(store.interaction(id(1)).await.unwrap().feedback, vec![samples::feedback(1, 1)]);
}

async fn numbers_must_be_finite(store: &impl Store) {
    store.append(vec![event::interaction(1)]).await.unwrap();
    let mut slow = samples::interaction(2);
    slow.latency_ms = f64::NAN;
    let mut graded = samples::feedback(1, 1);
    graded.score = Some(f64::INFINITY);
    let mut odd = samples::experience(1);
    odd.embedding = vec![1.0, f32::NAN];
    let mut weightless = samples::experience(1);
    weightless.weight = f32::NEG_INFINITY;
    let mut diverged = samples::run(1, RunState::Running);
    diverged.metrics.insert("loss".into(), f64::NAN);
    for event in [
        Event::Interaction(Box::new(slow)),
        Event::Feedback(graded),
        Event::Experience(Box::new(odd)),
        Event::Experience(Box::new(weightless)),
        Event::Run(Box::new(diverged)),
    ] {
        assert_eq!(refused(store, vec![event]).await, ErrorKind::Invalid);
    }
    assert_eq!(store.events_after(1, 10).await, Ok(vec![]));
}

async fn answers_that_are_recorded_are_seen_at_once(store: &impl Store) {
    assert_eq!(store.record(vec![]).await, Ok(()));
    store.record(vec![samples::interaction(1), samples::interaction(2)]).await.unwrap();
    assert_eq!(store.assessment_lag().await, Ok(2));
    store.record(vec![samples::interaction(3)]).await.unwrap();
    store.append(vec![event::feedback(1, 3)]).await.unwrap();
    assert_eq!(store.interaction(id(3)).await.unwrap().feedback, [samples::feedback(1, 3)]);
    let events: Vec<Event> = store.events_after(0, 9).await.unwrap().into_iter().map(|it| it.event).collect();
    let answers = (1..=3).map(event::interaction);
    assert_eq!(events, answers.chain([event::feedback(1, 3)]).collect::<Vec<_>>());
    let endless = Interaction { latency_ms: f64::NAN, ..samples::interaction(4) };
    assert_eq!(store.record(vec![endless]).await.unwrap_err().kind, ErrorKind::Invalid);
}

async fn interactions_come_with_all_that_was_said(store: &impl Store) {
    store.append((1..=4).map(event::interaction).collect()).await.unwrap();
    store.append(vec![event::feedback(12, 2), event::assessment(1, 2, true)]).await.unwrap();
    store.append(vec![event::feedback(11, 2), event::feedback(13, 4)]).await.unwrap();
    store.append(vec![event::assessment(2, 2, false)]).await.unwrap();
    let second = InteractionRecord {
        interaction: samples::interaction(2),
        feedback: vec![samples::feedback(12, 2), samples::feedback(11, 2)],
        assessment: Some(samples::assessment(2, 2, false)),
    };
    let bare =
        |n| InteractionRecord { interaction: samples::interaction(n), feedback: vec![], assessment: None };
    let fourth = InteractionRecord { feedback: vec![samples::feedback(13, 4)], ..bare(4) };
    assert_eq!(store.interaction(id(2)).await, Ok(second.clone()));
    let mut some = store.interactions_of(&[id(4), id(99), id(2)]).await.unwrap();
    some.sort_by_key(|it| it.interaction.id);
    assert_eq!(some, [second.clone(), fourth.clone()]);
    assert_eq!(store.interactions_of(&[]).await, Ok(vec![]));
    assert_eq!(store.recent_interactions(3).await, Ok(vec![fourth.clone(), bare(3), second.clone()]));
    let all = store.recent_interactions(usize::MAX).await;
    assert_eq!(all, Ok(vec![fourth, bare(3), second, bare(1)]));
    assert_eq!(store.recent_interactions(0).await, Ok(vec![]));
}

async fn awaited(store: &impl Store, limit: usize) -> Vec<InteractionId> {
    let records = store.awaiting_assessment(limit).await.unwrap();
    records.into_iter().map(|it| it.interaction.id).collect()
}

async fn assessment_is_awaited_until_all_feedback_is_in_it(store: &impl Store) {
    store.append((1..=3).map(event::interaction).collect()).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(1), id(2), id(3)]);
    assert_eq!(awaited(store, 2).await, [id(1), id(2)]);
    assert_eq!(store.assessment_lag().await, Ok(3));
    store.append(vec![event::assessment(50, 1, false), event::assessment(51, 2, true)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(3)]);
    // The clocks say that this feedback is older than the assessment; the journal knows better.
    let late = samples::feedback(1, 1);
    assert!(late.at < samples::assessment(50, 1, false).at);
    store.append(vec![Event::Feedback(late.clone())]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(1), id(3)]);
    assert_eq!(store.assessment_lag().await, Ok(2));
    let first = store.awaiting_assessment(1).await.unwrap().remove(0);
    assert_eq!(first.feedback, vec![late]);
    assert_eq!(first.assessment, Some(samples::assessment(50, 1, false)));
    store.append(vec![event::assessment_of(52, 1, 1)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(3)]);
    // Of refused feedback nothing is awaited.
    assert_eq!(refused(store, vec![event::feedback(1, 2)]).await, ErrorKind::Conflict);
    assert_eq!(awaited(store, 10).await, [id(3)]);
}

async fn what_somebody_spoke_of_is_awaited_first(store: &impl Store) {
    store.append((1..=4).map(event::interaction).collect()).await.unwrap();
    store.append(vec![event::feedback(1, 4), event::assessment(50, 2, false)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(4), id(1), id(3)]);
    assert_eq!(awaited(store, 1).await, [id(4)]);
    store.append(vec![event::feedback(2, 2)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(2), id(4), id(1), id(3)]);
    // Assessed without its feedback, it still stands before the others; with it, it is done.
    store.append(vec![event::assessment_of(51, 4, 0)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(2), id(4), id(1), id(3)]);
    store.append(vec![event::assessment_of(52, 4, 1)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(2), id(1), id(3)]);
    assert_eq!(store.assessment_lag().await, Ok(3));
}

async fn feedback_during_an_assessment_is_not_passed_over(store: &impl Store) {
    store.append(vec![event::interaction(1), event::feedback(1, 1)]).await.unwrap();
    let read = store.awaiting_assessment(1).await.unwrap().remove(0);
    // While it is being assessed, somebody else speaks.
    store.append(vec![event::feedback(2, 1)]).await.unwrap();
    let seen = u32::try_from(read.feedback.len()).unwrap();
    store.append(vec![event::assessment_of(50, 1, seen)]).await.unwrap();
    let again = store.awaiting_assessment(1).await.unwrap().remove(0);
    assert_eq!(again.feedback, vec![samples::feedback(1, 1), samples::feedback(2, 1)]);
    assert_eq!(store.assessment_lag().await, Ok(1));
    store.append(vec![event::assessment_of(51, 1, 2)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, []);
    // The latest assessment decides, also where an earlier one saw more.
    store.append(vec![event::assessment_of(52, 1, 1)]).await.unwrap();
    assert_eq!(awaited(store, 10).await, [id(1)]);
}

async fn recent_assessments_are_the_latest_that_were_judged(store: &impl Store) {
    store.append((1..=5).map(event::interaction).collect()).await.unwrap();
    let verified = Assessment { reference: None, ..samples::assessment(7, 5, true) };
    let assessments = vec![
        event::assessment(1, 1, true),
        event::assessment(2, 2, true),
        event::assessment(3, 3, false),
        event::assessment(4, 4, true),
        event::assessment(5, 1, true),  // instead of 1
        event::assessment(6, 4, false), // instead of 4, and judged by nothing
        Event::Assessment(verified.clone()),
    ];
    store.append(assessments).await.unwrap();
    let recent = vec![verified, samples::assessment(5, 1, true), samples::assessment(2, 2, true)];
    assert_eq!(store.recent_assessments(10).await.as_ref(), Ok(&recent));
    assert_eq!(store.recent_assessments(1).await.unwrap(), recent[..1]);
}

async fn experiences_are_amended_in_place(store: &impl Store) {
    store.append(vec![event::experience(2), event::experience(1)]).await.unwrap();
    store.append(vec![event::amendment(2, 0.5), event::amendment(2, 0.7)]).await.unwrap();
    let amendment = samples::amendment(2, 0.7);
    let amended = Experience { weight: 0.7, provenance: amendment.provenance, ..samples::experience(2) };
    assert_eq!(store.experience(id(2)).await.as_ref(), Ok(&amended));
    assert_eq!(store.experiences().await, Ok(vec![amended, samples::experience(1)]));
    // The journal still says what was remembered first.
    assert_eq!(store.events_after(0, 1).await.unwrap().remove(0).event, event::experience(2));
}

async fn patterns_runs_and_rollouts_are_replaced(store: &impl Store) {
    let small = [event::pattern(1, 2), event::pattern(2, 5), event::pattern(3, 5)];
    store.append(small.to_vec()).await.unwrap();
    store.append(vec![event::pattern(1, 9)]).await.unwrap();
    let largest_first = [(1, 9), (2, 5), (3, 5)].map(|(n, count)| samples::pattern(n, count));
    assert_eq!(store.patterns().await.unwrap(), largest_first);

    store.append(vec![event::run(2, RunState::Planned), event::run(1, RunState::Running)]).await.unwrap();
    let done = RunState::Failed { reason: "out of memory".into() };
    store.append(vec![event::run(2, done.clone())]).await.unwrap();
    assert_eq!(store.run(id(2)).await, Ok(samples::run(2, done.clone())));
    let runs = vec![samples::run(2, done), samples::run(1, RunState::Running)];
    assert_eq!(store.runs().await, Ok(runs));

    store.append(vec![event::rollout(2, RolloutState::Scanning)]).await.unwrap();
    store.append(vec![event::rollout(1, RolloutState::OfflineGate)]).await.unwrap();
    store.append(vec![event::rollout(2, samples::verdict(Outcome::Reject))]).await.unwrap();
    let rollouts = vec![
        samples::rollout(2, samples::verdict(Outcome::Reject)),
        samples::rollout(1, RolloutState::OfflineGate),
    ];
    assert_eq!(store.rollouts().await.as_ref(), Ok(&rollouts));
    // One that has ended stays as it ended, and takes nothing with it.
    let late = vec![event::rollout(1, samples::canary(0)), event::rollout(2, samples::canary(0))];
    let refused = store.append(late).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "{refused:?}");
    assert_eq!(
        refused.message,
        format!("rollout `{}` has ended already", samples::rollout(2, samples::canary(0)).id)
    );
    assert_eq!(store.rollouts().await, Ok(rollouts));
}

async fn pairs_of_a_rollout_come_in_the_order_asked_for(store: &impl Store) {
    let ids = async |order, limit| -> Vec<ShadowPairId> {
        let pairs = store.shadow_pairs(id(1), order, limit).await.unwrap();
        pairs.into_iter().map(|it| it.id).collect()
    };
    let pairs = vec![
        event::shadow_pair(1, 1, 60.0, 0.5),
        event::shadow_pair(2, 1, 10.0, 0.2),
        event::shadow_pair(9, 2, 0.0, 1.0),
        event::shadow_pair(3, 1, 90.0, 0.5),
    ];
    store.append(pairs).await.unwrap();
    assert_eq!(ids(PairOrder::Oldest, 10).await, [id(1), id(2), id(3)]);
    assert_eq!(ids(PairOrder::Worst, 10).await, [id(2), id(1), id(3)]);
    assert_eq!(ids(PairOrder::MostDifferent, 10).await, [id(1), id(3), id(2)]);
    assert_eq!(ids(PairOrder::MostDifferent, 1).await, [id(1)]);
    assert_eq!(ids(PairOrder::Worst, 0).await, []);
    // Judged since: it keeps its place among the oldest and finds a new one among the worst.
    store.append(vec![event::shadow_pair(1, 1, 0.0, 0.1)]).await.unwrap();
    assert_eq!(ids(PairOrder::Oldest, 10).await, [id(1), id(2), id(3)]);
    assert_eq!(ids(PairOrder::Worst, 10).await, [id(1), id(2), id(3)]);
    assert_eq!(ids(PairOrder::MostDifferent, 10).await, [id(3), id(2), id(1)]);
    let first = store.shadow_pairs(id(1), PairOrder::Oldest, 1).await.unwrap().remove(0);
    assert_eq!(first, samples::shadow_pair(1, 1, 0.0, 0.1));
    assert_eq!(store.shadow_pair(id(1)).await, Ok(first));
    assert_eq!(store.shadow_pair(id(9)).await, Ok(samples::shadow_pair(9, 2, 0.0, 1.0)));
    assert_eq!(store.shadow_pair(id(4)).await.unwrap_err().kind, ErrorKind::NotFound);
    let mut some = store.shadow_pairs_of(&[id(9), id(4), id(1)]).await.unwrap();
    some.sort_by_key(|it| it.id);
    assert_eq!(some, [samples::shadow_pair(1, 1, 0.0, 0.1), samples::shadow_pair(9, 2, 0.0, 1.0)]);
    let mut odd = samples::shadow_pair(4, 1, 1.0, 0.0);
    odd.diff.distance = f64::NAN;
    assert_eq!(refused(store, vec![Event::ShadowPair(Box::new(odd))]).await, ErrorKind::Invalid);
}

async fn tests_of_versions_are_replaced_until_they_end(store: &impl Store) {
    for (n, state) in [(2, AbState::Running), (1, AbState::Running), (2, samples::best(1))] {
        store.append(vec![event::ab_test(n, state)]).await.unwrap();
    }
    let tests = vec![samples::ab_test(2, samples::best(1)), samples::ab_test(1, AbState::Running)];
    assert_eq!(store.ab_tests().await.as_ref(), Ok(&tests));
    let stopped = AbState::Stopped { ended: Timestamp(1), stopped_by: "ada".into() };
    let refused = store.append(vec![event::ab_test(2, stopped)]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "{refused:?}");
    assert_eq!(store.ab_tests().await, Ok(tests));
}

async fn looks_at_a_rollout_come_newest_first(store: &impl Store) {
    store.append(vec![event::progress(1, 1), event::progress(2, 2), event::progress(3, 1)]).await.unwrap();
    let looks = vec![samples::progress(3, 1), samples::progress(1, 1)];
    assert_eq!(store.rollout_progress(id(1), 10).await.as_ref(), Ok(&looks));
    assert_eq!(store.rollout_progress(id(1), 1).await.unwrap(), looks[..1]);
    store.append(vec![event::rollout(1, samples::canary(2))]).await.unwrap();
    assert_eq!(store.rollouts().await, Ok(vec![samples::rollout(1, samples::canary(2))]));
}

async fn an_alias_moves_only_from_where_it_is(store: &impl Store) {
    let champion = Alias::champion();
    store.append(vec![event::version(1), event::version(2)]).await.unwrap();
    assert_eq!(store.version(VersionNumber(2)).await, Ok(samples::version(2)));
    assert_eq!(store.versions().await, Ok(vec![samples::version(1), samples::version(2)]));
    assert_eq!(refused(store, vec![event::alias_move("champion", 1, 2)]).await, ErrorKind::Conflict);
    store.append(vec![event::alias_move("champion", 0, 2)]).await.unwrap();
    assert_eq!(refused(store, vec![event::alias_move("champion", 0, 1)]).await, ErrorKind::Conflict);
    store
        .append(vec![event::alias_move("champion", 2, 1), event::alias_move("candidate", 0, 2)])
        .await
        .unwrap();
    store.append(vec![event::alias_move("champion", 1, 0)]).await.unwrap();
    let aliases = vec![(Alias::candidate(), VersionNumber(2)), (champion.clone(), VersionNumber::BASE)];
    assert_eq!(store.aliases().await, Ok(aliases));
    let history = [(0, 2), (2, 1), (1, 0)].map(|(from, to)| samples::alias_move("champion", from, to));
    assert_eq!(store.alias_history(&champion).await.unwrap(), history);
    assert_eq!(store.alias_history(&Alias("staging".into())).await, Ok(vec![]));
}

async fn of_racing_appends_one_wins(store: &impl Store) {
    store.append(vec![event::version(1), event::version(2)]).await.unwrap();
    let twice = (1..=20).chain(1..=20).map(|n| vec![event::interaction(n), event::experience(n)]);
    let moves = [1, 2].map(|to| vec![event::alias_move("champion", 0, to)]);
    let results = futures::future::join_all(twice.chain(moves).map(|events| store.append(events))).await;
    let kinds: Vec<_> = results.into_iter().map(|result| result.map_err(|error| error.kind)).collect();
    assert_eq!(kinds.iter().filter(|it| it.is_ok()).count(), 21);
    assert_eq!(kinds.iter().filter(|it| **it == Err(ErrorKind::Conflict)).count(), 21);
    let recorded = store.events_after(0, 100).await.unwrap();
    assert_eq!(recorded.iter().map(|it| it.seq).collect::<Vec<_>>(), (1..=43).collect::<Vec<_>>());
}

async fn cursors_go_forward_and_never_beyond_the_journal(store: &(impl Store + Cursors)) {
    assert_eq!(store.cursors().await, Ok(vec![]));
    assert_eq!(Cursors::last_seq(store).await, Ok(0));
    store.append((1..=5).map(event::interaction).collect()).await.unwrap();
    assert_eq!(Cursors::last_seq(store).await, Ok(5));
    let kind = async |mirror: &str, cursor| store.set_cursor(mirror, cursor).await.map_err(|it| it.kind);
    let begun = Cursor { seq: 0, begun: 3 };
    assert_eq!(kind("lake", begun).await, Ok(()));
    assert_eq!(kind("lake", begun).await, Ok(()), "the same once more");
    assert_eq!(kind("kafka", Cursor::at(5)).await, Ok(()));
    assert_eq!(kind("lake", Cursor::at(3)).await, Ok(()));
    assert_eq!(kind("lake", begun).await, Err(ErrorKind::Conflict), "back");
    assert_eq!(
        kind("lake", Cursor { seq: 3, begun: 6 }).await,
        Err(ErrorKind::Invalid),
        "beyond the journal"
    );
    assert_eq!(
        kind("lake", Cursor { seq: 4, begun: 3 }).await,
        Err(ErrorKind::Invalid),
        "an end before its start"
    );
    assert_eq!(
        kind("new", Cursor { seq: -1, begun: 0 }).await,
        Err(ErrorKind::Invalid),
        "before the journal"
    );
    let kept = vec![("kafka".to_owned(), Cursor::at(5)), ("lake".to_owned(), Cursor::at(3))];
    assert_eq!(store.cursors().await, Ok(kept));
    // A cursor is no event.
    assert_eq!(store.events_after(0, 10).await.unwrap().len(), 5);
}
