//! Replacing a forked child by a program.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Replaces this process by `program`; returns only when that failed.
///
/// # Errors
/// Not found, not executable, or an argument with a NUL byte.
pub fn exec(program: &OsStr, args: &[OsString], environment: &[(OsString, OsString)]) -> io::Result<Infallible> {
    let program = c_string(program.as_bytes())?;
    let args = args.iter().map(|arg| c_string(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let environment = environment.iter().map(pair).collect::<io::Result<Vec<_>>>()?;
    Ok(nix::unistd::execve(&program, &args, &environment)?)
}

/// The same for a program that is named by an open descriptor, wherever its file is by now.
///
/// # Errors
/// As [`exec`].
pub fn exec_descriptor(
    program: &OwnedFd,
    args: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Result<Infallible> {
    let args = args.iter().map(|arg| c_string(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let environment = environment.iter().map(pair).collect::<io::Result<Vec<_>>>()?;
    Ok(nix::unistd::fexecve(program, &args, &environment)?)
}

/// The file of this program, which stays executable when its name is given to another.
///
/// # Errors
/// No /proc.
pub fn own_program() -> io::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    Ok(open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?)
}

fn pair((name, value): &(OsString, OsString)) -> io::Result<CString> {
    c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat())
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in an argument"))
}
