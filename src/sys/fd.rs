//! Descriptors: adopting raw ones, packet socket pairs, and what a child keeps.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Bytes of send buffer that a packet pair asks for: half a second of a busy worker's log lines.
/// (`SO_RCVBUF` does nothing on `AF_UNIX`; the sender's buffer is the queue.)
pub const PACKET_BUFFER_BYTES: usize = 1 << 20;

/// Takes ownership of a descriptor that this process received (systemd, `SCM_RIGHTS`, an exec).
///
/// # Errors
/// `EBADF` when the number is not an open descriptor.
pub fn adopt(raw: RawFd) -> io::Result<OwnedFd> {
    nix::fcntl::fcntl(borrow(raw)?, nix::fcntl::FcntlArg::F_GETFD)?;
    // SAFETY: open, as just asked; the caller received it and no other owner exists in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn borrow(raw: RawFd) -> io::Result<std::os::fd::BorrowedFd<'static>> {
    if raw < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: not -1, and used for a single fcntl whose failure is reported, never kept.
    Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) })
}

/// A pair of connected `SOCK_SEQPACKET` sockets, close-on-exec: whole packets, in order, end of file when the
/// last holder of the other side is gone.
///
/// # Errors
/// Out of descriptors or memory.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&a, sockopt::SndBuf, &PACKET_BUFFER_BYTES)?;
    setsockopt(&b, sockopt::SndBuf, &PACKET_BUFFER_BYTES)?;
    Ok((a, b))
}

/// Where the other side is on this machine, a proxy mostly, nothing is congested; but where the system's default is BBR each
/// packet would be paced. A kernel without reno keeps its default.
pub fn unpaced_on_loopback(socket: &impl AsFd, address: IpAddr) {
    if address.is_loopback() {
        let _ = socket2::SockRef::from(socket).set_tcp_congestion(b"reno");
    }
}

/// Puts a copy of `from` at the number `to`, without close-on-exec (for stdin, stdout, stderr and what a program
/// that is about to be executed expects at a fixed number).
///
/// # Errors
/// `EBADF` when `to` is out of range.
pub fn place(from: &impl AsRawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: dup2 replaces whatever stood at `to`; only a forked child about to become a worker, the log process
    // or another program calls this, for numbers that nothing in it owns.
    if unsafe { nix::libc::dup2(from.as_raw_fd(), to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets a descriptor survive the next exec of this process.
///
/// # Errors
/// `EBADF`.
pub fn keep_over_exec(raw: RawFd) -> io::Result<()> {
    nix::fcntl::fcntl(borrow(raw)?, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    Ok(())
}

/// Undoes [`keep_over_exec`].
///
/// # Errors
/// `EBADF`.
pub fn close_on_exec(raw: RawFd) -> io::Result<()> {
    nix::fcntl::fcntl(borrow(raw)?, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Another descriptor for what `raw` stands for, close-on-exec.
///
/// # Errors
/// `EBADF`, or out of descriptors.
pub fn duplicate(raw: RawFd) -> io::Result<OwnedFd> {
    let copy = nix::fcntl::fcntl(borrow(raw)?, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    adopt(copy)
}

/// Closes every descriptor above stderr that is not in `keep`: what a forked child inherited and must not hold,
/// for a kept copy of a peer's socket would hide its end of file.
pub fn close_all_but(keep: &[RawFd]) {
    let keep: BTreeSet<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    let mut next = 3;
    for fd in keep {
        close_range(next, fd - 1);
        next = fd + 1;
    }
    close_range(next, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: only a freshly forked child calls this, before it owns anything beyond `keep`; the values that
        // owned these numbers in the parent are never dropped here, for the child's main does not return.
        unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first as u32, last as u32, 0u32) };
    }
}

/// The most descriptors that this process may raise its limit to.
///
/// # Errors
/// None that the kernel documents for these arguments.
pub fn hard_limit() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit};
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// Raises the soft limit of open descriptors to what the connections need, as far as the hard limit allows.
///
/// # Errors
/// The kernel's refusal; the limit stays as it was.
pub fn raise_limit(wanted: u64) -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let target = wanted.min(hard).max(soft);
    if target > soft {
        setrlimit(Resource::RLIMIT_NOFILE, target, hard)?;
    }
    Ok(target)
}
