//! Where Redis is: `redis://`, `unix://` as the crate reads them, and `redis+sentinel://h:p,h:p/name`, read here.

use redis::{ConnectionInfo, IntoConnectionInfo};
use std::fmt;
use std::str::FromStr;

/// Sentinels that one URL may name.
const SENTINELS_MAX: usize = 16;

/// Where Redis is. `Debug` shows no password.
#[derive(Clone)]
pub enum Target {
    /// One server.
    Single(ConnectionInfo),
    /// The master that these sentinels name.
    Sentinel {
        /// Asked in their order.
        sentinels: Vec<ConnectionInfo>,
        /// The master's name with them.
        name: String,
        /// User, password and database of the master: a URL whose host is replaced by what the sentinels say.
        login: String,
    },
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Single(info) => write!(f, "Single({})", info.addr()),
            Target::Sentinel { sentinels, name, .. } => write!(f, "Sentinel({} of {name})", sentinels.len()),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// # Errors
    /// A sentence that names no part of the URL, for it may hold a password.
    fn from_str(url: &str) -> Result<Target, String> {
        let (scheme, rest) = url.split_once(':').ok_or("REDIS_URL is not a URL")?;
        match scheme {
            "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => Ok(Target::Single(info(url)?)),
            "redis+sentinel" => sentinel(rest.trim_start_matches('/')),
            "rediss" | "valkeys" => Err("REDIS_URL asks for TLS, which this build does not speak".to_owned()),
            "redis+cluster" => Err("REDIS_URL asks for a Redis Cluster, which this build does not speak".to_owned()),
            _ => Err("REDIS_URL is none of redis://, unix://, redis+sentinel://".to_owned()),
        }
    }
}

/// `[user:password@]h:p,h:p/name[/database]`
fn sentinel(text: &str) -> Result<Target, String> {
    let (login, places) = text.rsplit_once('@').map_or(("", text), |(login, places)| (login, places));
    let mut parts = places.split('/');
    let hosts = parts.next().unwrap_or_default();
    let name = parts.next().filter(|name| !name.is_empty()).ok_or("REDIS_URL names no master after its sentinels")?;
    let database = parts.next().unwrap_or("0");
    let hosts: Vec<&str> = hosts.split(',').filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() || hosts.len() > SENTINELS_MAX {
        return Err(format!("REDIS_URL must name 1 to {SENTINELS_MAX} sentinels"));
    }
    let sentinels: Result<Vec<_>, _> = hosts.iter().map(|host| info(&format!("redis://{}", with_port(host)))).collect();
    let at = if login.is_empty() { "" } else { "@" };
    let login = format!("redis://{login}{at}HOST/{database}");
    info(&login)?;
    Ok(Target::Sentinel { sentinels: sentinels?, name: name.to_owned(), login })
}

/// The sentinels' usual port, where none is given.
fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:26379") }
}

/// How to reach a server by URL.
///
/// # Errors
/// A sentence without the URL.
pub fn info(url: &str) -> Result<ConnectionInfo, String> {
    let short = url.strip_prefix("unix:").filter(|path| !path.starts_with("//"));
    let url = short.map_or_else(|| url.to_owned(), |path| format!("unix://{path}"));
    url.as_str().into_connection_info().map_err(|error| format!("REDIS_URL cannot be read: {}", error.category()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for url in
            ["redis://localhost", "redis://:secret@10.0.0.1:6380/2", "unix:///run/redis.sock", "unix:/run/redis.sock"]
        {
            assert!(matches!(url.parse(), Ok(Target::Single(_))), "{url}");
        }
        let Ok(Target::Sentinel { sentinels, name, login }) = "redis+sentinel://:pw@a:1,b/main/3".parse() else {
            panic!()
        };
        assert_eq!((sentinels.len(), name.as_str(), login.as_str()), (2, "main", "redis://:pw@HOST/3"));
        assert_eq!(sentinels[1].addr().to_string(), "b:26379");
    }

    #[test]
    fn refusals_name_no_secret() {
        for url in [
            "redis",
            "http://x:secret@y",
            "rediss://:secret@h",
            "redis+cluster://:secret@h:1,h:2",
            "redis+sentinel://:secret@h:1",
            "redis://:secret@h:99999",
            "redis+sentinel://:secret@/name",
        ] {
            let error = url.parse::<Target>().unwrap_err();
            assert!(error.starts_with("REDIS_URL") && !error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", "redis://:secret@h".parse::<Target>().unwrap()).contains("secret"));
    }
}
