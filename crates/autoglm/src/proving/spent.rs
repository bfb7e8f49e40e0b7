//! How long a stage has gone on, on a clock that may be set back meanwhile.

use autoglm_domain::{Live, Timestamp};

/// The time in a stage, counted from look to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    ms: u64,
    /// When the stage began, or was resumed.
    since: Timestamp,
    /// The last look.
    at: Timestamp,
}

impl Spent {
    pub(super) fn new(live: &Live, now: Timestamp) -> Self {
        Self { ms: live.spent_ms(now), since: live.since, at: now }
    }

    /// Milliseconds in the stage at a look. A clock that was set back takes nothing away and goes on counting.
    pub(super) fn look(&mut self, live: &Live, now: Timestamp) -> u64 {
        if live.since != self.since {
            *self = Self::new(live, now);
        }
        self.ms = self.ms.saturating_add(u64::try_from(now.since_ms(self.at)).unwrap_or(0));
        self.at = now;
        self.ms
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::LiveStage;

    use super::*;

    #[test]
    fn a_clock_set_back_takes_nothing_away_and_goes_on_counting() {
        let mut live = Live::begin(LiveStage::Shadow, Timestamp(10_000));
        let mut spent = Spent::new(&live, Timestamp(11_000));
        assert_eq!(spent.look(&live, Timestamp(12_000)), 2_000);
        // An hour back; the rollout's own record would say nothing for an hour from here.
        let back = 12_000 - 3_600_000;
        assert_eq!(spent.look(&live, Timestamp(back)), 2_000);
        assert_eq!(spent.look(&live, Timestamp(back + 500)), 2_500);
        assert_eq!(live.spent_ms(Timestamp(back + 500)), 0);
        // Held and resumed: what the record says counts again.
        live = Live { since: Timestamp(back + 9_000), spent_ms: 2_500, ..live };
        assert_eq!(spent.look(&live, Timestamp(back + 9_100)), 2_600);
    }
}
