//! Attention over pages of bfloat16 by AMX: what [`super::paged`] does, for 32 rows and the tokens of four pages at once.
//!
//! In come queries in 32-bit floats; scores, softmax and sums stay in 32-bit floats, and queries and weights are rounded to
//! bfloat16 where they meet keys and values. As there, a row's numbers depend on its position alone: pages are taken
//! together by their place in the sequence, and tiles compute every row by itself.

use super::{
    bf16_panels::{STEP_LINES, join},
    bf16_tiles::{Fetch, ROWS, sixteen_rows, thirty_two_rows},
    dispatch::vectorized,
    out::Sums,
    paged::{Layer, PAGE_TOKENS, Running, Task, soften},
    panels::{Line, PANEL},
    tiles::TileSession,
};

/// Pages whose scores are softened together, so that sums are brought to a new maximum a quarter as often.
const PAGES: usize = 4;

/// Rows that are computed at once.
const TOGETHER: usize = 2 * ROWS;

// A page's keys are a panel's lines, and its values a step of panels, only while these agree.
const _: () = assert!(PAGE_TOKENS == PANEL && PAGE_TOKENS == 2 * STEP_LINES);

/// Keys and values of a page in pairs of bfloat16, as tiles want them.
///
/// `[layers, kv_heads, (keys, values)]`: the keys `[dims / 2][tokens]` in pairs of dimensions, the values
/// `[dims / 32][tokens / 2][32 dims]` in pairs of tokens. Dimensions are filled up with zeros to whole steps of 32.
#[derive(Debug)]
pub(super) struct PairPage {
    lines: Vec<Line<[u32; PANEL]>>,
    kv_heads: usize,
    head_dim: usize,
}

/// Steps of 32 that a head takes.
fn steps(head_dim: usize) -> usize {
    head_dim.div_ceil(2 * STEP_LINES)
}

impl PairPage {
    /// A page of zeros.
    pub(super) fn new(layers: usize, kv_heads: usize, head_dim: usize) -> Self {
        let lines = layers * kv_heads * 2 * steps(head_dim) * STEP_LINES;
        Self { lines: vec![Line([0; PANEL]); lines], kv_heads, head_dim }
    }

    /// Writes one token's keys and values, both `[kv_heads, head_dim]`, at `slot` of `layer`.
    pub(super) fn write(&mut self, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let half = steps(self.head_dim) * STEP_LINES;
        let layer = &mut self.lines[layer * 2 * half * self.kv_heads..][..2 * half * self.kv_heads];
        let heads = keys.chunks_exact(self.head_dim).zip(values.chunks_exact(self.head_dim));
        for (page, (key, value)) in layer.chunks_exact_mut(2 * half).zip(heads) {
            let (page_keys, page_values) = page.split_at_mut(half);
            for (line, pair) in page_keys.iter_mut().zip(key.chunks(2)) {
                line.0[slot] = join(pair[0], pair.get(1).copied().unwrap_or(0.0));
            }
            if slot == 0 {
                // A weight of 0 times whatever a page held that is used again shall be 0.
                page_values.fill(Line([0; PANEL]));
            }
            for (panel, value) in page_values.chunks_exact_mut(STEP_LINES).zip(value.chunks(PANEL)) {
                for (pair, value) in panel[slot / 2].0.iter_mut().zip(value) {
                    let bits = join(*value, 0.0);
                    *pair = if slot.is_multiple_of(2) {
                        *pair & 0xffff_0000 | bits
                    } else {
                        *pair & 0xffff | bits << 16
                    };
                }
            }
        }
    }

    /// Keys and values of one head of one layer.
    fn head(&self, layer: usize, head: usize) -> [&[Line<[u32; PANEL]>]; 2] {
        let half = steps(self.head_dim) * STEP_LINES;
        let (keys, values) =
            self.lines[(layer * self.kv_heads + head) * 2 * half..][..2 * half].split_at(half);
        [keys, values]
    }
}

/// What a thread computes in, for up to 32 rows.
#[derive(Debug)]
pub(super) struct Work {
    queries: Vec<Line<[u32; STEP_LINES]>>, // [2][steps][16 rows][16 pairs]
    scores: Vec<Line<[f32; PANEL]>>,       // [32 rows][pages][32 tokens]
    weights: Vec<Line<[u32; STEP_LINES]>>, // [pages][32 rows][16 pairs]
    sums: Vec<Line<[f32; PANEL]>>,         // [32 rows][steps][32 dims]
}

impl Work {
    pub(super) fn new(head_dim: usize) -> Self {
        let steps = steps(head_dim);
        Self {
            queries: vec![Line([0; STEP_LINES]); TOGETHER * steps],
            scores: vec![Line([0.0; PANEL]); TOGETHER * PAGES],
            weights: vec![Line([0; STEP_LINES]); TOGETHER * PAGES],
            sums: vec![Line([0.0; PANEL]); TOGETHER * steps],
        }
    }
}

/// Attention of one task's rows; `page` gives a page of its sequence.
pub(super) fn attend<'a>(
    task: &mut Task<'_>,
    layer: Layer,
    work: &mut Work,
    page: impl Fn(usize) -> &'a PairPage,
) {
    let dim = layer.shape.head_dim;
    let _session = TileSession::new(STEP_LINES);
    let (position, kv_head) = (task.position, task.kv_head);
    for (at, out) in task.out.chunks_mut(TOGETHER * dim).enumerate() {
        let rows = Rows { first: at * TOGETHER, count: out.len() / dim, position, layer };
        rows.pack(&mut work.queries, task.queries);
        let running = rows.sum_up(work, |at| page(at).head(layer.layer, kv_head));
        for ((out, sums), running) in
            out.chunks_exact_mut(dim).zip(work.sums.chunks_exact(steps(dim))).zip(&running)
        {
            let share = 1.0 / running.sum;
            for (out, sums) in out.chunks_mut(PANEL).zip(sums) {
                for (out, sum) in out.iter_mut().zip(&sums.0) {
                    *out = sum * share;
                }
            }
        }
    }
}

/// Up to 32 rows of a task: tokens by heads of the group.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    count: usize,
    position: usize, // of the task's first token
    layer: Layer,
}

impl Rows {
    fn group(&self) -> usize {
        self.layer.shape.heads / self.layer.shape.kv_heads
    }

    /// The position of row `at`.
    fn position(&self, at: usize) -> usize {
        self.position + (self.first + at) / self.group()
    }

    /// Queries to tiles: `[⌈rows / 16⌉][steps][16 rows][16 pairs]`. Rows that are not there keep what was there before.
    fn pack(&self, into: &mut [Line<[u32; STEP_LINES]>], queries: &[f32]) {
        let (dim, group) = (self.layer.shape.head_dim, self.group());
        for at in 0..self.count {
            let row = self.first + at;
            let query = &queries[row / group * self.layer.stride + row % group * dim..][..dim];
            let tiles = into[at / ROWS * steps(dim) * ROWS..].chunks_exact_mut(ROWS);
            for (tile, query) in tiles.zip(query.chunks(2 * STEP_LINES)) {
                pack_row(&mut tile[at % ROWS].0, query);
            }
        }
    }

    /// Weighs the values of all pages that the rows see into `work.sums`; what divides them is returned.
    fn sum_up<'a>(
        &self,
        work: &mut Work,
        page: impl Fn(usize) -> [&'a [Line<[u32; PANEL]>]; 2],
    ) -> [Running; TOGETHER] {
        let (last, window) = (self.position(self.count - 1), self.layer.window);
        let lowest = (self.position(0) + 1).saturating_sub(window);
        let steps = steps(self.layer.shape.head_dim);
        let scale = 1.0 / (self.layer.shape.head_dim as f32).sqrt();
        let mut running = [Running { maximum: f32::NEG_INFINITY, sum: 0.0 }; TOGETHER];
        let first = lowest / PAGE_TOKENS / PAGES * PAGES;
        for begin in (first..=last / PAGE_TOKENS).step_by(PAGES) {
            let pages = begin..(begin + PAGES).min(last / PAGE_TOKENS + 1);
            let scores = work.scores.as_mut_ptr().cast::<f32>();
            for (at, index) in pages.clone().enumerate() {
                let place = Sums { at: scores.wrapping_add(at * PANEL), stride: PAGES * PANEL, keep: false };
                // SAFETY: there are scores of 32 rows for four pages, and the caller has begun a session.
                #[allow(unsafe_code, reason = "calls a function that takes a pointer")]
                unsafe {
                    self.multiply(place, &work.queries, [page(index)[0]], steps);
                }
            }
            let seen: [(usize, usize); TOGETHER] = std::array::from_fn(|at| {
                let (position, offset) = (self.position(at), begin * PAGE_TOKENS);
                let first = (position + 1).saturating_sub(window).saturating_sub(offset);
                (first, (position + 1).saturating_sub(offset).min(pages.len() * PAGE_TOKENS).max(first))
            });
            let softened = Softened { pages: pages.len(), seen: &seen[..self.count], scale, steps };
            weigh(work, softened, &mut running);
            for panel in 0..steps {
                let sums = work.sums.as_mut_ptr().cast::<f32>();
                let place =
                    Sums { at: sums.wrapping_add(panel * PANEL), stride: steps * PANEL, keep: begin > first };
                let values = pages.clone().map(|index| &page(index)[1][panel * STEP_LINES..][..STEP_LINES]);
                // SAFETY: there are sums of 32 rows for each step, and the caller has begun a session.
                #[allow(unsafe_code, reason = "calls a function that takes a pointer")]
                unsafe {
                    self.multiply(place, &work.weights, values, 1);
                }
            }
        }
        running
    }

    /// `sums (+)= Σ x yᵀ` over `ys`, each of `steps` steps and met by the next tiles of `x`.
    ///
    /// # Safety
    /// A session is on this thread, and the sums are 32 rows that nobody else reads or writes meanwhile.
    #[allow(unsafe_code, reason = "calls functions that take pointers")]
    unsafe fn multiply<'a>(
        &self,
        sums: Sums,
        x: &[Line<[u32; STEP_LINES]>],
        ys: impl IntoIterator<Item = &'a [Line<[u32; PANEL]>]>,
        steps: usize,
    ) {
        let none = Fetch { at: std::ptr::null(), lines: 0 };
        let halves = x.chunks_exact(2 * steps * ROWS).map(|x| x.split_at(steps * ROWS));
        // SAFETY: the caller's promise; a half is as many tiles of 16 lines as there are steps, and the lines of a page are as
        // many steps as its dimensions take.
        unsafe {
            if self.count > ROWS {
                sums.load::<true>();
                for ((first, second), y) in halves.zip(ys) {
                    debug_assert_eq!((first.len(), y.len()), (steps * ROWS, steps * STEP_LINES));
                    thirty_two_rows(
                        [first, second].map(|x| x.as_ptr().cast()),
                        y.as_ptr().cast(),
                        steps,
                        none,
                    );
                }
                sums.store::<true>();
            } else {
                sums.load::<false>();
                for ((first, _), y) in halves.zip(ys) {
                    debug_assert_eq!((first.len(), y.len()), (steps * ROWS, steps * STEP_LINES));
                    sixteen_rows(first.as_ptr().cast(), y.as_ptr().cast(), steps, none);
                }
                sums.store::<false>();
            }
        }
    }
}

/// Scores that are turned to weights.
#[derive(Clone, Copy)]
struct Softened<'a> {
    pages: usize,
    /// The tokens that each row sees, from the first of the pages on.
    seen: &'a [(usize, usize)],
    scale: f32,
    /// Steps of the sums.
    steps: usize,
}

vectorized! {
    /// Scores to weights relative to each row's new maximum, 0 where the row does not see, and sums to that maximum.
    fn weigh(work: &mut Work, softened: Softened<'_>, running: &mut [Running; TOGETHER]) {
        let Softened { pages, seen, scale, steps } = softened;
        for (row, (seen, running)) in seen.iter().zip(running).enumerate() {
            let scores = &mut work.scores[row * PAGES..][..pages];
            let factor = soften::<FMA>(scores, *seen, scale, running);
            for (weights, page) in work.weights[row..].iter_mut().step_by(TOGETHER).zip(scores) {
                pack_row(&mut weights.0, &page.0);
            }
            if factor != 1.0 {
                for line in &mut work.sums[row * steps..][..steps] {
                    line.0.iter_mut().for_each(|sum| *sum *= factor);
                }
            }
        }
    }
}

/// Up to 32 values to 16 pairs.
#[inline(always)]
fn pack_row(into: &mut [u32; STEP_LINES], values: &[f32]) {
    let (pairs, rest) = values.as_chunks::<2>();
    for (into, [even, odd]) in into.iter_mut().zip(pairs) {
        *into = join(*even, *odd);
    }
    if let ([last], Some(into)) = (rest, into.get_mut(pairs.len())) {
        *into = join(*last, 0.0);
    }
}
