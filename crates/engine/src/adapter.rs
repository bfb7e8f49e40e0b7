//! What turns the base model into a version: low-rank matrices beside its projections, and replacements for
//! its embedding and norms. The same shape holds gradients and optimiser moments.

use std::ops::Range;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use autoglm_domain::HyperParameters;

use crate::{
    EngineError, ModelConfig, Result,
    kernels::{Matrix, Weights},
    model::Model,
    weights::{BaseWeights, LayerWeights},
};

/// A projection that can carry an adapter, by its name in Hugging Face's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Projection {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    /// Gate and up as one matrix, as GLM has them: one `A` for both.
    GateUp,
    Down,
}

/// One of the four stacked matrices of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Qkv,
    O,
    GateUp,
    Down,
}

impl Projection {
    /// The projections of a block, in order.
    pub(crate) fn all(config: &ModelConfig) -> &'static [Self] {
        if config.fused_gate_up {
            &[Self::Q, Self::K, Self::V, Self::O, Self::GateUp, Self::Down]
        } else {
            &[Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down]
        }
    }

    /// `q_proj`, …
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::GateUp => "gate_up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module that holds it: `self_attn` or `mlp`.
    pub(crate) fn parent(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::GateUp | Self::Down => "mlp",
        }
    }

    pub(crate) fn slot(self) -> Slot {
        match self {
            Self::Q | Self::K | Self::V => Slot::Qkv,
            Self::O => Slot::O,
            Self::Gate | Self::Up | Self::GateUp => Slot::GateUp,
            Self::Down => Slot::Down,
        }
    }

    /// Its rows in the stacked matrix of its slot.
    pub(crate) fn rows(self, config: &ModelConfig) -> Range<usize> {
        let (queries, keys) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let width = config.intermediate_size;
        match self {
            Self::Q => 0..queries,
            Self::K => queries..queries + keys,
            Self::V => queries + keys..queries + 2 * keys,
            Self::Gate => 0..width,
            Self::Up => width..2 * width,
            Self::GateUp => 0..2 * width,
            Self::O | Self::Down => 0..config.hidden_size,
        }
    }

    /// Width of its input.
    pub(crate) fn d_in(self, config: &ModelConfig) -> usize {
        match self {
            Self::O => config.num_heads * config.head_dim,
            Self::Down => config.intermediate_size,
            _ => config.hidden_size,
        }
    }
}

/// `ΔW = scale · B A` for one projection (Hu et al. 2021, eq. 3).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lora {
    pub(crate) projection: Projection,
    pub(crate) rank: usize,
    pub(crate) rows: Range<usize>, // of the stacked matrix
    pub(crate) a: Vec<f32>,        // [rank, d_in]
    pub(crate) b: Vec<f32>,        // [rows, rank]
}

/// What a version changes in one stacked matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SlotChange {
    pub(crate) loras: Vec<Lora>,
    /// The whole matrix, trained: pretraining.
    pub(crate) replacement: Option<Vec<f32>>,
}

/// What a version changes in one block.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LayerChange {
    pub(crate) qkv: SlotChange,
    pub(crate) o: SlotChange,
    pub(crate) gate_up: SlotChange,
    pub(crate) down: SlotChange,
    pub(crate) input_norm: Option<Vec<f32>>,
    pub(crate) post_norm: Option<Vec<f32>>,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) attention_out_norm: Option<Vec<f32>>,
    pub(crate) mlp_out_norm: Option<Vec<f32>>,
}

impl LayerChange {
    /// The norms that it changes, by their names in Hugging Face's models.
    pub(crate) fn norms(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        [
            ("input_layernorm", &self.input_norm),
            ("post_attention_layernorm", &self.post_norm),
            ("self_attn.q_norm", &self.q_norm),
            ("self_attn.k_norm", &self.k_norm),
            ("post_self_attn_layernorm", &self.attention_out_norm),
            ("post_mlp_layernorm", &self.mlp_out_norm),
        ]
        .into_iter()
        .filter_map(|(name, norm)| Some((name, norm.as_deref()?)))
    }

    /// Takes every norm of the base that it does not have yet.
    pub(crate) fn train_norms(&mut self, base: &LayerWeights) {
        self.input_norm.get_or_insert_with(|| base.input_norm.clone());
        self.post_norm.get_or_insert_with(|| base.post_norm.clone());
        for (norm, base) in [
            (&mut self.q_norm, &base.q_norm),
            (&mut self.k_norm, &base.k_norm),
            (&mut self.attention_out_norm, &base.attention_out_norm),
            (&mut self.mlp_out_norm, &base.mlp_out_norm),
        ] {
            if norm.is_none() {
                norm.clone_from(base);
            }
        }
    }

    pub(crate) fn slot(&self, slot: Slot) -> &SlotChange {
        match slot {
            Slot::Qkv => &self.qkv,
            Slot::O => &self.o,
            Slot::GateUp => &self.gate_up,
            Slot::Down => &self.down,
        }
    }

    pub(crate) fn slot_mut(&mut self, slot: Slot) -> &mut SlotChange {
        match slot {
            Slot::Qkv => &mut self.qkv,
            Slot::O => &mut self.o,
            Slot::GateUp => &mut self.gate_up,
            Slot::Down => &mut self.down,
        }
    }
}

/// All that a version changes in the base model, with layers as they are trained or in another form.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AdapterWeights<L = LayerChange> {
    pub(crate) scale: f32,
    /// The numerator of `scale`, as it is written.
    pub(crate) alpha: f32,
    /// Whether `scale` is `alpha / √rank` rather than `alpha / rank`.
    pub(crate) stabilised: bool,
    pub(crate) layers: Vec<L>,
    pub(crate) embed: Option<Vec<f32>>, // [vocab, hidden]
    pub(crate) norm: Option<Vec<f32>>,  // [hidden]
}

impl AdapterWeights {
    /// A fresh adapter that changes nothing yet: `A` uniform as PEFT draws it (Kaiming with a = √5, so within
    /// ±1/√d_in), `B` zero; embedding and norms as the base has them where `hyper` trains them.
    pub(crate) fn fresh(model: &Model, hyper: &HyperParameters, seed: u64) -> Result<Self> {
        let config = model.config();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let projections = trained_projections(&hyper.target_modules, config)?;
        let rank = hyper.rank as usize;
        if rank == 0 && !projections.is_empty() {
            return Err(EngineError::Request("an adapter of rank 0 cannot learn".into()));
        }
        let chosen = chosen_layers(&hyper.layers_to_transform, config.num_layers)?;
        let mut layers = Vec::with_capacity(config.num_layers);
        for (at, base) in model.weights().layers.iter().enumerate() {
            let mut layer = LayerChange::default();
            for projection in projections.iter().filter(|_| chosen[at]) {
                let d_in = projection.d_in(config);
                let bound = 1.0 / (d_in as f32).sqrt();
                let rows = projection.rows(config);
                let a = (0..rank * d_in).map(|_| random.random_range(-bound..bound)).collect();
                let b = vec![0.0; rows.len() * rank];
                layer.slot_mut(projection.slot()).loras.push(Lora {
                    projection: *projection,
                    rank,
                    rows,
                    a,
                    b,
                });
            }
            if hyper.train_norms {
                layer.train_norms(base);
            }
            layers.push(layer);
        }
        let base = model.weights();
        Ok(Self {
            scale: if rank == 0 { 0.0 } else { lora_scale(hyper.alpha, rank, hyper.use_rslora) },
            alpha: hyper.alpha,
            stabilised: hyper.use_rslora,
            layers,
            embed: hyper.train_embedding.then(|| base.embed.matrix.to_rows()),
            norm: hyper.train_norms.then(|| base.norm.clone()),
        })
    }

    /// Every weight of the base, to be trained: pretraining.
    pub(crate) fn everything(model: &Model) -> Self {
        let base = model.weights();
        let replaced =
            |weight: &Matrix| SlotChange { loras: Vec::new(), replacement: Some(weight.to_rows()) };
        let layers = base
            .layers
            .iter()
            .map(|layer| LayerChange {
                qkv: replaced(&layer.qkv.weight.matrix),
                o: replaced(&layer.o.weight.matrix),
                gate_up: replaced(&layer.gate_up.weight.matrix),
                down: replaced(&layer.down.weight.matrix),
                input_norm: Some(layer.input_norm.clone()),
                post_norm: Some(layer.post_norm.clone()),
                q_norm: layer.q_norm.clone(),
                k_norm: layer.k_norm.clone(),
                attention_out_norm: layer.attention_out_norm.clone(),
                mlp_out_norm: layer.mlp_out_norm.clone(),
            })
            .collect();
        let (embed, norm) = (Some(base.embed.matrix.to_rows()), Some(base.norm.clone()));
        Self { layers, embed, norm, ..Self::default() }
    }

    /// No change at all.
    pub(crate) fn unchanged(model: &Model) -> Self {
        Self { layers: vec![LayerChange::default(); model.config().num_layers], ..Self::default() }
    }

    /// The matrix that turns hidden states into logits: the trained embedding where `base` ties them.
    pub(crate) fn output<'a>(&'a self, base: &'a BaseWeights) -> Weights<'a> {
        Weights::of(base.output(), if base.lm_head.is_none() { self.embed.as_deref() } else { None })
    }

    /// The same tensors, all zero.
    pub(crate) fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.tensors_mut().into_iter().for_each(|(tensor, _)| tensor.fill(0.0));
        zeros
    }

    /// Every tensor, in a fixed order, with whether weight decay is for it (matrices, not norms).
    pub(crate) fn tensors_mut(&mut self) -> Vec<(&mut [f32], bool)> {
        let mut all: Vec<(&mut [f32], bool)> = Vec::new();
        for layer in &mut self.layers {
            for slot in [&mut layer.qkv, &mut layer.o, &mut layer.gate_up, &mut layer.down] {
                for lora in &mut slot.loras {
                    all.push((&mut lora.a, true));
                    all.push((&mut lora.b, true));
                }
                all.extend(slot.replacement.as_deref_mut().map(|tensor| (tensor, true)));
            }
            let norms = [
                &mut layer.input_norm,
                &mut layer.post_norm,
                &mut layer.q_norm,
                &mut layer.k_norm,
                &mut layer.attention_out_norm,
                &mut layer.mlp_out_norm,
            ];
            for norm in norms {
                all.extend(norm.as_deref_mut().map(|tensor| (tensor, false)));
            }
        }
        all.extend(self.embed.as_deref_mut().map(|tensor| (tensor, true)));
        all.extend(self.norm.as_deref_mut().map(|tensor| (tensor, false)));
        all
    }
}

/// What the delta of an adapter is multiplied by: `alpha / rank` (Hu et al. 2021), or `alpha / √rank` where it is
/// stabilised (Kalajdzievski 2023, theorem 3.2).
pub(crate) fn lora_scale(alpha: f32, rank: usize, stabilised: bool) -> f32 {
    let rank = rank as f32;
    alpha / if stabilised { rank.sqrt() } else { rank }
}

/// Which of `count` layers are among `layers`; all of them where none is named.
pub(crate) fn chosen_layers(layers: &[u32], count: usize) -> Result<Vec<bool>> {
    let mut chosen = vec![layers.is_empty(); count];
    for &layer in layers {
        let layer_chosen = chosen.get_mut(layer as usize).ok_or_else(|| {
            EngineError::Adapter(format!(
                "layer {layer} cannot be adapted: the model has {count} (counted from 0)"
            ))
        })?;
        *layer_chosen = true;
    }
    Ok(chosen)
}

/// The projections that a run trains: as [`named_projections`], but where gate and up are one matrix, either
/// name stands for it, so that one setting does for every family.
fn trained_projections(names: &[String], config: &ModelConfig) -> Result<Vec<Projection>> {
    let halves = [Projection::Gate.name(), Projection::Up.name()];
    let fused = |name: &String| match config.fused_gate_up && halves.contains(&name.as_str()) {
        true => Projection::GateUp.name().to_owned(),
        false => name.clone(),
    };
    named_projections(&names.iter().map(fused).collect::<Vec<_>>(), config)
}

/// The projections of a model that `names` names.
pub(crate) fn named_projections(names: &[String], config: &ModelConfig) -> Result<Vec<Projection>> {
    let mut found = names
        .iter()
        .map(|name| {
            let projection = Projection::all(config).iter().find(|projection| projection.name() == name);
            projection.copied().ok_or_else(|| {
                EngineError::Adapter(format!("`{name}` is not a projection that can carry an adapter"))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    found.sort();
    found.dedup();
    Ok(found)
}
