//! What a running server answers, byte by byte: a malformed request is among them.

use super::{Audit, Finding, text};
use crate::cli::server::Server;
use crate::cli::wire::{self, Most, Trust};
use crate::config::raw::Raw;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For one answer, and for a line to reach the log.
const LIMIT: Duration = Duration::from_secs(5);
/// Of one answer that is looked at.
const ANSWER_MOST: Most = Most { bytes: 256 << 10, time: LIMIT };
/// Most requests that `--try-limit` sends.
const TRIES_MAX: u32 = 300;
/// New bytes of a log file that are looked through.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Of every response (`API.md`), and a word that its value must hold.
const HEADERS: [(&str, &str); 10] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "1; mode=block"),
    ("strict-transport-security", "max-age="),
    ("content-security-policy", "default-src 'none'"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", "=()"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-request-id", ""),
];

/// All checks of a running server; one that does not answer is the only finding.
pub fn look(server: &Server, audit: &Audit<'_>) -> Vec<Finding> {
    let root = match get(server, "/", "Accept: application/json\r\n") {
        Ok(root) => root,
        Err(error) => {
            let says = format!("{server} does not answer: {error}");
            return vec![Finding::failure("server", says, "start it, or name the right address")];
        }
    };
    let key = audit.raw.variable(crate::cli::chat::KEY_VARIABLE);
    // The limit last: after it this client is refused.
    vec![version(&root), headers(server), log(server, audit.raw), limit(server, key, audit.try_limit)]
}

fn version(root: &Answer) -> Finding {
    let body: serde_json::Value = serde_json::from_str(&root.body).unwrap_or_default();
    match (body["name"].as_str(), body["version"].as_str()) {
        (Some("chatcorn"), Some(env!("CARGO_PKG_VERSION"))) => {
            Finding::ok("server", format!("is chatcorn {}", env!("CARGO_PKG_VERSION")))
        }
        (Some("chatcorn"), Some(other)) => {
            let says = format!("is chatcorn {other}, this program is {}", env!("CARGO_PKG_VERSION"));
            Finding::warning("server", says, "audit with the binary that runs, or upgrade the one that does")
        }
        _ => Finding::failure("server", "does not say that it is chatcorn", "name the address of one"),
    }
}

fn headers(server: &Server) -> Finding {
    let item = "security headers";
    let malformed = format!("GET / HTTP/1.1\r\nHost: {0}\r\nHost: {0}\r\nBad header\r\n\r\n", server.authority);
    let answers = [
        ("a 200", 200, get(server, "/healthz", "")),
        ("a 404", 404, get(server, "/audit-finds-nothing-here", "")),
        ("a malformed request", 400, exchange(server, malformed.as_bytes())),
    ];
    for (what, status, answer) in answers {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Finding::failure(item, format!("{what} got no answer: {error}"), "see the log"),
        };
        let missing = answer.missing();
        if answer.status != status || !missing.is_empty() {
            let says = format!("{what} was answered {} without {}", answer.status, or_nothing(&missing));
            let mend = "a proxy that answers by itself or takes headers away has to add them";
            return Finding::failure(item, says, mend);
        }
        if let Some(product) = answer.header("server").filter(|value| value.contains(|c: char| c.is_ascii_digit())) {
            let mend = "let the proxy hide its version (nginx: server_tokens off)";
            return Finding::warning(item, format!("the server tells its version: {product}"), mend);
        }
    }
    Finding::ok(item, "are on a 200, a 404 and the answer to a malformed request")
}

fn or_nothing(missing: &[&str]) -> String {
    if missing.is_empty() { "any header missing".to_owned() } else { missing.join(", ") }
}

/// Whether requests are counted; with the operator's word, whether one too many is refused.
fn limit(server: &Server, key: Option<&str>, really: bool) -> Finding {
    let item = "limits at work";
    let key = key.map(|key| format!("Authorization: Bearer {}\r\n", key.trim())).unwrap_or_default();
    let ask = || get(server, "/api/context/mode?session_id=audit", &key);
    let mend = "see RATE_LIMIT_ENABLED and RATE_LIMIT_ALLOW of the running server";
    let first = match ask() {
        Ok(first) => first,
        Err(error) => return Finding::failure(item, format!("no answer: {error}"), "see the log"),
    };
    if first.status == 401 {
        return Finding::warning(item, "the server asks for a key", "set CHATCORN_API_KEY and audit again");
    }
    if !really {
        return match first.header("ratelimit").or(first.header("x-ratelimit-remaining")) {
            Some(_) => Finding::ok(item, "requests are counted; --try-limit shows that one too many is refused"),
            None => Finding::failure(item, "a request was not counted", mend),
        };
    }
    let mut answer = Ok(first);
    for sent in 1..=TRIES_MAX {
        match answer {
            Ok(seen) if seen.status == 429 => {
                return match seen.header("retry-after") {
                    Some(seconds) => Finding::ok(item, format!("request {sent} was refused, for {seconds} s")),
                    None => Finding::failure(item, "a 429 came without Retry-After", "let the proxy pass it on"),
                };
            }
            Ok(_) => answer = ask(),
            Err(error) => return Finding::failure(item, format!("no answer: {error}"), "see the log"),
        }
    }
    Finding::failure(item, format!("{TRIES_MAX} requests in a row were let through"), mend)
}

/// Lines that hold a secret in a form that programs use, and the secret; `random` makes it one of its kind.
pub fn plants(random: &str) -> [(String, String); 4] {
    let secret = |prefix: &str| format!("{prefix}{random}{random}");
    let [bearer, key, token, password] = [secret("ey"), secret("sk-"), secret("hf_"), secret("Pw")];
    [
        (format!("Authorization: Bearer {bearer}"), bearer),
        (format!("POST /api/context/mode?api_key={key} HTTP/1.1"), key),
        (format!("User-Agent: audit {token}"), token),
        (format!("Referer: http://user:{password}@example.org/"), password),
    ]
}

/// Sends secrets with a body that is too long, which is a security event, and looks for them in the log.
fn log(server: &Server, raw: &Raw) -> Finding {
    let item = "secrets in the log";
    let places = Places::of(raw);
    let before = places.sizes();
    let Some((marker, random)) = random() else {
        return Finding::failure(item, "the kernel gives no random bytes", "see getrandom(2)");
    };
    let plants = plants(&random);
    if let Err(error) = exchange(server, carrier(server, &plants, &marker).as_bytes()) {
        let says = format!("the request that carries them got no answer: {error}");
        return Finding::failure(item, says, "see the log");
    }
    let end = Instant::now() + LIMIT;
    let mut fresh = places.since(&before);
    while fresh.matches(&marker).count() < places.lines && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(20));
        fresh = places.since(&before);
    }
    if let Some((line, _)) = plants.iter().find(|(_, secret)| fresh.contains(secret.as_str())) {
        let kind = line.split([':', '=']).next().unwrap_or_default();
        return Finding::failure(item, format!("what was planted in {kind:?} stands in the log"), "report this");
    }
    if fresh.contains(&marker) {
        return Finding::ok(item, "four were sent; the request was logged without them");
    }
    let says = format!("the audit's own request does not show in {}", places.directory.display());
    Finding::warning(item, says, "run the audit where the log is, with the server's settings and nothing in between")
}

fn carrier(server: &Server, plants: &[(String, String); 4], marker: &str) -> String {
    let [(bearer, _), (line, _), (agent, _), (referer, _)] = plants;
    let (host, length) = (&server.authority, 1u64 << 40);
    format!(
        "{line}\r\nHost: {host}\r\n{bearer}\r\n{agent}\r\n{referer}\r\nX-Request-Id: {marker}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

fn random() -> Option<(String, String)> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    let hex = bytes.map(|byte| format!("{byte:02x}")).concat();
    Some((format!("audit-{}", &hex[..12]), format!("{}Zq", &hex[12..])))
}

/// Where the server logs.
struct Places {
    directory: PathBuf,
    files: Vec<PathBuf>,
    /// In how many of them a refused request shows: `app.log`, and an access log that is a file.
    lines: usize,
}

impl Places {
    fn of(raw: &Raw) -> Places {
        let path = |key| Some(PathBuf::from(text(raw, key))).filter(|path| path.is_absolute());
        let (access, error) = (path("access_logfile"), path("error_logfile"));
        let lines = 1 + usize::from(access.is_some());
        let files = access.into_iter().chain(error).collect();
        Places { directory: PathBuf::from(text(raw, "log_dir")), files, lines }
    }

    fn sizes(&self) -> Vec<(PathBuf, u64)> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().filter_map(Result::ok);
        let paths = entries.map(|entry| entry.path()).chain(self.files.iter().cloned());
        paths.filter_map(|path| Some((path.clone(), path.metadata().ok()?.len()))).collect()
    }

    /// What the files gained since.
    fn since(&self, before: &[(PathBuf, u64)]) -> String {
        let mut text = String::new();
        for (path, size) in self.sizes() {
            let from = before.iter().find(|(other, _)| *other == path).map_or(0, |(_, size)| *size);
            // A file that shrank was rotated: all of it is new.
            let bytes = tail(&path, if from > size { 0 } else { from }).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text
    }
}

fn tail(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn missing(&self) -> Vec<&'static str> {
        let lacks = |(name, word): &&(&str, &str)| !self.header(name).is_some_and(|value| value.contains(word));
        HEADERS.iter().filter(lacks).map(|(name, _)| *name).collect()
    }
}

fn get(server: &Server, path: &str, lines: &str) -> io::Result<Answer> {
    let (host, base) = (&server.authority, &server.base);
    exchange(
        server,
        format!("GET {base}{path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n").as_bytes(),
    )
}

/// Sends bytes as they are on a connection of their own, and reads what comes back.
fn exchange(server: &Server, bytes: &[u8]) -> io::Result<Answer> {
    let trust = server.is_tls().then_some(Trust::System);
    let answer = wire::exchange(server, trust.as_ref(), bytes, ANSWER_MOST)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Answer {
        status: status.ok_or_else(|| io::Error::other("no HTTP"))?,
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect(),
        body: body.to_owned(),
    })
}
