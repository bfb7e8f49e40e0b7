//! Clients of our own server.

/// Where one begins, in every build: other crates' features bring TLS into `reqwest`, which then wants to know what
/// does the arithmetic before it makes a client, even of plain `http`.
pub(crate) fn client() -> reqwest::ClientBuilder {
    #[cfg(any(feature = "cloud", feature = "lake", feature = "tls"))]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been quicker, which is as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    reqwest::Client::builder()
}
