//! A running server as its client sees it: an address, one HTTP client, a chat turn as it arrives.

use super::wire::Trust;
use crate::chat::upstream::connector::{Connector, Place};
use crate::chat::upstream::sse::{Event, Parser};
use crate::listener::Address;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// To connect.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest answer that is not a stream, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How to connect.
    pub place: Place,
    /// For the `Host` header.
    pub authority: String,
    /// What stands before `/api`, as in `/chat`.
    pub base: String,
    /// Its certificate, where it is our own server with TLS: this one is believed and no other.
    pub certfile: Option<PathBuf>,
}

impl Server {
    /// Reads `http://host[:port][/path]`, the same with `https`, `host:port` or `unix:/path`.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn parse(text: &str) -> Result<Server, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return Ok(Server::of(Place::Unix(path), "localhost", String::new()));
        }
        let wrong = || format!("{text:?}: write http://host:port, https://host or unix:/path");
        let tls = text.strip_prefix("https://");
        let rest = tls.or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let uri: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        let port = uri.port_u16();
        if authority.contains('@') || rest.contains("://") || (port.is_none() && authority != uri.host()) {
            return Err(wrong());
        }
        let host = uri.host().trim_matches(['[', ']']).to_owned();
        let base = format!("/{path}").trim_end_matches('/').to_owned();
        let place = match tls {
            Some(_) => Place::Tls(host, port.unwrap_or(HTTPS_PORT)),
            None => Place::Tcp(host, port.unwrap_or(HTTP_PORT)),
        };
        Ok(Server::of(place, authority, base))
    }

    fn of(place: Place, authority: &str, base: String) -> Server {
        Server { place, authority: authority.to_owned(), base, certfile: None }
    }

    /// True when TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self.place, Place::Tls(..)) || self.certfile.is_some()
    }

    /// The one that listens at a configured address, with TLS by this certificate; a wildcard is asked at its loopback.
    pub fn at(address: &Address, certfile: Option<PathBuf>) -> Server {
        let server = match address {
            Address::Tcp(tcp) => {
                let tcp = reachable(*tcp);
                let (host, port) = (tcp.ip().to_string(), tcp.port());
                let place = if certfile.is_some() { Place::Tls(host, port) } else { Place::Tcp(host, port) };
                Server::of(place, &tcp.to_string(), String::new())
            }
            Address::Unix(path) => Server::of(Place::Unix(path.clone()), "localhost", String::new()),
            Address::Admin(address) => return Server::at(address, None),
            // Known to the server alone: whoever asks has no such descriptor.
            Address::Inherited(_) => {
                Server::of(Place::Unix(PathBuf::from(address.to_string())), "localhost", String::new())
            }
        };
        Server { certfile, ..server }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(..) => write!(f, "http://{}{}", self.authority, self.base),
            Place::Tls(..) => write!(f, "https://{}{}", self.authority, self.base),
        }
    }
}

/// A wildcard address is asked at its loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Why there is no answer, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What happened and what to do.
    pub sentence: String,
    /// Seconds after which it may work.
    pub wait_s: Option<u64>,
}

/// The tightest limit, from the `RateLimit` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests that are left.
    pub count: u64,
    /// Seconds until there are more.
    pub reset_s: u64,
}

/// Asks one server.
pub struct Asker {
    server: Server,
    key: Option<HeaderValue>,
    client: Client<Connector, Full<Bytes>>,
}

impl Asker {
    /// Made inside a runtime. `key` is the API key.
    ///
    /// # Errors
    /// The key cannot stand in a header.
    pub fn new(server: Server, key: Option<&str>) -> Result<Asker, String> {
        let header = |key: &str| HeaderValue::from_str(&format!("Bearer {}", key.trim()));
        let mut key = key.map(header).transpose().map_err(|_| "CHATCORN_API_KEY is not a key".to_owned())?;
        key.iter_mut().for_each(|key| key.set_sensitive(true));
        let connector = match &server.certfile {
            Some(own) => Connector::trusting(server.place.clone(), CONNECT_LIMIT, Trust::own(own)?.client()),
            None => Connector::new(server.place.clone(), CONNECT_LIMIT),
        };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Asker { server, key, client })
    }

    /// `healthy`, `initializing` or `degraded`.
    ///
    /// # Errors
    /// Nobody answers, or not as a chat server does.
    pub async fn health(&self) -> Result<String, Failed> {
        let answer = self.send(self.request("GET", "/api/health")?, Bytes::new()).await?;
        let body = json(answer).await;
        body["status"].as_str().map(str::to_owned).ok_or_else(|| self.strange())
    }

    /// Begins a turn.
    ///
    /// # Errors
    /// The server's refusal in its own words, or the connection's failure.
    pub async fn chat(&self, body: &Value) -> Result<Answering, Failed> {
        let request = self.request("POST", "/api/chat")?.header(CONTENT_TYPE, "application/json");
        let answer = self.send(request, body.to_string().into()).await?;
        let left = left(answer.headers());
        if answer.status().is_success() {
            let body = answer.into_body();
            return Ok(Answering { left, body, parser: Parser::default(), events: VecDeque::new() });
        }
        let wait_s = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        let body = json(answer).await;
        let sentence = match (status, body["message"].as_str()) {
            (401, _) => "This server asks for an API key: set CHATCORN_API_KEY to yours.".to_owned(),
            (_, Some(message)) => message.to_owned(),
            (_, None) => format!("{} answered {status}.", self.server),
        };
        Err(Failed { sentence, wait_s })
    }

    fn request(&self, method: &str, path: &str) -> Result<http::request::Builder, Failed> {
        let uri = format!("http://{}{}{path}", self.server.authority, self.server.base);
        let request = Request::builder().method(method).uri(uri).header(HOST, &self.server.authority);
        let request = request.header(ACCEPT, "text/event-stream, application/json");
        Ok(match &self.key {
            Some(key) => request.header(AUTHORIZATION, key),
            None => request,
        })
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Result<Response<Incoming>, Failed> {
        let request = request.body(Full::new(body)).map_err(|_| self.strange())?;
        self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let sentence = match error.is_connect() {
                true => format!("{} does not answer: {cause}.", self.server),
                false => format!("The connection to {} broke: {cause}.", self.server),
            };
            Failed { sentence, wait_s: None }
        })
    }

    fn strange(&self) -> Failed {
        Failed { sentence: format!("{} does not answer like a chat server.", self.server), wait_s: None }
    }
}

/// An answer as it arrives. Dropping it tells the server to stop.
pub struct Answering {
    /// What the limits leave.
    pub left: Option<Left>,
    body: Incoming,
    parser: Parser,
    events: VecDeque<Event>,
}

/// What arrives.
#[derive(Debug)]
pub enum Part {
    /// Text to append.
    Text(String),
    /// The whole answer (`API.md`); nothing follows.
    Done(Value),
}

impl Answering {
    /// The next part. Cancel-safe.
    ///
    /// # Errors
    /// The server's error event, or the connection's end before the answer's.
    pub async fn next(&mut self) -> Result<Part, Failed> {
        let broken = || Failed { sentence: "The answer broke off: the connection ended.".to_owned(), wait_s: None };
        loop {
            if let Some(event) = self.events.pop_front() {
                let data: Value = serde_json::from_str(&event.data).map_err(|_| broken())?;
                match event.name.as_str() {
                    "done" => return Ok(Part::Done(data)),
                    "error" => {
                        let sentence = data["message"].as_str().unwrap_or("The answer broke off.").to_owned();
                        return Err(Failed { sentence, wait_s: None });
                    }
                    _ => return Ok(Part::Text(data["delta"].as_str().unwrap_or_default().to_owned())),
                }
            }
            let frame = self.body.frame().await.and_then(Result::ok).ok_or_else(broken)?;
            let events = &mut self.events;
            let bytes = frame.into_data().unwrap_or_default();
            self.parser.feed(&bytes, |event| events.push_back(event)).map_err(|_| broken())?;
        }
    }
}

async fn json(answer: Response<Incoming>) -> Value {
    let collected = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let bytes = collected.map(|body| body.to_bytes()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Reads `RateLimit: "minute";r=3;t=41, …` (the IETF httpapi draft): the limit with the least left.
fn left(headers: &HeaderMap) -> Option<Left> {
    let text = headers.get("ratelimit")?.to_str().ok()?;
    let number = |item: &str, name: &str| {
        item.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let all = text.split(',').filter_map(|item| Some(Left { count: number(item, "r")?, reset_s: number(item, "t")? }));
    all.min_by_key(|left| (left.count, u64::MAX - left.reset_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_as_people_write_them() {
        let tcp = |host: &str, port, authority: &str, base: &str| {
            Server::of(Place::Tcp(host.into(), port), authority, base.into())
        };
        for (text, server) in [
            ("http://h:7860", tcp("h", 7860, "h:7860", "")),
            ("http://h:7860/", tcp("h", 7860, "h:7860", "")),
            ("h", tcp("h", 80, "h", "")),
            ("http://[::1]:1/a/b/", tcp("::1", 1, "[::1]:1", "/a/b")),
        ] {
            assert_eq!(Server::parse(text), Ok(server), "{text}");
        }
        assert_eq!(Server::parse("unix:/run/c.sock").unwrap().place, Place::Unix("/run/c.sock".into()));
        for bad in ["", "http://", "ftp://h", "http://u:secret@h", "https://u:secret@h", "http://a b", "h:x", "h:99999"]
        {
            assert!(Server::parse(bad).is_err(), "{bad}");
        }
        let any = Address::Tcp("0.0.0.0:7860".parse().unwrap());
        assert_eq!(Server::at(&any, None).to_string(), "http://127.0.0.1:7860");
        assert_eq!(Server::at(&any, Some("c.pem".into())).to_string(), "https://127.0.0.1:7860");
    }

    #[test]
    fn the_tightest_limit_is_told() {
        let headers =
            |text: &'static str| HeaderMap::from_iter([("ratelimit".parse().unwrap(), HeaderValue::from_static(text))]);
        let left = |text| super::left(&headers(text)).map(|left| (left.count, left.reset_s));
        assert_eq!(left(r#""day";r=3;t=41, "minute";r=2;t=7, "hour";r=2;t=9"#), Some((2, 9)));
        assert_eq!(left("nonsense"), None);
        assert_eq!(super::left(&HeaderMap::new()), None);
    }
}
