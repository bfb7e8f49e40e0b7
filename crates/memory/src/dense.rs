//! Nearest neighbours among embeddings: a coarse scan over small sketches, then exact cosines of the best.
//!
//! Embeddings of language models crowd around their mean, so the mean is subtracted first. A sketch is the
//! embedding folded to [`SKETCH`] signed sums and rounded to bytes: 100,000 of them are scanned in about a
//! millisecond.

/// Numbers in a sketch.
const SKETCH: usize = 128;

/// The embeddings. They are numbered 0, 1, 2, … in the order in which they are added; one may be absent.
#[derive(Debug, Default)]
pub(crate) struct Dense {
    width: usize,
    /// `[texts, width]`, unit rows; a row of zeros where there is none.
    rows: Vec<f32>,
    /// `[texts, SKETCH]`
    sketches: Vec<i8>,
    /// Sum over all rows.
    sum: Vec<f64>,
    /// Rows that are there.
    present: usize,
}

impl Dense {
    /// An index of vectors of `width` numbers; 0 keeps nothing.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, sum: vec![0.0; width], ..Self::default() }
    }

    /// Adds the next vector. One of another width, or with a number that is not finite, counts as absent.
    pub(crate) fn add(&mut self, vector: &[f32]) {
        if self.width == 0 {
            return;
        }
        if vector.len() == self.width && vector.iter().all(|value| value.is_finite()) {
            self.rows.extend_from_slice(vector);
            self.sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
            self.present += 1;
        } else {
            self.rows.resize(self.rows.len() + self.width, 0.0);
        }
        let start = self.rows.len() - self.width;
        let row = self.rows.get(start..).unwrap_or_default();
        self.sketches.extend_from_slice(&sketch(row));
    }

    fn mean(&self) -> Vec<f32> {
        // One vector is no mean to speak of; a few are shrunk towards zero.
        let count = self.present as f64 + 8.0;
        self.sum.iter().map(|sum| (sum / count) as f32).collect()
    }

    /// Prepares a query; `None` when it cannot be compared.
    pub(crate) fn query(&self, vector: &[f32]) -> Option<DenseQuery> {
        if self.width == 0 || vector.len() != self.width || !vector.iter().all(|value| value.is_finite()) {
            return None;
        }
        let mean = self.mean();
        let mut centred: Vec<f32> = vector.iter().zip(&mean).map(|(value, mean)| value - mean).collect();
        let length = dot(&centred, &centred).sqrt();
        if length <= f32::EPSILON {
            return None;
        }
        centred.iter_mut().for_each(|value| *value /= length);
        let mean_square = dot(&mean, &mean);
        let query_mean = dot(&centred, &mean);
        Some(DenseQuery { centred, mean, mean_square, query_mean })
    }

    /// Centred cosine of the query and text `number`, -1 to 1; 0 where the embedding is absent.
    pub(crate) fn cosine(&self, query: &DenseQuery, number: u32) -> f32 {
        let start = number as usize * self.width;
        let Some(row) = self.rows.get(start..start + self.width) else { return 0.0 };
        let square = dot(row, row);
        if square < 0.5 {
            return 0.0;
        }
        // (r - m)·q and |r - m|², without making r - m.
        let product = dot(row, &query.centred) - query.query_mean;
        let length = (square - 2.0 * dot(row, &query.mean) + query.mean_square).max(1e-9).sqrt();
        (product / length).clamp(-1.0, 1.0)
    }

    /// The `most` texts whose sketches are nearest, in no order.
    pub(crate) fn candidates(&self, query: &DenseQuery, most: usize) -> Vec<u32> {
        if most == 0 {
            return Vec::new();
        }
        let wanted = sketch(&query.centred);
        let mut scores: Vec<(i32, u32)> = self
            .sketches
            .chunks_exact(SKETCH)
            .zip(0_u32..)
            .map(|(sketch, number)| {
                let products = sketch.iter().zip(&wanted).map(|(a, b)| i32::from(*a) * i32::from(*b));
                (products.sum(), number)
            })
            .collect();
        if scores.len() > most {
            scores.select_nth_unstable_by(most, |a, b| b.cmp(a));
            scores.truncate(most);
        }
        scores.into_iter().map(|(_, number)| number).collect()
    }
}

/// A query against [`Dense`].
#[derive(Debug)]
pub(crate) struct DenseQuery {
    /// Unit length, the mean taken away.
    centred: Vec<f32>,
    mean: Vec<f32>,
    mean_square: f32,
    query_mean: f32,
}

/// Inner product.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight running sums let the compiler use vector instructions.
    let mut sums = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Folds a vector to [`SKETCH`] numbers with pseudo-random signs and scales the largest to 127.
fn sketch(vector: &[f32]) -> [i8; SKETCH] {
    let mut folded = [0.0_f32; SKETCH];
    for (position, value) in vector.iter().enumerate() {
        // Knuth's multiplicative hash gives the sign; each pass over the sketch has signs of its own.
        let sign = if (position as u32).wrapping_mul(2_654_435_769) >> 31 == 0 { 1.0 } else { -1.0 };
        if let Some(slot) = folded.get_mut(position % SKETCH) {
            *slot += sign * value;
        }
    }
    let largest = folded.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    // The scale differs a little from text to text, which the exact cosines afterwards make good.
    folded.map(|value| (value * scale).round() as i8)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn random_unit(rng: &mut rand_chacha::ChaCha8Rng, width: usize) -> Vec<f32> {
        let vector: Vec<f32> = (0..width).map(|_| rng.random::<f32>() - 0.5).collect();
        let length = dot(&vector, &vector).sqrt();
        vector.iter().map(|value| value / length).collect()
    }

    #[test]
    fn the_scan_finds_the_near_ones_among_many_and_cosines_are_exact() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let width = 200;
        let mut index = Dense::new(width);
        let all: Vec<_> = (0..2_000).map(|_| random_unit(&mut rng, width)).collect();
        all.iter().for_each(|vector| index.add(vector));
        for number in (0..2_000).step_by(97) {
            let mut near = all[number].clone();
            near.iter_mut().for_each(|value| *value += 0.03 * (rng.random::<f32>() - 0.5));
            let query = index.query(&near).unwrap();
            assert!(index.candidates(&query, 20).contains(&(number as u32)));
            let mean = index.mean();
            let centred = |v: &[f32]| v.iter().zip(&mean).map(|(a, b)| a - b).collect::<Vec<_>>();
            let (a, b) = (centred(&near), centred(&all[number]));
            let expected = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!((index.cosine(&query, number as u32) - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn an_absent_vector_keeps_its_number_and_is_similar_to_nothing() {
        let mut index = Dense::new(4);
        index.add(&[1.0, 0.0, 0.0, 0.0]);
        index.add(&[]);
        index.add(&[f32::NAN, 0.0, 0.0, 0.0]);
        index.add(&[0.0, 1.0, 0.0, 0.0]);
        let query = index.query(&[0.0, 1.0, 0.0, 0.0]).unwrap();
        assert_eq!(index.cosine(&query, 1), 0.0);
        assert_eq!(index.cosine(&query, 2), 0.0);
        assert!(index.cosine(&query, 3) > 0.99);
        assert!(index.query(&[1.0]).is_none());
    }
}
