//! Redis: one connection a worker, made after the fork, and one `EVALSHA` a decision.
//!
//! ```text
//! keep()    lost -> (breaker open: one worker probes, the others watch the breaker) -> connect -> hello -> up -> lost
//!           up: each second a look whether its data still are the same, else lost
//! decide()  up: EVALSHA, on NOSCRIPT EVAL; else an error at once
//! ```
//!
//! Nothing is tried twice: a call that timed out may have counted. The crate's own reconnecting and script loading are
//! not used: it would not leave a master that became a replica, and loads scripts with a command that proxies block.

use super::name::Name;
use super::script::{Record, SETTLE, Script, records};
use super::shared::{Shared, Word};
use super::tally::Standings;
use super::target::Target;
use super::wire::{CONNECT_MS_MAX, Wire};
use crate::sys::clock;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

/// Redis has so long for an answer.
pub const ANSWER_MS_MAX: u64 = 50;
/// How often a worker without connection looks whether another one found Redis back.
const WATCH_MS: u64 = 100;
/// How often a connection looks whether Redis still has the data that it was made to.
const LOOK_MS: u64 = 1_000;
/// Prefix of all keys; the digit is the version of the records.
const PREFIX: &str = "rl:1:";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SEED_KEY: &str = "rl:1:seed";
const LIFE_KEY: &str = "rl:1:life:";
/// Hash tags whose slots lie 1,024 apart, so that every master of up to eight has one.
const SPREAD: [&str; 16] = [
    "1768", "1678", "1548", "223", "1328", "443", "1845", "1955", "265", "375", "908", "155", "985", "895", "1493",
    "1583",
];
const PROBE_KEY: &str = "rl:1:probe";

/// A connection that said hello, and the secret that clients are hashed with there.
#[derive(Clone)]
struct Live {
    wire: Wire,
    secret: [u64; 2],
    /// The random bytes that end with the data.
    life: Vec<u8>,
    number: u64,
}

/// Redis, as one worker sees it.
pub struct Remote {
    target: Target,
    key: Option<Vec<u8>>,
    shared: Shared,
    live: Mutex<Option<Live>>,
    is_up: AtomicBool,
    lost: Notify,
    settle: redis::Script,
}

/// Why Redis gave no decision.
#[derive(Debug)]
pub enum Fault {
    /// No connection at the moment.
    Away,
    /// No answer in time; it may have counted.
    Late,
    /// An error, or an answer that is none.
    Error(RedisError),
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Fault {
        Fault::Error(error)
    }
}

impl Remote {
    /// Redis at `target`; nothing is connected before [`Remote::keep`] runs.
    pub fn new(target: Target, key: Option<Vec<u8>>, shared: Shared) -> Remote {
        let (live, is_up, lost) = (Mutex::new(None), AtomicBool::new(false), Notify::new());
        Remote { target, key, shared, live, is_up, lost, settle: redis::Script::new(SETTLE) }
    }

    /// Asks Redis. `cost` is told to a script that reserves; `mending` is empty, or what [`super::script::mending`] made.
    ///
    /// # Errors
    /// See [`Fault`]; it has been counted against the breaker.
    pub async fn decide(
        &self,
        name: Name,
        script: &Script,
        cost: Option<u32>,
        mending: &[u8],
    ) -> Result<(bool, Standings), Fault> {
        let Some(mut live) = self.live() else { return Err(Fault::Away) };
        self.shared.word(Word::Calls).fetch_add(1, SeqCst);
        let key = key_of(live.secret, name);
        let asking = async {
            match ask(&mut live.wire, (script.sha(), script.text()), &key, (cost, mending)).await? {
                Value::BulkString(bytes) => script.reply(&bytes).ok_or_else(no_decision),
                _ => Err(no_decision()),
            }
        };
        self.answered(timeout(Duration::from_millis(ANSWER_MS_MAX), asking).await, live.number)
    }

    /// Puts other counts in the place of reserved ones; `settling` is what [`super::script::settling`] made.
    ///
    /// # Errors
    /// See [`Fault`]; it has been counted against the breaker.
    pub async fn settle(&self, name: Name, settling: &[u8]) -> Result<(), Fault> {
        let Some(mut live) = self.live() else { return Err(Fault::Away) };
        let key = key_of(live.secret, name);
        let asking = ask(&mut live.wire, (self.settle.get_hash(), SETTLE), &key, (None, settling));
        self.answered(timeout(Duration::from_millis(ANSWER_MS_MAX), asking).await, live.number).map(drop)
    }

    fn answered<T>(&self, asked: Result<RedisResult<T>, Elapsed>, number: u64) -> Result<T, Fault> {
        match asked {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                if leaves(&error) {
                    self.drop_live(number);
                }
                Err(self.failed(Fault::Error(error)))
            }
            Err(_) => Err(self.failed(Fault::Late)),
        }
    }

    /// Forgets a client in Redis.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn forget(&self, name: Name) -> Result<(), Fault> {
        let Some(mut live) = self.live() else { return Err(Fault::Away) };
        let mut forget = cmd("DEL");
        forget.arg(key_of(live.secret, name));
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        timeout(limit, live.wire.send(&forget)).await.map_err(|_| Fault::Late)??;
        Ok(())
    }

    /// A client's records whose windows are under way, each with its milliseconds until the end.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn look(&self, name: Name) -> Result<Vec<(Record, u64)>, Fault> {
        let Some(mut live) = self.live() else { return Err(Fault::Away) };
        let mut read = cmd("GET");
        read.arg(key_of(live.secret, name));
        let looking = async {
            let value = live.wire.send(&read).await?;
            let now_ms = match live.wire.send(&cmd("TIME")).await? {
                Value::Array(parts) => epoch_ms(&parts).ok_or((ErrorKind::UnexpectedReturnType, "no time"))?,
                _ => return Err((ErrorKind::UnexpectedReturnType, "no time").into()),
            };
            let Value::BulkString(value) = value else { return Ok(Vec::new()) };
            let under_way = |record: Record| record.reset_ms(now_ms).map(|reset_ms| (record, reset_ms));
            Ok(records(&value).filter_map(under_way).collect())
        };
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        timeout(limit, looking).await.map_err(|_| Fault::Late)?.map_err(Fault::Error)
    }

    /// True while there is a connection.
    pub fn is_up(&self) -> bool {
        self.is_up.load(SeqCst)
    }

    /// Connects, and connects again, for ever. One task a worker runs it.
    pub async fn keep(&self) {
        let mut number = 0;
        loop {
            number += 1;
            if !self.may_connect().await {
                continue;
            }
            match self.connect(number).await {
                Ok(live) => self.up(live).await,
                Err(fault) => {
                    tracing::debug!(?fault, "redis cannot be reached");
                    self.failed(fault);
                    sleep(jittered(WATCH_MS)).await;
                }
            }
        }
    }

    /// Waits until there is a reason to connect: the breaker is closed, or this worker is the one to probe.
    async fn may_connect(&self) -> bool {
        let breaker = self.shared.breaker();
        if !breaker.is_open() || breaker.probe_due(clock::monotonic_ms(), jittered_ms(super::breaker::PROBE_MS)) {
            return true;
        }
        sleep(jittered(WATCH_MS)).await;
        false
    }

    /// Publishes a connection and waits until it is lost, or the breaker opens.
    async fn up(&self, live: Live) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
        self.is_up.store(true, SeqCst);
        let breaker = self.shared.breaker();
        if breaker.close() {
            self.shared.word(Word::Closed).fetch_add(1, SeqCst);
            tracing::info!(target: "security", event = "rate_limit_store_back", "Redis decides about rate limits again");
        }
        let mut look_ms = clock::monotonic_ms() + jittered_ms(LOOK_MS);
        while self.is_up() && !breaker.is_open() {
            let watch = sleep(Duration::from_millis(WATCH_MS));
            tokio::select! { () = self.lost.notified() => {}, () = watch => {} }
            if clock::monotonic_ms() >= look_ms {
                look_ms = clock::monotonic_ms() + jittered_ms(LOOK_MS);
                // Else machines that connect later would count under another secret than this one.
                if lives(&live.wire, &live.life).await == Some(false) {
                    break;
                }
            }
        }
        self.drop_live(live.number);
        self.shared.raise(Word::LostAt, clock::monotonic_ms());
        self.mend_for_a_while();
    }

    async fn connect(&self, number: u64) -> Result<Live, Fault> {
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        let connecting = async {
            let mut wire = Wire::open(&self.target).await?;
            hello(&mut wire, self.settle.get_hash()).await?;
            let lives = of_all(&wire, random_once).await?;
            Ok((wire, lives))
        };
        let (wire, lives) = timeout(limit, connecting).await.map_err(|_| Fault::Late)?.map_err(Fault::Error)?;
        let seed = lives.first().map_or(&[][..], Vec::as_slice);
        let (secret, life) = (secret_of(self.key.as_deref().unwrap_or(seed)), lives.concat());
        self.recognise(&life);
        Ok(Live { wire, secret, life, number })
    }

    /// A life ends with the data: another one means that Redis, or one of its masters, has lost every count.
    fn recognise(&self, life: &[u8]) {
        let life = secret_of(life)[0] | 1;
        let known = self.shared.word(Word::Life).swap(life, SeqCst);
        if known != 0 && known != life {
            self.shared.raise(Word::EmptiedAt, clock::monotonic_ms());
            self.mend_for_a_while();
            tracing::warn!("Redis has lost its counts; the last known ones are put back");
        }
    }

    fn mend_for_a_while(&self) {
        let longest_ms = self.shared.rules.all.iter().map(|limit| limit.window_ms).max().unwrap_or(0);
        self.shared.raise(Word::MendUntil, clock::monotonic_ms() + longest_ms);
    }

    fn failed(&self, fault: Fault) -> Fault {
        self.shared.word(Word::Failures).fetch_add(1, SeqCst);
        if self.shared.breaker().failed(clock::monotonic_ms()) {
            self.shared.word(Word::Opened).fetch_add(1, SeqCst);
            tracing::warn!(target: "security", event = "rate_limit_store_lost", ?fault, "Redis does not decide; this machine does");
        }
        fault
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn drop_live(&self, number: u64) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
            self.is_up.store(false, SeqCst);
            self.lost.notify_one();
        }
    }
}

/// One trip; two when Redis does not know the script.
async fn ask(
    wire: &mut Wire,
    (sha, text): (&str, &str),
    key: &str,
    arguments: (Option<u32>, &[u8]),
) -> RedisResult<Value> {
    match wire.send(&call("EVALSHA", sha, key, arguments)).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            wire.send(&call("EVAL", text, key, arguments)).await
        }
        other => other,
    }
}

fn no_decision() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "not a decision"))
}

fn call(name: &str, script: &str, key: &str, (cost, bytes): (Option<u32>, &[u8])) -> Cmd {
    let mut call = cmd(name);
    call.arg(script).arg(1).arg(key);
    if let Some(cost) = cost {
        call.arg(cost);
    }
    if !bytes.is_empty() {
        call.arg(bytes);
    }
    call
}

/// Writes once, which a replica, a full or a loading server refuses, by a script, too, which not everyone may run.
/// `settle` is the hash of [`SETTLE`], which finds nothing to change there.
async fn hello(wire: &mut Wire, settle: &str) -> RedisResult<()> {
    let mut probe = cmd("SET");
    probe.arg(PROBE_KEY).arg(1).arg("PX").arg(1_000);
    wire.send(&probe).await?;
    ask(wire, (settle, SETTLE), PROBE_KEY, (None, &[])).await.map(drop)
}

/// The keys that end with the data: the seed's, of a cluster one on each master, too.
fn lives_of(wire: &Wire) -> impl Iterator<Item = String> + use<> {
    let spread: &[&str] = if matches!(wire, Wire::Cluster(_)) { &SPREAD } else { &[] };
    std::iter::once(SEED_KEY.to_owned()).chain(spread.iter().map(|tag| format!("{LIFE_KEY}{{{tag}}}")))
}

/// True while the data that `life` was read of are there; nothing when Redis does not say so.
async fn lives(wire: &Wire, life: &[u8]) -> Option<bool> {
    let found = timeout(Duration::from_millis(CONNECT_MS_MAX), of_all(wire, bytes_of)).await.ok()?.ok()?;
    Some(found.concat() == life)
}

/// What is told of each of [`lives_of`], asked at once: one after the other they take longer than a connection may,
/// where a trip takes some milliseconds.
async fn of_all<F>(wire: &Wire, ask: impl Fn(Wire, String) -> F) -> RedisResult<Vec<Vec<u8>>>
where
    F: Future<Output = RedisResult<Vec<u8>>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for (number, key) in lives_of(wire).enumerate() {
        let answer = ask(wire.clone(), key);
        asked.spawn(async move { answer.await.map(|bytes| (number, bytes)) });
    }
    let mut told: Vec<(usize, Vec<u8>)> = asked.join_all().await.into_iter().collect::<RedisResult<_>>()?;
    told.sort();
    Ok(told.into_iter().map(|(_, bytes)| bytes).collect())
}

/// What stands at `key`, nothing when there is no such key. A command that nothing else is asked with.
async fn bytes_of(mut wire: Wire, key: String) -> RedisResult<Vec<u8>> {
    let mut read = cmd("GETRANGE");
    read.arg(key).arg(0).arg(-1);
    match wire.send(&read).await? {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err((ErrorKind::UnexpectedReturnType, "no bytes").into()),
    }
}

/// The random bytes that the first who asks writes to `key`.
async fn random_once(mut wire: Wire, key: String) -> RedisResult<Vec<u8>> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| (ErrorKind::Client, "no randomness"))?;
    let mut write = cmd("SET");
    write.arg(&key).arg(&bytes).arg("NX");
    wire.send(&write).await?;
    let mut read = cmd("GET");
    read.arg(key);
    match wire.send(&read).await? {
        Value::BulkString(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err((ErrorKind::UnexpectedReturnType, "no random bytes").into()),
    }
}

/// What `TIME` says.
fn epoch_ms(parts: &[Value]) -> Option<u64> {
    let mut numbers = parts.iter().map(|part| match part {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    });
    Some(numbers.next()?? * 1000 + numbers.next()?? / 1000)
}

/// Errors after which this connection is of no use: it is broken, or leads to a server that will not count.
fn leaves(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, NoPerm, ReadOnly};
    match error.kind() {
        ErrorKind::Server(ReadOnly | BusyLoading | MasterDown | ClusterDown | NoPerm) => true,
        ErrorKind::Server(_) => false,
        ErrorKind::UnexpectedReturnType => false,
        _ => error.code() != Some("BUSY") && error.code() != Some("OOM"),
    }
}

/// `rl:1:` and 128 bits of the client's keyed hash: no address stands in Redis.
fn key_of(secret: [u64; 2], name: Name) -> String {
    let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
    let (bytes, length) = name.bytes();
    hasher.write(&bytes[..length]);
    let mut key = String::with_capacity(PREFIX.len() + 22);
    key.push_str(PREFIX);
    // Six bits a character: a million keys are 15 MiB shorter than in hexadecimal.
    let bits = hasher.finish128().as_u128();
    key.extend((0..22).map(|sextet| char::from(ALPHABET[(bits >> (6 * sextet)) as usize & 63])));
    key
}

/// 128 bits of any secret.
fn secret_of(text: &[u8]) -> [u64; 2] {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(text);
    let bits = hasher.finish128();
    [bits.h1, bits.h2]
}

/// A fifth more or less, so that workers do not come in step.
fn jittered_ms(ms: u64) -> u64 {
    ms * 4 / 5 + getrandom::u64().unwrap_or(0) % (ms * 2 / 5).max(1)
}

fn jittered(ms: u64) -> Duration {
    Duration::from_millis(jittered_ms(ms))
}
