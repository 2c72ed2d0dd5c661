//! The pipes of records, and the master's link to the log process.
//!
//! ```text
//! worker ──┐ writer end                    reader end ┌── log process
//! engine ──┼──────────── one SEQPACKET pair each ─────┤
//! master ──┘   the master keeps both ends of each     └── link: readers by SCM_RIGHTS, "reopen", "retire" / "ready"
//! ```
//!
//! Because the master keeps both ends, a new worker goes on writing and a new log process goes on reading where the
//! former one left; only [`Pipes::close_writers`] lets the log process see the end.

use super::record;
use super::tally;
use crate::board::{Board, SLOTS_MAX, Sender};
use crate::sys::fd;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, send, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// What the log process says when it reads.
pub const READY: &[u8] = b"ready";

const READER: u8 = b'r';
const REOPEN: u8 = b'o';
const RETIRE: u8 = b'e';
const MESSAGE_BYTES_MAX: usize = 64;

/// The pairs of all senders so far.
#[derive(Default)]
pub struct Pipes {
    pairs: Vec<Pair>,
}

struct Pair {
    sender: Sender,
    writer: Option<OwnedFd>,
    reader: OwnedFd,
}

/// What the master tells the log process.
#[derive(Debug)]
pub enum Told {
    /// One more pipe to read.
    Reader(Sender, OwnedFd),
    /// Open the files anew (SIGUSR1).
    Reopen,
    /// A successor takes over: write what has arrived and leave.
    Retire,
    /// Nothing now, or something that this version does not know.
    Nothing,
    /// The master is gone.
    Closed,
}

impl Pipes {
    /// None yet.
    pub fn new() -> Pipes {
        Pipes::default()
    }

    /// Those of a former program.
    ///
    /// # Errors
    /// A number that is no sender's, or no open descriptor.
    pub fn adopt(descriptors: &[(usize, Option<RawFd>, RawFd)]) -> io::Result<Pipes> {
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "a log pipe of nobody");
        let pair = |(sender, writer, reader): &(usize, Option<RawFd>, RawFd)| {
            let sender = u16::try_from(*sender).ok().and_then(sender_of).ok_or_else(strange)?;
            Ok(Pair { sender, writer: writer.map(fd::duplicate).transpose()?, reader: fd::duplicate(*reader)? })
        };
        Ok(Pipes { pairs: descriptors.iter().map(pair).collect::<io::Result<_>>()? })
    }

    /// By the sender's index: its writer and reader.
    pub fn descriptors(&self) -> Vec<(usize, Option<RawFd>, RawFd)> {
        let numbers =
            |pair: &Pair| (pair.sender.index(), pair.writer.as_ref().map(AsRawFd::as_raw_fd), pair.reader.as_raw_fd());
        self.pairs.iter().map(numbers).collect()
    }

    /// Makes the sender's pair if there is none; true when it is new, and then its reader must be handed over.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn ensure(&mut self, sender: Sender) -> io::Result<bool> {
        match self.pairs.iter_mut().find(|pair| pair.sender == sender) {
            Some(pair) if pair.writer.is_some() => Ok(false),
            Some(pair) => {
                *pair = Pair::open(sender)?;
                Ok(true)
            }
            None => {
                self.pairs.push(Pair::open(sender)?);
                Ok(true)
            }
        }
    }

    /// The end that the sender writes to.
    pub fn writer(&self, sender: Sender) -> Option<BorrowedFd<'_>> {
        let pair = self.pairs.iter().find(|pair| pair.sender == sender)?;
        pair.writer.as_ref().map(AsFd::as_fd)
    }

    /// Every end that the log process reads from.
    pub fn readers(&self) -> Vec<(Sender, BorrowedFd<'_>)> {
        self.pairs.iter().map(|pair| (pair.sender, pair.reader.as_fd())).collect()
    }

    /// The same, as a forked log process takes them over.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn clone_readers(&self) -> io::Result<Vec<(Sender, OwnedFd)>> {
        self.pairs.iter().map(|pair| Ok((pair.sender, pair.reader.try_clone()?))).collect()
    }

    /// Gives up the writing ends, so that the log process sees the end when the last child is gone.
    pub fn close_writers(&mut self) {
        self.pairs.iter_mut().for_each(|pair| pair.writer = None);
    }

    /// After a sender was reaped: marks on its pipe how many records it had, so that what died with it is counted
    /// as lost at once and not only when the next life begins. Never waits; a full pipe is left to the next life.
    pub fn mark_end(&self, sender: Sender, board: Board) {
        if let Some(writer) = self.writer(sender) {
            let mark = record::packet_head(tally::numbering_base(board.sender(sender)));
            let _ = send(writer.as_raw_fd(), &mark, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
    }
}

impl Pair {
    fn open(sender: Sender) -> io::Result<Pair> {
        let (writer, reader) = fd::packet_pair()?;
        Ok(Pair { sender, writer: Some(writer), reader })
    }
}

/// Hands one more reader to the log process; never waits.
///
/// # Errors
/// The log process is gone or does not read: a new one gets all readers at its start.
pub fn hand_over(link: &OwnedFd, sender: Sender, reader: BorrowedFd<'_>) -> io::Result<()> {
    let message = [&[READER][..], &(sender.index() as u16).to_le_bytes()].concat();
    let descriptors: [RawFd; 1] = [reader.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<UnixAddr>(link.as_raw_fd(), &[IoSlice::new(&message)], &rights, flags, None)?;
    Ok(())
}

/// Tells the log process to open its files anew; never waits.
///
/// # Errors
/// As [`hand_over`].
pub fn reopen(link: &OwnedFd) -> io::Result<()> {
    say(link, &[REOPEN])
}

/// Tells the log process to leave to a successor, which waits for its lock; never waits.
///
/// # Errors
/// As [`hand_over`].
pub fn retire(link: &OwnedFd) -> io::Result<()> {
    say(link, &[RETIRE])
}

/// Tells the master that the log process reads.
///
/// # Errors
/// The master is gone.
pub fn ready(control: &OwnedFd) -> io::Result<()> {
    say(control, READY)
}

/// What the master said, if anything; never waits.
pub fn heard(control: &OwnedFd) -> Told {
    let mut bytes = [0u8; MESSAGE_BYTES_MAX];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (length, received) = match recvmsg::<UnixAddr>(control.as_raw_fd(), &mut parts, Some(&mut space), flags) {
        Ok(message) => (message.bytes, adopt(message.cmsgs().into_iter().flatten())),
        Err(Errno::ECONNRESET) => return Told::Closed,
        Err(_) => return Told::Nothing,
    };
    match (&bytes[..length], received) {
        ([], None) => Told::Closed,
        ([READER, low, high], Some(reader)) => {
            sender_of(u16::from_le_bytes([*low, *high])).map_or(Told::Nothing, |sender| Told::Reader(sender, reader))
        }
        ([REOPEN], _) => Told::Reopen,
        ([RETIRE], _) => Told::Retire,
        _ => Told::Nothing,
    }
}

fn adopt(messages: impl Iterator<Item = ControlMessageOwned>) -> Option<OwnedFd> {
    let raw = messages.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    raw.flatten().filter_map(|number| fd::adopt(number).ok()).last()
}

fn sender_of(index: u16) -> Option<Sender> {
    match usize::from(index) {
        0 => Some(Sender::Master),
        1 => Some(Sender::Engine),
        number => (number - 2 < SLOTS_MAX).then_some(Sender::Slot(number - 2)),
    }
}

fn say(link: &OwnedFd, message: &[u8]) -> io::Result<()> {
    send(link.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_travels_to_the_log_process_and_works_there() {
        let (link, control) = fd::packet_pair().unwrap();
        let mut pipes = Pipes::new();
        assert!(pipes.ensure(Sender::Slot(5)).unwrap());
        assert!(!pipes.ensure(Sender::Slot(5)).unwrap());
        let (sender, reader) = pipes.readers()[0];
        hand_over(&link, sender, reader).unwrap();
        reopen(&link).unwrap();
        let Told::Reader(Sender::Slot(5), reader) = heard(&control) else { panic!("no reader") };
        send(pipes.writer(Sender::Slot(5)).unwrap().as_raw_fd(), b"x", MsgFlags::empty()).unwrap();
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&reader, &mut byte), Ok(1));
        assert!(matches!(heard(&control), Told::Reopen));
        assert!(matches!(heard(&control), Told::Nothing));
        drop(link);
        assert!(matches!(heard(&control), Told::Closed));
    }

    #[test]
    fn every_sender_survives_its_number() {
        for sender in tally::senders() {
            assert_eq!(sender_of(sender.index() as u16), Some(sender));
        }
        assert_eq!(sender_of(u16::MAX), None);
    }
}
