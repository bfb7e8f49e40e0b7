//! A model as a GGUF file, in a type of one's choice.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter},
    path::{Path, PathBuf},
    sync::Arc,
};

use autoglm_domain::Clock;
use serde::Serialize;

use super::{
    architecture,
    dequantize::dequantize,
    file::GgufFile,
    metadata::{Metadata, Value},
    model::{permute, rotated_heads},
    names,
    quantize::quantize,
    tensor_type::TensorType,
    tokenizer,
    write::{self, Entry},
};
use crate::{
    ChatTemplate, EngineError, ModelConfig, Result, Tokenizer,
    weights::{self, Floats},
};

/// Largest value that a 16-bit float holds, and with it every scale.
const LARGEST: f32 = 65504.0;

/// What a conversion wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversion {
    /// Bytes of the file.
    pub bytes: u64,
    /// How many tensors there are of each type.
    pub types: Vec<(String, usize)>,
    /// Matrices that could not have the wanted type, with the type that they have instead.
    pub fallbacks: Vec<(String, String)>,
    /// What the file cannot say of the model.
    pub notes: Vec<String>,
}

/// Writes the model of `path`, a folder or a GGUF file, to the GGUF file `out` with matrices of type `kind`,
/// with its tokenizer and chat template.
///
/// Norms and biases stay `f32`. A matrix whose rows are no whole number of blocks falls back from q4_K to q8_0
/// and from there to bf16. With q4_K the matrix of the logits is q8_0: its errors reach every token directly.
///
/// # Errors
/// `NotFound` without the model; `Invalid` when it is damaged, its tokenizer has no form in GGUF, or `kind` is
/// only read.
pub fn convert(path: &Path, out: &Path, kind: TensorType, clock: Arc<dyn Clock>) -> Result<Conversion> {
    if matches!(kind, TensorType::Q4_0 | TensorType::Q6K) {
        return Err(EngineError::Request(format!("`{}` is only read, not written", kind.name())));
    }
    let mut notes = Vec::new();
    let mut source = Source::open(path)?;
    let mut metadata = source.metadata(path, clock, &mut notes)?;
    metadata.set("general.file_type", Value::u32(file_type(kind)));
    metadata.set("general.quantization_version", Value::u32(2));
    let mut fallbacks = Vec::new();
    let stored = source.tensors()?;
    let tied = !stored.iter().any(|(name, _)| name == "output.weight");
    let mut entries = Vec::with_capacity(stored.len());
    for (name, shape) in stored {
        let output = name == if tied { "token_embd.weight" } else { "output.weight" };
        let chosen = choose(kind, &shape, output);
        if shape.len() > 1 && chosen != kind {
            fallbacks.push((name.clone(), chosen.name().to_owned()));
        }
        entries.push(Entry { name, kind: chosen, shape });
    }
    save(out, &metadata, &entries, &mut source)?;
    let bytes = std::fs::metadata(out).map_err(|error| EngineError::file(out, &error))?.len();
    let count = |kind: TensorType| entries.iter().filter(|entry| entry.kind == kind).count();
    let types = TensorType::ALL.into_iter().map(|kind| (kind.name().to_owned(), count(kind)));
    Ok(Conversion { bytes, types: types.filter(|(_, count)| *count > 0).collect(), fallbacks, notes })
}

/// The type that a tensor gets.
fn choose(wanted: TensorType, shape: &[usize], output: bool) -> TensorType {
    let columns = shape.last().copied().unwrap_or(1);
    let fits = |kind: TensorType| columns.is_multiple_of(kind.block_len());
    match wanted {
        _ if shape.len() < 2 => TensorType::F32,
        TensorType::Q4K if fits(TensorType::Q4K) && !output => TensorType::Q4K,
        TensorType::Q4K | TensorType::Q8_0 if fits(TensorType::Q8_0) => TensorType::Q8_0,
        TensorType::Q4K | TensorType::Q8_0 => TensorType::Bf16,
        other => other,
    }
}

/// What llama.cpp calls a file whose matrices are mostly of this type (`enum llama_ftype`).
fn file_type(kind: TensorType) -> u32 {
    match kind {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q8_0 => 7,
        TensorType::Q4K => 14,
        TensorType::Q6K => 18,
        TensorType::Bf16 => 32,
    }
}

/// Writes to a name beside `out` and renames, so that nobody reads half a model.
fn save(out: &Path, metadata: &Metadata, entries: &[Entry], source: &mut Source) -> Result<()> {
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |error: &io::Error| EngineError::unwritten(out, error);
    let result = File::create(&partial).map_err(|error| failed(&error)).and_then(|file| {
        let mut writer = BufWriter::new(file);
        write::write(&mut writer, metadata, entries, &failed, |entry| source.bytes(entry))?;
        let file = writer.into_inner().map_err(|error| failed(error.error()))?;
        file.sync_all().and_then(|()| std::fs::rename(&partial, out)).map_err(|error| failed(&error))
    });
    if result.is_err() {
        // What is left of it is of no use to anyone; that it is not there is fine as well.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

/// Where a model comes from.
enum Source {
    Folder(Box<Folder>),
    File(GgufFile<File>),
}

/// A folder in Hugging Face's form, of which one file of weights is in memory at a time.
struct Folder {
    config: ModelConfig,
    shards: Vec<PathBuf>,
    /// Which file holds a tensor, by its name in GGUF; and its name there.
    places: HashMap<String, (usize, String)>,
    loaded: Option<(usize, HashMap<String, Floats<'static>>)>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return GgufFile::open(path).map(Self::File);
        }
        let (config, shards) = (ModelConfig::load(path)?, weights::shards(path)?);
        Ok(Self::Folder(Box::new(Folder { config, shards, places: HashMap::new(), loaded: None })))
    }

    fn metadata(&self, path: &Path, clock: Arc<dyn Clock>, notes: &mut Vec<String>) -> Result<Metadata> {
        let folder = match self {
            Self::File(file) => return Ok(file.metadata().clone()),
            Self::Folder(folder) => folder,
        };
        let mut metadata = Metadata::new(&path.display().to_string());
        metadata.set("general.type", Value::text("model"));
        if let Some(name) = path.file_name() {
            metadata.set("general.name", Value::text(name.to_string_lossy()));
        }
        architecture::write(&mut metadata, &folder.config, notes)?;
        let template = ChatTemplate::load(path, clock)?;
        match Tokenizer::of_model(path) {
            Ok(tokenizer) => {
                tokenizer::write(&mut metadata, &tokenizer, template.as_ref(), &folder.config, notes)?;
            }
            Err(EngineError::File { missing: true, .. }) => {
                notes.push("the folder has no tokenizer, and so the file has none".into());
                tokenizer::write_none(&mut metadata, &folder.config);
            }
            Err(error) => return Err(error),
        }
        Ok(metadata)
    }

    /// Names in GGUF and shapes of all tensors.
    fn tensors(&mut self) -> Result<Vec<(String, Vec<usize>)>> {
        match self {
            Self::File(file) => {
                Ok(file.tensors().iter().map(|(name, info)| (name.clone(), info.shape.clone())).collect())
            }
            Self::Folder(folder) => folder.tensors(),
        }
    }

    /// The bytes of a tensor in the type that its entry has.
    fn bytes(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        let values = match self {
            Self::File(file) => {
                let (info, bytes) = file.read(&entry.name)?;
                if info.kind == entry.kind {
                    return Ok(bytes);
                }
                dequantize(info.kind, &bytes)
            }
            Self::Folder(folder) => folder.values(&entry.name)?,
        };
        let limit = if matches!(entry.kind, TensorType::F32 | TensorType::Bf16) { f32::MAX } else { LARGEST };
        if let Some(value) = values.iter().find(|value| value.is_nan() || value.abs() > limit) {
            let (name, kind) = (&entry.name, entry.kind.name());
            return Err(EngineError::Weights(format!(
                "`{name}` holds {value}, for which {kind} has no number"
            )));
        }
        let bytes = quantize(entry.kind, &values);
        let bytes =
            bytes.ok_or_else(|| EngineError::Internal(format!("`{}` has broken rows", entry.name)))?;
        match (self, entry.name.as_str()) {
            (Self::Folder(folder), name) => Ok(folder.in_order(name, bytes)),
            (Self::File(_), _) => Ok(bytes),
        }
    }
}

impl Folder {
    fn tensors(&mut self) -> Result<Vec<(String, Vec<usize>)>> {
        let mut found = Vec::new();
        if let Some(factors) = architecture::factors(&self.config) {
            found.push((names::ROPE_FACTORS.to_owned(), vec![factors.len()]));
        }
        for shard in 0..self.shards.len() {
            let mut tensors: Vec<_> = self
                .shard(shard)?
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
                .collect();
            tensors.sort_unstable();
            for (name, shape) in tensors {
                let tied = self.config.tie_word_embeddings && name == "lm_head.weight";
                if tied || name.ends_with("rotary_emb.inv_freq") {
                    continue;
                }
                let there = names::to_gguf(&name)
                    .ok_or_else(|| EngineError::Weights(format!("`{name}` has no place in a GGUF file")))?;
                if self.places.insert(there.clone(), (shard, name.clone())).is_some() {
                    return Err(EngineError::Weights(format!("`{name}` is there twice")));
                }
                found.push((there, shape));
            }
        }
        Ok(found)
    }

    /// The tensors of one file, read when another was in memory.
    fn shard(&mut self, shard: usize) -> Result<&HashMap<String, Floats<'static>>> {
        if self.loaded.as_ref().is_none_or(|(loaded, _)| *loaded != shard) {
            self.loaded = None;
            let path = &self.shards[shard];
            let bytes = std::fs::read(path).map_err(|error| EngineError::file(path, &error))?;
            let tensors = weights::read_safetensors(&bytes, &path.display().to_string())?;
            let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.into_owned()));
            self.loaded = Some((shard, tensors.collect()));
        }
        let missing = || EngineError::Internal("a file of weights was not read".into());
        self.loaded.as_ref().map(|(_, tensors)| tensors).ok_or_else(missing)
    }

    fn values(&mut self, name: &str) -> Result<Vec<f32>> {
        if name == names::ROPE_FACTORS {
            return Ok(architecture::factors(&self.config).unwrap_or_default());
        }
        let missing = || EngineError::Internal(format!("`{name}` is not in the folder"));
        let (shard, folder_name) = self.places.get(name).cloned().ok_or_else(missing)?;
        self.shard(shard)?.get(&folder_name).ok_or_else(missing)?.values(&folder_name)
    }

    /// Rows in the order that GGUF wants them.
    fn in_order(&self, name: &str, bytes: Vec<u8>) -> Vec<u8> {
        let folder_name = self.places.get(name).map_or("", |(_, folder_name)| folder_name);
        match rotated_heads(&self.config, folder_name) {
            Some(heads) => permute(bytes, heads, self.config.head_dim),
            None => bytes,
        }
    }
}
