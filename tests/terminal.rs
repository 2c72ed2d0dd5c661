//! A person at a terminal: `chatcorn chat`, `chatcorn top`.

use crate::support::{LIMIT, Server, Upstream, Way, until};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A command in a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

fn chat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatcorn"));
    command.arg("chat").args(arguments).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    command
}

impl Terminal {
    fn open(server: &Server) -> Terminal {
        Terminal::of(chat(&[&format!("http://{}", server.address)]))
    }

    fn of(mut command: Command) -> Terminal {
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut output = File::from(pty.master.try_clone().unwrap());
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Terminal { child, keys: File::from(pty.master), screen }
    }

    fn type_line(&mut self, line: &str) {
        self.screen.lock().unwrap().clear();
        self.keys.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn expect(&self, text: &str) {
        until(text, || self.screen.lock().unwrap().contains(text));
    }

    /// The answer is whole and the next line is waited for: before that, Ctrl-C would stop the answer.
    fn expect_prompt_after(&self, text: &str) {
        until("the prompt", || {
            let screen = self.screen.lock().unwrap();
            screen.split_once(text).is_some_and(|(_, rest)| rest.contains("> "))
        });
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of the chat", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pipe(arguments: &[&str], key: Option<&str>, text: &str) -> Output {
    let mut command = chat(arguments);
    if let Some(key) = key {
        command.env("CHATCORN_API_KEY", key);
    }
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().unwrap();
    // One that has nothing to ask may be gone before it has read.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

fn asked(upstream: &Upstream) -> Vec<String> {
    let body: Value = serde_json::from_str(&upstream.requests.recv_timeout(LIMIT).unwrap()).unwrap();
    body["messages"].as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_operator_watches_and_leaves_by_a_key() {
    let server = Server::start_with(&[], &[]);
    for keys in ["q", "xq", "\x03", "\x1b"] {
        let mut terminal = Terminal::of(server.ordering(&["top"]));
        terminal.expect("q leaves");
        let shows = |terminal: &Terminal| tcgetattr(&terminal.keys).unwrap().local_flags.contains(LocalFlags::ECHO);
        assert!(!shows(&terminal), "keys are not shown");
        terminal.keys.write_all(keys.as_bytes()).unwrap();
        assert!(terminal.wait().success());
        assert!(shows(&terminal), "the terminal is as it was");
    }
}

#[test]
fn a_person_talks_stops_an_answer_and_goes_on() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut terminal = Terminal::open(&server);
    terminal.expect("/help lists the commands");
    terminal.type_line("what is one?");
    terminal.expect("one ");
    terminal.interrupt();
    terminal.expect("Stopped.");
    upstream.left.recv_timeout(LIMIT).unwrap();
    assert_eq!(asked(&upstream), ["what is one?"]);
    upstream.release();
    terminal.type_line("and two?");
    terminal.expect("one two three");
    assert_eq!(asked(&upstream), ["what is one?", "one ", "and two?"]);
    terminal.type_line("/again");
    terminal.expect("one two three");
    assert_eq!(asked(&upstream), ["what is one?", "one ", "and two?"]);
    terminal.type_line("/new");
    terminal.expect("A new conversation.");
    terminal.type_line("two \\");
    terminal.type_line("lines");
    terminal.expect("one two three");
    assert_eq!(asked(&upstream), ["two \nlines"]);
    terminal.type_line("/fresh");
    terminal.expect("on its own");
    terminal.type_line("alone");
    terminal.expect_prompt_after("one two three");
    assert_eq!(asked(&upstream), ["alone"]);
    terminal.interrupt();
    assert_eq!(terminal.wait().code(), Some(130));
}

#[test]
fn limits_and_failures_are_told_in_words() {
    let upstream = Upstream::start(Way::Instant);
    let limits = [("CHAT_UPSTREAM", upstream.url.as_str()), ("RATE_LIMIT_CHAT", "1 per hour")];
    let server = Server::start_with(&limits, &[]);
    let mut terminal = Terminal::open(&server);
    terminal.type_line("first");
    terminal.expect("(0 messages left for the next ");
    terminal.type_line("second");
    terminal.expect("Too many requests");
    terminal.expect("/again repeats your message");
    terminal.type_line("/nonsense");
    terminal.expect("/nonsense is no command");
    terminal.type_line("/quit");
    assert!(terminal.wait().success());
}

#[test]
fn a_terminal_gets_no_control_characters() {
    let upstream = Upstream::start(Way::Says(r"a\u001b[31mb\u0007\u009bc\nd"));
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut terminal = Terminal::open(&server);
    terminal.type_line("x");
    terminal.expect("a[31mbc\r\nd");
}

#[test]
fn a_pipe_is_one_message_and_one_answer() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let url = format!("http://{}", server.address);
    let answer = pipe(&[&url], None, "two\nlines\n");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "one two three\n");
    assert!(answer.status.success() && answer.stderr.is_empty(), "{answer:?}");
    assert_eq!(asked(&upstream), ["two\nlines"]);
    let nothing = pipe(&[&url], None, " \n");
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(1), 0));
    let configured = pipe(&["--bind", &server.address], None, "hi");
    assert!(configured.status.success(), "{configured:?}");
}

#[test]
fn a_pipe_that_gets_no_answer_says_why_and_exits_1() {
    let upstream = Upstream::start(Way::Fails);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let url = format!("http://{}", server.address);
    for (url, says) in [
        (url.as_str(), "The model could not answer. Try again."),
        ("http://127.0.0.1:9", "http://127.0.0.1:9 does not answer"),
        ("nonsense:x", "write http://host:port"),
    ] {
        let answer = pipe(&[url], None, "hi");
        let told = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.code() == Some(1) && told.contains(says), "{url}: {told}");
    }
    let answer = pipe(&[&url], Some("not\na key"), "hi");
    let told = String::from_utf8_lossy(&answer.stderr);
    assert!(told.contains("CHATCORN_API_KEY is not a key") && !told.contains("not\na"), "{told}");
}
