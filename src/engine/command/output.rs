//! What a command prints, as records of the log.

use nix::errno::Errno;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// A longer line is cut.
const LINE_BYTES_MAX: usize = 8 << 10;
/// So much is read at once.
const READ_BYTES: usize = 16 << 10;

/// The reading end of a command's stdout and stderr.
pub struct Output {
    pipe: AsyncFd<OwnedFd>,
    /// The beginning of a line whose end has not come.
    held: Vec<u8>,
    last: String,
    closed: bool,
}

impl Output {
    /// Over a pipe that does not block.
    pub fn new(pipe: AsyncFd<OwnedFd>) -> Output {
        Output { pipe, held: Vec::new(), last: String::new(), closed: false }
    }

    /// Waits for something and logs it; for ever once nobody can write any more. Cancel-safe.
    pub async fn next(&mut self) {
        if self.closed {
            return pending().await;
        }
        match self.pipe.readable().await {
            Err(_) => self.closed = true,
            Ok(mut ready) => {
                let mut bytes = [0; READ_BYTES];
                match ready.try_io(|pipe| nix::unistd::read(pipe.get_ref(), &mut bytes).map_err(io::Error::from)) {
                    Ok(Ok(0)) => self.closed = true,
                    Ok(Ok(count)) => self.take(&bytes[..count]),
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        }
    }

    /// Takes what is there, without waiting, and says what its last line was.
    pub fn rest(&mut self) -> &str {
        let mut bytes = [0; READ_BYTES];
        loop {
            match nix::unistd::read(self.pipe.get_ref(), &mut bytes) {
                Ok(count @ 1..) => self.take(&bytes[..count]),
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        if !self.held.is_empty() {
            self.take(b"\n");
        }
        &self.last
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.hold(&bytes[..at]);
            self.line();
            bytes = &bytes[at + 1..];
        }
        self.hold(bytes);
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.held.len());
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&mut self) {
        let line = String::from_utf8_lossy(&self.held).trim_end().to_owned();
        self.held.clear();
        if !line.is_empty() {
            tracing::info!("{line}");
            self.last = line;
        }
    }
}
