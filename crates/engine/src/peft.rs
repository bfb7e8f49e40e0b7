//! Adapters in PEFT's format, both ways: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeSet, HashMap};

use autoglm_domain::Adapter;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

use crate::{
    EngineError, ModelConfig, Result,
    adapter::{AdapterWeights, LayerChange, Lora, Projection, chosen_layers, lora_scale, named_projections},
    model::Model,
    weights::{Floats, read_safetensors},
};

/// Keys of `adapter_config.json` that change the arithmetic when they are on, so they must be off.
const MUST_BE_OFF: [&str; 16] = [
    "use_dora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "layers_pattern",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "megatron_config",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
];

/// Ways to begin that change the base weights, so that the adapter fits only the changed ones.
const CHANGES_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

const PREFIX: &str = "base_model.model.";

/// Reads an adapter for `model`.
///
/// # Errors
/// `Adapter` when a file is not what it should be, a key that is on changes the arithmetic in a way that is not
/// computed here, a tensor has no place in the model, has the wrong shape, or holds a value that is not finite.
pub(crate) fn read(model: &Model, adapter: &Adapter) -> Result<AdapterWeights> {
    read_as(model, adapter, |layer, _| layer)
}

/// As [`read`], with each layer and the scale of its low-rank matrices turned by `lay_out` before the next one is read: the
/// memory that a layer is read into is used again for the next.
pub(crate) fn read_as<L>(
    model: &Model,
    adapter: &Adapter,
    lay_out: impl Fn(LayerChange, f32) -> L,
) -> Result<AdapterWeights<L>> {
    let config = Config::parse(&adapter.config, model.config())?;
    let scale = lora_scale(config.alpha, config.rank, config.stabilised);
    let tensors =
        read_safetensors(&adapter.weights, "adapter_model.safetensors").map_err(as_adapter_error)?;
    let mut tensors: HashMap<String, Floats<'_>> = tensors
        .into_iter()
        .map(|(name, tensor)| (name.replace(".modules_to_save", "").replace(".default", ""), tensor))
        .collect();
    let base = model.config();
    let chosen = chosen_layers(&config.layers, base.num_layers)?;
    let mut layers = Vec::with_capacity(base.num_layers);
    for (at, chosen) in chosen.into_iter().enumerate() {
        let prefix = format!("{PREFIX}model.layers.{at}");
        let mut layer = LayerChange::default();
        for &projection in config.projections.iter().filter(|_| chosen) {
            let path = format!("{prefix}.{}.{}", projection.parent(), projection.name());
            let (d_in, rows) = (projection.d_in(base), projection.rows(base));
            let a = take(&mut tensors, &format!("{path}.lora_A.weight"), &[config.rank, d_in])?;
            let b = take(&mut tensors, &format!("{path}.lora_B.weight"), &[rows.len(), config.rank])?;
            match (a, b) {
                (Some(a), Some(b)) => {
                    let lora = Lora { projection, rank: config.rank, rows, a, b };
                    layer.slot_mut(projection.slot()).loras.push(lora);
                }
                _ => return Err(EngineError::Adapter(format!("`{path}` has no lora_A and lora_B"))),
            }
        }
        let (hidden, dim) = (base.hidden_size, base.head_dim);
        layer.input_norm = take(&mut tensors, &format!("{prefix}.input_layernorm.weight"), &[hidden])?;
        layer.post_norm =
            take(&mut tensors, &format!("{prefix}.post_attention_layernorm.weight"), &[hidden])?;
        if base.qk_norm {
            layer.q_norm = take(&mut tensors, &format!("{prefix}.self_attn.q_norm.weight"), &[dim])?;
            layer.k_norm = take(&mut tensors, &format!("{prefix}.self_attn.k_norm.weight"), &[dim])?;
        }
        if base.branch_norms {
            layer.attention_out_norm =
                take(&mut tensors, &format!("{prefix}.post_self_attn_layernorm.weight"), &[hidden])?;
            layer.mlp_out_norm =
                take(&mut tensors, &format!("{prefix}.post_mlp_layernorm.weight"), &[hidden])?;
        }
        layers.push(lay_out(layer, scale));
    }
    let embed = take(
        &mut tensors,
        &format!("{PREFIX}model.embed_tokens.weight"),
        &[base.vocab_size, base.hidden_size],
    )?;
    let norm = take(&mut tensors, &format!("{PREFIX}model.norm.weight"), &[base.hidden_size])?;
    if base.tie_word_embeddings {
        // PEFT writes the tied output matrix beside the embedding.
        let name = format!("{PREFIX}lm_head.weight");
        let output = take(&mut tensors, &name, &[base.vocab_size, base.hidden_size])?;
        let apart = output.is_some() && output != embed;
        if apart || (embed.is_some() && !config.tied) {
            return Err(EngineError::Adapter(
                "the embedding was trained apart from the output matrix that the base model ties to it; \
                 train it with PEFT's `ensure_weight_tying`"
                    .into(),
            ));
        }
    }
    match tensors.keys().min() {
        Some(name) => Err(EngineError::Adapter(format!("`{name}` has no place in this model"))),
        None => {
            let Config { alpha, stabilised, .. } = config;
            Ok(AdapterWeights { scale, alpha, stabilised, layers, embed, norm })
        }
    }
}

fn as_adapter_error(error: EngineError) -> EngineError {
    match error {
        EngineError::Weights(message) => EngineError::Adapter(message),
        other => other,
    }
}

fn take(tensors: &mut HashMap<String, Floats<'_>>, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = tensors.remove(name) else { return Ok(None) };
    if tensor.shape() != shape {
        return Err(EngineError::Adapter(format!(
            "`{name}` has shape {:?} where the base model needs {shape:?}",
            tensor.shape()
        )));
    }
    tensor.values(name).map(Some).map_err(as_adapter_error)
}

/// What of `adapter_config.json` matters here.
struct Config {
    rank: usize,
    alpha: f32,
    /// `use_rslora`
    stabilised: bool,
    /// `layers_to_transform`; empty is all.
    layers: Vec<u32>,
    projections: Vec<Projection>,
    /// Whether a trained embedding is the output matrix too, where the base model ties them.
    tied: bool,
}

impl Config {
    fn parse(bytes: &[u8], base: &ModelConfig) -> Result<Self> {
        let bad = |message: String| EngineError::Adapter(format!("adapter_config.json: {message}"));
        let object: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if object.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(bad("`peft_type` must be \"LORA\"".into()));
        }
        if let Some(key) = MUST_BE_OFF.iter().find(|key| object.get(**key).is_some_and(is_on)) {
            return Err(bad(format!("`{key}` is on, which is not computed here")));
        }
        if object.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
            return Err(bad("`bias` must be \"none\"".into()));
        }
        if let Some(Value::String(kind)) = object.get("init_lora_weights")
            && CHANGES_THE_BASE.iter().any(|known| kind.starts_with(known))
        {
            return Err(bad(format!(
                "`init_lora_weights` \"{kind}\" changes the base weights; save the adapter with PEFT's \
                 `path_initial_model_for_weight_conversion`"
            )));
        }
        let rank = object.get("r").and_then(Value::as_u64).filter(|rank| (1..=4096).contains(rank));
        let rank = rank.ok_or_else(|| bad("`r` must be a whole number from 1 to 4096".into()))? as usize;
        let alpha = object.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
        let alpha = alpha.ok_or_else(|| bad("`lora_alpha` must be a number".into()))? as f32;
        let stabilised = object.get("use_rslora").is_some_and(is_on);
        let layers = match object.get("layers_to_transform").filter(|value| !value.is_null()) {
            None => Vec::new(),
            Some(value) => layer_numbers(value)
                .ok_or_else(|| bad("`layers_to_transform` must be a number or a list of them".into()))?,
        };
        let names: Vec<String> = match object.get("target_modules") {
            Some(Value::Array(names)) => names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
            Some(Value::String(name)) if name == "all-linear" => {
                Projection::all(base).iter().map(|projection| projection.name().to_owned()).collect()
            }
            _ => return Err(bad("`target_modules` must be a list of projections".into())),
        };
        let tied = object.get("ensure_weight_tying").is_some_and(is_on);
        Ok(Self { rank, alpha, stabilised, layers, projections: named_projections(&names, base)?, tied })
    }
}

/// One layer or several of them, as PEFT writes either.
fn layer_numbers(value: &Value) -> Option<Vec<u32>> {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    match value {
        Value::Array(numbers) => numbers.iter().map(number).collect(),
        one => number(one).map(|number| vec![number]),
    }
}

/// Whether a configuration value switches something on.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// Writes an adapter of `model`, in float32.
///
/// # Errors
/// `Adapter` when it replaces whole projections, which PEFT's format has no name for here.
pub(crate) fn write(model: &Model, weights: &AdapterWeights) -> Result<Adapter> {
    let base = model.config();
    let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
    let (mut targets, mut saved, mut adapted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut rank = None;
    for (at, layer) in weights.layers.iter().enumerate() {
        let prefix = format!("{PREFIX}model.layers.{at}");
        for slot in [&layer.qkv, &layer.o, &layer.gate_up, &layer.down] {
            if slot.replacement.is_some() {
                return Err(EngineError::Adapter("whole projections cannot be written as an adapter".into()));
            }
            for lora in &slot.loras {
                let path = format!("{prefix}.{}.{}", lora.projection.parent(), lora.projection.name());
                let d_in = lora.projection.d_in(base);
                tensors.push((format!("{path}.lora_A.weight"), vec![lora.rank, d_in], &lora.a));
                tensors.push((format!("{path}.lora_B.weight"), vec![lora.rows.len(), lora.rank], &lora.b));
                targets.insert(lora.projection.name());
                adapted.insert(at);
                rank = Some(lora.rank);
            }
        }
        for (name, norm) in layer.norms() {
            tensors.push((format!("{prefix}.{name}.weight"), vec![norm.len()], norm));
            saved.insert(name.rsplit('.').next().unwrap_or(name));
        }
    }
    if let Some(embed) = &weights.embed {
        let shape = vec![base.vocab_size, base.hidden_size];
        if base.tie_word_embeddings {
            // PEFT looks for the tied matrix under both of its names.
            tensors.push((format!("{PREFIX}lm_head.weight"), shape.clone(), embed));
        }
        tensors.push((format!("{PREFIX}model.embed_tokens.weight"), shape, embed));
        saved.insert("embed_tokens");
    }
    if let Some(norm) = &weights.norm {
        tensors.push((format!("{PREFIX}model.norm.weight"), vec![norm.len()], norm));
        saved.insert("norm");
    }
    let rank = rank.ok_or_else(|| EngineError::Adapter("there is no low-rank matrix to write".into()))?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": null,
        "r": rank,
        "lora_alpha": weights.alpha,
        "target_modules": targets,
        "layers_to_transform": (adapted.len() < base.num_layers).then_some(adapted),
        "modules_to_save": saved,
        "ensure_weight_tying": base.tie_word_embeddings && weights.embed.is_some(),
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": false,
        "use_rslora": weights.stabilised,
        "use_dora": false,
        "inference_mode": true,
    });
    Ok(Adapter { config: format!("{config:#}\n").into_bytes(), weights: serialize(&tensors)? })
}

fn serialize(tensors: &[(String, Vec<usize>, &[f32])]) -> Result<Vec<u8>> {
    let broken = |error: safetensors::SafeTensorError| EngineError::Internal(error.to_string());
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(broken)?))
        })
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).map_err(broken)
}
