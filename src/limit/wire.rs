//! A connection to Redis of whatever kind: one server, the master that sentinels name, a cluster; in clear or by TLS.
//!
//! Nothing here tries a command twice or connects again by itself: who loses a connection makes a new one. Of a cluster
//! the crate keeps the map of slots; its own tries are set to none.

use super::target::{Place, Target, info};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value, cmd,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A connection and its hello have so long.
pub const CONNECT_MS_MAX: u64 = 250;

/// Cheap to clone: calls of all clones go over one connection (of a cluster: one a node).
#[derive(Clone)]
pub enum Wire {
    /// To one server.
    One(MultiplexedConnection),
    /// To the masters of a cluster.
    Cluster(ClusterConnection),
}

impl Wire {
    /// Connects; the caller limits how long.
    ///
    /// # Errors
    /// Redis's or the kernel's.
    pub async fn open(target: &Target) -> RedisResult<Wire> {
        let tls = target.tls();
        match target.place() {
            Place::Single(info) => open(info.clone(), tls).await.map(Wire::One),
            Place::Sentinel { sentinels, name, login } => {
                open(master_of(sentinels, name, login, tls).await?, tls).await.map(Wire::One)
            }
            Place::Cluster(nodes) => {
                let limit = Duration::from_millis(CONNECT_MS_MAX);
                let builder = ClusterClientBuilder::new(nodes.iter().cloned());
                let builder = builder.retries(0).connection_timeout(limit).response_timeout(limit);
                builder.build()?.get_async_connection().await.map(Wire::Cluster)
            }
        }
    }

    /// One command and its answer; the crate hands error replies over as values, here they are errors.
    ///
    /// # Errors
    /// Redis's, or the connection's.
    pub async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Wire::One(wire) => wire.send_packed_command(command).await?.extract_error(),
            Wire::Cluster(wire) => wire.req_packed_command(command).await?.extract_error(),
        }
    }
}

async fn open(info: ConnectionInfo, tls: Option<&Arc<ClientConfig>>) -> RedisResult<MultiplexedConnection> {
    // Our own limits stand around every use.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let (Some(tls), ConnectionAddr::Tcp(host, port)) = (tls, info.addr()) else {
        return redis::Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await;
    };
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host.as_str(), *port)).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
    let (wire, driver) = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
    tokio::spawn(driver);
    Ok(wire)
}

/// The first sentinel that knows the master.
async fn master_of(
    sentinels: &[ConnectionInfo],
    name: &str,
    login: &str,
    tls: Option<&Arc<ClientConfig>>,
) -> RedisResult<ConnectionInfo> {
    let mut last = RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no sentinel answers"));
    for sentinel in sentinels {
        let share = Duration::from_millis(CONNECT_MS_MAX / 2 / sentinels.len() as u64);
        match timeout(share, master_from(sentinel.clone(), name, tls)).await {
            Ok(Ok(host)) => {
                return info(&login.replacen("HOST", &host, 1))
                    .map_err(|_| (ErrorKind::InvalidClientConfig, "a sentinel named no address").into());
            }
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

async fn master_from(sentinel: ConnectionInfo, name: &str, tls: Option<&Arc<ClientConfig>>) -> RedisResult<String> {
    let mut wire = open(sentinel, tls).await?;
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(name);
    let (host, port): (String, u16) = question.query_async(&mut wire).await?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}
