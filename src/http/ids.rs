//! Request ids: the caller's when it is plain, else 32 hexadecimal digits.
//!
//! So many, and no fewer, because they go on to the upstream, and llama-cpp-python's server answers 400 to an id that
//! cannot be read as a UUID.

use super::headers::{REQUEST_ID, is_request_id};
use http::{HeaderMap, HeaderValue};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A request's id; one that the server made needs no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// The caller's.
    Given(HeaderValue),
    /// Ours.
    Made([u8; 32]),
}

impl Id {
    /// True for one of our own making.
    pub fn is_own(&self) -> bool {
        matches!(self, Id::Made(_))
    }

    /// As a header.
    pub fn header(&self) -> HeaderValue {
        match self {
            Id::Given(value) => value.clone(),
            Id::Made(digits) => HeaderValue::from_bytes(digits).unwrap_or(HeaderValue::from_static("0")),
        }
    }

    /// As text; both kinds are plain ASCII.
    pub fn text(&self) -> &str {
        match self {
            Id::Given(value) => value.to_str().unwrap_or(""),
            Id::Made(digits) => std::str::from_utf8(digits).unwrap_or(""),
        }
    }
}

/// Makes ids for one runtime thread. Seeded by the kernel after the fork, so that no two workers make the same.
/// An id names a request; it guards nothing.
pub struct Ids {
    next: AtomicU64,
    salt: u64,
}

impl Ids {
    /// A generator with its own random start.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn new() -> std::io::Result<Ids> {
        let random = || getrandom::u64().map_err(std::io::Error::other);
        Ok(Ids { next: AtomicU64::new(random()?), salt: random()? })
    }

    /// The id of a request with these headers.
    pub fn of(&self, headers: &HeaderMap) -> Id {
        match headers.get(REQUEST_ID) {
            Some(given) if is_request_id(given.as_bytes()) => Id::Given(given.clone()),
            _ => self.made(),
        }
    }

    /// One of our own.
    pub fn made(&self) -> Id {
        Id::Made(self.fresh())
    }

    fn fresh(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = self.next.fetch_add(1, Relaxed);
        let number = u128::from(mixed(number)) << 64 | u128::from(mixed(number ^ self.salt));
        std::array::from_fn(|at| DIGITS[(number >> (124 - 4 * at)) as usize & 15])
    }
}

/// A bijection that spreads neighbours: the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable
/// pseudorandom number generators", 2014).
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_fresh_or_the_callers() {
        let ids = Ids::new().unwrap();
        let mut headers = HeaderMap::new();
        let fresh: HashSet<Id> = (0..1000).map(|_| ids.of(&headers)).collect();
        assert_eq!(fresh.len(), 1000);
        assert!(fresh.iter().all(|id| id.text().len() == 32 && is_request_id(id.header().as_bytes())));
        headers.insert(REQUEST_ID, HeaderValue::from_static("mine-1"));
        assert_eq!(ids.of(&headers).text(), "mine-1");
        headers.insert(REQUEST_ID, HeaderValue::from_static("not mine"));
        assert_ne!(ids.of(&headers).text(), "not mine");
    }
}
