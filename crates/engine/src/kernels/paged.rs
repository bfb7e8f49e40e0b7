//! A page of a KV cache and attention over pages: scores, softmax and values in one pass over the keys.
//!
//! Pages hold 32-bit floats; over weights in bfloat16, where the processor has tiles for them, they hold bfloat16 too, and
//! [`super::paged_tiles`] attends over them.
//!
//! Every query row is computed by itself, page after page, in an order that depends on its position alone: what
//! shares its batch, and how its prompt was cut into chunks, changes no bit of it.

use std::sync::Arc;

use rayon::prelude::*;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::paged_tiles::{self, PairPage, Work};
use super::{
    Cpu, WeightFormat,
    attention::AttentionShape,
    dispatch::{exp, multiply_add, vectorized},
    panels::Line,
    rows::share_rows,
};

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 32;

/// Lanes in which a row's maximum is looked for.
const LANES: usize = 16;

/// Query rows that are computed at once, so that a key is loaded once for all of them.
const ROWS: usize = 4;

/// Query rows of a task: a page's keys of one head stay in the first cache while all of them meet it.
const TASK_ROWS: usize = 64;

/// Multiplications below which tasks are not shared out over threads.
const WORTH_A_THREAD: usize = 1 << 20;

/// Keys and values of [`PAGE_TOKENS`] tokens in every layer.
#[derive(Debug)]
pub struct KvPage(Stored);

/// How a page keeps them.
#[derive(Debug)]
enum Stored {
    Floats(FloatPage),
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Pairs(PairPage),
}

/// 32-bit floats: `[layers, kv_heads, (keys [head_dim, PAGE_TOKENS], values [PAGE_TOKENS, head_dim])]`. The keys lie the
/// other way round, so that the scores of neighbouring tokens are the lanes of one vector.
#[derive(Debug)]
struct FloatPage {
    data: Vec<f32>,
    kv_heads: usize,
    head_dim: usize,
}

impl KvPage {
    /// A page of zeros, for a model whose weights are in `format`.
    pub(crate) fn new(layers: usize, shape: AttentionShape, format: WeightFormat) -> Self {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if format == WeightFormat::Bf16 && Cpu::detected().amx_bf16 {
            return Self(Stored::Pairs(PairPage::new(layers, shape.kv_heads, shape.head_dim)));
        }
        let _ = (format, Cpu::detected());
        let (kv_heads, head_dim) = (shape.kv_heads, shape.head_dim);
        let data = vec![0.0; layers * 2 * shape.kv_width() * PAGE_TOKENS];
        Self(Stored::Floats(FloatPage { data, kv_heads, head_dim }))
    }

    /// Writes one token's keys and values, both `[kv_width]`, at `slot` of `layer`. Slots are filled in their order.
    pub(crate) fn write(&mut self, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        match &mut self.0 {
            Stored::Floats(page) => page.write(layer, slot, keys, values),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Stored::Pairs(page) => page.write(layer, slot, keys, values),
        }
    }
}

impl KvPage {
    fn floats(&self) -> &FloatPage {
        match &self.0 {
            Stored::Floats(page) => page,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Stored::Pairs(_) => unreachable!("a model's pages are all of one kind"),
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn pairs(&self) -> &PairPage {
        match &self.0 {
            Stored::Pairs(page) => page,
            Stored::Floats(_) => unreachable!("a model's pages are all of one kind"),
        }
    }
}

impl FloatPage {
    fn write(&mut self, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let (half, dim) = (self.head_dim * PAGE_TOKENS, self.head_dim);
        let layer = &mut self.data[layer * 2 * half * self.kv_heads..][..2 * half * self.kv_heads];
        let heads = keys.chunks_exact(dim).zip(values.chunks_exact(dim));
        for (page, (key, value)) in layer.chunks_exact_mut(2 * half).zip(heads) {
            let (page_keys, page_values) = page.split_at_mut(half);
            for (lanes, key) in page_keys.chunks_exact_mut(PAGE_TOKENS).zip(key) {
                lanes[slot] = *key;
            }
            page_values[slot * dim..][..dim].copy_from_slice(value);
        }
    }

    /// Keys and values of one head of one layer.
    fn head(&self, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let half = self.head_dim * PAGE_TOKENS;
        self.data[(layer * self.kv_heads + head) * 2 * half..][..2 * half].split_at(half)
    }
}

/// A sequence of a step: its pages, with the new tokens already in them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachedSequence<'a> {
    /// Pages of all its tokens.
    pub(crate) pages: &'a [Arc<KvPage>],
    /// Tokens in the pages.
    pub(crate) total: usize,
    /// How many of them, the last ones, are queries.
    pub(crate) new: usize,
}

/// A block of neighbouring tokens of one sequence and one key head.
pub(super) struct Task<'a> {
    sequence: CachedSequence<'a>,
    pub(super) queries: &'a [f32], // from the block's first query of the head's group on, `stride` apart
    pub(super) out: &'a mut [f32], // [tokens, group, head_dim]
    pub(super) kv_head: usize,
    pub(super) position: usize, // of the block's first token
}

/// What all tasks share.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    pub(super) layer: usize,
    pub(super) stride: usize,
    pub(super) shape: AttentionShape,
    pub(super) window: usize,
}

/// Causal attention of the new tokens of every sequence over its pages.
///
/// `queries` is `[rows, stride]` with the queries first in each row and the rows of the sequences one after the
/// other; writes `out` `[rows, query_width]`; `work` is as large and holds nothing afterwards. With a `window`
/// a token sees itself and the `window - 1` tokens before it (Beltagy et al. 2020, section 3.1, causal).
pub(crate) fn attention_over_pages(
    out: &mut [f32],
    work: &mut [f32],
    queries: &[f32],
    sequences: &[CachedSequence<'_>],
    layer: usize,
    shape: AttentionShape,
    window: Option<usize>,
) {
    let (width, dim) = (shape.query_width(), shape.head_dim);
    let rows: usize = sequences.iter().map(|sequence| sequence.new).sum();
    assert!(out.len() == rows * width && work.len() == out.len(), "shapes of an attention do not fit");
    if rows == 0 {
        return;
    }
    let stride = queries.len() / rows;
    let layer = Layer { layer, stride, shape, window: window.unwrap_or(usize::MAX).max(1) };
    let tasks = tasks(work, queries, sequences, layer);
    let seen = |sequence: &CachedSequence<'_>| sequence.new * sequence.total.min(layer.window);
    let large = sequences.iter().map(seen).sum::<usize>() * width >= WORTH_A_THREAD;
    // A model's pages are all of one kind.
    match sequences.iter().find_map(|sequence| sequence.pages.first()).map(|page| &page.0) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Some(Stored::Pairs(_)) => for_each(
            tasks,
            large,
            || Work::new(dim),
            |work, task| {
                let pages = task.sequence.pages;
                paged_tiles::attend(task, layer, work, |at| pages[at].pairs());
            },
        ),
        _ => for_each(tasks, large, || (), |(), task| attend(task, layer)),
    }
    // From [sequence, kv_head, token, group] to [sequence, token, head].
    let group = width / shape.kv_heads;
    let (mut from, mut into) = (&*work, out);
    for sequence in sequences {
        let (part, rest) = from.split_at(sequence.new * width);
        let (rows, later) = std::mem::take(&mut into).split_at_mut(sequence.new * width);
        share_rows(rows, width, |first, rows| {
            for (kv_head, part) in part.chunks_exact(sequence.new * group).enumerate() {
                let parts = part.chunks_exact(group).skip(first);
                for (row, part) in rows.chunks_exact_mut(width).zip(parts) {
                    row[kv_head * group..][..group].copy_from_slice(part);
                }
            }
        });
        (from, into) = (rest, later);
    }
    debug_assert_eq!(group % dim, 0);
}

/// Calls `work` for every task, with what `begin` makes once for many of them.
fn for_each<W>(
    tasks: Vec<Task<'_>>,
    large: bool,
    begin: impl Fn() -> W + Sync + Send,
    work: impl Fn(&mut W, &mut Task<'_>) + Sync + Send,
) {
    if large {
        tasks.into_par_iter().for_each_init(begin, |with, mut task| work(with, &mut task));
    } else {
        let mut with = begin();
        tasks.into_iter().for_each(|mut task| work(&mut with, &mut task));
    }
}

/// Cuts a step into tasks, each with its own part of `work`.
fn tasks<'a>(
    mut work: &'a mut [f32],
    mut queries: &'a [f32],
    sequences: &[CachedSequence<'a>],
    layer: Layer,
) -> Vec<Task<'a>> {
    let group = layer.shape.heads / layer.shape.kv_heads;
    let group_width = group * layer.shape.head_dim;
    let block = (TASK_ROWS / group).max(1);
    let mut tasks = Vec::with_capacity(sequences.len() * layer.shape.kv_heads);
    for &sequence in sequences {
        for kv_head in 0..layer.shape.kv_heads {
            for begin in (0..sequence.new).step_by(block) {
                let tokens = block.min(sequence.new - begin);
                let (out, rest) = std::mem::take(&mut work).split_at_mut(tokens * group_width);
                work = rest;
                tasks.push(Task {
                    sequence,
                    queries: &queries[begin * layer.stride + kv_head * group_width..],
                    out,
                    kv_head,
                    position: sequence.total - sequence.new + begin,
                });
            }
        }
        queries = &queries[sequence.new * layer.stride..];
    }
    tasks
}

/// The running softmax of a row (Milakov and Gimelshein 2018, algorithm 3).
#[derive(Clone, Copy)]
pub(super) struct Running {
    pub(super) maximum: f32,
    pub(super) sum: f32,
}

vectorized! {
    /// Attention of one task's rows, page after page.
    fn attend(task: &mut Task<'_>, layer: Layer) {
        let (dim, group) = (layer.shape.head_dim, layer.shape.heads / layer.shape.kv_heads);
        let rows = task.out.len() / dim;
        let last = task.position + rows / group - 1;
        let lowest = (task.position + 1).saturating_sub(layer.window);
        let mut running = vec![Running { maximum: f32::NEG_INFINITY, sum: 0.0 }; rows];
        task.out.fill(0.0);
        for page in lowest / PAGE_TOKENS..=last / PAGE_TOKENS {
            let mut row = 0;
            for (running, out) in running.chunks_mut(ROWS).zip(task.out.chunks_mut(ROWS * dim)) {
                let block = Block {
                    sequence: task.sequence,
                    queries: task.queries,
                    kv_head: task.kv_head,
                    position: task.position,
                    row,
                    page,
                };
                match running.len() {
                    1 => block.attend::<FMA, 1>(running, out, layer),
                    2 => block.attend::<FMA, 2>(running, out, layer),
                    3 => block.attend::<FMA, 3>(running, out, layer),
                    _ => block.attend::<FMA, ROWS>(running, out, layer),
                }
                row += ROWS;
            }
        }
        for (running, out) in running.iter().zip(task.out.chunks_exact_mut(dim)) {
            let share = 1.0 / running.sum;
            for value in out {
                *value *= share;
            }
        }
    }
}

/// A few rows of a task against one page.
struct Block<'a> {
    sequence: CachedSequence<'a>,
    queries: &'a [f32],
    kv_head: usize,
    position: usize,
    row: usize,
    page: usize,
}

impl Block<'_> {
    /// The tokens of the page that row `row` of the task sees.
    #[inline(always)]
    fn seen(&self, row: usize, group: usize, window: usize) -> (usize, usize) {
        let (position, begin) = (self.position + row / group, self.page * PAGE_TOKENS);
        let first = (position + 1).saturating_sub(window).saturating_sub(begin);
        let end = (position + 1).saturating_sub(begin).min(PAGE_TOKENS);
        (first, end.max(first))
    }

    #[inline(always)]
    fn attend<const FMA: bool, const R: usize>(
        &self,
        running: &mut [Running],
        out: &mut [f32],
        layer: Layer,
    ) {
        let (dim, group) = (layer.shape.head_dim, layer.shape.heads / layer.shape.kv_heads);
        let seen: [(usize, usize); R] = std::array::from_fn(|r| self.seen(self.row + r, group, layer.window));
        let end = seen.iter().filter(|seen| seen.0 < seen.1).map(|seen| seen.1).max().unwrap_or(0);
        if end == 0 {
            return;
        }
        let (keys, values) = self.sequence.pages[self.page].floats().head(layer.layer, self.kv_head);
        let queries: [&[f32]; R] = std::array::from_fn(|r| {
            let row = self.row + r;
            &self.queries[row / group * layer.stride + row % group * dim..][..dim]
        });
        let mut scores = [[0.0f32; PAGE_TOKENS]; R];
        multiply::<FMA, R, PAGE_TOKENS>(&mut scores, queries, keys, PAGE_TOKENS);
        let mut weights = scores.map(Line);
        let scale = 1.0 / (dim as f32).sqrt();
        for r in 0..R {
            let page = std::slice::from_mut(&mut weights[r]);
            let factor = soften::<FMA>(page, seen[r], scale, &mut running[r]);
            if factor != 1.0 {
                for value in &mut out[r * dim..][..dim] {
                    *value *= factor;
                }
            }
        }
        let weights: [&[f32]; R] = std::array::from_fn(|r| &weights[r].0[..end]);
        let mut at = 0;
        while at + 32 <= dim {
            add_values::<FMA, R, 32>(out, weights, &values[at..], dim, at);
            at += 32;
        }
        while at + 8 <= dim {
            add_values::<FMA, R, 8>(out, weights, &values[at..], dim, at);
            at += 8;
        }
        while at < dim {
            add_values::<FMA, R, 1>(out, weights, &values[at..], dim, at);
            at += 1;
        }
    }
}

/// Scores of some pages to weights relative to the row's new maximum, 0 where the row does not see: it sees tokens from
/// `first` to before `end`, counted from the first page's. Returns the factor that brings what was summed up before to that
/// maximum.
#[inline(always)]
pub(super) fn soften<const FMA: bool>(
    scores: &mut [Line<[f32; PAGE_TOKENS]>],
    (first, end): (usize, usize),
    scale: f32,
    running: &mut Running,
) -> f32 {
    if first >= end {
        scores.iter_mut().for_each(|line| line.0 = [0.0; PAGE_TOKENS]);
        return 1.0;
    }
    // A maximum for each lane first: one after the other, each would wait for the one before.
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for (page, line) in scores.iter_mut().enumerate() {
        let begin = page * PAGE_TOKENS;
        hide(&mut line.0, first.saturating_sub(begin), end.saturating_sub(begin));
        for scores in line.0.as_chunks::<LANES>().0 {
            for (score, maximum) in scores.iter().zip(&mut maxima) {
                *maximum = if *score > *maximum { *score } else { *maximum };
            }
        }
    }
    let maximum = running.maximum.max(largest(maxima) * scale);
    let mut sums = [0.0f32; LANES];
    for line in scores {
        for scores in line.0.as_chunks_mut::<LANES>().0 {
            for (score, sum) in scores.iter_mut().zip(&mut sums) {
                let weight = exp::<FMA>(multiply_add::<FMA>(*score, scale, -maximum));
                *score = if *score == f32::NEG_INFINITY { 0.0 } else { weight };
                *sum += *score;
            }
        }
    }
    let factor = exp::<FMA>(running.maximum - maximum);
    running.sum = running.sum * factor + sums.iter().sum::<f32>();
    running.maximum = maximum;
    factor
}

/// Leaves a page's scores from `first` to before `end`; the others are minus infinity, whatever they were.
#[inline(always)]
fn hide(scores: &mut [f32; PAGE_TOKENS], first: usize, end: usize) {
    if first == 0 && end >= PAGE_TOKENS {
        return;
    }
    // Of 32 bits, like the lanes.
    let (first, end) = (first.min(PAGE_TOKENS) as i32, end.min(PAGE_TOKENS) as i32);
    for (token, score) in (0i32..).zip(scores) {
        *score = if token >= first && token < end { *score } else { f32::NEG_INFINITY };
    }
}

/// The largest of all lanes.
#[inline(always)]
fn largest(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            lanes[lane] = if lanes[lane + width] > lanes[lane] { lanes[lane + width] } else { lanes[lane] };
        }
    }
    lanes[0]
}

/// `out[r, at..at + L] += Σ weights[r, t] values[t, 0..L]`, the rows of `values` `dim` apart.
#[inline(always)]
fn add_values<const FMA: bool, const R: usize, const L: usize>(
    out: &mut [f32],
    weights: [&[f32]; R],
    values: &[f32],
    dim: usize,
    at: usize,
) {
    let mut sums = [[0.0f32; L]; R];
    for r in 0..R {
        sums[r].copy_from_slice(&out[r * dim + at..][..L]);
    }
    multiply::<FMA, R, L>(&mut sums, weights, values, dim);
    for r in 0..R {
        out[r * dim + at..][..L].copy_from_slice(&sums[r]);
    }
}

/// `sums[r, lane] += Σ a[r, i] b[i, lane]`, the rows of `b` `stride` apart.
#[inline(always)]
fn multiply<const FMA: bool, const R: usize, const L: usize>(
    sums: &mut [[f32; L]; R],
    a: [&[f32]; R],
    b: &[f32],
    stride: usize,
) {
    let mut kept = *sums;
    for (i, b) in b.chunks(stride).take(a[0].len()).enumerate() {
        let b = &b[..L];
        for r in 0..R {
            let a = a[r][i];
            for lane in 0..L {
                kept[r][lane] = multiply_add::<FMA>(a, b[lane], kept[r][lane]);
            }
        }
    }
    *sums = kept;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values that bfloat16 holds exactly, so that pages of either kind keep the same.
    fn values(count: usize, seed: u64) -> Vec<f32> {
        let value = |i: u64| (i * 2_654_435_761 + seed * 7919) % 256;
        (0..count as u64).map(|i| value(i) as f32 / 64.0 - 2.0).collect()
    }

    /// How far a result may be from the definition: where pages hold bfloat16, weights are rounded to it.
    fn tolerance(format: WeightFormat) -> f32 {
        if format == WeightFormat::F32 { 1e-4 } else { 1e-2 }
    }

    /// Straight from the definition, one scalar at a time, over rows `[queries | keys | values]`.
    fn naive(qkv: &[f32], shape: AttentionShape, window: usize) -> Vec<f32> {
        let (dim, stride, width) = (shape.head_dim, shape.qkv_width(), shape.query_width());
        let time = qkv.len() / stride;
        let mut out = vec![0.0; time * width];
        for (t, head) in (0..time).flat_map(|t| (0..shape.heads).map(move |head| (t, head))) {
            let key = width + head / (shape.heads / shape.kv_heads) * dim;
            let value = key + shape.kv_width();
            let first = (t + 1).saturating_sub(window);
            let score = |s: usize| -> f64 {
                let dot = |i| f64::from(qkv[t * stride + head * dim + i] * qkv[s * stride + key + i]);
                ((0..dim).map(dot).sum::<f64>() / (dim as f64).sqrt()).exp()
            };
            let weights: Vec<f64> = (first..=t).map(score).collect();
            let sum: f64 = weights.iter().sum();
            for i in 0..dim {
                let mixed =
                    weights.iter().zip(first..).map(|(w, s)| w * f64::from(qkv[s * stride + value + i]));
                out[t * width + head * dim + i] = (mixed.sum::<f64>() / sum) as f32;
            }
        }
        out
    }

    /// Pages of all the rows. What lies beyond them is poison, as it may be in a page that is used again.
    fn pages(qkv: &[f32], shape: AttentionShape, format: WeightFormat) -> Vec<Arc<KvPage>> {
        let rows: Vec<_> = qkv.chunks_exact(shape.qkv_width()).collect();
        let page = |rows: &[&[f32]]| {
            let mut page = KvPage::new(2, shape, format);
            let poison = vec![f32::NAN; shape.kv_width()];
            (0..PAGE_TOKENS).for_each(|slot| page.write(1, slot, &poison, &poison));
            for (slot, row) in rows.iter().enumerate() {
                let (keys, values) = row[shape.query_width()..].split_at(shape.kv_width());
                page.write(1, slot, keys, values);
            }
            Arc::new(page)
        };
        rows.chunks(PAGE_TOKENS).map(page).collect()
    }

    fn attend(
        qkv: &[f32],
        chunks: &[(usize, usize)],
        pages: &[Arc<KvPage>],
        shape: AttentionShape,
        window: Option<usize>,
    ) -> Vec<f32> {
        let stride = shape.qkv_width();
        let queries: Vec<f32> =
            chunks.iter().flat_map(|(from, to)| qkv[from * stride..to * stride].to_vec()).collect();
        let sequences: Vec<_> =
            chunks.iter().map(|(from, to)| CachedSequence { pages, total: *to, new: to - from }).collect();
        let mut out = vec![f32::NAN; queries.len() / stride * shape.query_width()];
        let mut work = out.clone();
        attention_over_pages(&mut out, &mut work, &queries, &sequences, 1, shape, window);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_shape_window_and_chunks_equal_the_naive_definition(
            (kv_heads, group, head_dim) in (1usize..4, 1usize..8, prop::sample::select(vec![1usize, 8, 16, 20, 40, 64])),
            time in 1usize..300,
            cut in 0usize..300,
            window in prop::option::of(1usize..200),
            format in prop::sample::select(vec![WeightFormat::F32, WeightFormat::Bf16]),
            seed in 0u64..1000,
        ) {
            let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim };
            let qkv = values(time * shape.qkv_width(), seed);
            let pages = pages(&qkv, shape, format);
            let whole = attend(&qkv, &[(0, time)], &pages, shape, window);
            let expected = naive(&qkv, shape, window.unwrap_or(usize::MAX));
            for (got, expected) in whole.iter().zip(&expected) {
                prop_assert!((got - expected).abs() < tolerance(format), "{got} instead of {expected}");
            }
            // Two chunks, and the last token alone, are the same bit for bit.
            let cut = cut % time;
            if cut > 0 {
                let parts = attend(&qkv, &[(0, cut), (cut, time), (time - 1, time)], &pages, shape, window);
                prop_assert_eq!(&parts[..whole.len()], &whole[..]);
                prop_assert_eq!(&parts[whole.len()..], &whole[whole.len() - shape.query_width()..]);
            }
        }
    }

    #[test]
    fn many_tokens_on_every_thread_equal_each_on_its_own() {
        let shape = AttentionShape { heads: 14, kv_heads: 2, head_dim: 64 };
        let time = 150;
        let qkv = values(time * shape.qkv_width(), 3);
        for format in [WeightFormat::F32, WeightFormat::Bf16] {
            let pages = pages(&qkv, shape, format);
            let whole = attend(&qkv, &[(0, time)], &pages, shape, None);
            let alone: Vec<f32> =
                (0..time).flat_map(|t| attend(&qkv, &[(t, t + 1)], &pages, shape, None)).collect();
            assert_eq!(whole, alone);
        }
    }

    /// `torch.nn.functional.scaled_dot_product_attention(q, k, v)` with `q = [[1, 2]]`, `k = [[1, 0], [0, 1]]`,
    /// `v = [[1, 2], [3, 5]]` is `[[2.3395228, 4.0092845]]`.
    #[test]
    fn a_row_equals_pytorch() {
        let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2 };
        let qkv = [0.0, 0.0, 1.0, 0.0, 1.0, 2.0, 1.0, 2.0, 0.0, 1.0, 3.0, 5.0];
        let out = attend(&qkv, &[(1, 2)], &pages(&qkv, shape, WeightFormat::F32), shape, None);
        for (got, expected) in out.iter().zip([2.339_522_8, 4.009_284_5]) {
            assert!((got - expected).abs() < 1e-6, "{got} instead of {expected}");
        }
    }
}
