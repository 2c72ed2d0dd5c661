//! The log's own misfortunes, from outside: nobody who asks notices, and what is written stays whole.

use crate::support::{Connection, Server, run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

const OFF: (&str, &str) = ("RATE_LIMIT_ENABLED", "false");
/// What a killed log process may take with it.
const LOST_BYTES_MAX: usize = 64 * 1024;
/// Writing resumes within this.
const BACK: Duration = Duration::from_secs(5);

fn ask(connection: &mut Connection) -> String {
    let answer = connection.get("/api/health").unwrap();
    assert_eq!(answer.status, 200);
    answer.header("x-request-id").unwrap().to_owned()
}

fn ids(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| whole(line)["request_id"].as_str().unwrap().to_owned()).collect()
}

fn whole(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|_| panic!("a torn line: {line}"))
}

/// Asks until a line of one of these requests stands in the file.
fn writes_again(connection: &mut Connection, file: &Path) {
    let begun = Instant::now();
    until("lines again", || {
        let id = ask(connection);
        std::fs::read_to_string(file).is_ok_and(|text| text.contains(&id))
    });
    assert!(begun.elapsed() < BACK, "{:?}", begun.elapsed());
}

#[test]
fn a_log_process_killed_under_load_loses_little_and_doubles_nothing() {
    let server = Server::start(&[("ACCESS_LOGFILE", "access.log")]);
    let file = server.home.join("access.log");
    let mut connection = server.connect();
    let mut asked = Vec::new();
    for _ in 0..2 {
        asked.extend((0..1500).map(|_| ask(&mut connection)));
        let old = server.children("chatcorn log")[0];
        kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
        asked.extend((0..500).map(|_| ask(&mut connection)));
        until("another log process", || server.children("chatcorn log").iter().any(|pid| *pid != old));
    }
    let last = ask(&mut connection);
    until("the last line", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&last)));
    let text = std::fs::read_to_string(&file).unwrap();
    let found = ids(&file);
    let unique: HashSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "a line is there twice");
    let missing = asked.iter().filter(|id| !unique.contains(id)).count();
    let line_bytes = text.len() / found.len();
    assert!(missing * line_bytes <= 2 * LOST_BYTES_MAX, "{missing} lines of {line_bytes} bytes lost by two kills");
}

#[test]
fn a_log_file_replaced_by_a_link_leaves_the_victim_alone() {
    let server = Server::start(&[("ACCESS_LOGFILE", "access.log")]);
    let (file, victim) = (server.home.join("access.log"), server.home.join("victim"));
    let mut connection = server.connect();
    writes_again(&mut connection, &file);
    std::fs::write(&victim, "mine").unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();
    until("the complaint", || {
        ask(&mut connection);
        server.text().contains("symbolic link")
    });
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    assert!(server.text().contains("log_tampering"));
    std::fs::remove_file(&file).unwrap();
    writes_again(&mut connection, &file);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
}

#[test]
fn a_log_directory_that_is_removed_is_written_to_again_when_it_is_back() {
    let server = Server::start(&[("ACCESS_LOGFILE", "logs/access.log")]);
    let dir = server.home.join("logs");
    let mut connection = server.connect();
    writes_again(&mut connection, &dir.join("access.log"));
    std::fs::remove_dir_all(&dir).unwrap();
    until("app.log again", || {
        ask(&mut connection);
        dir.join("app.log").exists()
    });
    writes_again(&mut connection, &dir.join("access.log"));
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("skipped: a file system of its own needs root");
    }
    let mount = "mkdir -m 700 logs && mount -t tmpfs -o size=256k,mode=700 none logs && exec \"$0\" \"$@\"";
    let probe = std::process::Command::new("unshare").args(["-m", "sh", "-c", "mount -t tmpfs none /mnt"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no mount is allowed here");
    }
    let variables = [OFF, ("ACCESS_LOGFILE", "logs/access.log")];
    let server = Server::spawn_under(&["unshare", "-m", "sh", "-c", mount], &variables, &[]).serving();
    let inside = Path::new("/proc").join(server.pid().to_string()).join("root");
    let dir = inside.join(server.home.strip_prefix("/").unwrap()).join("logs");
    let (file, filler) = (dir.join("access.log"), dir.join("filler"));
    let mut connection = server.connect();
    writes_again(&mut connection, &file);
    assert!(std::fs::write(&filler, vec![b'x'; 1 << 20]).is_err(), "the disk is not full");
    until("the complaint", || {
        (0..50).for_each(|_| drop(ask(&mut connection)));
        server.text().contains("No space left")
    });
    std::fs::remove_file(&filler).unwrap();
    let before = ids(&file).len();
    writes_again(&mut connection, &file);
    assert!(ids(&file).len() > before);
}

#[test]
fn a_stdout_that_nobody_reads_stalls_no_request() {
    let wrapper = "mkfifo out && exec 9<>out && exec \"$0\" \"$@\" >out";
    let server = Server::spawn_under(&["sh", "-c", wrapper], &[OFF], &[]).serving();
    let mut connection = server.connect();
    let begun = Instant::now();
    // More than the pipe and the queue hold (64 KiB and 1 MiB).
    (0..6000).for_each(|_| drop(ask(&mut connection)));
    assert!(begun.elapsed() < Duration::from_secs(20));
    let rss = |pid: i32| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let most = server.children("chatcorn log").into_iter().chain(server.children("worker")).map(rss).max();
    assert!(most.unwrap() < 64 << 20, "{most:?}");
}

#[test]
fn whatever_comes_in_one_event_is_one_line() {
    let server = Server::start(&[("ACCESS_LOGFILE", "access.log")]);
    let file = server.home.join("access.log");
    let mut connection = server.connect();
    let path = "/%0d%0a%7b%22time%22:%22x%22%7d/%1b[31m/%e2%80%a8";
    let agent = "a\tb\u{2028}c\u{85}d\"}{\u{202e}e";
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\nUser-Agent: {agent}\r\n\r\n")).unwrap();
    connection.answer().unwrap();
    // Of the same worker, whose lines keep their order.
    let last = ask(&mut connection);
    until("the last line", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&last)));
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.iter().all(|byte| *byte == b'\n' || (*byte >= 0x20 && *byte != 0x7f)));
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains(['\u{2028}', '\u{85}']), "{text}");
    assert!(text.lines().map(whole).any(|event| event["path"].as_str().is_some_and(|path| path.contains("%0"))));
}

#[test]
fn no_answer_and_no_print_of_the_settings_shows_a_secret() {
    let secret = "hf_ZyXwVuTsRqPoNmLkJiHgFeDcBa9876543210";
    let server = Server::start(&[("ACCESS_LOGFILE", "access.log")]);
    let heads = [
        format!("Cookie: session={secret}"),
        format!("X-Api-Key: {secret}"),
        format!("Referer: https://u:{secret}@host/?token={secret}"),
        format!("User-Agent: curl --token {secret}"),
        format!("X-Request-Id: {secret}"),
        format!("Content-Type: multipart/form-data; boundary={secret}"),
    ];
    for head in &heads {
        let mut connection = server.connect();
        let request = format!("POST /nowhere/{secret} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n{head}\r\n\r\n");
        connection.send(request).unwrap();
        let body = connection.answer().unwrap().body;
        // A client's own request id is its own to see again, and nobody else's.
        assert!(head.starts_with("X-Request-Id") || !body.contains(&secret[3..11]), "{head}");
    }
    for body in [format!("{{\"message\": {secret}"), format!("{{\"{secret}\": 1}}"), secret.to_owned()] {
        assert!(!server.connect().post("/api/chat", &body).unwrap().body.contains(&secret[3..11]), "{body}");
    }
    let last = ask(&mut server.connect());
    let file = server.home.join("access.log");
    until("the last line", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&last)));
    let app = std::fs::read_to_string(server.home.join("logs/app.log")).unwrap();
    let told = std::fs::read_to_string(&file).unwrap() + &app + &server.text();
    for start in 3..secret.len() - 8 {
        assert!(!told.contains(&secret[start..start + 8]), "{told}");
    }
    let shown = run(&["config"], &[("HF_TOKEN", secret), ("CHAT_UPSTREAM_API_KEY", secret)], &[]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains(&secret[3..11]));
}

#[test]
fn the_journal_gets_priorities() {
    let wrapper = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
    let server = Server::spawn_under(&["sh", "-c", wrapper], &[OFF, ("OMP_NUM_THREADS", "invalid")], &[]);
    until("a warning and information", || {
        let text = server.text();
        text.lines().any(|line| line.starts_with("<4>{")) && text.lines().any(|line| line.starts_with("<6>{"))
    });
}
