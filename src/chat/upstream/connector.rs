//! How a connection to an upstream is made: TCP or a Unix socket, one HTTP client for both.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or address, and a port.
    Tcp(String, u16),
    /// A path; one that begins with a NUL byte is an abstract name.
    Unix(PathBuf),
}

/// Makes connections to one place.
#[derive(Clone, Debug)]
pub struct Connector {
    place: Arc<Place>,
    limit: Duration,
}

impl Connector {
    /// A connector that gives up after `limit`.
    pub fn new(place: Place, limit: Duration) -> Connector {
        Connector { place: Arc::new(place), limit }
    }

    /// One connection.
    ///
    /// # Errors
    /// The kernel's or the resolver's; `TimedOut` after the limit.
    pub async fn connect(&self) -> io::Result<Socket> {
        let connecting = async {
            match &*self.place {
                Place::Unix(path) => UnixStream::connect(path).await.map(|stream| Socket::Unix(TokioIo::new(stream))),
                Place::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Ok(Socket::Tcp(TokioIo::new(stream)))
                }
            }
        };
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no connection within the limit"));
        tokio::time::timeout(self.limit, connecting).await.unwrap_or_else(late)
    }
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

/// A connection of either kind.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TokioIo<TcpStream>),
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
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
