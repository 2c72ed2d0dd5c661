//! A reply taken apart: text, reasoning, counts. What `/api` reads.

use super::super::error::Error;
use super::super::wire::{Chunk, Completion, ErrorBody, Usage};
use super::line::Body;
use super::{ANSWER_BYTES_MAX, Answer, sse};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest reply text in bytes: an upstream that never ends is cut.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// How long the end of a body may follow its last event.
const END_LIMIT: Duration = Duration::from_millis(20);

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text to append.
    Text(String),
    /// The model's own reasoning.
    Reasoning(String),
    /// The server's count.
    Usage(Usage),
    /// Why it ended.
    Finish(String),
}

/// A reply as it arrives.
pub struct Stream {
    body: Option<Body>,
    parser: sse::Parser,
    pieces: VecDeque<Piece>,
    idle: Duration,
    until: Instant,
    deadline: Instant,
    reply_bytes: usize,
    model: Option<String>,
    finished: bool,
    done: bool,
}

impl Stream {
    /// Waits for the first piece: until then another upstream may still be asked.
    pub(super) async fn begin(answer: Answer, idle: Duration, deadline: Instant) -> Result<Stream, Error> {
        let streamed = answer.is_stream();
        let mut stream = Stream {
            body: Some(answer.body),
            parser: sse::Parser::default(),
            pieces: VecDeque::new(),
            idle,
            until: answer.until,
            deadline,
            reply_bytes: 0,
            model: None,
            finished: false,
            done: false,
        };
        if !streamed {
            stream.take_whole().await?;
        }
        let first = stream.next().await?;
        if let Some(first) = first {
            stream.pieces.push_front(first);
        }
        Ok(stream)
    }

    /// The next piece; `None` when the reply is whole.
    ///
    /// # Errors
    /// A limit passed, the connection broke, the upstream sent an error or nonsense.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            if self.done {
                self.let_connection_be_kept().await;
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match timeout_at(self.until, body.data()).await {
                Err(_) => return Err(self.late()),
                Ok(Some(Ok(data))) => self.take(data)?,
                Ok(Some(Err(broken))) => return Err(Error::Upstream(format!("the stream broke: {broken}"))),
                Ok(None) if self.finished => self.body = None,
                Ok(None) => return Err(Error::Upstream("the stream ended in the middle of a reply".to_owned())),
            }
        }
    }

    /// Reads the end of a body whose last event was seen: a connection that is dropped before it is closed. A server
    /// that does not end its body is not waited for.
    async fn let_connection_be_kept(&mut self) {
        if let Some(mut body) = self.body.take() {
            let _ = timeout_at(Instant::now() + END_LIMIT, body.data()).await;
        }
    }

    /// The model that answers, once it has said so.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn late(&self) -> Error {
        match Instant::now() >= self.deadline {
            true => Error::Timeout("the request"),
            false => Error::Timeout("the upstream's next token"),
        }
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.until = self.deadline.min(Instant::now() + self.idle);
        let mut parser = std::mem::take(&mut self.parser);
        let mut taken = Ok(());
        let fed = parser.feed(&bytes, |event| {
            if taken.is_ok() {
                taken = self.take_event(&event);
            }
        });
        self.parser = parser;
        fed.map_err(|_| Error::Upstream("an event is longer than 1 MiB".to_owned()))?;
        taken
    }

    fn take_event(&mut self, event: &sse::Event) -> Result<(), Error> {
        if event.data == "[DONE]" {
            self.finished = true;
            self.done = true;
            return Ok(());
        }
        if let Ok(body) = serde_json::from_str::<ErrorBody>(&event.data) {
            let code = body.error.code.unwrap_or(body.error.kind);
            return Err(Error::Upstream(format!("it sent an error event: {code}")));
        }
        let chunk: Chunk =
            serde_json::from_str(&event.data).map_err(|_| Error::Upstream("an event is not a chunk".to_owned()))?;
        self.take_chunk(chunk)
    }

    fn take_chunk(&mut self, chunk: Chunk) -> Result<(), Error> {
        if self.model.is_none() && !chunk.model.is_empty() {
            self.model = Some(chunk.model);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.push(choice.delta.reasoning_content.map(Piece::Reasoning))?;
            self.push(choice.delta.content.map(Piece::Text))?;
            if let Some(reason) = choice.finish_reason {
                self.finished = true;
                self.pieces.push_back(Piece::Finish(reason));
            }
        }
        self.pieces.extend(chunk.usage.map(Piece::Usage));
        Ok(())
    }

    fn push(&mut self, piece: Option<Piece>) -> Result<(), Error> {
        let (Some(Piece::Text(text)) | Some(Piece::Reasoning(text))) = &piece else { return Ok(()) };
        if text.is_empty() {
            return Ok(());
        }
        self.reply_bytes += text.len();
        if self.reply_bytes > REPLY_BYTES_MAX {
            return Err(Error::Upstream("the reply does not end".to_owned()));
        }
        self.pieces.extend(piece);
        Ok(())
    }

    /// A server that does not stream answers in one piece.
    async fn take_whole(&mut self) -> Result<(), Error> {
        let Some(body) = self.body.take() else { return Ok(()) };
        let collected = timeout_at(self.until, body.whole(ANSWER_BYTES_MAX)).await;
        let whole = collected.map_err(|_| self.late())?;
        let bytes = whole.map_err(|broken| Error::Upstream(format!("its answer broke: {broken}")))?;
        let answer: Completion = serde_json::from_slice(&bytes)
            .map_err(|_| Error::Upstream("its answer is not a chat completion".to_owned()))?;
        self.model = Some(answer.model);
        if let Some(choice) = answer.choices.into_iter().next() {
            let text = choice.message.text();
            self.push(choice.message.reasoning_content.map(Piece::Reasoning))?;
            self.push(Some(Piece::Text(text)))?;
            self.pieces.extend(choice.finish_reason.map(Piece::Finish));
        }
        self.pieces.extend(answer.usage.map(Piece::Usage));
        self.finished = true;
        Ok(())
    }
}
