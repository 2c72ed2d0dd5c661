//! Real Redis servers, each with a socket and a port of its own, and what stands between one and its clients.

use super::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{RedisResult, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

static PLACES: AtomicU32 = AtomicU32::new(0);

/// A redis-server without persistence.
pub struct Redis {
    child: Child,
    home: PathBuf,
    settings: Vec<String>,
}

/// A port that nobody has just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// Starts one on a Unix socket.
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// The same with more settings; `HOME` in them is its directory.
    pub fn start_with(settings: &[&str]) -> Redis {
        let number = PLACES.fetch_add(1, Relaxed);
        let home = std::env::temp_dir().join(format!("chatcorn-test-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let settings: Vec<String> = settings.iter().map(|word| word.replace("HOME", home.to_str().unwrap())).collect();
        Redis { child: spawn(&home, &settings), home, settings }
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.home.join("socket").display())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again; without persistence it is empty.
    pub fn restart(&mut self) {
        self.child = spawn(&self.home, &self.settings);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// One command, with the password of its settings.
    pub fn ask(&self, words: &[&str]) -> RedisResult<Value> {
        let password = self.settings.iter().skip_while(|word| *word != "--requirepass").nth(1);
        self.ask_as(password.map_or("", String::as_str), words)
    }

    /// The same with a password.
    pub fn ask_as(&self, password: &str, words: &[&str]) -> RedisResult<Value> {
        let login = if password.is_empty() { String::new() } else { format!("?pass={password}") };
        let client = redis::Client::open(format!("{}{login}", self.url()))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut client.get_connection()?)
    }

    /// How often `command` was called.
    pub fn calls(&self, command: &str) -> usize {
        let Value::BulkString(stats) = self.ask(&["INFO", "commandstats"]).unwrap() else { panic!() };
        let stats = String::from_utf8(stats).unwrap();
        let start = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(start.as_str()));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }
}

fn spawn(home: &Path, settings: &[String]) -> Child {
    let mut child = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--busy-reply-threshold", "1", "--unixsocket"])
        .arg(home.join("socket"))
        .arg("--dir")
        .arg(home)
        .args(settings)
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need redis-server in PATH");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("ready to accept connections")), "redis-server did not start");
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// What stands between does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Passes everything on.
    Pass,
    /// Answers each command with this error itself.
    Says(&'static str),
    /// Takes what comes and says nothing.
    Swallows,
}

/// A relay before a Redis; it ends with the test's process.
pub struct Between {
    /// For `REDIS_URL`.
    pub url: String,
    manner: Arc<Mutex<Manner>>,
}

impl Between {
    /// Starts one before `redis`.
    pub fn start(redis: &Redis) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let manner = Arc::new(Mutex::new(Manner::Pass));
        let (socket, between) = (redis.home.join("socket"), manner.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (socket, manner) = (socket.clone(), between.clone());
                std::thread::spawn(move || relay(client, &socket, &manner));
            }
        });
        Between { url, manner }
    }

    /// From now on it does this.
    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

fn relay(mut client: TcpStream, socket: &Path, manner: &Mutex<Manner>) {
    let Ok(server) = std::os::unix::net::UnixStream::connect(socket) else { return };
    let (mut from_server, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 64 << 10];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let manner = *manner.lock().unwrap();
        let passed = match manner {
            Manner::Pass => (&server).write_all(&bytes[..length]),
            // The limiter sends whole commands, each an array of strings.
            Manner::Says(error) => {
                let commands = bytes[..length].windows(2).filter(|pair| pair == b"\n*").count() + 1;
                client.write_all(format!("-{error}\r\n").repeat(commands).as_bytes())
            }
            Manner::Swallows => Ok(()),
        };
        if passed.is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

/// Three masters of one cluster, and the URL that names two of them.
pub fn cluster() -> (Vec<Redis>, String) {
    let ports: Vec<(String, String)> = (0..3).map(|_| (free_port().to_string(), free_port().to_string())).collect();
    let start = |(port, bus): &(String, String)| {
        let on = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes", "--cluster-node-timeout", "400"];
        Redis::start_with(&[&on[..], &["--port", port, "--cluster-port", bus, "--bind", "127.0.0.1"]].concat())
    };
    let servers: Vec<Redis> = ports.iter().map(start).collect();
    for (server, slots) in servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]).unwrap();
        for (port, bus) in &ports {
            server.ask(&["CLUSTER", "MEET", "127.0.0.1", port, bus]).unwrap();
        }
    }
    let whole = |server: &Redis| match server.ask(&["CLUSTER", "INFO"]) {
        Ok(Value::BulkString(info)) => String::from_utf8_lossy(&info).contains("cluster_state:ok"),
        _ => false,
    };
    until("the cluster", || servers.iter().all(whole));
    (servers, format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", ports[0].0, ports[1].0))
}
