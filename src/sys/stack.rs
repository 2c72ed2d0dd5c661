//! A thread's own stack, taken by a signal: raw addresses into a buffer that was prepared before.
//!
//! ```text
//! [ records taken ]  [ thread | addresses + 1 | address … ]  [ … ]
//! ```
//! The handler allocates nothing, takes no lock of ours and writes nothing but its record. Deliberately absent: names.
//! Whoever reads the addresses knows the mappings that they lie in.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use std::io;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Threads that can leave a stack.
pub const THREADS_MAX: usize = 16;
/// Addresses of one stack.
pub const FRAMES_MAX: usize = 46;
/// Where the first record is.
pub const RECORDS_AT: usize = 8;
/// Words of one record.
pub const RECORD_WORDS: usize = FRAMES_MAX + 2;
/// Words of the whole buffer.
pub const WORDS: usize = RECORDS_AT + THREADS_MAX * RECORD_WORDS;
/// [`addresses`], the handler and the kernel's way into it stand before the address that was interrupted.
const OWN_FRAMES: usize = 3;

/// Ignored where nobody handles it, so that a process which is not ready for it goes on.
const ASKED_BY: Signal = Signal::SIGURG;

static BUFFER: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// From now on every thread that this process starts leaves its stack in `words` when it is asked; this one too.
///
/// # Errors
/// Fewer than [`WORDS`] words; a signal that cannot be caught.
pub fn prepare(words: &'static [AtomicU64]) -> io::Result<()> {
    if words.len() < WORDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too few words for stacks"));
    }
    BUFFER.store(words.as_ptr().cast_mut(), Release);
    // The first call loads what all later ones need, which no handler may.
    let _ = addresses(&mut [std::ptr::null_mut(); 1]);
    let action = SigAction::new(SigHandler::Handler(leave), SaFlags::SA_RESTART, SigSet::all());
    // SAFETY: `leave` is async-signal-safe, see there.
    unsafe { sigaction(ASKED_BY, &action) }?;
    // Threads inherit the mask; a fork blocked everything.
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(ASKED_BY)), None)?)
}

/// Asks a thread of a child of ours that is not reaped for its stack. A thread that does not run leaves none.
pub fn ask(pid: i32, thread: i32) -> bool {
    // SAFETY: tgkill(2) touches no memory of ours; the caller knows that the process is not reaped, so its number is
    // its own, and the kernel refuses a thread of another process.
    pid > 1 && unsafe { libc::syscall(libc::SYS_tgkill, pid, thread, ASKED_BY as libc::c_int) } == 0
}

#[inline(never)]
fn addresses(frames: &mut [*mut libc::c_void]) -> usize {
    // SAFETY: the buffer is as long as is said. After a first call outside of a handler it neither allocates nor loads,
    // and finds unwind tables without a lock (glibc 2.35); an older one may wait for a lock of the loader, in a process
    // that is about to be killed anyway.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), frames.len() as libc::c_int) };
    usize::try_from(count).unwrap_or(0).min(frames.len())
}

/// The handler: claims a record by one atomic addition, fills it, marks it whole.
extern "C" fn leave(_: libc::c_int) {
    let buffer = BUFFER.load(Acquire);
    if buffer.is_null() {
        return;
    }
    // SAFETY: `prepare` stored the start of at least WORDS words that live as long as the process.
    let words = unsafe { std::slice::from_raw_parts(buffer.cast_const(), WORDS) };
    let number = words[0].fetch_add(1, Relaxed) as usize;
    let Some(record) = words[RECORDS_AT..].chunks_exact(RECORD_WORDS).nth(number) else { return };
    // SAFETY: gettid(2) has no arguments; errno is this thread's own, kept for whoever was interrupted.
    let (thread, errno) = unsafe { (libc::gettid(), *libc::__errno_location()) };
    let mut frames = [std::ptr::null_mut(); FRAMES_MAX + OWN_FRAMES];
    let count = addresses(&mut frames).saturating_sub(OWN_FRAMES);
    for (word, frame) in record[2..].iter().zip(&frames[OWN_FRAMES..]) {
        word.store(*frame as u64, Relaxed);
    }
    record[0].store(thread as u64, Relaxed);
    record[1].store(count as u64 + 1, Release);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_waits_leaves_its_stack_and_waits_on() {
        let words: &'static [AtomicU64] = (0..WORDS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak();
        prepare(words).unwrap();
        let (told, waits) = mpsc::channel::<()>();
        let (tell, thread) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            waits.recv().unwrap();
        });
        let thread = thread.recv().unwrap();
        assert!(ask(std::process::id() as i32, thread));
        while words[RECORDS_AT + 1].load(Acquire) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(words[RECORDS_AT].load(Relaxed), thread as u64);
        assert!(words[RECORDS_AT + 1].load(Relaxed) > 3, "more than two addresses");
        told.send(()).unwrap();
        waiting.join().unwrap();
        assert!(!ask(std::process::id() as i32, 1), "no thread of ours");
    }
}
