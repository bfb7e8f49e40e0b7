//! Simulated users: what they say of an answer, from a seed.

use autoglm_domain::Thumb;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    options::{DemoOptions, FeedbackKind},
    stream::{Task, Utterance},
};

/// What a user sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// Up or down.
    Thumb(Thumb),
    /// What would have been right, as far as the user knows.
    Correction(String),
}

/// Feedback with the truth about it, which the server does not get to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reaction {
    /// What is sent.
    pub(crate) opinion: Opinion,
    /// Whether it is wrong on purpose.
    pub(crate) wrong: bool,
}

/// The simulated users.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    share: f64,
    noise: f64,
    kind: FeedbackKind,
    seed: u64,
}

impl Users {
    /// Users as `options` describe them.
    pub(crate) fn new(options: &DemoOptions) -> Self {
        Self {
            share: options.feedback_share,
            noise: options.noise,
            kind: options.feedback_kind,
            seed: options.seed,
        }
    }

    /// What the user who asked request number `index` says, if anything. The same seed and index give the same
    /// mood and the same wrong label, in whatever order the answers come in.
    pub(crate) fn react(
        &self,
        index: u64,
        task: &Task,
        asked: &Utterance,
        answer_is_right: bool,
    ) -> Option<Reaction> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index);
        let speaks = rng.random_bool(self.share);
        let wrong = rng.random_bool(self.noise);
        let prefers_thumb = rng.random_bool(0.5);
        if !speaks {
            return None;
        }
        let other = wrong.then(|| other_reference(&mut rng, task, &asked.reference)).flatten();
        let opinion = match (self.kind, answer_is_right, wrong) {
            (FeedbackKind::Thumbs, right, wrong) => Opinion::Thumb(thumb(right != wrong)),
            (FeedbackKind::Mixed, true, false) => Opinion::Thumb(Thumb::Up),
            (FeedbackKind::Mixed, false, true) if prefers_thumb || other.is_none() => {
                Opinion::Thumb(Thumb::Up)
            }
            (FeedbackKind::Corrections | FeedbackKind::Mixed, _, false) => {
                Opinion::Correction(asked.reference.clone())
            }
            // Nothing else to name: the only way of being wrong is a thumb.
            (FeedbackKind::Corrections | FeedbackKind::Mixed, right, true) => match other {
                Some(other) => Opinion::Correction(other),
                None => Opinion::Thumb(thumb(!right)),
            },
        };
        Some(Reaction { opinion, wrong })
    }
}

fn thumb(up: bool) -> Thumb {
    if up { Thumb::Up } else { Thumb::Down }
}

fn other_reference(rng: &mut ChaCha8Rng, task: &Task, right: &str) -> Option<String> {
    let others: Vec<&String> = task.references.iter().filter(|reference| *reference != right).collect();
    if others.is_empty() {
        return None;
    }
    others.get(rng.random_range(0..others.len())).map(|other| (*other).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::options::tests::parse;

    fn task() -> Task {
        let references = ["balance", "transfer", "fraud"].map(String::from).to_vec();
        Task { name: "banking".into(), traffic: Vec::new(), held_out: Vec::new(), references }
    }

    fn asked() -> Utterance {
        Utterance { prompt: "how much is there".into(), reference: "balance".into(), context: None }
    }

    fn reactions(draws: u64, arguments: &[&str], right: bool) -> Vec<Option<Reaction>> {
        let users = Users::new(&parse(arguments));
        (0..draws).map(|index| users.react(index, &task(), &asked(), right)).collect()
    }

    #[test]
    fn sixty_percent_speak_and_two_percent_of_them_are_wrong() {
        for right in [true, false] {
            let spoken: Vec<_> = reactions(20_000, &[], right).into_iter().flatten().collect();
            // 20,000 draws: three standard deviations are 0.0104 and 0.0038.
            assert!((spoken.len() as f64 / 20_000.0 - 0.6).abs() < 0.0104, "{}", spoken.len());
            let wrong = spoken.iter().filter(|reaction| reaction.wrong).count();
            assert!((wrong as f64 / spoken.len() as f64 - 0.02).abs() < 0.0039, "{wrong}");
        }
    }

    #[test]
    fn honest_users_praise_right_answers_and_correct_wrong_ones() {
        for reaction in reactions(500, &["--noise", "0"], true).into_iter().flatten() {
            assert_eq!(reaction.opinion, Opinion::Thumb(Thumb::Up));
        }
        for reaction in reactions(500, &["--noise", "0"], false).into_iter().flatten() {
            assert_eq!(reaction.opinion, Opinion::Correction("balance".into()));
        }
    }

    #[test]
    fn wrong_feedback_is_wrong_in_every_kind() {
        for kind in ["mixed", "corrections", "thumbs"] {
            for right in [true, false] {
                let all = reactions(500, &["--noise", "1", "--feedback-kind", kind], right);
                let mut seen = std::collections::BTreeSet::new();
                for reaction in all.into_iter().flatten() {
                    assert!(reaction.wrong);
                    match reaction.opinion {
                        Opinion::Thumb(thumb) => assert_eq!(thumb == Thumb::Up, !right),
                        Opinion::Correction(label) => {
                            assert_ne!(label, "balance");
                            seen.insert(label);
                        }
                    }
                }
                let labels = if kind == "thumbs" { 0 } else { 2 };
                assert_eq!(seen.len(), labels, "{kind}, {right}");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_users_and_another_seed_others() {
        assert_eq!(reactions(500, &["--seed", "3"], false), reactions(500, &["--seed", "3"], false));
        assert_ne!(reactions(500, &["--seed", "3"], false), reactions(500, &["--seed", "4"], false));
    }

    #[test]
    fn with_one_reference_only_a_wrong_user_can_still_be_wrong() {
        let mut alone = task();
        alone.references.truncate(1);
        let users = Users::new(&parse(&["--noise", "1", "--feedback-share", "1"]));
        let reaction = users.react(1, &alone, &asked(), true).unwrap();
        assert_eq!(reaction.opinion, Opinion::Thumb(Thumb::Down));
    }
}
