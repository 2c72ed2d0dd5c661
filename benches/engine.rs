//! The engine against a bare llama.cpp loop, on the real model: `cargo bench --bench engine -- MODEL.gguf [ROUNDS]`.
//!
//! Prints `name value unit` lines; each value is the median of the rounds, which alternate, so that a noisy machine
//! disturbs all of them alike.

use chatcorn::chat::wire::{Chunk, Message, Request, Role, StreamOptions};
use chatcorn::engine::batch::{Entry, Evaluate};
use chatcorn::engine::sample::Sampler;
use chatcorn::engine::{self, SETTINGS_VARIABLE, Settings, model};
use chatcorn::sys::fd;
use chatcorn::worker::link::{Received, ToMaster, take};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const THREADS: u32 = 2;
const REPLY_TOKENS: u32 = 128;

fn main() -> ExitCode {
    if std::env::var_os(SETTINGS_VARIABLE).is_some() {
        return match Settings::from_environment() {
            Ok(settings) => engine::run(settings),
            Err(_) => ExitCode::FAILURE,
        };
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let model = arguments.first().cloned().or_else(|| std::env::var("CHATCORN_TEST_MODEL").ok());
    let Some(model) = model else {
        println!("engine: name a GGUF model: cargo bench --bench engine -- MODEL.gguf [ROUNDS] [speed,turns,stall]");
        return ExitCode::SUCCESS;
    };
    if engine::ENVIRONMENT.iter().any(|(name, _)| std::env::var_os(name).is_none()) {
        return again();
    }
    let rounds = arguments.get(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let parts = arguments.get(2).map_or("speed,turns,stall", String::as_str);
    bench(&PathBuf::from(model), rounds, parts);
    ExitCode::SUCCESS
}

/// The bare loop gets the same environment as the engine, which libgomp reads before `main`.
fn again() -> ExitCode {
    let program = std::env::current_exe().expect("this program");
    let environment = engine::ENVIRONMENT.iter().copied();
    let status = Command::new(program).args(std::env::args().skip(1)).envs(environment).status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bench(path: &Path, rounds: usize, parts: &str) {
    let engine = Engine::start(path);
    let vocabulary = model::load(path).expect("the model loads");
    let mut bare = vocabulary.open(model::Setup { slots: 1, context: 2048, threads: THREADS }).expect("a context");
    let mut figures = Figures::default();
    for round in 0..rounds {
        if parts.contains("speed") {
            figures.add("bare", bare_loop(&vocabulary, &mut bare), "tokens/s");
            figures.add("one_stream", one_stream(&engine, round), "tokens/s");
            figures.add("one_stream_wall", streams(&engine, 1, round), "tokens/s");
            figures.add("four_streams", streams(&engine, 4, round), "tokens/s");
            figures.add("eight_streams", streams(&engine, 8, round), "tokens/s");
        }
        if parts.contains("turns") {
            let (cold, warm, cached) = turns(&engine, round);
            figures.add("cold_ttft", cold, "ms");
            figures.add("second_turn_ttft", warm, "ms");
            figures.add("second_turn_cached", cached, "of prompt");
        }
        if parts.contains("stall") {
            figures.add("stall_by_one_prefill", stall(&engine, 1, round), "ms");
            figures.add("stall_by_three_prefills", stall(&engine, 3, round), "ms");
            figures.add("one_stream_full_cache", one_stream(&engine, round + 1000), "tokens/s");
        }
    }
    figures.print();
    figures.ratio("one_stream", "bare", ">= 0.9");
    figures.ratio("eight_streams", "one_stream_wall", ">= 1.3");
    figures.ratio("second_turn_ttft", "cold_ttft", "<= 0.5");
}

/// Tokens a second of a loop that does nothing but decode and take the best token.
fn bare_loop(vocabulary: &model::Vocabulary, llama: &mut model::Llama) -> f64 {
    llama.keep(0, 0);
    let prompt = vocabulary
        .tokens("<|im_start|>user\nTell me a long story about a dragon.<|im_end|>\n<|im_start|>assistant\n", true);
    let mut greedy = Sampler::new(0.0, 1.0, 0);
    let entry = |(position, token): (usize, &i32)| Entry {
        slot: 0,
        position,
        token: *token,
        wants_logits: position + 1 == prompt.len(),
    };
    llama.step(&prompt.iter().enumerate().map(entry).collect::<Vec<_>>()).expect("evaluates");
    let mut token = greedy.next(llama.logits(prompt.len() - 1));
    let begun = Instant::now();
    for step in 0..REPLY_TOKENS as usize {
        llama.step(&[Entry { slot: 0, position: prompt.len() + step, token, wants_logits: true }]).expect("evaluates");
        token = greedy.next(llama.logits(0));
    }
    f64::from(REPLY_TOKENS) / begun.elapsed().as_secs_f64()
}

fn one_stream(engine: &Engine, round: usize) -> f64 {
    let reply = engine.chat(&story(round, 0), REPLY_TOKENS, &mpsc::channel().0);
    (reply.tokens - 1.0) / (reply.times[reply.times.len() - 1] - reply.times[0]).as_secs_f64()
}

fn streams(engine: &Engine, count: usize, round: usize) -> f64 {
    let begun = Instant::now();
    let tokens: f64 = thread::scope(|scope| {
        let each =
            |stream| scope.spawn(move || engine.chat(&story(round, stream), REPLY_TOKENS, &mpsc::channel().0).tokens);
        let all: Vec<_> = (0..count).map(each).collect();
        all.into_iter().map(|one| one.join().expect("a reply")).sum()
    });
    tokens / begun.elapsed().as_secs_f64()
}

fn turns(engine: &Engine, round: usize) -> (f64, f64, f64) {
    let mut messages = vec![Message::new(Role::User, format!("Round {round}. {}Sum this up.", words(540)))];
    let first = engine.chat(&messages, 24, &mpsc::channel().0);
    messages.push(Message::new(Role::Assistant, first.text.clone()));
    messages.push(Message::new(Role::User, "And what is the colour?"));
    let second = engine.chat(&messages, 8, &mpsc::channel().0);
    (millis(first.times[0]), millis(second.times[0]), second.cached / second.prompt)
}

/// The longest time between two tokens of a running stream while others bring 1,500 tokens each.
fn stall(engine: &Engine, others: usize, round: usize) -> f64 {
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let stream = scope.spawn(move || engine.chat(&story(round, 77), 600, &tell));
        for _ in 0..10 {
            let _ = told.recv();
        }
        let begun = Instant::now();
        let long = |other| vec![Message::new(Role::User, format!("{round} {other} {others} {}", words(1400)))];
        let all: Vec<_> =
            (0..others).map(|other| scope.spawn(move || engine.chat(&long(other), 1, &mpsc::channel().0))).collect();
        all.into_iter().for_each(|other| drop(other.join()));
        let ended = Instant::now();
        let reply = stream.join().expect("a reply");
        let stamps: Vec<Instant> = reply.times.iter().map(|time| reply.begun + *time).collect();
        let during = stamps.windows(2).filter(|pair| pair[1] > begun && pair[0] < ended);
        during.map(|pair| millis(pair[1] - pair[0])).fold(0.0, f64::max)
    })
}

fn story(round: usize, stream: usize) -> Vec<Message> {
    let animals = ["dragon", "fox", "whale", "raven", "horse", "spider", "wolf", "cat"];
    let text = format!("{round}-{stream}: tell me a very long story about a {} in chapters.", animals[stream % 8]);
    vec![Message::new(Role::User, text)]
}

fn words(count: usize) -> String {
    let some = ["river ", "stone ", "light ", "house ", "green ", "seven ", "water ", "night "];
    (0..count).map(|index| some[(index * index + index / 7) % 8]).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[derive(Default)]
struct Figures(Vec<(&'static str, &'static str, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: &'static str, value: f64, unit: &'static str) {
        eprintln!("  {name} {value:.2} {unit}");
        match self.0.iter_mut().find(|(known, ..)| *known == name) {
            Some((.., values)) => values.push(value),
            None => self.0.push((name, unit, vec![value])),
        }
    }

    fn median(&self, name: &str) -> f64 {
        let mut values =
            self.0.iter().find(|(known, ..)| *known == name).map(|(.., values)| values.clone()).unwrap_or_default();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn print(&self) {
        for (name, unit, values) in &self.0 {
            let worst = values.iter().copied().fold(0.0, f64::max);
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            println!("{name} {:.2} {unit} ({least:.2} to {worst:.2})", self.median(name));
        }
    }

    fn ratio(&self, of: &str, to: &str, goal: &str) {
        println!("{of}/{to} {:.2} ratio (goal {goal})", self.median(of) / self.median(to));
    }
}

/// This program again, as the engine.
struct Engine {
    child: Child,
    path: PathBuf,
    _link: OwnedFd,
}

struct Reply {
    begun: Instant,
    /// When each piece of text came.
    times: Vec<Duration>,
    text: String,
    tokens: f64,
    prompt: f64,
    cached: f64,
}

impl Engine {
    fn start(model: &Path) -> Engine {
        let path = std::env::temp_dir().join(format!("chatcorn-bench-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let (link, theirs) = fd::packet_pair().expect("a pair");
        inherit(&listener);
        inherit(&theirs);
        let fds = (listener.as_raw_fd(), theirs.as_raw_fd());
        let settings = Settings {
            model: model.into(),
            threads: THREADS,
            listener_fd: fds.0,
            link_fd: fds.1,
            ..Settings::default()
        };
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .envs(engine::ENVIRONMENT.iter().copied())
            .env(SETTINGS_VARIABLE, settings.to_json())
            .spawn()
            .expect("the engine");
        drop(theirs);
        let begun = Instant::now();
        await_ready(&link);
        println!("start_to_ready {:.0} ms", millis(begun.elapsed()));
        Engine { child, path, _link: link }
    }

    fn chat(&self, messages: &[Message], tokens: u32, tell: &mpsc::Sender<()>) -> Reply {
        let request = Request {
            messages: messages.to_vec(),
            stream: true,
            stream_options: Some(StreamOptions { include_usage: true }),
            max_tokens: Some(tokens),
            temperature: Some(0.0),
            ..Request::default()
        };
        let body = serde_json::to_string(&request).expect("JSON");
        let mut stream = UnixStream::connect(&self.path).expect("connects");
        let begun = Instant::now();
        write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nhost: engine\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).expect("writes");
        let mut reply = Reply { begun, times: vec![], text: String::new(), tokens: 0.0, prompt: 0.0, cached: 0.0 };
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            reply.read(&line, tell);
        }
        assert!(reply.prompt > 0.0, "no usage: {}", reply.text);
        reply
    }
}

impl Reply {
    fn read(&mut self, line: &str, tell: &mpsc::Sender<()>) {
        let Some(chunk) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Chunk>(data).ok()) else {
            return;
        };
        if let Some(text) =
            chunk.choices.first().and_then(|choice| choice.delta.content.as_deref()).filter(|text| !text.is_empty())
        {
            self.times.push(self.begun.elapsed());
            self.text.push_str(text);
            let _ = tell.send(());
        }
        if let Some(usage) = chunk.usage {
            self.tokens = usage.completion_tokens as f64;
            self.prompt = usage.prompt_tokens as f64;
            self.cached = usage.prompt_tokens_details.map_or(0.0, |details| details.cached_tokens as f64);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let begun = Instant::now();
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let status = self.child.wait().expect("waits");
        println!("term_to_exit {:.0} ms ({status})", millis(begun.elapsed()));
        let _ = std::fs::remove_file(&self.path);
    }
}

fn inherit(fd: &impl AsFd) {
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("an open descriptor");
}

fn await_ready(link: &OwnedFd) {
    let mut fds = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(60_000u16)).expect("polls");
    match take(link) {
        Received::Packet(packet) => assert_eq!(ToMaster::decode(&packet), Some(ToMaster::Ready)),
        other => panic!("the engine is not ready: {other:?}"),
    }
}
