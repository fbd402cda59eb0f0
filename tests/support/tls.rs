//! Certificates of the tests: one authority per test, leaves signed by it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority and the folder its files are in.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// A new authority; `ca.pem` is written into the folder.
    pub fn new(folder: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder: folder.to_owned() }
    }

    /// Writes `NAME.pem` and `NAME.key` of a leaf for these names or addresses.
    pub fn write_leaf(&self, file: &str, names: &[&str]) {
        let (leaf, key) = self.leaf(names);
        std::fs::write(self.folder.join(format!("{file}.pem")), leaf.pem()).unwrap();
        std::fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// A client that trusts this authority and no other, speaking HTTP/1.1.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> TlsStream<TcpStream> {
        self.connect_with(address, name, b"http/1.1").await
    }

    /// The same with another protocol.
    pub async fn connect_with(&self, address: SocketAddr, name: &str, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    fn leaf(&self, names: &[&str]) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        (CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server's end for these names or addresses.
    pub fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let (leaf, key) = self.leaf(names);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}
