//! Adapters that must not be let in, made from one that may.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use safetensors::{SafeTensors, tensor::TensorView};

const WEIGHTS: &str = "adapter_model.safetensors";

/// A copy of the PEFT folder `good` as `name` beside it.
fn copy(good: &Path, name: &str) -> PathBuf {
    let folder = good.parent().unwrap().join(name);
    std::fs::create_dir(&folder).unwrap();
    for file in ["adapter_config.json", WEIGHTS] {
        std::fs::copy(good.join(file), folder.join(file)).unwrap();
    }
    folder
}

/// A copy whose weights went through `change`.
fn changed(good: &Path, name: &str, change: impl Fn(&mut Vec<u8>)) -> PathBuf {
    let folder = copy(good, name);
    let mut bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
    change(&mut bytes);
    std::fs::write(folder.join(WEIGHTS), bytes).unwrap();
    folder
}

/// One matrix has half its rows.
pub(crate) fn wrong_shape(good: &Path) -> PathBuf {
    changed(good, "wrong-shape", |bytes| {
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        let first =
            tensors.names().into_iter().filter(|name| name.contains("lora_B")).min().unwrap().to_owned();
        let halved = tensors.iter().map(|(name, view)| {
            let mut shape = view.shape().to_vec();
            let mut data = view.data();
            if name == first {
                shape[0] /= 2;
                data = &data[..data.len() / 2];
            }
            (name.to_owned(), TensorView::new(view.dtype(), shape, data).unwrap())
        });
        let halved: HashMap<String, TensorView<'_>> = halved.collect();
        *bytes = safetensors::serialize(halved, None).unwrap();
    })
}

/// The last number is none.
pub(crate) fn not_a_number(good: &Path) -> PathBuf {
    changed(good, "nan", |bytes| {
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    })
}

/// The file ends in the middle.
pub(crate) fn truncated(good: &Path) -> PathBuf {
    changed(good, "truncated", |bytes| bytes.truncate(bytes.len() / 2))
}

/// A pickle under the name of a safetensors file: it would run `os.system` when Python loads it.
pub(crate) fn pickle_in_disguise(good: &Path) -> PathBuf {
    changed(good, "disguised-pickle", |bytes| {
        *bytes = b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.".to_vec()
    })
}

/// A pickle under its own name, and no safetensors file.
pub(crate) fn pickle(good: &Path) -> PathBuf {
    let folder = copy(good, "pickle");
    std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
    std::fs::write(folder.join("adapter_model.bin"), b"\x80\x02}q\x00.").unwrap();
    folder
}
