//! Continuous batching: one thread, one step after the other, every request that runs in each.
//!
//! ```text
//! inbox -> waiting -> slot: prompt in chunks -> a token a step -> end
//!                      ^ prefix cache stays    ^ leaves when the reader does
//! ```
//!
//! A step takes one token of every running stream and as many prompt tokens as [`Pace`] allows. Between steps:
//! newcomers join, those that nobody waits for leave, a stream that nobody reads is left out.
//! Absent: locks (the thread owns the slots) and waiting for a reader.

use super::counters::Counters;
use super::job::{Event, Failure, Finish, Job, Tokens};
use super::pace::{Pace, share};
use super::queue::{Queue, Service};
use super::slot::{Candidate, Token, place};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Most tokens of one step.
pub const BATCH_TOKENS_MAX: usize = 512;
/// A stream that nobody reads for so long is given up.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// How often paused streams are looked at when there is nothing else to do.
const PAUSED_LOOK: Duration = Duration::from_millis(20);

/// The model as the batch needs it.
pub trait Evaluate {
    /// Evaluates `entries` together; afterwards [`Evaluate::logits`] has those of the entries that want them.
    ///
    /// # Errors
    /// A sentence. What the slots hold is not known then.
    fn step(&mut self, entries: &[Entry]) -> Result<(), String>;
    /// Logits after the entry with this index of the last step, one for each token of the vocabulary.
    fn logits(&self, index: usize) -> &[f32];
    /// Forgets all but the first `tokens` of a slot; false when it had to forget everything.
    fn keep(&mut self, slot: usize, tokens: usize) -> bool;
    /// Replaces what slot `to` holds by the first `tokens` of slot `from`; false when `to` is empty then.
    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> bool;
    /// True for a token that ends a reply.
    fn is_end(&self, token: Token) -> bool;
    /// Appends the bytes of a token's text.
    fn piece(&self, token: Token, bytes: &mut Vec<u8>);
}

/// One token to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The slot that it belongs to.
    pub slot: usize,
    /// Its place in the conversation, from 0.
    pub position: usize,
    /// The token.
    pub token: Token,
    /// The next token is drawn from here.
    pub wants_logits: bool,
}

/// To the batch's thread.
#[derive(Debug)]
pub enum Message {
    /// Another request.
    Job(Box<Job>),
    /// Break everything off and return.
    Stop,
}

/// What the batch is made for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Requests that run at once, at least 1.
    pub slots: usize,
    /// Tokens that a slot holds.
    pub context: usize,
    /// Requests that may wait for a slot; one more is refused.
    pub queue: usize,
}

/// The slots and everyone in them.
pub struct Batch<E> {
    model: E,
    shape: Shape,
    slots: Vec<Slot>,
    waiting: Queue<Box<Job>>,
    service: Service,
    inbox: Receiver<Message>,
    pace: Pace,
    counters: Counters,
    /// Grows with every request; slots are stamped with it.
    uses: u64,
    /// Who is first when prompt tokens are shared out.
    first: usize,
}

#[derive(Default)]
struct Slot {
    /// What the model has evaluated here.
    tokens: Vec<Token>,
    used: u64,
    run: Option<Run>,
}

struct Run {
    job: Box<Job>,
    since: Instant,
    cached: usize,
    generated: usize,
    /// Drawn and not evaluated yet; none while the prompt is.
    next: Option<Token>,
    unread_since: Option<Instant>,
}

enum Drawn {
    /// A token and its text.
    Token(Token, Vec<u8>),
    End(Finish),
}

impl<E: Evaluate> Batch<E> {
    /// Empty slots.
    pub fn new(model: E, shape: Shape, inbox: Receiver<Message>, counters: Counters) -> Batch<E> {
        let slots = (0..shape.slots.max(1)).map(|_| Slot::default()).collect();
        let pace = Pace::new(BATCH_TOKENS_MAX);
        Batch {
            model,
            shape,
            slots,
            waiting: Queue::default(),
            service: Service::default(),
            inbox,
            pace,
            counters,
            uses: 0,
            first: 0,
        }
    }

    /// Evaluates a prompt and a few tokens, so that the first request finds everything in place and paced.
    ///
    /// # Errors
    /// The model cannot evaluate.
    pub fn warm(&mut self, token: Token) -> Result<(), String> {
        for (from, count) in [(0, 64), (64, 64), (128, 1)] {
            let count = count.min(self.shape.context.saturating_sub(from));
            let entry = |position| Entry { slot: 0, position, token, wants_logits: position + 1 == from + count };
            let entries: Vec<Entry> = (from..from + count).map(entry).collect();
            let begun = Instant::now();
            self.model.step(&entries)?;
            self.pace.note(entries.len(), begun.elapsed());
        }
        self.model.keep(0, 0);
        Ok(())
    }

    /// Works until [`Message::Stop`] or until nobody can send any more.
    pub fn run(mut self) {
        while self.receive() {
            self.leave();
            self.admit();
            self.counters.show(self.running(), self.waiting.len());
            let entries = self.compose();
            if !entries.is_empty() {
                self.step(&entries);
            }
        }
        self.break_off(Failure::Stopping);
        self.counters.show(0, 0);
    }

    fn running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.run.is_some()).count()
    }

    /// Takes what has come; waits when there is nothing to do. False at the end.
    fn receive(&mut self) -> bool {
        let mut message = self.next_message();
        loop {
            match message {
                Ok(Some(Message::Job(job))) => self.take_in(job),
                Ok(Some(Message::Stop)) | Err(()) => return false,
                Ok(None) => return true,
            }
            message = match self.inbox.try_recv() {
                Ok(message) => Ok(Some(message)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(()),
            };
        }
    }

    fn take_in(&mut self, job: Box<Job>) {
        let places = self.shape.queue + self.slots.len() - self.running();
        if let Some(refused) = self.waiting.push(job.client, job, places) {
            self.counters.refused();
            let wait_s = self.service.wait_s(self.waiting.len(), self.slots.len());
            let _ = refused.reply.try_send(Event::Failed(Failure::Overloaded(wait_s)));
        }
    }

    fn next_message(&self) -> Result<Option<Message>, ()> {
        let patience = match (self.running(), self.waiting.len()) {
            (0, 0) => {
                self.counters.show(0, 0);
                return self.inbox.recv().map(Some).map_err(drop);
            }
            _ if self.slots.iter().any(|slot| slot.run.as_ref().is_some_and(Run::is_read)) => Duration::ZERO,
            _ => PAUSED_LOOK,
        };
        match self.inbox.recv_timeout(patience) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    /// Drops everyone whose reader is gone or has not read for too long.
    fn leave(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|job| !job.reply.is_closed());
        self.counters.cancelled(before - self.waiting.len());
        for slot in &mut self.slots {
            if slot.run.as_mut().is_some_and(Run::is_over) {
                slot.run = None;
                self.counters.cancelled(1);
            }
        }
    }

    fn admit(&mut self) {
        while self.running() < self.slots.len() {
            let held = |client| {
                self.slots.iter().filter(|slot| slot.run.as_ref().is_some_and(|run| run.job.client == client)).count()
            };
            let Some(job) = self.waiting.pop(held) else { return };
            let candidates: Vec<Candidate<'_>> = self.slots.iter().map(Slot::candidate).collect();
            let Some(place) = place(&job.prompt, &candidates) else { return };
            let cached = self.prepare(place.slot, place.kept, place.copy_from);
            self.uses += 1;
            self.counters.admitted(job.prompt.len(), cached);
            let slot = &mut self.slots[place.slot];
            slot.used = self.uses;
            slot.run = Some(Run { job, since: Instant::now(), cached, generated: 0, next: None, unread_since: None });
        }
    }

    /// Brings a slot to hold the first `kept` tokens of the conversation; returns how many it holds.
    fn prepare(&mut self, slot: usize, kept: usize, copy_from: Option<usize>) -> usize {
        let (held, tokens) = match copy_from {
            None => (self.model.keep(slot, kept), std::mem::take(&mut self.slots[slot].tokens)),
            Some(from) => (self.model.copy(from, slot, kept), self.slots[from].tokens.clone()),
        };
        let kept = if held { kept } else { 0 };
        self.slots[slot].tokens = tokens;
        self.slots[slot].tokens.truncate(kept);
        self.slots[slot].tokens.len()
    }

    /// One token of each stream, then prompts in fair shares.
    fn compose(&mut self) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            self.slots.iter().enumerate().filter_map(|(index, slot)| slot.next_entry(index)).collect();
        let wanted: Vec<usize> = self.slots.iter().map(Slot::unevaluated).collect();
        if wanted.iter().any(|tokens| *tokens > 0) {
            self.first = (self.first + 1) % self.slots.len();
            let shares = share(self.pace.chunk(entries.len()), &wanted, self.first);
            let slots = self.slots.iter().enumerate().zip(shares);
            entries.extend(slots.flat_map(|((index, slot), tokens)| slot.prompt_entries(index, tokens)));
        }
        // llama.cpp joins only slots that follow each other into one pass.
        entries.sort_by_key(|entry| entry.slot);
        entries
    }

    fn step(&mut self, entries: &[Entry]) {
        let begun = Instant::now();
        if let Err(reason) = self.model.step(entries) {
            tracing::error!(%reason, tokens = entries.len(), "a batch could not be evaluated");
            self.break_off(Failure::Evaluation);
            return self.forget();
        }
        let elapsed = begun.elapsed();
        self.pace.note(entries.len(), elapsed);
        self.counters.stepped(elapsed);
        for entry in entries {
            self.slots[entry.slot].tokens.push(entry.token);
        }
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.wants_logits) {
            self.advance(entry.slot, index);
        }
    }

    /// Draws the next token of a slot and sends what has become certain.
    fn advance(&mut self, slot: usize, index: usize) {
        let Slot { tokens, run, .. } = &mut self.slots[slot];
        let Some(active) = run else { return };
        let finish = match active.draw(&self.model, index) {
            Drawn::End(finish) => Some(finish),
            Drawn::Token(token, piece) => {
                self.counters.generated();
                active.append(token, &piece, tokens.len() >= self.shape.context)
            }
        };
        if let Some(finish) = finish {
            active.finish(finish);
            self.service.note(active.since.elapsed());
            *run = None;
        }
    }

    fn break_off(&mut self, failure: Failure) {
        let mut waiting = match failure {
            Failure::Stopping => std::mem::take(&mut self.waiting),
            Failure::Evaluation | Failure::Overloaded(_) => Queue::default(),
        };
        let running = self.slots.iter_mut().filter_map(|slot| slot.run.take()).map(|run| run.job);
        for job in running.chain(waiting.drain()) {
            // A full channel closes without its end, which says the same.
            let _ = job.reply.try_send(Event::Failed(failure));
        }
    }

    fn forget(&mut self) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            self.model.keep(index, 0);
            slot.tokens.clear();
        }
    }
}

impl Slot {
    fn candidate(&self) -> Candidate<'_> {
        Candidate { tokens: &self.tokens, used: self.used, free: self.run.is_none() }
    }

    fn next_entry(&self, index: usize) -> Option<Entry> {
        let run = self.run.as_ref().filter(|run| run.is_read())?;
        run.next.map(|token| Entry { slot: index, position: self.tokens.len(), token, wants_logits: true })
    }

    /// Prompt tokens still to evaluate.
    fn unevaluated(&self) -> usize {
        match &self.run {
            Some(run) if run.next.is_none() => run.job.prompt.len().saturating_sub(self.tokens.len()),
            _ => 0,
        }
    }

    fn prompt_entries(&self, index: usize, count: usize) -> impl Iterator<Item = Entry> {
        let prompt = self.run.as_ref().map_or(&[][..], |run| &run.job.prompt);
        let from = self.tokens.len().min(prompt.len());
        let last = prompt.len();
        let chosen = prompt[from..].iter().take(count).enumerate();
        chosen.map(move |(offset, token)| {
            let position = from + offset;
            Entry { slot: index, position, token: *token, wants_logits: position + 1 == last }
        })
    }
}

impl Run {
    /// There is room for what a step may bring: a text, the held-back rest and the end.
    fn is_read(&self) -> bool {
        self.job.reply.capacity() >= 3
    }

    /// True when the reader is gone, or has not read for [`UNREAD_MAX`].
    fn is_over(&mut self) -> bool {
        self.unread_since = if self.is_read() { None } else { self.unread_since.or_else(|| Some(Instant::now())) };
        self.job.reply.is_closed() || self.unread_since.is_some_and(|since| since.elapsed() >= UNREAD_MAX)
    }

    /// The next token by the logits of this entry; of those that go on with the object, when it has to be one.
    fn draw(&mut self, model: &impl Evaluate, index: usize) -> Drawn {
        let (logits, mut piece) = (model.logits(index), Vec::new());
        let Some(object) = self.job.object else {
            let token = self.job.sampler.next(logits);
            if model.is_end(token) {
                return Drawn::End(Finish::Stop);
            }
            model.piece(token, &mut piece);
            return Drawn::Token(token, piece);
        };
        let drawn = self.job.sampler.next_that(logits, |token| {
            piece.clear();
            model.piece(token, &mut piece);
            !piece.is_empty() && object.after(&piece).is_some() && !model.is_end(token)
        });
        let Some(token) = drawn else { return Drawn::End(Finish::Length) };
        piece.clear();
        model.piece(token, &mut piece);
        self.job.object = object.after(&piece);
        Drawn::Token(token, piece)
    }

    /// Takes a drawn token; the reason to end, if it is the last.
    fn append(&mut self, token: Token, piece: &[u8], full: bool) -> Option<Finish> {
        self.generated += 1;
        self.next = Some(token);
        let text = self.job.text.push(piece);
        self.send(text);
        if self.job.text.stopped() || self.job.object.is_some_and(|object| object.is_whole()) {
            return Some(Finish::Stop);
        }
        (full || self.generated >= self.job.tokens_max).then_some(Finish::Length)
    }

    fn finish(&mut self, finish: Finish) {
        let rest = self.job.text.finish();
        self.send(rest);
        let tokens = Tokens { prompt: self.job.prompt.len(), cached: self.cached, completion: self.generated };
        // Room was seen before the step, and only this thread sends; a closed channel wants nothing.
        let _ = self.job.reply.try_send(Event::End(finish, tokens));
    }

    fn send(&self, text: String) {
        if !text.is_empty() {
            let _ = self.job.reply.try_send(Event::Text(text));
        }
    }
}

#[cfg(test)]
mod tests;
