//! How a connection to an upstream is made: TCP, TLS over it, or a Unix socket; one HTTP client for all.
//!
//! TLS trusts the system's certificates (`SSL_CERT_FILE` names others), read when the first such upstream is set up.

use crate::sys::fd;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or address, and a port.
    Tcp(String, u16),
    /// The same, by TLS.
    Tls(String, u16),
    /// A path; one that begins with a NUL byte is an abstract name.
    Unix(PathBuf),
}

/// Makes connections to one place.
#[derive(Clone)]
pub struct Connector {
    place: Arc<Place>,
    limit: Duration,
    tls: Option<TlsConnector>,
}

/// The system's certificates are read once a process.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        tracing::error!("no certificate authority is installed, so no https upstream can be trusted");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config =
        config.with_safe_default_protocol_versions().unwrap_or_else(|_| unreachable!("ring has TLS 1.2 and 1.3"));
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
});

/// A TLS client that believes the system's certificate authorities.
pub fn trusting_the_system() -> Arc<ClientConfig> {
    TLS.clone()
}

impl Connector {
    /// A connector that gives up after `limit`.
    pub fn new(place: Place, limit: Duration) -> Connector {
        let tls = matches!(place, Place::Tls(..)).then(|| TLS.clone());
        Connector { place: Arc::new(place), limit, tls: tls.map(TlsConnector::from) }
    }

    /// The same, with another trust than the system's.
    pub fn trusting(place: Place, limit: Duration, trust: Arc<ClientConfig>) -> Connector {
        Connector { place: Arc::new(place), limit, tls: Some(TlsConnector::from(trust)) }
    }

    /// One connection.
    ///
    /// # Errors
    /// The kernel's or the resolver's; `TimedOut` after the limit.
    pub async fn connect(&self) -> io::Result<Socket> {
        let connecting = async {
            match &*self.place {
                Place::Unix(path) => UnixStream::connect(path).await.map(|stream| Socket::Unix(TokioIo::new(stream))),
                Place::Tcp(host, port) => Ok(Socket::Tcp(TokioIo::new(tcp(host, *port).await?))),
                Place::Tls(host, port) => {
                    let tls = self.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                    let stream = tls.connect(name, tcp(host, *port).await?).await?;
                    Ok(Socket::Tls(Box::new(TokioIo::new(stream))))
                }
            }
        };
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within the limit"));
        tokio::time::timeout(self.limit, connecting).await.unwrap_or_else(late)
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    fd::unpaced_on_loopback(&stream, stream.peer_addr()?.ip());
    Ok(stream)
}

impl tower_service::Service<http::Uri> for Connector {
    type Response = Socket;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

/// A connection of any kind.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TokioIo<TcpStream>),
    /// TLS.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    /// A Unix socket.
    Unix(TokioIo<UnixStream>),
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
