//! The engine's life: Loading -> Serving -> Stopping -> gone.
//!
//! The model is loaded on the thread that will evaluate, so that a signal or the master's death is heard meanwhile.

use super::Settings;
use super::batch::{Batch, Message, Shape};
use super::counters::Counters;
use super::model::{self, Setup, Vocabulary};
use super::prompt::Prompts;
use super::serve::{self, Service};
use crate::board::Board;
use crate::sys::{fd, fork, process, signal::SelfPipe};
use crate::worker::link::{Received, ToMaster, say, take};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};

/// Streams have so long to take their error event when the engine stops.
const STREAMS_END_MAX: Duration = Duration::from_millis(500);
/// The step under way has so long to end; with the above, under the second that TERM promises.
const STEP_END_MAX: Duration = Duration::from_millis(300);

/// The process `chatcorn engine`: loads the model, tells the master, serves until TERM or until the master is gone.
/// Exit code 1 when it cannot serve, after it has said why.
pub fn run(settings: Settings) -> ExitCode {
    process::name("chatcorn engine");
    let link = (settings.link_fd >= 0).then(|| fd::adopt(settings.link_fd)).and_then(Result::ok);
    match start(&settings, link.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(%reason, "the engine cannot serve");
            if let Some(link) = &link {
                let _ = say(link, &ToMaster::Failed(reason).encode());
            }
            ExitCode::FAILURE
        }
    }
}

fn start(settings: &Settings, link: Option<&OwnedFd>) -> Result<(), String> {
    process::die_with_parent(nix::unistd::getppid().as_raw()).map_err(told("cannot be bound to the master"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(told("no event loop"))?;
    let done = runtime.block_on(live(settings, link));
    runtime.shutdown_background();
    done
}

fn told(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

async fn live(settings: &Settings, link: Option<&OwnedFd>) -> Result<(), String> {
    let mut end = hear(link).map_err(told("no signals"))?;
    let listener = listener(settings.listener_fd).map_err(told("no listening socket"))?;
    let counters = counters(settings.board_fd)?;
    let mut work = Work::begin(settings, counters)?;
    let vocabulary = tokio::select! {
        loaded = &mut work.loaded => loaded.map_err(|_| "the model's thread died while it loaded".to_owned())??,
        // Nothing of ours to finish, and llama.cpp cannot be interrupted.
        _ = &mut end => fork::leave(0),
    };
    let service = service(settings, vocabulary, work.inbox.clone())?;
    tracing::info!(model = service.model, slots = settings.slots, context = settings.context, "ready");
    if let Some(link) = link {
        say(link, &ToMaster::Ready.encode()).map_err(told("the master does not listen"))?;
    }
    serve_until(end, listener, service, work).await
}

async fn serve_until(
    end: oneshot::Receiver<()>,
    listener: UnixListener,
    service: Arc<Service>,
    mut work: Work,
) -> Result<(), String> {
    let (stop, stopping) = watch::channel(false);
    let mut serving = std::pin::pin!(serve::listen(listener, service, stopping));
    tokio::select! {
        () = &mut serving => {}
        _ = end => {}
        _ = &mut work.ended => return Err("the model's thread died".to_owned()),
    }
    let _ = stop.send(true);
    let _ = work.inbox.send(Message::Stop);
    let _ = tokio::time::timeout(STREAMS_END_MAX, serving).await;
    if tokio::time::timeout(STEP_END_MAX, &mut work.ended).await.is_err() {
        // llama.cpp's threads must not meet the destructors of a process that returns.
        fork::leave(0);
    }
    Ok(())
}

fn listener(raw: i32) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(fd::adopt(raw)?);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn counters(raw: i32) -> Result<Counters, String> {
    if raw < 0 {
        return Ok(Counters::none());
    }
    let board = fd::adopt(raw).and_then(Board::adopt).map_err(told("no board"))?;
    Ok(Counters::over(board.engine()))
}

/// Everything that the HTTP side needs.
pub(super) fn service(
    settings: &Settings,
    vocabulary: Vocabulary,
    batch: mpsc::Sender<Message>,
) -> Result<Arc<Service>, String> {
    let prompts = Prompts::new(vocabulary, settings.context as usize)?;
    let stem = settings.model.file_stem().unwrap_or_default();
    let model = stem.to_string_lossy().into_owned();
    Ok(Arc::new(Service { prompts, batch, model, created: serve::now_s() }))
}

/// The thread that loads and evaluates.
pub(super) struct Work {
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) loaded: oneshot::Receiver<Result<Vocabulary, String>>,
    /// Closes when the thread has ended, model and all.
    ended: oneshot::Receiver<()>,
}

impl Work {
    pub(super) fn begin(settings: &Settings, counters: Counters) -> Result<Work, String> {
        let (inbox, messages) = mpsc::channel();
        let (tell, loaded) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let settings = settings.clone();
        let work = move || {
            match prepare(&settings, messages, counters) {
                Err(reason) => drop(tell.send(Err(reason))),
                Ok((batch, vocabulary)) => {
                    if tell.send(Ok(vocabulary)).is_ok() {
                        batch.run();
                    }
                }
            }
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("model".into()).spawn(work);
        thread.map(|_| Work { inbox, loaded, ended }).map_err(told("no thread for the model"))
    }
}

fn prepare(
    settings: &Settings,
    messages: mpsc::Receiver<Message>,
    counters: Counters,
) -> Result<(Batch<model::Llama>, Vocabulary), String> {
    let vocabulary = model::load(&settings.model)?;
    if settings.context > vocabulary.context_max() {
        let (asked, trained) = (settings.context, vocabulary.context_max());
        tracing::warn!(asked, trained, "the model was trained on a shorter context");
    }
    let Settings { slots, context, queue, threads, .. } = *settings;
    let llama = vocabulary.open(Setup { slots, context, threads })?;
    let shape = Shape { slots: slots.max(1) as usize, context: context as usize, queue };
    let mut batch = Batch::new(llama, shape, messages, counters);
    batch.warm(vocabulary.any_token())?;
    Ok((batch, vocabulary))
}

/// Hears what ends the engine, on a thread of its own: neither a long step nor a busy loop makes it deaf.
/// The receiver learns of TERM and INT; QUIT and the master's death end the process here and now.
fn hear(link: Option<&OwnedFd>) -> io::Result<oneshot::Receiver<()>> {
    let signals = SelfPipe::open(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT])?;
    let link = link.map(OwnedFd::try_clone).transpose()?;
    let (tell, heard) = oneshot::channel();
    let mut tell = Some(tell);
    let listen = move || {
        loop {
            wait_for(&signals, link.as_ref());
            let arrived = signals.drain();
            if arrived.contains(&Signal::SIGQUIT) || link.as_ref().is_some_and(|link| take(link) == Received::Closed) {
                fork::leave(0);
            }
            if let Some(tell) = tell.take_if(|_| !arrived.is_empty()) {
                let _ = tell.send(());
            }
        }
    };
    std::thread::Builder::new().name("ends".into()).spawn(listen)?;
    Ok(heard)
}

/// Returns when a signal came or the link has something; also when a signal interrupted the wait.
fn wait_for(signals: &SelfPipe, link: Option<&OwnedFd>) {
    let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    fds.extend(link.map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
    let _ = poll(&mut fds, PollTimeout::NONE);
}
