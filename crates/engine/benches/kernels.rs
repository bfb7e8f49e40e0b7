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
    AttentionShape, CachedSequence, KvPage, Mat, MatMut, Matrix, PAGE_TOKENS, Q4Panels, Q8Panels, Threads,
    WeightFormat, attention_backward, attention_forward, attention_over_pages, matmul, rms_norm, swiglu,
    swiglu_backward,
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

/// The gate and up projections in every format.
#[allow(clippy::expect_used, reason = "a benchmark may end where a test would")]
fn matrices() -> [(&'static str, Matrix); 4] {
    let (d_out, d_in) = (2 * WIDTH, HIDDEN);
    let values = values(d_out * d_in);
    // What the bytes of a block say does not matter for its time, as long as its scale is a number.
    let stored = |bytes: usize| vec![0x11; d_out * bytes];
    let q8 = Q8Panels::from_blocks(&stored(HIDDEN.div_ceil(32) * 34), d_out, d_in).expect("whole blocks");
    let q4 = Q4Panels::from_blocks(&stored(HIDDEN.div_ceil(256) * 144), d_out, d_in).expect("whole blocks");
    [
        ("f32", Matrix::f32(&values, d_out, d_in)),
        ("bf16", Matrix::bf16(&values, d_out, d_in)),
        ("q8_0", Matrix::Q8(q8)),
        ("q4_K", Matrix::Q4(q4)),
    ]
}

/// The format of that name.
#[allow(clippy::expect_used, reason = "a benchmark may end where a test would")]
fn matrix(name: &str) -> Matrix {
    let mut all = matrices().into_iter();
    all.find_map(|(known, matrix)| (known == name).then_some(matrix)).expect("a format of the list")
}

/// Rows of a step times the gate and up projections: few rows wait for memory.
#[divan::bench(args = ["f32", "bf16", "q8_0", "q4_K"], consts = [1, 2, 4, 8, 12, 16])]
fn product_of_few_rows<const ROWS: usize>(bencher: Bencher<'_, '_>, format: &str) {
    let (x, matrix) = (values(ROWS * HIDDEN), matrix(format));
    // More than any cache holds, so that the weights come from memory as they do in a model.
    let matrices: Vec<Matrix> = (0..3).map(|_| matrix.clone()).collect();
    let mut y = vec![0.0; ROWS * 2 * WIDTH];
    bencher.counter(BytesCount::new(matrix.bytes() * matrices.len())).bench_local(|| {
        for matrix in &matrices {
            matrix.multiply(&mut y, &x, Threads::All);
        }
    });
}

/// Rows of a prompt or a training step times the gate and up projections.
#[divan::bench(args = ["f32", "bf16", "q8_0", "q4_K"], consts = [64, 512])]
fn product_of_many_rows<const ROWS: usize>(bencher: Bencher<'_, '_>, format: &str) {
    let (x, matrix) = (values(ROWS * HIDDEN), matrix(format));
    let mut y = vec![0.0; ROWS * 2 * WIDTH];
    bencher.counter(ItemsCount::new(ROWS * HIDDEN * 2 * WIDTH)).bench_local(|| {
        matrix.multiply(&mut y, &x, Threads::All);
    });
}

/// Rows of a prompt times the down projection, whose input is wide.
#[divan::bench(args = ["f32", "bf16"])]
fn product_of_many_wide_rows(bencher: Bencher<'_, '_>, format: &str) {
    const ROWS: usize = 512;
    let (x, values) = (values(ROWS * WIDTH), values(WIDTH * HIDDEN));
    let format = if format == "f32" { WeightFormat::F32 } else { WeightFormat::Bf16 };
    let matrix = Matrix::new(&values, HIDDEN, WIDTH, format);
    let mut y = vec![0.0; ROWS * HIDDEN];
    bencher.counter(ItemsCount::new(ROWS * HIDDEN * WIDTH)).bench_local(|| {
        matrix.multiply(&mut y, &x, Threads::All);
    });
}

/// The way back of a training step.
#[divan::bench(args = ["f32", "bf16", "q8_0", "q4_K"])]
fn product_back_of_1024_rows(bencher: Bencher<'_, '_>, format: &str) {
    const ROWS: usize = 1024;
    let (dy, matrix) = (values(ROWS * 2 * WIDTH), matrix(format));
    let mut dx = vec![0.0; ROWS * HIDDEN];
    bencher.counter(ItemsCount::new(ROWS * HIDDEN * 2 * WIDTH)).bench_local(|| {
        matrix.multiply_back(&mut dx, &dy, Threads::All);
    });
}

/// The same product through `gemm`, as trained weights take it.
#[divan::bench]
fn gemm_of_1024_rows(bencher: Bencher<'_, '_>) {
    const ROWS: usize = 1024;
    let (x, w) = (values(ROWS * HIDDEN), values(2 * WIDTH * HIDDEN));
    let mut y = vec![0.0; ROWS * 2 * WIDTH];
    bencher.counter(ItemsCount::new(ROWS * HIDDEN * 2 * WIDTH)).bench_local(|| {
        let product = MatMut::new(&mut y, ROWS, 2 * WIDTH);
        let (x, w) = (Mat::new(&x, ROWS, HIDDEN), Mat::new(&w, 2 * WIDTH, HIDDEN).t());
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

fn pages(tokens: usize, format: WeightFormat) -> Vec<Arc<KvPage>> {
    let rows = values(tokens * SHAPE.kv_width());
    rows.chunks(PAGE_TOKENS * SHAPE.kv_width())
        .map(|rows| {
            let mut page = KvPage::new(1, SHAPE, format);
            for (slot, row) in rows.chunks(SHAPE.kv_width()).enumerate() {
                page.write(0, slot, row, row);
            }
            Arc::new(page)
        })
        .collect()
}

/// New tokens over the pages of all: one that is decoded, and a whole prompt.
#[divan::bench(args = [("f32", 1, 128), ("f32", 1, 1024), ("f32", 512, 512), ("bf16", 1, 128), ("bf16", 1, 1024), ("bf16", 512, 512)])]
fn attention_of_new_and_all_tokens(bencher: Bencher<'_, '_>, (format, new, total): (&str, usize, usize)) {
    let format = if format == "f32" { WeightFormat::F32 } else { WeightFormat::Bf16 };
    let (qkv, pages) = (values(new * SHAPE.qkv_width()), pages(total, format));
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
