//! The sockets that everyone accepts from: bound once by the master, or by systemd before it; inherited by each worker.

pub mod inherited;

use crate::sys::fd;
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Connections of workers that wait for the engine to accept them.
const PRIVATE_BACKLOG: i32 = 256;

/// Where to listen, as meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A path; the socket is made with mode 0600 unless the operator set a umask.
    Unix(PathBuf),
    /// One that systemd bound, by its descriptor's number.
    Inherited(RawFd),
    /// One of the others, where operators look and nobody else.
    Admin(Box<Address>),
}

impl Address {
    /// Reads `host:port`, `:port`, `[v6]:port` or `unix:/path`.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Address::Unix(PathBuf::from(path))),
                false => Err(format!("{text:?}: a Unix socket needs an absolute path, as in unix:/run/chatcorn.sock")),
            };
        }
        let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
        let mut found = full
            .to_socket_addrs()
            .map_err(|_| format!("{text:?}: write host:port as in 0.0.0.0:7860 or [::]:7860, or unix:/path"))?;
        found.next().map(Address::Tcp).ok_or_else(|| format!("{text:?}: the name has no address"))
    }

    /// True when other machines can reach it.
    pub fn is_public(&self) -> bool {
        match self.plain() {
            Address::Tcp(address) => !address.ip().is_loopback(),
            Address::Inherited(_) => self.local().is_some_and(|address| address.is_public()),
            Address::Unix(_) | Address::Admin(_) => false,
        }
    }

    /// The address itself, whatever it is for.
    pub fn plain(&self) -> &Address {
        match self {
            Address::Admin(inner) => inner.plain(),
            plain => plain,
        }
    }

    /// Where it is, for one that systemd bound.
    pub fn local(&self) -> Option<Address> {
        match self.plain() {
            Address::Inherited(number) => inherited::local(*number),
            plain => Some(plain.clone()),
        }
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        if matches!(self, Address::Admin(_)) { Purpose::Admin } else { Purpose::Public }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Admin(inner) => write!(f, "{inner}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Inherited(number) => write!(f, "fd://{number}"),
        }
    }
}

/// What is served at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The API.
    Public,
    /// Metrics and status.
    Admin,
}

/// A listening socket as a runtime thread holds it.
pub struct Gate {
    /// To accept from.
    pub socket: Socket,
    /// What who comes in is served.
    pub purpose: Purpose,
}

impl Gate {
    /// Another handle to the same socket.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> io::Result<Gate> {
        Ok(Gate { socket: self.socket.try_clone()?, purpose: self.purpose })
    }
}

/// What to listen on.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where.
    pub addresses: Vec<Address>,
    /// The kernel's queue of connections that nobody accepted yet.
    pub backlog: i32,
    /// Of Unix sockets.
    pub umask: Option<u32>,
    /// What is public speaks TLS.
    pub tls: bool,
}

impl Wanted {
    /// Binds one of the addresses.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind(&self, address: &Address) -> Result<Listener, BindError> {
        Listener::bind(address, self.backlog, self.umask)
    }

    /// The address as a client would write it.
    pub fn shown(&self, address: &Address) -> String {
        match address {
            Address::Tcp(tcp) if self.tls => format!("https://{tcp}"),
            other => other.to_string(),
        }
    }
}

/// A socket that listens, and where.
pub struct Listener {
    asked: Address,
    address: Address,
    socket: Socket,
}

impl Listener {
    /// Binds and listens; `backlog` is the kernel's queue of connections that nobody accepted yet.
    ///
    /// # Errors
    /// [`BindError`] with the address; `in_use` tells an operator's mistake from the rest.
    pub fn bind(address: &Address, backlog: i32, umask_mode: Option<u32>) -> Result<Listener, BindError> {
        let socket = match address.plain() {
            Address::Tcp(tcp) => bind_tcp(*tcp),
            Address::Unix(path) => bind_unix(path, umask_mode),
            Address::Inherited(number) => inherited::socket(*number),
            Address::Admin(_) => Err(io::ErrorKind::InvalidInput.into()),
        };
        let listening = socket.and_then(|socket| {
            // Whoever bound it chose its backlog.
            if !matches!(address.plain(), Address::Inherited(_)) {
                socket.listen(backlog)?;
            }
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match listening {
            Ok(socket) => Ok(Listener { asked: address.clone(), address: resolved(address, &socket), socket }),
            Err(error) => Err(BindError { address: address.clone(), error }),
        }
    }

    /// A socket that listens already: handed over by the former program.
    pub fn adopt(asked: Address, socket: OwnedFd) -> Listener {
        let socket = Socket::from(socket);
        Listener { address: resolved(&asked, &socket), asked, socket }
    }

    /// What was asked for: port 0 stays 0.
    pub fn asked(&self) -> &Address {
        &self.asked
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Another handle to the same socket, for a runtime thread.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn socket(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }

    /// The same, with what it is for.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn gate(&self) -> io::Result<Gate> {
        Ok(Gate { socket: self.socket()?, purpose: self.address.purpose() })
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A Unix socket with an abstract name that the kernel chose: for a child that only this program talks to.
///
/// # Errors
/// Out of descriptors.
pub fn private_socket() -> io::Result<Socket> {
    use nix::sys::socket::{UnixAddr, bind};
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    socket.listen(PRIVATE_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    address: Address,
    error: io::Error,
}

impl BindError {
    /// Somebody else listens there.
    pub fn in_use(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "{} is in use: stop what listens there, or choose another address with --bind", self.address)
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "{} may not be bound by this user: ports below 1024 need root", self.address)
            }
            _ => write!(f, "{} cannot be listened on: {}", self.address, self.error),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Inherited by every accepted connection: one system call less for each.
    socket.set_tcp_nodelay(true)?;
    fd::unpaced_on_loopback(&socket, address.ip());
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, umask_mode: Option<u32>) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Closed from its first moment: never bound first and opened or shut afterwards.
    let former = umask(Mode::from_bits_truncate(umask_mode.unwrap_or(0o177)));
    let bound = socket.bind(&SockAddr::unix(path)?);
    umask(former);
    bound.map(|()| socket)
}

/// Removes a socket that a master that died left behind; one that answers, or another kind of file, stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if found.file_type().is_socket() && is_abandoned(path) {
        return std::fs::remove_file(path);
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}

/// True for a Unix socket's name behind which nobody listens, and nothing less is known.
pub fn is_abandoned(path: &Path) -> bool {
    // Without waiting: the queue of a stopped server may be full.
    let knock = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    knock().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn resolved(asked: &Address, socket: &Socket) -> Address {
    // A Unix socket's name is the one that was asked for: what the kernel tells may have been cut or renamed.
    let local = inherited::local_of(socket)
        .filter(|local| matches!((local, asked.plain()), (Address::Tcp(_), _) | (_, Address::Inherited(_))));
    match (local, asked.purpose()) {
        (None, _) => asked.clone(),
        (Some(local), Purpose::Public) => local,
        (Some(local), Purpose::Admin) => Address::Admin(Box::new(local)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_an_operator_writes_them() {
        assert_eq!(Address::parse(":7860").unwrap().to_string(), "http://0.0.0.0:7860");
        assert_eq!(Address::parse("[::1]:80").unwrap().to_string(), "http://[::1]:80");
        assert_eq!(Address::parse("unix:/run/x.sock").unwrap(), Address::Unix("/run/x.sock".into()));
        assert_eq!(Address::parse("unix:///run/x.sock").unwrap(), Address::Unix("/run/x.sock".into()));
        for bad in ["", "7860", "host:", "1.2.3.4:99999", "unix:relative", "tcp://1.2.3.4:1"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_taken_port_is_told_apart() {
        let first = Listener::bind(&Address::parse("127.0.0.1:0").unwrap(), 16, None).unwrap();
        let Address::Tcp(taken) = first.address().clone() else { panic!("tcp") };
        let error = Listener::bind(&Address::Tcp(taken), 16, None).err().unwrap();
        assert!(error.in_use());
        assert!(error.to_string().contains("--bind"));
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_file_is_not() {
        let dir = std::env::temp_dir().join(format!("chatcorn-listener-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let address = Address::Unix(path.clone());
        drop(Listener::bind(&address, 16, None).unwrap());
        let live = Listener::bind(&address, 16, None).unwrap();
        assert!(Listener::bind(&address, 16, None).err().unwrap().in_use());
        drop(live);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address, 16, None).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
