//! `chatcorn chat`: a conversation in the terminal, or one question through a pipe.
//!
//! ```text
//! terminal: line ─▶ ask ─▶ text as it arrives ─▶ next line      pipe: all of stdin ─▶ ask ─▶ text ─▶ exit 0 or 1
//! ```
//! Ctrl-C stops the answer that is being written; at the prompt it leaves.

use super::server::{Answering, Asker, Failed, Left, Part, Server};
use crate::sys::signal::SelfPipe;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// The user's API key; it has no flag, for `ps` shows flags.
pub const KEY_VARIABLE: &str = "CHATCORN_API_KEY";
/// Below this many messages left, the person is told.
const FEW_LEFT: u64 = 3;
/// Between two looks at a model that loads.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;
/// A longer message is refused by the server (`API.md`: 10,000 characters).
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const HELP: &str = "\
/again     answer the last message once more
/fresh     answer each message on its own
/relevant  use what was said before (the default)
/new       start a new conversation
/quit      leave (also Ctrl-D)
A line that ends in \\ goes on in the next one. Ctrl-C stops an answer; at the prompt it leaves.";

/// Runs the command; exit 0, 1 when a question from a pipe got no answer, 130 after Ctrl-C at the prompt.
///
/// # Errors
/// A sentence: no runtime, no such key, stdin cannot be read.
pub fn run(server: Server, key: Option<&str>) -> Result<ExitCode, String> {
    let told = |error: io::Error| error.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(told)?;
    runtime.block_on(async {
        let talk = Talk::new(Asker::new(server.clone(), key)?);
        match io::stdin().is_terminal() {
            true => Terminal::open(talk).map_err(told)?.converse(&server).await.map_err(told),
            false => question(talk).await,
        }
    })
}

/// A conversation and what the next request of it holds.
struct Talk {
    asker: Asker,
    session: Option<String>,
    mode: &'static str,
    pairs: Vec<(String, String)>,
    /// The server's session holds something else than `pairs`: they are sent along.
    diverged: bool,
}

impl Talk {
    fn new(asker: Asker) -> Talk {
        Talk { asker, session: None, mode: "relevant", pairs: Vec::new(), diverged: false }
    }

    async fn ask(&self, message: &str) -> Result<Answering, Failed> {
        let mut body = json!({"message": message, "context_mode": self.mode, "stream": true});
        if let Some(session) = &self.session {
            body["session_id"] = json!(session);
        }
        let own = self.diverged || self.session.is_none();
        if own && !self.pairs.is_empty() && self.mode == "relevant" {
            body["history"] = json!(self.pairs[self.pairs.len().saturating_sub(100)..]);
        }
        self.asker.chat(&body).await
    }

    fn answered(&mut self, message: String, reply: String, done: Option<&Value>) {
        match done.and_then(|done| done["session_id"].as_str()) {
            Some(session) => self.session = Some(session.to_owned()),
            None => self.diverged = true,
        }
        if !reply.is_empty() {
            self.pairs.push((message, reply));
        }
    }
}

/// Not a terminal: everything that comes is one message.
async fn question(talk: Talk) -> Result<ExitCode, String> {
    let mut message = String::new();
    let read = io::stdin().take(MESSAGE_BYTES_MAX).read_to_string(&mut message);
    read.map_err(|error| format!("stdin cannot be read: {error}"))?;
    if message.trim().is_empty() {
        return Err("stdin holds no message".to_owned());
    }
    let mut output = Output::new();
    let answered = async {
        let mut answering = talk.ask(message.trim()).await?;
        while let Part::Text(text) = answering.next().await? {
            output.text(&text);
        }
        Ok(())
    };
    let answered: Result<(), Failed> = answered.await;
    output.end_line();
    answered.map(|()| ExitCode::SUCCESS).map_err(|failed| failed.told())
}

impl Failed {
    fn told(&self) -> String {
        match self.wait_s.filter(|_| !self.sentence.contains(" s.")) {
            Some(seconds) => format!("{} (Try again in {seconds} s.)", self.sentence),
            None => self.sentence.clone(),
        }
    }
}

/// A person's side.
struct Terminal {
    talk: Talk,
    lines: mpsc::Receiver<String>,
    interrupts: Interrupts,
    output: Output,
    last: Option<String>,
}

impl Terminal {
    fn open(talk: Talk) -> io::Result<Terminal> {
        Ok(Terminal { talk, lines: lines(), interrupts: Interrupts::open()?, output: Output::new(), last: None })
    }

    async fn converse(mut self, server: &Server) -> io::Result<ExitCode> {
        if let Some(code) = self.greet(server).await? {
            return Ok(code);
        }
        loop {
            self.output.prompt("> ");
            let line = tokio::select! {
                line = line(&mut self.lines, &mut self.output) => line,
                pressed = self.interrupts.next() => {
                    pressed?;
                    self.output.text("\n");
                    return Ok(ExitCode::from(EXIT_INTERRUPTED));
                }
            };
            let Some(line) = line else {
                self.output.text("\n");
                return Ok(ExitCode::SUCCESS);
            };
            match line.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(ExitCode::SUCCESS),
                word if word.starts_with('/') && !word.contains(char::is_whitespace) => self.command(word).await?,
                message => self.turn(message.to_owned()).await?,
            }
        }
    }

    /// Waits for a model that loads. An exit code when there is nobody to talk to.
    async fn greet(&mut self, server: &Server) -> io::Result<Option<ExitCode>> {
        let mut told = false;
        loop {
            match self.talk.asker.health().await {
                Err(failed) => {
                    self.output.notice(&failed.told());
                    return Ok(Some(ExitCode::FAILURE));
                }
                Ok(health) if health == "initializing" && !told => {
                    told = true;
                    self.output.notice("The model is being loaded …");
                }
                Ok(health) if health != "initializing" => {
                    let state = if health == "healthy" { "" } else { " (its model cannot be reached at the moment)" };
                    self.output
                        .notice(&format!("Talking with {server}{state}. /help lists the commands, Ctrl-D leaves."));
                    return Ok(None);
                }
                Ok(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                pressed = self.interrupts.next() => {
                    pressed?;
                    return Ok(Some(ExitCode::from(EXIT_INTERRUPTED)));
                }
            }
        }
    }

    async fn command(&mut self, word: &str) -> io::Result<()> {
        match word {
            "/again" => match self.last.clone() {
                Some(message) => {
                    self.talk.pairs.pop_if(|(user, _)| *user == message);
                    self.talk.diverged = true;
                    self.turn(message).await?;
                }
                None => self.output.notice("There is no message yet."),
            },
            "/fresh" | "/relevant" => {
                self.talk.mode = if word == "/fresh" { "fresh" } else { "relevant" };
                let how = if word == "/fresh" { "on its own" } else { "with what was said before" };
                self.output.notice(&format!("Each message is answered {how}."));
            }
            "/new" => {
                (self.talk.session, self.talk.diverged, self.last) = (None, false, None);
                self.talk.pairs.clear();
                self.output.notice("A new conversation.");
            }
            "/help" => self.output.notice(HELP),
            other => self.output.notice(&format!("{other} is no command.\n{HELP}")),
        }
        Ok(())
    }

    async fn turn(&mut self, message: String) -> io::Result<()> {
        self.last = Some(message.clone());
        let asked = tokio::select! {
            asked = self.talk.ask(&message) => asked,
            pressed = self.interrupts.next() => {
                pressed?;
                self.output.notice("Stopped.");
                return Ok(());
            }
        };
        match asked {
            Ok(answering) => self.listen(message, answering).await,
            Err(failed) => {
                self.output.notice(&format!("{} /again repeats your message.", failed.told()));
                Ok(())
            }
        }
    }

    async fn listen(&mut self, message: String, mut answering: Answering) -> io::Result<()> {
        let left = answering.left;
        let mut reply = String::new();
        let mut end = Ok(None);
        loop {
            let part = tokio::select! {
                part = answering.next() => part,
                pressed = self.interrupts.next() => {
                    pressed?;
                    break;
                }
            };
            match part {
                Ok(Part::Text(text)) => {
                    self.output.text(&text);
                    reply.push_str(&text);
                }
                Ok(Part::Done(done)) => {
                    end = Ok(Some(done));
                    break;
                }
                Err(failed) => {
                    end = Err(failed);
                    break;
                }
            }
        }
        drop(answering);
        self.output.end_line();
        match &end {
            Ok(Some(_)) => self.tell(left),
            Ok(None) => self.output.notice("Stopped."),
            Err(failed) => self.output.notice(&format!("{} /again repeats your message.", failed.told())),
        }
        self.talk.answered(message, reply, end.ok().flatten().as_ref());
        Ok(())
    }

    fn tell(&mut self, left: Option<Left>) {
        if let Some(left) = left.filter(|left| left.count < FEW_LEFT) {
            let messages = if left.count == 1 { "message" } else { "messages" };
            self.output.notice(&format!("({} {messages} left for the next {} s)", left.count, left.reset_s));
        }
    }
}

/// A line, with those that a backslash joins to it; `None` at the end.
async fn line(lines: &mut mpsc::Receiver<String>, output: &mut Output) -> Option<String> {
    let mut whole = String::new();
    loop {
        let line = lines.recv().await?;
        match line.strip_suffix('\\') {
            Some(part) if whole.len() < MESSAGE_BYTES_MAX as usize => {
                whole.push_str(part);
                whole.push('\n');
                output.prompt("… ");
            }
            _ => return Some(whole + &line),
        }
    }
}

/// Ctrl-C, as it is pressed.
struct Interrupts {
    pipe: pipe::Receiver,
    _registered: SelfPipe,
}

impl Interrupts {
    fn open() -> io::Result<Interrupts> {
        let registered = SelfPipe::open(&[Signal::SIGINT])?;
        let pipe = pipe::Receiver::from_owned_fd(registered.as_fd().try_clone_to_owned()?)?;
        Ok(Interrupts { pipe, _registered: registered })
    }

    async fn next(&mut self) -> io::Result<()> {
        self.pipe.read(&mut [0; 16]).await.map(|_| ())
    }
}

/// Lines of stdin, read by a thread of their own: it may wait for ever without holding the program back.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Stdout, and what is said beside the answer on stderr.
struct Output {
    terminal: bool,
    /// The cursor stands behind text.
    open_line: bool,
}

impl Output {
    fn new() -> Output {
        Output { terminal: io::stdout().is_terminal(), open_line: false }
    }

    /// Shows text at once. A terminal gets no control characters: a reply must not move its cursor or set its title.
    fn text(&mut self, text: &str) {
        let mut output = io::stdout().lock();
        let plain = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        // Whoever closed our stdout does not want to read on; the answer ends by itself.
        let _ = match self.terminal {
            true => output.write_all(text.chars().filter(plain).collect::<String>().as_bytes()),
            false => output.write_all(text.as_bytes()),
        };
        let _ = output.flush();
        self.open_line = if text.is_empty() { self.open_line } else { !text.ends_with('\n') };
    }

    fn end_line(&mut self) {
        if self.open_line {
            self.text("\n");
        }
    }

    fn prompt(&mut self, text: &str) {
        let _ = write!(io::stderr(), "{text}");
        self.open_line = false;
    }

    fn notice(&mut self, text: &str) {
        self.end_line();
        let plain: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        let _ = writeln!(io::stderr(), "{plain}");
    }
}
