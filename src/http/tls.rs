//! TLS by rustls: the certificate and its key, read when the configuration is, so that a bad pair refuses a reload.
//!
//! TLS 1.2 and 1.3 with rustls's own choice of suites, in our order; ALPN `h2`, then `http/1.1`. Tickets are under a key that the
//! master made before it forked, so a session goes on at whichever worker takes the next connection.

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// The name of HTTP/2 in ALPN.
pub const H2: &[u8] = b"h2";

/// Longer than any session of ours.
const TICKET_BYTES_MAX: usize = 4096;

/// Reads a certificate chain and its key, both PEM.
///
/// # Errors
/// A sentence that names the file: it cannot be read, holds nothing of the kind, others may write it, or the two do not
/// belong together.
pub fn load(certfile: &Path, keyfile: &Path) -> Result<Arc<ServerConfig>, String> {
    let told = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    closed(keyfile)?;
    let chain = CertificateDer::pem_file_iter(certfile).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| told(certfile, &error))?;
    if chain.is_empty() {
        return Err(told(certfile, &"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(keyfile).map_err(|error| told(keyfile, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} and {}: {error}", certfile.display(), keyfile.display()))?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    // One ticket is enough for a client that comes back, and costs half of two.
    config.send_tls13_tickets = 1;
    config.ignore_client_order = true;
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    // ring's ticketer opens no ticket longer than the longest that its own process has made: one from before the fork
    // lets a worker that has made none yet take those of the others.
    let _ = config.ticketer.encrypt(&[0; TICKET_BYTES_MAX]);
    Ok(Arc::new(config))
}

/// ring's suites, those with AES-128 and SHA-256 first: processors have instructions for both. Clients like to name
/// SHA-384 first, and its key schedule was a tenth of a handshake.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !suite.suite().as_str().is_some_and(|name| name.contains("AES_128")));
    provider
}

fn closed(keyfile: &Path) -> Result<(), String> {
    let found = std::fs::metadata(keyfile).map_err(|error| format!("{}: {error}", keyfile.display()))?;
    match found.permissions().mode() & 0o022 {
        0 => Ok(()),
        _ => Err(format!("{} can be written by others: chmod go-w it", keyfile.display())),
    }
}
