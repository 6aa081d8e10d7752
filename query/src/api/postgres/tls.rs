//! TLS for the PostgreSQL wire. PEM files enter, an acceptor leaves.

use std::sync::Arc;

use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::ServerConfig;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::crypto::ring;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::pki_types::pem::PemObject;
use datafusion_postgres::pgwire::tokio::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;
use crate::settings::TlsSettings;

/// Chooses the one implementation of cryptography both doors use; two are linked, and rustls will not choose by itself.
pub fn choose_crypto() {
    // An error means that it has been chosen before.
    let _ = ring::default_provider().install_default();
}

/// # Errors
/// A file that cannot be read or is not PEM, or a key that is not the certificate's.
pub fn acceptor(files: &TlsSettings) -> Result<TlsAcceptor, Error> {
    let unusable = |key: &str, error: &dyn std::fmt::Display| Error::settings(format!("query.tls.{key}: {error}"));
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable("certificate", &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable("key", &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| unusable("key", &error))?;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
