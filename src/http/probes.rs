//! Who asks for what is not there, again and again: counted in this process, for the security event `probe`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

/// So many 400, 404 and 405 of one client within [`SPAN_MS`] are a burst.
pub const BURST: u32 = 20;
const SPAN_MS: u64 = 60_000;
/// Clients remembered at once; while all of them are recent a further one is not counted.
const CLIENTS_MAX: usize = 1024;

/// Those of this process.
pub static PROBES: LazyLock<Probes> = LazyLock::new(Probes::default);

/// Counts of recent clients.
#[derive(Default)]
pub struct Probes(Mutex<HashMap<IpAddr, (u64, u32)>>);

impl Probes {
    /// One more such answer to `client` at `now_ms`, monotonic; true for the one that makes it a burst.
    pub fn seen(&self, client: IpAddr, now_ms: u64) -> bool {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |since_ms: u64| now_ms.saturating_sub(since_ms) < SPAN_MS;
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, (since_ms, _)| recent(*since_ms));
            if clients.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let (since_ms, count) = clients.entry(client).or_insert((now_ms, 0));
        if !recent(*since_ms) {
            (*since_ms, *count) = (now_ms, 0);
        }
        *count += 1;
        *count == BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_burst_is_told_once_a_minute_and_slow_mistakes_never() {
        let probes = Probes::default();
        let bursts = |times: std::ops::Range<u64>, every_ms: u64| {
            times.filter(|number| probes.seen(client(1), number * every_ms)).count()
        };
        assert_eq!(bursts(0..60, 900), 1);
        assert_eq!(bursts(100..160, 900), 1);
        assert_eq!((1_000..1_100).filter(|number| probes.seen(client(2), number * 3_200)).count(), 0);
    }

    #[test]
    fn clients_are_bounded() {
        let probes = Probes::default();
        (0..3_000).for_each(|number| _ = probes.seen(client(number), 5));
        assert_eq!(probes.0.lock().unwrap().len(), CLIENTS_MAX);
        probes.seen(client(9_999), 70_000);
        assert_eq!(probes.0.lock().unwrap().len(), 1);
    }
}
