//! The starter model, which comes inside the binary so that the first run needs no download.

use std::path::PathBuf;

use autoglm_domain::{ContentHash, Error, Result};

use crate::settings::Settings;

/// The files of `models/starter`.
const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../../models/starter/config.json")),
    ("model.safetensors", include_bytes!("../../../models/starter/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../models/starter/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../models/starter/tokenizer_config.json")),
    ("chat_template.jinja", include_bytes!("../../../models/starter/chat_template.jinja")),
];

/// The name that the API gives to the served model.
pub(crate) fn name(settings: &Settings) -> String {
    match settings.model.path.as_str() {
        "" => "autoglm-starter".to_owned(),
        path => path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

/// The folder of the model to serve: the one that is set, or the starter model, unpacked under the data directory
/// when it is not there yet.
pub(crate) fn resolve(settings: &Settings) -> Result<PathBuf> {
    if !settings.model.path.is_empty() {
        return Ok(autoglm_engine::resolve_model(&settings.model.path)?);
    }
    let content: Vec<u8> = FILES.iter().flat_map(|(_, bytes)| ContentHash::of(bytes).0).collect();
    let name = format!("starter-{}", ContentHash::of(&content).short());
    let folder = settings.store.data_dir.join("models").join(name);
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("the starter model cannot be unpacked to `{}`: {error}", folder.display()))
            .with_hint("choose another place with --data-dir")
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for (name, bytes) in FILES {
        // Of its own name, for several processes may share the folder.
        let partial = folder.join(format!(".{name}.{}.partial", std::process::id()));
        let target = folder.join(name);
        if std::fs::metadata(&target).is_ok_and(|there| there.len() == bytes.len() as u64) {
            continue;
        }
        std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, &target)).map_err(failed)?;
    }
    Ok(folder)
}
