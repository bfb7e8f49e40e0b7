//! Planning, freezing and running training, with doubles for store, artifacts and trainer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so and stop")]

mod budgets;
mod doubles;
mod plans;
mod preferences;
mod runs;
mod snapshots;

use autoglm_domain::{ChatMessage, ClusterId, Experience, ExperienceId, Provenance, Timestamp};

/// An experience of weight 1.
fn experience(id: u128, cluster: u32, target: &str) -> Experience {
    Experience {
        id: ExperienceId::new(uuid::Uuid::from_u128(id)),
        at: Timestamp(0),
        prompt: vec![ChatMessage::user(format!("question {id}"))],
        target: target.to_owned(),
        weight: 1.0,
        provenance: Provenance::default(),
        embedding: vec![],
        cluster: ClusterId(cluster),
        held_out: false,
        task: None,
    }
}
