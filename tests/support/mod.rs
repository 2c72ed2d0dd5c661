//! What every test needs.

mod browser;
mod client;
mod footprint;
mod group;
mod load;
mod postgres;
mod redis;
mod server;
mod systemd;
mod upstream;
mod venv;

pub use browser::Browser;
pub use client::{Answer, Connection, post};
pub use footprint::Footprint;
pub use group::Group;
pub use load::Load;
pub use postgres::Postgres;
pub use redis::{Between, Manner, Redis, cluster, free_port};
pub use server::{Server, lives, run};
pub use systemd::{Systemd, activate};
pub use upstream::{Upstream, Way};
pub use venv::python_with;

use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Lets time go by where a client was promised something for a time. A thread that parks may be woken by what it waited for
/// before.
pub fn pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Waits until `condition` holds; the looks are a few milliseconds apart.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
