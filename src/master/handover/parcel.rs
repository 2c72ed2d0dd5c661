//! What one program leaves to the next: JSON in a sealed memory file that only descriptors name.

use super::Origin;
use crate::board::LAYOUT;
use crate::listener::Address;
use crate::master::Master;
use crate::master::history::History;
use crate::master::operator::{For, Waiting};
use crate::master::roster::ChildId;
use crate::master::state::State;
use crate::master::upgrade::Way;
use crate::sys::{fd, shm};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

/// The variable that says which descriptor the parcel is.
pub const VARIABLE: &str = "CHATCORN_HANDOVER";
/// Raised whenever a successor could misread what stands here or on the board.
const VERSION: u32 = 1;
/// A mind of 128 workers takes less than a tenth of this.
const BYTES_MAX: u64 = 4 << 20;

/// The whole parcel.
#[derive(Serialize, Deserialize)]
pub struct Parcel {
    version: u32,
    layout: [usize; 4],
    /// Whether the reader is the new program or the former one.
    pub way: Way,
    /// How the server was started.
    pub origin: Origin,
    /// What stays open.
    pub descriptors: Descriptors,
    /// The last generation of configuration so far.
    pub newest: u32,
    /// When the server started (monotonic).
    pub started: Duration,
    /// Read only when the version fits.
    mind: Box<RawValue>,
    history: History,
    /// Why the former program has to go on.
    refused: Option<String>,
}

/// Open descriptors by number.
#[derive(Clone, Serialize, Deserialize)]
pub struct Descriptors {
    /// The program that hands over, as a file.
    pub old: Option<RawFd>,
    /// Sockets and their addresses.
    pub listeners: Vec<(Address, RawFd)>,
    /// The board.
    pub board: RawFd,
    /// The limits' memory.
    pub limits: Option<RawFd>,
    /// By sender: writer, reader.
    pub pipes: Vec<(usize, Option<RawFd>, RawFd)>,
    /// To the log process.
    pub log_link: Option<RawFd>,
    /// The engine's.
    pub engine_socket: Option<RawFd>,
    /// To each child.
    pub links: Vec<(ChildId, RawFd)>,
    /// The operators' socket.
    pub control: Option<RawFd>,
    /// Operators who wait, and for what.
    pub calls: Vec<(RawFd, For)>,
}

impl Descriptors {
    /// All numbers.
    pub fn all(&self) -> impl Iterator<Item = RawFd> + '_ {
        let single = [self.old, Some(self.board), self.limits, self.log_link, self.engine_socket, self.control];
        let pipes = self.pipes.iter().flat_map(|(_, writer, reader)| [*writer, Some(*reader)]).flatten();
        let links = self.links.iter().map(|(_, raw)| *raw).chain(self.calls.iter().map(|(raw, _)| *raw));
        single.into_iter().flatten().chain(pipes).chain(links).chain(self.listeners.iter().map(|(_, raw)| *raw))
    }
}

impl Parcel {
    pub(super) fn new(way: Way, descriptors: Descriptors, master: &Master) -> io::Result<Parcel> {
        Ok(Parcel {
            version: VERSION,
            layout: LAYOUT,
            way,
            origin: master.origin.clone(),
            descriptors,
            newest: master.newest,
            started: master.started,
            mind: serde_json::value::to_raw_value(&master.state)?,
            history: master.history.clone(),
            refused: None,
        })
    }

    /// Writes it into sealed memory.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub fn seal(&self) -> io::Result<OwnedFd> {
        shm::sealed("chatcorn-handover", &serde_json::to_vec(self)?)
    }

    /// Reads it, from the descriptor that the environment names; `None` when it names none.
    ///
    /// # Errors
    /// A sentence: no such descriptor, not sealed, of another version or layout.
    pub fn received(environment: &[(OsString, OsString)]) -> Option<Result<Parcel, String>> {
        let (_, number) = environment.iter().find(|(name, _)| name == VARIABLE)?;
        let number = number.to_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
        Some(Parcel::open(number))
    }

    fn open(number: RawFd) -> Result<Parcel, String> {
        let bytes = shm::read_sealed(number, BYTES_MAX).map_err(|error| format!("handed-over state: {error}"))?;
        // Read once: an open copy would pile up with each upgrade, and holds secrets.
        drop(fd::adopt(number));
        let head: Head = serde_json::from_slice(&bytes).map_err(|error| format!("handed-over state: {error}"))?;
        if (head.version, head.layout) != (VERSION, LAYOUT) {
            let (theirs, ours) = (head.version, VERSION);
            return Err(format!(
                "the running program hands over state of version {theirs}, this one reads version {ours} with its own \
                 layout of shared memory: restart instead"
            ));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("handed-over state: {error}"))
    }

    /// The master's mind and memory.
    ///
    /// # Errors
    /// Not readable by this program.
    pub fn mind(&self) -> io::Result<(State, History)> {
        let mut state: State = serde_json::from_str(self.mind.get())?;
        if let Some(reason) = &self.refused {
            state.return_for(reason);
        }
        Ok((state, self.history.clone()))
    }

    /// The reader cannot take over: the next one is the former program.
    pub(super) fn refuse(&mut self, reason: &str) {
        self.way = Way::Back;
        self.refused = Some(reason.to_owned());
    }

    /// The name that workers find the engine by.
    pub fn engine_socket_name(&self) -> Vec<u8> {
        let socket = self.descriptors.engine_socket.and_then(|raw| fd::duplicate(raw).ok()).map(socket2::Socket::from);
        let name = socket.and_then(|socket| socket.local_addr().ok());
        name.and_then(|address| address.as_abstract_namespace().map(<[u8]>::to_vec)).unwrap_or_default()
    }

    /// Operators who wait; their calls are numbered in the order of the descriptors.
    pub(super) fn waiting(&self) -> Waiting {
        Waiting::adopt(self.descriptors.calls.iter().map(|(_, wants)| *wants))
    }
}

/// What every version can read.
#[derive(Deserialize)]
struct Head {
    version: u32,
    layout: [usize; 4],
}
