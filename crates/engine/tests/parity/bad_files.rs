//! Files that are not what they should be: each gets an error that names it, and nothing panics.

use std::path::Path;

use autoglm_domain::{Adapter, ErrorKind};
use autoglm_engine::{Decoder as _, EngineError, Model};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use crate::{base_of, fixture, read_adapter};

/// A copy of a family's folder with one file changed.
fn changed_model(family: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("families").join(family)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.path().join(file);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
    let error = Model::load(copy.path()).unwrap_err();
    // The folder's name differs from run to run.
    message(&error).replace(&copy.path().display().to_string(), "DIR")
}

fn message(error: &EngineError) -> String {
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound), "{error}: {:?}", error.kind());
    match (error, error.hint()) {
        // What to do about a configuration depends on what is wrong with it.
        (EngineError::Config { .. }, Some(hint)) => format!("{error}; hint: {hint}"),
        (EngineError::Config { .. }, None) => error.to_string(),
        (_, hint) => {
            assert!(hint.is_some(), "{error} has no hint");
            error.to_string()
        }
    }
}

fn edit(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    change(&mut value);
    value.to_string().into_bytes()
}

#[test]
fn truncated_weights() {
    let error = changed_model("llama", "model.safetensors", |bytes| bytes[..bytes.len() / 2].to_vec());
    assert_eq!(
        error,
        "weights: DIR/model.safetensors is not whole safetensors: incomplete metadata, file not fully covered"
    );
    let error = changed_model("llama", "model.safetensors", |bytes| bytes[..5].to_vec());
    assert_eq!(error, "weights: DIR/model.safetensors is not whole safetensors: header too small");
    let error = changed_model("llama", "model.safetensors", |_| Vec::new());
    assert!(error.starts_with("weights: DIR/model.safetensors is not whole safetensors"), "{error}");
}

#[test]
fn a_header_longer_than_the_file() {
    let error = changed_model("llama", "model.safetensors", |mut bytes| {
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes
    });
    assert!(error.starts_with("weights: DIR/model.safetensors is not whole safetensors"), "{error}");
}

/// The file with its header changed; the data behind it stays.
fn with_header(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(&bytes[8..end], change);
    [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[end..]].concat()
}

/// Shapes and offsets that lie about the data, in one file and in a shard; none of it is believed long enough to
/// reserve memory for it.
#[test]
fn a_header_that_lies() {
    const NAME: &str = "model.embed_tokens.weight";
    let lies = [
        json!({"dtype": "F32", "shape": [96, 33], "data_offsets": [0, 12288]}),
        json!({"dtype": "F32", "shape": [1u64 << 40, 1u64 << 40], "data_offsets": [0, 12288]}),
        json!({"dtype": "F32", "shape": [u64::MAX, 2], "data_offsets": [0, 12288]}),
        json!({"dtype": "F32", "shape": [96, 32], "data_offsets": [12288, 0]}),
        json!({"dtype": "F32", "shape": [96, 32], "data_offsets": [4, 12292]}),
        json!({"dtype": "F32", "shape": [96, 32], "data_offsets": [u64::MAX - 12288, u64::MAX]}),
        json!({"dtype": "F32", "shape": [96, -32], "data_offsets": [0, 12288]}),
        json!({"dtype": "F99", "shape": [96, 32], "data_offsets": [0, 12288]}),
        json!({"shape": [96, 32]}),
        json!(7),
    ];
    for (family, file) in
        [("llama", "model.safetensors"), ("qwen3_sharded", "model-00001-of-00003.safetensors")]
    {
        for lie in &lies {
            let error =
                changed_model(family, file, |bytes| with_header(&bytes, |header| header[NAME] = lie.clone()));
            assert!(
                error.starts_with(&format!("weights: DIR/{file} is not whole safetensors: ")),
                "{lie}: {error}"
            );
        }
    }
}

#[test]
fn shards_that_lack_a_tensor_or_hold_one_twice() {
    let shard = "model-00002-of-00003.safetensors";
    let name = |bytes: &[u8]| -> String {
        let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
        header.as_object().unwrap().keys().find(|key| *key != "__metadata__").unwrap().clone()
    };
    let renamed = |new: &'static str| {
        changed_model("qwen3_sharded", shard, |bytes| {
            let old = name(&bytes);
            with_header(&bytes, |header| {
                let entry = header.as_object_mut().unwrap().remove(&old).unwrap();
                header[new] = entry;
            })
        })
    };
    assert!(renamed("model.layers.0.self_attn.unknown.weight").ends_with("is missing"));
    let twice = renamed("model.embed_tokens.weight");
    assert_eq!(twice, "weights: `model.embed_tokens.weight` is in more than one shard");
}

#[test]
fn weights_of_another_shape() {
    let error = changed_model("llama", "config.json", |bytes| {
        edit(&bytes, |config| config["intermediate_size"] = json!(64))
    });
    assert_eq!(
        error,
        "weights: `model.layers.0.mlp.gate_proj.weight` has shape [48, 32] where the configuration says [64, 32]"
    );
}

#[test]
fn layers_too_many_and_too_few() {
    let layers = |count: u32| {
        changed_model("llama", "config.json", |bytes| {
            edit(&bytes, |config| config["num_hidden_layers"] = json!(count))
        })
    };
    assert_eq!(layers(3), "weights: `model.layers.2.input_layernorm.weight` is missing");
    assert_eq!(layers(1), "weights: `model.layers.1.input_layernorm.weight` has no place in a Llama model");
}

#[test]
fn an_index_that_names_a_file_elsewhere() {
    for name in ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".."] {
        let error = changed_model("qwen3_sharded", "model.safetensors.index.json", |bytes| {
            edit(&bytes, |index| index["weight_map"]["model.norm.weight"] = json!(name))
        });
        assert_eq!(error, format!("weights: the index names `{name}`, which is not a plain file name"));
    }
}

#[test]
fn an_index_that_names_a_file_that_is_not_there() {
    let error = changed_model("qwen3_sharded", "model.safetensors.index.json", |bytes| {
        edit(&bytes, |index| index["weight_map"]["model.norm.weight"] = json!("gone.safetensors"))
    });
    assert_eq!(error, "cannot read `DIR/gone.safetensors`: No such file or directory (os error 2)");
}

#[test]
fn a_configuration_key_that_nobody_knows() {
    let with = |key: &str, value: Value| {
        changed_model("llama", "config.json", |bytes| edit(&bytes, |config| config[key] = value))
    };
    assert_eq!(
        with("hidden_sise", json!(32)),
        "config.json: unknown key `hidden_sise`; hint: did you mean `hidden_size`?"
    );
    assert_eq!(
        with("flux_capacitance", json!(1.21)),
        "config.json: unknown key `flux_capacitance`; hint: it may change the arithmetic; remove it if it does not"
    );
    assert_eq!(
        with("quantization_config", json!({"bits": 4})),
        "config.json: `quantization_config` changes the arithmetic and is not supported; \
         hint: serve this model through an upstream that knows it"
    );
}

/// The tensors of the fixture adapter, changed, as a new adapter for its model; the error it gives.
fn changed_adapter(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> String {
    let folder = fixture("adapters/plain");
    let path = folder.join("adapter_model.safetensors");
    let mut tensors: Vec<_> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    change(&mut tensors);
    let file = tempfile::NamedTempFile::new().unwrap();
    candle_core::safetensors::save(&tensors.into_iter().collect(), file.path()).unwrap();
    refused(&folder, |adapter| adapter.weights = std::fs::read(file.path()).unwrap())
}

/// The error that the adapter of `folder` gives once `change` was made.
fn refused(folder: &Path, change: impl FnOnce(&mut Adapter)) -> String {
    let mut adapter = read_adapter(folder);
    change(&mut adapter);
    message(&Model::load(&base_of(folder)).unwrap().load_adapter(&adapter).unwrap_err())
}

/// The error after one key of `adapter_config.json` was set.
fn with_adapter_key(key: &str, value: Value) -> String {
    refused(&fixture("adapters/plain"), |adapter| {
        adapter.config = edit(&adapter.config, |config| config[key] = value);
    })
}

const FIRST: &str = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";

#[test]
fn an_adapter_with_values_that_are_not_numbers() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let error = changed_adapter(|tensors| {
            let (shape, mut values) =
                (tensors[0].1.shape().clone(), tensors[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            values[7] = value;
            tensors[0].1 = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        });
        assert_eq!(error, format!("adapter: `{FIRST}` holds {name} at position 7"));
    }
}

#[test]
fn an_adapter_of_another_shape() {
    let error = changed_adapter(|tensors| tensors[0].1 = tensors[0].1.t().unwrap().contiguous().unwrap());
    assert_eq!(error, format!("adapter: `{FIRST}` has shape [48, 4] where the base model needs [4, 48]"));
    assert_eq!(
        with_adapter_key("r", json!(8)),
        "adapter: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` has shape [4, 32] \
         where the base model needs [8, 32]"
    );
}

#[test]
fn an_adapter_with_a_tensor_missing_or_too_many() {
    let error = changed_adapter(|tensors| drop(tensors.remove(0)));
    assert_eq!(error, "adapter: `base_model.model.model.layers.0.mlp.down_proj` has no lora_A and lora_B");
    let error = changed_adapter(|tensors| {
        let extra = tensors[0].1.clone();
        tensors.push((FIRST.replace("layers.0", "layers.7"), extra));
    });
    assert_eq!(
        error,
        "adapter: `base_model.model.model.layers.7.mlp.down_proj.lora_A.weight` has no place in this model"
    );
}

#[test]
fn an_adapter_of_whole_numbers() {
    let error = changed_adapter(|tensors| tensors[0].1 = tensors[0].1.to_dtype(DType::U8).unwrap());
    assert_eq!(error, format!("adapter: `{FIRST}` holds U8, not floats"));
}

#[test]
fn a_pickled_adapter() {
    // What `torch.save` writes is a zip archive; before version 1.6 it was a bare pickle of protocol 2.
    for begin in [&b"PK\x03\x04"[..], b"\x80\x02}q\x00."] {
        let error = refused(&fixture("adapters/plain"), |adapter| {
            adapter.weights.splice(..0, begin.iter().copied());
        });
        assert_eq!(error, "adapter: adapter_model.safetensors is a pickled file; only safetensors are read");
    }
}

#[test]
fn a_truncated_adapter() {
    let error = refused(&fixture("adapters/plain"), |adapter| {
        adapter.weights.truncate(1000);
    });
    assert!(error.starts_with("adapter: adapter_model.safetensors is not whole safetensors: "), "{error}");
}

#[test]
fn an_adapter_of_a_kind_that_is_not_computed() {
    assert_eq!(
        with_adapter_key("peft_type", json!("IA3")),
        "adapter: adapter_config.json: `peft_type` must be \"LORA\""
    );
    for (key, value) in [
        ("use_dora", json!(true)),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alora_invocation_tokens", json!([3])),
        ("kasa_config", json!({"beta": 1})),
        ("use_bdlora", json!({"nblocks": 2})),
    ] {
        assert_eq!(
            with_adapter_key(key, value),
            format!("adapter: adapter_config.json: `{key}` is on, which is not computed here")
        );
    }
    // These change the base weights when the adapter is made, so it only fits the changed ones.
    for kind in ["pissa", "pissa_niter_4", "olora", "corda"] {
        assert_eq!(
            with_adapter_key("init_lora_weights", json!(kind)),
            format!(
                "adapter: adapter_config.json: `init_lora_weights` \"{kind}\" changes the base weights; \
                 save the adapter with PEFT's `path_initial_model_for_weight_conversion`"
            )
        );
    }
    assert_eq!(
        with_adapter_key("target_modules", json!(["q_proj", "lm_head"])),
        "adapter: `lm_head` is not a projection that can carry an adapter"
    );
}

/// PEFT then trains the embedding beside an output matrix that stays as it was; here they are one.
#[test]
fn a_trained_embedding_that_was_not_tied() {
    let error = refused(&fixture("adapters/saved"), |adapter| {
        adapter.config = edit(&adapter.config, |config| config["ensure_weight_tying"] = json!(false));
    });
    assert_eq!(
        error,
        "adapter: the embedding was trained apart from the output matrix that the base model ties to it; \
         train it with PEFT's `ensure_weight_tying`"
    );
}
