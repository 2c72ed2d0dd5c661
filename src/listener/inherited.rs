//! Sockets that systemd bound and hands over at the start: `LISTEN_FDS` of them, from descriptor 3 on (sd_listen_fds(3)).
//!
//! They stay open at their numbers for the life of the process, whatever is listened on: a reload may name them again,
//! and a program that replaces this one in place finds them where they were. The variables are for one process alone:
//! who is not meant by `LISTEN_PID` takes them away before anything else reads them.

use super::Address;
use crate::sys::fd;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use socket2::Socket;
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;

/// The first of them.
const FIRST: RawFd = 3;
/// systemd's own limit is far below.
const COUNT_MAX: usize = 128;
/// A socket of this name (`FileDescriptorName=`) is for operators.
const ADMIN: &str = "admin";
/// How they are written: a number, or a name that systemd gave.
const SCHEME: &str = "fd://";

/// What a service manager tells one process and not its children.
pub const FOR_ONE_PROCESS: [&str; 6] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Takes the variables away unless they are for this process.
pub fn keep_own(environment: &mut Vec<(OsString, OsString)>) {
    let pid = std::process::id().to_string();
    let ours = environment.iter().any(|(name, value)| name == "LISTEN_PID" && value.to_str() == Some(pid.as_str()));
    if !ours {
        environment.retain(|(name, _)| !name.to_string_lossy().starts_with("LISTEN_"));
    }
}

/// Their names, in the order of their descriptors; `value` gives a variable that [`keep_own`] left.
pub fn names(value: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let count = value("LISTEN_FDS").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0).min(COUNT_MAX);
    let given = value("LISTEN_FDNAMES").unwrap_or_default();
    let mut given = given.split(':').map(str::to_owned);
    (0..count).map(|_| given.next().unwrap_or_default()).collect()
}

/// Where to listen when nobody says: at all of them.
pub fn all(names: &[String]) -> Vec<Address> {
    let address = |(number, name): (RawFd, &String)| match name.as_str() {
        ADMIN => Address::Admin(Box::new(Address::Inherited(number))),
        _ => Address::Inherited(number),
    };
    (FIRST..).zip(names).map(address).collect()
}

/// Reads `fd://3` and `fd://name`, of which there may be several; `None` for any other address.
///
/// # Errors
/// A sentence: nothing of the kind was handed over.
pub fn parse(text: &str, names: &[String]) -> Option<Result<Vec<Address>, String>> {
    let wanted = text.strip_prefix(SCHEME)?;
    let number = wanted.parse::<RawFd>().ok();
    let fits = |(raw, name): &(RawFd, &String)| number.map_or(name.as_str() == wanted, |number| number == *raw);
    let found: Vec<Address> = (FIRST..).zip(names).filter(fits).map(|(raw, _)| Address::Inherited(raw)).collect();
    Some(match (found.is_empty(), names.len()) {
        (false, _) => Ok(found),
        (true, 0) => Err(format!("{text:?}: systemd handed no socket over (it does so by a .socket unit)")),
        (true, count) => Err(format!("{text:?}: systemd handed {count} sockets over, from fd://{FIRST} on")),
    })
}

/// Those that nobody listens on: who connects there would wait for ever.
pub fn unnamed(names: &[String], addresses: &[Address]) -> Vec<Address> {
    let all = (FIRST..).zip(names).map(|(raw, _)| Address::Inherited(raw));
    all.filter(|one| !addresses.iter().any(|address| address.plain() == one)).collect()
}

/// A handle to it. The number itself stays open.
///
/// # Errors
/// Not open, or not a stream socket that listens.
pub fn socket(number: RawFd) -> io::Result<Socket> {
    let own = fd::duplicate(number)?;
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, "it is not a socket");
    let stream = getsockopt(&own, sockopt::SockType).map_err(wrong)? == SockType::Stream;
    if !stream || !getsockopt(&own, sockopt::AcceptConn).map_err(wrong)? {
        let text = "it is not a listening stream socket: the .socket unit needs ListenStream= and Accept=no";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let socket = Socket::from(own);
    if socket.local_addr()?.as_socket().is_some() {
        // Inherited by every accepted connection, as of those that we bind.
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// Where it listens; an address that is not known is nobody's.
pub fn local(number: RawFd) -> Option<Address> {
    local_of(&socket(number).ok()?)
}

pub(super) fn local_of(socket: &Socket) -> Option<Address> {
    let local = socket.local_addr().ok()?;
    let path = || local.as_pathname().map(|path| Address::Unix(path.to_owned()));
    local.as_socket().map(Address::Tcp).or_else(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &'static [(&'static str, &'static str)]) -> Vec<String> {
        names(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn they_are_named_by_number_and_by_name_and_all_have_to_be() {
        let names = given(&[("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "web:admin:web")]);
        assert_eq!(all(&names)[1], Address::Admin(Box::new(Address::Inherited(4))));
        assert_eq!(parse("fd://web", &names), Some(Ok(vec![Address::Inherited(3), Address::Inherited(5)])));
        assert_eq!(parse("fd://4", &names), Some(Ok(vec![Address::Inherited(4)])));
        assert!(parse("fd://6", &names).unwrap().unwrap_err().contains("from fd://3 on"));
        assert!(parse("fd://3", &[]).unwrap().unwrap_err().contains("no socket"));
        assert_eq!(parse("127.0.0.1:80", &names), None);
        assert_eq!(unnamed(&names, &all(&names)), []);
        assert_eq!(unnamed(&names, &[Address::Inherited(3)]), [Address::Inherited(4), Address::Inherited(5)]);
        assert_eq!(given(&[("LISTEN_FDS", "nonsense")]), Vec::<String>::new());
        assert_eq!(given(&[("LISTEN_FDS", "2")]), ["", ""]);
    }

    #[test]
    fn what_is_for_another_process_is_not_looked_at() {
        let pair = |name: &str, value: String| (OsString::from(name), OsString::from(value));
        let own = std::process::id();
        for (pid, left) in [(own, 3), (own + 1, 1)] {
            let mut environment =
                vec![pair("LISTEN_PID", pid.to_string()), pair("LISTEN_FDS", "1".into()), pair("PATH", "/bin".into())];
            keep_own(&mut environment);
            assert_eq!(environment.len(), left);
        }
    }
}
