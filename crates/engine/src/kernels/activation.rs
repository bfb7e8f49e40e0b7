//! SwiGLU (Shazeer 2020) and plain vector sums.

use super::{
    dispatch::{exp, multiply_add, vectorized},
    rows::share_rows,
};

/// `y = silu(gate) ∘ up` from rows `[gate | up]`: `[rows, 2 width] -> [rows, width]`.
pub(crate) fn swiglu(y: &mut [f32], gate_up: &[f32], width: usize) {
    share_rows(y, width, |first, y| swiglu_rows(y, &gate_up[2 * first * width..], width));
}

vectorized! {
    /// As [`swiglu`], on this thread.
    pub(super) fn swiglu_rows(y: &mut [f32], gate_up: &[f32], width: usize) {
        for (y, row) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            let (gate, up) = row.split_at(width);
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate / (1.0 + exp::<FMA>(-gate)) * up;
            }
        }
    }
}

vectorized! {
    /// Gradients of [`swiglu`]: writes `∂L/∂[gate | up]` to `d_gate_up`.
    ///
    /// With `s = sigmoid(gate)`: `d_gate = dy up s (1 + gate (1 - s))`, `d_up = dy gate s`.
    pub(crate) fn swiglu_backward(d_gate_up: &mut [f32], dy: &[f32], gate_up: &[f32], width: usize) {
        let rows = d_gate_up.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width));
        for ((d_row, dy), row) in rows.zip(gate_up.chunks_exact(2 * width)) {
            let (d_gate, d_up) = d_row.split_at_mut(width);
            let (gate, up) = row.split_at(width);
            for ((((d_gate, d_up), dy), gate), up) in d_gate.iter_mut().zip(d_up).zip(dy).zip(gate).zip(up) {
                let s = 1.0 / (1.0 + exp::<FMA>(-gate));
                *d_gate = dy * up * s * (1.0 + gate * (1.0 - s));
                *d_up = dy * gate * s;
            }
        }
    }
}

vectorized! {
    /// `y += x`.
    pub(crate) fn add_assign(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

vectorized! {
    /// `y += a x`.
    pub(crate) fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = multiply_add::<FMA>(a, *x, *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_on_every_thread_equal_each_on_its_own() {
        let (rows, width) = (37, 2049);
        let gate_up: Vec<f32> = (0..rows * 2 * width).map(|i| ((i * 29 % 31) as f32 - 15.0) / 6.0).collect();
        let (mut together, mut alone) = (vec![f32::NAN; rows * width], vec![f32::NAN; rows * width]);
        swiglu(&mut together, &gate_up, width);
        for (y, row) in alone.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            swiglu(y, row, width);
        }
        assert_eq!(together, alone);
    }

    #[test]
    fn backward_equals_finite_differences() {
        let width = 20;
        let gate_up: Vec<f32> = (0..4 * width).map(|i| ((i * 29 % 31) as f32 - 15.0) / 6.0).collect();
        let weight: Vec<f32> = (0..2 * width).map(|i| ((i * 7 % 13) as f32 - 6.0) / 5.0).collect();
        let loss = |gate_up: &[f32]| {
            let mut y = vec![0.0; 2 * width];
            swiglu(&mut y, gate_up, width);
            y.iter().zip(&weight).map(|(y, w)| f64::from(y * w)).sum::<f64>()
        };
        let mut gradient = vec![0.0; gate_up.len()];
        swiglu_backward(&mut gradient, &weight, &gate_up, width);
        let h = 1e-2;
        for i in 0..gate_up.len() {
            let (mut up, mut down) = (gate_up.clone(), gate_up.clone());
            up[i] += h;
            down[i] -= h;
            let expected = (loss(&up) - loss(&down)) / f64::from(2.0 * h);
            assert!(
                (f64::from(gradient[i]) - expected).abs() < 2e-3,
                "{i}: {} instead of {expected}",
                gradient[i]
            );
        }
    }
}
