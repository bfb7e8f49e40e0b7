//! The pairs of a rollout by route, cluster and principal group, for people.

use autoglm_domain::{LiveStage, PairOrder, Result, RolloutId, Store};
use autoglm_rollout::{RolloutPolicy, SliceSummary, StageAnalysis};

/// Every slice of the pairs on record, the whole first, as the shadow's analysis under `policy` has them.
///
/// # Errors
/// `Invalid` where the policy is, and the store's.
pub(crate) async fn slices(
    store: &dyn Store,
    policy: &RolloutPolicy,
    rollout: RolloutId,
) -> Result<Vec<SliceSummary>> {
    let mut analysis = StageAnalysis::new(policy, LiveStage::Shadow)?;
    let most = usize::try_from(policy.shadow.max_pairs).unwrap_or(usize::MAX);
    for pair in store.shadow_pairs(rollout, PairOrder::Oldest, most).await? {
        analysis.push_pair(&pair);
    }
    Ok(analysis.slices().map(|slices| slices.summaries()).unwrap_or_default())
}
