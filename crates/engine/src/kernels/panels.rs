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

use super::{
    Cpu, f32_panels,
    matmul::Threads,
    out::{Out, Place, Sums},
};

/// Rows of the weight matrix in a panel.
pub(crate) const PANEL: usize = 32;

/// Most rows of input that a kernel on vectors takes at once.
pub(super) const VECTOR_ROWS: usize = 12;

/// Most rows of input that a kernel on tiles takes at once.
pub(super) const TILE_ROWS: usize = 32;

/// Multiplications below which a second thread costs more than it brings.
pub(super) const WORTH_A_THREAD: usize = 1 << 19;

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

    /// As [`Panels::kernel`], without a tile in between. False where the format cannot do that with so many rows.
    ///
    /// # Safety
    /// `sums` are as many rows as those of `pass`, and nobody else reads or writes them meanwhile.
    #[allow(unsafe_code, reason = "sums are rows of a larger matrix")]
    unsafe fn straight(&self, _sums: Sums, _packed: &[Self::Packed], _pass: &Pass) -> bool {
        false
    }

    /// The values of weight rows `panel * 32 ..` and columns `columns * 32 ..`, transposed: `[32 columns][32 rows]`;
    /// what lies beyond the matrix is 0.
    fn block(&self, panel: usize, columns: usize) -> [[f32; PANEL]; PANEL];

    /// Values of a packed row of input.
    fn packed_width(&self) -> usize {
        self.shape().1.div_ceil(Self::STEP) * Self::PACKED_PER_STEP
    }
}

/// Bytes from the first and from the second half of a line to what is fetched; 0 where nothing is.
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
    /// What the kernel fetches while it computes.
    pub(super) next: Next,
}

/// What is needed soon and lies in memory still. All at once, memory would be slower than the arithmetic; so each block of
/// rows fetches a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    /// Bytes from a line of the panel to one that is needed.
    distance: usize,
    /// Which block of rows it is, and of how many.
    turn: [usize; 2],
}

impl Next {
    /// Half a line at a time, during the first two blocks of rows.
    pub(super) fn halves(self) -> Ahead {
        match self.turn {
            [_, 1] => [self.distance; 2],
            [0, _] => [self.distance, 0],
            [1, _] => [0, self.distance],
            _ => [0, 0],
        }
    }

    /// For kernels that fetch between steps: bytes from the first of `bytes` of a panel to what is fetched, and how many
    /// cache lines that is for each of `steps`.
    pub(super) fn lines(self, bytes: usize, steps: usize) -> (usize, usize) {
        let [turn, turns] = self.turn;
        (self.distance + bytes / turns * turn, bytes.div_ceil(turns * steps.max(1) * CACHE_LINE))
    }
}

/// How far ahead a panel is fetched that is met once: what memory brings in the time that it takes to answer, several times
/// over.
const STREAMED: usize = 8 << 10;

/// Most panels that are taken together when there are many rows, so that these are fetched as many times less often.
pub(super) const GROUP: usize = 6;

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
    let out = Out { at: y.as_mut_ptr(), stride };
    let large = threads == Threads::All && rows * d_out * d_in >= WORTH_A_THREAD;
    with_product(weights, x, scale, large, cpu, |product| {
        share(d_out.div_ceil(PANEL), rows, large, |panels| {
            let _session = weights.session();
            for group in groups(panels, GROUP) {
                let places = group.clone().map(|panel| (panel, columns(panel, d_out)));
                // SAFETY: the assertion above says that rows and columns lie within `y`, and each panel's columns are
                // written by one thread only.
                #[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
                unsafe {
                    product.add(out, keep, places, group.len());
                }
            }
        });
    });
}

/// As [`multiply`] on this thread, with some of the panels only, whose columns are the first of `y`.
pub(super) fn multiply_panels<P: Panels>(
    weights: &P,
    into: Into<'_>,
    x: &[f32],
    panels: Range<usize>,
    cpu: Cpu,
) where
    P::Packed: Pooled,
{
    let Into { y, stride, keep, scale } = into;
    let (d_out, d_in) = weights.shape();
    let (rows, first) = (x.len().checked_div(d_in).unwrap_or(0), panels.start * PANEL);
    let columns = (panels.end * PANEL).min(d_out).saturating_sub(first);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * stride + columns <= y.len() && columns <= stride, "a product reaches past its rows");
    with_product(weights, x, scale, false, cpu, |product| {
        let _session = weights.session();
        let place = |panel| self::columns(panel - panels.start, columns);
        let places = panels.clone().map(|panel| (panel, place(panel)));
        // SAFETY: the assertion above says that rows and columns lie within `y`.
        #[allow(unsafe_code, reason = "writes through a pointer as threads do")]
        unsafe {
            product.add(Out { at: y.as_mut_ptr(), stride }, keep, places, panels.len());
        }
    });
}

/// Packed rows of input, and how they meet a panel.
pub(super) struct Product<'a, P: Panels> {
    weights: &'a P,
    packed: &'a [P::Packed],
    blocks: &'a [Range<usize>],
    per_block: usize, // steps
    cpu: Cpu,
}

/// Packs `x` `[rows, d_in]`, times `scale` and on all threads where that is `large`, for `work`.
pub(super) fn with_product<P: Panels>(
    weights: &P,
    x: &[f32],
    scale: f32,
    large: bool,
    cpu: Cpu,
    work: impl FnOnce(&Product<'_, P>),
) where
    P::Packed: Pooled,
{
    let d_in = weights.shape().1;
    let rows = x.len() / d_in;
    let most = if rows <= P::ROWS_ALONE { P::ROWS_ALONE } else { P::ROWS };
    let blocks = row_blocks(rows, most, P::ROWS_MULTIPLE);
    let width = weights.packed_width();
    P::Packed::with_buffer(rows.next_multiple_of(P::ROWS_MULTIPLE) * width, |packed| {
        pack_blocks(packed, x, &blocks, P::ROWS_MULTIPLE, width, large, |into, x, rows| {
            weights.pack(into, x, rows, scale)
        });
        let per_block = steps_per_block::<P>(blocks.len(), d_in.div_ceil(P::STEP));
        work(&Product { weights, packed, blocks: &blocks, per_block, cpu });
    });
}

impl<P: Panels> Product<'_, P> {
    /// Writes all rows times a group of panels to `out`, or adds them where that is to `keep`: each panel's to its columns.
    /// The next group's panels are expected `next` panels on.
    ///
    /// # Safety
    /// The session of the weights is on this thread; rows and columns lie within `out`, and no other thread reads or writes
    /// these columns meanwhile.
    #[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
    pub(super) unsafe fn add(
        &self,
        out: Out,
        keep: bool,
        places: impl Iterator<Item = (usize, Range<usize>)> + Clone,
        next: usize,
    ) {
        let Self { weights, packed, blocks, per_block, cpu } = *self;
        let (steps, width) = (weights.shape().1.div_ceil(P::STEP), weights.packed_width());
        for begin in (0..steps).step_by(per_block) {
            let end = steps.min(begin + per_block);
            let distance = match blocks.len() {
                1 => STREAMED,
                _ if end < steps => (end - begin) * P::BYTES_PER_STEP,
                _ => (next * steps - begin) * P::BYTES_PER_STEP,
            };
            for (at, block) in blocks.iter().enumerate() {
                let packed = &packed[packed_rows(block, P::ROWS_MULTIPLE, width)];
                let next = Next { distance, turn: [at, blocks.len()] };
                for (panel, columns) in places.clone() {
                    let place = Place { rows: block.clone(), columns };
                    let pass = Pass { rows: block.len(), panel, steps: begin..end, next };
                    // SAFETY: the caller's promise.
                    unsafe { out.add(weights, &place, keep || begin > 0, packed, pass, cpu) };
                }
            }
        }
    }
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
            for group in groups(panels, GROUP) {
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

/// Panels that meet a block of rows one after another while that is in the first cache; as even as can be.
pub(super) fn groups(panels: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = panels.len().div_ceil(most);
    (0..count).map(move |at| part(&panels, at, count))
}

/// Part `at` of `of`, of the `count` as even ones.
fn part(of: &Range<usize>, at: usize, count: usize) -> Range<usize> {
    of.start + of.len() * at / count..of.start + of.len() * (at + 1) / count
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
pub(super) fn share(panels: usize, rows: usize, parallel: bool, work: impl Fn(Range<usize>) + Sync) {
    if !parallel {
        return work(0..panels);
    }
    // Few rows wait for memory, which likes long runs; many rows compute, and a thread that was held up shall leave
    // something to the others, in whole groups of panels.
    let threads = rayon::current_num_threads();
    let each = if rows <= 2 * VECTOR_ROWS { 2 } else { (panels / (threads * GROUP)).clamp(1, 8) };
    let parts = (threads * each).min(panels).max(1);
    (0..parts).into_par_iter().for_each(|at| work(part(&(0..panels), at, parts)));
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
#[cfg(target_arch = "x86_64")]
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

#[cfg(target_arch = "x86_64")]
pub(super) use with_rows;
