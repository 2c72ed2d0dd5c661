//! The environment: read once, kept, and its secrets' bytes overwritten where `/proc/PID/environ` shows them.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;

unsafe extern "C" {
    static environ: *const *mut nix::libc::c_char;
}

/// Every variable of this process, as it was started with.
pub fn read() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

/// Overwrites, in place, the value of every variable for which `secret(name)` is true. The name stays, the value
/// becomes `x` bytes: nobody finds the secret in `/proc/PID/environ` of this process or of a forked child.
///
/// Call once, at start, with one thread.
pub fn scrub(secret: impl Fn(&str) -> bool) {
    // SAFETY: one thread (called by main before anything else starts); environ is the kernel's block, writable
    // memory of this process, terminated by a null pointer; only bytes between '=' and the NUL are written.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).to_bytes().len();
            let bytes = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if let Some(equals) = bytes.iter().position(|byte| *byte == b'=') {
                let (name, value) = bytes.split_at_mut(equals);
                if secret(&String::from_utf8_lossy(name)) {
                    value[1..].fill(b'x');
                }
            }
            entry = entry.add(1);
        }
    }
}

/// Sets a variable of this process, so that the children see it.
///
/// Call at start, with one thread.
#[allow(clippy::disallowed_methods)] // the ban's one exception: this is where everyone else is sent
pub fn set(name: &str, value: &str) {
    // SAFETY: one thread: main calls this before the master forks or anything reads the environment.
    unsafe { std::env::set_var(name, value) };
}

/// The variable's bytes as text, for a message; lossy.
pub fn lossy(value: OsString) -> String {
    String::from_utf8_lossy(&value.into_vec()).into_owned()
}
