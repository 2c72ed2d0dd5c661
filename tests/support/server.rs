//! The program under test, and its log as events.

use super::{Connection, LIMIT, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

static PLACES: AtomicU32 = AtomicU32::new(0);

/// A running server; its whole tree ends with it, and its directory goes.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Everything that it said on stderr and stdout.
    pub said: Arc<Mutex<String>>,
    /// Its directory: settings, logs, sessions.
    pub home: PathBuf,
    /// `127.0.0.1:port`
    pub address: String,
}

fn program(home: &Path, wrapper: &[&str]) -> Command {
    let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_chatcorn")]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.current_dir(home).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("LOG_DIR", home.join("logs")).env("DATABASE_URL", format!("sqlite:{}", home.join("c.db").display()));
    command.env("CONTROL_SOCKET", home.join("control.sock"));
    command.env("BIND", "127.0.0.1:0").env("LOG_FORMAT", "json").env("LOG_CLIENT", "full");
    command
}

fn place() -> PathBuf {
    let number = PLACES.fetch_add(1, Ordering::Relaxed);
    let home = std::env::temp_dir().join(format!("chatcorn-test-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    home
}

/// Runs the program to its end, with these variables and arguments; nothing is left behind.
pub fn run(arguments: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Output {
    let home = place();
    for (name, text) in files {
        std::fs::write(home.join(name), text).unwrap();
    }
    let mut command = program(&home, &[]);
    for (name, _) in variables {
        command.env_remove(name.trim_end_matches("_FILE"));
    }
    let output = command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    std::fs::remove_dir_all(home).unwrap();
    output
}

impl Server {
    /// Starts with limits off and waits until all workers serve.
    pub fn start(variables: &[(&str, &str)]) -> Server {
        let off = [("RATE_LIMIT_ENABLED", "false")];
        Server::start_with(&[&off, variables].concat(), &[])
    }

    /// Starts with these variables and files, and waits until all workers serve.
    pub fn start_with(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Server {
        Server::spawn(variables, files).serving()
    }

    /// Waits until all workers serve.
    pub fn serving(mut self) -> Server {
        let listening = self.expect("listening");
        self.address = listening["address"]
            .as_str()
            .unwrap()
            .trim_start_matches("http://")
            .trim_start_matches("https://")
            .to_owned();
        self.expect("serving");
        self
    }

    /// Starts and waits for nothing.
    pub fn spawn(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Server {
        Server::spawn_under(&[], variables, files)
    }

    /// The same through another program (`prlimit …`), which becomes it or is its only parent.
    pub fn spawn_under(wrapper: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Server {
        Server::spawn_given(wrapper, variables, files, Vec::new(), |_| true)
    }

    /// The same with sockets as its stdin and stdout, and only those of the usual variables that `keeps` names.
    pub fn spawn_given(
        wrapper: &[&str],
        variables: &[(&str, &str)],
        files: &[(&str, &str)],
        sockets: Vec<OwnedFd>,
        keeps: impl Fn(&str) -> bool,
    ) -> Server {
        let home = place();
        for (name, text) in files {
            std::fs::write(home.join(name), text).unwrap();
        }
        let mut command = program(&home, wrapper);
        command.env("CHAT_UPSTREAM", "http://127.0.0.1:9").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !keeps("BIND") {
            command.env_remove("BIND");
        }
        let mut sockets = sockets.into_iter();
        if let Some(socket) = sockets.next() {
            command.stdin(socket);
        }
        if let Some(socket) = sockets.next() {
            command.stdout(socket);
        }
        let mut child = command.spawn().unwrap();
        drop(command);
        let said = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        let stderr = child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        for stream in [stdout, stderr].into_iter().flatten() {
            let (sender, said) = (sender.clone(), said.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().unwrap().push_str(&format!("{line}\n"));
                    let _ = sender.send(line);
                }
            });
        }
        Server { child, lines, said, home, address: String::new() }
    }

    /// Runs the program beside the server, on the same store.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = program(&self.home, &[]);
        command.env("CHAT_UPSTREAM", "http://127.0.0.1:9").args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Waits for a line with this message.
    pub fn expect(&self, message: &str) -> Value {
        self.expect_that(message, |event| event["message"] == message)
    }

    /// Waits for a line of which this is true.
    pub fn expect_that(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line {what:?} in:\n{}", self.said.lock().unwrap());
            };
            if let Ok(event) = serde_json::from_str::<Value>(&line)
                && is(&event)
            {
                return event;
            }
        }
    }

    /// Runs a command for this server, as an operator in its directory, to its end.
    pub fn order(&self, arguments: &[&str]) -> Output {
        program(&self.home, &[]).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Such a command, to be begun on a terminal.
    pub fn ordering(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.home, &[]);
        command.args(arguments);
        command
    }

    /// The same with these variables too.
    pub fn order_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = program(&self.home, &[]);
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
    }

    /// Begins such a command.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = program(&self.home, &[]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The answer to `chatcorn status --json`.
    pub fn status(&self) -> Value {
        let output = self.order(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The master: our child, or the only child of the program that it was started through.
    pub fn pid(&self) -> i32 {
        let child = self.child.id() as i32;
        match comm(child).trim() {
            "unshare" => children_of(child).first().copied().unwrap_or(child),
            _ => child,
        }
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Children by name: `worker`, `chatcorn log`, `chatcorn engine`.
    pub fn children(&self, name: &str) -> Vec<i32> {
        children_of(self.pid()).into_iter().filter(|pid| comm(*pid).starts_with(name)).collect()
    }

    /// The operators' own address: each bound one has its line, theirs is the last.
    pub fn admin(&self) -> String {
        let said = self.text();
        let mut lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = lines.rfind(|line| line["message"] == "listening").unwrap();
        last["address"].as_str().unwrap().trim_start_matches("http://").to_owned()
    }

    /// A new connection to it.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.address)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of the server", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// What it said so far.
    pub fn text(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

fn children_of(pid: i32) -> Vec<i32> {
    let pids = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn comm(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// True while a process lives (a zombie does not).
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

impl Drop for Server {
    fn drop(&mut self) {
        let pids: Vec<i32> = ["worker", "chatcorn", "migration"].iter().flat_map(|name| self.children(name)).collect();
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let end = Instant::now() + Duration::from_secs(5);
        while pids.iter().any(|pid| lives(*pid)) && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}
