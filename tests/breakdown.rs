//! What the machine does to a server: workers that cannot boot, no descriptors, no processes, orphans, a port taken.

use crate::support::{Connection, Server, Upstream, Way, lives, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::process::Command;
use std::time::{Duration, Instant};

/// An account that runs nothing else here, so that its limit of processes is the server's own.
const ACCOUNT: &str = "games";

fn as_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        println!("not run: only root may change accounts");
    }
    root
}

/// A group of processes of which there may be no more than now; `None` where the machine has no such groups.
struct Crowd(std::path::PathBuf);

impl Crowd {
    fn with(pid: i32) -> Option<Crowd> {
        let tops = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(std::path::Path::new);
        let top = tops.into_iter().find(|top| top.join("cgroup.procs").exists())?;
        let group = top.join(format!("chatcorn-test-{pid}"));
        std::fs::create_dir(&group).ok()?;
        let crowd = Crowd(group);
        crowd.write("cgroup.procs", &pid.to_string()).ok()?;
        crowd.write("pids.max", "max").ok()?;
        Some(crowd)
    }

    fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        std::fs::write(self.0.join(name), text)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        until("the group to be empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

fn prlimit(pid: i32, what: &str) {
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), what]).status().unwrap();
    assert!(done.success(), "prlimit {what}");
}

/// Clock ticks (10 ms) of processor time.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn workers_that_cannot_boot_end_the_first_start_with_3_and_the_reason() {
    if !as_root() {
        return;
    }
    let began = Instant::now();
    // So many threads are the log process and the workers, but not the threads of a worker.
    let place = std::env::temp_dir().join(format!("chatcorn-test-store-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    assert!(Command::new("chown").arg(ACCOUNT).arg(&place).status().unwrap().success());
    let store = format!("sqlite:{}/c.db", place.display());
    let variables = [("CHATCORN_USER", ACCOUNT), ("DATABASE_URL", store.as_str())];
    let mut server = Server::spawn_under(&["prlimit", "--nproc=5"], &variables, &[]);
    assert_eq!(server.wait().code(), Some(3), "{}", server.text());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(server.text().contains("no worker could boot"), "{}", server.text());
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_worker_that_cannot_boot_later_is_tried_slowly_and_the_others_serve() {
    let server = Server::start(&[]);
    let store = server.home.join("c.db");
    std::fs::rename(&store, server.home.join("kept.db")).unwrap();
    std::fs::write(&store, [b'x'; 4096]).unwrap();
    kill(Pid::from_raw(server.children("worker")[0]), Signal::SIGKILL).unwrap();
    let (began, ticks) = (Instant::now(), cpu_ticks(server.pid()));
    let mut connection = server.connect();
    let deaths = |text: &str| text.lines().filter(|line| line.contains("worker died")).count();
    until("the second of the waits that double", || deaths(&server.text()) >= 5);
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(connection.get("/healthz").unwrap().status, 200);
    }
    let used = cpu_ticks(server.pid()) - ticks;
    // 5 % of a core, and three times that on a busy machine.
    assert!(used <= 45, "the master used {used} of 300 ticks in three seconds");
    let forks = deaths(&server.text()) - 1;
    assert!(forks <= 6, "{forks} forks in three seconds:\n{}", server.text());
    std::fs::rename(server.home.join("kept.db"), &store).unwrap();
    server.expect("worker ready");
    until("full strength", || server.children("worker").len() == 4);
}

#[test]
fn without_descriptors_the_open_connections_are_served_and_accepting_goes_on_after() {
    let server = Server::start(&[("WEB_CONCURRENCY", "1"), ("THREADS", "1")]);
    let mut first = server.connect();
    first.get("/healthz").unwrap();
    let worker = server.children("worker")[0];
    let open = std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap().count();
    prlimit(worker, &format!("--nofile={0}:{0}", open + 8));
    let mut crowd: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
    server.expect("accept failed");
    let (ticks, began) = (cpu_ticks(worker), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        assert_eq!(first.get("/healthz").unwrap().status, 200);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let used = cpu_ticks(worker) - ticks;
    assert!(used <= 30, "{used} of 100 ticks in a second without descriptors");
    crowd.clear();
    let freed = Instant::now();
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
    assert!(freed.elapsed() < Duration::from_secs(3), "{:?}", freed.elapsed());
}

#[test]
fn a_refused_fork_is_tried_once_a_second_and_the_rest_serve() {
    let server = Server::start(&[]);
    let Some(crowd) = Crowd::with(server.pid()) else {
        println!("not run: no group of processes can be made here");
        return;
    };
    crowd.write("pids.max", "1").unwrap();
    kill(Pid::from_raw(server.children("worker")[0]), Signal::SIGKILL).unwrap();
    server.expect("fork failed; trying again in 1 s");
    let mut connection = server.connect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(connection.get("/healthz").unwrap().status, 200);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let tries = server.text().lines().filter(|line| line.contains("fork failed")).count();
    assert!(tries <= 5, "{tries} tries in three seconds");
    crowd.write("pids.max", "max").unwrap();
    let relieved = Instant::now();
    until("full strength", || server.children("worker").len() == 4);
    assert!(relieved.elapsed() < Duration::from_secs(6), "{:?}", relieved.elapsed());
    drop(server);
}

#[test]
fn as_pid_1_strangers_are_reaped_and_term_ends_it() {
    if !as_root() {
        return;
    }
    let wrapper = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut server = Server::spawn_under(&wrapper, &[("RATE_LIMIT_ENABLED", "false")], &[]).serving();
    let init = server.pid();
    let inside = |script: &str| {
        let target = init.to_string();
        let done = Command::new("nsenter").args(["-t", &target, "-p", "-m", "sh", "-c", script]).status().unwrap();
        assert!(done.success(), "{script}");
    };
    // Each orphan's parent is gone when it ends, so it is ours to reap.
    for end in ["exit 0", "exit 3", "exit 4", "kill -9 $$"] {
        inside(&format!("(setsid sh -c '{end}' &) ; exit 0"));
    }
    until("every orphan reaped", || zombies(init) == 0);
    assert_eq!(server.children("worker").len(), 4);
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
    kill(Pid::from_raw(init), Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().code(), Some(0), "{}", server.text());
}

fn zombies(parent: i32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter(|pid| !lives(pid.parse().unwrap())).count()
}

#[test]
fn term_before_ready_ends_it_at_once() {
    let mut server = Server::spawn(&[], &[]);
    let began = Instant::now();
    server.expect("listening");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.text());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn hup_in_a_drain_changes_nothing_and_a_worker_killed_in_it_is_not_missed() {
    let upstream = Upstream::start(Way::Held);
    let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    server.signal(Signal::SIGTERM);
    server.expect_that("stopping", |event| event["to"] == "stopping");
    server.signal(Signal::SIGHUP);
    upstream.release();
    assert_eq!(connection.answer().unwrap().status, 200);
    drop(connection);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn signals_in_any_order_end_with_0_and_in_time() {
    use Signal::{SIGHUP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH};
    let rounds = if std::env::var_os("CHATCORN_TEST_LONG").is_some() { 200 } else { 8 };
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for round in 0..rounds {
        let mut server = Server::start(&[("WEB_CONCURRENCY", "2")]);
        let sent: Vec<Signal> =
            (0..12).map(|_| [SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU, SIGWINCH][next(6)]).collect();
        sent.iter().for_each(|signal| server.signal(*signal));
        let last = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT][next(3)];
        server.signal(last);
        let began = Instant::now();
        assert_eq!(server.wait().code(), Some(0), "round {round}: {sent:?} {last}\n{}", server.text());
        assert!(began.elapsed() < Duration::from_secs(8), "round {round}: {sent:?} {last}: {:?}", began.elapsed());
    }
}
