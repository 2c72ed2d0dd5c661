//! One door for everything that happens: signals, words of children, deaths, time.

use super::control::words::Request;
use super::control::{CallId, Control};
use super::roster::ChildId;
use super::state::Event;
use crate::sys::signal::{MASTER, SelfPipe};
use crate::sys::{clock, wait};
use crate::worker::link::{self, Received, ToMaster};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// What the master listens to.
pub struct Inbox {
    signals: SelfPipe,
    links: BTreeMap<ChildId, OwnedFd>,
    /// The operators' socket.
    pub control: Control,
    asked: Vec<(CallId, Request)>,
    told: Vec<(CallId, String)>,
}

impl Inbox {
    /// Catches the master's signals from now on.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn open(control: Control, links: BTreeMap<ChildId, OwnedFd>) -> io::Result<Inbox> {
        Ok(Inbox { signals: SelfPipe::open(MASTER)?, links, control, asked: Vec::new(), told: Vec::new() })
    }

    /// The links by child.
    pub fn descriptors(&self) -> Vec<(ChildId, RawFd)> {
        self.links.iter().map(|(id, link)| (*id, link.as_raw_fd())).collect()
    }

    /// Somebody asked something that was not taken yet.
    pub fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Deaths that no signal told of: after an execve, which loses those that were being told.
    pub fn deaths(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.reap(&mut events);
        events
    }

    /// Listens to this child too.
    pub fn listen(&mut self, id: ChildId, link: OwnedFd) {
        self.links.insert(id, link);
    }

    /// This child is gone.
    pub fn forget(&mut self, id: ChildId) {
        self.links.remove(&id);
    }

    /// The link to a child.
    pub fn link(&self, id: ChildId) -> Option<&OwnedFd> {
        self.links.get(&id)
    }

    /// What operators asked since the last call.
    pub fn asked(&mut self) -> Vec<(CallId, Request)> {
        std::mem::take(&mut self.asked)
    }

    /// What workers said to operators since the last call.
    pub fn told(&mut self) -> Vec<(CallId, String)> {
        std::mem::take(&mut self.told)
    }

    /// Waits until something happens, at most until `deadline` (monotonic), and returns all of it; `Tick` at least.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn next(&mut self, deadline: Option<Duration>) -> io::Result<Vec<Event>> {
        let ready = self.wait(deadline)?;
        let mut events = Vec::new();
        self.asked.extend(self.control.turn());
        // Words before deaths: what a child said last explains its end.
        for id in ready {
            self.hear(id, &mut events);
        }
        for signal in self.signals.drain() {
            match signal {
                Signal::SIGCHLD => self.reap(&mut events),
                other => events.extend(meaning(other)),
            }
        }
        if events.is_empty() {
            events.push(Event::Tick);
        }
        Ok(events)
    }

    fn wait(&self, deadline: Option<Duration>) -> io::Result<Vec<ChildId>> {
        let mut asked = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        asked.extend(self.links.values().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
        let events = |more| if more { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        asked.extend(self.control.watched().map(|(fd, more)| PollFd::new(fd, events(more))));
        match poll(&mut asked, timeout(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let heard = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(self.links.keys().zip(&asked[1..]).filter(|(_, fd)| heard(fd)).map(|(id, _)| *id).collect())
    }

    fn hear(&mut self, id: ChildId, events: &mut Vec<Event>) {
        while let Some(link) = self.links.get(&id) {
            match link::take(link) {
                Received::Packet(packet) => match ToMaster::decode(&packet) {
                    Some(ToMaster::Limits { call, told }) => self.told.push((call, told)),
                    said => events.extend(said.map(|said| Event::Said(id, said))),
                },
                Received::Nothing => return,
                // Its death will be told by SIGCHLD; a closed link would wake the loop until then.
                Received::Closed => self.forget(id),
            }
        }
    }

    fn reap(&self, events: &mut Vec<Event>) {
        for exit in wait::reap() {
            events.push(Event::Exited(exit.pid, exit.how));
        }
    }
}

fn timeout(deadline: Option<Duration>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_sub(clock::monotonic());
    // Rounded up: a wait that ends a moment early would only be repeated.
    PollTimeout::try_from(left.as_micros().div_ceil(1000).min(60_000) as i32).unwrap_or(PollTimeout::ZERO)
}

fn meaning(signal: Signal) -> Option<Event> {
    match signal {
        Signal::SIGTERM => Some(Event::Stop),
        Signal::SIGINT | Signal::SIGQUIT => Some(Event::StopNow),
        Signal::SIGHUP => Some(Event::Reload),
        Signal::SIGUSR2 => Some(Event::Upgrade),
        Signal::SIGUSR1 => Some(Event::Reopen),
        Signal::SIGTTIN => Some(Event::More),
        Signal::SIGTTOU => Some(Event::Fewer),
        _ => None,
    }
}
