//! Certificates of our own making, and TLS before a server that speaks none.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tokio::{io::copy_bidirectional, net::TcpStream, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// A server's certificate, and the authority that says so, each as PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What clients are to believe.
    pub authority: String,
    /// The server's.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Certificate {
    /// One for a server that is called `name`, a host's name or address.
    ///
    /// # Panics
    /// When the name is none.
    pub fn of(name: &str) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        authority.distinguished_name.push(DnType::CommonName, "an authority of a test");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
        let mut server = CertificateParams::new([name.to_owned()]).expect("a name");
        server.distinguished_name.push(DnType::CommonName, "a server of a test");
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = server.signed_by(&key, &authority).expect("a certificate");
        Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Takes TLS connections and passes on what is in them.
#[derive(Debug)]
pub struct TlsFront {
    listener: Option<std::net::TcpListener>,
    acceptor: Certificate,
    port: u16,
    task: Option<JoinHandle<()>>,
}

impl TlsFront {
    /// One that has a port, and does not answer there yet.
    ///
    /// # Panics
    /// When there is no port.
    pub fn new(certificate: &Certificate) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        Self { listener: Some(listener), acceptor: certificate.clone(), port, task: None }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stands before the server on `port` of this machine, for as long as it is not dropped.
    ///
    /// # Panics
    /// When the certificate does not do.
    pub fn before(&mut self, port: u16) {
        let Some(listener) = self.listener.take() else { return };
        let acceptor = acceptor(&self.acceptor);
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
        self.task = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not like the certificate goes away.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let server = SocketAddr::from(([127, 0, 0, 1], port));
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }));
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn acceptor(certificate: &Certificate) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key that fits");
    TlsAcceptor::from(Arc::new(config))
}
