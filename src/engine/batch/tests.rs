//! The batch with a model that counts.

use super::*;
use crate::engine::json::Object;
use crate::engine::sample::Sampler;
use crate::engine::text::Holdback;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

const END: Token = 0;
const BROKEN: Token = 99;
/// The texts of the tokens from 70 on, which it never says by itself.
const JSON: [&str; 6] = ["{", "", "\"", ":", "1}", "} "];

/// Says the token after the last one, up to 50, which it follows by the end; after 51 it says 51 for ever.
/// It checks that positions have no gaps.
#[derive(Default)]
struct Counting {
    slots: Vec<Vec<Token>>,
    logits: Vec<[f32; 100]>,
    steps: Arc<Mutex<Vec<Vec<Entry>>>>,
}

impl Evaluate for Counting {
    fn step(&mut self, entries: &[Entry]) -> Result<(), String> {
        self.steps.lock().unwrap().push(entries.to_vec());
        self.logits.clear();
        for entry in entries {
            assert_eq!(entry.position, self.slots[entry.slot].len(), "a gap in slot {}", entry.slot);
            self.slots[entry.slot].push(entry.token);
            let next = match entry.token {
                51 => 51,
                50.. => END,
                token => token + 1,
            };
            let mut logits = [0.0; 100];
            logits[next as usize] = 1.0;
            self.logits.push(logits);
        }
        let broken = entries.iter().any(|entry| entry.token == BROKEN);
        if broken { Err("broken".into()) } else { Ok(()) }
    }

    fn logits(&self, index: usize) -> &[f32] {
        &self.logits[index]
    }

    fn keep(&mut self, slot: usize, tokens: usize) -> bool {
        self.slots[slot].truncate(tokens);
        true
    }

    fn copy(&mut self, from: usize, to: usize, tokens: usize) -> bool {
        self.slots[to] = self.slots[from][..tokens].to_vec();
        true
    }

    fn is_end(&self, token: Token) -> bool {
        token == END
    }

    fn piece(&self, token: Token, bytes: &mut Vec<u8>) {
        match JSON.get((token - 70) as usize) {
            Some(text) => bytes.extend(text.bytes()),
            None => bytes.extend(format!("{token} ").bytes()),
        }
    }
}

struct Running {
    inbox: Sender<Message>,
    steps: Arc<Mutex<Vec<Vec<Entry>>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(slots: usize, context: usize) -> Running {
        let (inbox, messages) = channel();
        let model = Counting { slots: vec![vec![]; slots], ..Counting::default() };
        let steps = Arc::clone(&model.steps);
        let batch = Batch::new(model, Shape { slots, context, queue: 8 }, messages, Counters::none());
        let thread = std::thread::spawn(|| batch.run());
        Running { inbox, steps, thread }
    }

    fn ask(&self, prompt: &[Token], tokens_max: usize) -> mpsc::Receiver<Event> {
        self.ask_as(1, prompt, tokens_max)
    }

    fn ask_as(&self, client: u64, prompt: &[Token], tokens_max: usize) -> mpsc::Receiver<Event> {
        let (reply, events) = mpsc::channel(crate::engine::job::EVENTS_MAX);
        self.send(Job { client, ..job(prompt, tokens_max, reply) });
        events
    }

    fn send(&self, job: Job) {
        self.inbox.send(Message::Job(Box::new(job))).unwrap();
    }

    fn stop(self) {
        self.inbox.send(Message::Stop).unwrap();
        self.thread.join().unwrap();
    }
}

fn job(prompt: &[Token], tokens_max: usize, reply: mpsc::Sender<Event>) -> Job {
    let (sampler, text) = (Sampler::new(0.0, 1.0, 0), Holdback::default());
    Job { prompt: prompt.to_vec(), tokens_max, sampler, object: None, text, reply, client: 1 }
}

fn reply(mut events: mpsc::Receiver<Event>) -> (String, Option<Event>) {
    let mut text = String::new();
    loop {
        match events.blocking_recv() {
            Some(Event::Text(more)) => text.push_str(&more),
            last => return (text, last),
        }
    }
}

fn end(finish: Finish, prompt: usize, cached: usize, completion: usize) -> Option<Event> {
    Some(Event::End(finish, Tokens { prompt, cached, completion }))
}

#[test]
fn a_reply_ends_by_itself_by_its_limit_or_with_the_context() {
    let running = Running::start(2, 8);
    assert_eq!(reply(running.ask(&[46, 47], 10)), ("48 49 50 ".into(), end(Finish::Stop, 2, 0, 3)));
    assert_eq!(reply(running.ask(&[1, 2], 3)), ("3 4 5 ".into(), end(Finish::Length, 2, 0, 3)));
    assert_eq!(reply(running.ask(&[7, 8, 9, 10, 11, 12], 10)).1, end(Finish::Length, 6, 0, 3));
    running.stop();
}

#[test]
fn a_reply_that_must_be_an_object_is_one_or_ends_by_its_limit() {
    let running = Running::start(2, 64);
    let ask = |tokens_max| {
        let (reply, events) = mpsc::channel(crate::engine::job::EVENTS_MAX);
        running.send(Job { object: Some(Object::default()), ..job(&[1], tokens_max, reply) });
        events
    };
    // It wants the end after what is no number to it; the first that fits comes: a key, then what may follow.
    let (text, end) = reply(ask(40));
    assert!(text.starts_with("{\""), "{text}");
    assert!(matches!(end, Some(Event::End(Finish::Length, _))), "{text}");
    running.stop();
}

#[test]
fn the_next_turn_evaluates_only_what_is_new() {
    let running = Running::start(2, 64);
    assert_eq!(reply(running.ask(&[1, 2, 3], 4)).0, "4 5 6 7 ");
    assert_eq!(reply(running.ask(&[1, 2, 3, 4, 5, 6, 7, 60, 44], 2)).1, end(Finish::Length, 9, 6, 2));
    running.stop();
}

#[test]
fn a_stream_gets_a_token_in_every_step_of_anothers_prompt() {
    let running = Running::start(2, 4096);
    let long: Vec<Token> = (0..3000).map(|_| 60).collect();
    let (stream, other) = (running.ask(&[1], 49), running.ask(&long, 1));
    assert_eq!((reply(stream).1, reply(other).1), (end(Finish::Length, 1, 0, 49), end(Finish::Stop, 3000, 0, 0)));
    let steps = running.steps.lock().unwrap().clone();
    let stream_slot = steps[0][0].slot;
    let while_both = steps.iter().skip(1).take_while(|step| step.iter().any(|entry| entry.slot == stream_slot));
    assert_eq!(while_both.count(), 48);
    assert!(steps.iter().all(|step| step.len() <= BATCH_TOKENS_MAX));
    running.stop();
}

#[test]
fn who_leaves_makes_room_at_once() {
    let running = Running::start(1, 4096);
    let long: Vec<Token> = (0..4000).map(|_| 60).collect();
    let (mut first, waiting, second) = (running.ask(&[1], 4000), running.ask(&long, 1), running.ask(&[30], 1));
    assert!(matches!(first.blocking_recv(), Some(Event::Text(_))));
    drop(waiting);
    drop(first);
    assert_eq!(reply(second).0, "31 ");
    let evaluated: usize = running.steps.lock().unwrap().iter().map(Vec::len).sum();
    assert!(evaluated < 200, "{evaluated} tokens: the one that left was evaluated");
    running.stop();
}

#[test]
fn one_client_with_fifty_requests_starves_nobody() {
    let running = Running::start(2, 4096);
    let greedy: Vec<_> = (0..50).map(|_| running.ask_as(1, &[51], 3000)).collect();
    let other = running.ask_as(2, &[20], 3);
    // It leaves one slot; the other client is next although forty-eight came before it.
    let mut greedy = greedy.into_iter();
    drop(greedy.next());
    assert_eq!(reply(other).0, "21 22 23 ");
    let mut refused = 0;
    for mut events in greedy.by_ref() {
        while let Ok(event) = events.try_recv() {
            refused += usize::from(matches!(event, Event::Failed(Failure::Overloaded(1..=60))));
        }
    }
    // Two ran, eight waited, and one of these gave way.
    assert!((40..=41).contains(&refused), "{refused}");
    running.stop();
}

#[test]
fn a_stream_that_nobody_reads_stalls_nobody() {
    let running = Running::start(2, 4096);
    let unread = running.ask(&[51], 3000);
    while unread.len() + 3 <= crate::engine::job::EVENTS_MAX {
        std::thread::yield_now();
    }
    assert_eq!(reply(running.ask(&[40], 5)).0, "41 42 43 44 45 ");
    let paused = running.steps.lock().unwrap().len();
    assert_eq!(reply(running.ask(&[40], 5)).0, "41 42 43 44 45 ");
    let after = running.steps.lock().unwrap()[paused..].concat();
    assert_eq!(after.len(), 5, "the paused stream was evaluated: {after:?}");
    drop(unread);
    running.stop();
}

#[test]
fn a_stop_reaches_those_that_run_and_those_that_wait() {
    let running = Running::start(1, 4096);
    let long: Vec<Token> = (0..4000).map(|_| 60).collect();
    let (first, second) = (running.ask(&long, 1), running.ask(&[1], 1));
    running.stop();
    assert_eq!(reply(second).1, Some(Event::Failed(Failure::Stopping)));
    assert_ne!(reply(first).1, None);
}

#[test]
fn a_batch_that_breaks_fails_its_requests_and_nothing_after() {
    let running = Running::start(2, 64);
    assert_eq!(reply(running.ask(&[5, BROKEN], 3)).1, Some(Event::Failed(Failure::Evaluation)));
    assert_eq!(reply(running.ask(&[5, 6], 2)), ("7 8 ".into(), end(Finish::Length, 2, 0, 2)));
    running.stop();
}
