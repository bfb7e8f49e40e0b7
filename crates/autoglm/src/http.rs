//! Clients over HTTP, in every build.

/// Where a client of our own server begins.
pub(crate) fn client() -> reqwest::ClientBuilder {
    choose_provider();
    reqwest::Client::builder()
}

/// Chooses what does the arithmetic of TLS, once. One crate's feature brings TLS into the `reqwest` of all of them, which
/// then wants to know that before it makes a client, even of plain `http`; only the binary knows which features are on.
pub(crate) fn choose_provider() {
    #[cfg(any(feature = "cloud", feature = "lake", feature = "tls"))]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been quicker, which is as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
