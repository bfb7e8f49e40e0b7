//! Products with a weight matrix that lies in *panels*: 32 of its rows side by side, interleaved along the input.
//!
//! A panel is what one pass of a kernel needs, in the order in which it is needed, so that few rows of input
//! stream it from memory and many rows find it in cache, without packing anything at run time. Every element of
//! a result is summed along the input in one fixed order, whatever the number of rows: a sequence's numbers do
//! not depend on which others share its step.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::{cell::RefCell, ops::Range};

use rayon::prelude::*;

use super::{Cpu, f32_panels, matmul::Threads};

/// Rows of the weight matrix in a panel.
pub(crate) const PANEL: usize = 32;

/// Most rows of input that a kernel on vectors takes at once.
const VECTOR_ROWS: usize = 12;

/// Most rows of input that a kernel on tiles takes at once.
const TILE_ROWS: usize = 32;

/// Multiplications below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 19;

/// Lines of a panel that are written at once when it is laid out: 8 KiB.
pub(super) const LINES_AT_ONCE: usize = 64;

/// Bytes that come from memory at once: half a line of a panel.
pub(super) const CACHE_LINE: usize = 64;

/// Results of a kernel: rows of input by rows of the panel, at least as many as are packed.
pub(super) type Tile = [[f32; PANEL]];

/// A cache line of `T`, so that vector loads never straddle two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<T>(pub(super) T);

/// One format of weights in panels.
pub(super) trait Panels: Sync {
    /// An input value (or several) as the kernel reads it.
    type Packed: Copy + Default + Send + Sync + 'static;

    /// Rows of input that the kernel takes at once, at most 32.
    const ROWS: usize;

    /// Most rows that it takes at once when there are no others, so that the panels are met once.
    const ROWS_ALONE: usize = Self::ROWS;

    /// Rows are packed in multiples of this: what is missing is filled up, whatever with.
    const ROWS_MULTIPLE: usize = 1;

    /// What of a panel is taken at once when there are many rows: a group of them stays in the second cache.
    const BLOCK_BYTES: usize = 64 << 10;

    /// Inputs that one packed step covers; blocks of the input begin at multiples of it.
    const STEP: usize;

    /// Packed values a row and step.
    const PACKED_PER_STEP: usize;

    /// Bytes of a panel a step.
    const BYTES_PER_STEP: usize;

    /// Rows and columns of the whole matrix, `[d_out, d_in]`.
    fn shape(&self) -> (usize, usize);

    /// What a thread needs while it calls the kernel; set up once for many calls.
    type Session;

    /// Begins to call the kernel on this thread.
    fn session(&self) -> Self::Session;

    /// Packs `rows` rows of `x` `[rows, d_in]`, times `scale`, in the kernel's order: `PACKED_PER_STEP` values a row and step.
    fn pack(&self, into: &mut [Self::Packed], x: &[f32], rows: usize, scale: f32);

    /// Adds `x · panelᵀ` over the steps of `pass` to the first rows of `tile`; `packed` is a block of rows.
    fn kernel(&self, tile: &mut Tile, packed: &[Self::Packed], pass: Pass, cpu: Cpu);

    /// The values of weight rows `panel * 32 ..` and columns `columns * 32 ..`, transposed: `[32 columns][32 rows]`;
    /// what lies beyond the matrix is 0.
    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL];

    /// Values of a packed row of input.
    fn packed_width(&self) -> usize {
        self.shape().1.div_ceil(Self::STEP) * Self::PACKED_PER_STEP
    }
}

/// Bytes from the first and from the second half of a line to what is fetched.
pub(super) type Ahead = [usize; 2];

/// What one call of a kernel goes through.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    /// Rows of input.
    pub(super) rows: usize,
    /// The panel.
    pub(super) panel: usize,
    /// The steps along the input.
    pub(super) steps: Range<usize>,
    /// Bytes from each half of a line of the panel to one that is needed soon and lies in memory still: the kernel fetches
    /// it while it computes; 0 where nothing is to be fetched.
    pub(super) ahead: Ahead,
}

/// How far ahead a panel is fetched that is met once: what memory brings in the time that it takes to answer, several times
/// over.
const STREAMED: usize = 8 << 10;

/// Panels that are taken together when there are many rows, so that these are fetched a quarter as often.
const GROUP: usize = 4;

/// Where a product goes.
#[derive(Debug)]
pub(super) struct Into<'a> {
    /// `[rows, d_out]`, rows `stride` apart.
    pub(super) y: &'a mut [f32],
    /// Values from the begin of a row to the begin of the next.
    pub(super) stride: usize,
    /// Whether the product is added to what is there.
    pub(super) keep: bool,
    /// What the product is multiplied with.
    pub(super) scale: f32,
}

/// `y (+)= scale · x Wᵀ`: `x` is `[rows, d_in]`.
pub(super) fn multiply<P: Panels>(weights: &P, into: Into<'_>, x: &[f32], threads: Threads, cpu: Cpu)
where
    P::Packed: Pooled,
{
    let Into { y, stride, keep, scale } = into;
    let (d_out, d_in) = weights.shape();
    let rows = x.len().checked_div(d_in).unwrap_or(0);
    if rows == 0 || d_out == 0 {
        return;
    }
    assert!(
        (rows - 1) * stride + d_out <= y.len() && d_out <= stride.max(d_out),
        "a product reaches past its rows"
    );
    let most = if rows <= P::ROWS_ALONE { P::ROWS_ALONE } else { P::ROWS };
    let blocks = row_blocks(rows, most, P::ROWS_MULTIPLE);
    let width = weights.packed_width();
    P::Packed::with_buffer(rows.next_multiple_of(P::ROWS_MULTIPLE) * width, |packed| {
        let large = threads == Threads::All && rows * d_out * d_in >= WORTH_A_THREAD;
        pack_blocks(packed, x, &blocks, P::ROWS_MULTIPLE, width, large, |into, x, rows| {
            weights.pack(into, x, rows, scale)
        });
        let steps = d_in.div_ceil(P::STEP);
        let per_block = steps_per_block::<P>(blocks.len(), steps);
        let out = Out { at: y.as_mut_ptr(), stride };
        let packed: &[P::Packed] = packed;
        share(d_out.div_ceil(PANEL), rows, large, |panels| {
            let _session = weights.session();
            for group in groups(panels) {
                for begin in (0..steps).step_by(per_block) {
                    let end = steps.min(begin + per_block);
                    // What the first block of rows will meet next is fetched meanwhile, half a line at a time: all
                    // at once, memory would be slower than the arithmetic.
                    let next = if end < steps { end - begin } else { GROUP * steps - begin };
                    for (at, block) in blocks.iter().enumerate() {
                        let packed = &packed[packed_rows(block, P::ROWS_MULTIPLE, width)];
                        let ahead = match at {
                            _ if blocks.len() == 1 => [STREAMED; 2],
                            0 => [next * P::BYTES_PER_STEP, 0],
                            1 => [0, next * P::BYTES_PER_STEP],
                            _ => [0, 0],
                        };
                        for panel in group.clone() {
                            let place = Place { rows: block.clone(), columns: columns(panel, d_out) };
                            let pass = Pass { rows: block.len(), panel, steps: begin..end, ahead };
                            // SAFETY: the assertion above says that rows and columns lie within `y`, and each
                            // panel's columns are written by one thread only.
                            #[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
                            unsafe {
                                let add = |tile: &mut Tile| weights.kernel(tile, packed, pass, cpu);
                                if block.len().next_multiple_of(P::ROWS_MULTIPLE) <= VECTOR_ROWS {
                                    out.update::<VECTOR_ROWS>(&place, keep || begin > 0, add);
                                } else {
                                    out.update::<TILE_ROWS>(&place, keep || begin > 0, add);
                                }
                            }
                        }
                    }
                }
            }
        });
    });
}

/// `dx = dy W`: `dy` `[rows, d_out]`, `dx` `[rows, d_in]`. The gradient of [`multiply`] with respect to `x`.
///
/// The weights are turned, a block at a time, into 32-bit panels along the other side.
pub(super) fn multiply_back<P: Panels>(weights: &P, dx: &mut [f32], dy: &[f32], threads: Threads, cpu: Cpu) {
    /// Weight rows that are turned at once: 64 KiB a panel.
    const TURNED: usize = 512;
    let (d_out, d_in) = weights.shape();
    let rows = dy.len().checked_div(d_out).unwrap_or(0);
    if rows == 0 || d_in == 0 {
        return;
    }
    assert!(rows * d_in <= dx.len(), "a product reaches past its rows");
    let blocks = row_blocks(rows, f32_panels::ROWS, 1);
    f32::with_buffer(rows * d_out, |packed| {
        let large = threads == Threads::All && rows * d_out * d_in >= WORTH_A_THREAD;
        pack_blocks(packed, dy, &blocks, 1, d_out, large, |into, dy, rows| {
            f32_panels::pack(into, dy, rows, 1.0);
        });
        let out = Out { at: dx.as_mut_ptr(), stride: d_in };
        let packed: &[f32] = packed;
        share(d_in.div_ceil(PANEL), rows, large, |panels| {
            let height = TURNED.min(d_out.next_multiple_of(PANEL));
            let mut turned = vec![Line([0.0f32; PANEL]); GROUP * height];
            for group in groups(panels) {
                for begin in (0..d_out).step_by(TURNED) {
                    let end = d_out.min(begin + TURNED);
                    for (panel, turned) in group.clone().zip(turned.chunks_mut(height)) {
                        turn(weights, panel, begin..end, turned);
                    }
                    for block in &blocks {
                        let rows = block.len();
                        let packed = &packed[block.start * d_out + begin * rows..][..(end - begin) * rows];
                        for (panel, turned) in group.clone().zip(turned.chunks(height)) {
                            let place = Place { rows: block.clone(), columns: columns(panel, d_in) };
                            // SAFETY: the assertion above says that rows and columns lie within `dx`, and each
                            // panel's columns are written by one thread only.
                            #[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
                            unsafe {
                                out.update::<VECTOR_ROWS>(&place, begin > 0, |tile| {
                                    f32_panels::kernel(
                                        tile,
                                        packed,
                                        rows,
                                        &turned[..end - begin],
                                        [0; 2],
                                        cpu,
                                    );
                                });
                            }
                        }
                    }
                }
            }
        });
    });
}

/// The weight rows `rows`, which begin at a panel, of 32 columns: as the panel of the transposed matrix.
fn turn<P: Panels>(weights: &P, columns: usize, rows: Range<usize>, into: &mut [Line<[f32; PANEL]>]) {
    for (at, into) in into.chunks_mut(PANEL).take(rows.len().div_ceil(PANEL)).enumerate() {
        let block = weights.block(rows.start / PANEL + at, columns);
        for (row, into) in into.iter_mut().enumerate() {
            for (into, values) in into.0.iter_mut().zip(&block) {
                *into = values[row];
            }
        }
    }
}

/// Panels that meet a block of rows one after another while that is in the first cache.
fn groups(panels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = panels.end;
    panels.step_by(GROUP).map(move |begin| begin..end.min(begin + GROUP))
}

/// Columns of the result that a panel gives.
fn columns(panel: usize, of: usize) -> Range<usize> {
    panel * PANEL..of.min((panel + 1) * PANEL)
}

/// `rows` in blocks of at most `most`, as even as can be; all but the last a multiple of `multiple`.
fn row_blocks(rows: usize, most: usize, multiple: usize) -> Vec<Range<usize>> {
    let (units, count) = (rows.div_ceil(multiple), rows.div_ceil(most));
    let begin = |at| rows.min(units * at / count * multiple);
    (0..count).map(|at| begin(at)..begin(at + 1)).collect()
}

/// Where a block of rows lies among packed rows of `width` values.
fn packed_rows(block: &Range<usize>, multiple: usize, width: usize) -> Range<usize> {
    block.start * width..(block.start + block.len().next_multiple_of(multiple)) * width
}

/// Packs rows of `x` to rows of `width`, block by block.
fn pack_blocks<T: Send>(
    packed: &mut [T],
    x: &[f32],
    blocks: &[Range<usize>],
    multiple: usize,
    width: usize,
    parallel: bool,
    pack: impl Fn(&mut [T], &[f32], usize) + Sync,
) {
    let d_in = x.len() / blocks.last().map_or(1, |last| last.end);
    let mut parts = Vec::with_capacity(blocks.len());
    let mut rest = packed;
    for block in blocks {
        let (part, after) = rest.split_at_mut(packed_rows(block, multiple, width).len());
        parts.push((part, block));
        rest = after;
    }
    let pack = |(into, block): (&mut [T], &Range<usize>)| {
        pack(into, &x[block.start * d_in..block.end * d_in], block.len());
    };
    if parallel && blocks.len() > 1 {
        parts.into_par_iter().for_each(pack);
    } else {
        parts.into_iter().for_each(pack);
    }
}

/// Steps after which a kernel goes on to the next rows: all where the rows fit into one block.
fn steps_per_block<P: Panels>(blocks: usize, steps: usize) -> usize {
    if blocks == 1 {
        return steps.max(1);
    }
    let most = (P::BLOCK_BYTES / P::BYTES_PER_STEP).max(1);
    // As even as can be, so that no block is a short rest.
    steps.div_ceil(steps.div_ceil(most)).max(1)
}

/// Shares out `panels` over the threads of the current pool.
fn share(panels: usize, rows: usize, parallel: bool, work: impl Fn(Range<usize>) + Sync) {
    if !parallel {
        return work(0..panels);
    }
    // Few rows wait for memory, which likes long runs; many rows compute, and a thread that was held up shall
    // leave something to the others.
    let parts = rayon::current_num_threads() * if rows <= 2 * VECTOR_ROWS { 2 } else { 8 };
    let parts = parts.min(panels).max(1);
    (0..parts).into_par_iter().for_each(|at| work(panels * at / parts..panels * (at + 1) / parts));
}

/// A part of a result matrix.
struct Place {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// A result matrix that threads write different columns of.
#[derive(Clone, Copy)]
struct Out {
    at: *mut f32,
    stride: usize,
}

// SAFETY: whoever uses it from several threads gives each its own columns.
#[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
unsafe impl Send for Out {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
unsafe impl Sync for Out {}

#[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
impl Out {
    /// Lets `work` add to a tile: to what is at `place` where that is to be kept, else to zeros.
    ///
    /// # Safety
    /// The place lies within the matrix, and no other thread reads or writes its columns meanwhile.
    unsafe fn update<const ROWS: usize>(self, place: &Place, keep: bool, work: impl FnOnce(&mut Tile)) {
        let width = place.columns.len();
        let row = |row: usize| {
            // SAFETY: the caller's promise; only one row is borrowed at a time.
            unsafe {
                let at = self.at.add(row * self.stride + place.columns.start);
                std::slice::from_raw_parts_mut(at, width)
            }
        };
        let mut tile = [[0.0; PANEL]; ROWS];
        if keep {
            for (tile, at) in tile.iter_mut().zip(place.rows.clone()) {
                tile[..width].copy_from_slice(row(at));
            }
        }
        work(&mut tile);
        for (tile, at) in tile.iter().zip(place.rows.clone()) {
            row(at).copy_from_slice(&tile[..width]);
        }
    }
}

/// The first `ROWS` rows of a tile in registers.
///
/// # Safety
/// The processor has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "vector loads take pointers")]
pub(super) unsafe fn load<const ROWS: usize>(tile: &Tile) -> [[__m512; 2]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (sums, row) in sums.iter_mut().zip(tile) {
        let at = row.as_ptr();
        // SAFETY: a row of a tile holds 32 values, twice as many as a register.
        *sums = unsafe { [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(PANEL / 2))] };
    }
    sums
}

/// Fetches into the second cache what lies `ahead` of the two halves of the line `at`. There need not be anything: a fetch of
/// what is not there does nothing.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code, reason = "a fetch takes a pointer")]
pub(super) fn fetch<T>(at: *const T, ahead: Ahead) {
    for (half, ahead) in ahead.into_iter().enumerate() {
        if ahead != 0 {
            // SAFETY: the instruction reads nothing that the program can see, and faults nowhere.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast::<i8>().wrapping_add(half * CACHE_LINE + ahead)) };
        }
    }
}

/// Fetches into the first cache what is needed after the lines in between; as harmless as [`fetch`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code, reason = "a fetch takes a pointer")]
pub(super) fn fetch_near<T>(at: *const T) {
    /// 16 lines of 32-bit floats.
    const NEAR: usize = 2 << 10;
    // SAFETY: the instruction reads nothing that the program can see, and faults nowhere.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(NEAR)) };
}

/// Back from registers to a tile.
///
/// # Safety
/// The processor has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "vector stores take pointers")]
pub(super) unsafe fn store<const ROWS: usize>(tile: &mut Tile, sums: [[__m512; 2]; ROWS]) {
    for (sums, row) in sums.into_iter().zip(tile) {
        let at = row.as_mut_ptr();
        // SAFETY: a row of a tile holds 32 values, twice as many as a register.
        unsafe {
            _mm512_storeu_ps(at, sums[0]);
            _mm512_storeu_ps(at.add(PANEL / 2), sums[1]);
        }
    }
}

/// Values for which each thread keeps a buffer: packing allocates nothing after the first step.
pub(super) trait Pooled: Copy + Default + 'static {
    /// Calls `work` with `len` values, whatever they are.
    fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [Self]) -> R) -> R;
}

macro_rules! pooled {
    ($($ty:ty),*) => {$(
        impl Pooled for $ty {
            fn with_buffer<R>(len: usize, work: impl FnOnce(&mut [Self]) -> R) -> R {
                thread_local! { static FREE: RefCell<Vec<Vec<$ty>>> = const { RefCell::new(Vec::new()) }; }
                // A stack of buffers: while it waits for others, a thread of the pool may begin another product.
                let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
                if buffer.len() < len {
                    buffer = vec![Default::default(); len];
                }
                let result = work(&mut buffer[..len]);
                FREE.with_borrow_mut(|free| free.push(buffer));
                result
            }
        }
    )*};
}

pooled!(f32, u32);

/// Calls `$body` with `ROWS` as a constant: a kernel for each number of rows.
macro_rules! with_rows {
    ($rows:expr, $call:ident, $($arg:expr),*) => {
        match $rows {
            1 => $call::<1>($($arg),*),
            2 => $call::<2>($($arg),*),
            3 => $call::<3>($($arg),*),
            4 => $call::<4>($($arg),*),
            5 => $call::<5>($($arg),*),
            6 => $call::<6>($($arg),*),
            7 => $call::<7>($($arg),*),
            8 => $call::<8>($($arg),*),
            9 => $call::<9>($($arg),*),
            10 => $call::<10>($($arg),*),
            11 => $call::<11>($($arg),*),
            _ => $call::<12>($($arg),*),
        }
    };
}

pub(super) use with_rows;
