//! Where batches end and which positions a file covers: functions of positions alone, so that whoever writes a file, and
//! however often, writes the same one.
//!
//! A window of a level is an aligned stretch of the journal: positions `k * size + 1` to `(k + 1) * size`. Windows of
//! different levels hold one another or have nothing in common. A batch never crosses the end of a small window unless it
//! is a window itself, so every batch, too, lies in the windows around it. That is all that it takes for any two files of
//! a table to cover the same, one the other, or nothing in common, whoever wrote them and when.

use autoglm_domain::Span;

/// Positions in a window of each level, ascending; each divides the next.
pub const SIZES: [i64; 3] = [256, 2048, 16_384];

/// Where the batch after position `after` ends when the journal ends at `last`: with the largest window that begins there
/// and is full, else with the small window around it or the journal.
pub fn batch_end(after: i64, last: i64) -> i64 {
    let [small, ..] = SIZES;
    let full = |size: &&i64| after % **size == 0 && after.saturating_add(**size) <= last;
    match SIZES.iter().rev().find(full) {
        Some(size) => after + size,
        None => last.min((after / small + 1) * small),
    }
}

/// What the files of `batch` cover: the largest window that ends with it, or the batch alone. Wider than the batch where
/// its events fill a window; the window's files then take the place of all smaller ones in it.
pub fn covered(batch: Span) -> Span {
    let ends = |size: &&i64| batch.upto % **size == 0;
    match SIZES.iter().rev().find(ends) {
        Some(size) => Span { after: batch.after.min(batch.upto - size), upto: batch.upto },
        None => batch,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_window_is_one_batch_and_a_tail_fills_the_small_one() {
        assert_eq!(batch_end(0, 40_000), 16_384);
        assert_eq!(batch_end(16_384, 17_000), 16_640);
        assert_eq!(batch_end(16_640, 16_700), 16_700);
        assert_eq!(batch_end(16_700, 40_000), 16_896);
        assert_eq!(covered(Span { after: 16_640, upto: 16_700 }), Span { after: 16_640, upto: 16_700 });
        assert_eq!(covered(Span { after: 16_700, upto: 16_896 }), Span { after: 16_640, upto: 16_896 });
        assert_eq!(covered(Span { after: 32_700, upto: 32_768 }), Span { after: 16_384, upto: 32_768 });
    }

    proptest! {
        /// However the journal grows between two looks: batches follow one another, and of the stretches that files
        /// cover, two hold one another or have nothing in common.
        #[test]
        fn stretches_hold_one_another_or_have_nothing_in_common(
            steps in prop::collection::vec(prop_oneof![1..300_i64, 1..20_000_i64], 1..40),
        ) {
            let (mut at, mut last) = (0, 0);
            let mut files: Vec<Span> = Vec::new();
            for step in steps {
                last += step;
                while at < last {
                    let end = batch_end(at, last);
                    prop_assert!(at < end && end <= last);
                    let batch = Span { after: at, upto: end };
                    let covered = covered(batch);
                    prop_assert!(covered.holds(batch));
                    for file in &files {
                        let apart = file.upto <= covered.after || covered.upto <= file.after;
                        prop_assert!(apart || covered.holds(*file), "{file:?} and {covered:?}");
                    }
                    files.retain(|file| !covered.holds(*file));
                    files.push(covered);
                    at = end;
                }
            }
            // Nothing is lacking, and the files are few.
            files.sort_by_key(|file| file.after);
            prop_assert!(files.windows(2).all(|two| two[0].upto == two[1].after));
            prop_assert_eq!((files[0].after, files[files.len() - 1].upto), (0, last));
            prop_assert!(files.len() as i64 <= last / SIZES[2] + 8 + 8 + 256);
        }
    }
}
