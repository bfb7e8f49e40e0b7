//! Time of each kernel on the shapes of a model of hidden width 896: `cargo bench -p autoglm-engine`.
//!
//! Throughput is counted in the bytes that must come from memory where a kernel waits for memory, and in
//! multiply-adds where it computes.

use std::sync::Arc;

use divan::{Bencher, black_box, counter::BytesCount, counter::ItemsCount};

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the crate's own file: not every kernel is measured, and none is public here"
)]
#[path = "../src/kernels/mod.rs"]
mod kernels;

use kernels::{
    AttentionShape, CachedSequence, KvPage, Mat, MatMut, PAGE_TOKENS, Threads, attention_backward,
    attention_forward, attention_over_pages, matmul, rms_norm, swiglu, swiglu_backward,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HIDDEN: usize = 896;
const WIDTH: usize = 4864;
const SHAPE: AttentionShape = AttentionShape { heads: 14, kv_heads: 2, head_dim: 64 };

fn main() {
    divan::main();
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 1000.0).collect()
}

/// Rows of a step times the gate and up projections: few rows wait for memory.
#[divan::bench(args = [1, 2, 4, 8, 12])]
fn matmul_of_few_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let (x, w) = (values(rows * HIDDEN), values(2 * WIDTH * HIDDEN));
    let mut y = vec![0.0; rows * 2 * WIDTH];
    bencher.counter(BytesCount::of_slice(&w)).bench_local(|| {
        let product = MatMut::new(&mut y, rows, 2 * WIDTH);
        let (x, w) = (Mat::new(&x, rows, HIDDEN), Mat::new(&w, 2 * WIDTH, HIDDEN).t());
        matmul(product, false, 1.0, x, w, Threads::All);
    });
}

/// Rows of a training step times the gate and up projections.
#[divan::bench(args = [64, 512])]
fn matmul_of_many_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let (x, w) = (values(rows * HIDDEN), values(2 * WIDTH * HIDDEN));
    let mut y = vec![0.0; rows * 2 * WIDTH];
    bencher.counter(ItemsCount::new(rows * HIDDEN * 2 * WIDTH)).bench_local(|| {
        let product = MatMut::new(&mut y, rows, 2 * WIDTH);
        let (x, w) = (Mat::new(&x, rows, HIDDEN), Mat::new(&w, 2 * WIDTH, HIDDEN).t());
        matmul(product, false, 1.0, x, w, Threads::All);
    });
}

#[divan::bench(args = [1, 512])]
fn rms_norm_of_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let (x, scale) = (values(rows * HIDDEN), values(HIDDEN));
    let mut y = vec![0.0; x.len()];
    bencher.counter(BytesCount::of_slice(&x)).bench_local(|| rms_norm(&mut y, black_box(&x), &scale, 1e-6));
}

#[divan::bench(args = [1, 512])]
fn swiglu_of_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let gate_up = values(rows * 2 * WIDTH);
    let mut y = vec![0.0; rows * WIDTH];
    bencher
        .counter(BytesCount::of_slice(&gate_up))
        .bench_local(|| swiglu(&mut y, black_box(&gate_up), WIDTH));
}

#[divan::bench]
fn swiglu_backward_of_512_rows(bencher: Bencher<'_, '_>) {
    let (gate_up, dy) = (values(512 * 2 * WIDTH), values(512 * WIDTH));
    let mut d_gate_up = vec![0.0; gate_up.len()];
    bencher
        .counter(BytesCount::of_slice(&gate_up))
        .bench_local(|| swiglu_backward(&mut d_gate_up, &dy, black_box(&gate_up), WIDTH));
}

fn pages(tokens: usize) -> Vec<Arc<KvPage>> {
    let rows = values(tokens * SHAPE.kv_width());
    rows.chunks(PAGE_TOKENS * SHAPE.kv_width())
        .map(|rows| {
            let mut page = KvPage::new(1, SHAPE);
            for (slot, row) in rows.chunks(SHAPE.kv_width()).enumerate() {
                page.write(0, slot, row, row);
            }
            Arc::new(page)
        })
        .collect()
}

/// New tokens over the pages of all: one that is decoded, and a whole prompt.
#[divan::bench(args = [(1, 128), (1, 1024), (512, 512)])]
fn attention_of_new_and_all_tokens(bencher: Bencher<'_, '_>, (new, total): (usize, usize)) {
    let (qkv, pages) = (values(new * SHAPE.qkv_width()), pages(total));
    let (mut out, mut work) = (vec![0.0; new * SHAPE.query_width()], vec![0.0; new * SHAPE.query_width()]);
    let sequences = [CachedSequence { pages: &pages, total, new }];
    bencher.counter(BytesCount::new(8 * total * SHAPE.kv_width())).bench_local(|| {
        attention_over_pages(&mut out, &mut work, &qkv, &sequences, 0, SHAPE, None);
    });
}

/// One sequence of a training step on one thread.
#[divan::bench]
fn attention_forward_of_256_tokens(bencher: Bencher<'_, '_>) {
    let qkv = values(256 * SHAPE.qkv_width());
    let mut out = vec![0.0; 256 * SHAPE.query_width()];
    bencher.bench_local(|| attention_forward(&mut out, black_box(&qkv), 256, SHAPE, None));
}

#[divan::bench]
fn attention_backward_of_256_tokens(bencher: Bencher<'_, '_>) {
    let (qkv, d_out) = (values(256 * SHAPE.qkv_width()), values(256 * SHAPE.query_width()));
    let mut d_qkv = vec![0.0; qkv.len()];
    bencher.bench_local(|| attention_backward(&mut d_qkv, &d_out, black_box(&qkv), 256, SHAPE, None));
}
