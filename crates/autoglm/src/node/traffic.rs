//! How requests for the champion are split while a candidate is on live traffic.

use autoglm_domain::{Live, LiveStage, Rollout, RolloutId, RolloutState, VersionNumber};
use autoglm_gateway::{Route, Shadow};
use autoglm_rollout::sticky;
use parking_lot::RwLock;

/// The split in force; nothing is split where there is none.
#[derive(Debug)]
pub(crate) struct Traffic {
    split: RwLock<Option<Split>>,
    /// Of the conversations, 0 to 1.
    shadow_share: f64,
}

/// One candidate's part of the traffic.
#[derive(Debug, Clone, PartialEq)]
struct Split {
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
        *self.split.write() = part.map(|(percent, heard)| Split {
            rollout: rollout.id,
            salt: rollout.id.to_string(),
            champion: rollout.champion,
            candidate: rollout.candidate,
            percent,
            heard,
        });
    }

    /// Every request to the champion from now on.
    pub(crate) fn clear(&self) {
        *self.split.write() = None;
    }

    /// Who answers a request to `champion`, the version that answers users.
    pub(crate) fn route(&self, champion: VersionNumber, conversation: u64) -> Route {
        let split = self.split.read();
        let Some(split) = split.as_ref().filter(|split| split.champion == champion) else {
            return Route::to(champion);
        };
        let place = sticky::place(&split.salt, &conversation.to_string(), None);
        match (sticky::is_within(place, split.percent), split.heard) {
            (false, _) => Route::to(champion),
            (true, true) => Route { fallback: Some(champion), ..Route::to(split.candidate) },
            (true, false) => {
                let shadow = Shadow { rollout: split.rollout, candidate: split.candidate };
                Route { shadow: Some(shadow), ..Route::to(champion) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{Id, Timestamp};

    use super::*;

    fn rollout(state: RolloutState) -> Rollout {
        Rollout {
            id: Id::new(uuid::Uuid::from_u128(7)),
            at: Timestamp(1),
            candidate: VersionNumber(2),
            champion: VersionNumber(1),
            state,
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
        let paused = |live, (by, reason)| RolloutState::Paused { live, since: Timestamp(2), by, reason };
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
}
