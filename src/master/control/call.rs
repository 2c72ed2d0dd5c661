//! One caller: its bytes in both directions, bounded.

use super::words::{Answer, REQUEST_BYTES_MAX};
use crate::sys::clock;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What may wait for a caller that does not read.
const UNREAD_BYTES_MAX: usize = 256 * 1024;

/// A connection to an operator.
pub struct Call {
    stream: UnixStream,
    heard: Vec<u8>,
    unread: Vec<u8>,
    since: Duration,
    asked: bool,
    last_word: bool,
    broken: bool,
}

impl Call {
    /// Takes a connection.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(stream: UnixStream) -> io::Result<Call> {
        stream.set_nonblocking(true)?;
        let since = clock::monotonic();
        let (heard, unread) = (Vec::new(), Vec::new());
        Ok(Call { stream, heard, unread, since, asked: false, last_word: false, broken: false })
    }

    /// One that asked a former program and waits.
    pub fn waiting(stream: UnixStream) -> Call {
        let since = clock::monotonic();
        let (heard, unread) = (Vec::new(), Vec::new());
        Call { stream, heard, unread, since, asked: true, last_word: false, broken: false }
    }

    /// Its descriptor.
    pub fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// When it came (monotonic).
    pub fn since(&self) -> Duration {
        self.since
    }

    /// It asked something.
    pub fn asked(&self) -> bool {
        self.asked
    }

    /// Something waits to be written.
    pub fn has_more(&self) -> bool {
        !self.unread.is_empty()
    }

    /// It left, it was told its last word, or it said or left unread too much.
    pub fn is_over(&self) -> bool {
        self.broken || self.last_word && self.unread.is_empty()
    }

    /// Takes what has arrived; the first whole line is given to `ask`, whose answer is said. A caller asks once.
    pub fn read(&mut self, ask: impl FnOnce(&[u8]) -> Option<Answer>) {
        let mut bytes = [0; REQUEST_BYTES_MAX];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.broken = true;
                    break;
                }
                Ok(length) => self.heard.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken |= error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
            if self.heard.len() > REQUEST_BYTES_MAX {
                self.broken = true;
                return;
            }
        }
        if let (false, Some(end)) = (self.asked, self.heard.iter().position(|byte| *byte == b'\n')) {
            self.asked = true;
            if let Some(answer) = ask(&self.heard[..end]) {
                self.say(&answer);
            }
        }
    }

    /// Puts an answer behind what waits.
    pub fn say(&mut self, answer: &Answer) {
        self.unread.extend(answer.line());
        self.last_word |= answer.is_final();
        self.broken |= self.unread.len() > UNREAD_BYTES_MAX;
    }

    /// Writes what the kernel takes.
    pub fn write(&mut self) {
        while !self.unread.is_empty() {
            match self.stream.write(&self.unread) {
                Ok(length @ 1..) => drop(self.unread.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }
}
