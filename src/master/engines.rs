//! The engine's listening sockets. A new engine comes up beside the old one, so for a while there are two: workers of
//! each generation find theirs by its name.

use crate::chat;
use crate::chat::upstream::connector::Place;
use crate::listener;
use socket2::Socket;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// By the generation of configuration that each began with.
#[derive(Default)]
pub struct Engines {
    sockets: BTreeMap<u32, Socket>,
}

impl Engines {
    /// The one socket of a server that begins, or goes on.
    pub fn new(since: u32, socket: Option<Socket>) -> Engines {
        Engines { sockets: socket.map(|socket| (since, socket)).into_iter().collect() }
    }

    /// The socket of a generation's engine.
    pub fn of(&self, generation: u32) -> Option<&Socket> {
        self.sockets.range(..=generation).next_back().map(|(_, socket)| socket)
    }

    /// This generation gets an engine of its own.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn prepare(&mut self, generation: u32) -> io::Result<()> {
        self.sockets.insert(generation, listener::private_socket()?);
        Ok(())
    }

    /// Makes the workers of this generation ask its engine, where they ask one.
    pub fn lead(&self, generation: u32, chat: &mut chat::Plan) {
        let name = self.of(generation).and_then(|socket| socket.local_addr().ok());
        let name = name.and_then(|address| address.as_abstract_namespace().map(<[u8]>::to_vec));
        if let (Some(name), Some(target)) = (name, chat.targets.first_mut().filter(|target| chat.engine && target.own))
        {
            target.place = Place::Unix(PathBuf::from(OsString::from_vec([&[0][..], &name].concat())));
        }
    }

    /// Nobody starts this generation any more. The engine that serves keeps its socket; a former one that runs has its
    /// own descriptor.
    pub fn forget(&mut self, generation: u32) {
        match self.sockets.keys().next_back().copied() {
            Some(newest) if newest > generation => self.sockets.retain(|since, _| *since > generation),
            Some(newest) if newest == generation && self.sockets.len() > 1 => {
                self.sockets.remove(&generation);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_the_socket_that_it_began_with_or_the_one_before() {
        let mut engines = Engines::new(0, Some(listener::private_socket().unwrap()));
        let name = |engines: &Engines, generation| {
            let address = engines.of(generation).unwrap().local_addr().unwrap();
            address.as_abstract_namespace().unwrap().to_vec()
        };
        let first = name(&engines, 0);
        assert_eq!(name(&engines, 1), first);
        engines.prepare(2).unwrap();
        assert_ne!(name(&engines, 2), first);
        engines.forget(2);
        assert_eq!(name(&engines, 2), first, "a refused reload leaves the former one");
        engines.prepare(3).unwrap();
        let third = name(&engines, 3);
        engines.forget(1);
        assert_eq!((name(&engines, 4), engines.of(1).is_none()), (third.clone(), true));
        engines.forget(3);
        assert_eq!(name(&engines, 4), third, "a reload that keeps the engine keeps its socket");
    }
}
