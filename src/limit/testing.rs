//! Real Redis servers for the limiter's tests, and machines that ask them; without `redis-server` they fail.

use super::client::{Identity, Peer};
use super::limiter::{Client, Limiter};
use super::plan::{Endpoint, Plan};
use super::quota;
use super::shared::{Shared, Word};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// A directory of one's own.
pub fn place() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, SeqCst);
    let dir = std::env::temp_dir().join(format!("chatcorn-redis-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A redis-server on a Unix socket of its own.
pub struct Server {
    pub child: Child,
    pub dir: PathBuf,
    pub settings: Vec<String>,
}

impl Server {
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// With more settings than its socket; `DIR` in them is its directory.
    pub fn start_with(settings: &[&str]) -> Server {
        let dir = place();
        let settings: Vec<String> = settings.iter().map(|word| word.replace("DIR", dir.to_str().unwrap())).collect();
        Server { child: Server::spawn(&dir, &settings), dir, settings }
    }

    fn spawn(dir: &PathBuf, settings: &[String]) -> Child {
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"])
            .args(["--busy-reply-threshold", "1", "--unixsocket"])
            .arg(dir.join("socket"))
            .arg("--dir")
            .arg(dir)
            .args(settings)
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need redis-server in PATH");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ready = lines.map_while(Result::ok).filter(|line| line.contains("ready to accept connections"));
        assert!(ready.next().is_some(), "redis-server did not start");
        child
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.dir.join("socket").display())
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = Server::spawn(&self.dir, &self.settings);
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub async fn ask(&self, words: &[&str]) -> redis::RedisResult<String> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut wire = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let value: redis::Value = command.query_async(&mut wire).await?;
        Ok(match &value {
            redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        })
    }

    /// How often Redis was asked to decide.
    pub async fn calls(&self) -> usize {
        let stats = self.ask(&["INFO", "commandstats"]).await.unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn plan(server: &Server, default: &str) -> Plan {
    let redis = Some(server.url().parse().unwrap());
    let default = quota::parse(default).unwrap();
    Plan { redis, default, chat: vec![], redis_key: Some(b"shared".to_vec()), table_bytes: 1 << 16, ..Plan::default() }
}

/// A machine: memory of its own, one worker, connected.
pub async fn machine(plan: &Plan) -> (Arc<Limiter>, Shared) {
    let (limiter, shared) = unconnected(plan);
    until("connected", || shared.word(Word::Life).load(SeqCst) != 0 && limiter.is_up()).await;
    (limiter, shared)
}

pub fn unconnected(plan: &Plan) -> (Arc<Limiter>, Shared) {
    let shared = Shared::create(plan).unwrap();
    let limiter = Arc::new(Limiter::new(plan, shared));
    tokio::spawn(limiter.keep());
    (limiter, shared)
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(5), "not {what} in 5 s");
        turns.tick().await;
    }
}

pub fn someone(limiter: &Limiter, number: u8) -> Client {
    limiter.client(Identity::Peer(Peer::Address([192, 0, 2, number].into())))
}

pub async fn admitted(limiter: &Limiter, client: &Client, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        admitted += usize::from(limiter.check(client, Endpoint::Api).await.admitted());
    }
    admitted
}

/// A port that nobody has just now.
pub fn port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

impl Server {
    pub async fn ask_as(&self, password: &str, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("{}?pass={password}", self.url())).unwrap();
        let mut wire = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut wire).await
    }
}
