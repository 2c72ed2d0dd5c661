//! Where a PostgreSQL database is: libpq's URLs, with TLS by rustls.

use super::tls;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio_postgres::config::{Config, Host, SslMode};

/// Longest that one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);
/// A connection on which nothing happens is asked for a sign of life after this.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// What was sent and not acknowledged for so long breaks the connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// Where Debian's server has its socket.
const SOCKET_DIRECTORY: &str = "/run/postgresql";

/// A database and the way to it. `Debug` and `Display` show no password.
#[derive(Clone)]
pub struct Target {
    pub(super) config: Config,
    pub(super) tls: tls::Tls,
    /// What an operator should know about the way.
    pub advice: Option<&'static str>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        let ports = self.config.get_ports();
        for (at, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            let comma = if at == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or(""))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// True for a URL that this module reads.
pub fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

impl FromStr for Target {
    type Err = String;

    /// # Errors
    /// A sentence that names no part of the URL but its parameters, for it may hold a password.
    fn from_str(url: &str) -> Result<Target, String> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut authorities, mut rest) = ("prefer".to_owned(), None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => value.clone_into(&mut mode),
                Some(("sslrootcert", value)) => authorities = Some(decoded(value)?),
                Some(("sslcert" | "sslkey", _)) => return Err("client certificates are not spoken".to_owned()),
                _ => rest.push(pair),
            }
        }
        let bare = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let config: Config = bare.parse().map_err(|error| cause(&error))?;
        let trust = trust(&mode, authorities.as_deref())?;
        let advice = matches!(trust, tls::Trust::Anybody).then_some(
            "sslmode=require hides what goes over the wire and does not check who answers: verify-full does both",
        );
        let ssl = match mode.as_str() {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        };
        let tls = if ssl == SslMode::Disable { tls::Tls::none() } else { tls::Tls::new(&trust)? };
        Ok(Target { config: mended(config, ssl), tls, advice: advice.filter(|_| mode == "require") })
    }
}

/// libpq's meaning: `require` with an authority's certificate is `verify-ca`.
fn trust(mode: &str, authorities: Option<&str>) -> Result<tls::Trust, String> {
    let roots = match authorities {
        None | Some("system") => tls::Roots::System,
        Some(path) => tls::Roots::File(PathBuf::from(path)),
    };
    match (mode, authorities) {
        ("disable" | "prefer", _) | ("require", None) => Ok(tls::Trust::Anybody),
        ("require" | "verify-ca", _) => Ok(tls::Trust::Authority(roots)),
        ("verify-full", _) => Ok(tls::Trust::Host(roots)),
        _ => Err("sslmode: write disable, prefer, require, verify-ca or verify-full".to_owned()),
    }
}

fn mended(mut config: Config, ssl: SslMode) -> Config {
    config.ssl_mode(ssl);
    config.connect_timeout(CONNECT_LIMIT).tcp_user_timeout(UNACKNOWLEDGED_MAX).keepalives_idle(KEEPALIVE_IDLE);
    if config.get_application_name().is_none() {
        config.application_name("chatcorn");
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        match Path::new(SOCKET_DIRECTORY).exists() {
            true => config.host_path(SOCKET_DIRECTORY),
            false => config.host("localhost"),
        };
    }
    config
}

/// A configuration error's own sentence and its cause's, neither of which repeats a value but a parameter's name.
fn cause(error: &tokio_postgres::Error) -> String {
    let inner = std::error::Error::source(error).map(ToString::to_string);
    inner.unwrap_or_else(|| error.to_string())
}

/// `%2F` is `/`.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "sslrootcert is not well encoded".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        let target: Target = "postgres://u:hunter2@db.example:5433/chat?connect_timeout=9".parse().unwrap();
        assert_eq!(target.to_string(), "postgres://db.example:5433/chat");
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(target.config.get_connect_timeout(), Some(&CONNECT_LIMIT));
        let socket: Target = "postgresql:///chat?host=/var/run/pg&user=u".parse().unwrap();
        assert_eq!(socket.to_string(), "postgres:///var/run/pg:5432/chat");
        let encoded: Target = "postgresql://u@%2Frun%2Fpg/chat?sslmode=disable".parse().unwrap();
        assert_eq!(encoded.to_string(), "postgres:///run/pg:5432/chat");
        let two: Target = "postgres://u@a,b/chat?target_session_attrs=read-write".parse().unwrap();
        assert_eq!(two.to_string(), "postgres://a:5432,b:5432/chat");
    }

    #[test]
    fn tls_is_asked_for_by_sslmode() {
        let mode = |query: &str| format!("postgres://u@h/d?{query}").parse::<Target>();
        assert_eq!(mode("sslmode=disable").unwrap().config.get_ssl_mode(), SslMode::Disable);
        assert_eq!(mode("").unwrap().config.get_ssl_mode(), SslMode::Prefer);
        assert!(mode("").unwrap().advice.is_none());
        assert!(mode("sslmode=require").unwrap().advice.is_some());
        assert!(mode("sslmode=require&sslrootcert=%2Fnowhere").unwrap_err().contains("/nowhere"));
        assert!(mode("sslmode=verify-none").unwrap_err().contains("verify-full"));
        assert!(mode("sslkey=x").is_err());
    }

    #[test]
    fn an_error_repeats_no_password() {
        for bad in
            ["postgres://u:hunter2@h:port/d", "postgres://u:hunter2@h/d?hunter3=1", "postgres://u:hunter2@h/d?port=x"]
        {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
