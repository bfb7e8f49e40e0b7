//! RMSNorm (Zhang and Sennrich 2019, eq. 4), forward and backward.

use super::dispatch::{multiply_add, vectorized};
use super::dot::dot;

vectorized! {
    /// `y = x / rms(x) * scale` for each row: `[rows, width] -> [rows, width]`.
    pub(crate) fn rms_norm(y: &mut [f32], x: &[f32], scale: &[f32], eps: f32) {
        let width = scale.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let inverse = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
            for ((y, x), scale) in y.iter_mut().zip(x).zip(scale) {
                *y = x * inverse * scale;
            }
        }
    }
}

vectorized! {
    /// Gradients of [`rms_norm`]: adds `∂L/∂x` to `dx` and, where given, `∂L/∂scale` to `d_scale`.
    ///
    /// With `r = 1/rms(x)` and `g = dy ∘ scale`: `dx = r g - r³/width (g·x) x`, `d_scale = Σ_rows dy ∘ x r`.
    pub(crate) fn rms_norm_backward(
        dx: &mut [f32],
        d_scale: Option<&mut [f32]>,
        dy: &[f32],
        x: &[f32],
        scale: &[f32],
        eps: f32,
    ) {
        let width = scale.len();
        let mut d_scale = d_scale;
        let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width));
        for ((dx, dy), x) in rows {
            let inverse = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
            let mut along = [0.0f32; 16];
            for (at, ((dy, x), scale)) in dy.iter().zip(x).zip(scale).enumerate() {
                along[at % 16] = multiply_add::<FMA>(dy * scale, *x, along[at % 16]);
            }
            let pull = along.iter().sum::<f32>() * inverse * inverse * inverse / width as f32;
            for (((dx, dy), x), scale) in dx.iter_mut().zip(dy).zip(x).zip(scale) {
                *dx += multiply_add::<FMA>(-pull, *x, dy * scale * inverse);
            }
            if let Some(d_scale) = d_scale.as_deref_mut() {
                for ((d_scale, dy), x) in d_scale.iter_mut().zip(dy).zip(x) {
                    *d_scale += dy * x * inverse;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central differences of `Σ w ∘ rms_norm(x)` against the backward.
    #[test]
    fn backward_equals_finite_differences() {
        let width = 24;
        let x: Vec<f32> = (0..2 * width).map(|i| ((i * 37 % 19) as f32 - 9.0) / 7.0).collect();
        let scale: Vec<f32> = (0..width).map(|i| 0.5 + (i % 5) as f32 / 4.0).collect();
        let weight: Vec<f32> = (0..2 * width).map(|i| ((i * 11 % 23) as f32 - 11.0) / 9.0).collect();
        let loss = |x: &[f32], scale: &[f32]| {
            let mut y = vec![0.0; x.len()];
            rms_norm(&mut y, x, scale, 1e-5);
            y.iter().zip(&weight).map(|(y, w)| f64::from(y * w)).sum::<f64>()
        };
        let (mut dx, mut d_scale) = (vec![0.0; x.len()], vec![0.0; width]);
        rms_norm_backward(&mut dx, Some(&mut d_scale), &weight, &x, &scale, 1e-5);
        let h = 1e-2;
        for i in 0..x.len() {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i] += h;
            down[i] -= h;
            let expected = (loss(&up, &scale) - loss(&down, &scale)) / f64::from(2.0 * h);
            assert!((f64::from(dx[i]) - expected).abs() < 2e-3, "dx[{i}] {} instead of {expected}", dx[i]);
        }
        for i in 0..width {
            let (mut up, mut down) = (scale.clone(), scale.clone());
            up[i] += h;
            down[i] -= h;
            let expected = (loss(&x, &up) - loss(&x, &down)) / f64::from(2.0 * h);
            assert!((f64::from(d_scale[i]) - expected).abs() < 2e-3);
        }
    }
}
