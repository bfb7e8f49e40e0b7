//! Every kind of bad adapter is refused, each with a finding that names what is wrong.

use autoglm_domain::Adapter;
use autoglm_registry::{ScanLimits, scan};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::adapters::{Peft, Q};

fn findings(peft: &Peft) -> Vec<String> {
    scan(&peft.adapter(), &ScanLimits::default())
}

/// Asserts that the only finding holds `expected`.
fn only(findings: &[String], expected: &str) {
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains(expected), "`{}` should hold `{expected}`", findings[0]);
}

#[test]
fn a_sound_adapter_passes_in_every_kind_of_number() {
    assert_eq!(findings(&Peft::new(1)), Vec::<String>::new());
    for (dtype, one) in [(Dtype::F16, [0x00, 0x3c]), (Dtype::BF16, [0x80, 0x3f])] {
        let mut peft = Peft::new(1);
        peft.tensors.insert(format!("{Q}.lora_A.weight"), (dtype, vec![2, 4], one.repeat(8)));
        assert_eq!(findings(&peft), Vec::<String>::new());
    }
}

#[test]
fn keys_that_change_the_arithmetic_are_refused_by_name() {
    let cases = [
        ("use_dora", json!(true)),
        ("use_rslora", json!("yes")),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("layer_replication", json!([[0, 4], [2, 5]])),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": 8})),
        ("trainable_token_indices", json!([1, 2])),
        ("target_parameters", json!(["experts.gate"])),
        ("alora_invocation_tokens", json!([7])),
        ("use_qalora", json!(true)),
        ("megatron_config", json!({"tensor_parallel": 2})),
        ("invented_next_year", json!(0.5)),
    ];
    for (key, value) in cases {
        let mut peft = Peft::new(1);
        peft.config[key] = value;
        only(&findings(&peft), &format!("`{key}` is "));
        // The same key switched off does no harm.
        peft.config[key] = Value::Null;
        assert_eq!(findings(&peft), Vec::<String>::new(), "{key}");
    }
}

#[test]
fn values_that_are_not_understood_are_refused() {
    let cases = [
        ("peft_type", json!("LOHA"), "only \"LORA\""),
        ("bias", json!("lora_only"), "only \"none\""),
        ("init_lora_weights", json!("pissa"), "changes the base model's weights"),
        ("r", json!(0), "must lie between 1 and 1024"),
        ("r", json!(4096), "must lie between 1 and 1024"),
        ("r", json!("two"), "no whole number `r`"),
        ("lora_alpha", json!("four"), "no number `lora_alpha`"),
        ("r", json!(3), "has rank 2, but `r` is 3"),
        ("target_modules", json!(7), "not a list of names"),
    ];
    for (key, value, expected) in cases {
        let mut peft = Peft::new(1);
        peft.config[key] = value;
        only(&findings(&peft), expected);
    }
    let mut peft = Peft::new(1);
    peft.config["target_modules"] = json!(["q_proj", "v_proj"]);
    only(&findings(&peft), "names `v_proj`, for which there are no tensors");
    peft.config["target_modules"] = json!(["proj"]);
    let found = findings(&peft);
    assert!(found[0].contains("q_proj` is not in `target_modules`"), "{found:?}");
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    for (config, expected) in [(&b"{"[..], "not json"), (b"[1]", "not an object"), (b"\xff\xfe", "not json")]
    {
        let adapter = Adapter { config: config.to_vec(), ..Peft::new(1).adapter() };
        only(&scan(&adapter, &ScanLimits::default()), expected);
    }
    let huge = Adapter { config: vec![b' '; (1 << 20) + 1], ..Peft::new(1).adapter() };
    only(&scan(&huge, &ScanLimits::default()), "more than 1048576");
}

#[test]
fn numbers_that_are_none_or_too_large_are_refused() {
    for (value, expected) in [
        (f32::NAN, "lora_A.weight` holds NaN or infinity"),
        (f32::INFINITY, "lora_A.weight` holds NaN or infinity"),
        (f32::NEG_INFINITY, "lora_A.weight` holds NaN or infinity"),
        (-20_000.0, "lora_A.weight` holds 2.000e4, beyond 1e4"),
    ] {
        let mut values = [0.1; 8];
        values[5] = value;
        let mut peft = Peft::new(1);
        peft.set(&format!("{Q}.lora_A.weight"), &[2, 4], &values);
        let found = findings(&peft);
        assert!(found[0].contains(expected), "{found:?}");
    }
    let mut peft = Peft::new(1);
    peft.tensors.insert(format!("{Q}.lora_A.weight"), (Dtype::BF16, vec![2, 4], [0xc0, 0x7f].repeat(8)));
    assert!(findings(&peft)[0].contains("NaN"));
    // Scale 2, norms sqrt(8)·9000 and sqrt(6)·9000: far beyond, though each number is allowed.
    let mut peft = Peft::new(1);
    peft.set(&format!("{Q}.lora_A.weight"), &[2, 4], &[9e3; 8]);
    peft.set(&format!("{Q}.lora_B.weight"), &[3, 2], &[9e3; 6]);
    only(&findings(&peft), "may change its weights by 1.122e9, more than 1e5");
    // Stabilised, the scale is 4/√2.
    peft.config["use_rslora"] = json!(true);
    only(&findings(&peft), "may change its weights by 1.587e9, more than 1e5");
}

#[test]
fn names_kinds_and_shapes_that_do_not_fit_are_refused() {
    let mut peft = Peft::new(1);
    peft.set("base_model.model.model.embed_tokens.weight", &[1], &[1.0]);
    only(&findings(&peft), "neither LoRA nor in `modules_to_save`");

    // PEFT writes the output matrix beside the embedding that it is tied to.
    let mut peft = Peft::new(1);
    peft.set("base_model.model.lm_head.weight", &[1], &[1.0]);
    only(&findings(&peft), "neither LoRA nor in `modules_to_save`");
    peft.config["ensure_weight_tying"] = json!(true);
    assert_eq!(findings(&peft), [""; 0]);

    let mut peft = Peft::new(1);
    peft.set("lora.q", &[1], &[1.0]);
    only(&findings(&peft), "`lora.q` is not a tensor's name");

    let mut peft = Peft::new(1);
    peft.set(&format!("{Q}.lora_magnitude_vector.weight"), &[1], &[1.0]);
    only(&findings(&peft), "lora_magnitude_vector.weight` is not a tensor's name");

    let mut peft = Peft::new(1);
    peft.set(&format!("{Q}.lora_B.weight"), &[3, 4], &[0.5; 12]);
    only(&findings(&peft), "lora_A [2, 4] and lora_B [3, 4] do not fit");

    let mut peft = Peft::new(1);
    peft.set(&format!("{Q}.lora_B.weight"), &[6], &[0.5; 6]);
    assert!(findings(&peft)[0].contains("has the shape [6], not that of a matrix"));

    let mut peft = Peft::new(1);
    peft.tensors.remove(&format!("{Q}.lora_B.weight"));
    only(&findings(&peft), "has no usable `lora_B`");

    let mut peft = Peft::new(1);
    peft.tensors.remove("base_model.model.model.norm.weight");
    only(&findings(&peft), "`modules_to_save` names `norm`, for which there is no tensor");

    let mut peft = Peft::new(1);
    peft.tensors.insert("base_model.model.model.norm.weight".into(), (Dtype::I8, vec![4], vec![1; 4]));
    only(&findings(&peft), "is I8: only f32, f16 and bf16");
}

fn weights(weights: Vec<u8>, limits: &ScanLimits) -> Vec<String> {
    scan(&Adapter { weights, ..Peft::new(1).adapter() }, limits)
}

#[test]
fn pickles_truncations_and_absurd_headers_are_refused() {
    let limits = ScanLimits::default();
    for pickle in
        [&b"PK\x03\x04archive/data.pkl"[..], b"\x80\x02}q\x00X\x04\x00", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0"]
    {
        only(&weights(pickle.to_vec(), &limits), "is a pickle: a pickled file can run code");
    }
    let sound = Peft::new(1).adapter().weights;
    only(&weights(Vec::new(), &limits), "truncated: 0 bytes");
    only(&weights(sound[..7].to_vec(), &limits), "truncated: 7 bytes");
    only(&weights(sound[..40].to_vec(), &limits), "truncated: a header of");
    only(&weights(sound[..sound.len() - 4].to_vec(), &limits), "not safetensors");
    only(&weights([&sound[..], &[0; 4]].concat(), &limits), "not safetensors");
    let mut absurd = sound.clone();
    absurd[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    only(&weights(absurd, &limits), "claims a header of 18446744073709551615 bytes, more than 8388608");
    only(&weights(b"\x02\0\0\0\0\0\0\0{}".to_vec(), &limits), "holds no tensors");

    let small = ScanLimits { max_bytes: 16, ..ScanLimits::default() };
    only(&weights(sound.clone(), &small), "more than 16");
    let few = ScanLimits { max_tensors: 2, ..ScanLimits::default() };
    only(&weights(sound, &few), "3 tensors are more than 2");
}

#[test]
fn a_header_that_begins_like_a_pickle_is_none() {
    let sound = Peft::new(1).adapter().weights;
    let length = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
    let (header, data) = sound[8..].split_at(length);
    let mut padded = 640u64.to_le_bytes().to_vec();
    padded.extend_from_slice(header);
    padded.resize(8 + 640, b' ');
    padded.extend_from_slice(data);
    assert_eq!(padded[..2], [0x80, 0x02]);
    assert_eq!(weights(padded, &ScanLimits::default()), Vec::<String>::new());
}

#[test]
fn many_findings_are_cut() {
    let mut peft = Peft::new(1);
    for at in 0..50 {
        peft.set(&format!("odd.{at}"), &[1], &[1.0]);
    }
    let found = findings(&peft);
    assert_eq!(found.len(), 21);
    assert_eq!(found[20], "and 30 more");
}

proptest! {
    /// Any byte of a sound file changed, or the file cut anywhere: a finding or a pass, never a panic; and
    /// a cut is always found.
    #[test]
    fn damage_never_panics(at in 0usize..600, byte: u8, cut in 0usize..600) {
        let sound = Peft::new(1).adapter().weights;
        let mut changed = sound.clone();
        let at = at % changed.len();
        changed[at] = byte;
        let _ = weights(changed, &ScanLimits::default());
        let cut = cut % sound.len();
        prop_assert!(!weights(sound[..cut].to_vec(), &ScanLimits::default()).is_empty());
    }
}
