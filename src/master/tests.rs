//! The master's mind, driven by a pretended kernel.

mod orders;

use super::roster::{Kind, Life};
use super::state::{Action, Event, Phase, Shape, State};
use crate::sys::wait::How;
use crate::worker::link::{ToMaster, ToWorker};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn shape(workers: usize) -> Shape {
    let seconds = Duration::from_secs;
    Shape {
        workers,
        engine: Some(1),
        engine_beside: true,
        boot_timeout: seconds(10),
        hang_timeout: seconds(30),
        graceful_timeout: seconds(30),
        request_timeout: seconds(120),
        drain_delay: Duration::ZERO,
        rss_bytes_max: 0,
    }
}

/// Children as a kernel would have them: pid to name and kind.
struct World {
    state: State,
    now: Duration,
    next_pid: i32,
    alive: BTreeMap<i32, (u64, Kind)>,
    told: Vec<(u64, ToWorker)>,
    killed: Vec<(i32, Signal)>,
    reports: Vec<String>,
    loads: usize,
    /// Of these loads.
    unanswered: usize,
    newest: u32,
    /// Log processes that were told to go.
    retired: Vec<i32>,
    examined: Vec<u64>,
    finished: Option<i32>,
}

impl World {
    fn new(shape: Shape) -> World {
        World {
            state: State::new(shape),
            now: Duration::from_secs(1000),
            next_pid: 100,
            alive: BTreeMap::new(),
            told: Vec::new(),
            killed: Vec::new(),
            reports: Vec::new(),
            loads: 0,
            unanswered: 0,
            newest: 0,
            retired: Vec::new(),
            examined: Vec::new(),
            finished: None,
        }
    }

    fn on(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.state.on(self.now, event) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Fork(id) => {
                let kind = self.state.child(id).expect("enrolled before it is forked").kind;
                self.next_pid += 1;
                self.alive.insert(self.next_pid, (id, kind));
                return Some(Event::Forked(id, self.next_pid));
            }
            Action::Tell(id, message) => self.told.push((id, message)),
            Action::Kill(pid, signal) => {
                assert!(self.alive.contains_key(&pid), "a signal to a stranger");
                self.killed.push((pid, signal));
            }
            Action::Load => (self.loads, self.unanswered) = (self.loads + 1, self.unanswered + 1),
            Action::RetireLog => self.retired.extend(self.pids(Kind::Log)),
            Action::Examine(id) => self.examined.push(id),
            Action::Report(report) => self.reports.push(format!("{report:?}")),
            Action::Finish(code) => self.finished = Some(code),
            _ => {}
        }
        None
    }

    fn pids(&self, kind: Kind) -> Vec<i32> {
        self.alive.iter().filter(|(_, (_, other))| *other == kind).map(|(pid, _)| *pid).collect()
    }

    fn ready(&mut self, pid: i32) {
        let (id, _) = self.alive[&pid];
        self.on(Event::Said(id, ToMaster::Ready));
    }

    fn end(&mut self, pid: i32, how: How) {
        self.alive.remove(&pid);
        self.on(Event::Exited(pid, how));
    }

    fn all_ready(&mut self) {
        for pid in self.pids(Kind::Migration) {
            self.end(pid, How::Code(0));
        }
        for pid in self.alive.keys().copied().collect::<Vec<_>>() {
            self.ready(pid);
        }
    }

    fn booted(workers: usize) -> World {
        let mut world = World::new(shape(workers));
        world.on(Event::Start);
        world.all_ready();
        assert_eq!(world.state.phase(), Phase::Running);
        world
    }

    fn reported(&self, what: &str) -> bool {
        self.reports.iter().any(|report| report.contains(what))
    }
}

#[test]
fn no_worker_is_forked_before_the_schema_is_up_to_date() {
    let mut world = World::new(shape(4));
    world.on(Event::Start);
    assert_eq!(
        (world.pids(Kind::Worker).len(), world.pids(Kind::Log).len(), world.pids(Kind::Engine).len()),
        (0, 1, 1)
    );
    let migration = world.pids(Kind::Migration)[0];
    world.end(migration, How::Code(0));
    assert_eq!(world.pids(Kind::Worker).len(), 4);
}

#[test]
fn a_store_that_cannot_be_used_ends_the_first_boot() {
    let mut world = World::new(shape(4));
    world.on(Event::Start);
    let migration = world.pids(Kind::Migration)[0];
    let (id, _) = world.alive[&migration];
    world.on(Event::Said(id, ToMaster::Failed("no database".into())));
    world.end(migration, How::Code(1));
    assert!(world.reported("no database"));
    world.end(world.pids(Kind::Engine)[0], How::Code(0));
    world.end(world.pids(Kind::Log)[0], How::Code(0));
    assert_eq!(world.finished, Some(1));
}

#[test]
fn a_dead_worker_is_replaced_at_once_and_a_stranger_changes_nothing() {
    let mut world = World::booted(4);
    world.on(Event::Exited(9999, How::Code(3)));
    assert_eq!((world.finished, world.pids(Kind::Worker).len()), (None, 4));
    world.end(world.pids(Kind::Worker)[0], How::Signal(9));
    assert_eq!(world.pids(Kind::Worker).len(), 4);
    world.end(world.pids(Kind::Log)[0], How::Signal(9));
    world.end(world.pids(Kind::Engine)[0], How::Signal(6));
    assert_eq!((world.pids(Kind::Log).len(), world.pids(Kind::Engine).len()), (1, 1));
}

#[test]
fn workers_that_never_boot_end_the_first_boot_with_3() {
    let mut world = World::new(shape(2));
    world.on(Event::Start);
    world.end(world.pids(Kind::Migration)[0], How::Code(0));
    while world.state.phase() == Phase::Booting {
        for pid in world.pids(Kind::Worker) {
            world.end(pid, How::Code(1));
        }
        world.now += MS * 100;
        world.on(Event::Tick);
    }
    assert!(world.reported("NoWorker"));
    for kind in [Kind::Worker, Kind::Engine, Kind::Log] {
        for pid in world.pids(kind) {
            world.end(pid, How::Code(0));
        }
    }
    assert_eq!(world.finished, Some(3));
    assert!(world.now < Duration::from_secs(1002), "within two seconds");
}

#[test]
fn while_one_worker_lives_the_master_does_not_give_up() {
    let mut world = World::booted(2);
    let forks = world.next_pid;
    let healthy = world.pids(Kind::Worker)[0];
    for _ in 0..100 {
        for pid in world.pids(Kind::Worker).into_iter().filter(|pid| *pid != healthy) {
            world.end(pid, How::Code(1));
        }
        world.now += MS * 100;
        world.on(Event::Tick);
    }
    assert_eq!((world.finished, world.state.phase()), (None, Phase::Running));
    assert!(world.next_pid - forks <= 10, "{} forks in 10 s", world.next_pid - forks);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_and_replaced() {
    let mut world = World::new(shape(1));
    world.on(Event::Start);
    world.end(world.pids(Kind::Migration)[0], How::Code(0));
    let hanging = world.pids(Kind::Worker)[0];
    world.now += Duration::from_secs(10);
    world.on(Event::Tick);
    assert!(world.killed.contains(&(hanging, Signal::SIGKILL)));
    world.end(hanging, How::Signal(9));
    world.now += MS * 100;
    world.on(Event::Tick);
    assert_eq!(world.pids(Kind::Worker).len(), 1);
}

#[test]
fn a_silent_worker_is_killed_and_named() {
    let mut world = World::booted(2);
    let (id, _) = world.state.watched().next().unwrap();
    world.on(Event::Silent(id, Duration::from_secs(31)));
    world.now += MS * 150;
    world.on(Event::Tick);
    assert!(world.reported("Hung"));
    assert_eq!(world.killed.len(), 1);
}

#[test]
fn a_worker_that_hangs_while_it_drains_is_not_waited_for() {
    let mut world = World::booted(2);
    world.on(Event::Fewer);
    let drained = world.state.watched().find(|(id, _)| !matches!(world.state.child(*id).unwrap().life, Life::Ready));
    world.on(Event::Silent(drained.unwrap().0, Duration::from_secs(31)));
    world.now += MS * 150;
    world.on(Event::Tick);
    assert!(world.reported("Hung"));
    assert_eq!(world.killed.len(), 1);
}

#[test]
fn stopping_goes_from_the_workers_to_the_log() {
    let mut world = World::booted(2);
    world.on(Event::Stop);
    assert_eq!(world.told.len(), 2);
    assert!(world.killed.is_empty(), "the engine serves until the last worker is gone");
    for pid in world.pids(Kind::Worker) {
        world.end(pid, How::Code(0));
    }
    let engine = world.pids(Kind::Engine)[0];
    assert_eq!(world.killed, [(engine, Signal::SIGTERM)]);
    world.end(engine, How::Code(0));
    assert_eq!(world.finished, None);
    world.end(world.pids(Kind::Log)[0], How::Code(0));
    assert_eq!(world.finished, Some(0));
}

#[test]
fn a_second_term_shortens_and_int_ends() {
    let mut world = World::booted(1);
    world.on(Event::Stop);
    world.on(Event::Stop);
    let ToWorker::Drain { limit, .. } = world.told[1].1 else { panic!("no drain") };
    assert_eq!(limit, Duration::from_secs(1));
    world.on(Event::StopNow);
    assert_eq!(world.killed, [(world.pids(Kind::Worker)[0], Signal::SIGQUIT)]);
    world.now += Duration::from_secs(2);
    world.on(Event::Tick);
    assert_eq!(world.killed[1].1, Signal::SIGKILL);
}

#[test]
fn a_reload_proves_itself_before_the_old_workers_drain() {
    let mut world = World::booted(2);
    let old = world.pids(Kind::Worker);
    world.on(Event::Reload);
    assert_eq!(world.loads, 1);
    world.on(Event::Loaded(1, shape(3)));
    assert_eq!((world.pids(Kind::Migration).len(), world.pids(Kind::Worker).len()), (1, 2));
    world.end(world.pids(Kind::Migration)[0], How::Code(0));
    let canary: Vec<i32> = world.pids(Kind::Worker).into_iter().filter(|pid| !old.contains(pid)).collect();
    assert_eq!(canary.len(), 1);
    assert!(world.told.is_empty());
    world.ready(canary[0]);
    assert_eq!(world.pids(Kind::Worker).len(), 5);
    assert!(world.told.is_empty(), "nobody drains before all new ones are ready");
    for pid in world.pids(Kind::Worker) {
        world.ready(pid);
    }
    assert_eq!(world.told.len(), 2);
    assert!(world.reported("Reloaded") && world.state.phase() == Phase::Running);
    world.on(Event::Reload);
    assert_eq!(world.loads, 2, "5 workers and 3 more are within three times 3");
}

#[test]
fn a_new_engine_comes_up_beside_the_old_which_ends_with_the_last_worker_that_uses_it() {
    let mut world = World::booted(1);
    let (old_engine, old_worker) = (world.pids(Kind::Engine)[0], world.pids(Kind::Worker)[0]);
    world.on(Event::Reload);
    world.on(Event::Loaded(1, Shape { engine: Some(2), ..shape(1) }));
    world.end(world.pids(Kind::Migration)[0], How::Code(0));
    let new_engine = *world.pids(Kind::Engine).last().unwrap();
    assert_ne!(new_engine, old_engine);
    assert_eq!(world.pids(Kind::Worker), [old_worker], "no worker before its engine");
    world.ready(new_engine);
    world.ready(*world.pids(Kind::Worker).last().unwrap());
    assert!(world.killed.is_empty(), "{:?}", world.killed);
    world.end(old_worker, How::Code(0));
    assert_eq!(world.killed, [(old_engine, Signal::SIGTERM)]);
    world.end(old_engine, How::Code(0));
    assert_eq!(world.pids(Kind::Engine), [new_engine]);
    world.end(new_engine, How::Signal(9));
    assert_eq!(world.pids(Kind::Engine).len(), 1, "it is replaced as any other");
}

#[test]
fn an_engine_that_does_not_come_up_is_a_refused_reload() {
    let mut world = World::booted(1);
    let old = [world.pids(Kind::Engine)[0], world.pids(Kind::Worker)[0]];
    world.on(Event::Reload);
    world.on(Event::Loaded(1, Shape { engine: Some(2), ..shape(1) }));
    world.end(world.pids(Kind::Migration)[0], How::Code(0));
    world.end(*world.pids(Kind::Engine).last().unwrap(), How::Code(1));
    assert!(world.reported("ReloadRefused") && world.killed.is_empty());
    assert_eq!([world.pids(Kind::Engine), world.pids(Kind::Worker)].concat(), old);
}

#[test]
fn a_refused_reload_changes_nothing() {
    for refusal in 0..3 {
        let mut world = World::booted(2);
        let old = world.pids(Kind::Worker);
        world.on(Event::Reload);
        if refusal == 0 {
            world.on(Event::LoadRefused("chatcorn.toml:3: unknown setting".into()));
        } else {
            world.on(Event::Loaded(1, shape(3)));
            let migration = world.pids(Kind::Migration)[0];
            world.end(migration, How::Code(if refusal == 1 { 1 } else { 0 }));
        }
        if refusal == 2 {
            let canary = world.pids(Kind::Worker).into_iter().find(|pid| !old.contains(pid)).unwrap();
            world.end(canary, How::Code(101));
        }
        assert_eq!((world.pids(Kind::Worker), world.state.phase()), (old, Phase::Running));
        assert!(world.reported("ReloadRefused") && world.told.is_empty());
    }
}

#[test]
fn hups_during_a_reload_become_one() {
    let mut world = World::booted(1);
    (0..200).for_each(|_| world.on(Event::Reload));
    assert_eq!(world.loads, 200, "each is answered before the next: none is under way");
    world.on(Event::Loaded(1, shape(1)));
    (0..200).for_each(|_| world.on(Event::Reload));
    assert_eq!(world.loads, 200);
    world.all_ready();
    world.all_ready();
    assert_eq!(world.loads, 201);
}

#[test]
fn ttin_and_ttou_change_the_number() {
    let mut world = World::booted(1);
    world.on(Event::Fewer);
    assert_eq!(world.pids(Kind::Worker).len(), 1);
    world.on(Event::More);
    assert_eq!(world.pids(Kind::Worker).len(), 2);
    world.all_ready();
    world.on(Event::Fewer);
    assert_eq!(world.told.len(), 1);
}

#[derive(Clone, Debug)]
enum Fate {
    Signal(u8),
    Die(u8, u8),
    Ready(u8),
    Loaded(bool),
    Wait(u16),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let one = prop_oneof![
        (0u8..5).prop_map(Fate::Signal),
        (any::<u8>(), any::<u8>()).prop_map(|(who, how)| Fate::Die(who, how)),
        any::<u8>().prop_map(Fate::Ready),
        any::<bool>().prop_map(Fate::Loaded),
        (0u16..15_000).prop_map(Fate::Wait),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_a_stop_ends_within_its_limit(fates in fates()) {
        let mut world = World::new(shape(3));
        world.on(Event::Start);
        for (number, fate) in fates.into_iter().enumerate() {
            if world.finished.is_some() {
                break;
            }
            let pids: Vec<i32> = world.alive.keys().copied().collect();
            let pick = |who: u8| pids.get(usize::from(who) % pids.len().max(1)).copied();
            match fate {
                Fate::Signal(which) => world.on(
                    [Event::Stop, Event::Reload, Event::More, Event::Fewer, Event::Reopen][usize::from(which)].clone(),
                ),
                Fate::Die(who, how) => if let Some(pid) = pick(who) { world.end(pid, How::Code(i32::from(how))) },
                Fate::Ready(who) => if let Some(pid) = pick(who) { world.ready(pid) },
                Fate::Loaded(true) => world.on(Event::Loaded(number as u32 + 1, shape(1 + number % 4))),
                Fate::Loaded(false) => world.on(Event::LoadRefused("bad".into())),
                Fate::Wait(millis) => { world.now += MS * u32::from(millis); world.on(Event::Tick) }
            }
            prop_assert!(world.pids(Kind::Worker).len() <= 128);
            prop_assert!(world.pids(Kind::Log).len() <= 1 && world.pids(Kind::Engine).len() <= 1);
        }
        world.on(Event::Stop);
        let stopped = world.now;
        while world.finished.is_none() {
            // Nobody obeys: only kills end anyone.
            for (pid, signal) in std::mem::take(&mut world.killed) {
                if signal == Signal::SIGKILL && world.alive.contains_key(&pid) {
                    world.end(pid, How::Signal(9));
                }
            }
            if let Some(next) = world.state.deadline(world.now) {
                world.now = next;
            }
            world.on(Event::Tick);
            prop_assert!(world.now <= stopped + Duration::from_secs(130), "still {:?}", world.alive);
            prop_assert!(world.finished.is_some() || world.state.deadline(world.now).is_some() || !world.killed.is_empty());
        }
        // Nobody waits for one that was killed and is not let go of by the kernel.
        let killed = |id: u64| world.state.child(id).is_some_and(|child| child.life.is_killed());
        prop_assert!(world.alive.values().all(|(id, _)| killed(*id)), "{:?}", world.alive);
    }
}
