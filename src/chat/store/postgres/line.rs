//! One connection: takes what waits, commits it together, connects again when it breaks.

use super::schema::{self, Statements};
use super::tls::{Stream, Tls};
use super::{Standing, Target, failure};
use crate::chat::session::{Mode, TURNS_BYTES_MAX, TURNS_MAX};
use crate::chat::store::{Begun, Named, Outcome, PURGE_MAX, StoreError, StoredTurn, TurnId, lost};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Connection, Row, Socket};

/// Calls that one commit holds at most.
const GROUP_MAX: usize = 64;
/// A connection that does not answer a group in this time is given up; the statements' own limit is shorter.
const GROUP_LIMIT: Duration = Duration::from_millis(1_900);
/// Longest for a server to greet.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest for a new connection to be ready for work.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts to connect: the first pause, doubling to the last.
const PAUSE_MS: [u64; 2] = [50, 1_000];

/// What a caller wants. It may be done twice when a connection breaks between a commit and its answer; doing it twice
/// leaves at most a turn that was begun and never ended.
pub enum Ask {
    Begin { session: Named, message: String, user_id: String, mode: Option<Mode> },
    Finish { turn: TurnId, reply: String, outcome: Outcome },
    Mode { session: Named },
    SetMode { session: Named, mode: Mode },
    Purge { idle_ms: i64 },
    Probe,
}

/// What it gets.
pub enum Answer {
    Begun(Box<Begun>),
    Mode(Option<Mode>),
    Count(u64),
    Done,
}

/// Who waits.
pub enum Answering {
    Caller(oneshot::Sender<Result<Answer, StoreError>>),
    /// Nobody: a failure is logged.
    Log,
}

/// A call on its way.
pub struct Job {
    pub ask: Ask,
    pub answering: Answering,
    pub until: Instant,
}

impl Job {
    fn answer(self, result: Result<Answer, StoreError>) {
        match self.answering {
            Answering::Caller(sender) => drop(sender.send(result)),
            Answering::Log => lost(result.and_then(|answer| match answer {
                Answer::Count(0) => Err(StoreError::Gone),
                _ => Ok(()),
            })),
        }
    }

    /// True when nobody would learn of it and nothing would be lost.
    fn is_abandoned(&self) -> bool {
        match &self.answering {
            Answering::Caller(sender) => sender.is_closed() && !matches!(self.ask, Ask::Finish { .. }),
            Answering::Log => false,
        }
    }

    /// Where its row's lock comes in the order in which everybody takes them.
    fn rank(&self) -> Option<(&str, &[u8])> {
        match &self.ask {
            Ask::Begin { session, .. } | Ask::SetMode { session, .. } => Some((&session.name, &session.principal)),
            _ => None,
        }
    }
}

/// A server that speaks.
pub async fn connect(target: &Target) -> Result<(Client, Connection<Socket, Stream<Socket>>), StoreError> {
    let connected = timeout(CONNECT_LIMIT, target.config.connect::<Tls>(target.tls.clone())).await;
    let late = |_| StoreError::Away("no answer in time".to_owned());
    connected.map_err(late)?.map_err(|error| failure(&error))
}

/// One connection's life.
pub struct Line {
    number: usize,
    target: Target,
    waiting: Arc<Mutex<mpsc::Receiver<Job>>>,
    standing: Arc<Standing>,
    closing: watch::Receiver<bool>,
    /// What was taken and is not answered.
    taken: Vec<Job>,
    /// The last connection was good for something.
    worked: bool,
}

/// A connection that is ready for work.
struct Open {
    client: Client,
    statements: Statements,
    driving: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Line {
    pub fn new(
        number: usize,
        target: Target,
        waiting: Arc<Mutex<mpsc::Receiver<Job>>>,
        standing: Arc<Standing>,
        closing: watch::Receiver<bool>,
    ) -> Line {
        Line { number, target, waiting, standing, closing, taken: Vec::new(), worked: true }
    }

    /// Until the store is closed.
    pub async fn run(mut self) {
        while let Some(mut open) = self.connected().await {
            self.standing.up();
            let ended = self.serve(&mut open).await;
            self.standing.down();
            if ended {
                break;
            }
        }
        for job in self.taken.drain(..) {
            job.answer(Err(StoreError::Busy));
        }
    }

    /// Tries until there is a connection; `None` when the store is closed meanwhile.
    async fn connected(&mut self) -> Option<Open> {
        let (mut pause_ms, mut told) = (PAUSE_MS[0], false);
        // One that opens and then refuses all work is not asked again and again without a pause.
        let mut now = std::mem::replace(&mut self.worked, false);
        loop {
            if !std::mem::replace(&mut now, false) {
                tokio::select! {
                    _ = self.closing.wait_for(|closing| *closing) => return None,
                    () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                }
                pause_ms = (pause_ms * 2).min(PAUSE_MS[1]);
            }
            let late = StoreError::Away("no answer in time".to_owned());
            match timeout(READY_LIMIT, self.open()).await.unwrap_or(Err(late)) {
                Ok(open) => {
                    if told && self.number == 0 {
                        tracing::info!("the session store is back");
                    }
                    return Some(open);
                }
                Err(error) => {
                    self.standing.refused(&error);
                    if !std::mem::replace(&mut told, true) && self.number == 0 {
                        tracing::error!(reason = %error, "the session store is away");
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Open, StoreError> {
        let (mut client, connection) = connect(&self.target).await?;
        let driving = tokio::spawn(connection);
        let ready = async {
            schema::update(&mut client).await?;
            client.batch_execute(schema::LIMITS).await.map_err(|error| failure(&error))?;
            let statements = Statements::prepare(&client).await.map_err(|error| failure(&error))?;
            probe(&client, &statements).await.map(|_| statements)
        };
        match ready.await {
            Ok(statements) => Ok(Open { client, statements, driving }),
            Err(error) => {
                driving.abort();
                Err(error)
            }
        }
    }

    /// Works until the connection breaks (false) or the store is closed (true).
    async fn serve(&mut self, open: &mut Open) -> bool {
        loop {
            if self.taken.is_empty() && !self.take(open).await {
                return !open.driving.is_finished();
            }
            let now = Instant::now();
            let late = self.taken.extract_if(.., |job| job.until <= now || job.is_abandoned());
            late.for_each(|job| job.answer(Err(StoreError::Busy)));
            // Everybody locks sessions in one order, so that no two wait for each other.
            self.taken.sort_by(|one, other| one.rank().cmp(&other.rank()));
            let results = timeout(GROUP_LIMIT, open.group(&self.taken)).await;
            let Ok(Some(results)) = results else { return false };
            self.worked = true;
            self.taken.drain(..).zip(results).for_each(|(job, result)| job.answer(result));
        }
    }

    /// Waits for work; false when there is no connection or no more work to come.
    async fn take(&mut self, open: &mut Open) -> bool {
        let next = async { self.waiting.lock().await.recv_many(&mut self.taken, GROUP_MAX).await };
        tokio::select! {
            biased;
            _ = &mut open.driving => false,
            taken = next => taken > 0,
        }
    }
}

type Doing<'a> = Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send + 'a>>;

impl Open {
    /// Does all of it in one transaction; when one fails, each by itself, so that the others are left alone. `None`:
    /// the connection is of no use, and what was not answered has to be done again.
    async fn group(&self, jobs: &[Job]) -> Option<Vec<Result<Answer, StoreError>>> {
        if jobs.len() > 1 {
            let each = jobs.iter().map(|job| self.one(&job.ask));
            let all = std::iter::once(self.word("BEGIN")).chain(each).chain([self.word("COMMIT")]);
            let mut done = in_order(all.collect()).await;
            if done.iter().all(Result::is_ok) {
                done.pop();
                return Some(done.into_iter().skip(1).collect());
            }
        }
        if self.client.is_closed() {
            return None;
        }
        let done = in_order(jobs.iter().map(|job| self.one(&job.ask)).collect()).await;
        let away = done.iter().any(|result| matches!(result, Err(StoreError::Away(_))));
        (!away).then_some(done)
    }

    fn word(&self, word: &'static str) -> Doing<'_> {
        Box::pin(async move {
            let done = self.client.batch_execute(word).await;
            done.map(|()| Answer::Done).map_err(|error| failure(&error))
        })
    }

    /// The request is sent when this is polled first.
    fn one<'a>(&'a self, ask: &'a Ask) -> Doing<'a> {
        let (client, with) = (&self.client, &self.statements);
        match ask {
            Ask::Begin { session, message, user_id, mode } => Box::pin(begin(self, session, message, user_id, *mode)),
            Ask::Finish { turn, reply, outcome } => Box::pin(async move {
                let state = outcome.as_str();
                let done = client.execute(&with.finish, &[&turn.id, &turn.session, reply, &state]).await;
                done.map(Answer::Count).map_err(|error| failure(&error))
            }),
            Ask::Mode { session } => Box::pin(async move {
                let row = client.query_opt(&with.mode, &[&session.name, &session.principal]).await;
                let row = row.map_err(|error| failure(&error))?;
                Ok(Answer::Mode(row.and_then(|row| row.get::<_, &str>(0).parse().ok())))
            }),
            Ask::SetMode { session, mode } => Box::pin(async move {
                let (user, mode) = ("anonymous", Some(mode.as_str()));
                let done = client.query(&with.set_mode, &[&session.name, &session.principal, &user, &mode]).await;
                done.map(|_| Answer::Done).map_err(|error| failure(&error))
            }),
            Ask::Purge { idle_ms } => Box::pin(async move {
                let done = client.execute(&with.purge, &[idle_ms, &PURGE_MAX]).await;
                done.map(Answer::Count).map_err(|error| failure(&error))
            }),
            Ask::Probe => Box::pin(probe(client, with)),
        }
    }
}

async fn begin(
    open: &Open,
    session: &Named,
    message: &str,
    user_id: &str,
    mode: Option<Mode>,
) -> Result<Answer, StoreError> {
    let Named { name, principal } = session;
    let mode = mode.map(Mode::as_str);
    let (rows_max, bytes_max) = (TURNS_MAX as i64, TURNS_BYTES_MAX as i64);
    let parameters: [&(dyn ToSql + Sync); 7] = [name, principal, &user_id, &mode, &message, &rows_max, &bytes_max];
    let rows = open.client.query(&open.statements.begin, &parameters).await.map_err(|error| failure(&error))?;
    // No row: the session was deleted in the very moment.
    let first = rows.first().ok_or(StoreError::Busy)?;
    Ok(Answer::Begun(Box::new(Begun {
        session_id: name.clone(),
        turn: TurnId { id: first.get(2), session: first.get(0), created_ms: 0 },
        mode: first.get::<_, &str>(1).parse().unwrap_or_default(),
        turns: rows.iter().filter_map(past).collect(),
    })))
}

fn past(row: &Row) -> Option<StoredTurn> {
    Some(StoredTurn { user: row.get::<_, Option<String>>(3)?, assistant: row.get::<_, Option<String>>(4)? })
}

/// A server that only reads is of no use: there may be another behind the same name.
async fn probe(client: &Client, with: &Statements) -> Result<Answer, StoreError> {
    let row = client.query_one(&with.probe, &[]).await.map_err(|error| failure(&error))?;
    match row.get(0) {
        true => Err(StoreError::Away("the server is read-only".to_owned())),
        false => Ok(Answer::Done),
    }
}

/// Polls all in their order, so that their requests go out in it, and waits for the last.
async fn in_order(mut doing: Vec<Doing<'_>>) -> Vec<Result<Answer, StoreError>> {
    let mut done: Vec<Option<Result<Answer, StoreError>>> = doing.iter().map(|_| None).collect();
    poll_fn(move |context| {
        let open = doing.iter_mut().zip(&mut done).filter(|(_, result)| result.is_none());
        let waiting = open.fold(false, |waiting, (future, result)| match future.as_mut().poll(context) {
            Poll::Ready(ready) => {
                *result = Some(ready);
                waiting
            }
            Poll::Pending => true,
        });
        if waiting { Poll::Pending } else { Poll::Ready(done.drain(..).flatten().collect()) }
    })
    .await
}
