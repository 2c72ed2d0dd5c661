//! Another engine in the place of ours: started, looked after, ended with everything that it started.
//!
//! ```text
//! master ─▶ keeper: one process, this file ─▶ the command, in a process group of its own ◀─ watch
//!   ▲ ready, failed    │ asks its health        │ what it prints
//!   └──────────────────┴────────────◀───────────┘ becomes records of the log, so it passes the redactor
//! ```
//! To the master the keeper is the engine: it is ready when the command answers, it ends when the command ends, and
//! TERM, QUIT or the master's death end the command. A killed keeper can end nobody: the watch, a second child of it in
//! the command's group, does nothing but end that group then, so that what the command started goes too. Deliberately absent: a shell, secrets in the command's environment,
//! and a restart: that is the master's, with its back-off.

mod output;
mod probe;
mod words;

pub use words::{program, words};

use crate::chat::upstream::Target;
use crate::sys::fork::{fork_child, leave};
use crate::sys::signal::SelfPipe;
use crate::sys::wait;
use crate::sys::{exec, fd, process, readiness, signal};
use crate::worker::link::{Received, ToMaster, say, take};
use nix::sys::signal::Signal;
use output::Output;
use probe::Health;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often an engine is asked that is not ready yet, and one that is.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// An engine that was ready and answers nothing for so long is ended. A busy one answers its health endpoint late.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// What TERM gives it to end; with the kill behind it under what the master gives the keeper.
const END_MAX: Duration = Duration::from_millis(1500);
/// What the keeper hears.
const HEARD: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGCHLD];
/// Exit code of a program that could not be executed, as shells have it.
const NOT_EXECUTED: i32 = 127;

/// Another engine, and where it will listen.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program's path and its arguments.
    pub words: Vec<OsString>,
    /// The first upstream.
    pub target: Target,
}

impl Hash for Command {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
        format!("{:?} {}", self.target.place, self.target.base_path).hash(state);
    }
}

/// Starts the command and looks after it to its end; the value is the keeper's exit code. `log` starts this process's
/// log, after the fork.
///
/// # Errors
/// No process, descriptor or event loop.
pub fn run(
    command: &Command,
    environment: &[(OsString, OsString)],
    link: OwnedFd,
    log: impl FnOnce() -> Result<(), String>,
) -> io::Result<i32> {
    process::name("chatcorn engine");
    let (output, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let pid = start(command, environment, theirs)?;
    watch(pid)?;
    log().map_err(io::Error::other)?;
    nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
    let _inside = runtime.enter();
    let keeper = Keeper {
        command,
        pid,
        output: Output::new(readiness::watch(output)?),
        link: readiness::watch(link)?,
        signals: readiness::watch(SelfPipe::open(&HEARD)?)?,
    };
    Ok(runtime.block_on(keeper.keep()))
}

/// Forks and becomes the command. It dies with its keeper.
fn start(command: &Command, environment: &[(OsString, OsString)], output: OwnedFd) -> io::Result<i32> {
    let keeper = std::process::id() as i32;
    let become_it = || -> io::Result<Infallible> {
        process::die_with_parent(keeper)?;
        fd::place(&File::open("/dev/null")?, 0)?;
        fd::place(&output, 1)?;
        fd::place(&output, 2)?;
        signal::unblock_all()?;
        exec::exec(&command.words[0], &command.words, environment)
    };
    let child = fork_child(|| match become_it() {
        Ok(never) => never,
        Err(error) => {
            eprintln!("{}: {error}", command.words[0].to_string_lossy());
            leave(NOT_EXECUTED)
        }
    })?;
    Ok(child.as_raw())
}

/// Forks what ends the command's group when this process cannot.
fn watch(leader: i32) -> io::Result<()> {
    let keeper = std::process::id() as i32;
    // Its end says that this process is done with the fork, which puts a child into a group of its own.
    let (forked, forking) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let wait_for_it = || -> io::Result<Infallible> {
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        fd::close_all_but(&[nothing.as_raw_fd(), forked.as_raw_fd()]);
        (0..=2).try_for_each(|number| fd::place(&nothing, number))?;
        nix::unistd::read(&forked, &mut [0])?;
        process::end_group_with_parent(leader, keeper)
    };
    fork_child(|| match wait_for_it() {
        Ok(never) => never,
        Err(_) => leave(1),
    })?;
    drop(forking);
    Ok(())
}

/// A command that lives, and everything that is heard of it.
struct Keeper<'a> {
    command: &'a Command,
    pid: i32,
    output: Output,
    link: AsyncFd<OwnedFd>,
    signals: AsyncFd<SelfPipe>,
}

/// Why a command is looked after no longer.
enum End {
    /// It ended by itself.
    Died,
    /// The master wants it to end.
    Told,
    /// At once: QUIT, or the master is gone.
    Now,
    /// It answered nothing for too long.
    Hung,
}

impl Keeper<'_> {
    async fn keep(mut self) -> i32 {
        tracing::info!(pid = self.pid, "the engine's command was started");
        let end = self.until_end().await;
        if matches!(end, End::Told) {
            process::kill_group(self.pid, Signal::SIGTERM);
            let _ = timeout(END_MAX, self.until_died()).await;
        }
        // Whatever it started ends with it. Its number is still its own, for it is not reaped yet.
        process::kill_group(self.pid, Signal::SIGKILL);
        let how = wait::until_ended(self.pid);
        let last = self.output.rest();
        let reason = match (end, how) {
            (End::Told | End::Now, _) => return 0,
            (End::Hung, _) => format!("the engine's command answered nothing for {} s", SILENCE_MAX.as_secs()),
            (End::Died, Some(how)) => format!("the engine's command ended ({how}), its last line: {last}"),
            (End::Died, None) => "the engine's command ended".to_owned(),
        };
        let _ = say(self.link.get_ref(), &ToMaster::Failed(reason).encode());
        1
    }

    async fn until_end(&mut self) -> End {
        let (mut ready, mut heard) = (false, Instant::now());
        let mut asking = Box::pin(ask(&self.command.target, Duration::ZERO));
        loop {
            tokio::select! {
                end = hear(&self.signals, &self.link, self.pid) => return end,
                () = self.output.next() => {}
                health = &mut asking => {
                    if health == Health::Good && !ready {
                        ready = true;
                        tracing::info!("ready");
                        let _ = say(self.link.get_ref(), &ToMaster::Ready.encode());
                    }
                    if health != Health::Silent {
                        heard = Instant::now();
                    }
                    asking.set(ask(&self.command.target, if ready { ASK_EVERY.1 } else { ASK_EVERY.0 }));
                }
                () = sleep_until(heard + SILENCE_MAX), if ready => return End::Hung,
            }
        }
    }

    async fn until_died(&mut self) {
        loop {
            tokio::select! {
                end = hear(&self.signals, &self.link, self.pid) => if !matches!(end, End::Told) { return },
                () = self.output.next() => {}
            }
        }
    }
}

async fn ask(target: &Target, after: Duration) -> Health {
    sleep(after).await;
    probe::look(target).await
}

/// Waits for what ends it. Cancel-safe.
async fn hear(signals: &AsyncFd<SelfPipe>, link: &AsyncFd<OwnedFd>, pid: i32) -> End {
    loop {
        tokio::select! {
            ready = signals.readable() => {
                let arrived = signals.get_ref().drain();
                if arrived.contains(&Signal::SIGQUIT) {
                    return End::Now;
                }
                // Its own end first: somebody may have told both.
                if wait::has_ended(pid) {
                    return End::Died;
                }
                if arrived.iter().any(|signal| matches!(signal, Signal::SIGTERM | Signal::SIGINT)) {
                    return End::Told;
                }
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            ready = link.readable() => match (take(link.get_ref()), ready) {
                (Received::Closed, _) | (_, Err(_)) => return End::Now,
                (Received::Packet(_), _) => {}
                (Received::Nothing, Ok(mut ready)) => ready.clear_ready(),
            },
        }
    }
}
