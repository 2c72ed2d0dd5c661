//! A reply that is passed on as it comes. What `/v1` reads.
//!
//! A stream needs no task and no queue: the response's body polls the upstream's, so a slow reader slows the upstream,
//! and a reader that leaves drops it.

use super::super::admission::Place;
use super::super::error::Error;
use super::Answer;
use super::events::{Events, Passed};
use super::line::Body;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Silence after which a comment shows proxies that the connection lives (`API.md`).
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Most bytes of a stream, about 300,000 tokens: an upstream that never ends is cut.
const STREAM_BYTES_MAX: usize = 64 << 20;
/// How long the end of a body may follow its last event, for the sake of the connection.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Turns true when everything has to end.
pub type Ending = watch::Receiver<bool>;

/// What an upstream answered.
pub enum Relayed {
    /// JSON, in one piece.
    Whole(Bytes),
    /// Events.
    Stream(Box<Relay>),
}

impl Relayed {
    /// A stream holds its place until it ends.
    pub fn holding(mut self, place: Place) -> Relayed {
        if let Relayed::Stream(relay) = &mut self {
            relay.place = Some(place);
        }
        self
    }
}

/// An event stream on its way.
pub struct Relay {
    body: Option<Body>,
    events: Events,
    first: Option<Bytes>,
    failure: Option<Error>,
    bytes: usize,
    idle: Duration,
    deadline: Instant,
    /// When the upstream last sent something, and when we did.
    heard: Instant,
    spoke: Instant,
    begun: bool,
    place: Option<Place>,
    timer: Pin<Box<Sleep>>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Relay {
    /// Waits for the first event: until then another upstream may still be asked.
    pub(super) async fn begin(
        answer: Answer,
        idle: Duration,
        deadline: Instant,
        mut ending: Ending,
    ) -> Result<Box<Relay>, Error> {
        let now = Instant::now();
        let mut relay = Box::new(Relay {
            body: Some(answer.body),
            events: Events::default(),
            first: None,
            failure: None,
            bytes: 0,
            idle: answer.until.saturating_duration_since(now),
            deadline,
            heard: now,
            spoke: now,
            begun: false,
            place: None,
            timer: Box::pin(sleep_until(answer.until)),
            ended: Box::pin(async move {
                let _ = ending.wait_for(|ending| *ending).await;
            }),
        });
        relay.first = poll_fn(|context| relay.poll_next(context)).await.transpose()?;
        (relay.idle, relay.begun) = (idle, true);
        // It stands at the first token's limit, which may be later than all that counts from now on.
        let next = relay.next_look();
        relay.timer.as_mut().reset(next);
        Ok(relay)
    }

    /// The next whole events, or a comment; `None` at the end.
    ///
    /// # Errors
    /// A limit passed, the connection broke, the upstream sent an error or nonsense. The last that comes.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(failure) = self.failure.take() {
            self.body = None;
            return Poll::Ready(Some(Err(failure)));
        }
        if self.events.done() {
            self.let_connection_be_kept(context);
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let Poll::Ready(data) = body.poll_data(context) else { return self.wait(context) };
            let next = match data {
                Some(Ok(data)) => match self.take(data) {
                    Some(next) => next,
                    None => continue,
                },
                Some(Err(broken)) => Err(Error::Upstream(format!("the stream broke: {broken}"))),
                None => self.end(),
            };
            if next.is_err() {
                self.body = None;
            }
            return Poll::Ready(Some(next));
        }
    }

    /// `None`: no event is whole yet.
    fn take(&mut self, bytes: Bytes) -> Option<Result<Bytes, Error>> {
        self.bytes += bytes.len();
        let Passed { bytes, failure } = self.events.take(bytes);
        let endless = || (self.bytes > STREAM_BYTES_MAX).then(|| Error::Upstream("the reply does not end".to_owned()));
        self.heard = Instant::now();
        // A stream that never pauses never waits for the timer.
        let late = || (self.heard >= self.deadline).then_some(Error::Timeout("the request"));
        self.failure = failure.or_else(endless).or_else(late);
        match (bytes.is_empty(), self.failure.take()) {
            (true, None) => None,
            (true, Some(failure)) => Some(Err(failure)),
            (false, failure) => {
                self.failure = failure;
                self.spoke = self.heard;
                Some(Ok(bytes))
            }
        }
    }

    /// The upstream has ended its body without a last event.
    fn end(&mut self) -> Result<Bytes, Error> {
        self.body = None;
        match self.events.finished() {
            true => Ok(Bytes::from_static(b"data: [DONE]\n\n")),
            false => Err(Error::Upstream("the stream ended in the middle of a reply".to_owned())),
        }
    }

    /// A connection whose body is not read to its end would be closed; nobody waits for that end.
    fn let_connection_be_kept(&mut self, context: &mut Context<'_>) {
        if let Some(mut body) = self.body.take()
            && body.poll_data(context).is_pending()
        {
            tokio::spawn(timeout(END_LIMIT, async move { body.data().await.is_some() }));
        }
    }

    /// Nothing has come: is it time for something?
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return self.give_up(Error::Stopping);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            if now >= self.deadline {
                return self.give_up(Error::Timeout("the request"));
            }
            if now >= self.heard + self.idle {
                return self.give_up(Error::Timeout("the upstream's next token"));
            }
            let quiet = self.begun && now >= self.spoke + KEEP_ALIVE;
            if quiet {
                self.spoke = now;
            }
            let next = self.next_look();
            self.timer.as_mut().reset(next);
            if quiet {
                return Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))));
            }
        }
    }

    /// When something is due next, if nothing comes.
    fn next_look(&self) -> Instant {
        let limit = self.deadline.min(self.heard + self.idle);
        if self.begun { limit.min(self.spoke + KEEP_ALIVE) } else { limit }
    }

    fn give_up(&mut self, failure: Error) -> Poll<Option<Result<Bytes, Error>>> {
        self.body = None;
        Poll::Ready(Some(Err(failure)))
    }
}

/// An answer in one piece, which must be a completion.
pub(super) async fn whole(answer: Answer) -> Result<Bytes, Error> {
    let bytes = answer.collect().await?;
    match serde_json::from_slice::<Seen>(&bytes) {
        // serde would read an array's items as the fields.
        Ok(_) if bytes.trim_ascii_start().starts_with(b"{") => Ok(bytes),
        _ => Err(Error::Upstream("its answer is not a chat completion".to_owned())),
    }
}

/// What a completion must have.
#[derive(Deserialize)]
struct Seen {
    #[serde(rename = "choices")]
    _choices: IgnoredAny,
}
