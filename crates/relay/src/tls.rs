//! TLS 1.3, ended by the relay itself, and the exporter that log-ins are bound to (N1, RFC 9266).

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// RFC 9266, section 4.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A certificate chain and its key, as PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The exporter of a connection, on its way from the listener to the router.
#[derive(Clone, Copy)]
pub(crate) struct Binding(pub(crate) [u8; 32]);

/// Reads the files.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, String> {
    let about = |path: &PathBuf, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| about(&files.certificates, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| about(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| about(&files.certificates, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The exporter of a connection whose handshake is done.
pub(crate) fn binding(connection: &rustls::ServerConnection) -> Option<Binding> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, None).ok().map(Binding)
}
