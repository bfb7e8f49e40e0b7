//! Where products go: columns of a matrix, which threads share out among them.

use std::ops::Range;

use super::{
    Cpu,
    panels::{PANEL, Panels, Pass, TILE_ROWS, Tile, VECTOR_ROWS},
};

/// A part of a result matrix.
pub(super) struct Place {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

/// A result matrix that threads write different columns of.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) at: *mut f32,
    /// Values from the begin of a row to the begin of the next.
    pub(super) stride: usize,
}

// SAFETY: whoever uses it from several threads gives each its own columns.
#[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
unsafe impl Send for Out {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
unsafe impl Sync for Out {}

#[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
impl Out {
    /// Adds to what is at `place` where that is to be kept, else writes: `packed` times the panel and steps of `pass`.
    ///
    /// # Safety
    /// As [`Out::update`].
    pub(super) unsafe fn add<P: Panels>(
        self,
        weights: &P,
        place: &Place,
        keep: bool,
        packed: &[P::Packed],
        pass: Pass,
        cpu: Cpu,
    ) {
        let rows = place.rows.len();
        // SAFETY: the caller's promise.
        unsafe {
            if place.columns.len() == PANEL {
                let at = self.at.add(place.rows.start * self.stride + place.columns.start);
                if weights.straight(Sums { at, stride: self.stride, keep }, packed, &pass) {
                    return;
                }
            }
            let add = |tile: &mut Tile| weights.kernel(tile, packed, pass, cpu);
            if rows.next_multiple_of(P::ROWS_MULTIPLE) <= VECTOR_ROWS {
                self.update::<VECTOR_ROWS>(place, keep, add);
            } else {
                self.update::<TILE_ROWS>(place, keep, add);
            }
        }
    }

    /// Some columns of a row.
    ///
    /// # Safety
    /// They lie within the matrix, and nobody else reads or writes them while this is borrowed.
    pub(super) unsafe fn row<'a>(self, row: usize, columns: Range<usize>) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe {
            let at = self.at.add(row * self.stride + columns.start);
            std::slice::from_raw_parts_mut(at, columns.len())
        }
    }

    /// Lets `work` add to a tile: to what is at `place` where that is to be kept, else to zeros.
    ///
    /// # Safety
    /// The place lies within the matrix, and no other thread reads or writes its columns meanwhile.
    pub(super) unsafe fn update<const ROWS: usize>(
        self,
        place: &Place,
        keep: bool,
        work: impl FnOnce(&mut Tile),
    ) {
        // SAFETY: the caller's promise; only one row is borrowed at a time.
        let row = |row: usize| unsafe { self.row(row, place.columns.clone()) };
        let mut tile = [[0.0; PANEL]; ROWS];
        if keep {
            for (tile, at) in tile.iter_mut().zip(place.rows.clone()) {
                copy(tile, row(at));
            }
        }
        work(&mut tile);
        for (tile, at) in tile.iter().zip(place.rows.clone()) {
            copy(row(at), tile);
        }
    }
}

/// The first values of `from` to `into`, as many as are in both: whole rows by a few vectors, without a call for each.
#[inline(always)]
fn copy(into: &mut [f32], from: &[f32]) {
    match (into.as_mut_array::<PANEL>(), from.as_array::<PANEL>()) {
        (Some(into), Some(from)) => *into = *from,
        _ => into.iter_mut().zip(from).for_each(|(into, from)| *into = *from),
    }
}

/// Rows of 32 sums, `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub(super) at: *mut f32,
    pub(super) stride: usize,
    /// Whether what is there is added to, or written over.
    pub(super) keep: bool,
}
