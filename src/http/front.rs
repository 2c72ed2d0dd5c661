//! What stands before the first request: who the balancer says it is, TLS, and which HTTP is spoken.
//!
//! ```text
//! accepted ─▶ PROXY header ─▶ TLS, ALPN ─┬─▶ h2 ─▶ h2::serve
//!            (allowed peers)   (if set)  └─▶ else ▶ connection::serve, behind the strict filter
//! ```
//! Each step is there only when it is set; a plain server goes straight to [`connection::serve`]. All of it together has
//! the time of one request head.

use super::proxy::{self, Found};
use super::{App, connection, h2, tls};
use crate::limit::Peer;
use crate::listener::Purpose;
use bytes::{Buf, Bytes, BytesMut};
use rustls::ServerConfig;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;

/// How HTTP/2 begins when nothing was negotiated (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of what is read ahead; a PROXY header is the longest.
const AHEAD_BYTES_MAX: usize = proxy::HEADER_BYTES_MAX;

/// What is set.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// `--certfile` and `--keyfile`.
    pub tls: Option<Arc<ServerConfig>>,
    /// `--proxy-protocol`
    pub proxy_protocol: bool,
    /// `--http2-clear`
    pub http2_clear: bool,
}

impl Plan {
    fn is_plain(&self) -> bool {
        self.tls.is_none() && !self.proxy_protocol && !self.http2_clear
    }
}

/// Serves one accepted connection to its end. Operators' addresses speak plain HTTP/1.1.
pub async fn serve<S>(app: Arc<App>, (peer, purpose): (Peer, Purpose), stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if purpose == Purpose::Admin || app.plan.front.is_plain() {
        return connection::serve(app, (peer, purpose), stream).await;
    }
    Box::pin(dressed(app, peer, stream)).await;
}

async fn dressed<S>(app: Arc<App>, peer: Peer, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = Duration::from_millis(app.plan.times.head_ms_max);
    let front = app.plan.front.clone();
    let mut stream = Ahead { before: Bytes::new(), inner: stream };
    let mut peer = peer;
    if front.proxy_protocol {
        if !app.plan.trusted.contains(peer) {
            tracing::warn!(?peer, "closed: its address is not in FORWARDED_ALLOW_IPS, and --proxy-protocol is on");
            return;
        }
        match tokio::time::timeout(limit, announced(&mut stream)).await {
            Ok(Ok(client)) => peer = client.map_or(peer, Peer::Address),
            _ => return,
        }
    }
    // A failed handshake is the peer's doing: scanners do it all day.
    match front.tls {
        Some(config) => match tokio::time::timeout(limit, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(tls::H2) => h2::serve(app, peer, stream).await,
            Ok(Ok(stream)) => connection::serve(app, (peer, Purpose::Public), stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => {}
        },
        None if front.http2_clear => match tokio::time::timeout(limit, begins_h2(&mut stream)).await {
            Ok(Ok(true)) => h2::serve(app, peer, stream).await,
            Ok(Ok(false)) => connection::serve(app, (peer, Purpose::Public), stream).await,
            _ => {}
        },
        None => connection::serve(app, (peer, Purpose::Public), stream).await,
    }
}

/// The client that the balancer names.
async fn announced<S: AsyncRead + Unpin>(stream: &mut Ahead<S>) -> io::Result<Option<std::net::IpAddr>> {
    loop {
        match proxy::parse(&stream.before) {
            Found::Header(bytes, client) => {
                stream.before.advance(bytes);
                return Ok(client);
            }
            Found::More if stream.read_ahead().await? > 0 => {}
            Found::More | Found::Bad => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

async fn begins_h2<S: AsyncRead + Unpin>(stream: &mut Ahead<S>) -> io::Result<bool> {
    loop {
        let common = stream.before.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
        if common == PREFACE.len() || common < stream.before.len() {
            return Ok(common == PREFACE.len());
        }
        if stream.read_ahead().await? == 0 {
            return Ok(false);
        }
    }
}

/// A stream of which the first bytes were looked at.
struct Ahead<S> {
    before: Bytes,
    inner: S,
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// Reads more behind what was looked at; 0 at the stream's end, an error when it is too much.
    async fn read_ahead(&mut self) -> io::Result<usize> {
        let mut bytes = BytesMut::from(&self.before[..]);
        let room = AHEAD_BYTES_MAX.saturating_sub(bytes.len());
        let read = (&mut self.inner).take(room as u64).read_buf(&mut bytes).await?;
        self.before = bytes.freeze();
        Ok(read)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let bytes = self.before.len().min(buffer.remaining());
        buffer.put_slice(&self.before.split_to(bytes));
        if self.before.is_empty() {
            self.before = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
