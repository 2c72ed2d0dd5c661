//! Batches of records become packets.

use super::record::{self, PACKET_BYTES_MAX, PACKET_HEAD_BYTES};
use super::tally::{self, sender};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::socket::{MsgFlags, send};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// While lines come faster than this, packets are sent at this pace: a wake-up of the log process costs more than
/// many lines in one packet.
const PACE_MS: u8 = 5;

/// The inner writer of a worker's queue: collects batches, sends packets, waits for room in the pipe.
pub(super) struct Packer {
    pipe: OwnedFd,
    words: &'static [AtomicU64],
    /// Head and records of the next packet.
    packet: Vec<u8>,
    count: u64,
    next: u64,
    sent_at: Option<Instant>,
    /// Bytes in the queue before it.
    waiting: Arc<AtomicUsize>,
}

impl Packer {
    /// Numbers from where the sender's former lives ended.
    pub(super) fn new(pipe: OwnedFd, words: &'static [AtomicU64], waiting: Arc<AtomicUsize>) -> Packer {
        let next = tally::numbering_base(words);
        let packet = record::packet_head(next).to_vec();
        Packer { pipe, words, packet, count: 0, next, sent_at: None, waiting }
    }

    fn send(&mut self) {
        if self.count == 0 {
            return;
        }
        if wait_and_send(&self.pipe, &self.packet) {
            self.next += self.count;
        } else {
            self.words[sender::DROPPED].fetch_add(self.count, Relaxed);
        }
        self.count = 0;
        self.packet.clear();
        self.packet.extend_from_slice(&record::packet_head(self.next));
    }

    /// Waits out the pace when the last packet has only just gone; lines gather in the queue meanwhile.
    fn pace(&mut self) {
        let pace = Duration::from_millis(u64::from(PACE_MS));
        if self.sent_at.replace(Instant::now()).is_some_and(|at| at.elapsed() < 2 * pace) {
            let _ = nix::poll::poll(&mut [], PollTimeout::from(PACE_MS));
            self.sent_at = Some(Instant::now());
        }
    }
}

impl Write for Packer {
    fn write(&mut self, records: &[u8]) -> io::Result<usize> {
        let mut rest = records;
        while !rest.is_empty() {
            let room = PACKET_BYTES_MAX - self.packet.len();
            let (length, count) = record::fitting(rest, room);
            if count == 0 {
                break;
            }
            if length > room && self.count > 0 {
                self.send();
                continue;
            }
            self.packet.extend_from_slice(&rest[..length]);
            self.count += count;
            rest = &rest[length..];
        }
        // Only now: what waits for room in the pipe still counts as waiting.
        self.waiting.fetch_sub(records.len(), Relaxed);
        Ok(records.len())
    }

    /// The queue is empty: what is packed goes.
    fn flush(&mut self) -> io::Result<()> {
        self.send();
        self.pace();
        Ok(())
    }
}

/// Sends `records` in as many packets as they need, now or never; returns how many records found no room.
pub(super) fn send_now(pipe: &OwnedFd, records: &[u8], next: &mut u64) -> u64 {
    let (mut rest, mut dropped) = (records, 0);
    loop {
        let (length, count) = record::fitting(rest, PACKET_BYTES_MAX - PACKET_HEAD_BYTES);
        if count == 0 {
            return dropped;
        }
        let packet = [&record::packet_head(*next)[..], &rest[..length]].concat();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(pipe.as_raw_fd(), &packet, flags) {
            Ok(_) => *next += count,
            Err(_) => dropped += count,
        }
        rest = &rest[length..];
    }
}

fn wait_and_send(pipe: &OwnedFd, packet: &[u8]) -> bool {
    loop {
        match send(pipe.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return true,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}
