//! `adapter_model.safetensors`: names, shapes, numbers.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{ScanLimits, peft::PeftConfig};

/// In front of every name that PEFT writes.
const PREFIX: &str = "base_model.model.";

/// First bytes of files that are pickled or contain pickles: a zip, and pickle protocols 2 to 5.
const PICKLED: &[&[u8]] = &[b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"];

/// One of a pair's two matrices: its shape and Frobenius norm.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    rows: usize,
    columns: usize,
    norm: f64,
}

/// What was found of one adapted module.
#[derive(Debug, Default)]
struct Pair {
    a: Option<Matrix>,
    b: Option<Matrix>,
}

/// Which part a tensor's name says it is.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    A(&'a str),
    B(&'a str),
    Saved(&'a str),
}

/// Checks the weights; with a configuration, also against it.
pub(crate) fn check(
    bytes: &[u8],
    config: Option<&PeftConfig>,
    limits: &ScanLimits,
    findings: &mut Vec<String>,
) {
    if let Some(finding) = refuse_form(bytes, limits) {
        findings.push(finding);
        return;
    }
    let tensors = match SafeTensors::deserialize(bytes) {
        Ok(tensors) => tensors,
        Err(error) => {
            findings.push(format!("adapter_model.safetensors is not safetensors: {error}"));
            return;
        }
    };
    if tensors.is_empty() {
        findings.push("adapter_model.safetensors holds no tensors".into());
        return;
    }
    if tensors.len() > limits.max_tensors {
        findings.push(format!("{} tensors are more than {}", tensors.len(), limits.max_tensors));
        return;
    }
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let sorted: BTreeMap<_, _> = tensors.tensors().into_iter().collect();
    for (name, view) in &sorted {
        if let Some(norm) = check_numbers(name, view, limits, findings) {
            check_name(name, view.shape(), norm, config, &mut pairs, findings);
        }
    }
    for (module, pair) in &pairs {
        check_pair(module, pair, config, limits, findings);
    }
    if let Some(config) = config {
        check_promises(config, &pairs, &sorted, findings);
    }
}

/// What the first bytes and the sizes give away, before anything is parsed.
fn refuse_form(bytes: &[u8], limits: &ScanLimits) -> Option<String> {
    // A safetensors header of 640 bytes begins like a pickle of protocol 2, but only it goes on with `{`.
    if bytes.get(8) != Some(&b'{') && PICKLED.iter().any(|magic| bytes.starts_with(magic)) {
        let why = "a pickled file can run code when it is read; save the adapter as safetensors";
        return Some(format!("adapter_model.safetensors is a pickle: {why}"));
    }
    if bytes.len() as u64 > limits.max_bytes {
        return Some(format!("the weights have {} bytes, more than {}", bytes.len(), limits.max_bytes));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Some(format!("adapter_model.safetensors is truncated: {} bytes", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > limits.max_header_bytes {
        return Some(format!(
            "adapter_model.safetensors claims a header of {length} bytes, more than {}",
            limits.max_header_bytes
        ));
    }
    if length > rest.len() as u64 {
        let there = rest.len();
        return Some(format!(
            "adapter_model.safetensors is truncated: a header of {length} bytes, {there} are there"
        ));
    }
    None
}

/// Checks kind and numbers of one tensor; its Frobenius norm where they are in order.
fn check_numbers(
    name: &str,
    view: &TensorView<'_>,
    limits: &ScanLimits,
    findings: &mut Vec<String>,
) -> Option<f64> {
    let data = view.data();
    let (sum, largest) = match view.dtype() {
        Dtype::F32 => fold(data.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)))),
        Dtype::F16 => fold(data.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f64())),
        Dtype::BF16 => {
            fold(data.as_chunks().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f64()))
        }
        other => {
            findings.push(format!("`{name}` is {other:?}: only f32, f16 and bf16 are understood"));
            return None;
        }
    };
    if !sum.is_finite() {
        findings.push(format!("`{name}` holds NaN or infinity"));
        return None;
    }
    if largest > limits.max_abs {
        findings.push(format!("`{name}` holds {largest:.3e}, beyond {:.0e}", limits.max_abs));
    }
    Some(sum.sqrt())
}

/// Sum of squares and largest magnitude; the sum is not finite when any value is not.
fn fold(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((0.0, 0.0), |(sum, largest), value| (sum + value * value, f64::max(largest, value.abs())))
}

fn check_name(
    name: &str,
    shape: &[usize],
    norm: f64,
    config: Option<&PeftConfig>,
    pairs: &mut BTreeMap<String, Pair>,
    findings: &mut Vec<String>,
) {
    let part = parse_name(name);
    let matrix = match (&part, shape) {
        (Some(Part::A(_) | Part::B(_)), &[rows, columns]) => Some(Matrix { rows, columns, norm }),
        (Some(Part::A(_) | Part::B(_)), _) => {
            findings.push(format!("`{name}` has the shape {shape:?}, not that of a matrix"));
            None
        }
        _ => None,
    };
    match part {
        Some(Part::A(module)) => pairs.entry(module.to_owned()).or_default().a = matrix,
        Some(Part::B(module)) => pairs.entry(module.to_owned()).or_default().b = matrix,
        Some(Part::Saved(module)) => {
            let listed = config.is_none_or(|config| {
                let tied = config.ties_output && module == "lm_head";
                tied || names_module(&config.modules_to_save, module)
            });
            if !listed {
                findings.push(format!("`{name}` is neither LoRA nor in `modules_to_save`"));
            }
        }
        None => findings.push(format!("`{name}` is not a tensor's name that is understood")),
    }
}

/// `base_model.model.MODULE.lora_A.weight`, `….lora_B.weight`, or `base_model.model.MODULE.weight` for a
/// module that was trained as a whole.
fn parse_name(name: &str) -> Option<Part<'_>> {
    let path = name.strip_prefix(PREFIX)?.strip_suffix(".weight")?;
    let plain = |module: &str| {
        !module.is_empty() && module.split('.').all(|part| !part.is_empty() && !part.starts_with("lora_"))
    };
    if let Some(module) = path.strip_suffix(".lora_A") {
        return plain(module).then_some(Part::A(module));
    }
    if let Some(module) = path.strip_suffix(".lora_B") {
        return plain(module).then_some(Part::B(module));
    }
    let module = path.strip_suffix(".modules_to_save").unwrap_or(path);
    plain(module).then_some(Part::Saved(module))
}

/// Whether `module` is one of `names`, as PEFT compares: equal, or ending in `.name`.
fn names_module(names: &[String], module: &str) -> bool {
    names.iter().any(|name| {
        module.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn check_pair(
    module: &str,
    pair: &Pair,
    config: Option<&PeftConfig>,
    limits: &ScanLimits,
    findings: &mut Vec<String>,
) {
    let (Some(a), Some(b)) = (pair.a, pair.b) else {
        let missing = if pair.a.is_none() { "lora_A" } else { "lora_B" };
        findings.push(format!("`{module}` has no usable `{missing}`"));
        return;
    };
    if a.rows != b.columns {
        findings.push(format!(
            "`{module}`: lora_A [{}, {}] and lora_B [{}, {}] do not fit",
            a.rows, a.columns, b.rows, b.columns
        ));
    }
    let Some(config) = config else { return };
    if a.rows as u64 != config.rank {
        findings.push(format!("`{module}` has rank {}, but `r` is {}", a.rows, config.rank));
    }
    if let Some(targets) = &config.target_modules
        && !names_module(targets, module)
    {
        findings.push(format!("`{module}` is not in `target_modules`"));
    }
    let bound = config.scale.abs() * a.norm * b.norm;
    if bound > limits.max_delta_norm {
        findings.push(format!(
            "`{module}` may change its weights by {bound:.3e}, more than {:.0e}",
            limits.max_delta_norm
        ));
    }
}

/// What the configuration names must be there.
fn check_promises(
    config: &PeftConfig,
    pairs: &BTreeMap<String, Pair>,
    tensors: &BTreeMap<String, TensorView<'_>>,
    findings: &mut Vec<String>,
) {
    let saved: BTreeSet<&str> = tensors
        .keys()
        .filter_map(|name| match parse_name(name) {
            Some(Part::Saved(module)) => Some(module),
            _ => None,
        })
        .collect();
    let one = |name: &String| std::slice::from_ref(name).to_vec();
    for name in config.target_modules.iter().flatten() {
        if !pairs.keys().any(|module| names_module(&one(name), module)) {
            findings.push(format!("`target_modules` names `{name}`, for which there are no tensors"));
        }
    }
    for name in &config.modules_to_save {
        if !saved.iter().any(|module| names_module(&one(name), module)) {
            findings.push(format!("`modules_to_save` names `{name}`, for which there is no tensor"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
        assert_eq!(parse_name(name), Some(Part::A("model.layers.0.self_attn.q_proj")));
        let name = "base_model.model.model.layers.11.mlp.up_proj.lora_B.weight";
        assert_eq!(parse_name(name), Some(Part::B("model.layers.11.mlp.up_proj")));
        for name in
            ["base_model.model.model.norm.weight", "base_model.model.model.norm.modules_to_save.weight"]
        {
            assert_eq!(parse_name(name), Some(Part::Saved("model.norm")));
        }
        for name in [
            "model.norm.weight",
            "base_model.model..weight",
            "base_model.model.q_proj.lora_A.bias",
            "base_model.model.q_proj.lora_magnitude_vector.weight",
            "base_model.model.q_proj.lora_A.lora_A.weight",
            "base_model.model.embed_tokens.lora_embedding_A",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_module_is_named_by_its_whole_last_parts() {
        let names = ["q_proj".to_owned(), "mlp.up_proj".to_owned()];
        assert!(names_module(&names, "layers.0.self_attn.q_proj"));
        assert!(names_module(&names, "q_proj"));
        assert!(names_module(&names, "layers.0.mlp.up_proj"));
        assert!(!names_module(&names, "layers.0.self_attn.iq_proj"));
        assert!(!names_module(&names, "layers.0.up_proj"));
    }
}
