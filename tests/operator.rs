//! An operator asks the running server, and is told the truth.

use crate::support::{Server, Upstream, Way, lives, post, run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Output;

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn status_shows_each_worker_and_what_it_does() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    let status = server.status();
    let workers = status["workers"].as_array().unwrap();
    let mut pids: Vec<i64> = workers.iter().map(|worker| worker["pid"].as_i64().unwrap()).collect();
    let mut children: Vec<i64> = server.children("worker").into_iter().map(i64::from).collect();
    pids.sort();
    children.sort();
    assert_eq!(pids, children);
    assert_eq!(workers.iter().map(|worker| worker["in_flight"].as_u64().unwrap()).sum::<u64>(), 1);
    assert!(workers.iter().all(|worker| worker["state"] == "ready" && worker["rss_bytes"].as_u64() > Some(1 << 20)));
    assert_eq!(
        (status["pid"].as_i64(), status["phase"].as_str(), &status["engine"]),
        (Some(server.pid().into()), Some("running"), &serde_json::Value::Null)
    );
    let table = out(&server.order(&["status"]));
    assert!(table.contains("running for") && table.contains(&server.address), "{table}");
    assert_eq!(std::fs::metadata(server.home.join("control.sock")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn status_tells_a_death_and_its_cause() {
    let server = Server::start(&[]);
    kill(Pid::from_raw(server.children("worker")[0]), Signal::SIGKILL).unwrap();
    server.expect("worker died");
    server.expect("worker ready");
    let status = server.status();
    let dead = status["workers"].as_array().unwrap().iter().find(|worker| worker["restarts"] == 1).unwrap();
    assert!(dead["last_death"].as_str().unwrap().contains("SIGKILL"), "{dead}");
}

#[test]
fn status_answers_when_every_worker_is_stopped() {
    let server = Server::start(&[]);
    let workers = server.children("worker");
    workers.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap());
    until("their hearts to be late", || {
        let status = server.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().all(|worker| worker["heartbeat_ms"].as_u64() > Some(700))
    });
    assert_eq!(server.children("worker"), workers);
}

#[test]
fn reload_waits_and_a_refused_one_fails_with_the_cause() {
    let server = Server::start_with(&[("RATE_LIMIT_ENABLED", "false")], &[("chatcorn.toml", "keep_alive = 70\n")]);
    let before = server.children("worker");
    let done = server.order(&["reload"]);
    assert!(done.status.success() && out(&done).contains("4 workers serve"), "{done:?}");
    until("the old ones to leave", || server.children("worker").len() == 4);
    let after = server.children("worker");
    assert!(before.iter().all(|pid| !after.contains(pid)));
    std::fs::write(server.home.join("chatcorn.toml"), "keep_alive = 70\nwokers = 2\n").unwrap();
    let refused = server.order(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("chatcorn.toml:2"), "{refused:?}");
    assert_eq!((server.children("worker"), server.status()["last_reload"]["done"].as_bool()), (after, Some(false)));
}

#[test]
fn scale_changes_the_number_of_workers() {
    let server = Server::start(&[]);
    assert!(server.order(&["scale", "6"]).status.success());
    until("six workers", || server.children("worker").len() == 6);
    assert!(server.order(&["scale", "1"]).status.success());
    until("one worker", || server.children("worker").len() == 1);
    assert_eq!(server.order(&["scale", "1000"]).status.code(), Some(1));
    assert_eq!(server.order(&["scale", "0"]).status.code(), Some(2));
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
}

#[test]
fn stop_waits_for_what_is_under_way_and_says_so() {
    let upstream = Upstream::start(Way::Held);
    let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    let mut stop = server.begin(&["stop"]);
    let mut said = BufReader::new(stop.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The request is held until it was said that it is.
    let first = said.next().unwrap();
    assert!(first.contains("requests in flight: 1, connections left: 1"), "{first}");
    upstream.release();
    assert_eq!(connection.answer().unwrap().status, 200);
    drop(connection);
    let said: Vec<String> = said.collect();
    assert_eq!(said.last().map(String::as_str), Some("stopped, exit code 0"), "{said:?}");
    assert!(stop.wait().unwrap().success());
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.home.join("control.sock").exists());
    assert_eq!(server.order(&["status"]).status.code(), Some(1));
}

#[test]
fn who_is_told_that_it_stopped_can_start_the_next_one() {
    let mut server = Server::start(&[]);
    let log = server.children("chatcorn log")[0];
    // It ends late: the master kills it when its time is over.
    kill(Pid::from_raw(log), Signal::SIGSTOP).unwrap();
    let stopped = server.order(&["stop"]);
    assert!(stopped.status.success() && out(&stopped).contains("stopped, exit code 0"), "{stopped:?}");
    assert!(!lives(log), "the log process lives on");
    assert!(!server.home.join("control.sock").exists());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn stop_now_waits_for_nobody() {
    let upstream = Upstream::start(Way::Held);
    let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    let began = std::time::Instant::now();
    assert!(server.order(&["stop", "--now"]).status.success());
    assert_eq!(server.wait().code(), Some(0));
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn reopen_makes_new_log_files() {
    let server = Server::start(&[]);
    let log = server.home.join("logs/app.log");
    std::fs::rename(&log, server.home.join("logs/moved")).unwrap();
    assert!(server.order(&["reopen"]).status.success());
    until("a new file", || log.exists());
}

#[test]
fn a_socket_that_cannot_be_made_is_a_warning() {
    let server = Server::start(&[("CONTROL_SOCKET", "/proc/nowhere/control.sock")]);
    assert!(server.text().contains("no control socket"));
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let place = std::env::temp_dir().join(format!("chatcorn-stale-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let path = place.join("control.sock");
    let live = UnixListener::bind(&path).unwrap();
    let server = Server::start(&[("CONTROL_SOCKET", path.to_str().unwrap())]);
    assert!(server.text().contains("no control socket"));
    drop(live);
    let server = Server::start(&[("CONTROL_SOCKET", path.to_str().unwrap())]);
    assert!(!server.text().contains("no control socket"));
    let status = run(&["status"], &[("CONTROL_SOCKET", path.to_str().unwrap())], &[]);
    assert!(out(&status).contains("running for"), "{status:?}");
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn silent_and_babbling_callers_disturb_nobody() {
    use std::io::Write;
    let server = Server::start(&[]);
    let path = server.home.join("control.sock");
    let mut callers: Vec<_> = (0..40).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    for (number, caller) in callers.iter_mut().enumerate() {
        let _ = caller.write_all(&vec![b'{'; number * 100]);
    }
    assert_eq!(server.status()["phase"], "running");
}
