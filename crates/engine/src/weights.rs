//! Base weights: read from safetensors in Hugging Face's names, with the projections of a layer that share an
//! input stacked into one matrix.

mod floats;
mod stored;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub(crate) use self::{
    floats::{Floats, read_safetensors},
    stored::{LaidOut, Stored},
};
use crate::{
    EngineError, ModelConfig, Result,
    adapter::AdapterWeights,
    kernels::{Matrix, WeightFormat},
};

/// One linear layer `y = x Wᵀ + b`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: LaidOut,        // [d_out, d_in]
    pub(crate) bias: Option<Vec<f32>>, // [d_out]
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
}

/// Weights of one transformer block.
#[derive(Debug, Clone)]
pub(crate) struct LayerWeights {
    pub(crate) input_norm: Vec<f32>,                 // [hidden]
    pub(crate) qkv: Linear,                          // [(heads + 2 kv_heads) head_dim, hidden]
    pub(crate) q_norm: Option<Vec<f32>>,             // [head_dim]
    pub(crate) k_norm: Option<Vec<f32>>,             // [head_dim]
    pub(crate) o: Linear,                            // [hidden, heads head_dim]
    pub(crate) attention_out_norm: Option<Vec<f32>>, // [hidden], of what attention adds
    pub(crate) post_norm: Vec<f32>,                  // [hidden], of what feed-forward reads
    pub(crate) gate_up: Linear,                      // [2 intermediate, hidden]
    pub(crate) down: Linear,                         // [hidden, intermediate]
    pub(crate) mlp_out_norm: Option<Vec<f32>>,       // [hidden], of what feed-forward adds
}

/// All weights of a model.
#[derive(Debug, Clone)]
pub(crate) struct BaseWeights {
    pub(crate) embed: LaidOut, // [vocab, hidden]
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Vec<f32>,           // [hidden]
    pub(crate) lm_head: Option<LaidOut>, // [vocab, hidden]; `None` when tied to `embed`
}

impl BaseWeights {
    /// Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names, of `folder`.
    pub(crate) fn load(folder: &Path, config: &ModelConfig, format: Option<WeightFormat>) -> Result<Self> {
        let mut tensors = HashMap::new();
        for shard in shards(folder)? {
            let bytes = std::fs::read(&shard).map_err(|error| EngineError::file(&shard, &error))?;
            for (name, tensor) in read_safetensors(&bytes, &shard.display().to_string())? {
                if tensors.contains_key(&name) {
                    return Err(EngineError::Weights(format!("`{name}` is in more than one shard")));
                }
                tensors.insert(name, Stored::Floats(tensor.into_owned()));
            }
        }
        Self::from_tensors(tensors, config, format)
    }

    /// Takes the weights out of tensors under Hugging Face's names, to be kept in `format`, or as they are stored.
    pub(crate) fn from_tensors(
        tensors: HashMap<String, Stored>,
        config: &ModelConfig,
        format: Option<WeightFormat>,
    ) -> Result<Self> {
        Self::assemble(&mut Tensors { tensors, format }, config)
    }

    fn assemble(tensors: &mut Tensors, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let embed = tensors.matrix("model.embed_tokens.weight", config.vocab_size, hidden)?;
        let layers = (0..config.num_layers)
            .map(|layer| LayerWeights::assemble(tensors, config, &format!("model.layers.{layer}")))
            .collect::<Result<_>>()?;
        let norm = tensors.take("model.norm.weight", &[hidden])?;
        let lm_head = if config.tie_word_embeddings {
            tensors.tensors.remove("lm_head.weight");
            None
        } else {
            Some(tensors.matrix("lm_head.weight", config.vocab_size, hidden)?)
        };
        tensors.tensors.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
        if let Some(name) = tensors.tensors.keys().min() {
            return Err(EngineError::Weights(format!(
                "`{name}` has no place in a {:?} model",
                config.family
            )));
        }
        Ok(Self { embed, layers, norm, lm_head })
    }

    /// Bytes of memory that the matrices take.
    pub(crate) fn bytes(&self) -> usize {
        let layer = |layer: &LayerWeights| {
            let linears = [&layer.qkv, &layer.o, &layer.gate_up, &layer.down];
            linears.iter().map(|linear| linear.weight.matrix.bytes()).sum::<usize>()
        };
        let head = self.lm_head.as_ref().map_or(0, |head| head.matrix.bytes());
        self.embed.matrix.bytes() + head + self.layers.iter().map(layer).sum::<usize>()
    }

    /// The matrix that turns hidden states into logits: `[vocab, hidden]`.
    pub(crate) fn output(&self) -> &Matrix {
        &self.lm_head.as_ref().unwrap_or(&self.embed).matrix
    }
}

impl LayerWeights {
    fn assemble(tensors: &mut Tensors, config: &ModelConfig, prefix: &str) -> Result<Self> {
        let (hidden, dim, width) = (config.hidden_size, config.head_dim, config.intermediate_size);
        let (queries, keys) = (config.num_heads * dim, config.num_kv_heads * dim);
        let mut norm = |name: &str, width: usize| tensors.take(&format!("{prefix}.{name}.weight"), &[width]);
        let input_norm = norm("input_layernorm", hidden)?;
        let post_norm = norm("post_attention_layernorm", hidden)?;
        let (q_norm, k_norm) = if config.qk_norm {
            (Some(norm("self_attn.q_norm", dim)?), Some(norm("self_attn.k_norm", dim)?))
        } else {
            (None, None)
        };
        let (attention_out_norm, mlp_out_norm) = if config.branch_norms {
            (Some(norm("post_self_attn_layernorm", hidden)?), Some(norm("post_mlp_layernorm", hidden)?))
        } else {
            (None, None)
        };
        let mut stack =
            |parts: &[(&str, usize)], d_in: usize, bias: bool| tensors.stack(prefix, parts, d_in, bias);
        let attention =
            [("self_attn.q_proj", queries), ("self_attn.k_proj", keys), ("self_attn.v_proj", keys)];
        let gate_up: &[_] = if config.fused_gate_up {
            &[("mlp.gate_up_proj", 2 * width)]
        } else {
            &[("mlp.gate_proj", width), ("mlp.up_proj", width)]
        };
        Ok(Self {
            input_norm,
            qkv: stack(&attention, hidden, config.attention_bias)?,
            q_norm,
            k_norm,
            o: stack(&[("self_attn.o_proj", hidden)], queries, config.attention_out_bias)?,
            attention_out_norm,
            post_norm,
            gate_up: stack(gate_up, hidden, config.mlp_bias)?,
            down: stack(&[("mlp.down_proj", hidden)], width, config.mlp_bias)?,
            mlp_out_norm,
        })
    }
}

/// Tensors by name, taken out one by one.
struct Tensors {
    tensors: HashMap<String, Stored>,
    format: Option<WeightFormat>,
}

impl Tensors {
    fn remove(&mut self, name: &str, shape: &[usize]) -> Result<Stored> {
        let tensor =
            self.tensors.remove(name).ok_or_else(|| EngineError::Weights(format!("`{name}` is missing")))?;
        if tensor.shape() != shape {
            return Err(EngineError::Weights(format!(
                "`{name}` has shape {:?} where the configuration says {shape:?}",
                tensor.shape()
            )));
        }
        Ok(tensor)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.remove(name, shape)?.values(name)
    }

    fn matrix(&mut self, name: &str, d_out: usize, d_in: usize) -> Result<LaidOut> {
        let part = (name.to_owned(), self.remove(name, &[d_out, d_in])?);
        LaidOut::stack(&[part], d_out, d_in, self.format)
    }

    /// Several projections of one input as one matrix.
    fn stack(&mut self, prefix: &str, parts: &[(&str, usize)], d_in: usize, bias: bool) -> Result<Linear> {
        let d_out = parts.iter().map(|(_, rows)| rows).sum();
        let mut weights = Vec::with_capacity(parts.len());
        let mut biases = Vec::new();
        for (name, rows) in parts {
            let full = format!("{prefix}.{name}.weight");
            let part = self.remove(&full, &[*rows, d_in])?;
            weights.push((full, part));
            if bias {
                biases.extend(self.take(&format!("{prefix}.{name}.bias"), &[*rows])?);
            }
        }
        let weight = LaidOut::stack(&weights, d_out, d_in, self.format)?;
        Ok(Linear { weight, bias: bias.then_some(biases), d_in, d_out })
    }
}

/// The weight files of `folder`, in order.
pub(crate) fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![folder.join("model.safetensors")]);
    }
    let text = std::fs::read_to_string(&index).map_err(|error| EngineError::file(&index, &error))?;
    let names = files_of_index(&text, &index.display().to_string())?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The names of the files that the text of an index names, each once, in order; `origin` names it in errors.
pub(crate) fn files_of_index(text: &str, origin: &str) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let parsed: Index =
        serde_json::from_str(text).map_err(|error| EngineError::Weights(format!("{origin}: {error}")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // A shard lies beside its index; a path would let an index read files elsewhere.
    let plain = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    match names.iter().find(|name| !plain(name)) {
        Some(name) => {
            Err(EngineError::Weights(format!("the index names `{name}`, which is not a plain file name")))
        }
        None => Ok(names),
    }
}

impl BaseWeights {
    /// BLAKE3 of all values in a fixed order, as little-endian `f32`: as the model was read, whatever format they are
    /// kept in, since an adapter is for the model.
    pub(crate) fn hash(&self) -> autoglm_domain::ContentHash {
        let hashes = std::cell::RefCell::new(self.embed.digest.0.to_vec());
        let matrix = |laid_out: &LaidOut| hashes.borrow_mut().extend_from_slice(&laid_out.digest.0);
        let add = |values: &[f32]| hashes.borrow_mut().extend_from_slice(&stored::digest(values).0);
        for layer in &self.layers {
            add(&layer.input_norm);
            add(&layer.post_norm);
            for linear in [&layer.qkv, &layer.o, &layer.gate_up, &layer.down] {
                matrix(&linear.weight);
                add(linear.bias.as_deref().unwrap_or(&[]));
            }
            for norm in [&layer.q_norm, &layer.k_norm] {
                add(norm.as_deref().unwrap_or(&[]));
            }
            // Not there in most families, whose hashes must stay what they were.
            for norm in [&layer.attention_out_norm, &layer.mlp_out_norm].into_iter().flatten() {
                add(norm);
            }
        }
        add(&self.norm);
        match &self.lm_head {
            Some(head) => matrix(head),
            None => add(&[]),
        }
        autoglm_domain::ContentHash::of(&hashes.into_inner())
    }
}

impl BaseWeights {
    /// Normal weights of `initializer_range`, projections back into the residual stream scaled down by
    /// `1/√(2 layers)` (Radford et al. 2019), norms 1, biases 0, embeddings tied.
    pub(crate) fn random(config: &ModelConfig, seed: u64, format: WeightFormat) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let residual = 1.0 / (2.0 * config.num_layers as f32).sqrt();
        let mut normal = |count: usize, scale: f32| -> Vec<f32> {
            (0..count).map(|_| standard_normal(&mut random) * config.initializer_range * scale).collect()
        };
        let (hidden, dim, width) = (config.hidden_size, config.head_dim, config.intermediate_size);
        let (queries, keys) = (config.num_heads * dim, config.num_kv_heads * dim);
        let embed =
            LaidOut::new(&normal(config.vocab_size * hidden, 1.0), config.vocab_size, hidden, format)?;
        let mut linear = |d_out: usize, d_in: usize, scale: f32, bias: bool| {
            let weight = LaidOut::new(&normal(d_out * d_in, scale), d_out, d_in, format)?;
            Ok::<_, EngineError>(Linear { weight, bias: bias.then(|| vec![0.0; d_out]), d_in, d_out })
        };
        let mut layers = Vec::with_capacity(config.num_layers);
        for _ in 0..config.num_layers {
            layers.push(LayerWeights {
                input_norm: vec![1.0; hidden],
                qkv: linear(queries + 2 * keys, hidden, 1.0, config.attention_bias)?,
                q_norm: config.qk_norm.then(|| vec![1.0; dim]),
                k_norm: config.qk_norm.then(|| vec![1.0; dim]),
                o: linear(hidden, queries, residual, config.attention_out_bias)?,
                attention_out_norm: config.branch_norms.then(|| vec![1.0; hidden]),
                post_norm: vec![1.0; hidden],
                gate_up: linear(2 * width, hidden, 1.0, config.mlp_bias)?,
                down: linear(hidden, width, residual, config.mlp_bias)?,
                mlp_out_norm: config.branch_norms.then(|| vec![1.0; hidden]),
            });
        }
        Ok(Self { embed, layers, norm: vec![1.0; hidden], lm_head: None })
    }

    /// The base with every replacement of `trained` in place, as 32-bit floats.
    pub(crate) fn with_replacements(base: &Self, trained: AdapterWeights) -> Result<Self> {
        let mut weights = base.clone();
        for (layer, change) in weights.layers.iter_mut().zip(trained.layers) {
            let slots = [
                (&mut layer.qkv, change.qkv),
                (&mut layer.o, change.o),
                (&mut layer.gate_up, change.gate_up),
                (&mut layer.down, change.down),
            ];
            for (linear, slot) in slots {
                if let Some(values) = slot.replacement {
                    linear.weight = LaidOut::new(&values, linear.d_out, linear.d_in, WeightFormat::F32)?;
                }
            }
            layer.input_norm = change.input_norm.unwrap_or(std::mem::take(&mut layer.input_norm));
            layer.post_norm = change.post_norm.unwrap_or(std::mem::take(&mut layer.post_norm));
            layer.q_norm = change.q_norm.or(layer.q_norm.take());
            layer.k_norm = change.k_norm.or(layer.k_norm.take());
            layer.attention_out_norm = change.attention_out_norm.or(layer.attention_out_norm.take());
            layer.mlp_out_norm = change.mlp_out_norm.or(layer.mlp_out_norm.take());
        }
        if let Some(values) = trained.embed {
            let (vocab, hidden) = weights.embed.matrix.shape();
            weights.embed = LaidOut::new(&values, vocab, hidden, WeightFormat::F32)?;
        }
        weights.norm = trained.norm.unwrap_or(weights.norm);
        Ok(weights)
    }
}

/// One draw from the standard normal distribution (Box and Muller 1958).
fn standard_normal(random: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
