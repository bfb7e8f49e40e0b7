//! What enters and what it weighs.

use autoglm_domain::{
    AnswerSource, Assessment, AssessmentId, ExperienceId, Feedback, FinishReason, IdSource as _, Label,
    Reference, ReferenceSource, SequentialIds, Store as _, Thumb, Timestamp, VersionNumber,
};
use autoglm_memory::{Config, Refusal, Remembered};

use crate::Bench;

fn id(outcome: &Remembered) -> ExperienceId {
    match outcome {
        Remembered::New { experience }
        | Remembered::Merged { experience, .. }
        | Remembered::Contradicted { experience, .. } => *experience,
        Remembered::Refused { reason } => panic!("{reason}"),
    }
}

fn reason(outcome: Remembered) -> String {
    match outcome {
        Remembered::Refused { reason } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_what_was_verified_enters() {
    let bench = Bench::new(Config { max_target_chars: 5, ..Config::default() }).await;
    let memory = &bench.memory;
    let silent = bench.record("hello", "hi");
    assert_eq!(reason(memory.remember(&silent).await.unwrap()), Refusal::NotVerified.to_string());
    let down = bench.thumb("hello", "hi", "a", Thumb::Down);
    assert_eq!(reason(memory.remember(&down).await.unwrap()), Refusal::NotVerified.to_string());
    let empty = bench.correction("hello", "  ", "a");
    assert_eq!(reason(memory.remember(&empty).await.unwrap()), "the target is empty");
    let long = bench.correction("hello", "abcdef", "a");
    assert_eq!(
        reason(memory.remember(&long).await.unwrap()),
        "the target has 6 characters, more than 5 (`max_target_chars`)"
    );
    let mut broken = bench.thumb("hello", "hi", "a", Thumb::Up);
    broken.interaction.finish_reason = FinishReason::Cancelled;
    assert_eq!(reason(memory.remember(&broken).await.unwrap()), Refusal::Unfinished.to_string());
    let blank = bench.thumb("   ", "hi", "a", Thumb::Up);
    assert_eq!(reason(memory.remember(&blank).await.unwrap()), Refusal::NoPrompt.to_string());
    assert_eq!(bench.store.appends(), 0);

    assert!(matches!(bench.correct("hello", "hi", "a").await, Remembered::New { .. }));
    assert_eq!(bench.answer("Hello!").as_deref(), Some("hi"));
}

#[tokio::test]
async fn a_grade_endorses_from_the_threshold_and_a_reference_vouches_once() {
    let bench = Bench::new(Config::default()).await;
    for (score, enters) in [(84.9, false), (85.0, true)] {
        let mut record = bench.record(&format!("graded {score}"), "yes");
        record.feedback.push(Feedback { score: Some(score), ..bench.feedback(&record, "a") });
        let outcome = bench.memory.remember(&record).await.unwrap();
        assert_eq!(matches!(outcome, Remembered::New { .. }), enters, "{score}");
    }
    let mut record = bench.record("capital of france", "lyon");
    record.assessment = Some(Assessment {
        id: AssessmentId::new(SequentialIds::default().next_uuid()),
        interaction: record.interaction.id,
        at: Timestamp(0),
        version: VersionNumber::BASE,
        scores: Default::default(),
        overall: 0.0,
        label: Label::ReviseLogic,
        similarity: None,
        reference: Some(Reference { text: "paris".into(), source: ReferenceSource::Given }),
        feedback_seen: 0,
        evaluator: "normalised_match".into(),
        evaluator_version: "1".into(),
        findings: Vec::new(),
        pattern: None,
    });
    let first = bench.memory.remember(&record).await.unwrap();
    assert!(matches!(first, Remembered::New { .. }));
    let again = bench.memory.remember(&record).await.unwrap();
    assert_eq!(again, Remembered::Merged { experience: id(&first), weight: 1.0 });
    let stored = bench.memory.experience(id(&first)).unwrap();
    assert_eq!((stored.target.as_str(), stored.provenance.verifier.as_str()), ("paris", "reference"));
    // A judge's own reading of feedback is no second voice.
    record.assessment.as_mut().unwrap().reference =
        Some(Reference { text: "lyon".into(), source: ReferenceSource::Endorsement });
    assert!(matches!(bench.memory.remember(&record).await.unwrap(), Remembered::Refused { .. }));
}

#[tokio::test]
async fn the_same_feedback_counts_once_also_after_a_restart() {
    let bench = Bench::new(Config::default()).await;
    let record = bench.correction("cancel my card", "cancel_card", "a");
    let other = bench.correction("Cancel my card.", "cancel_card", "b");
    // Twice in one batch, and once more afterwards.
    let batch = [record.clone(), record.clone(), other.clone()];
    let outcomes = bench.memory.remember_all(&batch).await.unwrap();
    assert!(matches!(outcomes[0], Remembered::New { .. }));
    assert!(matches!(outcomes[1], Remembered::Merged { .. }));
    assert!(matches!(outcomes[2], Remembered::Merged { .. }));
    assert_eq!(bench.store.appends(), 1);
    let before = bench.store.experiences().await.unwrap();
    assert_eq!(before.len(), 1);
    assert!((before[0].weight - (1.0 + 2.0_f32.ln())).abs() < 1e-5);
    let bench = bench.restart().await;
    bench.memory.remember_all(&batch).await.unwrap();
    assert_eq!(bench.store.appends(), 1);
    assert_eq!(bench.store.experiences().await.unwrap(), before);
}

#[tokio::test]
async fn contradictions_are_kept_and_the_winner_is_believed() {
    let bench = Bench::new(Config { held_out_share: 0.0, ..Config::default() }).await;
    let first = bench.correct("open hours", "9 to 5", "a").await;
    let second = bench.correct("open hours", "10 to 6", "b").await;
    assert_eq!(second, Remembered::Contradicted { experience: id(&second), winner: Some(id(&second)) });
    assert_eq!(bench.answer("open hours").as_deref(), Some("10 to 6"));
    // Two who agree outvote one, and the loser's weight falls.
    bench.correct("open hours", "9 to 5", "c").await;
    assert_eq!(bench.answer("open hours").as_deref(), Some("9 to 5"));
    assert!(bench.memory.experience(id(&second)).unwrap().weight < 0.2);
    assert_eq!(bench.memory.effective().len(), 1);
    let stats = bench.memory.stats();
    assert_eq!((stats.experiences, stats.effective, stats.contradictions), (2, 1, 1));
    let bench = bench.restart().await;
    assert_eq!(bench.answer("open hours").as_deref(), Some("9 to 5"));
    assert_eq!(bench.memory.training_pool()[0].id, id(&first));
}

#[tokio::test]
async fn one_principal_cannot_outweigh_many() {
    let bench = Bench::new(Config::default()).await;
    for who in ["a", "b", "c"] {
        bench.correct("who won", "red", who).await;
    }
    for _ in 0..50 {
        bench.correct("who won", "blue", "mallory").await;
    }
    assert_eq!(bench.answer("who won").as_deref(), Some("red"));
}

#[tokio::test]
async fn an_echo_adds_little_and_a_thumb_down_takes_away() {
    let bench = Bench::new(Config::default()).await;
    let first = bench.correct("what is 2+2", "4", "a").await;
    let mut echo = bench.thumb("what is 2+2", "4", "b", Thumb::Up);
    echo.interaction.source = AnswerSource::Memory { experience: id(&first) };
    bench.memory.remember(&echo).await.unwrap();
    let weight = bench.memory.experience(id(&first)).unwrap().weight;
    assert!((weight - (1.0 + 1.1_f32.ln())).abs() < 1e-4, "{weight}");
    for who in ["c", "d"] {
        bench.memory.remember(&bench.thumb("what is 2+2", "4", who, Thumb::Down)).await.unwrap();
    }
    let stored = bench.memory.experience(id(&first)).unwrap();
    assert_eq!(stored.weight, 0.0);
    assert_eq!(bench.answer("what is 2+2"), None);
    assert!(bench.memory.effective().is_empty());
}

#[tokio::test]
async fn a_failed_append_changes_nothing() {
    let bench = Bench::new(Config::default()).await;
    let record = bench.correction("hello", "hi", "a");
    bench.store.set_full(true);
    let error = bench.memory.remember(&record).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    assert_eq!((bench.answer("hello"), bench.memory.stats().experiences), (None, 0));
    bench.store.set_full(false);
    assert!(matches!(bench.memory.remember(&record).await.unwrap(), Remembered::New { .. }));
}

#[tokio::test]
async fn a_record_with_several_words_takes_in_all_of_them() {
    let bench = Bench::new(Config::default()).await;
    let mut record = bench.correction("colour of the sky", "blue", "a");
    let thumb = Feedback { thumb: Some(Thumb::Down), ..bench.feedback(&record, "b") };
    let correction = Feedback { correction: Some("blue".into()), ..bench.feedback(&record, "c") };
    record.feedback.extend([thumb, correction]);
    let outcome = bench.memory.remember(&record).await.unwrap();
    let stored = bench.memory.experience(id(&outcome)).unwrap();
    assert!(matches!(outcome, Remembered::New { .. }));
    assert_eq!(stored.provenance.principals, ["a", "c"]);
    assert_eq!(stored.provenance.feedback.len(), 2);
}
