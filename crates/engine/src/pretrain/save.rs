//! Writing a model folder in Hugging Face's form.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};

use super::{PretrainOptions, PretrainProgress, vocabulary::Vocabulary};
use crate::{
    EngineError, ModelConfig, Result,
    adapter::{AdapterWeights, Projection},
};

/// The chat template of the marks in `vocabulary::SPECIAL_TOKENS`.
const CHAT_TEMPLATE: &str = "{%- for message in messages -%}\
{{- '<|' + message.role + '|>' + message.content -}}\
{%- if message.role == 'assistant' -%}{{- '<|end|>' -}}{%- endif -%}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}";

/// Writes the folder; the weights go to a temporary name first, so that a reader never sees half a file.
pub(super) fn save(
    folder: &Path,
    config: &ModelConfig,
    weights: &AdapterWeights,
    vocabulary: &Vocabulary,
    options: &PretrainOptions,
    progress: &PretrainProgress,
) -> Result<()> {
    let failed = |error: std::io::Error| EngineError::file(folder, &error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let write = |name: &str, bytes: &[u8]| {
        let (target, partial) = (folder.join(name), folder.join(format!(".{name}.partial")));
        std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, &target)).map_err(failed)
    };
    write("config.json", config.to_json().as_bytes())?;
    let tokenizer =
        vocabulary.tokenizer.to_string(false).map_err(|e| EngineError::Tokenizer(e.to_string()))?;
    write("tokenizer.json", tokenizer.as_bytes())?;
    let tokenizer_config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": false,
        "model_max_length": config.max_position_embeddings,
    });
    write("tokenizer_config.json", format!("{tokenizer_config:#}\n").as_bytes())?;
    write("chat_template.jinja", CHAT_TEMPLATE.as_bytes())?;
    let record = serde_json::json!({
        "hyper_parameters": PretrainOptions { corpus: Vec::new(), out: "".into(), from: None, ..options.clone() },
        "continued": options.from.is_some(),
        "result": progress,
    });
    write("pretrain.json", format!("{record:#}\n").as_bytes())?;
    write("model.safetensors", &serialize(config, weights)?)
}

/// All weights as bf16 safetensors under Hugging Face's names.
fn serialize(config: &ModelConfig, weights: &AdapterWeights) -> Result<Vec<u8>> {
    let hidden = config.hidden_size;
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, values: &[f32]| {
        let bytes = values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
        tensors.push((name, shape, bytes));
    };
    let missing = || EngineError::Internal("a pretrained model lacks a weight".into());
    add(
        "model.embed_tokens.weight".into(),
        vec![config.vocab_size, hidden],
        weights.embed.as_deref().ok_or_else(missing)?,
    );
    add("model.norm.weight".into(), vec![hidden], weights.norm.as_deref().ok_or_else(missing)?);
    for (at, layer) in weights.layers.iter().enumerate() {
        for &projection in Projection::all(config) {
            let stacked = layer.slot(projection.slot()).replacement.as_deref().ok_or_else(missing)?;
            let (rows, d_in) = (projection.rows(config), projection.d_in(config));
            let name = format!("model.layers.{at}.{}.{}.weight", projection.parent(), projection.name());
            add(name, vec![rows.len(), d_in], &stacked[rows.start * d_in..rows.end * d_in]);
        }
        for (name, norm) in layer.norms() {
            add(format!("model.layers.{at}.{name}.weight"), vec![norm.len()], norm);
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(Dtype::BF16, shape.clone(), bytes)
                .map(|view| (name.as_str(), view))
                .map_err(|error| EngineError::Internal(error.to_string()))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize(views, metadata).map_err(|error| EngineError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, weights::BaseWeights};

    /// With the norms that only some families have, and gate and up as one where they are.
    #[test]
    fn what_is_written_of_each_family_reads_back() {
        for family in ["llama", "qwen3", "glm4"] {
            let config = serde_json::json!({
                "model_type": family, "vocab_size": 23, "hidden_size": 8, "intermediate_size": 12,
                "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
                "attention_bias": false, "tie_word_embeddings": true,
            });
            let config = ModelConfig::from_json(&config.to_string()).unwrap();
            let model = Model::random(config, 3).unwrap();
            let mut trained = AdapterWeights::everything(&model);
            // What bfloat16 holds as it is; each value differs from its neighbours and from the base's.
            for (at, (tensor, _)) in trained.tensors_mut().into_iter().enumerate() {
                tensor.iter_mut().enumerate().for_each(|(i, value)| *value = ((at + i) % 64) as f32 / 32.0);
            }
            let folder = tempfile::tempdir().unwrap();
            let bytes = serialize(model.config(), &trained).unwrap();
            std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
            let read = BaseWeights::load(folder.path(), model.config(), None).unwrap();
            let expected = BaseWeights::with_replacements(model.weights(), trained).unwrap();
            assert_eq!(read.hash(), expected.hash(), "{family}");
        }
    }
}
