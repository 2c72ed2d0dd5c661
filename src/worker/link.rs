//! What master and worker say to each other: one packet a message, both directions in this file.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

/// Longest message in bytes; a reason is cut to fit.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// A child to its master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToMaster {
    /// It serves.
    Ready,
    /// It cannot serve, and why; it leaves by itself.
    Failed(String),
    /// It has served so much that it should be replaced, and how much.
    Worn(String),
    /// What an operator asked about a client's limits.
    Limits {
        /// The caller, by the master's number.
        call: u64,
        /// JSON.
        told: String,
    },
}

/// The master to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToWorker {
    /// Take no new connection, finish what is under way within `limit`, serve kept connections for `grace` more.
    Drain {
        /// After this, streams are ended with an error event.
        limit: Duration,
        /// How long an idle kept connection may still bring a request.
        grace: Duration,
        /// First go on as before, not ready, for so long: load balancers need time to look elsewhere.
        delay: Duration,
    },
    /// An operator asks about a client's limits.
    Limits {
        /// The caller, by the master's number.
        call: u64,
        /// Forget the counts first.
        reset: bool,
        /// An address, `unix`, or a key's id: no space.
        client: String,
    },
}

impl ToMaster {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToMaster::Ready => b"ready".to_vec(),
            ToMaster::Failed(reason) => cut(format!("failed: {reason}")),
            ToMaster::Worn(why) => cut(format!("worn: {why}")),
            ToMaster::Limits { call, told } => format!("limits {call}: {told}").into_bytes(),
        }
    }

    /// Reads a message; `None` for one that this version does not know (it is ignored).
    pub fn decode(packet: &[u8]) -> Option<ToMaster> {
        let text = String::from_utf8_lossy(packet);
        match text.split_once(": ") {
            Some(("failed", reason)) => Some(ToMaster::Failed(reason.to_owned())),
            Some(("worn", why)) => Some(ToMaster::Worn(why.to_owned())),
            Some((start, told)) if start.starts_with("limits ") => {
                Some(ToMaster::Limits { call: start[7..].parse().ok()?, told: told.to_owned() })
            }
            _ => (text == "ready").then_some(ToMaster::Ready),
        }
    }
}

impl ToWorker {
    /// What a worker does on a TERM that somebody sent to it alone.
    pub fn alone() -> ToWorker {
        let seconds = Duration::from_secs;
        ToWorker::Drain { limit: seconds(30), grace: seconds(5), delay: Duration::ZERO }
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToWorker::Drain { limit, grace, delay } => {
                format!("drain {} {} {}", limit.as_millis(), grace.as_millis(), delay.as_millis()).into_bytes()
            }
            ToWorker::Limits { call, reset, client } => format!("limits {call} {reset} {client}").into_bytes(),
        }
    }

    /// Reads a message; `None` for one that this version does not know.
    pub fn decode(packet: &[u8]) -> Option<ToWorker> {
        let text = std::str::from_utf8(packet).ok()?;
        let mut words = text.split(' ');
        match words.next()? {
            "drain" => {
                let mut millis = || words.next()?.parse().ok().map(Duration::from_millis);
                Some(ToWorker::Drain { limit: millis()?, grace: millis()?, delay: millis()? })
            }
            "limits" => {
                let (call, reset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Some(ToWorker::Limits { call, reset, client: words.next()?.to_owned() })
            }
            _ => None,
        }
    }
}

fn cut(text: String) -> Vec<u8> {
    let mut text = text.into_bytes();
    text.truncate(MESSAGE_BYTES_MAX);
    text
}

/// What a look into a link found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// One packet.
    Packet(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// The other side is gone.
    Closed,
}

/// Takes one packet if there is one; never waits.
pub fn take(link: &OwnedFd) -> Received {
    let mut packet = vec![0; MESSAGE_BYTES_MAX];
    loop {
        match recv(link.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => return Received::Closed,
            Ok(length) => {
                packet.truncate(length);
                return Received::Packet(packet);
            }
            Err(Errno::EINTR) => {}
            Err(_) => return Received::Nothing,
        }
    }
}

/// Sends one packet; never waits.
///
/// # Errors
/// The other side is gone, or does not read.
pub fn say(link: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    send(link.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let told = ToMaster::Limits { call: 7, told: r#"{"a": 1}"#.into() };
        for message in [ToMaster::Ready, ToMaster::Failed("no model: nothing".into()), told, ToMaster::Worn("7".into())]
        {
            assert_eq!(ToMaster::decode(&message.encode()), Some(message));
        }
        let drain =
            ToWorker::Drain { limit: Duration::from_secs(30), grace: Duration::from_millis(5), delay: Duration::ZERO };
        assert_eq!(ToWorker::decode(&drain.encode()), Some(drain));
        let limits = ToWorker::Limits { call: 7, reset: true, client: "2001:db8::1".into() };
        assert_eq!(ToWorker::decode(&limits.encode()), Some(limits));
        assert_eq!(ToMaster::decode(b"readyish"), None);
        assert_eq!(ToWorker::decode(b"drain x"), None);
        assert_eq!(ToWorker::decode(&[0xff, 0]), None);
    }

    #[test]
    fn a_link_tells_silence_from_death() {
        let (a, b) = crate::sys::fd::packet_pair().unwrap();
        assert_eq!(take(&b), Received::Nothing);
        say(&a, b"x").unwrap();
        assert_eq!(take(&b), Received::Packet(b"x".to_vec()));
        drop(a);
        assert_eq!(take(&b), Received::Closed);
    }
}
