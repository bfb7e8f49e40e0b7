//! What hooks hear of: events of the journal that concern versions, as JSON.

use autoglm_domain::{
    Alias, AliasMove, Event, ModelVersion, RecordedEvent, Rollout, RolloutState, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A kind of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    /// A version was registered.
    #[serde(rename = "version.created")]
    Created,
    /// A version became champion.
    #[serde(rename = "version.promoted")]
    Promoted,
    /// The champion went back to an earlier version.
    #[serde(rename = "version.rolled_back")]
    RolledBack,
    /// Another alias moved.
    #[serde(rename = "alias.moved")]
    AliasMoved,
    /// A rollout ended: with a verdict, or aborted.
    #[serde(rename = "rollout.decided")]
    RolloutDecided,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notice {
    pub(crate) kind: NoticeKind,
    /// Its event's position in the journal.
    pub(crate) seq: i64,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// What is sent.
    pub(crate) body: String,
}

/// What there is to tell of an event; `None` for most.
pub(crate) fn notice(recorded: &RecordedEvent) -> Option<Notice> {
    let (kind, at, data) = match &recorded.event {
        Event::Version(version) => (NoticeKind::Created, version.at, created(version)),
        Event::AliasMoved(step) => (kind_of(step), step.at, moved(step)),
        Event::Rollout(rollout) => (NoticeKind::RolloutDecided, ended_at(rollout)?, decided(rollout)?),
        _ => return None,
    };
    let body = json!({"id": recorded.seq, "event": kind, "at": at, "data": data}).to_string();
    Some(Notice { kind, seq: recorded.seq, at, body })
}

fn kind_of(step: &AliasMove) -> NoticeKind {
    match step.alias == Alias::champion() {
        false => NoticeKind::AliasMoved,
        true if step.is_rollback() => NoticeKind::RolledBack,
        true => NoticeKind::Promoted,
    }
}

fn created(version: &ModelVersion) -> Value {
    json!({
        "version": version.number.to_string(), "hash": version.hash, "adapter": version.adapter,
        "base": version.base, "parent": version.parent.to_string(), "run": version.run,
        "snapshot": version.snapshot, "metrics": version.metrics, "note": version.note,
    })
}

fn moved(step: &AliasMove) -> Value {
    json!({
        "alias": step.alias, "from": step.from.to_string(), "to": step.to.to_string(), "by": step.by,
        "reason": step.reason, "rollout": step.rollout,
    })
}

/// When a rollout that has ended did; an aborted one is as old as its beginning.
fn ended_at(rollout: &Rollout) -> Option<Timestamp> {
    match &rollout.state {
        RolloutState::Decided { verdict } => Some(verdict.at),
        RolloutState::Aborted { .. } => Some(rollout.at),
        _ => None,
    }
}

fn decided(rollout: &Rollout) -> Option<Value> {
    let (outcome, reason) = match &rollout.state {
        RolloutState::Decided { verdict } => (json!(verdict.outcome), &verdict.reason),
        RolloutState::Aborted { reason } => (json!("aborted"), reason),
        _ => return None,
    };
    Some(json!({
        "rollout": rollout.id, "candidate": rollout.candidate.to_string(),
        "champion": rollout.champion.to_string(), "outcome": outcome, "reason": reason,
    }))
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{Evidence, Id, Outcome, Verdict, VersionNumber};

    use super::*;

    fn told(event: Event) -> Option<(NoticeKind, Value)> {
        let notice = notice(&RecordedEvent { seq: 9, event })?;
        Some((notice.kind, serde_json::from_str(&notice.body).unwrap()))
    }

    fn step(alias: &str, reason: &str) -> Event {
        Event::AliasMoved(AliasMove {
            alias: Alias(alias.into()),
            from: VersionNumber(1),
            to: VersionNumber(2),
            at: Timestamp(5),
            by: "ada".into(),
            reason: reason.into(),
            rollout: None,
        })
    }

    fn rollout(state: RolloutState) -> Event {
        Event::Rollout(Box::new(Rollout {
            id: Id::new(uuid::Uuid::from_u128(3)),
            at: Timestamp(4),
            candidate: VersionNumber(2),
            champion: VersionNumber(1),
            state,
            evidence: Evidence::default(),
        }))
    }

    #[test]
    fn moves_are_promotions_rollbacks_or_moves_of_other_names() {
        let (kind, body) = told(step("champion", "better")).unwrap();
        assert_eq!(kind, NoticeKind::Promoted);
        assert_eq!(
            body,
            json!({"id": 9, "event": "version.promoted", "at": 5, "data": {
                "alias": "champion", "from": "v1", "to": "v2", "by": "ada", "reason": "better", "rollout": null,
            }})
        );
        assert_eq!(told(step("champion", "rollback: slow")).unwrap().0, NoticeKind::RolledBack);
        assert_eq!(told(step("staging", "rollback: slow")).unwrap().0, NoticeKind::AliasMoved);
    }

    #[test]
    fn a_rollout_is_told_of_when_it_has_ended() {
        assert_eq!(told(rollout(RolloutState::OfflineGate)), None);
        let verdict = Verdict {
            outcome: Outcome::Reject,
            reason: "worse".into(),
            at: Timestamp(8),
            evidence: Evidence::default(),
        };
        let (kind, body) = told(rollout(RolloutState::Decided { verdict })).unwrap();
        assert_eq!(kind, NoticeKind::RolloutDecided);
        assert_eq!(body["data"]["outcome"], "reject");
        assert_eq!(body["at"], 8);
        let (_, body) = told(rollout(RolloutState::Aborted { reason: "by ada".into() })).unwrap();
        assert_eq!(
            (&body["data"]["outcome"], &body["data"]["reason"]),
            (&json!("aborted"), &json!("by ada"))
        );
    }
}
