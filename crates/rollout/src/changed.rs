//! Which answers of the gate are kept: those that changed, and of these the ones whose score changed most.

use autoglm_domain::{ExperienceId, GateAnswer, GateAnswers};

/// Answers that are kept.
const MOST: usize = 20;
/// Characters that are kept of one.
const LENGTH: usize = 1_000;

/// Takes in what both versions answered.
pub(crate) fn push(
    answers: &mut GateAnswers,
    experience: ExperienceId,
    champion: (&str, f64),
    candidate: (&str, f64),
) {
    answers.compared += 1;
    if champion.0 == candidate.0 {
        return;
    }
    answers.changed += 1;
    let cut = |text: &str| text.chars().take(LENGTH).collect();
    let answer = GateAnswer {
        experience,
        champion: cut(champion.0),
        candidate: cut(candidate.0),
        champion_score: champion.1,
        candidate_score: candidate.1,
    };
    let change = |it: &GateAnswer| (it.candidate_score - it.champion_score).abs();
    let place = answers.examples.partition_point(|other| change(other) >= change(&answer));
    if place < MOST {
        answers.examples.insert(place, answer);
        answers.examples.truncate(MOST);
    }
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{IdSource as _, SequentialIds};

    use super::*;

    #[test]
    fn those_that_changed_most_are_kept_in_the_order_they_came() {
        let ids = SequentialIds::default();
        let mut answers = GateAnswers::default();
        let mut asked = Vec::new();
        for n in 0..60 {
            let experience = ExperienceId::new(ids.next_uuid());
            asked.push(experience);
            // A third answers as before, a third says it in other words, the last gets better and then worse.
            let (text, score) = match n % 3 {
                0 => ("same".to_owned(), 1.0),
                1 => (format!("other {n}"), 1.0),
                _ => ("x".repeat(5_000), if n < 30 { 0.5 } else { 0.0 }),
            };
            push(&mut answers, experience, ("same", 1.0), (&text, score));
        }
        assert_eq!((answers.compared, answers.changed, answers.examples.len()), (60, 40, 20));
        let kept: Vec<_> = answers.examples.iter().map(|it| it.experience).collect();
        let worst = (30..60).filter(|n| n % 3 == 2).chain((0..30).filter(|n| n % 3 == 2));
        assert_eq!(kept, worst.map(|n| asked[n]).collect::<Vec<_>>());
        assert_eq!(answers.examples[0].candidate.len(), LENGTH);
        assert_eq!((answers.examples[0].champion_score, answers.examples[0].candidate_score), (1.0, 0.0));
    }
}
