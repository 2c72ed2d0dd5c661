//! Single keys from the terminal, for `top`.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Stdin};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What Ctrl-C and Ctrl-D are when the terminal does not act on them itself.
const INTERRUPT: u8 = 3;
const END: u8 = 4;

/// The terminal hands over each key at once and shows none, until this is dropped.
pub struct Keyboard {
    input: Stdin,
    before: Termios,
}

impl Keyboard {
    /// `None` when standard input is no terminal.
    pub fn take() -> Option<Keyboard> {
        let input = io::stdin();
        let before = input.is_terminal().then(|| tcgetattr(input.as_fd()).ok()).flatten()?;
        let mut single = before.clone();
        // Ctrl-C comes as a key, too, so that the terminal is given back in every case.
        single.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &single).ok()?;
        Some(Keyboard { input, before })
    }

    /// Waits for so long; true as soon as somebody wants to leave: `q`, Escape, Ctrl-C, Ctrl-D or no terminal any more.
    pub fn leaves(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            let left =
                PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
            let mut asked = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
            match poll(&mut asked, left) {
                Ok(0) => return false,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return true,
                Ok(_) if self.pressed().is_none_or(|key| matches!(key, b'q' | b'Q' | b'\x1b' | INTERRUPT | END)) => {
                    return true;
                }
                Ok(_) => {}
            }
        }
    }

    fn pressed(&self) -> Option<u8> {
        let mut key = [0];
        // Not through the buffer of `Stdin`: what lies there, `poll` does not see.
        nix::unistd::read(&self.input, &mut key).is_ok_and(|read| read == 1).then_some(key[0])
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = tcsetattr(self.input.as_fd(), SetArg::TCSANOW, &self.before);
    }
}
