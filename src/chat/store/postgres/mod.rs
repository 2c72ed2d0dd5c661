//! PostgreSQL: one thread a worker with two connections, made after the fork; commits in groups.
//!
//! ```text
//! calls ─▶ queue ─┬─▶ line: BEGIN, all that waits, COMMIT, sent as one ─▶ answers
//!                 └─▶ line (works while the other one's commit is on its way to the disk)
//! ```
//! A line whose connection breaks connects again and repeats what was not answered, while its callers still wait. In
//! the first [`CALL_LIMIT`] of an outage calls wait for its end; after that they are refused at once.

mod desk;
mod line;
pub mod schema;
mod target;
mod tls;

pub use desk::Desk;
pub use target::{Target, is_url};

use super::{Begun, CALL_LIMIT, Named, Outcome, StoreError, TurnId, lost, millis};
use crate::chat::session::Mode;
use crate::sys::clock;
use line::{Answer, Answering, Ask, Job, Line};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

/// A turn's end that nobody waits for is tried for so long.
const DETACHED_LIMIT: Duration = Duration::from_secs(10);
/// Calls that wait at most.
const QUEUE_MAX: usize = 512;
/// Connections of a worker: one more than what is needed to keep a server busy that commits to a disk.
const LINES: usize = 2;

/// What a failure of the server or of the way to it means.
fn failure(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        return StoreError::Away(format!("{error}{cause}"));
    };
    let said = error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned());
    let text = format!("{said} ({})", code.code());
    match (code.code().get(..2).unwrap_or_default(), code) {
        (_, &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE) | ("40", _) => StoreError::Busy,
        (_, &SqlState::DISK_FULL) => StoreError::Full,
        (_, &SqlState::TOO_MANY_CONNECTIONS | &SqlState::READ_ONLY_SQL_TRANSACTION) | ("08" | "57", _) => {
            StoreError::Away(text)
        }
        ("28" | "3D", _) => StoreError::Unusable(text),
        ("XX", _) => StoreError::Corrupt(text),
        _ => StoreError::Failed(text),
    }
}

/// Brings the schema up to date, from a process without a runtime.
pub(super) fn migrate(target: &Target) -> Result<i64, StoreError> {
    alone(async {
        let (mut client, connection) = line::connect(target).await?;
        let driving = tokio::spawn(connection);
        let migrated = schema::update(&mut client).await;
        driving.abort();
        migrated
    })?
}

/// Runs it on a runtime of its own.
pub(super) fn alone<T>(work: impl Future<Output = T>) -> Result<T, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| StoreError::Failed(error.to_string()))?.block_on(work))
}

/// How the lines stand; everybody looks.
struct Standing {
    connected: AtomicUsize,
    /// Since when there is no connection, on the monotonic clock in milliseconds.
    away_since_ms: AtomicU64,
    reason: Mutex<StoreError>,
}

impl Standing {
    fn new() -> Standing {
        Standing {
            connected: AtomicUsize::new(0),
            away_since_ms: AtomicU64::new(clock::monotonic_ms()),
            reason: Mutex::new(StoreError::Busy),
        }
    }

    /// Refuses when there has been no connection for so long that waiting is no use.
    fn check(&self) -> Result<(), StoreError> {
        let away_ms = clock::monotonic_ms().saturating_sub(self.away_since_ms.load(Relaxed));
        match self.connected.load(Relaxed) == 0 && u128::from(away_ms) >= CALL_LIMIT.as_millis() {
            true => Err(self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            false => Ok(()),
        }
    }

    fn up(&self) {
        self.connected.fetch_add(1, Relaxed);
    }

    fn down(&self) {
        if self.connected.fetch_sub(1, Relaxed) == 1 {
            self.away_since_ms.store(clock::monotonic_ms(), Relaxed);
        }
    }

    fn refused(&self, reason: &StoreError) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.clone();
    }
}

/// One worker's way to the database. A copy is another handle.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    closing: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    standing: Arc<Standing>,
    ttl: Duration,
}

impl Postgres {
    pub(super) fn open(target: &Target, ttl: Duration) -> Result<Postgres, StoreError> {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        let closing = watch::Sender::new(false);
        let standing = Arc::new(Standing::new());
        let line = |number| Line::new(number, target.clone(), waiting.clone(), standing.clone(), closing.subscribe());
        let lines: [Line; LINES] = std::array::from_fn(line);
        let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let [one, two] = lines;
            if let Err(error) = alone(async { tokio::join!(one.run(), two.run()) }) {
                tracing::error!(%error, "the session store has no runtime");
            }
        });
        let thread = spawned.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Postgres(Arc::new(Inner {
            queue: Mutex::new(Some(queue)),
            closing,
            thread: Mutex::new(Some(thread)),
            standing,
            ttl,
        })))
    }

    pub(super) async fn begin(
        &self,
        session: Named,
        message: String,
        user_id: String,
        mode: Option<Mode>,
    ) -> Result<Begun, StoreError> {
        let ask = Ask::Begin { session, message: storable(message), user_id: storable(user_id), mode };
        match self.call(ask).await? {
            Answer::Begun(begun) => Ok(*begun),
            _ => Err(StoreError::Busy),
        }
    }

    pub(super) async fn finish(&self, turn: TurnId, reply: String, outcome: Outcome) -> Result<(), StoreError> {
        match self.call(Ask::Finish { turn, reply: storable(reply), outcome }).await? {
            Answer::Count(0) => Err(StoreError::Gone),
            _ => Ok(()),
        }
    }

    pub(super) fn finish_detached(&self, turn: TurnId, reply: String, outcome: Outcome) {
        lost(self.send(Ask::Finish { turn, reply: storable(reply), outcome }, Answering::Log));
    }

    pub(super) async fn mode(&self, session: Named) -> Result<Mode, StoreError> {
        match self.call(Ask::Mode { session }).await? {
            Answer::Mode(mode) => Ok(mode.unwrap_or_default()),
            _ => Err(StoreError::Busy),
        }
    }

    pub(super) async fn set_mode(&self, session: Named, mode: Mode) -> Result<(), StoreError> {
        self.call(Ask::SetMode { session, mode }).await.map(|_| ())
    }

    pub(super) async fn purge(&self) -> Result<usize, StoreError> {
        match self.call(Ask::Purge { idle_ms: millis(self.0.ttl) }).await? {
            Answer::Count(count) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => Ok(0),
        }
    }

    pub(super) async fn health(&self) -> Result<(), StoreError> {
        self.call(Ask::Probe).await.map(|_| ())
    }

    /// Ends the thread when what waits is done; at once when the server is away.
    pub(super) fn close(&self) {
        drop(self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.0.closing.send(true);
        if let Some(thread) = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    async fn call(&self, ask: Ask) -> Result<Answer, StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.send(ask, Answering::Caller(sender))?;
        match tokio::time::timeout(CALL_LIMIT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Failed("the store is closed".to_owned())),
            Err(_) => Err(self.0.standing.check().err().unwrap_or(StoreError::Busy)),
        }
    }

    fn send(&self, ask: Ask, answering: Answering) -> Result<(), StoreError> {
        self.0.standing.check()?;
        let limit = if matches!(answering, Answering::Log) { DETACHED_LIMIT } else { CALL_LIMIT };
        let job = Job { ask, answering, until: Instant::now() + limit };
        let queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || StoreError::Failed("the store is closed".to_owned());
        queue.as_ref().ok_or_else(closed)?.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Closed(_) => closed(),
        })
    }
}

/// PostgreSQL's text holds every character but NUL.
fn storable(text: String) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\u{fffd}"),
        false => text,
    }
}
