//! A worker's life in order:
//!
//! ```text
//! forked ─▶ limits, walls ─▶ logs ─▶ store ─▶ one event loop a thread ─▶ ready ─▶ serving ─▶ drain ─▶ gone
//! ```
//! Each runtime thread is a loop of its own (a *lane*) with its own sockets, front and upstream connections; they share
//! the store and the switches of the drain. The first one also listens to the master: its words, its signals, and its
//! death, which is an end of file.
//!
//! Deliberately absent: a way back. `run` returns only an exit code.

mod accept;
mod balance;
mod drain;
pub mod link;
mod operator;
mod turns;
mod walls;
mod wear;

use crate::board::{Board, Lane, Sender, State};
use crate::chat::{self, Chat, store::Store};
use crate::http::auth::Door;
use crate::http::leaving::Leaving;
use crate::http::{self, App};
use crate::limit::{self, Limiter};
use crate::listener::Gate;
use crate::log;
use crate::sys::{clock, fd, readiness, signal::SelfPipe, stack};
use balance::Balance;
use drain::Switches;
use link::{Received, ToMaster, ToWorker};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

/// A loop turns at least so often, to beat and to look at its connections: a client that left is noticed by then.
const BEAT: Duration = Duration::from_millis(500);
/// How often the worker looks after what its lanes share.
const TEND: Duration = Duration::from_secs(1);
/// Old sessions are looked for once an hour, and soon after a start.
const PURGE_EVERY_TICKS: u64 = 3600;
/// Descriptors beside connections: logs, store, upstreams, the runtime.
const DESCRIPTORS_BESIDE: u64 = 256;
/// Threads for name lookups; they end when they are idle.
const BLOCKING_THREADS_MAX: usize = 2;

/// What a worker is configured to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Runtime threads.
    pub threads: usize,
    /// Connections at once.
    pub connections_max: u64,
    /// Requests after which it asks to be replaced, and at most so many more, at random; 0: never.
    pub requests: (u64, u64),
    /// Its front.
    pub http: http::Plan,
    /// Its chat.
    pub chat: chat::Plan,
    /// Its sessions.
    pub store: chat::store::Plan,
    /// Its limits; `None`: everybody may do everything.
    pub limits: Option<limit::Plan>,
    /// Its logs.
    pub log: log::Plan,
}

impl Plan {
    /// Descriptors that one worker needs.
    pub fn descriptors(&self) -> u64 {
        self.connections_max + DESCRIPTORS_BESIDE
    }
}

/// What a worker is given.
pub struct Kit {
    /// Its configuration.
    pub plan: Plan,
    /// The shared sockets.
    pub listeners: Vec<Gate>,
    /// To the master.
    pub link: OwnedFd,
    /// Its end of a log pipe.
    pub log: OwnedFd,
    /// What all count in.
    pub limits: Option<limit::Shared>,
    /// What all see.
    pub board: Board,
    /// Its place on the board.
    pub slot: usize,
}

/// Lives a worker's life; returns its exit code.
pub fn run(kit: Kit) -> i32 {
    let slot = kit.board.slot(kit.slot);
    slot.enter(std::process::id(), kit.plan.threads);
    // Without it a hang is told without stacks, and nothing else is amiss.
    let _ = stack::prepare(slot.stack_words());
    let _ = fd::raise_limit(kit.plan.descriptors());
    turns::begin();
    let walls = walls::raise(&kit.plan);
    let started = log::start_worker(&kit.plan.log, Sender::Slot(kit.slot), kit.log, kit.board);
    let ended = started.as_ref().map_err(Clone::clone).and_then(|_| {
        walls.report();
        let store = Store::open(&kit.plan.store).map_err(|error| format!("session store: {error}"))?;
        let shared = Shared {
            bells: (0..kit.plan.threads).map(|_| Notify::new()).collect(),
            health: Arc::new(chat::Watch::new(kit.board, &kit.plan.chat)),
            plan: kit.plan,
            store,
            limits: kit.limits,
            board: kit.board,
            slot: kit.slot,
            front: Arc::default(),
            leaving: Arc::default(),
            stop: watch::Sender::new(false),
            ending: watch::Sender::new(false),
        };
        live(shared, kit.listeners, kit.link.try_clone().map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())
    });
    let code = match ended {
        Ok(()) => 0,
        Err(reason) => {
            tracing::error!(%reason, "worker failed");
            let _ = link::say(&kit.link, &ToMaster::Failed(reason).encode());
            1
        }
    };
    drop(started);
    code
}

/// What the lanes of one worker have in common.
#[derive(Clone)]
struct Shared {
    plan: Plan,
    store: Store,
    health: Arc<chat::Watch>,
    limits: Option<limit::Shared>,
    board: Board,
    slot: usize,
    /// That of the first lane, for what an operator asks.
    front: Arc<OnceLock<Arc<App>>>,
    leaving: Arc<Leaving>,
    bells: Arc<[Notify]>,
    stop: watch::Sender<bool>,
    ending: watch::Sender<bool>,
}

fn live(shared: Shared, listeners: Vec<Gate>, link: OwnedFd) -> io::Result<()> {
    let (up, ups) = mpsc::channel();
    for number in 1..shared.plan.threads {
        let sockets = listeners.iter().map(Gate::try_clone).collect::<io::Result<Vec<_>>>()?;
        let (shared, up) = (shared.clone(), up.clone());
        std::thread::Builder::new().name(format!("lane {number}")).spawn(move || {
            let lines_wait = Arc::new(Notify::new());
            let runtime = runtime(shared.board.slot(shared.slot).lane(number), lines_wait.clone());
            let ended = runtime.and_then(|runtime| {
                runtime.spawn(hand_over_lines(lines_wait));
                runtime.block_on(lane(&shared, sockets, number, &up))
            });
            if let Err(error) = ended {
                let _ = up.send(Err(error));
            }
        })?;
    }
    let lines_wait = Arc::new(Notify::new());
    let runtime = runtime(shared.board.slot(shared.slot).lane(0), lines_wait.clone())?;
    runtime.block_on(async {
        tokio::spawn(hand_over_lines(lines_wait));
        let serving = lane(&shared, listeners, 0, &up);
        tokio::select! {
            ended = serving => ended,
            ended = obey(&shared, link, &ups) => ended,
        }
    })?;
    shared.store.close();
    Ok(())
}

/// A loop that shows on the board when it turns and when it rests, and hands its log lines on before it rests.
fn runtime(lane: Lane, lines_wait: Arc<Notify>) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .on_thread_unpark(move || lane.turn(clock::monotonic_ms()))
        .on_thread_park(move || {
            let now_ms = clock::monotonic_ms();
            if log::rest(now_ms) {
                lines_wait.notify_one();
            }
            turns::rest(now_ms);
            lane.park();
        })
        .build()
}

/// Log lines that waited for company when the lane last rested go when they have waited long enough.
async fn hand_over_lines(waiting: Arc<Notify>) {
    loop {
        waiting.notified().await;
        tokio::time::sleep(Duration::from_millis(log::LINGER_MS)).await;
        log::flush();
    }
}

/// One loop: accepts from every socket until the drain, and beats until the process ends.
async fn lane(shared: &Shared, sockets: Vec<Gate>, number: usize, up: &mpsc::Sender<io::Result<()>>) -> io::Result<()> {
    let own = shared.board.slot(shared.slot).lane(number);
    let chat =
        Chat::new(shared.plan.chat.clone(), shared.store.clone(), shared.health.clone(), shared.ending.subscribe());
    let limiter = shared.plan.limits.as_ref().zip(shared.limits).map(|(plan, counts)| Limiter::new(plan, counts));
    let place = (shared.board, shared.slot, number);
    let app = Arc::new(App::new(shared.plan.http.clone(), chat, limiter, place, shared.leaving.clone())?);
    if let Some(limiter) = app.limiter() {
        tokio::spawn(limiter.keep());
    }
    if let Some(door) = app.door() {
        tokio::spawn(watch_keys(door.clone()));
    }
    own.turn(clock::monotonic_ms());
    let roomy = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > shared.plan.http.workers);
    for socket in sockets {
        let balance = Balance::new(shared.board, own, shared.slot, shared.plan.connections_max, roomy);
        balance.enter();
        let crew = accept::Crew { bells: shared.bells.clone(), own: number };
        let accepting = accept::run(socket, app.clone(), (own, crew), balance, shared.stop.subscribe());
        tokio::spawn(async move {
            if let Err(error) = accepting.await {
                tracing::error!(%error, "cannot accept");
            }
        });
    }
    let _ = up.send(Ok(()));
    if number == 0 {
        let _ = shared.front.set(app.clone());
        tokio::spawn(tend(app.clone()));
    }
    let mut beat = tokio::time::interval(BEAT);
    for number in 0u64.. {
        beat.tick().await;
        own.turn(clock::monotonic_ms());
        app.sweep();
        log::flush();
        if number % 2 == 1 {
            own.melt_handicap();
        }
    }
    Ok(())
}

/// What one lane does for all: looks at the upstream when nobody has for a while, and deletes old sessions.
async fn tend(app: Arc<App>) {
    let mut ticks = tokio::time::interval(TEND);
    let mut more = false;
    for tick in 0u64.. {
        ticks.tick().await;
        app.chat().look().await;
        if more || tick % PURGE_EVERY_TICKS == 0 {
            more = app.chat().purge().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "old sessions were not deleted");
                false
            });
        }
    }
}

/// Takes new keys over when their file changes; what cannot be read changes nothing.
async fn watch_keys(door: Arc<Door>) {
    let mut seen = door.stamp();
    let mut ticks = tokio::time::interval(TEND);
    loop {
        ticks.tick().await;
        let looking = door.clone();
        let looked = tokio::task::spawn_blocking(move || (looking.refresh(&mut seen), seen)).await;
        let Ok((result, stamp)) = looked else { continue };
        seen = stamp;
        match result {
            Ok(false) => {}
            Ok(true) => tracing::info!("API keys read again"),
            Err(reason) => tracing::warn!(%reason, "API keys not read again: the old ones go on"),
        }
    }
}

/// Says that the worker is ready, then does what the master wants; returns when the worker shall leave.
async fn obey(shared: &Shared, link: OwnedFd, ups: &mpsc::Receiver<io::Result<()>>) -> io::Result<()> {
    let slot = shared.board.slot(shared.slot);
    for _ in 0..shared.plan.threads {
        all_up(ups).await?;
    }
    slot.set_state(State::Ready);
    let link = readiness::watch(link)?;
    let signals = readiness::watch(SelfPipe::open(&[Signal::SIGTERM, Signal::SIGQUIT])?)?;
    link::say(link.get_ref(), &ToMaster::Ready.encode())?;
    if let Some(most) = wear::limit(shared.plan.requests)? {
        tokio::spawn(wear::tell(slot, most, link.get_ref().try_clone()?));
    }
    let switches = Switches {
        leaving: shared.leaving.clone(),
        stop_accepting: shared.stop.clone(),
        ending: shared.ending.clone(),
    };
    let mut order = next_order(shared, &link, &signals).await?;
    while let Some(drain) = order {
        order = tokio::select! {
            () = drain::run(drain, slot, &switches) => None,
            // A later drain is a shorter one.
            later = next_order(shared, &link, &signals) => later?,
        };
    }
    Ok(())
}

/// A lane's word comes from another thread; it is asked for between the turns of this one.
async fn all_up(ups: &mpsc::Receiver<io::Result<()>>) -> io::Result<()> {
    loop {
        match ups.try_recv() {
            Ok(result) => return result,
            Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_micros(200)).await,
            Err(mpsc::TryRecvError::Disconnected) => return Err(io::Error::other("a runtime thread ended")),
        }
    }
}

/// Waits for the master: `Some` is a drain, `None` means leave now (QUIT, or the master is gone).
async fn next_order(
    shared: &Shared,
    link: &AsyncFd<OwnedFd>,
    signals: &AsyncFd<SelfPipe>,
) -> io::Result<Option<ToWorker>> {
    loop {
        tokio::select! {
            ready = link.readable() => {
                let mut ready = ready?;
                match link::take(link.get_ref()) {
                    Received::Closed => return Ok(None),
                    Received::Nothing => ready.clear_ready(),
                    Received::Packet(packet) => match ToWorker::decode(&packet) {
                        Some(ToWorker::Limits { call, reset, client }) => {
                            let link = link.get_ref().try_clone()?;
                            tokio::spawn(operator::limits(shared.front.get().cloned(), link, call, reset, client));
                        }
                        Some(drain) => return Ok(Some(drain)),
                        None => {}
                    },
                }
            }
            ready = signals.readable() => {
                let arrived = signals.get_ref().drain();
                ready?.clear_ready();
                if arrived.contains(&Signal::SIGQUIT) {
                    return Ok(None);
                }
                if arrived.contains(&Signal::SIGTERM) {
                    return Ok(Some(ToWorker::alone()));
                }
            }
        }
    }
}
