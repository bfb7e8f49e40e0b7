//! Which keys of `config.json` are read, which do not matter, and which must hold their neutral value.

use serde_json::Value;

/// Keys that the reader takes a value from.
pub(super) const READ: &[&str] = &[
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "initializer_range",
];

/// Keys without influence on the logits: bookkeeping, training-only settings, generation defaults.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_dropout",
    "id2label",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// Keys that change the arithmetic unless they hold one of these values (`null` is always neutral).
const NEUTRAL_ONLY: &[(&str, Neutral)] = &[
    ("add_cross_attention", Neutral::False),
    ("alibi", Neutral::False),
    ("attention_multiplier", Neutral::Never),
    ("attention_out_bias", Neutral::Never),
    ("attn_logit_softcapping", Neutral::Never),
    ("auto_map", Neutral::Never),
    ("cross_attention_hidden_size", Neutral::Never),
    ("embedding_multiplier", Neutral::One),
    ("final_logit_softcapping", Neutral::Never),
    ("is_decoder", Neutral::Any),
    ("is_encoder_decoder", Neutral::False),
    ("logit_scale", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("no_rope_layers", Neutral::Never),
    ("num_experts", Neutral::Never),
    ("num_local_experts", Neutral::Never),
    ("pretraining_tp", Neutral::One),
    ("pruned_heads", Neutral::Empty),
    ("quantization_config", Neutral::Never),
    ("query_pre_attn_scalar", Neutral::Never),
    ("residual_multiplier", Neutral::One),
    ("rope_interleaved", Neutral::False),
    ("tie_encoder_decoder", Neutral::False),
    ("use_mrope", Neutral::False),
    ("use_qk_norm", Neutral::False),
];

/// Which values of a key leave the arithmetic as it is.
#[derive(Clone, Copy)]
enum Neutral {
    /// Every one; the key is known not to matter for these families.
    Any,
    /// None but `null`.
    Never,
    /// `false`.
    False,
    /// The number 1.
    One,
    /// An empty list or object.
    Empty,
}

/// What is to be done about a key.
pub(super) enum Judgement {
    /// It is read or does not matter.
    Fine,
    /// It is known, and its value changes the arithmetic.
    Unsupported,
    /// Nothing is known of it; the nearest known key, where one is near.
    Unknown(Option<&'static str>),
}

/// Judges one key of the configuration.
pub(super) fn judge(key: &str, value: &Value) -> Judgement {
    if READ.contains(&key) || HARMLESS.contains(&key) {
        return Judgement::Fine;
    }
    let Some((_, neutral)) = NEUTRAL_ONLY.iter().find(|(name, _)| *name == key) else {
        return Judgement::Unknown(nearest(key));
    };
    let fine = value.is_null()
        || match neutral {
            Neutral::Any => true,
            Neutral::Never => false,
            Neutral::False => value == false || value == 0,
            Neutral::One => value.as_f64() == Some(1.0),
            Neutral::Empty => {
                value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            }
        };
    if fine { Judgement::Fine } else { Judgement::Unsupported }
}

/// The known key with the fewest edits from `key`, if it is at most a third of its length away.
fn nearest(key: &str) -> Option<&'static str> {
    READ.iter()
        .chain(HARMLESS)
        .map(|known| (strsim::levenshtein(key, known), *known))
        .min()
        .filter(|(edits, _)| *edits <= key.chars().count() / 3)
        .map(|(_, known)| known)
}
