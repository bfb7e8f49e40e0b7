//! Which sessions a stage reaches: the same ones every time, and more of them as a share grows.

use autoglm_domain::ContentHash;

/// The place of a session between 0 and 1, the same for the same `salt` (a rollout's or a test's id) and session.
/// Different salts give independent places, so that it is not the same people who meet every candidate.
pub fn place(salt: &str, principal: &str, session: Option<&str>) -> f64 {
    let mut key = Vec::with_capacity(salt.len() + principal.len() + 64);
    // Lengths before texts, so that no two different triples are written alike.
    for part in [Some(salt), Some(principal), session] {
        let part = part.unwrap_or_default();
        key.extend_from_slice(&(part.len() as u64).to_le_bytes());
        key.extend_from_slice(part.as_bytes());
    }
    key.push(u8::from(session.is_some()));
    let [a, b, c, d, e, f, g, ..] = ContentHash::of(&key).0;
    // 52 bits, which a float holds exactly.
    (u64::from_le_bytes([a, b, c, d, e, f, g, 0]) >> 4) as f64 / (1_u64 << 52) as f64
}

/// Whether a session belongs to a share of `percent`. Whoever belongs to a share belongs to every larger one.
pub fn is_within(place: f64, percent: f64) -> bool {
    place * 100.0 < percent
}

/// The arm of a session, by the arms' weights; arms keep their order. 0 where there is no weight at all.
pub fn arm(place: f64, weights: &[f64]) -> usize {
    let total: f64 = weights.iter().sum();
    let mut above = 0.0;
    for (index, weight) in weights.iter().enumerate() {
        above += weight / total;
        if place < above {
            return index;
        }
    }
    weights.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_in_a_share_that_grows_and_shares_are_what_they_say() {
        let places: Vec<f64> =
            (0..20_000).map(|n| place("roll_1", "ada", Some(&format!("session {n}")))).collect();
        for percent in [1.0, 5.0, 25.0, 50.0] {
            let share = places.iter().filter(|it| is_within(**it, percent)).count() as f64 / 200.0;
            assert!((share - percent).abs() < 1.1, "{share} of {percent}");
        }
        assert!(places.iter().all(|it| is_within(*it, 100.0) && !is_within(*it, 0.0)));
        assert_eq!(place("roll_1", "ada", None), place("roll_1", "ada", None));
        let others = [
            place("roll_2", "ada", None),
            place("roll_1", "bob", None),
            place("roll_1", "ada", Some("")),
            place("roll_1a", "da", None),
        ];
        assert!(others.iter().all(|other| *other != place("roll_1", "ada", None)));
    }

    #[test]
    fn arms_share_by_weight() {
        assert_eq!([0.0, 0.24, 0.25, 0.99].map(|place| arm(place, &[1.0, 3.0])), [0, 0, 1, 1]);
        assert_eq!(arm(0.999_999_999, &[0.1, 0.2, 0.7]), 2);
    }
}
