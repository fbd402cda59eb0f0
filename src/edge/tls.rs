//! TLS for clients: rustls, 1.2 and 1.3 only, HTTP/2 or HTTP/1.1 by ALPN, no early data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::checked::Tls;

/// Why TLS cannot be spoken. Each names its file, none shows its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No PEM in the file, or no file.
    #[error("server.tls.{key}: cannot read {}: {why}", path.display())]
    Read {
        /// `cert` or `key`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The two do not fit, or rustls cannot use them.
    #[error("server.tls: {} and {} cannot be used: {why}", cert.display(), key.display())]
    Unusable {
        /// Certificate chain.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
        /// What rustls says.
        why: rustls::Error,
    },
}

/// The certificate that new connections are shown. Swapped whole; connections at work keep theirs.
#[derive(Debug)]
pub struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    /// Reads the files again.
    ///
    /// # Errors
    /// What is wrong with them; the old certificate stays.
    pub fn renew(&self, files: &Tls) -> Result<(), TlsError> {
        self.0.store(Arc::new(certificate(files)?));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS with the certificate of these files, and where to put a new one.
pub fn acceptor(files: &Tls) -> Result<(TlsAcceptor, Arc<Shown>), TlsError> {
    let shown = Arc::new(Shown(ArcSwap::from_pointee(certificate(files)?)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| unusable(files, why))?
        .with_no_client_auth()
        .with_cert_resolver(shown.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), shown))
}

/// Reads the certificate chain and key, which must belong together.
fn certificate(files: &Tls) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| read_error("cert", &files.cert, error))?;
    if chain.is_empty() {
        return Err(read_error("cert", &files.cert, pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| read_error("key", &files.key, error))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|why| unusable(files, why))
}

fn unusable(files: &Tls, why: rustls::Error) -> TlsError {
    TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), why }
}

fn read_error(key: &'static str, path: &Path, error: pem::Error) -> TlsError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound if key == "cert" => "it holds no PEM certificate".to_owned(),
        pem::Error::NoItemsFound => "it holds no PEM private key".to_owned(),
        _ => "it is not well-formed PEM".to_owned(),
    };
    TlsError::Read { key, path: path.to_owned(), why }
}
