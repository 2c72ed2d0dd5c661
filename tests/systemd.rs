//! Under systemd: its sockets, what it is told, and what its own tools say of the units.

use crate::support::{LIMIT, Server, Systemd, Upstream, Way, activate, post, run, until};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn socket() -> (TcpListener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

#[test]
fn a_socket_from_systemd_is_served_and_goes_on_over_reloads_and_upgrades() {
    let (bound, address) = socket();
    let server = activate(vec![bound.into()], &[]).serving();
    assert_eq!(server.address, address);
    let pid = server.pid();
    let mut kept = server.connect();
    assert_eq!(kept.get("/healthz").unwrap().status, 200);
    for order in ["reload", "upgrade", "reload", "upgrade"] {
        let done = server.order(&[order]);
        assert!(done.status.success(), "{order}: {done:?}\n{}", server.text());
        assert_eq!((server.pid(), server.connect().get("/healthz").unwrap().status), (pid, 200));
    }
    assert_eq!(server.text().matches("\"listening\"").count(), 1, "nothing else was bound");
}

#[test]
fn sockets_are_told_apart_by_their_names() {
    let place = std::env::temp_dir().join(format!("chatcorn-activated-{}", std::process::id()));
    let _ = std::fs::remove_file(&place);
    let (bound, address) = socket();
    let operators = UnixListener::bind(&place).unwrap();
    let server = activate(vec![bound.into(), operators.into()], &[("LISTEN_FDNAMES", "web:admin")]).serving();
    assert_eq!(server.address, address);
    let asked = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = UnixStream::connect(&place).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(asked("/metrics").contains("chatcorn_"), "{}", asked("/metrics"));
    assert_eq!(server.connect().get("/metrics").unwrap().status, 404);
    drop(server);
    std::fs::remove_file(place).unwrap();
}

#[test]
fn an_address_of_ones_own_beside_systemds_has_to_name_them_all() {
    let variables = [("LISTEN_FDNAMES", "web"), ("BIND", "127.0.0.1:0,fd://web")];
    let (bound, address) = socket();
    let server = activate(vec![bound.into()], &variables);
    let both = [server.expect("listening"), server.expect("listening")];
    assert!(both.iter().any(|line| line["address"] == format!("http://{address}")), "{both:?}");
    server.expect("serving");
    drop(server);
    let (bound, address) = socket();
    let mut refused = activate(vec![bound.into()], &[("BIND", "127.0.0.1:0")]);
    assert_eq!(refused.wait().code(), Some(78));
    until("the reason", || refused.text().contains(&format!("fd://3 (http://{address})")));
}

#[test]
fn what_is_no_listening_socket_or_for_another_process_is_not_taken() {
    let none = run(&["check"], &[("BIND", "fd://3"), ("CHAT_UPSTREAM", "http://h")], &[]);
    assert_eq!(none.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no socket"), "{none:?}");
    let (datagram, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let mut server = activate(vec![datagram.into()], &[]);
    assert_eq!(server.wait().code(), Some(1));
    until("the reason", || server.text().contains("not a listening stream socket"));
    let other = Server::start(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    assert_eq!(other.connect().get("/healthz").unwrap().status, 200);
}

fn told(systemd: &Systemd, variables: &[(&str, &str)]) -> Server {
    let notify = [("NOTIFY_SOCKET", systemd.path()), ("RATE_LIMIT_ENABLED", "false")];
    Server::spawn(&[&notify, variables].concat(), &[])
}

#[test]
fn systemd_hears_ready_reloading_and_ready_when_it_is_so() {
    let systemd = Systemd::start();
    let server = told(&systemd, &[]);
    let ready = systemd.expect("READY=1");
    assert!(ready.contains(&"STATUS=4 workers serve".to_owned()), "{ready:?}");
    let server = server.serving();
    // Each of them answers: 16 connections are spread over all.
    let mut all: Vec<_> = (0..16).map(|_| server.connect()).collect();
    assert!(all.iter_mut().all(|one| one.get("/healthz").unwrap().status == 200));
    let before = server.children("worker");
    server.signal(Signal::SIGHUP);
    let reloading = systemd.expect("RELOADING=1");
    let micros = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let age = Duration::from(now).saturating_sub(Duration::from_micros(micros.parse().unwrap()));
    assert!(age < Duration::from_secs(5), "{age:?}");
    systemd.expect("READY=1");
    assert!(server.children("worker").iter().filter(|pid| !before.contains(pid)).count() >= 4);
    std::fs::write(server.home.join("chatcorn.toml"), "wokers = 3\n").unwrap();
    assert_eq!(server.order(&["reload"]).status.code(), Some(1));
    systemd.expect("RELOADING=1");
    let again = systemd.expect("READY=1");
    assert!(again.iter().any(|line| line.contains("the last reload was refused")), "{again:?}");
}

#[test]
fn who_never_serves_never_says_ready() {
    let systemd = Systemd::start();
    let mut server = told(&systemd, &[("DATABASE_URL", "sqlite:/proc/nowhere/c.db")]);
    assert_eq!(server.wait().code(), Some(1));
    systemd.expect("STATUS=the session store cannot be used");
    assert!(!systemd.heard().iter().any(|message| message.contains("READY=1")), "{:?}", systemd.heard());
}

#[test]
fn a_drain_asks_for_time_as_long_as_it_needs_it() {
    let systemd = Systemd::start();
    let upstream = Upstream::start(Way::Held);
    let mut server = told(&systemd, &[("CHAT_UPSTREAM", &upstream.url)]).serving();
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(LIMIT).unwrap();
    server.signal(Signal::SIGTERM);
    let stopping = systemd.expect("STOPPING=1");
    assert!(stopping.contains(&"EXTEND_TIMEOUT_USEC=10000000".to_owned()), "{stopping:?}");
    for _ in 0..2 {
        let words = systemd.expect("EXTEND_TIMEOUT_USEC=");
        assert!(words.iter().any(|line| line.contains("finish 1 requests")), "{words:?}");
    }
    upstream.release();
    assert_eq!(connection.answer().unwrap().status, 200);
    drop(connection);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_by_a_master_whose_loop_turns_and_by_no_other() {
    let systemd = Systemd::start();
    let server = told(&systemd, &[("WATCHDOG_USEC", "400000")]);
    systemd.expect("READY=1");
    let began = Instant::now();
    (0..5).for_each(|_| drop(systemd.expect("WATCHDOG=1")));
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    server.signal(Signal::SIGSTOP);
    until("silence", || systemd.next(Instant::now() + Duration::from_millis(600)).is_none());
    server.signal(Signal::SIGCONT);
    systemd.expect("WATCHDOG=1");
    // After an upgrade the next program feeds it: the process is the same.
    let upgraded = server.order(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    (0..3).for_each(|_| drop(systemd.expect("WATCHDOG=1")));
    drop(server);
    let other = told(&systemd, &[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")]);
    systemd.expect("READY=1");
    let end = Instant::now() + Duration::from_millis(700);
    let fed = |message: Option<String>| message.is_some_and(|message| message.contains("WATCHDOG=1"));
    while Instant::now() < end {
        assert!(!fed(systemd.next(end)), "a watchdog of another process");
    }
    drop(other);
}

/// Debian's tool, or none.
fn analyze() -> Option<PathBuf> {
    let found =
        ["/usr/bin/systemd-analyze", "/bin/systemd-analyze"].map(PathBuf::from).into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("not run: systemd-analyze is missing");
    }
    found
}

/// The units as they would be installed, with the program where it is.
fn installed(name: &str, sealed: bool) -> PathBuf {
    let place = std::env::temp_dir().join(format!("chatcorn-units-{}-{name}", std::process::id()));
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    std::fs::create_dir_all(place.join("chatcorn.service.d")).unwrap();
    let service = std::fs::read_to_string(units.join("chatcorn.service")).unwrap();
    let service = service.replace("/usr/local/bin/chatcorn", env!("CARGO_BIN_EXE_chatcorn"));
    std::fs::write(place.join("chatcorn.service"), service).unwrap();
    std::fs::copy(units.join("chatcorn.socket"), place.join("chatcorn.socket")).unwrap();
    if sealed {
        std::fs::copy(units.join("sealed.conf"), place.join("chatcorn.service.d/sealed.conf")).unwrap();
    }
    place
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(analyze) = analyze() else { return };
    for (name, sealed) in [("open", false), ("sealed", true)] {
        let place = installed(name, sealed);
        let mut command = Command::new(&analyze);
        command.env("SYSTEMD_UNIT_PATH", format!("{}:", place.display())).args(["verify", "--man=no"]);
        let verified = command.arg(place.join("chatcorn.service")).arg(place.join("chatcorn.socket")).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("chatcorn")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{verified:?}");
        std::fs::remove_dir_all(place).unwrap();
    }
}

#[test]
fn the_units_are_as_closed_as_they_claim() {
    let Some(analyze) = analyze() else { return };
    for (name, sealed, most) in [("security", false, 1.1), ("security-sealed", true, 0.3)] {
        let place = installed(name, sealed);
        let root = place.join("root/etc/systemd");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir(root.join("system")).unwrap();
        for entry in ["chatcorn.service", "chatcorn.socket", "chatcorn.service.d"] {
            std::fs::rename(place.join(entry), root.join("system").join(entry)).unwrap();
        }
        let mut command = Command::new(&analyze);
        command.arg(format!("--root={}", place.join("root").display())).args([
            "security",
            "--offline=true",
            "--no-pager",
        ]);
        let judged = command.arg("chatcorn.service").output().unwrap();
        let text = String::from_utf8_lossy(&judged.stdout);
        let exposure = text.lines().find_map(|line| line.split_once("Overall exposure level for chatcorn.service: "));
        let exposure: f64 = exposure.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap_or(10.0);
        assert!(exposure <= most, "{judged:?}");
        println!("{name}: {exposure}");
        std::fs::remove_dir_all(place).unwrap();
    }
}
