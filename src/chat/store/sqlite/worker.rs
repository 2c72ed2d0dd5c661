//! One thread with one connection; what waits is committed together.

use super::schema;
use crate::chat::store::{CALL_LIMIT, StoreError};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Calls that wait at most.
const QUEUE_MAX: usize = 256;
/// Calls that one commit holds at most.
const GROUP_MAX: usize = 128;

/// Tells the caller, once the commit's fate is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A call: its work inside the transaction, whose failure is undone alone, and its answer.
type Work = Box<dyn FnOnce(&Connection) -> (bool, Answer) + Send>;

/// A handle to the thread.
pub struct Worker {
    queue: Mutex<Option<SyncSender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Opens a connection and starts the thread.
    pub fn start(name: &str, path: &Path, writes: bool) -> Result<Worker, StoreError> {
        let connection = schema::open(path)?;
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        let thread = Thread { path: path.to_owned(), connection: Some(connection), waiting, writes };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || thread.run());
        let thread = spawned.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Worker { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    /// Does `work` on the connection and returns its value after the commit.
    pub async fn call<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.send(work, |result| {
            let _ = sender.send(result);
        })?;
        match tokio::time::timeout(CALL_LIMIT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Failed("the store's thread ended".to_owned())),
            Err(_) => Err(StoreError::Busy),
        }
    }

    /// The same without waiting; `answer` is called on the store's thread.
    pub fn send<T, W, A>(&self, work: W, answer: A) -> Result<(), StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let job: Work = Box::new(move |connection| {
            let result = work(connection);
            let ok = result.is_ok();
            (ok, Box::new(move |committed: Result<(), StoreError>| answer(committed.and(result))))
        });
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.as_ref().map(|queue| queue.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(StoreError::Overloaded),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err(StoreError::Failed("the store is closed".to_owned()))
            }
        }
    }

    /// Ends the thread when it has done what waits.
    pub fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    path: PathBuf,
    connection: Option<Connection>,
    waiting: Receiver<Work>,
    writes: bool,
}

impl Thread {
    fn run(mut self) {
        while let Ok(first) = self.waiting.recv() {
            let mut group = vec![first];
            group.extend(self.waiting.try_iter().take(GROUP_MAX - 1));
            self.commit(group);
        }
    }

    fn commit(&mut self, mut group: Vec<Work>) {
        if self.connection.is_none() {
            match schema::open(&self.path) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return answer(refuse(group), Err(error)),
            }
        }
        let Some(connection) = &self.connection else { return };
        let (answers, result) = match self.writes {
            true => write(connection, &mut group, &self.waiting),
            false => (group.into_iter().map(|work| work(connection).1).collect(), Ok(())),
        };
        // A connection that met a broken file or disk is made anew: what was mended outside works again by itself.
        if matches!(result, Err(StoreError::Corrupt(_) | StoreError::Full | StoreError::Failed(_))) {
            self.connection = None;
        }
        answer(answers, result);
    }
}

fn answer(answers: Vec<Answer>, result: Result<(), StoreError>) {
    answers.into_iter().for_each(|answer| answer(result.clone()));
}

/// Answers for work that could not be tried: each is called with the group's error.
fn refuse(group: Vec<Work>) -> Vec<Answer> {
    // Work on an empty database in memory fails by itself, and keeps its answer's type.
    match Connection::open_in_memory() {
        Ok(nothing) => group.into_iter().map(|work| work(&nothing).1).collect(),
        Err(_) => Vec::new(),
    }
}

/// Commits the group, and what came while the lock was waited for.
fn write(
    connection: &Connection,
    group: &mut Vec<Work>,
    waiting: &Receiver<Work>,
) -> (Vec<Answer>, Result<(), StoreError>) {
    if let Err(error) = run(connection, "BEGIN IMMEDIATE") {
        return (refuse(std::mem::take(group)), Err(error));
    }
    group.extend(waiting.try_iter().take(GROUP_MAX.saturating_sub(group.len())));
    let answers = group.drain(..).map(|work| alone(connection, work)).collect();
    let committed = run(connection, "COMMIT");
    if committed.is_err() {
        let _ = run(connection, "ROLLBACK");
    }
    (answers, committed)
}

/// One call inside the group's transaction; its failure undoes its own work only.
fn alone(connection: &Connection, work: Work) -> Answer {
    let _ = run(connection, "SAVEPOINT call");
    let (ok, answer) = work(connection);
    if !ok {
        let _ = run(connection, "ROLLBACK TO call");
    }
    let _ = run(connection, "RELEASE call");
    answer
}

/// A word that is parsed once.
fn run(connection: &Connection, word: &str) -> Result<(), StoreError> {
    connection.prepare_cached(word)?.execute([])?;
    Ok(())
}
