//! A Redis server of a test's own, on a Unix socket.

use super::until;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static PLACES: AtomicU32 = AtomicU32::new(0);

/// A running server; it ends with the test.
pub struct Redis {
    child: Child,
    home: PathBuf,
}

impl Redis {
    /// Starts one.
    pub fn start() -> Redis {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("chatcorn-test-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(home.join("socket"));
        let spawned = command.arg("--dir").arg(&home).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = spawned.expect("these tests need redis-server in PATH");
        until("Redis", || UnixStream::connect(home.join("socket")).is_ok());
        Redis { child, home }
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.home.join("socket").display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}
