//! Secrets are planted wherever somebody keeps one, everything is made to go wrong, and then they are looked for in every
//! place that somebody else can see.

use crate::support::{Connection, Server, Systemd, Upstream, Way, lives, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

/// A kind's prefix where it has one, then what nothing else holds.
const HF: &str = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm123456";
const UPSTREAM: &str = "sk-proj-MnBvCxZlKjHgFdSaPoIuYtReWq98";
const LIMIT_KEY: &str = "vT5nQ8wZ2rL6yB9kJ4mXs7cD1fG3hPz0";
const REDIS: &str = "eR7uW3qYx9Tn5Vb2";
const CLIENT: &str = "sk-ClIeNtSeCrEtZyXwVuTsRqPoNmLkJi42";
const ALL: [&str; 5] = [HF, UPSTREAM, LIMIT_KEY, REDIS, CLIENT];
/// So many characters of a secret in a row are a leak.
const PIECE: usize = 9;

/// What was seen, by place.
#[derive(Default)]
struct Seen(BTreeMap<String, Vec<u8>>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.0.entry(place.into()).or_default().extend_from_slice(bytes.as_ref());
    }

    fn output(&mut self, place: &str, output: Output) {
        self.add(place, output.stdout);
        self.add(place, output.stderr);
    }

    /// Everything of a process that the machine shows.
    fn process(&mut self, pid: i32) {
        for name in ["environ", "cmdline", "comm"] {
            self.add(format!("{name} of {pid}"), std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default());
        }
    }

    /// The memory that all processes share.
    fn shared_memory(&mut self, pid: i32) {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map_while(Result::ok) {
            let name = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            if name.contains("memfd:chatcorn") {
                self.add(name, std::fs::read(entry.path()).unwrap_or_default());
            }
        }
    }

    fn files(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap().map_while(Result::ok) {
            match entry.path() {
                path if path.is_dir() => self.files(&path),
                path => self.add(path.display().to_string(), std::fs::read(&path).unwrap_or_default()),
            }
        }
    }

    fn assert_clean(&self) {
        assert!(self.0.len() > 20, "too little was looked at: {:?}", self.0.keys());
        for (place, bytes) in &self.0 {
            let text = String::from_utf8_lossy(bytes);
            for secret in ALL {
                // Its kind may be told, as in `sk-[REDACTED]`.
                let own = &secret[secret.rfind('-').or(secret.find('_')).map_or(0, |at| at + 1)..];
                let pieces = (0..=own.len() - PIECE).map(|start| &own[start..start + PIECE]);
                let found: Vec<&str> = pieces.filter(|piece| text.contains(piece)).collect();
                assert!(found.is_empty(), "{found:?} stands in {place}: {text}");
            }
        }
    }
}

/// Requests that carry a secret everywhere, and break; what the server answers.
fn provoke(server: &Server, seen: &mut Seen) {
    let length = "Content-Type: application/json\r\nContent-Length";
    let bodies = [
        format!("{{\"message\":\"{CLIENT}\"}}"),
        format!("{{\"message\":\"{CLIENT}\""),
        format!("{{\"{CLIENT}\":1,\"message\":[]}}"),
    ];
    let mut requests: Vec<String> = bodies
        .iter()
        .map(|body| format!("POST /api/chat HTTP/1.1\r\nHost: t\r\n{length}: {}\r\n\r\n{body}", body.len()))
        .collect();
    requests.extend([
        format!("GET /nowhere?api_key={CLIENT}&token={CLIENT} HTTP/1.1\r\nHost: t\r\nX-API-Key: {CLIENT}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nAuthorization: Bearer {CLIENT}\r\n\r\n"),
        format!("GET /{CLIENT} HTTP/1.1\r\nHost: t\r\nCookie: session={CLIENT}\r\nUser-Agent: x {CLIENT}\r\n\r\n"),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {CLIENT}\r\n{length}: 2\r\n\r\n{{}}"
        ),
        format!("DELETE /api/chat HTTP/1.1\r\nHost: t\r\nReferer: https://u:{CLIENT}@h/?k={CLIENT}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: t\r\nAuthorization: {}\r\n\r\n", CLIENT.repeat(600)),
        format!("NONSENSE {CLIENT}\r\n\r\n"),
    ]);
    for (number, request) in requests.iter().enumerate() {
        let mut connection = server.connect();
        connection.send(request).unwrap();
        if let Ok(answer) = connection.answer() {
            seen.add(format!("answer {number} ({})", answer.status), format!("{answer:?}"));
        }
    }
}

#[test]
fn a_planted_secret_is_found_in_no_place_that_others_see() {
    let (systemd, upstream) = (Systemd::start(), Upstream::start(Way::Fails));
    // Core files would be allowed, were it not for the program itself; nobody listens at the Redis.
    let wrapper = ["prlimit", "--core=unlimited:unlimited", "sh", "-c", "cp \"$0\" ./chatcorn; exec ./chatcorn"];
    let redis = format!("redis://:{REDIS}@127.0.0.1:9/0");
    let variables = [
        ("HF_TOKEN", HF),
        ("CHAT_UPSTREAM_API_KEY", UPSTREAM),
        ("RATE_LIMIT_KEY", LIMIT_KEY),
        ("REDIS_URL", redis.as_str()),
        ("CHAT_UPSTREAM", upstream.url.as_str()),
        ("RATE_LIMIT_DEFAULT", "1000 per minute"),
        ("RATE_LIMIT_CHAT", "1000 per minute"),
        ("ADMIN_BIND", "127.0.0.1:0"),
        ("NOTIFY_SOCKET", systemd.path()),
        ("ACCESS_LOGFILE", "access.log"),
        ("LOG_LEVEL", "debug"),
    ];
    let mut server = Server::spawn_under(&wrapper, &variables, &[]).serving();
    let mut seen = Seen::default();
    provoke(&server, &mut seen);
    let everyone =
        |server: &Server| [vec![server.pid()], server.children("worker"), server.children("chatcorn log")].concat();
    everyone(&server).into_iter().for_each(|pid| seen.process(pid));
    // The new program, too, and what it is proven by.
    let mut upgrading = server.begin(&["upgrade"]);
    until("the upgrade", || {
        server.children("").into_iter().for_each(|pid| seen.process(pid));
        upgrading.try_wait().unwrap().is_some()
    });
    seen.output("upgrade", upgrading.wait_with_output().unwrap());
    seen.add("answer of a refused reload", refused_reload(&server));
    provoke(&server, &mut seen);
    everyone(&server).into_iter().for_each(|pid| seen.process(pid));
    seen.shared_memory(server.pid());
    // Its form hides a secret from a search, and from nobody else.
    assert!(!seen.0.keys().any(|place| place.contains("handover")), "{:?}", seen.0.keys());
    let addresses = server.text();
    let admin = addresses.lines().filter(|line| line.contains("\"listening\"")).nth(1).unwrap();
    let admin: serde_json::Value = serde_json::from_str(admin).unwrap();
    let admin = admin["address"].as_str().unwrap().trim_start_matches("http://");
    for path in ["/metrics", "/status", "/nowhere"] {
        seen.add(path, format!("{:?}", Connection::open(admin).get(path).unwrap()));
    }
    for command in ["config", "check", "audit", "status", "healthcheck", "reload", "reopen"] {
        let output = server.order_with(&[command], &variables);
        assert!(!output.stdout.is_empty() || !output.stderr.is_empty() || command == "healthcheck", "{command}");
        seen.output(command, output);
    }
    die(&mut server);
    seen.add("systemd", systemd.heard().join("\n"));
    seen.add("what it said", server.text());
    for name in ["c.db", "c.db-wal", "c.db-shm", "chatcorn"] {
        // Conversations are kept as they were said; the program is not a place of secrets.
        let _ = std::fs::remove_file(server.home.join(name));
    }
    let names: Vec<_> = std::fs::read_dir(&server.home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("core")), "{names:?}");
    seen.files(&server.home);
    seen.assert_clean();
}

/// The place of a mistake is told, and not what stands there.
fn refused_reload(server: &Server) -> Vec<u8> {
    let file = server.home.join("chatcorn.toml");
    let text = format!("hf_tokn = \"{CLIENT}\"\nchat_upstream = \"ftp://u:{CLIENT}@h/v1\"\n");
    std::fs::write(&file, text).unwrap();
    let output = server.order(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    std::fs::remove_file(file).unwrap();
    [output.stdout, output.stderr].concat()
}

/// A worker and then the master die by a signal that would write a core.
fn die(server: &mut Server) {
    // One of the old, after a reload, may end just now.
    let mut worker = 0;
    until("a worker that is still there", || {
        worker = server.children("worker")[0];
        kill(Pid::from_raw(worker), Signal::SIGSEGV).is_ok()
    });
    server.expect("worker died");
    until("its end", || !lives(worker));
    server.signal(Signal::SIGABRT);
    server.wait();
}
