//! Rows of a matrix shared out over threads.

use rayon::prelude::*;

/// Values below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 16;

/// Values of the rows that a thread takes at once.
const SHARED: usize = 1 << 15;

/// Calls `work` with parts of `rows`, of whole rows of `width` values, and the number of each part's first row. Many rows are
/// shared out over the current pool, for they wait for memory.
pub(crate) fn share_rows(rows: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if rows.len() < WORTH_A_THREAD || width == 0 {
        return work(0, rows);
    }
    let together = (SHARED / width).max(1);
    let parts = rows.par_chunks_mut(together * width).enumerate();
    parts.for_each(|(at, rows)| work(at * together, rows));
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_is_met_once_with_its_number() {
        for (count, width) in [(0, 3), (7, 5), (4000, 37), (3, 100_000)] {
            let mut rows = vec![0.0; count * width];
            super::share_rows(&mut rows, width, |first, rows| {
                for (at, row) in rows.chunks_exact_mut(width).enumerate() {
                    row.iter_mut().for_each(|value| *value += (first + at + 1) as f32);
                }
            });
            for (at, row) in rows.chunks_exact(width).enumerate() {
                assert!(row.iter().all(|value| *value == (at + 1) as f32), "row {at} of {count}");
            }
        }
    }
}
