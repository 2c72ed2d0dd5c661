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
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot, watch};

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
            tracing::error!(target: "engine", %reason, "the engine cannot serve");
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
    let mut ends = Ends::open(link).map_err(told("no signals"))?;
    let listener = listener(settings.listener_fd).map_err(told("no listening socket"))?;
    let counters = counters(settings.board_fd)?;
    let mut work = Work::begin(settings, counters)?;
    let vocabulary = tokio::select! {
        loaded = &mut work.loaded => loaded.map_err(|_| "the model's thread died while it loaded".to_owned())??,
        // Nothing of ours to finish, and llama.cpp cannot be interrupted.
        _ = ends.next() => fork::leave(0),
    };
    let service = service(settings, vocabulary, work.inbox.clone(), counters)?;
    tracing::info!(target: "engine", model = service.model, slots = settings.slots, context = settings.context, "ready");
    if let Some(link) = link {
        say(link, &ToMaster::Ready.encode()).map_err(told("the master does not listen"))?;
    }
    serve_until(&mut ends, listener, service, work).await
}

async fn serve_until(
    ends: &mut Ends<'_>,
    listener: UnixListener,
    service: Arc<Service>,
    mut work: Work,
) -> Result<(), String> {
    let (stop, stopping) = watch::channel(false);
    let mut serving = std::pin::pin!(serve::listen(listener, service, stopping));
    tokio::select! {
        () = &mut serving => {}
        () = ends.next() => {}
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

fn service(
    settings: &Settings,
    vocabulary: Vocabulary,
    batch: mpsc::Sender<Message>,
    counters: Counters,
) -> Result<Arc<Service>, String> {
    let prompts = Prompts::new(vocabulary, settings.context as usize)?;
    let places = Arc::new(Semaphore::new(settings.queue.saturating_add(settings.slots.max(1) as usize).min(1 << 20)));
    let stem = settings.model.file_stem().unwrap_or_default();
    let model = stem.to_string_lossy().into_owned();
    Ok(Arc::new(Service { prompts, batch, places, counters, model, created: serve::now_s() }))
}

/// The thread that loads and evaluates.
struct Work {
    inbox: mpsc::Sender<Message>,
    loaded: oneshot::Receiver<Result<Vocabulary, String>>,
    /// Closes when the thread has ended, model and all.
    ended: oneshot::Receiver<()>,
}

impl Work {
    fn begin(settings: &Settings, counters: Counters) -> Result<Work, String> {
        let (inbox, messages) = mpsc::channel();
        let (tell, loaded) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let settings = settings.clone();
        let work = move || {
            match prepare(&settings, messages, counters) {
                Ok((batch, vocabulary)) if tell.send(Ok(vocabulary)).is_ok() => batch.run(),
                Ok(_) => {}
                Err(reason) => drop(tell.send(Err(reason))),
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
        tracing::warn!(target: "engine", asked, trained, "the model was trained on a shorter context");
    }
    let Settings { slots, context, threads, .. } = *settings;
    let llama = vocabulary.open(Setup { slots, context, threads })?;
    let shape = Shape { slots: slots.max(1) as usize, context: context as usize };
    let mut batch = Batch::new(llama, shape, messages, counters);
    batch.warm(vocabulary.any_token())?;
    Ok((batch, vocabulary))
}

/// What ends the engine: TERM or INT, QUIT, the master's death.
struct Ends<'a> {
    signals: AsyncFd<SelfPipe>,
    link: Option<AsyncFd<&'a OwnedFd>>,
}

impl<'a> Ends<'a> {
    fn open(link: Option<&'a OwnedFd>) -> io::Result<Ends<'a>> {
        let signals = SelfPipe::open(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT])?;
        let link = link.map(|link| AsyncFd::with_interest(link, tokio::io::Interest::READABLE)).transpose()?;
        Ok(Ends { signals: AsyncFd::with_interest(signals, tokio::io::Interest::READABLE)?, link })
    }

    /// Returns when the engine shall stop in order. When it shall stop now, it does not return.
    async fn next(&mut self) {
        tokio::select! {
            () = terminated(&self.signals) => {}
            () = abandoned(self.link.as_ref()) => fork::leave(0),
        }
    }
}

async fn terminated(signals: &AsyncFd<SelfPipe>) {
    while let Ok(mut ready) = signals.readable().await {
        let arrived = ready.get_inner().drain();
        if arrived.contains(&Signal::SIGQUIT) {
            fork::leave(0);
        }
        if !arrived.is_empty() {
            return;
        }
        ready.clear_ready();
    }
}

async fn abandoned(link: Option<&AsyncFd<&OwnedFd>>) {
    let Some(link) = link else { return std::future::pending().await };
    while let Ok(mut ready) = link.readable().await {
        match take(ready.get_inner()) {
            Received::Closed => return,
            // The master says nothing to the engine that this version knows.
            Received::Packet(_) => {}
            Received::Nothing => ready.clear_ready(),
        }
    }
}
