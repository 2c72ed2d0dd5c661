//! Somebody sends HUP at noon, and nobody notices.

use crate::support::{Connection, Load, Server, Upstream, Way, post, until};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[test]
fn reloads_under_load_lose_nothing() {
    let server = Server::start(&[]);
    let (stop, served) = (AtomicBool::new(false), AtomicU32::new(0));
    let address = server.address.as_str();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| keep_asking(address, &stop, &served));
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(Connection::open(address).get("/api/health").unwrap().status, 200);
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..4 {
            server.signal(Signal::SIGHUP);
            server.expect("reloaded");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 100);
}

/// A kept connection without a retry: a new one only after the server has said that it closes.
fn keep_asking(address: &str, stop: &AtomicBool, served: &AtomicU32) {
    let mut connection = Connection::open(address);
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.get("/api/health").expect("a kept connection was closed without a word");
        assert_eq!(answer.status, 200);
        served.fetch_add(1, Ordering::Relaxed);
        if answer.header("connection") == Some("close") {
            connection = Connection::open(address);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}

#[test]
fn a_held_stream_outlives_a_reload() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x","stream":true}"#)).unwrap();
    connection.head().unwrap();
    connection.event_line().unwrap();
    server.signal(Signal::SIGHUP);
    server.expect("reloaded");
    upstream.release();
    assert!(connection.event_line().unwrap().contains("two "));
}

#[test]
fn reload_with_bad_config_keeps_serving() {
    let server = Server::start_with(&[], &[("chatcorn.toml", "keep_alive = 70\n")]);
    let before = server.children("worker");
    std::fs::write(server.home.join("chatcorn.toml"), "keep_alive = 70\nwokers = 2\n").unwrap();
    server.signal(Signal::SIGHUP);
    let refused = server.expect("reload refused: everything stays as it was");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("chatcorn.toml:2") && reason.contains("\"workers\""), "{reason}");
    assert_eq!(server.children("worker"), before);
    std::fs::write(server.home.join("chatcorn.toml"), "workers = 2\n").unwrap();
    server.signal(Signal::SIGHUP);
    assert_eq!(server.expect("reloaded")["workers"], 2);
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    let server = Server::start(&[]);
    server.signal(Signal::SIGTTIN);
    server.expect("worker ready");
    assert_eq!(server.children("worker").len(), 5);
    server.signal(Signal::SIGTTOU);
    server.expect("worker ended");
    assert_eq!(server.children("worker").len(), 4);
}

/// Leaves `BIND` to the file.
const UNBOUND: [&str; 3] = ["sh", "-c", "unset BIND; exec \"$0\""];

#[test]
fn a_reload_binds_what_is_new_and_lets_go_of_what_is_old() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (first, second) = (free(), free());
    let settings = |addresses: &[&str]| format!("bind = {addresses:?}\n");
    let server = Server::spawn_under(&UNBOUND, &[], &[("chatcorn.toml", &settings(&[&first]))]).serving();
    std::fs::write(server.home.join("chatcorn.toml"), settings(&[&first, &second])).unwrap();
    assert!(server.order(&["reload"]).status.success());
    assert_eq!(Connection::open(&second).get("/healthz").unwrap().status, 200);
    std::fs::write(server.home.join("chatcorn.toml"), settings(&[&second])).unwrap();
    assert!(server.order(&["reload"]).status.success());
    until("the first address to be free", || std::net::TcpListener::bind(&first).is_ok());
    assert_eq!(Connection::open(&second).get("/healthz").unwrap().status, 200);
}

/// Workers, and nobody else, make an event loop: what happens to them there is what the files in their directory say.
const AT_BOOT: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
int epoll_create1(int flags) {
    if (access("abort", F_OK) == 0) abort();
    if (access("refuse", F_OK) == 0) { errno = ENFILE; return -1; }
    while (access("hang", F_OK) == 0) pause();
    return syscall(SYS_epoll_create1, flags);
}
"#;

#[test]
fn whatever_is_wrong_with_a_reload_nothing_changes() {
    let build = "unset BIND; cc -shared -fPIC -o at_boot.so at_boot.c && LD_PRELOAD=./at_boot.so exec \"$0\"";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, taken) = ("127.0.0.1:0", taken.local_addr().map(|address| (taken, address.to_string())).unwrap());
    let good = format!("bind = [{own:?}]\nboot_timeout = 1\nrate_limit_enabled = false\n");
    let upstream = Upstream::start(Way::Load);
    let files = [("chatcorn.toml", good.as_str()), ("at_boot.c", AT_BOOT)];
    let server = Server::spawn_under(&["sh", "-c", build], &[("CHAT_UPSTREAM", &upstream.url)], &files).serving();
    let load = Load::start(&server);
    let workers = server.children("worker");
    let refused = |what: &str| {
        let output = server.order(&["reload"]);
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        assert!(reason.contains(what), "{what:?} in {reason}");
        let line = server.expect("reload refused: everything stays as it was");
        assert!(line["reason"].as_str().unwrap().contains(what), "{line}");
        assert_eq!(server.children("worker"), workers);
        load.goes_on(10);
    };
    let settings = server.home.join("chatcorn.toml");
    let with = |more: &str| std::fs::write(&settings, format!("{good}{more}\n")).unwrap();
    with("keep_alive =");
    refused("chatcorn.toml:4");
    with("wokers = 3");
    refused("wokers");
    std::fs::write(&settings, good.replace(own, &taken.1)).unwrap();
    refused("is in use");
    std::fs::remove_file(&settings).unwrap();
    std::fs::create_dir(&settings).unwrap();
    refused("chatcorn.toml");
    std::fs::remove_dir(&settings).unwrap();
    with("");
    for (file, what) in [("abort", "SIGABRT"), ("refuse", "Too many open files"), ("hang", "not ready in time")] {
        std::fs::write(server.home.join(file), "").unwrap();
        refused(what);
        std::fs::remove_file(server.home.join(file)).unwrap();
    }
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    assert!(server.order(&["reload"]).status.success(), "{}", server.text());
}

#[test]
fn a_reload_refused_for_its_limits_lets_go_of_what_it_bound() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (first, second) = (free(), free());
    let settings =
        |addresses: &[&str], limits: &str| format!("bind = {addresses:?}\nrate_limit_default = {limits:?}\n");
    let few = settings(&[&first], "1000 per minute");
    let server = Server::spawn_under(&UNBOUND, &[], &[("chatcorn.toml", &few)]).serving();
    let (workers, open) = (server.children("worker"), descriptors(server.pid()));
    let many: Vec<String> = (1..=16).map(|window| format!("1000 per {window} minutes")).collect();
    std::fs::write(server.home.join("chatcorn.toml"), settings(&[&first, &second], &many.join("; "))).unwrap();
    for _ in 0..3 {
        let output = server.order(&["reload"]);
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && reason.contains("limits"), "{output:?}");
        let line = server.expect("reload refused: everything stays as it was");
        assert!(line["reason"].as_str().unwrap().contains("limits"), "{line}");
    }
    assert!(std::net::TcpListener::bind(&second).is_ok(), "{second} is still bound");
    assert_eq!(server.children("worker"), workers);
    until("the operators' connections to be closed", || descriptors(server.pid()) == open);
    assert_eq!(Connection::open(&first).get("/healthz").unwrap().status, 200);
    std::fs::write(server.home.join("chatcorn.toml"), settings(&[&first, &second], "1000 per minute")).unwrap();
    assert!(server.order(&["reload"]).status.success());
    assert_eq!(Connection::open(&second).get("/healthz").unwrap().status, 200);
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
