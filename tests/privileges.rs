//! What a worker cannot do, and who dies first when memory runs out.

use crate::support::{Server, lives, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

fn status_of(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().trim().to_owned()
}

fn oom_score_adj(pid: i32) -> i32 {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
}

#[test]
fn the_master_is_never_the_first_that_memory_costs() {
    let server = Server::start(&[]);
    let own = oom_score_adj(server.pid());
    let children = [server.children("worker"), server.children("chatcorn log")].concat();
    assert_eq!(children.len(), 5);
    assert!(children.iter().all(|pid| oom_score_adj(*pid) > own), "{own}");
}

#[test]
fn every_child_gains_nothing_and_leaves_no_core_and_workers_have_walls() {
    let place = std::env::temp_dir().join(format!("chatcorn-privileges-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    let store = format!("sqlite:{}/c.db", place.display());
    let root = Uid::effective().is_root();
    let mut variables = vec![("DATABASE_URL", store.as_str())];
    if root {
        std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
        variables.push(("CHATCORN_USER", "nobody"));
    }
    let server = Server::start(&variables);
    let workers = server.children("worker");
    for pid in [workers.clone(), server.children("chatcorn log")].concat() {
        assert_eq!(status_of(pid, "NoNewPrivs"), "1");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        if root {
            assert!(status_of(pid, "Uid").split_whitespace().all(|uid| uid == "65534"));
            assert_eq!(status_of(pid, "CapEff"), "0000000000000000");
            assert_eq!(status_of(pid, "Groups"), "65534");
        }
    }
    assert_eq!(status_of(workers[0], "Seccomp"), "2");
    assert!(!server.text().contains("not confined"), "{}", server.text());
    // A core would hold everything that was ever sent.
    kill(Pid::from_raw(workers[0]), Signal::SIGABRT).unwrap();
    server.expect("worker died");
    until("its end", || !lives(workers[0]));
    let names = std::fs::read_dir(&server.home).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with("core")));
    drop(server);
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn a_worker_cannot_follow_its_key_file_to_a_place_it_has_no_business_in() {
    let elsewhere = std::env::temp_dir().join(format!("chatcorn-elsewhere-{}", std::process::id()));
    std::fs::create_dir_all(&elsewhere).unwrap();
    let server = Server::start_with(&[("API_KEYS_FILE", "keys"), ("RATE_LIMIT_ENABLED", "false")], &[("keys", "")]);
    let secret = elsewhere.join("secret");
    std::fs::write(&secret, "").unwrap();
    std::os::unix::fs::symlink(&secret, server.home.join("new")).unwrap();
    // The same bytes, by way of another directory.
    std::fs::rename(server.home.join("new"), server.home.join("keys")).unwrap();
    let read = |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.starts_with("API keys"));
    let told = server.expect_that("what the worker makes of it", read);
    match told["reason"].as_str() {
        Some(reason) => assert!(reason.contains("Permission denied"), "{told}"),
        None => println!("not run: this kernel has no Landlock"),
    }
    std::fs::remove_dir_all(elsewhere).unwrap();
}

#[test]
fn a_worker_may_open_as_many_files_as_its_connections_need() {
    let wrapper = ["prlimit", "--nofile=300:4096"];
    let server = Server::spawn_under(&wrapper, &[("RATE_LIMIT_ENABLED", "false"), ("WORKER_CONNECTIONS", "2000")], &[]);
    let server = server.serving();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.children("worker")[0])).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("2256"), "{files}");
    drop(server);
    let few = Server::spawn_under(&wrapper, &[("WORKER_CONNECTIONS", "9000")], &[]);
    few.expect_that("the warning", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("needs 9256 descriptors, and at most 4096"))
    });
}

/// As a container's runtime starts it: PID 1, nobody, nothing to gain, and nothing to write but its volume.
const CONTAINER: &str = "cp \"$0\" ./chatcorn && chown -R 65534:65534 . && mount --bind . . && mount -o remount,bind,ro / \
                         && cd \"$PWD\" && TMPDIR=$PWD exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
                         --bounding-set=-all ./chatcorn";

#[test]
fn as_pid_1_of_nobody_on_a_read_only_root_it_serves_reloads_and_stops() {
    if !Uid::effective().is_root() {
        println!("not run: only root makes a container");
        return;
    }
    let wrapper = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", CONTAINER];
    let mut server = Server::spawn_under(&wrapper, &[("RATE_LIMIT_ENABLED", "false")], &[]).serving();
    let init = server.pid();
    assert!(status_of(init, "NSpid").ends_with("\t1"), "{}", status_of(init, "NSpid"));
    assert!(status_of(init, "Uid").starts_with("65534"));
    let inside = |command: &[&str]| {
        let target = init.to_string();
        let enter = ["-t", &target, "-p", "-m", "-S", "65534", "-G", "65534", "--wd"];
        let mut nsenter = std::process::Command::new("nsenter");
        nsenter.env_clear().env("BIND", &server.address).env("PATH", "/usr/bin:/bin");
        nsenter.env("CONTROL_SOCKET", server.home.join("control.sock")).args(enter).args(command).output().unwrap()
    };
    assert!(!inside(&["touch", "/tmp/chatcorn-read-only"]).status.success(), "the root can be written");
    for command in ["healthcheck", "reload", "upgrade"] {
        let done = inside(&["./chatcorn", command]);
        assert!(done.status.success(), "{command}: {done:?}\n{}", server.text());
    }
    assert_eq!((server.pid(), server.connect().get("/healthz").unwrap().status), (init, 200));
    assert!(!server.text().contains("not confined"), "{}", server.text());
    kill(Pid::from_raw(init), Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().code(), Some(0), "{}", server.text());
}
