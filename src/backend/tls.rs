//! TLS to upstreams: certificates are always checked, by the system's roots or by the configured ones.
//!
//! Invariant: there is no switch that turns the check off; TLS 1.2 and 1.3 only.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

/// A connector for one host. With `ca` its roots are trusted for this host, and no others.
pub fn connector(ca: Option<&Path>, host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "base_url's host is not a name for TLS".to_owned())?;
    let config = match ca {
        Some(file) => Arc::new(config(private_roots(file)?)?),
        None => platform()?,
    };
    Ok((TlsConnector::from(config), name))
}

/// The system's roots, read once: they are a few hundred kilobytes.
fn platform() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(ready) = CONFIG.get() {
        return Ok(Arc::clone(ready));
    }
    let verifier = Verifier::new(provider()).map_err(|e| format!("the system's root certificates: {e}"))?;
    let made = Arc::new(config(Arc::new(verifier))?);
    Ok(Arc::clone(CONFIG.get_or_init(|| made)))
}

fn private_roots(file: &Path) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let told = |e: &dyn std::fmt::Display| format!("ca {}: {e}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| told(&e))? {
        roots.add(certificate.map_err(|e| told(&e))?).map_err(|e| told(&e))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    verifier.build().map(|made| made as Arc<dyn ServerCertVerifier>).map_err(|e| told(&e))
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, String> {
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|e| format!("TLS: {e}"))?;
    // `dangerous` is rustls's word for any verifier that is not built in; both of ours check chain and name.
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
