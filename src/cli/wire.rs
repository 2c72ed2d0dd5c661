//! Bytes to a server and what comes back, as they are: over TCP, a Unix socket, or TLS on either.

use super::server::{CONNECT_LIMIT, Server};
use crate::chat::upstream::connector::{Place, trusting_the_system};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Whose certificate is good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One that the system's authorities vouch for.
    System,
    /// This very one: of a server on this machine, whatever name stands in it.
    Own(CertificateDer<'static>),
    /// Any; for a question that tells no secret and whose answer proves nothing but that somebody lives.
    Any,
}

impl Trust {
    /// In the first certificate of our own server's file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn own(certfile: &Path) -> Result<Trust, String> {
        let read = CertificateDer::from_pem_file(certfile);
        read.map(Trust::Own).map_err(|error| format!("{}: {error}", certfile.display()))
    }

    /// As a TLS client has it.
    pub fn client(&self) -> Arc<ClientConfig> {
        let expected = match self {
            Trust::System => return trusting_the_system(),
            Trust::Own(certificate) => Some(certificate.clone()),
            Trust::Any => None,
        };
        let provider = Arc::new(ring::default_provider());
        let schemes = provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|_| unreachable!("ring has TLS 1.2 and 1.3"));
        let verifier = Arc::new(Pinned { expected, schemes });
        Arc::new(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

/// Compares with one certificate, or with none; that the server holds its key is proven in any case.
#[derive(Debug)]
struct Pinned {
    expected: Option<CertificateDer<'static>>,
    schemes: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        found: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.expected.as_ref().is_none_or(|expected| expected == found) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.supported_schemes()
    }
}

/// How much of an answer, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Longest answer that is read.
    pub bytes: u64,
    /// For each read.
    pub time: Duration,
}

/// Sends bytes on a connection of their own and reads until it ends; `trust` is there when TLS is to be spoken.
///
/// # Errors
/// Nobody answers, or not in time.
pub fn exchange(server: &Server, trust: Option<&Trust>, bytes: &[u8], most: Most) -> io::Result<Vec<u8>> {
    exchange_after(b"", server, trust, bytes, most)
}

/// The same, with what stands before TLS and HTTP.
///
/// # Errors
/// As [`exchange`].
pub fn exchange_after(
    before: &[u8],
    server: &Server,
    trust: Option<&Trust>,
    bytes: &[u8],
    most: Most,
) -> io::Result<Vec<u8>> {
    match &server.place {
        Place::Unix(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(most.time))?;
            stream.write_all(before)?;
            dressed(stream, "localhost", trust, bytes, most)
        }
        Place::Tcp(host, port) | Place::Tls(host, port) => {
            let address = (host.as_str(), *port).to_socket_addrs()?.next();
            let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
            let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
            stream.set_read_timeout(Some(most.time))?;
            stream.write_all(before)?;
            dressed(stream, host, trust, bytes, most)
        }
    }
}

fn dressed(
    stream: impl Read + Write,
    host: &str,
    trust: Option<&Trust>,
    bytes: &[u8],
    most: Most,
) -> io::Result<Vec<u8>> {
    let Some(trust) = trust else { return read(stream, bytes, most) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(trust.client(), name).map_err(io::Error::other)?;
    read(StreamOwned::new(connection, stream), bytes, most)
}

fn read(mut stream: impl Read + Write, bytes: &[u8], most: Most) -> io::Result<Vec<u8>> {
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    match stream.take(most.bytes).read_to_end(&mut answer) {
        // A refusal may close before all that was sent is read, and without TLS's own end.
        Err(_) if !answer.is_empty() => Ok(answer),
        Err(error) => Err(error),
        Ok(_) => Ok(answer),
    }
}
