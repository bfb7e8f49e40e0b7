//! The engine against transformers and PEFT, on files that `fixtures/make_fixtures.py` wrote; and what it says of
//! files that are not what they should be.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails here fails the test, and what is measured is shown"
)]

#[cfg(feature = "accelerated")]
mod accelerated;
mod adapters;
mod bad_files;
mod corpus;
mod families;
mod gguf;
mod texts;
mod training;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use autoglm_domain::Adapter;
use candle_core::{DType, Device, Tensor, safetensors::load};

/// Largest difference from the reference's logits that is put down to the order of sums.
pub(crate) const TOLERANCE: f32 = 1e-4;

/// A path under `tests/fixtures`.
pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// The base model that an adapter's `base.txt` names.
pub(crate) fn base_of(folder: &Path) -> PathBuf {
    let name = std::fs::read_to_string(folder.join("base.txt")).unwrap();
    fixture("families").join(name.trim())
}

/// Both files of an adapter.
pub(crate) fn read_adapter(folder: &Path) -> Adapter {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    Adapter { config: read("adapter_config.json"), weights: read("adapter_model.safetensors") }
}

/// `ids` `[time]`, `logits` `[time, vocab]` and a continuation that the reference gave.
pub(crate) struct Reference {
    pub(crate) ids: Vec<u32>,
    pub(crate) logits: Vec<f32>,
    /// What the reference continues `ids` with, always taking the likeliest; empty where it was not asked.
    pub(crate) greedy: Vec<u32>,
}

impl Reference {
    pub(crate) fn load(folder: &Path) -> Self {
        let tensors: HashMap<String, Tensor> = load(folder.join("ref.safetensors"), &Device::Cpu).unwrap();
        let ids = |name: &str| {
            let ids = tensors.get(name)?.to_dtype(DType::U32).unwrap().flatten_all().unwrap();
            Some(ids.to_vec1().unwrap())
        };
        let logits = tensors["logits"].flatten_all().unwrap();
        Self {
            ids: ids("ids").unwrap(),
            logits: logits.to_vec1().unwrap(),
            greedy: ids("greedy").unwrap_or_default(),
        }
    }
}

/// Fails where `ours` and `theirs` differ by more than [`TOLERANCE`] anywhere; `what` was compared.
pub(crate) fn check_equal(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    // Logits that are all alike would agree whatever was computed.
    let spread =
        theirs.iter().copied().fold(f32::MIN, f32::max) - theirs.iter().copied().fold(f32::MAX, f32::min);
    assert!(spread > 1.0, "{what}: the reference spreads over {spread} only");
    let difference = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: differs by at most {difference:.1e}");
    assert!(difference < TOLERANCE, "{what}: differs by {difference}");
}
