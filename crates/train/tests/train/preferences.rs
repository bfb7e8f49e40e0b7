//! Preferences out of corrections, and distillation of what is replayed.

use autoglm_domain::{
    AnswerSource, Endpoint, Event, Experience, Feedback, FeedbackId, FinishReason, Interaction,
    InteractionId, Objective, Sampling, Store as _, Timestamp, Usage, VersionNumber,
};
use autoglm_doubles::MemoryStore;
use autoglm_train::{Plan, PlanConfig, Snapshot, plan, prefer_corrections};
use uuid::Uuid;

use crate::experience;

fn answered(id: u128, answer: &str) -> Interaction {
    Interaction {
        id: InteractionId::new(Uuid::from_u128(id)),
        at: Timestamp(0),
        endpoint: Endpoint::Chat,
        model: "autoglm".into(),
        version: VersionNumber::BASE,
        messages: Vec::new(),
        instructed: false,
        tools: Vec::new(),
        sampling: Sampling::default(),
        answer: answer.into(),
        turn: None,
        source: AnswerSource::Weights,
        finish_reason: FinishReason::Stop,
        usage: Usage::default(),
        logprobs: Vec::new(),
        latency_ms: 1.0,
        first_token_ms: 1.0,
        principal: "ada".into(),
        session: None,
        metadata: Default::default(),
    }
}

fn corrected(interaction: u128, correction: Option<&str>) -> Feedback {
    Feedback {
        id: FeedbackId::new(Uuid::from_u128(interaction)),
        interaction: InteractionId::new(Uuid::from_u128(interaction)),
        at: Timestamp(0),
        principal: "ada".into(),
        thumb: None,
        score: None,
        metric: None,
        correction: correction.map(str::to_owned),
        comment: Some("told".into()),
        tags: Vec::new(),
    }
}

/// An experience that was made from these interactions.
fn made_from(id: u128, target: &str, interactions: &[u128]) -> Experience {
    let mut experience = experience(id, 0, target);
    let ids = interactions.iter().map(|id| InteractionId::new(Uuid::from_u128(*id)));
    experience.provenance.interactions = ids.collect();
    experience
}

#[tokio::test]
async fn what_was_corrected_is_what_the_correction_is_better_than() {
    let store = MemoryStore::default();
    // The answer, and what it was corrected to.
    let answers = [
        (1, "travel", Some("billing")),
        (2, " weather\n", Some(" billing ")), // the latest answer that was corrected to it
        (3, "billing", None),                 // endorsed
        (4, "Card", Some("card")),            // as good as the same
        (5, "loan", Some("card")),            // corrected to something else than the target
        (6, "", Some("loan")),
        (7, "half an", Some("loan")),
    ];
    let mut events = Vec::new();
    for (id, answer, correction) in answers {
        let mut interaction = answered(id, answer);
        if id == 7 {
            interaction.finish_reason = FinishReason::Cancelled;
        }
        events.push(Event::Interaction(Box::new(interaction)));
        events.push(Event::Feedback(corrected(id, correction)));
    }
    let experiences = vec![
        made_from(101, "billing", &[1, 2, 3]),
        made_from(102, "card", &[4]),
        made_from(103, "saving", &[5]),
        made_from(104, "loan", &[6, 7]),
        made_from(105, "nothing", &[99]), // forgotten meanwhile
    ];
    events.extend(experiences.iter().map(|it| Event::Experience(Box::new(it.clone()))));
    store.append(events).await.unwrap();

    let mut plan = plan(experiences, vec![], &PlanConfig::default(), 1).unwrap();
    assert_eq!(prefer_corrections(&store, &mut plan).await.unwrap(), 1);
    let objectives: Vec<_> = plan.train_examples().into_iter().map(|example| example.objective).collect();
    let mut expected = vec![Objective::CrossEntropy; 5];
    expected[0] = Objective::Prefer { rejected: "weather".into() };
    assert_eq!(objectives, expected);

    // They are frozen with the data set.
    let bytes = Snapshot::of(&plan).to_bytes().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(text.matches(r#""objective":{"loss":"prefer","rejected":"weather"}"#).count(), 1, "{text}");
    assert_eq!(text.matches("objective").count(), 1);
    assert_eq!(Plan::of(Snapshot::from_bytes(&bytes).unwrap()), plan);
}

#[test]
fn what_is_replayed_is_distilled_by_the_share_that_is_set() {
    let (new, pool) = (vec![experience(1, 0, "billing")], vec![experience(2, 1, "travel")]);
    let objectives = |share: f32| {
        let config = PlanConfig { distill_share: share, ..PlanConfig::default() };
        let plan = plan(new.clone(), pool.clone(), &config, 1)?;
        Ok::<_, autoglm_train::Error>(plan.examples.into_iter().map(|it| it.objective).collect::<Vec<_>>())
    };
    assert_eq!(objectives(0.25).unwrap(), [Objective::CrossEntropy, Objective::Distill { share: 0.25 }]);
    assert_eq!(objectives(0.0).unwrap(), [Objective::CrossEntropy, Objective::CrossEntropy]);
    let refused = objectives(1.5).unwrap_err();
    assert_eq!(refused.to_string(), "the setting `plan.distill_share` is 1.5, which is not between 0 and 1");
}
