//! Where the aliases point, at hand for every request.

use std::collections::BTreeMap;

use autoglm_domain::{Alias, AliasMove, VersionNumber};
use parking_lot::RwLock;

/// Begins the reason of every move that is a rollback.
pub const ROLLBACK: &str = AliasMove::ROLLBACK;

/// The alias table in memory. Reading takes a shared lock for a few nanoseconds and never waits for I/O.
#[derive(Debug, Default)]
pub struct Aliases(RwLock<BTreeMap<Alias, VersionNumber>>);

impl Aliases {
    /// Where `alias` points; the base model where it was never moved.
    pub fn current(&self, alias: &Alias) -> VersionNumber {
        self.get(alias).unwrap_or(VersionNumber::BASE)
    }

    /// Where `alias` points, if it was ever moved.
    pub fn get(&self, alias: &Alias) -> Option<VersionNumber> {
        self.0.read().get(alias).copied()
    }

    /// The whole table.
    pub fn all(&self) -> Vec<(Alias, VersionNumber)> {
        self.0.read().iter().map(|(alias, version)| (alias.clone(), *version)).collect()
    }

    pub(crate) fn set(&self, alias: Alias, version: VersionNumber) {
        self.0.write().insert(alias, version);
    }

    pub(crate) fn replace(&self, table: Vec<(Alias, VersionNumber)>) {
        *self.0.write() = table.into_iter().collect();
    }
}

/// Where a rollback goes: what the alias pointed at before the version that it points at now was promoted.
///
/// Promotions stack up and a rollback takes the top away, so two rollbacks in a row go two promotions
/// back, not forth again to a version that was just found wanting.
pub(crate) fn before(history: &[AliasMove]) -> Option<VersionNumber> {
    let first = history.first()?;
    let mut stack = vec![first.from];
    for step in history {
        let below = stack.len().checked_sub(2).and_then(|at| stack.get(at));
        if step.is_rollback() && below == Some(&step.to) {
            stack.pop();
        } else if stack.last() != Some(&step.to) {
            stack.push(step.to);
        }
    }
    stack.pop();
    stack.pop()
}

#[cfg(test)]
mod tests {
    use autoglm_domain::Timestamp;

    use super::*;

    /// A history from steps: `3` is a promotion of v3, `-3` a rollback to v3.
    fn history(steps: &[i64]) -> Vec<AliasMove> {
        let mut from = VersionNumber::BASE;
        steps
            .iter()
            .map(|step| {
                let to = VersionNumber(step.unsigned_abs());
                let reason = if *step < 0 { format!("{ROLLBACK}worse") } else { "better".into() };
                let by = "test".to_owned();
                let step = AliasMove {
                    alias: Alias::champion(),
                    from,
                    to,
                    at: Timestamp(0),
                    by,
                    reason,
                    rollout: None,
                };
                from = to;
                step
            })
            .collect()
    }

    #[test]
    fn a_rollback_goes_to_the_champion_before() {
        for (steps, expected) in [
            (&[][..], None),
            (&[1], Some(0)),
            (&[1, 2], Some(1)),
            (&[1, 2, 3, -2], Some(1)),
            (&[1, 2, 3, -2, -1], Some(0)),
            (&[1, 2, -1, 3], Some(1)),
            (&[1, 2, -1, 3, -1], Some(0)),
            // v1 promoted anew: before it answered v3
            (&[1, 2, 3, 1], Some(3)),
            (&[1, 2, 3, 1, -3], Some(2)),
        ] {
            assert_eq!(before(&history(steps)), expected.map(VersionNumber), "{steps:?}");
        }
        let mut to_base = history(&[1]);
        to_base.push(AliasMove {
            from: VersionNumber(1),
            to: VersionNumber::BASE,
            reason: format!("{ROLLBACK}worse"),
            ..to_base[0].clone()
        });
        assert_eq!(before(&to_base), None);
    }
}
