//! How requests for the champion are split while a candidate is on live traffic.

use autoglm_domain::{AbTest, Live, LiveStage, Rollout, RolloutId, RolloutState, VersionNumber};
use autoglm_gateway::{Route, Shadow};
use autoglm_rollout::{assigned, sticky};
use parking_lot::RwLock;

/// The split in force; nothing is split where there is none.
#[derive(Debug)]
pub(crate) struct Traffic {
    split: RwLock<Option<Split>>,
    /// Of the conversations, 0 to 1.
    shadow_share: f64,
}

/// Who gets a part of the traffic.
#[derive(Debug, Clone, PartialEq)]
enum Split {
    /// One candidate.
    Candidate(Part),
    /// The arms of a test that are open.
    Test(Box<AbTest>),
}

/// One candidate's part of the traffic.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    rollout: RolloutId,
    /// The rollout's id as conversations are placed by.
    salt: String,
    champion: VersionNumber,
    candidate: VersionNumber,
    /// Percent of the conversations.
    percent: f64,
    /// Whether the candidate's answers are heard.
    heard: bool,
}

impl Traffic {
    /// Nothing is split yet; a shadow will get `shadow_share` of the conversations.
    pub(crate) fn new(shadow_share: f64) -> Self {
        Self { split: RwLock::default(), shadow_share }
    }

    /// Splits as `rollout` says; not at all where it is decided, or its candidate is champion already. A rollout that
    /// is paused keeps the conversations of its canary where they are, and is not shadowed.
    pub(crate) fn follow(&self, rollout: &Rollout) {
        let paused = matches!(rollout.state, RolloutState::Paused { .. });
        let part = match rollout.live() {
            Some(Live { stage: LiveStage::Shadow, .. }) if !paused => {
                Some((100.0 * self.shadow_share, false))
            }
            Some(Live { stage: LiveStage::Canary { percent, .. }, .. }) => Some((*percent, true)),
            _ => None,
        };
        *self.split.write() = part.map(|(percent, heard)| {
            Split::Candidate(Part {
                rollout: rollout.id,
                salt: rollout.id.to_string(),
                champion: rollout.champion,
                candidate: rollout.candidate,
                percent,
                heard,
            })
        });
    }

    /// Splits as `test` stands; not at all where it has ended.
    pub(crate) fn follow_test(&self, test: &AbTest) {
        let open = AbTest { arms: test.open_arms(), found: Vec::new(), ..test.clone() };
        *self.split.write() = test.is_running().then(|| Split::Test(Box::new(open)));
    }

    /// Versions that answer a part of the requests beside the champion.
    pub(crate) fn versions(&self) -> Vec<VersionNumber> {
        match self.split.read().as_ref() {
            None => Vec::new(),
            Some(Split::Candidate(part)) => vec![part.candidate],
            Some(Split::Test(test)) => test.arms.iter().map(|arm| arm.version).collect(),
        }
    }

    /// Every request to the champion from now on.
    pub(crate) fn clear(&self) {
        *self.split.write() = None;
    }

    /// Who answers a request to `champion`, the version that answers users.
    pub(crate) fn route(&self, champion: VersionNumber, conversation: u64) -> Route {
        match self.split.read().as_ref() {
            Some(Split::Candidate(part)) if part.champion == champion => part.route(conversation),
            Some(Split::Test(test)) if test.champion == champion => {
                let version = assigned(test, &conversation.to_string(), None).unwrap_or(champion);
                Route { fallback: (version != champion).then_some(champion), ..Route::to(version) }
            }
            _ => Route::to(champion),
        }
    }
}

impl Part {
    fn route(&self, conversation: u64) -> Route {
        let place = sticky::place(&self.salt, &conversation.to_string(), None);
        match (sticky::is_within(place, self.percent), self.heard) {
            (false, _) => Route::to(self.champion),
            (true, true) => Route { fallback: Some(self.champion), ..Route::to(self.candidate) },
            (true, false) => {
                let shadow = Shadow { rollout: self.rollout, candidate: self.candidate };
                Route { shadow: Some(shadow), ..Route::to(self.champion) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{AbArm, AbArmReport, AbState, Allocation, Id, Timestamp};

    use super::*;

    fn rollout(state: RolloutState) -> Rollout {
        Rollout {
            id: Id::new(uuid::Uuid::from_u128(7)),
            at: Timestamp(1),
            candidate: VersionNumber(2),
            champion: VersionNumber(1),
            state,
            evidence: Default::default(),
        }
    }

    fn live(stage: LiveStage) -> RolloutState {
        RolloutState::Live(Live::begin(stage, Timestamp(1)))
    }

    fn counts(traffic: &Traffic) -> (usize, usize) {
        let routes: Vec<Route> = (0..2000).map(|n| traffic.route(VersionNumber(1), n)).collect();
        let heard = routes.iter().filter(|route| route.version == VersionNumber(2)).count();
        (heard, routes.iter().filter(|route| route.shadow.is_some()).count())
    }

    #[test]
    fn each_stage_has_its_share_and_the_end_has_none() {
        let traffic = Traffic::new(0.1);
        assert_eq!(counts(&traffic), (0, 0));
        traffic.follow(&rollout(live(LiveStage::Shadow)));
        let (heard, shadowed) = counts(&traffic);
        assert!(heard == 0 && (150..250).contains(&shadowed), "{heard} {shadowed}");
        let canary = live(LiveStage::Canary { step: 1, percent: 25.0 });
        traffic.follow(&rollout(canary.clone()));
        let (heard, shadowed) = counts(&traffic);
        assert!((430..570).contains(&heard) && shadowed == 0, "{heard} {shadowed}");
        // Another version that became champion meanwhile is not split.
        assert_eq!(traffic.route(VersionNumber(5), 3), Route::to(VersionNumber(5)));
        let RolloutState::Live(where_it_was) = canary else { unreachable!() };
        let by = || ("ada".to_owned(), "lunch".to_owned());
        let paused = |live, (by, reason)| RolloutState::Paused {
            live,
            since: Timestamp(2),
            by,
            reason,
            confirm: false,
        };
        traffic.follow(&rollout(paused(where_it_was, by())));
        assert_eq!(counts(&traffic), (heard, 0), "a pause sends nobody elsewhere");
        let everyone = Traffic::new(1.0);
        everyone.follow(&rollout(paused(Live::begin(LiveStage::Shadow, Timestamp(1)), by())));
        assert_eq!(counts(&everyone), (0, 0));
        traffic.follow(&rollout(live(LiveStage::Canary { step: 4, percent: 100.0 })));
        assert_eq!(counts(&traffic).0, 2000);
        traffic.follow(&rollout(live(LiveStage::Watch)));
        assert_eq!(counts(&traffic), (0, 0));
    }

    #[test]
    fn a_test_shares_out_everyone_and_a_bandit_forgets_what_is_out() {
        let arm = |version, share| AbArm { version: VersionNumber(version), share };
        let report = |version, is_in| AbArmReport {
            version: VersionNumber(version),
            count: 9,
            mean: None,
            lower: 0.0,
            upper: 1.0,
            is_in,
        };
        let mut test = AbTest {
            id: Id::new(uuid::Uuid::from_u128(8)),
            at: Timestamp(1),
            by: "ada".into(),
            champion: VersionNumber(1),
            arms: vec![arm(1, 0.25), arm(2, 0.25), arm(3, 0.5)],
            allocation: Allocation::Bandit,
            metric: "accuracy".into(),
            alpha: 0.05,
            indifference: 0.0,
            min_requests: 1,
            max_requests: 10,
            state: AbState::Running,
            reason: String::new(),
            found: Vec::new(),
        };
        let traffic = Traffic::new(0.1);
        let routes = |test: &AbTest| -> Vec<VersionNumber> {
            traffic.follow_test(test);
            (0..2000).map(|n| traffic.route(VersionNumber(1), n).version).collect()
        };
        let before = routes(&test);
        let count = |routes: &[VersionNumber], version| {
            routes.iter().filter(|it| **it == VersionNumber(version)).count()
        };
        assert!((900..1100).contains(&count(&before, 3)), "{}", count(&before, 3));
        assert!((430..570).contains(&count(&before, 2)), "{}", count(&before, 2));
        // The champion answers in the place of an arm that cannot begin.
        let other =
            (0..2000).map(|n| traffic.route(VersionNumber(1), n)).find(|it| it.version.0 == 3).unwrap();
        assert_eq!((other.fallback, other.shadow), (Some(VersionNumber(1)), None));
        test.found = vec![report(1, true), report(2, false), report(3, true)];
        let after = routes(&test);
        assert_eq!(count(&after, 2), 0);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b && a.0 != 2).count();
        assert_eq!(moved, 0, "only conversations of the arm that is out move");
        assert_eq!(traffic.versions(), [1, 3].map(VersionNumber));
        test.state = AbState::Decided { best: Some(VersionNumber(3)), ended: Timestamp(2) };
        assert_eq!(count(&routes(&test), 1), 2000);
    }
}
