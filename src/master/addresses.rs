//! What is listened on, by generation of the configuration: a reload binds what is new beside what is there, and lets
//! go of what nobody wants any more once its workers stand.

use crate::listener::{Listener, Wanted};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The sockets of each generation that somebody runs or may run.
#[derive(Default)]
pub struct Addresses {
    sets: BTreeMap<u32, Vec<Rc<Listener>>>,
}

impl Addresses {
    /// Those that were bound before there was a reload.
    pub fn new(generation: u32, listeners: Vec<Listener>) -> Addresses {
        Addresses { sets: BTreeMap::from([(generation, listeners.into_iter().map(Rc::new).collect())]) }
    }

    /// This generation's.
    pub fn of(&self, generation: u32) -> &[Rc<Listener>] {
        self.sets.get(&generation).map_or(&[], Vec::as_slice)
    }

    /// Binds what `next` wants and `current` does not have.
    ///
    /// # Errors
    /// A sentence with the address; then nothing is bound.
    pub fn prepare(&mut self, current: u32, next: u32, wanted: &Wanted) -> Result<(), String> {
        let there = self.of(current);
        let found =
            wanted.addresses.iter().map(|address| match there.iter().find(|listener| listener.asked() == address) {
                Some(listener) => Ok(listener.clone()),
                None => wanted.bind(address).map(Rc::new).map_err(|error| error.to_string()),
            });
        let set = found.collect::<Result<Vec<_>, _>>()?;
        for new in set.iter().filter(|new| !there.iter().any(|old| Rc::ptr_eq(new, old))) {
            tracing::info!(address = %wanted.shown(new.address()), "listening");
        }
        self.sets.insert(next, set);
        Ok(())
    }

    /// Closes what only this generation listened on.
    pub fn forget(&mut self, generation: u32) {
        self.sets.remove(&generation);
    }
}
