//! Everything that can be done to a server, at random, for ten seconds (five minutes with `CHATCORN_TEST_LONG`). What is
//! done follows from a seed alone: `CHATCORN_TEST_SEED=…` does it again.

use crate::support::{Connection, Footprint, Load, Server, Upstream, Way, lives, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Connections that one worker may hold of a [`Load`]: those that its death may cost.
const OF_ONE_WORKER: usize = 16;

/// A slot that a worker was in once keeps its log pipe, with an end in two processes: fifteen slots at most, for five
/// workers, of which four had one before.
const PIPES_MORE: usize = 3 * (15 - 4);

/// The sequence of xorshift64 (Marsaglia, 2003): the same for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit) as usize
    }
}

/// One thing that goes wrong. A number chooses among those that it may hit.
#[derive(Clone, Copy, Debug)]
enum Fault {
    WorkerKilled(usize),
    WorkerStopped(usize),
    LogKilled,
    LogStopped,
    Reload,
    BadReload,
    Hups(usize),
    Upgrade,
    BadUpgrade,
    Scaled(usize),
    MoreAndFewer,
    Reopened,
    BadHeads,
    Connections(usize),
    StreamsLeft,
    Asked,
}

impl Fault {
    fn next(random: &mut Random) -> Fault {
        let which = random.below(20);
        match which {
            0..3 => Fault::WorkerKilled(random.below(1000)),
            3 => Fault::WorkerStopped(random.below(1000)),
            4 => Fault::LogKilled,
            5 => Fault::LogStopped,
            6..8 => Fault::Reload,
            8 => Fault::BadReload,
            9 => Fault::Hups(2 + random.below(20)),
            10 => Fault::Upgrade,
            11 => Fault::BadUpgrade,
            12 => Fault::Scaled(2 + random.below(4)),
            13 => Fault::MoreAndFewer,
            14 => Fault::Reopened,
            15..17 => Fault::BadHeads,
            17 => Fault::Connections(10 + random.below(90)),
            18 => Fault::StreamsLeft,
            _ => Fault::Asked,
        }
    }

    /// How many requests it may cost.
    fn costs(self) -> usize {
        match self {
            Fault::WorkerKilled(_) | Fault::WorkerStopped(_) => OF_ONE_WORKER,
            _ => 0,
        }
    }
}

/// Says how to do it again when a test fails.
struct Story {
    seed: u64,
    done: Vec<Fault>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("CHATCORN_TEST_SEED={} does this again: {:?}", self.seed, self.done);
        }
    }
}

/// Starts what stands as `chatcorn` in the server's directory, so that an upgrade has something to find.
const FROM_HOME: [&str; 3] = ["sh", "-c", "cp \"$0\" ./chatcorn; exec ./chatcorn"];

fn seed() -> u64 {
    let given = std::env::var("CHATCORN_TEST_SEED").ok().and_then(|text| text.parse().ok());
    // Odd, for xorshift has no way out of 0.
    given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x9e37_79b1)
}

#[test]
fn nothing_breaks_that_was_not_broken() {
    let long = std::env::var_os("CHATCORN_TEST_LONG").is_some();
    let lasts = Duration::from_secs(if long { 300 } else { 10 });
    let seed = seed();
    println!("CHATCORN_TEST_SEED={seed}");
    let mut random = Random(seed);
    let upstream = Upstream::start(Way::Load);
    let variables = [
        ("CHAT_UPSTREAM", upstream.url.as_str()),
        ("RATE_LIMIT_ENABLED", "false"),
        ("HANG_TIMEOUT", "1"),
        ("TIMEOUT", "20"),
        ("BOOT_TIMEOUT", "5"),
    ];
    let server = Server::spawn_under(&FROM_HOME, &variables, &[]).serving();
    let load = Load::start(&server);
    load.goes_on(100);
    let (before, pid) = (Footprint::of(&server), server.pid());
    let mut story = Story { seed, done: Vec::new() };
    let began = Instant::now();
    while began.elapsed() < lasts {
        let fault = Fault::next(&mut random);
        story.done.push(fault);
        strike(&server, fault);
        load.goes_on(10);
        assert_eq!((server.pid(), lives(pid)), (pid, true), "the master is another");
    }
    let scaled = server.order(&["scale", "4"]);
    assert!(scaled.status.success(), "{scaled:?}");
    until("everybody's return", || server.children("worker").len() == 4 && server.children("chatcorn log").len() == 1);
    load.goes_on(50);
    let report = load.end();
    let most: usize = story.done.iter().map(|fault| fault.costs()).sum();
    assert!(report.failures.len() <= most, "{} of {}: {:?}", report.failures.len(), report.served, report.failures);
    before.is_back_with(&server, PIPES_MORE);
    println!(
        "{} faults, {} answers, {} failures of {most} allowed",
        story.done.len(),
        report.served,
        report.failures.len()
    );
    end(server);
}

/// Does it, and waits until it has been dealt with.
fn strike(server: &Server, fault: Fault) {
    let worker = |number: usize| {
        let workers = server.children("worker");
        workers.get(number % workers.len().max(1)).copied()
    };
    let signal = |pid: i32, signal| kill(Pid::from_raw(pid), signal).unwrap_or_default();
    match fault {
        Fault::WorkerKilled(number) => worker(number).into_iter().for_each(|pid| {
            signal(pid, Signal::SIGKILL);
            until("its end", || !lives(pid));
        }),
        // Its heartbeat ends; it is killed within the hang timeout and a second and a half.
        Fault::WorkerStopped(number) => worker(number).into_iter().for_each(|pid| {
            signal(pid, Signal::SIGSTOP);
            until("its end", || !lives(pid));
        }),
        Fault::LogKilled => server.children("chatcorn log").into_iter().for_each(|pid| signal(pid, Signal::SIGKILL)),
        Fault::LogStopped => server.children("chatcorn log").into_iter().for_each(|pid| {
            signal(pid, Signal::SIGSTOP);
            answered(server);
            signal(pid, Signal::SIGCONT);
        }),
        Fault::Reload => assert_done(server, &["reload"], true),
        Fault::BadReload => {
            let file = server.home.join("chatcorn.toml");
            std::fs::write(&file, "wokers = 3\n").unwrap();
            assert_done(server, &["reload"], false);
            std::fs::remove_file(file).unwrap();
        }
        Fault::Hups(count) => (0..count).for_each(|_| server.signal(Signal::SIGHUP)),
        Fault::Upgrade => {
            install(server, None);
            assert_done(server, &["upgrade"], true);
        }
        Fault::BadUpgrade => {
            install(server, Some("#!/bin/sh\nexit 7\n"));
            assert_done(server, &["upgrade"], false);
            install(server, None);
        }
        Fault::Scaled(count) => assert_done(server, &["scale", &count.to_string()], true),
        Fault::MoreAndFewer => [Signal::SIGTTIN, Signal::SIGTTOU].into_iter().for_each(|one| server.signal(one)),
        Fault::Reopened => server.signal(Signal::SIGUSR1),
        Fault::BadHeads => bad_heads(server),
        Fault::Connections(count) => {
            let crowd: Vec<Connection> = (0..count).map_while(|_| Connection::try_open(&server.address).ok()).collect();
            answered(server);
            drop(crowd);
        }
        Fault::StreamsLeft => (0..8).for_each(|_| {
            let mut connection = server.connect();
            let body = r#"{"message":"drip","context_mode":"fresh","stream":true}"#;
            let _ = connection.send(post("/api/chat", body)).and_then(|()| connection.head());
        }),
        Fault::Asked => drop(server.status()),
    }
}

/// Somebody is served, now: on a connection of its own.
fn answered(server: &Server) {
    until("an answer", || server.connect().get("/healthz").is_ok_and(|answer| answer.status == 200));
}

fn assert_done(server: &Server, arguments: &[&str], well: bool) {
    let output = server.order(arguments);
    // A reload or an upgrade that a signal began may be under way; its turn comes.
    let busy = String::from_utf8_lossy(&output.stderr).contains("under way");
    assert!(output.status.success() == well || busy, "{arguments:?}: {output:?}\n{}", server.text());
}

/// As a package manager does: by renaming.
fn install(server: &Server, script: Option<&str>) {
    let new = server.home.join("new");
    match script {
        Some(script) => std::fs::write(&new, script).unwrap(),
        None => drop(std::fs::copy(env!("CARGO_BIN_EXE_chatcorn"), &new).unwrap()),
    }
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(new, server.home.join("chatcorn")).unwrap();
}

/// Each is refused, and nothing behind it served.
fn bad_heads(server: &Server) {
    for head in [
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "G\n\n",
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\nabc",
    ] {
        let mut connection = server.connect();
        let _ = connection.send(format!("{head}GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"));
        let answer = connection.answer();
        // A worker that was killed or left meanwhile answers nothing, which is no 200 either.
        assert!(answer.as_ref().map_or(true, |answer| answer.status != 200), "{head:?}: {answer:?}");
    }
}

/// It stops as it should, and what it leaves is whole.
fn end(mut server: Server) {
    assert!(!server.text().contains("panicked"), "{}", server.text());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.text());
    for entry in std::fs::read_dir(server.home.join("logs")).unwrap().map_while(Result::ok) {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let torn = text.lines().find(|line| serde_json::from_str::<serde_json::Value>(line).is_err());
        assert!(torn.is_none(), "{torn:?} in {:?}", entry.path());
    }
    let store = rusqlite::Connection::open(server.home.join("c.db")).unwrap();
    let whole: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
}
