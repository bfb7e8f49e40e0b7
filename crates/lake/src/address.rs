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
    if let Some(full) = full(&error) {
        return LakeError::Full { reason: full.into() };
    }
    match error {
        Error::NotFound { source, .. } => LakeError::Missing { path, reason: source.to_string() },
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            LakeError::Refused { path, reason: source.to_string() }
        }
        other if is_refusal(&other) => LakeError::Refused { path, reason: other.to_string() },
        other => LakeError::Unavailable { reason: other.to_string() },
    }
}

/// That there is no room, where the error says so: of a disk, or in the words of servers that speak S3.
fn full(error: &object_store::Error) -> Option<&'static str> {
    match io_of(error).map(std::io::Error::kind) {
        Some(std::io::ErrorKind::StorageFull) => return Some("the disk is full"),
        Some(std::io::ErrorKind::QuotaExceeded) => return Some("the quota is used up"),
        _ => {}
    }
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["XMinioStorageFull", "507 Insufficient Storage"]) {
        return Some("the bucket's disks are full");
    }
    says(&["QuotaExceeded"]).then_some("the bucket's quota is used up")
}

/// Whether it is a refusal that has no variant of its own: of the file system, or of a list, whose status only the text has.
fn is_refusal(error: &object_store::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let of_system = io_of(error).is_some_and(|it| matches!(it.kind(), PermissionDenied | ReadOnlyFilesystem));
    let text = error.to_string();
    of_system || ["401 Unauthorized", "403 Forbidden"].iter().any(|status| text.contains(status))
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

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
    };

    use object_store::ObjectStoreExt as _;

    use super::*;

    /// A double of a server that speaks S3 and answers everything alike. One with a full disk or a quota is not to be had.
    fn answering(status: &'static str, code: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut line, mut length) = (String::new(), 0);
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    let header = std::mem::take(&mut line).to_lowercase();
                    length = header
                        .strip_prefix("content-length:")
                        .map_or(length, |length| length.trim().parse().unwrap());
                }
                stream.read_exact(&mut vec![0; length]).unwrap();
                let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_bucket_that_is_full_or_refuses_is_named() {
        let full = |reason: &str| LakeError::Full { reason: reason.into() };
        for (status, code, expected) in [
            ("507 Insufficient Storage", "XMinioStorageFull", Some(full("the bucket's disks are full"))),
            ("403 Forbidden", "QuotaExceeded", Some(full("the bucket's quota is used up"))),
            ("403 Forbidden", "AccessDenied", None),
        ] {
            let endpoint = answering(status, code);
            let options = autoglm_doubles::S3Server::options(&endpoint);
            let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let store = open("s3://data/lake", &options).unwrap();
            let path = Path::from("event=run/1-1.parquet");
            let write = store.put(&path, b"x".to_vec().into()).await.unwrap_err();
            let list = futures::StreamExt::next(&mut store.list(None)).await.unwrap().unwrap_err();
            for error in [failure(&path, write), failure(&path, list)] {
                match &expected {
                    Some(full) => assert_eq!(error.to_string(), full.to_string()),
                    None => assert!(matches!(error, LakeError::Refused { .. }), "{error:?}"),
                }
            }
        }
    }
}
