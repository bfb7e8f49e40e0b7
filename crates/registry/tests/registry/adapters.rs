//! Builder of small PEFT adapters, right unless a test breaks them.

use std::collections::BTreeMap;

use autoglm_domain::Adapter;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

pub(crate) const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";

/// A tensor: kind, shape, bytes.
pub(crate) type Raw = (Dtype, Vec<usize>, Vec<u8>);

pub(crate) struct Peft {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Raw>,
}

impl Peft {
    /// Rank 2 on one projection of 4 inputs and 3 outputs, and a norm; `seed` makes the numbers differ.
    pub(crate) fn new(seed: u64) -> Self {
        let value = seed as f32 / 16.0;
        let mut peft = Self {
            config: json!({
                "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "starter",
                "r": 2, "lora_alpha": 4, "lora_dropout": 0.05, "bias": "none", "init_lora_weights": true,
                "target_modules": ["q_proj"], "modules_to_save": ["norm"], "inference_mode": true,
                "fan_in_fan_out": false, "use_dora": false, "use_rslora": false, "lora_bias": false,
                "rank_pattern": {}, "alpha_pattern": {}, "layer_replication": null, "loftq_config": {},
                "trainable_token_indices": null, "megatron_core": "megatron.core", "corda_config": null
            }),
            tensors: BTreeMap::new(),
        };
        peft.set(&format!("{Q}.lora_A.weight"), &[2, 4], &[value; 8]);
        peft.set(&format!("{Q}.lora_B.weight"), &[3, 2], &[0.5; 6]);
        peft.set("base_model.model.model.norm.weight", &[4], &[1.0; 4]);
        peft
    }

    pub(crate) fn set(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
    }

    pub(crate) fn adapter(&self) -> Adapter {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        Adapter {
            config: serde_json::to_vec(&self.config).unwrap(),
            weights: safetensors::serialize(views, None).unwrap(),
        }
    }
}
