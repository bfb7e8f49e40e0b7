//! Small models of random weights, strong enough that an answer depends on every token before it, and random
//! adapters for them.

use autoglm_domain::Adapter;
use autoglm_engine::{Decoder as _, KvCache, Model, Sampler, SequenceInput, WantedLogits};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::{CODEC, hash_decoder::EOS};

const HIDDEN: usize = 48;
const INTERMEDIATE: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const RANK: usize = 4;

/// Tokens of prompt and answer.
pub(crate) const CONTEXT: usize = 256;

/// A model and adapters of it; the first is none, the base model.
pub(crate) struct TinyModel {
    pub(crate) model: std::sync::Arc<Model>,
    pub(crate) adapters: Vec<Option<Adapter>>,
}

type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

/// Uniform numbers with this standard deviation.
fn random(
    random: &mut ChaCha8Rng,
    name: String,
    shape: [usize; 2],
    deviation: f32,
) -> (String, Vec<usize>, Vec<u8>) {
    let most = deviation * 3f32.sqrt();
    let values = (0..shape[0] * shape[1]).flat_map(|_| random.random_range(-most..most).to_le_bytes());
    let bytes = values.collect();
    (name, shape.to_vec(), bytes)
}

fn ones(name: String) -> (String, Vec<usize>, Vec<u8>) {
    (name, vec![HIDDEN], (0..HIDDEN).flat_map(|_| 1f32.to_le_bytes()).collect())
}

fn serialize(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The projections of a block: name, `[d_out, d_in]`.
fn projections() -> [(&'static str, [usize; 2]); 7] {
    let (queries, keys) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    [
        ("self_attn.q_proj", [queries, HIDDEN]),
        ("self_attn.k_proj", [keys, HIDDEN]),
        ("self_attn.v_proj", [keys, HIDDEN]),
        ("self_attn.o_proj", [HIDDEN, queries]),
        ("mlp.gate_proj", [INTERMEDIATE, HIDDEN]),
        ("mlp.up_proj", [INTERMEDIATE, HIDDEN]),
        ("mlp.down_proj", [HIDDEN, INTERMEDIATE]),
    ]
}

fn load(seed: u64, window: Option<usize>, vocab: usize) -> Model {
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let source = &mut source;
    let mut tensors: Tensors = vec![
        random(source, "model.embed_tokens.weight".into(), [vocab, HIDDEN], 0.5),
        random(source, "lm_head.weight".into(), [vocab, HIDDEN], 0.3),
        ones("model.norm.weight".into()),
    ];
    for layer in 0..LAYERS {
        let prefix = format!("model.layers.{layer}");
        tensors.push(ones(format!("{prefix}.input_layernorm.weight")));
        tensors.push(ones(format!("{prefix}.post_attention_layernorm.weight")));
        for (name, shape) in projections() {
            let deviation = 1.5 / (shape[1] as f32).sqrt();
            tensors.push(random(source, format!("{prefix}.{name}.weight"), shape, deviation));
        }
    }
    let config = json!({
        "model_type": "mistral", "vocab_size": vocab, "hidden_size": HIDDEN, "head_dim": HEAD_DIM,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": CONTEXT, "sliding_window": window,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": EOS,
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), serialize(&tensors)).unwrap();
    Model::load(folder.path()).unwrap()
}

fn adapter(seed: u64) -> Adapter {
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let source = &mut source;
    let mut tensors = Tensors::new();
    for layer in 0..LAYERS {
        for (name, [d_out, d_in]) in projections() {
            let path = format!("base_model.model.model.layers.{layer}.{name}");
            tensors.push(random(
                source,
                format!("{path}.lora_A.weight"),
                [RANK, d_in],
                1.0 / (d_in as f32).sqrt(),
            ));
            tensors.push(random(source, format!("{path}.lora_B.weight"), [d_out, RANK], 0.5));
        }
    }
    let targets: Vec<_> = projections().iter().map(|(name, _)| name.rsplit('.').next().unwrap()).collect();
    let config = json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": targets, "bias": "none",
        "use_rslora": false, "use_dora": false, "fan_in_fan_out": false, "lora_dropout": 0.0,
    });
    Adapter { config: config.to_string().into_bytes(), weights: serialize(&tensors) }
}

impl TinyModel {
    pub(crate) fn new(seed: u64, window: Option<usize>) -> Self {
        let model = load(seed, window, CODEC.tokenizer().vocab_size());
        let adapters = (0..6).map(|at| (at > 0).then(|| adapter(seed * 100 + at))).collect();
        Self { model: std::sync::Arc::new(model), adapters }
    }

    /// Greedy ids after `prompt`, at most `most`, the end's id included: one sequence alone, the whole prompt at
    /// once, one token after the other, in a cache of its own.
    pub(crate) fn alone(&self, adapter: usize, prompt: &[u32], most: usize) -> Vec<u32> {
        let adapter =
            self.adapters[adapter].as_ref().map(|adapter| self.model.load_adapter(adapter).unwrap());
        let (mut cache, mut tokens, mut answer) = (KvCache::default(), prompt.to_vec(), Vec::new());
        loop {
            let input = SequenceInput {
                tokens: &tokens,
                cache: &mut cache,
                adapter: adapter.as_ref(),
                logits: WantedLogits::Last,
            };
            let mut logits = self.model.step(&mut [input]).unwrap();
            let id = Sampler::new(&Default::default(), 0, &[]).unwrap().sample(&mut logits).unwrap().id;
            answer.push(id);
            if id == EOS || answer.len() == most {
                return answer;
            }
            tokens = vec![id];
        }
    }
}
