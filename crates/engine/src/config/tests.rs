use serde_json::{Value, json};

use super::*;

/// As transformers 4 wrote it for Llama 3.1 8B, with the keys that matter.
fn llama31() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256
    })
}

/// As transformers 5.23 writes it: `Qwen3Config(...).to_json_string()`.
fn qwen3() -> Value {
    json!({
        "_name_or_path": "", "architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": null, "chunk_size_feed_forward": 0, "dtype": null,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
        "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02, "intermediate_size": 3072,
        "is_encoder_decoder": false, "label2id": {"LABEL_0": 0},
        "layer_types": vec!["full_attention"; 28], "max_position_embeddings": 40960,
        "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "output_attentions": false, "output_hidden_states": false,
        "pad_token_id": null, "problem_type": null, "return_dict": true, "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "sliding_window": null,
        "tie_word_embeddings": true, "transformers_version": "5.23.0", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936
    })
}

fn read(value: &Value) -> Result<ModelConfig> {
    ModelConfig::from_json(&value.to_string())
}

/// `base` with some keys set; a `null` of the patch removes nothing.
fn with(mut base: Value, patch: Value) -> Value {
    base.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    base
}

fn refusal(base: Value, patch: Value) -> String {
    read(&with(base, patch)).unwrap_err().to_string()
}

#[test]
fn the_forms_of_transformers_4_and_5_are_read() {
    let llama = read(&llama31()).unwrap();
    assert_eq!((llama.family, llama.head_dim, llama.num_kv_heads), (Family::Llama, 128, 8));
    assert_eq!(llama.eos_token_ids, [128001, 128008, 128009]);
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    assert_eq!(llama.rope, RopeConfig::whole(500_000.0, scaling.clone()));
    // The same model in the new form.
    let mut new = llama31();
    let object = new.as_object_mut().unwrap();
    let mut table = object.remove("rope_scaling").unwrap();
    table["rope_theta"] = object.remove("rope_theta").unwrap();
    object.insert("rope_parameters".into(), table);
    assert_eq!(read(&new).unwrap(), llama);

    let qwen = read(&qwen3()).unwrap();
    assert!(qwen.qk_norm && qwen.tie_word_embeddings && !qwen.attention_bias);
    assert_eq!((qwen.head_dim, qwen.rope.theta, qwen.bos_token_id), (128, 1e6, None));
}

#[test]
fn qwen2_has_biases_on_q_k_v_only_and_its_idle_window_is_no_matter() {
    let qwen2 = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936,
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "max_position_embeddings": 32768, "max_window_layers": 21,
        "sliding_window": 32768, "use_sliding_window": false, "rope_theta": 1000000.0, "use_mrope": false
    });
    let config = read(&qwen2).unwrap();
    assert!(config.attention_bias && !config.attention_out_bias && !config.mlp_bias && !config.qk_norm);
    assert_eq!(config.head_dim, 64);
    assert_eq!((config.sliding_window, config.window(23)), (None, None));
}

/// As `zai-org/GLM-4-9B-0414` has it, with the keys that matter.
fn glm4() -> Value {
    json!({
        "architectures": ["Glm4ForCausalLM"], "model_type": "glm4", "attention_bias": true,
        "attention_dropout": 0.0, "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 13696,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 2, "pad_token_id": 151329, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "vocab_size": 151552
    })
}

/// As `mistralai/Mistral-7B-v0.1` has it, with the keys that matter.
fn mistral() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": false, "vocab_size": 32000
    })
}

/// A small Qwen2 with its window switched on.
fn windowed_qwen2() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 320, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "use_sliding_window": true, "sliding_window": 16, "max_window_layers": 3
    })
}

#[test]
fn glm_rotates_half_of_each_head_in_neighbouring_pairs() {
    let config = read(&glm4()).unwrap();
    assert!(config.rope.interleaved && config.fused_gate_up && config.branch_norms);
    assert!(config.attention_bias && !config.attention_out_bias && !config.mlp_bias && !config.qk_norm);
    assert_eq!((config.head_dim, config.rotary_dim()), (128, 64));
    // GLM-4 of 2024 is the same without the norms behind the branches; transformers 5 moved the factor.
    let moved = json!({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25});
    let glm = json!({"model_type": "glm", "architectures": ["GlmForCausalLM"], "partial_rotary_factor": null,
        "rope_parameters": moved});
    let config = read(&with(glm4(), glm)).unwrap();
    assert_eq!((config.branch_norms, config.rotary_dim()), (false, 32));
    // Where nothing is said of it, the class's defaults hold.
    let bare = json!({"partial_rotary_factor": null, "attention_bias": null, "eos_token_id": null,
        "rms_norm_eps": null});
    let config = read(&with(glm4(), bare)).unwrap();
    assert!(config.attention_bias);
    assert_eq!((config.rotary_dim(), config.rms_norm_eps), (64, 1.5625e-7));
    assert_eq!(config.eos_token_ids, [151329, 151336, 151338]);
    for (patch, message) in [
        (json!({"partial_rotary_factor": 1.5}), "`partial_rotary_factor` is 1.5"),
        (json!({"partial_rotary_factor": -0.5}), "`partial_rotary_factor` is -0.5"),
        (json!({"partial_rotary_factor": 0.001}), "rotates 0 of 128 values"),
        (json!({"head_dim": 6}), "rotates 3 of 6 values"),
        (json!({"mlp_bias": true}), "`mlp_bias` is not supported for Glm4ForCausalLM"),
        (
            json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}),
            "`partial_rotary_factor` is 0.5 and 0.25 at once",
        ),
        (json!({"sliding_window": 512}), "`sliding_window` changes the arithmetic"),
    ] {
        let error = refusal(glm4(), patch);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn mistral_looks_through_its_window_in_every_block() {
    let config = read(&mistral()).unwrap();
    assert_eq!((config.window(0), config.window(31)), (Some(4096), Some(4096)));
    // From version 0.2 it is null, which is none; a missing key is transformers' default.
    assert_eq!(read(&with(mistral(), json!({"sliding_window": null}))).unwrap().sliding_window, None);
    let mut silent = mistral();
    silent.as_object_mut().unwrap().remove("sliding_window");
    assert_eq!(read(&silent).unwrap().sliding_window, Some(4096));
    // One that no text outgrows is none.
    assert_eq!(read(&with(mistral(), json!({"sliding_window": 32768}))).unwrap().sliding_window, None);
    for (patch, message) in [
        (json!({"sliding_window": 0}), "`sliding_window` is 0; it must be from 1"),
        (json!({"sliding_window": -4096}), "`sliding_window` is -4096; it must be from 1"),
        (json!({"sliding_window": 1e18}), "`sliding_window` is"),
        (json!({"sliding_window": "wide"}), "`sliding_window` is \"wide\""),
        (json!({"use_sliding_window": false}), "`use_sliding_window` is off and `sliding_window` is set"),
        (json!({"layer_types": vec!["full_attention"; 32]}), "`layer_types` changes the arithmetic"),
        (json!({"attention_bias": true}), "`attention_bias` is not supported for MistralForCausalLM"),
    ] {
        let error = refusal(mistral(), patch);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn qwen_looks_through_its_window_where_it_is_told_to() {
    let windows = |patch: Value| -> Vec<Option<usize>> {
        let config = read(&with(windowed_qwen2(), patch)).unwrap();
        (0..4).map(|layer| config.window(layer)).collect()
    };
    assert_eq!(windows(json!({})), [None, None, None, Some(16)]);
    assert_eq!(windows(json!({"max_window_layers": 0})), [Some(16); 4]);
    assert_eq!(windows(json!({"max_window_layers": null})), [None; 4]);
    assert_eq!(windows(json!({"sliding_window": 128})), [None; 4]);
    let (full, sliding) = ("full_attention", "sliding_attention");
    let kinds = json!({"layer_types": [sliding, full, sliding, full]});
    assert_eq!(windows(kinds.clone()), [Some(16), None, Some(16), None]);
    for (patch, message) in [
        (json!({"max_window_layers": -1}), "`max_window_layers` is -1"),
        (json!({"layer_types": [full, full]}), "`layer_types` has 2 entries for 4 layers"),
        (json!({"layer_types": [full, full, full, "chunked_attention"]}), "layer type \"chunked_attention\""),
        (json!({"layer_types": "sliding"}), "`layer_types` \"sliding\" is not a list"),
        (with(kinds, json!({"use_sliding_window": false})), "no `sliding_window` is switched on"),
    ] {
        let error = refusal(windowed_qwen2(), patch);
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn keys_that_change_the_arithmetic_are_refused_by_name() {
    for (key, value) in [
        ("sliding_window", json!(4096)),
        ("quantization_config", json!({"bits": 4})),
        ("pretraining_tp", json!(2)),
        ("partial_rotary_factor", json!(0.5)),
        ("attn_logit_softcapping", json!(50.0)),
        ("residual_multiplier", json!(0.22)),
        ("num_experts", json!(8)),
        ("layer_types", json!(vec!["sliding_attention"; 32])),
        ("use_sliding_window", json!(true)),
    ] {
        let error = refusal(llama31(), json!({key: value}));
        assert_eq!(error, format!("config.json: `{key}` changes the arithmetic and is not supported"));
        // Said to be off, it does not matter.
        assert!(read(&with(llama31(), json!({key: null}))).is_ok(), "{key}");
    }
    assert!(refusal(llama31(), json!({"hidden_act": "gelu"})).contains("`hidden_act` \"gelu\""));
    assert!(refusal(llama31(), json!({"rope_scaling": {"rope_type": "longrope"}})).contains("`longrope`"));
    let mrope = json!({"rope_scaling": {"rope_type": "default", "mrope_section": [1, 2, 3]}});
    assert!(refusal(llama31(), mrope).contains("unknown key `mrope_section`"));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    let error = read(&with(llama31(), json!({"rms_norm_epsilon": 1e-6}))).unwrap_err();
    assert_eq!(error.to_string(), "config.json: unknown key `rms_norm_epsilon`");
    assert_eq!(error.hint().unwrap(), "did you mean `rms_norm_eps`?");
    let far = read(&with(llama31(), json!({"zzz": 1}))).unwrap_err();
    assert!(far.hint().unwrap().contains("may change the arithmetic"));
}

#[test]
fn contradictions_and_absurd_sizes_are_refused() {
    for (patch, message) in [
        (json!({"num_attention_heads": 0}), "`num_attention_heads` is 0"),
        (json!({"num_attention_heads": 30, "head_dim": 128}), "not a multiple of `num_key_value_heads`"),
        (json!({"num_attention_heads": 24}), "`hidden_size` 4096 is not a multiple"),
        (json!({"hidden_size": 1e12}), "`hidden_size` is"),
        (json!({"vocab_size": "many"}), "`vocab_size` is \"many\""),
        (json!({"head_dim": 127}), "a head of 127 cannot be rotated"),
        (json!({"eos_token_id": 128256}), "token 128256 is outside the vocabulary"),
        (json!({"rms_norm_eps": 0}), "`rms_norm_eps` is 0"),
        (json!({"rms_norm_eps": 1e-51}), "`rms_norm_eps` is 0.00000"),
        (json!({"rope_theta": -1}), "`rope_theta` is -1"),
        (json!({"rope_parameters": {"rope_theta": 1e4}}), "contradict each other"),
        (json!({"model_type": "qwen3"}), "`architectures` says LlamaForCausalLM"),
        (json!({"architectures": ["GPT2LMHeadModel"]}), "architecture `GPT2LMHeadModel` is not supported"),
    ] {
        let error = refusal(llama31(), patch);
        assert!(error.contains(message), "{error}");
    }
    assert!(ModelConfig::from_json("{").unwrap_err().to_string().contains("not JSON"));
    assert!(ModelConfig::from_json("[]").unwrap_err().to_string().contains("not a JSON object"));
    assert!(ModelConfig::from_json("{}").unwrap_err().to_string().contains("neither `architectures`"));
}

/// Every size, with every value that is none: refused by name, before anything is made of that size.
#[test]
fn no_size_is_zero_negative_broken_or_absurd() {
    let keys = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "sliding_window",
    ];
    let values = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e30),
        json!(u64::MAX),
        json!(1u64 << 40),
        json!("8"),
        json!(true),
        json!([]),
    ];
    for base in [mistral(), glm4(), windowed_qwen2()] {
        for key in keys {
            for value in &values {
                let error = refusal(base.clone(), json!({key: value}));
                assert!(
                    error.contains(&format!("`{key}` is {value}; it must be from 1 to ")),
                    "{key} {value}: {error}"
                );
            }
        }
        // An even head that would be wider than any.
        assert!(
            refusal(base, json!({"head_dim": 4096}))
                .contains("`head_dim` is 4096; it must be from 1 to 1024")
        );
    }
    // A head's width that follows from the others is held to the same.
    let wide = json!({"hidden_size": 131_072, "num_attention_heads": 32, "num_key_value_heads": 8});
    assert!(refusal(llama31(), wide).contains("a head of 4096 cannot be rotated"));
}

/// Every architecture is there under its own name and no other.
#[test]
fn a_family_is_known_by_both_of_its_names() {
    for family in Family::ALL {
        let names = json!({"architectures": [family.architecture()], "model_type": family.model_type()});
        let config = read(&with(
            windowed_qwen2(),
            with(
                names,
                json!({"use_sliding_window": null,
            "sliding_window": null, "head_dim": 8}),
            ),
        ));
        assert_eq!(config.unwrap().family, family);
    }
    for (architecture, model_type) in [
        ("ChatGLMModel", "chatglm"),
        ("MixtralForCausalLM", "mixtral"),
        ("Qwen3MoeForCausalLM", "qwen3_moe"),
        ("Glm4MoeForCausalLM", "glm4_moe"),
        ("MinistralForCausalLM", "ministral"),
        ("LlamaForSequenceClassification", "llama"),
        ("CohereForCausalLM", "cohere"),
    ] {
        let error = refusal(mistral(), json!({"architectures": [architecture], "model_type": model_type}));
        assert_eq!(error, format!("config.json: architecture `{architecture}` is not supported"));
        let error =
            read(&with(mistral(), json!({"architectures": [architecture], "model_type": model_type})));
        assert!(error.unwrap_err().hint().unwrap().contains("Glm4ForCausalLM"));
    }
}

#[test]
fn what_is_written_reads_back() {
    let window =
        json!({"layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"]});
    for source in [
        llama31(),
        qwen3(),
        mistral(),
        with(mistral(), json!({"sliding_window": null})),
        glm4(),
        windowed_qwen2(),
        with(windowed_qwen2(), window),
    ] {
        let config = read(&source).unwrap();
        assert_eq!(ModelConfig::from_json(&config.to_json()), Ok(config));
    }
}

#[test]
fn the_end_tokens_of_the_generation_config_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let missing = ModelConfig::load(folder.path()).unwrap_err();
    assert!(matches!(missing, EngineError::File { missing: true, .. }), "{missing}");
    std::fs::write(folder.path().join("config.json"), qwen3().to_string()).unwrap();
    assert_eq!(ModelConfig::load(folder.path()).unwrap().eos_token_ids, [151645]);
    let generation = r#"{"eos_token_id": [151643, 151645], "do_sample": true}"#;
    std::fs::write(folder.path().join("generation_config.json"), generation).unwrap();
    assert_eq!(ModelConfig::load(folder.path()).unwrap().eos_token_ids, [151643, 151645]);
}
