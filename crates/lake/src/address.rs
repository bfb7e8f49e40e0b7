//! An address and options to an object store and a prefix in it.

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};
use url::Url;

use crate::LakeError;

/// Longest that one request may take, and how long it is tried again within: the mirror's own loop does the rest.
const REQUEST: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(5);

/// Opens what `url` names. A local folder is made.
pub(crate) fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let wrong = |reason: String| LakeError::Address { url: shown(url), reason };
    if !url.contains("://") {
        return folder(url, url);
    }
    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|error| wrong(error.to_string()))?;
    if !matches!(scheme, ObjectStoreScheme::Local) && rustls::crypto::CryptoProvider::get_default().is_none()
    {
        // Somebody else may have been quicker, and any of them will do.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    let client = ClientOptions::new().with_timeout(REQUEST);
    let retry = RetryConfig { max_retries: 2, retry_timeout: RETRY, ..RetryConfig::default() };
    /// A builder from the environment, the address and the options.
    macro_rules! built {
        ($builder:ty) => {{
            // The client's options first: those that are named below change them.
            let mut builder = <$builder>::from_env().with_client_options(client).with_retry(retry);
            for (key, value) in std::env::vars().filter(|(key, _)| key.ends_with("_ALLOW_HTTP")) {
                if let Ok(key) = FromStr::from_str(&key.to_ascii_lowercase()) {
                    builder = builder.with_config(key, value);
                }
            }
            for (key, value) in options {
                let known = FromStr::from_str(&key.to_ascii_lowercase());
                let key = known.map_err(|_| wrong(format!("it knows no option `{key}`")))?;
                builder = builder.with_config(key, value);
            }
            let store = builder.with_url(url).build().map_err(|error| wrong(error.to_string()))?;
            Arc::new(PrefixStore::new(store, path)) as Arc<dyn ObjectStore>
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::Local => {
            let path = parsed.to_file_path().map_err(|()| wrong("it names no folder".into()))?;
            return folder(url, &path.to_string_lossy());
        }
        ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder),
        other => return Err(wrong(format!("files cannot be kept at {other:?}"))),
    })
}

/// A folder, durable when a write returns.
fn folder(url: &str, path: &str) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let wrong = |reason: String| LakeError::Refused { path: url.to_owned(), reason };
    std::fs::create_dir_all(path).map_err(|error| wrong(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// The address without a user and a password, which Azure's may have.
pub fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
            cleared.map_or_else(|()| "the address".to_owned(), |()| parsed.to_string())
        }
        _ => url.to_owned(),
    }
}

/// What an object store says, as an error of ours.
pub(crate) fn failure(path: &Path, error: object_store::Error) -> LakeError {
    use object_store::Error;
    let path = path.to_string();
    match error {
        Error::NotFound { source, .. } => LakeError::Missing { path, reason: source.to_string() },
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            LakeError::Refused { path, reason: source.to_string() }
        }
        other => match io_of(&other).map(std::io::Error::kind) {
            Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                LakeError::Refused { path, reason: other.to_string() }
            }
            Some(std::io::ErrorKind::StorageFull) => LakeError::Full { reason: "the disk is full".into() },
            Some(std::io::ErrorKind::QuotaExceeded) => {
                LakeError::Full { reason: "the quota is used up".into() }
            }
            _ => LakeError::Unavailable { reason: other.to_string() },
        },
    }
}

/// The system's error at the bottom of one, where there is one.
fn io_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        at = error.source();
    }
    None
}
