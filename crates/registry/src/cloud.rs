//! Artifacts in S3, Google Cloud Storage, Azure, or what speaks like them.
//!
//! Credentials, region and endpoint come from the environment, by the names that each of them has for it
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, …).

use std::{str::FromStr, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, prefix::PrefixStore,
};
use url::Url;

use crate::{Error, Result};

/// Longest for one request; an adapter may be large.
const REQUEST: Duration = Duration::from_secs(120);
/// How long a request is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The store that `address` names, `options` going before the environment.
pub(crate) fn open(address: &str, options: &[(&str, String)]) -> Result<Arc<dyn ObjectStore>> {
    let wrong = |reason: String| Error::CloudAddress { address: shown(address), reason };
    let parsed = Url::parse(address).map_err(|error| wrong(error.to_string()))?;
    let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|error| wrong(error.to_string()))?;
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been quicker, which is as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    let client = ClientOptions::new().with_timeout(REQUEST);
    let retry = RetryConfig { retry_timeout: RETRY, ..RetryConfig::default() };
    /// A builder from the environment, the address and the options.
    macro_rules! built {
        ($builder:ty) => {{
            let mut builder = <$builder>::from_env().with_client_options(client).with_retry(retry);
            // The client's options above have taken the place of what the environment says of it.
            let allowed = std::env::vars().filter(|(key, _)| key.ends_with("_ALLOW_HTTP"));
            for (key, value) in
                allowed.chain(options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())))
            {
                if let Ok(key) = FromStr::from_str(&key.to_ascii_lowercase()) {
                    builder = builder.with_config(key, value);
                }
            }
            let store = builder.with_url(address).build().map_err(|error| wrong(error.to_string()))?;
            Ok(Arc::new(PrefixStore::new(store, path)))
        }};
    }
    match scheme {
        ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder),
        other => Err(wrong(format!("artifacts cannot be kept at {other:?}"))),
    }
}

/// The address without a user and a password.
fn shown(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            let cleared = parsed.set_username("").and_then(|()| parsed.set_password(None));
            cleared.map_or_else(|()| "the address".to_owned(), |()| parsed.to_string())
        }
        _ => address.to_owned(),
    }
}
