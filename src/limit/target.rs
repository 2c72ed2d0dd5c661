//! Where Redis is: `redis://`, `rediss://`, `unix://` as the crate reads them, and `redis+sentinel://h:p,h:p/name` and
//! `redis+cluster://h:p,h:p`, read here.

use redis::{ConnectionInfo, IntoConnectionInfo};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// Sentinels, or nodes of a cluster, that one URL may name.
const HOSTS_MAX: usize = 16;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is, and whom to trust there. `Debug` shows no password.
#[derive(Clone)]
pub struct Target {
    place: Place,
    secure: bool,
    tls: Option<Arc<ClientConfig>>,
}

/// Where Redis is.
#[derive(Clone)]
pub enum Place {
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
    /// The cluster that these nodes belong to.
    Cluster(Vec<ConnectionInfo>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.secure { " by TLS" } else { "" };
        match &self.place {
            Place::Single(info) => write!(f, "{}{tls}", info.addr()),
            Place::Sentinel { sentinels, name, .. } => write!(f, "{name} of {} sentinels{tls}", sentinels.len()),
            Place::Cluster(nodes) => write!(f, "cluster of {} nodes", nodes.len()),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// # Errors
    /// A sentence that names no part of the URL, for it may hold a password.
    fn from_str(url: &str) -> Result<Target, String> {
        let (scheme, rest) = url.split_once(':').ok_or("REDIS_URL is not a URL")?;
        let hosts = rest.trim_start_matches('/');
        let (place, secure) = match scheme {
            "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => (Place::Single(info(url)?), false),
            "rediss" | "valkeys" => (Place::Single(info(&format!("redis:{}", checked(rest)?))?), true),
            "redis+sentinel" => (sentinel(hosts)?, false),
            "rediss+sentinel" => (sentinel(hosts)?, true),
            "redis+cluster" => (cluster(hosts)?, false),
            "rediss+cluster" => {
                return Err("REDIS_URL asks for a Redis Cluster by TLS, which this build does not speak".to_owned());
            }
            _ => {
                let known = "redis://, rediss://, unix:, redis+sentinel://, redis+cluster://";
                return Err(format!("REDIS_URL is none of {known}"));
            }
        };
        Ok(Target { place, secure, tls: None })
    }
}

impl Target {
    /// See [`Place`].
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How to reach it by TLS; `None` in clear.
    pub fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }

    /// The same, trusting the certificate authorities in `file` (PEM), else the system's, where it is reached by TLS.
    /// They are read once, before the fork.
    ///
    /// # Errors
    /// A sentence: the file cannot be read, or there is no authority.
    pub fn trusting(self, file: Option<&Path>) -> Result<Target, String> {
        if !self.secure {
            return Ok(self);
        }
        let roots = match file {
            Some(file) => named(file)?,
            None => system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Target { tls: Some(Arc::new(config)), ..self })
    }
}

fn named(file: &Path) -> Result<RootCertStore, String> {
    let told = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| told(&error))? {
        let certificate = certificate.map_err(|error| told(&error))?;
        roots.add(certificate).map_err(|error| told(&error))?;
    }
    if roots.is_empty() { Err(told(&"there is no certificate in it")) } else { Ok(roots) }
}

fn system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("no certificate authority is installed here: install them, or set REDIS_CA_FILE".to_owned()),
        false => Ok(roots),
    }
}

/// The crate would take a fragment for permission to trust everyone.
fn checked(rest: &str) -> Result<&str, String> {
    if rest.contains('#') { Err("REDIS_URL must not have a fragment (#)".to_owned()) } else { Ok(rest) }
}

/// `[user:password@]h:p,h:p/name[/database]`
fn sentinel(text: &str) -> Result<Place, String> {
    let (login, hosts, rest) = split(text)?;
    let mut parts = rest.split('/');
    let name = parts.next().filter(|name| !name.is_empty()).ok_or("REDIS_URL names no master after its sentinels")?;
    let database = parts.next().unwrap_or("0");
    let sentinels = hosts.iter().map(|host| info(&format!("redis://{}", with_port(host, SENTINEL_PORT))));
    let login = format!("redis://{login}HOST/{database}");
    info(&login)?;
    Ok(Place::Sentinel { sentinels: sentinels.collect::<Result<_, _>>()?, name: name.to_owned(), login })
}

/// `[user:password@]h:p,h:p`
fn cluster(text: &str) -> Result<Place, String> {
    let (login, hosts, rest) = split(text)?;
    if !matches!(rest, "" | "0") {
        return Err("REDIS_URL names a database; a Redis Cluster has the one".to_owned());
    }
    let node = |host: &&str| info(&format!("redis://{login}{}", with_port(host, REDIS_PORT)));
    hosts.iter().map(node).collect::<Result<_, _>>().map(Place::Cluster)
}

/// Login with its `@` (or nothing), hosts, and what stands after the first slash.
fn split(text: &str) -> Result<(&str, Vec<&str>, &str), String> {
    let (login, places) = text.split_at(text.rfind('@').map_or(0, |at| at + 1));
    let (hosts, rest) = places.split_once('/').unwrap_or((places, ""));
    let hosts: Vec<&str> = hosts.split(',').filter(|host| !host.is_empty()).collect();
    match hosts.len() {
        1..=HOSTS_MAX => Ok((login, hosts, rest)),
        _ => Err(format!("REDIS_URL must name 1 to {HOSTS_MAX} hosts")),
    }
}

fn with_port(host: &str, port: u16) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
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

    fn place(url: &str) -> Place {
        url.parse::<Target>().unwrap().place
    }

    #[test]
    fn urls_are_read() {
        for url in
            ["redis://localhost", "redis://:secret@10.0.0.1:6380/2", "unix:///run/redis.sock", "unix:/run/redis.sock"]
        {
            assert!(matches!(place(url), Place::Single(_)), "{url}");
        }
        let Place::Sentinel { sentinels, name, login } = place("redis+sentinel://:pw@a:1,b/main/3") else { panic!() };
        assert_eq!((sentinels.len(), name.as_str(), login.as_str()), (2, "main", "redis://:pw@HOST/3"));
        assert_eq!(sentinels[1].addr().to_string(), "b:26379");
        let Place::Cluster(nodes) = place("redis+cluster://user:pw@a:1,b") else { panic!() };
        assert_eq!((nodes.len(), nodes[1].addr().to_string().as_str()), (2, "b:6379"));
        assert_eq!(nodes[0].redis_settings().username(), Some("user"));
    }

    #[test]
    fn tls_needs_authorities_and_names_the_file_without_them() {
        let target: Target = "rediss://:pw@localhost:6390/1".parse().unwrap();
        assert!(target.secure && target.tls().is_none());
        let file = std::env::temp_dir().join(format!("chatcorn-ca-{}", std::process::id()));
        std::fs::write(&file, "nothing").unwrap();
        let error = target.clone().trusting(Some(&file)).unwrap_err();
        assert!(error.starts_with(file.to_str().unwrap()), "{error}");
        std::fs::remove_file(&file).unwrap();
        assert!(target.trusting(Some(&file)).is_err());
        assert!("redis://h".parse::<Target>().unwrap().trusting(Some(&file)).unwrap().tls().is_none());
    }

    #[test]
    fn refusals_name_no_secret() {
        for url in [
            "redis",
            "http://x:secret@y",
            "rediss://:secret@h#insecure",
            "rediss+cluster://:secret@h:1,h:2",
            "redis+cluster://:secret@",
            "redis+cluster://:secret@h:1/4",
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
