//! Every state with every event, and any order of them: what is decided, and that everything comes to rest.

use super::*;

/// A state that an event may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Booting,
    Running,
    Migrating,
    Canary,
    Rest,
    Proving,
    Recycling,
    Hung,
    Stopping,
}

const STATES: [At; 9] =
    [At::Booting, At::Running, At::Migrating, At::Canary, At::Rest, At::Proving, At::Recycling, At::Hung, At::Stopping];

fn world_at(at: At) -> World {
    let mut world = World::new(shape(2));
    world.on(Event::Start);
    if at != At::Booting {
        world.all_ready();
    }
    let first = world.state.watched().map(|(id, _)| id).next();
    match (at, first) {
        (At::Migrating | At::Canary | At::Rest, _) => {
            world.on(Event::Reload);
            world.answer(true);
            if at != At::Migrating {
                world.end(world.pids(Kind::Migration)[0], How::Code(0));
            }
            if at == At::Rest {
                world.ready(world.next_pid);
            }
        }
        (At::Proving, _) => world.on(Event::Upgrade),
        (At::Recycling, Some(id)) => world.on(Event::Worn(id, "it is worn".into())),
        (At::Hung, Some(id)) => world.on(Event::Silent(id, Duration::from_secs(31))),
        (At::Stopping, _) => world.on(Event::Stop),
        _ => {}
    }
    world
}

impl World {
    fn answer(&mut self, good: bool) {
        self.unanswered = 0;
        self.newest += 1;
        let refused = || Event::LoadRefused("bad".into());
        let event = if good { Event::Loaded(self.newest, shape(2)) } else { refused() };
        self.on(event);
    }

    /// The program replaces itself: its mind goes over in writing.
    fn replace(&mut self) {
        let mind = serde_json::to_string(&self.state).unwrap();
        self.state = serde_json::from_str(&mind).unwrap();
        self.on(Event::TakenOver);
    }

    /// Somebody does one thing that he was told; false when nobody was told anything and nothing is due.
    fn obey(&mut self) -> bool {
        if self.unanswered > 0 {
            self.answer(true);
        } else if let Some((pid, signal)) = self.killed.pop() {
            if self.alive.contains_key(&pid) {
                self.end(pid, if signal == Signal::SIGKILL { How::Signal(9) } else { How::Code(0) });
            }
        } else if let Some((id, _)) = self.told.pop() {
            let pid = self.alive.iter().find(|(_, (other, _))| *other == id).map(|(pid, _)| *pid);
            if let Some(pid) = pid {
                self.end(pid, How::Code(0));
            }
        } else if let Some(pid) = self.retired.pop() {
            if self.alive.contains_key(&pid) {
                self.end(pid, How::Code(0));
            }
        } else if let Some(pid) = self.pids(Kind::Migration).first() {
            self.end(*pid, How::Code(0));
        } else if let Some(pid) = self.pids(Kind::Proof).first() {
            self.ready(*pid);
            self.end(*pid, How::Code(0));
        } else if self.state.way().is_some() {
            self.replace();
        } else if let Some(pid) = self.booting() {
            self.ready(pid);
        } else if let Some(next) = self.state.deadline(self.now) {
            self.now = next;
            self.on(Event::Tick);
        } else {
            return false;
        }
        true
    }

    fn booting(&self) -> Option<i32> {
        let booting = |id: u64| self.state.child(id).is_some_and(|child| matches!(child.life, Life::Booting(_)));
        self.alive.iter().find(|(_, (id, _))| booting(*id)).map(|(pid, _)| *pid)
    }

    /// Everybody does what he was told, until there is nothing left to do.
    fn come_to_rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..5_000 {
            if self.finished.is_some() || quiet > 2 {
                return;
            }
            quiet = if self.obey() { 0 } else { quiet + 1 };
            // The master looks at every loop once a second, whatever happens.
            if quiet > 0 {
                self.now += Duration::from_secs(1);
                self.on(Event::Tick);
            }
        }
        panic!("no rest: {:?} {:?}", self.state.phase(), self.alive);
    }

    fn assert_serves(&self, what: &str) {
        assert_eq!((self.finished, self.state.phase()), (None, Phase::Running), "{what}");
        assert!(self.state.all_ready(), "{what}");
        assert_eq!(self.pids(Kind::Worker).len(), self.state.places.len(), "{what}");
        let (recycle, roll, upgrade) = (&self.state.recycle, &self.state.roll, self.state.upgrade_stage());
        let told = format!("{what}: {recycle:?} {roll:?} {upgrade:?} {:?}", self.alive);
        assert!(recycle.is_none() && roll.is_none() && upgrade.is_none(), "{told}");
        assert_eq!((self.pids(Kind::Log).len(), self.pids(Kind::Engine).len()), (1, 1), "{what}");
    }

    /// Workers that serve or come up and stand in no place: at most one successor.
    fn successors(&self) -> usize {
        let placed = |id: u64| self.state.places.iter().any(|place| place.child == Some(id));
        let workers = self.state.roster.of(Kind::Worker);
        workers.filter(|child| matches!(child.life, Life::Booting(_) | Life::Ready) && !placed(child.id)).count()
    }
}

/// Every event that may come from outside at any time.
fn events(world: &World) -> Vec<(&'static str, Event)> {
    let worker = world.state.roster.of(Kind::Worker).map(|child| child.id).last().unwrap_or(0);
    vec![
        ("tick", Event::Tick),
        ("stop", Event::Stop),
        ("stop now", Event::StopNow),
        ("reload", Event::Reload),
        ("upgrade", Event::Upgrade),
        ("reopen", Event::Reopen),
        ("more", Event::More),
        ("fewer", Event::Fewer),
        ("scale", Event::Scale(3)),
        ("refused", Event::LoadRefused("bad".into())),
        ("silent", Event::Silent(worker, Duration::from_secs(31))),
        ("worn", Event::Worn(worker, "it is worn".into())),
        ("said ready", Event::Said(worker, ToMaster::Ready)),
        ("said worn", Event::Said(worker, ToMaster::Worn("it is worn".into()))),
        ("stranger", Event::Exited(9999, How::Code(3))),
        ("no fork", Event::ForkFailed(9999, "no".into())),
        ("no replacement", Event::ReplaceFailed("no".into())),
    ]
}

#[test]
fn every_event_in_every_state_is_decided_and_everything_comes_to_rest() {
    for at in STATES {
        for number in 0..events(&world_at(at)).len() {
            let mut world = world_at(at);
            let (before, loads, forks) = (world.state.phase(), world.loads, world.next_pid);
            let (name, event) = events(&world).swap_remove(number);
            let what = format!("{name} at {at:?}");
            world.on(event);
            let stops = matches!(name, "stop" | "stop now") || at == At::Stopping;
            let after = world.state.phase();
            match (stops, name, at) {
                (true, ..) => assert_eq!(after, Phase::Stopping, "{what}"),
                // The last of the new ones came up: the reload is done, or the boot.
                (_, "said ready" | "fewer", At::Rest) => assert_eq!(after, Phase::Running, "{what}"),
                _ => assert_eq!(after, before, "{what}"),
            }
            let at_once = matches!(at, At::Running | At::Recycling | At::Hung);
            match name {
                "reload" => assert_eq!(world.loads - loads, usize::from(at_once), "{what}: at once, or later"),
                "upgrade" => {
                    assert_eq!(world.pids(Kind::Proof).len(), usize::from(at_once || at == At::Proving), "{what}")
                }
                "worn" | "said worn" if at != At::Running && at != At::Hung => {
                    assert_eq!(world.next_pid, forks, "{what}: nothing beside what is under way");
                }
                _ => {}
            }
            if at == At::Stopping {
                assert_eq!((world.next_pid, world.loads), (forks, loads), "{what}: nothing new");
            }
            world.come_to_rest();
            match stops {
                true => assert_eq!((world.finished, world.alive.len()), (Some(0), 0), "{what}"),
                false => world.assert_serves(&what),
            }
            match name {
                "reload" if !stops => assert!(world.loads > loads, "{what}: it was not forgotten"),
                "upgrade" if !stops => assert!(world.reported("Upgraded"), "{what}: it was not forgotten"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_worn_worker_goes_when_its_successor_is_ready_and_the_next_one_after_it() {
    let mut world = World::booted(3);
    let old = world.pids(Kind::Worker);
    let worn: Vec<u64> = world.state.watched().map(|(id, _)| id).collect();
    worn.iter().for_each(|id| world.on(Event::Worn(*id, "it served 9 requests".into())));
    assert_eq!((world.pids(Kind::Worker).len(), world.told.len()), (4, 0), "one successor, nobody told yet");
    world.ready(world.next_pid);
    assert_eq!((world.pids(Kind::Worker).len(), world.told.len()), (4, 1), "the next waits for the end of the first");
    let (told, _) = world.told[0];
    let first = *old.iter().find(|pid| world.alive[pid].0 == told).unwrap();
    world.end(first, How::Code(0));
    assert!(world.reported("it was recycled: it served 9 requests"));
    world.come_to_rest();
    world.assert_serves("after three replacements");
    assert!(old.iter().all(|pid| !world.alive.contains_key(pid)));
}

#[test]
fn a_successor_that_does_not_come_up_costs_nothing_and_a_worn_worker_that_dies_is_succeeded() {
    let mut world = World::booted(2);
    let old = world.pids(Kind::Worker);
    let (id, _) = world.state.watched().next().unwrap();
    world.on(Event::Worn(id, "it is worn".into()));
    world.end(world.next_pid, How::Code(1));
    assert_eq!((world.pids(Kind::Worker), world.told.len()), (old.clone(), 0));
    world.now += Duration::from_secs(20);
    world.on(Event::Tick);
    assert_eq!(world.pids(Kind::Worker).len(), 3, "tried again, later");
    let worn = *old.iter().find(|pid| world.alive[pid].0 == id).unwrap();
    world.end(worn, How::Signal(9));
    assert_eq!(world.pids(Kind::Worker).len(), 2, "the successor is the replacement");
    world.come_to_rest();
    world.assert_serves("after the death of the worn one");
}

#[test]
fn a_hung_worker_is_asked_first_then_killed_and_its_place_not_kept_by_the_kernel() {
    let mut world = World::booted(1);
    let (id, _) = world.state.watched().next().unwrap();
    let hung = world.pids(Kind::Worker)[0];
    world.on(Event::Silent(id, Duration::from_secs(31)));
    assert!(world.killed.is_empty() && world.examined == [id]);
    world.now += MS * 150;
    world.on(Event::Tick);
    assert!(world.reported("Hung") && world.killed == [(hung, Signal::SIGKILL)]);
    assert_eq!(world.pids(Kind::Worker).len(), 1);
    world.now += Duration::from_secs(1);
    world.on(Event::Tick);
    assert_eq!(world.pids(Kind::Worker).len(), 2, "it does not die, and is replaced");
    world.killed.clear();
    world.on(Event::Stop);
    world.pids(Kind::Worker).into_iter().filter(|pid| *pid != hung).for_each(|pid| world.end(pid, How::Code(0)));
    for kind in [Kind::Engine, Kind::Log] {
        world.pids(kind).into_iter().for_each(|pid| world.end(pid, How::Code(0)));
    }
    assert_eq!(world.finished, Some(0), "nobody waits for what does not die");
}

#[derive(Clone, Debug)]
enum Turn {
    Outside(u8),
    Worn(u8),
    Silent(u8),
    Die(u8, u8),
    Answer(bool),
    Obey(u8),
    Wait(u16),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let one = prop_oneof![
        (0u8..6).prop_map(Turn::Outside),
        any::<u8>().prop_map(Turn::Worn),
        any::<u8>().prop_map(Turn::Silent),
        (any::<u8>(), any::<u8>()).prop_map(|(who, how)| Turn::Die(who, how)),
        any::<bool>().prop_map(Turn::Answer),
        (1u8..12).prop_map(Turn::Obey),
        (0u16..15_000).prop_map(Turn::Wait),
    ];
    proptest::collection::vec(one, 0..50)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_it_serves_again_when_everybody_obeys(turns in turns()) {
        let mut world = World::booted(3);
        let mut good = true;
        for turn in turns {
            let pids: Vec<i32> = world.alive.keys().copied().collect();
            let pick = |who: u8| pids.get(usize::from(who) % pids.len().max(1)).copied();
            let id = |who: u8| pick(who).map(|pid| world.alive[&pid].0);
            let second = Duration::from_secs(31);
            match turn {
                Turn::Outside(which) => world.on(
                    [Event::Reload, Event::Upgrade, Event::More, Event::Fewer, Event::Reopen, Event::Scale(2)][usize::from(which)].clone(),
                ),
                Turn::Worn(who) => if let Some(id) = id(who) { world.on(Event::Worn(id, "worn".into())) },
                Turn::Silent(who) => if let Some(id) = id(who) { world.on(Event::Silent(id, second)) },
                Turn::Die(who, how) => if let Some(pid) = pick(who) { world.end(pid, How::Code(i32::from(how))) },
                Turn::Answer(well) => good = well,
                Turn::Obey(times) => for _ in 0..times { world.obey(); },
                Turn::Wait(millis) => { world.now += MS * u32::from(millis); world.on(Event::Tick) }
            }
            // The master reads its files, and replaces itself, before it hears anything else.
            while world.unanswered > 0 {
                world.answer(good);
            }
            if world.state.way().is_some() {
                world.replace();
            }
            prop_assert!(world.finished.is_none());
            if world.state.roll.is_none() {
                prop_assert!(world.successors() <= 1, "{} successors", world.successors());
            }
        }
        world.come_to_rest();
        world.assert_serves("at rest");
        world.on(Event::Stop);
        world.come_to_rest();
        prop_assert_eq!((world.finished, world.alive.len()), (Some(0), 0));
    }
}

/// What operators, process managers and terminals send; the last two end it.
const SIGNALS: [Event; 8] = [
    Event::Reload,
    Event::Upgrade,
    Event::More,
    Event::Fewer,
    Event::Reopen,
    Event::Scale(2),
    Event::Stop,
    Event::StopNow,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn signals_in_any_order_end_in_time_with_0_whoever_obeys(
        ready in any::<bool>(),
        obedient in any::<bool>(),
        orders in proptest::collection::vec((0..SIGNALS.len(), 0u8..6, 0u16..2_000), 0..12),
        last in 6..SIGNALS.len(),
    ) {
        let mut world = if ready { World::booted(2) } else { World::new(shape(2)) };
        world.on(Event::Start);
        for (which, obeyed, millis) in orders {
            world.hear(SIGNALS[which].clone());
            world.end_killed();
            (0..obeyed).for_each(|_| _ = world.obey());
            world.now += MS * u32::from(millis);
            world.hear(Event::Tick);
            world.end_killed();
        }
        world.hear(SIGNALS[last].clone());
        let told = world.now;
        match obedient {
            true => world.come_to_rest(),
            false => world.only_kills_end(),
        }
        let limit = shape(2).graceful_timeout + Duration::from_secs(6);
        prop_assert!(world.now <= told + limit, "{:?}", world.now - told);
        prop_assert_eq!((world.finished, world.alive.len()), (Some(0), 0));
    }
}

impl World {
    /// The master reads its files, and replaces itself, before it hears anything else; once it ended it hears nothing.
    fn hear(&mut self, event: Event) {
        if self.finished.is_none() {
            self.on(event);
        }
        while self.unanswered > 0 {
            self.answer(true);
        }
        if self.state.way().is_some() {
            self.replace();
        }
    }

    /// The kernel ends who is killed, at once.
    fn end_killed(&mut self) {
        while let Some(at) = self.killed.iter().position(|(_, signal)| *signal == Signal::SIGKILL) {
            let (pid, _) = self.killed.swap_remove(at);
            if self.alive.contains_key(&pid) && self.finished.is_none() {
                self.end(pid, How::Signal(9));
            }
        }
    }

    /// Nobody does what he is told.
    fn only_kills_end(&mut self) {
        while self.finished.is_none() {
            self.end_killed();
            let next = self.state.deadline(self.now).filter(|_| self.finished.is_none());
            next.into_iter().for_each(|next| {
                self.now = next;
                self.on(Event::Tick);
            });
            assert!(next.is_some() || self.finished.is_some(), "nobody is waited for: {:?}", self.alive);
        }
    }
}

#[test]
fn a_reload_asked_for_while_an_upgrade_fails_is_the_former_programs() {
    let mut world = World::booted(2);
    world.on(Event::Upgrade);
    let proof = world.pids(Kind::Proof)[0];
    world.ready(proof);
    world.end(proof, How::Code(0));
    world.replace();
    world.answer(true);
    world.end(world.pids(Kind::Migration)[0], How::Code(0));
    world.on(Event::Reload);
    let loads = world.loads;
    world.end(world.next_pid, How::Code(1));
    assert_eq!(world.loads, loads, "the canary failed: first back, then read again");
    world.replace();
    assert!(world.reported("UpgradeRefused") && world.loads == loads + 1);
    world.come_to_rest();
    world.assert_serves("in the former program");
}
