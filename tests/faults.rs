//! Something breaks while clients go on asking. The numbers are those of the fault table; `bin/test --long` (which sets
//! `CHATCORN_TEST_LONG`) takes its whole counts, a short form otherwise.

use crate::support::{Footprint, Load, Server, Upstream, Way, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn long_or<T>(long: T, short: T) -> T {
    if std::env::var_os("CHATCORN_TEST_LONG").is_some() { long } else { short }
}

fn served_by(way: Way) -> (Upstream, Server) {
    let upstream = Upstream::start(way);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    (upstream, server)
}

/// Connections that one worker may hold of a [`Load`]: those that its death may cost.
const OF_ONE_WORKER: usize = 16;

#[test]
fn workers_killed_at_random_cost_only_what_they_held() {
    let (_upstream, server) = served_by(Way::Load);
    let load = Load::start(&server);
    load.goes_on(100);
    let before = Footprint::of(&server);
    let kills = long_or(20, 5);
    for turn in 0..kills {
        let workers = server.children("worker");
        kill(Pid::from_raw(workers[turn * 7 % workers.len()]), Signal::SIGKILL).unwrap();
        server.expect("worker died");
        server.expect("worker ready");
        load.goes_on(40);
    }
    let report = load.end();
    assert!(report.failures.len() <= kills * OF_ONE_WORKER, "{} {:?}", report.served, report.failures);
    assert_eq!(server.children("worker").len(), 4);
    before.is_back(&server);
}

#[test]
fn reloads_one_after_the_other_fail_no_request() {
    let (_upstream, server) = served_by(Way::Load);
    let load = Load::start(&server);
    load.goes_on(100);
    let before = Footprint::of(&server);
    for _ in 0..long_or(20, 4) {
        server.signal(Signal::SIGHUP);
        server.expect("reloaded");
        load.goes_on(20);
    }
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    before.is_back(&server);
}

#[test]
fn a_storm_of_hups_fails_no_request_and_forks_no_crowd() {
    let (_upstream, server) = served_by(Way::Load);
    let load = Load::start(&server);
    load.goes_on(100);
    let before = Footprint::of(&server);
    let mut most = 0;
    for _ in 0..long_or(500, 200) {
        server.signal(Signal::SIGHUP);
        most = most.max(server.children("worker").len());
        // 200 in two seconds; the whole form is 500 in a minute.
        std::thread::park_timeout(std::time::Duration::from_millis(long_or(120, 10)));
    }
    server.expect("reloaded");
    load.goes_on(100);
    until("the last reload's end", || {
        most = most.max(server.children("worker").len());
        server.children("worker").len() == 4
    });
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    assert!(most <= 12, "{most} workers at once");
    before.is_back(&server);
}

#[test]
fn a_stopped_log_process_costs_nobody_an_answer() {
    let (_upstream, server) = served_by(Way::Load);
    let load = Load::start(&server);
    load.goes_on(100);
    let before = Footprint::of(&server);
    let log = Pid::from_raw(server.children("chatcorn log")[0]);
    kill(log, Signal::SIGSTOP).unwrap();
    // Half a minute, in pieces that are each waited for.
    (0..long_or(15, 1)).for_each(|_| load.goes_on(400));
    kill(log, Signal::SIGCONT).unwrap();
    load.goes_on(50);
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    before.is_back(&server);
}
