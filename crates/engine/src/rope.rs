//! Frequencies of the rotary position embedding, with its scalings.

use std::f64::consts::TAU;

use crate::{ModelConfig, RopeScaling};

/// Inverse frequencies `[rotary_dim / 2]`, radians a position, and what cosines and sines are multiplied with.
///
/// As transformers computes them (`modeling_rope_utils.py`): exponents in 32 bits, so that long contexts agree
/// too. [`RopeScaling::Dynamic`] gives the unscaled frequencies, which are the right ones up to
/// `max_position_embeddings`.
pub fn rope_frequencies(config: &ModelConfig) -> (Vec<f32>, f32) {
    let (dim, theta) = (config.rotary_dim(), config.rope.theta);
    let wavelike = |index: usize| theta.powf(f64::from((2 * index) as f32 / dim as f32)); // θ^(2i/d)
    let plain: Vec<f64> = (0..dim / 2).map(|index| f64::from((1.0 / wavelike(index)) as f32)).collect();
    let mut attention_scaling = 1.0;
    let scaled: Vec<f64> = match &config.rope.scaling {
        RopeScaling::None | RopeScaling::Dynamic { .. } => plain,
        RopeScaling::Factors(factors) => {
            plain.into_iter().zip(factors).map(|(frequency, factor)| frequency / f64::from(*factor)).collect()
        }
        &RopeScaling::Linear { factor } => plain.into_iter().map(|frequency| frequency / factor).collect(),
        &RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let length = original_max_position_embeddings as f64;
            let blend = |frequency: f64| {
                let rotations = length * frequency / TAU;
                let kept = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = kept.clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            };
            plain.into_iter().map(blend).collect()
        }
        &RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            attention_factor,
            original_max_position_embeddings,
            truncate,
        } => {
            attention_scaling = attention_factor;
            // The dimension whose wave turns `rotations` times over the length of pretraining.
            let dimension = |rotations: f64| {
                let length = original_max_position_embeddings as f64;
                dim as f64 * (length / (rotations * TAU)).ln() / (2.0 * theta.ln())
            };
            let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
            if low == high {
                high += 0.001;
            }
            let blend = |(index, frequency): (usize, f64)| {
                let stretched = ((index as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * stretched + frequency * (1.0 - stretched)
            };
            plain.into_iter().enumerate().map(blend).collect()
        }
    };
    (scaled.into_iter().map(|frequency| frequency as f32).collect(), attention_scaling as f32)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Frequencies of a model with heads of 16 and these rope parameters.
    fn frequencies(rope_parameters: &Value) -> (Vec<f32>, f32) {
        let config = json!({
            "model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 256,
            "rope_parameters": rope_parameters,
        });
        rope_frequencies(&ModelConfig::from_json(&config.to_string()).unwrap())
    }

    fn check(rope_parameters: Value, expected: [f64; 8], expected_scaling: f64) {
        let (found, scaling) = frequencies(&rope_parameters);
        for (found, expected) in found.iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs() / expected;
            assert!(error < 3e-7, "{rope_parameters}: {found} instead of {expected}");
        }
        assert!((f64::from(scaling) - expected_scaling).abs() < 1e-6, "{scaling}");
    }

    // from transformers import LlamaConfig
    // from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    // c = LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=256, rope_parameters=p)
    // ROPE_INIT_FUNCTIONS[p["rope_type"]](c, None)
    #[test]
    fn every_scaling_equals_transformers() {
        let plain = [
            1.0,
            0.3162277638912201,
            0.10000000149011612,
            0.03162277862429619,
            0.009999999776482582,
            0.003162277862429619,
            0.0010000000474974513,
            0.0003162277862429619,
        ];
        check(json!({"rope_theta": 10000.0}), plain, 1.0);
        check(json!({"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}), plain, 1.0);
        check(
            json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
            plain.map(|frequency| frequency / 4.0),
            1.0,
        );
        check(
            json!({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
            [
                1.0,
                0.024240344762802124,
                0.004700753837823868,
                0.0009115831344388425,
                0.00017677668074611574,
                3.428102354519069e-05,
                6.647869668086059e-06,
                1.289173155782919e-06,
            ],
            1.0,
        );
        check(
            json!({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                "original_max_position_embeddings": 64}),
            [
                1.0,
                0.23717081546783447,
                0.04999999701976776,
                0.007905694656074047,
                0.0024999999441206455,
                0.0007905694656074047,
                0.0002500000118743628,
                7.905694656074047e-05,
            ],
            1.138629436111989,
        );
    }

    #[test]
    fn yarn_with_its_own_scales_and_untruncated_ends_equals_transformers() {
        check(
            json!({"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "mscale": 1.0,
                "original_max_position_embeddings": 64, "mscale_all_dim": 0.5, "beta_fast": 16.0,
                "beta_slow": 2.0, "truncate": false}),
            [
                1.0,
                0.04445698484778404,
                0.007905694656074047,
                0.0014058533124625683,
                0.0002500000118743628,
                4.4456985051510856e-05,
                7.905693564680405e-06,
                1.405853367941745e-06,
            ],
            1.0648216253695715,
        );
    }
}
