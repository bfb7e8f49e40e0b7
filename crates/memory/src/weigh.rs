//! What an experience weighs: the words of its principals, and the words for other targets of its prompt.
//!
//! * A principal has one voice an experience. Saying the same again adds a share of it, up to a limit, so
//!   that nobody makes an experience heavy alone; the weight grows with the logarithm of the agreement.
//! * A principal who comes to say something else of the same prompt takes half of the earlier word back.
//! * Targets that contradict each other are all kept. Each word counts by how recent it is beside the newest
//!   of the prompt; the target with the most wins, the newest at a tie. The losers' weights fall towards 0.

use autoglm_domain::{Experience, Provenance, Timestamp, Vouch};

use crate::Config;

const DAY_MS: f64 = 86_400_000.0;
/// Largest weight of a target that lost, as a share of what it would have alone.
const LOSER_SHARE: f32 = 0.5;

/// Adds a word to the experience at `place` of its prompt's `group`.
pub(crate) fn vouch(group: &mut [Experience], place: usize, word: Vouch, config: &Config) {
    if word.permille > 0 {
        for (_, other) in group.iter_mut().enumerate().filter(|(at, _)| *at != place) {
            let same = other.provenance.vouches.iter_mut().filter(|said| said.principal == word.principal);
            same.filter(|said| said.permille > 0).for_each(|said| said.permille /= 2);
        }
    }
    if let Some(experience) = group.get_mut(place) {
        add(&mut experience.provenance, word, config);
    }
}

fn add(provenance: &mut Provenance, word: Vouch, config: &Config) {
    let limit = permille(config.principal_limit);
    let word = Vouch { permille: word.permille.clamp(-limit, limit), ..word };
    let Some(said) = provenance.vouches.iter_mut().find(|said| said.principal == word.principal) else {
        provenance.vouches.push(word);
        return;
    };
    let agrees = (said.permille > 0) == (word.permille > 0);
    said.permille = if !agrees || word.permille > said.permille {
        word.permille
    } else {
        let more = f64::from(word.permille) * f64::from(config.repeat_share);
        said.permille.saturating_add(more.round() as i32).clamp(-limit, limit)
    };
    said.at = said.at.max(word.at);
}

/// Corrections to thousandths.
pub(crate) fn permille(strength: f32) -> i32 {
    (strength * 1000.0).round() as i32
}

/// Gives words to an experience that has none (from an older store or another tool), so that it weighs
/// about what it says: one for each principal, or one of nobody's.
pub(crate) fn complete(experience: &mut Experience, config: &Config) {
    let provenance = &mut experience.provenance;
    if !provenance.vouches.is_empty() {
        return;
    }
    let limit = permille(config.principal_limit);
    let mut names: Vec<_> = provenance.principals.clone();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        names.push("unknown".to_owned());
    }
    let weight = if experience.weight.is_finite() { experience.weight } else { 0.0 };
    let each = permille(weight.clamp(0.0, 1.0)).min(limit);
    provenance.vouches =
        names.into_iter().map(|principal| Vouch { principal, permille: each, at: experience.at }).collect();
}

/// The winner of a prompt's experiences; `None` when every target was spoken against.
pub(crate) fn winner<'a>(
    group: impl Iterator<Item = &'a Experience> + Clone,
    config: &Config,
) -> Option<usize> {
    let scores = scores(group.clone(), config);
    let latest = group.map(|experience| (latest(experience), experience.id));
    let ranked = scores.into_iter().zip(latest).enumerate().filter(|(_, (score, _))| *score > 0.0);
    ranked
        .max_by(
            |(_, (a, a_latest)), (_, (b, b_latest))| {
                if (a - b).abs() < 1e-6 { a_latest.cmp(b_latest) } else { a.total_cmp(b) }
            },
        )
        .map(|(place, _)| place)
}

/// Sets the weight of every experience of one prompt and gives the winner's place.
pub(crate) fn settle(group: &mut [Experience], config: &Config) -> Option<usize> {
    let winner = winner(group.iter(), config);
    let scores = scores(group.iter(), config);
    let best = winner.and_then(|place| scores.get(place).copied()).unwrap_or(0.0);
    for (place, (experience, score)) in group.iter_mut().zip(scores).enumerate() {
        let support: i64 = experience.provenance.vouches.iter().map(|word| i64::from(word.permille)).sum();
        // What is believed weighs something, even where only the age of what was said against it decides.
        let support = (support as f64).max(score);
        let alone = grown(support as f32 / 1000.0, config.max_weight);
        experience.weight = if Some(place) == winner {
            alone
        } else if best > 0.0 {
            alone * LOSER_SHARE * ((score / best).clamp(0.0, 1.0) as f32).powi(2)
        } else {
            0.0
        };
    }
    winner
}

/// One correction weighs 1; beyond it agreement counts by its logarithm.
fn grown(support: f32, most: f32) -> f32 {
    let grown = if support <= 1.0 { support.max(0.0) } else { 1.0 + support.ln() };
    grown.min(most)
}

fn latest(experience: &Experience) -> Timestamp {
    let said = experience.provenance.vouches.iter().map(|word| word.at).max();
    said.unwrap_or(experience.at)
}

/// What speaks for each target, where an older word counts less beside the prompt's newest.
fn scores<'a>(group: impl Iterator<Item = &'a Experience> + Clone, config: &Config) -> Vec<f64> {
    let newest = group.clone().map(latest).max().unwrap_or_default();
    let half_life = config.contradiction_half_life_days * DAY_MS;
    let faded = |word: &Vouch| {
        let age = newest.since_ms(word.at).max(0) as f64;
        f64::from(word.permille) * (-age / half_life).exp2()
    };
    group.map(|experience| experience.provenance.vouches.iter().map(faded).sum()).collect()
}

#[cfg(test)]
mod tests {
    use autoglm_domain::{ChatMessage, ClusterId, ExperienceId, IdSource as _, SequentialIds};
    use proptest::prelude::*;

    use super::*;

    fn blank(ids: &SequentialIds, target: &str) -> Experience {
        Experience {
            id: ExperienceId::new(ids.next_uuid()),
            at: Timestamp(0),
            prompt: vec![ChatMessage::user("hello")],
            target: target.into(),
            weight: 0.0,
            provenance: Provenance::default(),
            embedding: Vec::new(),
            cluster: ClusterId(0),
            held_out: false,
            task: None,
        }
    }

    fn pair() -> Vec<Experience> {
        let ids = SequentialIds::default();
        vec![blank(&ids, "a"), blank(&ids, "b")]
    }

    fn word(principal: &str, permille: i32, day: i64) -> Vouch {
        Vouch { principal: principal.into(), permille, at: Timestamp(day * 86_400_000) }
    }

    #[test]
    fn agreement_of_many_weighs_more_than_insistence_of_one() {
        let config = Config::default();
        let mut group = pair();
        (0..100).for_each(|_| vouch(&mut group, 0, word("one", 1000, 0), &config));
        assert_eq!(settle(&mut group, &config), Some(0));
        assert!((group[0].weight - (1.0 + 1.5_f32.ln())).abs() < 1e-5);
        ["two", "three"].iter().for_each(|name| vouch(&mut group, 0, word(name, 1000, 0), &config));
        settle(&mut group, &config);
        assert!((group[0].weight - (1.0 + 3.5_f32.ln())).abs() < 1e-5);
    }

    #[test]
    fn one_stranger_does_not_overturn_what_many_hold_but_many_do() {
        let config = Config::default();
        let mut group = pair();
        for n in 0..5 {
            vouch(&mut group, 0, word(&format!("user{n}"), 1000, 0), &config);
        }
        vouch(&mut group, 1, word("stranger", 1000, 1), &config);
        assert_eq!(settle(&mut group, &config), Some(0));
        assert!(group[1].weight < 0.03, "{}", group[1].weight);
        for n in 0..6 {
            vouch(&mut group, 1, word(&format!("later{n}"), 1000, 2), &config);
        }
        assert_eq!(settle(&mut group, &config), Some(1));
        assert!(group[0].weight < group[1].weight * 0.5);
    }

    #[test]
    fn a_new_word_beats_an_equal_older_one_and_old_words_fade() {
        let config = Config::default();
        let mut group = pair();
        vouch(&mut group, 0, word("x", 1000, 0), &config);
        vouch(&mut group, 1, word("y", 1000, 0), &config);
        assert_eq!(settle(&mut group, &config), Some(1));
        vouch(&mut group, 0, word("z", 1000, 0), &config);
        assert_eq!(settle(&mut group, &config), Some(0));
        // 2 corrections of 180 days ago count a quarter: three half-lives.
        vouch(&mut group, 1, word("w", 700, 180), &config);
        assert_eq!(settle(&mut group, &config), Some(1));
    }

    #[test]
    fn whoever_corrects_himself_is_heard_at_once() {
        let config = Config::default();
        let mut group = pair();
        (0..9).for_each(|_| vouch(&mut group, 0, word("me", 1000, 0), &config));
        vouch(&mut group, 1, word("me", 1000, 0), &config);
        assert_eq!(settle(&mut group, &config), Some(1));
    }

    #[test]
    fn what_is_only_spoken_against_has_no_winner() {
        let config = Config::default();
        let mut group = pair();
        vouch(&mut group, 0, word("a", 700, 0), &config);
        vouch(&mut group, 0, word("b", -1000, 0), &config);
        assert_eq!(settle(&mut group, &config), None);
        assert_eq!(group[0].weight, 0.0);
    }

    #[test]
    fn whoever_wins_by_the_age_of_a_rejection_has_a_weight() {
        let config = Config::default();
        let mut group = pair();
        vouch(&mut group, 0, word("a", -592, 0), &config);
        vouch(&mut group, 0, word("b", 187, 180), &config);
        assert_eq!(settle(&mut group, &config), Some(0));
        assert!((group[0].weight - (0.187 - 0.592 / 8.0)).abs() < 1e-5);
    }

    proptest! {
        /// Whatever is said, weights stay within bounds and only the winner can have a full one.
        #[test]
        fn weights_stay_within_bounds(
            words in proptest::collection::vec((0..2_usize, 0..4_u8, -2000..2000_i32, 0..400_i64), 1..40)
        ) {
            let config = Config::default();
            let mut group = pair();
            for (place, who, permille, day) in words {
                vouch(&mut group, place, word(&format!("p{who}"), permille, day), &config);
            }
            let winner = settle(&mut group, &config);
            for (place, experience) in group.iter().enumerate() {
                prop_assert!(experience.weight >= 0.0 && experience.weight <= config.max_weight);
                prop_assert!(experience.provenance.vouches.len() <= 4);
                prop_assert!(experience.provenance.vouches.iter().all(|word| word.permille.abs() <= 1500));
                if Some(place) != winner {
                    prop_assert!(experience.weight <= 0.5 * (1.0 + 6.0_f32.ln()));
                }
            }
            if let Some(place) = winner {
                prop_assert!(group[place].weight > 0.0);
            }
        }
    }
}
