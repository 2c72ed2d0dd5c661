//! What a server holds: descriptors, memory, processes. Taken before a fault and looked at again after it.

use super::{Server, until};
use std::os::unix::fs::PermissionsExt;

/// Memory may grow by a tenth, and by so much in any case: allocators keep what they had once.
const RSS_KIB_SLACK: u64 = 8 * 1024;
/// Descriptors may differ by what is open for a moment.
const DESCRIPTORS_SLACK: usize = 4;

/// At one moment.
#[derive(Debug, Clone)]
pub struct Footprint {
    workers: usize,
    descriptors: usize,
    rss_kib: u64,
}

impl Footprint {
    /// What the whole tree of the server holds now.
    pub fn of(server: &Server) -> Footprint {
        let workers = server.children("worker");
        let all = [workers.clone(), server.children("chatcorn log"), vec![server.pid()]].concat().into_iter();
        let (descriptors, rss_kib) = all.fold((0, 0), |sum, pid| (sum.0 + descriptors(pid), sum.1 + rss_kib(pid)));
        Footprint { workers: workers.len(), descriptors, rss_kib }
    }

    /// Waits until the server is again what it was: as many workers, descriptors, about as much memory; and looks that
    /// nobody panicked, no zombie is left and the log files are closed to others.
    ///
    /// # Panics
    /// It is not.
    pub fn is_back(&self, server: &Server) {
        self.is_back_with(server, 0);
    }

    /// The same with so many more descriptors.
    ///
    /// # Panics
    /// It is not.
    pub fn is_back_with(&self, server: &Server, more: usize) {
        let mut now = Footprint::of(server);
        until("the footprint of before", || {
            now = Footprint::of(server);
            now.workers == self.workers && now.descriptors <= self.descriptors + more + DESCRIPTORS_SLACK
        });
        assert!(now.rss_kib <= self.rss_kib + self.rss_kib / 10 + RSS_KIB_SLACK, "{now:?} after {self:?}");
        until("no zombie", || zombies(server.pid()) == 0);
        assert!(!server.text().contains("panicked"), "{}", server.text());
        for file in std::fs::read_dir(server.home.join("logs")).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn rss_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn zombies(parent: i32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    children
        .split_whitespace()
        .filter(|pid| stat(pid).rsplit(')').next().is_some_and(|s| s.trim().starts_with('Z')))
        .count()
}
