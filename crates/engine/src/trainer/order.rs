//! In which order examples are seen.

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::examples::Encoded;

/// A batch whose free part is at most one in so many of its tokens is full enough.
const FULL_ENOUGH: usize = 8;

/// How many examples are tried for the rest of a batch.
const LOOK_AHEAD: usize = 64;

/// Examples in random order, pass after pass.
pub(super) struct Order {
    random: ChaCha8Rng,
    place: Place,
}

/// How far the passes are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Examples that the pass under way has still to see, last first.
    pending: Vec<usize>,
    /// Sightings that are due to each example, counted from a random start within one, so that rare ones are
    /// spread over the passes; what is whole is seen in the next pass.
    due: Vec<f32>,
    /// Sightings in the pass under way.
    pass: usize,
    /// Where the random numbers are.
    word: u64,
}

impl Order {
    pub(super) fn new(examples: &[Encoded], seed: u64) -> Self {
        let mut starts = ChaCha8Rng::seed_from_u64(seed ^ 0x0057_a475);
        let start = |example: &Encoded| {
            if example.frequency.fract() == 0.0 { 0.0 } else { starts.random::<f32>() }
        };
        let due = examples.iter().map(start).collect();
        let random = ChaCha8Rng::seed_from_u64(seed ^ 0x0bde_0bde);
        Self { random, place: Place { pending: Vec::new(), due, pass: 0, word: 0 } }
    }

    /// Where it is, to go on from there.
    pub(super) fn place(&self) -> Place {
        Place { word: self.random.get_word_pos() as u64, ..self.place.clone() }
    }

    /// Goes on from `place`, if that is of as many examples.
    pub(super) fn go_on(&mut self, place: Place) -> bool {
        let count = self.place.due.len();
        if place.due.len() != count || place.pending.iter().any(|&at| at >= count) {
            return false;
        }
        self.random.set_word_pos(u128::from(place.word));
        self.place = place;
        true
    }

    /// Begins passes until one has something to see.
    fn begin_pass(&mut self, examples: &[Encoded]) {
        let Place { pending, due, pass, .. } = &mut self.place;
        while pending.is_empty() && !examples.is_empty() {
            for (at, (due, example)) in due.iter_mut().zip(examples).enumerate() {
                *due += example.frequency;
                pending.extend(std::iter::repeat_n(at, *due as usize));
                *due = due.fract();
            }
        }
        pending.shuffle(&mut self.random);
        *pass = pending.len();
    }

    /// Examples of about `tokens` tokens, at least one.
    pub(super) fn next_batch(&mut self, examples: &[Encoded], tokens: usize) -> Vec<usize> {
        let (mut batch, mut taken) = (Vec::new(), 0);
        loop {
            if self.place.pending.is_empty() {
                self.begin_pass(examples);
            }
            let pending = &mut self.place.pending;
            let room = tokens.saturating_sub(taken);
            let fits = |at: usize| batch.is_empty() || examples[at].length() <= room;
            // The next one, or where it does not fit and much room is left, the first after it that does.
            let reach = if room * FULL_ENOUGH > tokens { LOOK_AHEAD } else { 1 };
            let window = pending.len().saturating_sub(reach)..pending.len();
            let Some(at) = window.rev().find(|&at| fits(pending[at])) else { break };
            let next = pending.remove(at);
            taken += examples[next].length();
            batch.push(next);
            if batch.len() >= self.place.pass {
                break;
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::examples::tests::examples;

    #[test]
    fn every_example_comes_once_a_pass_and_batches_keep_to_their_size() {
        let examples = examples(&[5, 3, 8, 2, 7, 4]);
        let mut order = Order::new(&examples, 1);
        let mut seen = Vec::new();
        while seen.len() < 6 {
            let batch = order.next_batch(&examples, 10);
            assert!(batch.iter().map(|&at| examples[at].tokens.len()).sum::<usize>() <= 10);
            seen.extend(batch);
        }
        seen.truncate(6);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn batches_of_uneven_examples_are_filled() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let lengths: Vec<usize> = (0..2000).map(|_| random.random_range(20..700)).collect();
        let examples = examples(&lengths);
        let mut order = Order::new(&examples, 7);
        let mut seen = vec![0; examples.len()];
        let (mut filled, mut batches) = (0, 0);
        while order.place.pending.len() > LOOK_AHEAD || batches == 0 {
            let batch = order.next_batch(&examples, 1024);
            let taken: usize = batch.iter().map(|&at| lengths[at]).sum();
            assert!(taken <= 1024);
            (filled, batches) = (filled + taken, batches + 1);
            batch.into_iter().for_each(|at| seen[at] += 1);
        }
        let share = filled as f64 / (batches * 1024) as f64;
        assert!(share > 0.93, "batches are {share:.3} full");
        assert!(seen.iter().all(|&times| times <= 1));
    }

    /// Where everything is short against a batch, the order is that of the shuffle.
    #[test]
    fn short_examples_are_taken_as_they_come() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let lengths: Vec<usize> = (0..500).map(|_| random.random_range(10..100)).collect();
        let examples = examples(&lengths);
        let mut order = Order::new(&examples, 7);
        order.begin_pass(&examples);
        let shuffled: Vec<usize> = order.place.pending.iter().rev().copied().collect();
        let mut taken = Vec::new();
        while order.place.pending.len() > 20 {
            taken.extend(order.next_batch(&examples, 1024));
        }
        assert_eq!(taken, shuffled[..taken.len()]);
    }

    #[test]
    fn frequencies_are_kept_over_the_passes() {
        let mut examples = examples(&[4; 5]);
        for (example, frequency) in examples.iter_mut().zip([3.0, 1.0, 0.5, 0.25, 1.75]) {
            example.frequency = frequency;
        }
        let mut order = Order::new(&examples, 9);
        let mut seen = [0; 5];
        for _ in 0..8 {
            order.begin_pass(&examples);
            for at in order.place.pending.drain(..) {
                seen[at] += 1;
            }
        }
        assert_eq!(seen, [24, 8, 4, 2, 14]);
    }

    #[test]
    fn what_is_rare_alone_still_makes_a_pass() {
        let mut examples = examples(&[4]);
        examples[0].frequency = 0.01;
        assert_eq!(Order::new(&examples, 3).next_batch(&examples, 100), [0]);
    }

    #[test]
    fn an_order_goes_on_from_where_it_was() {
        let mut examples = examples(&[5, 3, 8, 2, 7, 4]);
        examples[2].frequency = 0.3;
        let mut order = Order::new(&examples, 1);
        for _ in 0..7 {
            order.next_batch(&examples, 10);
        }
        let place: Place = serde_json::from_str(&serde_json::to_string(&order.place()).unwrap()).unwrap();
        let mut other = Order::new(&examples, 1);
        assert!(other.go_on(place.clone()));
        for _ in 0..40 {
            assert_eq!(other.next_batch(&examples, 10), order.next_batch(&examples, 10));
        }
        assert!(!Order::new(&examples[1..], 1).go_on(place));
    }
}
