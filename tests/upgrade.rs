//! Somebody installs another program over the running one and asks for an upgrade.

use crate::support::{Footprint, Load, Server, Upstream, Way, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Starts what stands as `chatcorn` in the server's directory, so that a test can put something else there.
const FROM_HOME: [&str; 3] = ["sh", "-c", "ln \"$0\" ./chatcorn 2>/dev/null || cp \"$0\" ./chatcorn; exec ./chatcorn"];

fn start(variables: &[(&str, &str)]) -> Server {
    let off = [("RATE_LIMIT_ENABLED", "false"), ("BOOT_TIMEOUT", "2")];
    Server::spawn_under(&FROM_HOME, &[&off, variables].concat(), &[]).serving()
}

/// Installs a script as the new program, as a package manager does: by renaming.
fn install(server: &Server, script: &str, mode: u32) {
    let new = server.home.join("new");
    std::fs::write(&new, script).unwrap();
    std::fs::set_permissions(&new, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::rename(new, server.home.join("chatcorn")).unwrap();
}

fn install_again(server: &Server) {
    let new = server.home.join("new");
    std::fs::copy(env!("CARGO_BIN_EXE_chatcorn"), &new).unwrap();
    std::fs::rename(new, server.home.join("chatcorn")).unwrap();
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

fn program_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

#[test]
fn an_upgrade_replaces_everything_in_place_and_fails_no_request() {
    let upstream = Upstream::start(Way::Load);
    let server = start(&[("CHAT_UPSTREAM", &upstream.url), ("HF_TOKEN", "hf_planted_secret_0123456789")]);
    let load = Load::start(&server);
    load.goes_on(100);
    let before = Footprint::of(&server);
    let turns = if std::env::var_os("CHATCORN_TEST_LONG").is_some() { 10 } else { 2 };
    for _ in 0..turns {
        let old: Vec<i32> = [server.children("worker"), server.children("chatcorn log")].concat();
        install_again(&server);
        let upgraded = server.order(&["upgrade"]);
        assert!(upgraded.status.success(), "{upgraded:?}\n{}", server.text());
        load.goes_on(20);
        until("the old ones to leave", || {
            !old.iter().any(|pid| crate::support::lives(*pid)) && server.children("worker").len() == 4
        });
        assert_eq!(inode(&program_of(server.pid())), inode(&server.home.join("chatcorn")));
        let new = server.children("worker");
        assert!(new.iter().all(|pid| inode(&program_of(*pid)) == inode(&server.home.join("chatcorn"))));
        assert_eq!((new.len(), server.children("chatcorn log").len()), (4, 1));
    }
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    before.is_back(&server);
    let environment = std::fs::read(format!("/proc/{}/environ", server.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("planted_secret"));
}

#[test]
fn limits_and_counters_go_on_over_an_upgrade() {
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_DEFAULT", "3 per hour")];
    let server = start(&limits);
    let asked = || server.connect().get("/api/sessions/x").unwrap().status;
    let before: Vec<u16> = (0..4).map(|_| asked()).collect();
    assert_eq!(before[3], 429, "{before:?}");
    let requests = |server: &Server| -> u64 {
        let status = server.status();
        status["workers"].as_array().unwrap().iter().map(|worker| worker["requests"].as_u64().unwrap()).sum()
    };
    let counted = requests(&server);
    let upgraded = server.order(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}\n{}", server.text());
    assert_eq!(asked(), 429);
    server.expect("upgraded");
    until("all the old ones to leave", || server.children("worker").len() == 4);
    assert!(counted >= 4, "{counted}");
    let status = server.status();
    assert_eq!((status["pid"].as_i64(), status["generation"].as_u64()), (Some(server.pid().into()), Some(1)));
}

#[test]
fn a_program_that_does_not_stand_is_refused_and_nothing_changes() {
    let server = start(&[]);
    let workers = server.children("worker");
    let refused = |what: &str| {
        let reason = refusal(&server.order(&["upgrade"]));
        assert!(reason.contains(what), "{what:?} in {reason}");
        assert_eq!(server.children("worker"), workers);
        assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
    };
    std::fs::remove_file(server.home.join("chatcorn")).unwrap();
    refused("No such file");
    install(&server, "#!/bin/sh\nexit 0\n", 0o644);
    refused("Permission denied");
    install(&server, "#!/bin/sh\nexit 7\n", 0o755);
    refused("exit code 7");
    install(&server, "#!/bin/sh\nexit 0\n", 0o755);
    refused("exit code 0");
    install(&server, "#!/bin/sh\nexec sleep 1000\n", 0o755);
    refused("not ready in time");
    std::fs::write(server.home.join("chatcorn.toml"), "wokers = 3\n").unwrap();
    install_again(&server);
    refused("chatcorn.toml:1");
    std::fs::remove_file(server.home.join("chatcorn.toml")).unwrap();
    assert!(server.order(&["upgrade"]).status.success());
}

/// A program that proves itself with a parcel that somebody else has written.
const OTHER_PARCEL: &str = r#"#!/usr/bin/python3
import fcntl, os, re, sys
text = open("/proc/self/fd/" + os.environ["CHATCORN_HANDOVER"], "rb").read()
find, put = open("change", "rb").read().split(b"\n")
parcel = os.memfd_create("other", os.MFD_ALLOW_SEALING)
os.write(parcel, re.sub(find, put, text, count=1))
fcntl.fcntl(parcel, fcntl.F_ADD_SEALS, 15)
os.set_inheritable(parcel, True)
os.environ["CHATCORN_HANDOVER"] = str(parcel)
os.execv("./real", ["chatcorn"] + sys.argv[1:])
"#;

#[test]
fn a_parcel_that_cannot_be_read_is_refused_in_the_proof() {
    let server = start(&[]);
    std::fs::copy(env!("CARGO_BIN_EXE_chatcorn"), server.home.join("real")).unwrap();
    let workers = server.children("worker");
    install(&server, OTHER_PARCEL, 0o755);
    for (find, put, what) in [
        (r#""version":\d+"#, r#""version":4000000"#, "state of version 4000000"),
        (r#""version":\d+"#, r#""version":0"#, "state of version 0"),
        (r#""layout":\[\d+"#, r#""layout":[7"#, "its own layout of shared memory"),
        (r#""mind":\{"#, r#""mind":{"phase":7,"x":{"#, "handed-over state"),
        (r#""mind":\{"phase":""#, r#""mind":{"phase":"Un"#, "the running master's state"),
        (r#""board":\d+"#, r#""board":0"#, "the running server's board"),
        (r"^\{", "[", "handed-over state"),
    ] {
        std::fs::write(server.home.join("change"), format!("{find}\n{put}")).unwrap();
        let reason = refusal(&server.order(&["upgrade"]));
        assert!(reason.contains(what), "{what:?} in {reason}");
        assert_eq!(server.children("worker"), workers);
    }
    let status = server.status();
    assert_eq!((&status["last_upgrade"]["done"], &status["upgrade"]), (&false.into(), &serde_json::Value::Null));
    install_again(&server);
    let upgraded = server.order(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    let told = String::from_utf8(upgraded.stdout).unwrap();
    for part in ["proving the new program", "replacing this one", "(1 of 4)", "(3 of 4)", "upgraded"] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    assert_eq!(server.status()["last_upgrade"]["done"], true);
    assert!(String::from_utf8(server.order(&["status"]).stdout).unwrap().contains("upgrade   done"));
}

#[test]
fn a_second_upgrade_meanwhile_is_refused() {
    let server = start(&[("BOOT_TIMEOUT", "10")]);
    install(&server, "#!/bin/sh\nexec sleep 1000\n", 0o755);
    server.signal(Signal::SIGUSR2);
    server.expect("upgrade: proving the new program");
    server.signal(Signal::SIGUSR2);
    server.expect("an upgrade is under way: a second one is refused");
    assert!(refusal(&server.order(&["upgrade"])).contains("under way"));
    // What proves itself can be ended like anything else.
    until("the proof", || !server.children("sleep").is_empty());
    kill(Pid::from_raw(server.children("sleep")[0]), Signal::SIGKILL).unwrap();
    let refused = server.expect("upgrade refused: everything stays as it was");
    assert!(refused["reason"].as_str().unwrap().contains("SIGKILL"), "{refused}");
}

/// Every process that the new program forks dies at once, but not in the proof.
fn install_one_whose_children_die(server: &Server) {
    let source = server.home.join("die.c");
    std::fs::write(
        &source,
        "#include <pthread.h>\n#include <unistd.h>\nstatic void die(void) { _exit(9); }\n\
         __attribute__((constructor)) static void arm(void) { pthread_atfork(0, 0, die); }\n",
    )
    .unwrap();
    let library = server.home.join("die.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    let (program, library) = (env!("CARGO_BIN_EXE_chatcorn"), library.display());
    let script = format!("#!/bin/sh\n[ \"$1\" = proof ] || export LD_PRELOAD={library}\nexec {program} \"$@\"\n");
    install(server, &script, 0o755);
}

#[test]
fn a_program_whose_workers_die_after_the_replacement_gives_back() {
    let upstream = Upstream::start(Way::Load);
    let server = start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let original = inode(&program_of(server.pid()));
    let load = Load::start(&server);
    load.goes_on(50);
    let workers = server.children("worker");
    install_one_whose_children_die(&server);
    let reason = refusal(&server.order(&["upgrade"]));
    assert!(reason.contains("exit code 9"), "{reason}\n{}", server.text());
    server.expect("upgrade refused: everything stays as it was");
    load.goes_on(50);
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    assert_eq!(server.children("worker"), workers);
    until("the former program", || inode(&program_of(server.pid())) == original);
    kill(Pid::from_raw(workers[0]), Signal::SIGKILL).unwrap();
    server.expect("worker died");
    server.expect("worker ready");
    install_again(&server);
    assert!(server.order(&["upgrade"]).status.success(), "{}", server.text());
}

#[test]
fn an_upgrade_as_pid_1_keeps_the_namespace_alive() {
    if !Uid::effective().is_root() {
        println!("not run: only root may make a process namespace");
        return;
    }
    let wrapper = [&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"], &FROM_HOME[..]].concat();
    let mut server = Server::spawn_under(&wrapper, &[("RATE_LIMIT_ENABLED", "false")], &[]).serving();
    let (init, old) = (server.pid(), server.children("worker"));
    install_again(&server);
    let upgraded = server.order(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}\n{}", server.text());
    until("new workers", || server.children("worker").iter().filter(|pid| !old.contains(pid)).count() == 4);
    assert_eq!((server.pid(), server.connect().get("/healthz").unwrap().status), (init, 200));
    kill(Pid::from_raw(init), Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().code(), Some(0), "{}", server.text());
}

#[test]
fn term_and_hup_in_an_upgrade_are_heard() {
    for signals in [&[Signal::SIGTERM][..], &[Signal::SIGHUP, Signal::SIGTERM], &[Signal::SIGINT]] {
        let mut server = start(&[]);
        install_again(&server);
        server.signal(Signal::SIGUSR2);
        server.expect("upgrade: the new program stands; replacing this one in place");
        signals.iter().for_each(|signal| server.signal(*signal));
        assert_eq!(server.wait().code(), Some(0), "{signals:?}\n{}", server.text());
    }
}

#[test]
fn a_worker_that_dies_during_the_replacement_is_not_missed() {
    let server = start(&[]);
    let workers = server.children("worker");
    install_again(&server);
    server.signal(Signal::SIGUSR2);
    server.expect("upgrade: the new program stands; replacing this one in place");
    for pid in &workers {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    server.expect("upgraded");
    until("four new ones", || {
        let now = server.children("worker");
        now.len() == 4 && now.iter().all(|pid| !workers.contains(pid))
    });
    until("answers", || server.connect().get("/healthz").is_ok_and(|answer| answer.status == 200));
}
