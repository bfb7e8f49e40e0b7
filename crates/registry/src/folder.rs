//! Adapters as folders in PEFT's format, to and from other tools.

use std::path::{Path, PathBuf};

use autoglm_domain::{Adapter, ModelVersion};

use crate::{Error, Result, ScanLimits, scan};

pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
const PICKLED: &str = "adapter_model.bin";
const CARD: &str = "README.md";

/// Writes `adapter` with a model card to `folder`, which must not exist or be empty. The folder appears
/// whole or not at all.
pub async fn write_folder(folder: &Path, adapter: &Adapter, version: &ModelVersion) -> Result<()> {
    let files = files(adapter, version);
    let folder = folder.to_owned();
    blocking(move || {
        if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
            return Err(Error::FolderTaken(folder));
        }
        let staging = staging(&folder);
        let written = write_all(&staging, &files)
            .and_then(|()| std::fs::rename(&staging, &folder).map_err(Error::file(&folder)));
        if written.is_err() {
            // The error that matters is the first one; a leftover folder is named so that it is recognised.
            let _ = std::fs::remove_dir_all(&staging);
        }
        written
    })
    .await
}

/// Reads an adapter from a PEFT folder and scans it; `Invalid` with the findings when it did not pass.
pub async fn read_folder(folder: &Path, limits: &ScanLimits) -> Result<Adapter> {
    let (folder, limits) = (folder.to_owned(), limits.clone());
    blocking(move || read(&folder, &limits)).await
}

/// [`read_folder`], in place.
pub(crate) fn read(folder: &Path, limits: &ScanLimits) -> Result<Adapter> {
    std::fs::read_dir(folder).map_err(Error::file(folder))?;
    for missing in [CONFIG, WEIGHTS] {
        if !folder.join(missing).is_file() {
            let pickled = missing == WEIGHTS && folder.join(PICKLED).is_file();
            return Err(Error::NotPeft { folder: folder.to_owned(), missing, pickled });
        }
    }
    let weights = folder.join(WEIGHTS);
    let bytes = std::fs::metadata(&weights).map_err(Error::file(&weights))?.len();
    if bytes > limits.max_bytes {
        return Err(Error::Refused(vec![format!(
            "the weights have {bytes} bytes, more than {}",
            limits.max_bytes
        )]));
    }
    let read = |path: PathBuf| std::fs::read(&path).map_err(Error::file(&path));
    let adapter = Adapter { config: read(folder.join(CONFIG))?, weights: read(weights)? };
    match scan(&adapter, limits) {
        findings if findings.is_empty() => Ok(adapter),
        findings => Err(Error::Refused(findings)),
    }
}

/// What a folder of a version holds: the adapter's files and the model card.
pub(crate) fn files(adapter: &Adapter, version: &ModelVersion) -> [(&'static str, Vec<u8>); 3] {
    [(CONFIG, adapter.config.clone()), (WEIGHTS, adapter.weights.clone()), (CARD, card(version).into_bytes())]
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Storage(error.to_string()))?
}

/// A name beside `folder`, for the time until everything is written.
fn staging(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    folder.with_file_name(name)
}

fn write_all(folder: &Path, files: &[(&'static str, Vec<u8>)]) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(Error::file(folder))?;
    }
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(Error::file(&path))?;
    }
    Ok(())
}

/// The model card: front matter that the Hugging Face hub reads, then what made the version.
fn card(version: &ModelVersion) -> String {
    let mut text = format!(
        "---\nlibrary_name: peft\ntags: [lora, autoglm]\n---\n\n# autoglm {number}\n\n\
         A LoRA adapter trained by autoglm {code}.\n\n\
         | | |\n|---|---|\n| version | {number} |\n| hash | `{hash}` |\n| registered | {at} |\n\
         | parent | {parent} |\n| base model | `{base}` |\n| adapter | `{adapter}` |\n",
        number = version.number,
        code = version.code_version,
        hash = version.hash,
        at = version.at,
        parent = version.parent,
        base = version.base,
        adapter = version.adapter,
    );
    if let Some(snapshot) = version.snapshot {
        text += &format!("| data-set snapshot | `{snapshot}` |\n");
    }
    if let Some(run) = version.run {
        text += &format!("| training run | {run} |\n");
    }
    if !version.metrics.is_empty() {
        text += "\n## Metrics\n\n| | |\n|---|---|\n";
        for (name, value) in &version.metrics {
            text += &format!("| {name} | {value} |\n");
        }
    }
    if let Some(note) = &version.note {
        text += &format!("\n## Note\n\n{note}\n");
    }
    text
}
