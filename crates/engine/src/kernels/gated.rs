//! The product with stacked gate and up projections, and SwiGLU of it (Shazeer 2020), while it is in the second cache.
//!
//! In come many rows; out come activated rows. Written out, gate and up of many rows would go to memory and come back, three
//! values for each that is kept. Sums are those of [`super::panels::multiply`], bit for bit.

use std::ops::Range;

use super::{
    Cpu,
    activation::swiglu_rows,
    matmul::Threads,
    out::Out,
    panels::{GROUP, PANEL, Panels, Pooled, Product, WORTH_A_THREAD, groups, share, with_product},
};

/// Rows up to which the way through memory is short: products of so few wait for the weights, which lie as one stream.
const FEW_ROWS: usize = 32;

/// Rows that are computed at once: with those of 192 columns a thread's sums take 384 KiB.
const ROWS: usize = 512;

/// Columns of gate and up for some rows, which a caller may add to: `sums` `[rows, gate and up of columns]`.
#[derive(Debug)]
pub(crate) struct Gated<'a> {
    /// The first row's number.
    pub(crate) first: usize,
    /// Panels of the gate; those of the up projection lie as far on in the matrix as there are in the gate.
    pub(crate) panels: Range<usize>,
    /// The sums, first those of the gate.
    pub(crate) sums: &'a mut [f32],
}

/// Whether [`multiply_gated`] takes weights of this shape, and so many rows are better off with it.
pub(super) fn is_gated(shape: (usize, usize), rows: usize) -> bool {
    rows > FEW_ROWS && shape.0.is_multiple_of(2 * PANEL)
}

/// `y = silu(gate) ∘ up` of `x [gate | up]ᵀ`, after `adjust` has seen the sums: `[rows, d_in] -> [rows, d_out / 2]`.
pub(super) fn multiply_gated<P: Panels>(
    weights: &P,
    y: &mut [f32],
    x: &[f32],
    adjust: impl Fn(Gated<'_>) + Sync,
    threads: Threads,
    cpu: Cpu,
) where
    P::Packed: Pooled,
{
    let (d_out, d_in) = weights.shape();
    let width = d_out / 2;
    for (part, (y, x)) in y.chunks_mut(ROWS * width).zip(x.chunks(ROWS * d_in)).enumerate() {
        let rows = x.len() / d_in;
        assert_eq!(y.len(), rows * width, "shapes of a gated product do not fit");
        let out = Out { at: y.as_mut_ptr(), stride: width };
        let large = threads == Threads::All && rows * d_out * d_in >= WORTH_A_THREAD;
        with_product(weights, x, 1.0, large, cpu, |product| {
            share(width / PANEL, rows, large, |panels| {
                for group in groups(panels, GROUP / 2) {
                    let columns = group.len() * PANEL;
                    f32::with_buffer(rows * 2 * columns, |sums| {
                        {
                            // It ends before the adjustment, whose products have sessions of their own.
                            let _session = weights.session();
                            multiply_group(product, sums, group.clone(), width / PANEL);
                        }
                        adjust(Gated { first: part * ROWS, panels: group.clone(), sums });
                        for (row, sums) in sums.chunks_exact(2 * columns).enumerate() {
                            // SAFETY: `y` holds as many rows of `width`, and each thread has its own columns.
                            #[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
                            let y = unsafe { out.row(row, group.start * PANEL..group.end * PANEL) };
                            swiglu_rows(y, sums, columns);
                        }
                    });
                }
            });
        });
    }
}

/// Gate and up of a group of panels: `[rows, gate and up]`.
fn multiply_group<P: Panels>(product: &Product<'_, P>, sums: &mut [f32], group: Range<usize>, to_up: usize) {
    let stride = 2 * group.len() * PANEL;
    let up = group.start + to_up..group.end + to_up;
    let panels = group.clone().chain(up);
    let places = panels.enumerate().map(|(at, panel)| (panel, at * PANEL..(at + 1) * PANEL));
    let out = Out { at: sums.as_mut_ptr(), stride };
    // SAFETY: the sums are this thread's own, of all rows and of 32 columns for each of these panels; the caller has begun a
    // session.
    #[allow(unsafe_code, reason = "threads write disjoint columns of one matrix")]
    unsafe {
        product.add(out, false, places, group.len());
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::{
        Matrix, Q4Panels, Q8Panels, Threads, WeightFormat,
        activation::swiglu,
        panels::{PANEL, WORTH_A_THREAD},
    };

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 31) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    /// Product, the change of a low-rank product and SwiGLU, one after the other and as one, are the same bit for bit.
    #[test]
    fn every_format_gives_what_its_parts_give() {
        // Rows of one part and of two, on one thread and on all; the last panels of a group are fewer than the others.
        for (rows, width, d_in) in [(33, 96, 40), (600, 224, 300)] {
            let (d_out, rank) = (2 * width, 5);
            assert_eq!(rows * d_out * d_in >= WORTH_A_THREAD, rows > 33);
            let (x, low) = (values(rows * d_in, 1), values(rows * rank, 2));
            let w = values(d_out * d_in, 5);
            let stored = |bytes: usize| (0..d_out * bytes).map(|i| (i % 50) as u8).collect::<Vec<_>>();
            let q8 = Q8Panels::from_blocks(&stored(d_in.div_ceil(32) * 34), d_out, d_in).unwrap();
            let q4 = Q4Panels::from_blocks(&stored(d_in.div_ceil(256) * 144), d_out, d_in).unwrap();
            for matrix in
                [Matrix::f32(&w, d_out, d_in), Matrix::bf16(&w, d_out, d_in), Matrix::Q8(q8), Matrix::Q4(q4)]
            {
                assert!(matrix.is_gated(rows) && !matrix.is_gated(32));
                // As an adapter's are kept over such weights.
                let format =
                    if matrix.format() == WeightFormat::F32 { WeightFormat::F32 } else { WeightFormat::Bf16 };
                let [gate, up] =
                    [3, 4].map(|seed| Matrix::new(&values(width * rank, seed), width, rank, format));
                let mut parts = vec![f32::NAN; rows * d_out];
                matrix.multiply(&mut parts, &x, Threads::All);
                gate.add_product(&mut parts, d_out, 0.5, &low, Threads::All);
                up.add_product(&mut parts[width..], d_out, 0.5, &low, Threads::All);
                let mut expected = vec![f32::NAN; rows * width];
                swiglu(&mut expected, &parts, width);

                let mut y = vec![f32::NAN; rows * width];
                let adjust = |gated: super::Gated<'_>| {
                    let super::Gated { first, panels, sums } = gated;
                    let stride = 2 * panels.len() * PANEL;
                    let low = &low[first * rank..][..sums.len() / stride * rank];
                    gate.add_panels(sums, stride, 0.5, low, panels.clone());
                    up.add_panels(&mut sums[stride / 2..], stride, 0.5, low, panels);
                };
                matrix.multiply_gated(&mut y, &x, adjust, Threads::All);
                assert!(y == expected, "{:?} of {rows} rows", matrix.format());
            }
        }
    }

    #[test]
    fn a_gate_of_broken_panels_is_left_to_its_parts() {
        assert!(!Matrix::f32(&values(2 * 48 * 8, 1), 2 * 48, 8).is_gated(100));
    }
}
