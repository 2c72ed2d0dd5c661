//! Who waits for a slot: a bounded number, each client in turn. Pure.
//!
//! A client that brings fifty requests at once waits behind one that brings one: the next slot goes to whoever holds the
//! fewest, then to whoever has waited longest for a turn. When nobody more may wait, the newest request of the client
//! with the most waiting gives way, unless the newcomer is no better.

use std::collections::VecDeque;
use std::time::Duration;

/// The longest wait that is promised, and the shortest, in seconds.
const WAIT_S: (u64, u64) = (1, 60);

/// Requests that wait, by client.
#[derive(Debug)]
pub struct Queue<T> {
    /// In the order of their turns; none is empty.
    clients: VecDeque<(u64, VecDeque<T>)>,
    length: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { clients: VecDeque::new(), length: 0 }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes a request in; the value is the one that finds no place among `places`.
    pub fn push(&mut self, client: u64, item: T, places: usize) -> Option<T> {
        let own = self.clients.iter().position(|(other, _)| *other == client);
        if self.length >= places {
            let own = own.map_or(0, |at| self.clients[at].1.len());
            let most = self.clients.iter_mut().max_by_key(|(_, items)| items.len());
            match most.filter(|(_, items)| items.len() > own + 1) {
                None => return Some(item),
                Some((_, items)) => {
                    let given_way = items.pop_back();
                    self.length -= 1;
                    self.put(client, item);
                    return given_way;
                }
            }
        }
        self.put(client, item);
        None
    }

    fn put(&mut self, client: u64, item: T) {
        self.length += 1;
        match self.clients.iter_mut().find(|(other, _)| *other == client) {
            Some((_, items)) => items.push_back(item),
            None => self.clients.push_back((client, VecDeque::from([item]))),
        }
    }

    /// The next, given how many slots a client holds.
    pub fn pop(&mut self, held: impl Fn(u64) -> usize) -> Option<T> {
        let fewest = self.clients.iter().enumerate().min_by_key(|(_, (client, _))| held(*client));
        let at = fewest.map(|(at, _)| at)?;
        let (client, mut items) = self.clients.remove(at)?;
        let item = items.pop_front();
        self.length -= usize::from(item.is_some());
        if !items.is_empty() {
            self.clients.push_back((client, items));
        }
        item
    }

    /// Keeps those of which `stay` is true.
    pub fn retain(&mut self, stay: impl Fn(&T) -> bool) {
        for (_, items) in &mut self.clients {
            items.retain(&stay);
        }
        self.clients.retain(|(_, items)| !items.is_empty());
        self.length = self.clients.iter().map(|(_, items)| items.len()).sum();
    }

    /// Takes everybody out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.length = 0;
        std::mem::take(&mut self.clients).into_iter().flat_map(|(_, items)| items)
    }
}

/// How long a slot is held, as measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service {
    average: Option<Duration>,
}

impl Service {
    /// One was held for so long.
    pub fn note(&mut self, held: Duration) {
        self.average = Some(self.average.map_or(held, |average| (average * 7 + held) / 8));
    }

    /// Seconds until a slot is free for the one behind `waiting` others.
    pub fn wait_s(&self, waiting: usize, slots: usize) -> u64 {
        let turns = (waiting + 1) as f64 / slots.max(1) as f64;
        let seconds = self.average.unwrap_or_default().as_secs_f64() * turns;
        (seconds.ceil() as u64).clamp(WAIT_S.0, WAIT_S.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clients_take_turns_whatever_each_brings() {
        let mut queue = Queue::default();
        (0..5).for_each(|number| assert_eq!(queue.push(1, (1, number), 9), None));
        (0..2).for_each(|number| assert_eq!(queue.push(2, (2, number), 9), None));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(|_| 0)).collect();
        assert_eq!(order, [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (1, 3), (1, 4)]);
        (0..2).for_each(|number| assert_eq!(queue.push(1, (1, number), 9), None));
        queue.push(2, (2, 0), 9);
        assert_eq!(queue.pop(|client| usize::from(client == 1)), Some((2, 0)), "who holds a slot comes later");
    }

    #[test]
    fn who_fills_the_queue_gives_way_and_nobody_else() {
        let mut queue = Queue::default();
        (0..4).for_each(|number| assert_eq!(queue.push(1, number, 4), None));
        assert_eq!(queue.push(1, 9, 4), Some(9));
        assert_eq!((queue.push(2, 20, 4), queue.push(3, 30, 4)), (Some(3), Some(2)));
        assert_eq!((queue.push(2, 21, 4), queue.push(1, 9, 4)), (Some(21), Some(9)), "one more would be no fairer");
        assert_eq!(queue.push(4, 40, 0), Some(1));
        queue.retain(|item| *item < 30);
        assert_eq!((queue.len(), queue.drain().collect::<Vec<_>>(), queue.is_empty()), (2, vec![0, 20], true));
    }

    #[test]
    fn the_wait_that_is_told_follows_what_was_measured() {
        let mut service = Service::default();
        assert_eq!(service.wait_s(30, 4), 1);
        service.note(Duration::from_secs(2));
        assert_eq!((service.wait_s(0, 4), service.wait_s(31, 4), service.wait_s(9999, 1)), (1, 16, 60));
        (0..40).for_each(|_| service.note(Duration::from_secs(1)));
        assert_eq!(service.wait_s(31, 4), 9);
    }

    proptest! {
        #[test]
        fn nobody_is_lost_and_the_bound_holds(steps in proptest::collection::vec((0u64..4, any::<bool>()), 0..200)) {
            let (mut queue, mut inside, mut pushed, mut out) = (Queue::default(), 0usize, 0usize, 0usize);
            for (client, push) in steps {
                if push {
                    pushed += 1;
                    match queue.push(client, client, 6) {
                        Some(_) => out += 1,
                        None => inside += 1,
                    }
                } else if queue.pop(|_| 0).is_some() {
                    inside -= 1;
                    out += 1;
                }
                prop_assert!(queue.len() <= 6 && queue.len() == inside);
            }
            prop_assert_eq!(queue.drain().count() + out, pushed);
        }
    }
}
