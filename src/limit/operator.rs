//! What an operator sees of one client, and how he lets it begin anew.
//!
//! A worker answers: it has the connection to Redis. Where none does, the master answers from the shared memory, which
//! it may write to like everybody: every step there is one compare-and-swap.

use super::client::{Identity, Peer};
use super::limiter::{Client, Limiter};
use super::plan::{Endpoint, Route};
use super::quota::Quota;
use super::script::Record;
use super::tally::Standing;
use super::word::{Limit, Now};
use crate::sys::clock;
use serde_json::{Value, json};

/// Longest id of a key.
const KEY_BYTES_MAX: usize = 64;

/// Whom an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// An address, or `unix` for everybody at a Unix socket.
    Peer(Peer),
    /// The id of an API key.
    Key(String),
}

impl Who {
    /// Reads an address, `unix`, or a key's id; `None` when it is none of them.
    pub fn parse(text: &str) -> Option<Who> {
        if text == "unix" {
            return Some(Who::Peer(Peer::Unix));
        }
        if let Ok(address) = text.parse() {
            return Some(Who::Peer(Peer::Address(address)));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (matches!(text.len(), 1..=KEY_BYTES_MAX) && text.bytes().all(plain)).then(|| Who::Key(text.to_owned()))
    }
}

impl Limiter {
    /// The client that an operator means; `quotas` are a key's own.
    pub fn who(&self, who: &Who, quotas: &[Quota]) -> Client {
        match who {
            Who::Peer(peer) => self.client(Identity::Peer(*peer)),
            Who::Key(id) => self.key(id.as_bytes(), quotas),
        }
    }

    /// How a client stands in every limit that it may be measured by. Counts are Redis's where it answers.
    pub async fn picture(&self, client: &Client) -> Value {
        let told = match self.remote() {
            Some(remote) => remote.look(client.name()).await.ok(),
            None => None,
        };
        let store = match (self.remote(), &told) {
            (None, _) => "memory",
            (Some(_), Some(_)) => "redis",
            (Some(_), None) => "memory, in place of Redis",
        };
        self.drawn(client, store, told.as_deref())
    }

    /// The same from the shared memory alone.
    pub fn picture_here(&self, client: &Client) -> Value {
        self.drawn(client, "memory", None)
    }

    fn drawn(&self, client: &Client, store: &str, told: Option<&[(Record, u64)]>) -> Value {
        let mut limits: Vec<Value> = Vec::new();
        for (limit, name) in self.routes_of(client).flat_map(Route::named) {
            if limits.iter().all(|known| known["name"] != name) {
                limits.push(self.line(client, limit, name, told));
            }
        }
        json!({ "store": store, "exempt": client.is_exempt(), "limits": limits })
    }

    fn line(&self, client: &Client, limit: &Limit, name: &str, told: Option<&[(Record, u64)]>) -> Value {
        let (now, only) = (Now::at(clock::monotonic_ms()), std::slice::from_ref(limit));
        let shared = self.shared();
        let held = match told {
            None => shared.table.standings(client.hash(), only, now)[0],
            Some(records) => {
                let of = |(record, reset_ms): &(Record, u64)| Standing { count: record.count, reset_ms: *reset_ms };
                records.iter().find(|(record, _)| record.id == limit.id).map(of).unwrap_or_default()
            }
        };
        let owed = shared.carry.standings(client.hash(), only, now)[0].count;
        json!({
            "name": name,
            "limit": limit.count,
            "window_s": limit.window_ms / 1000,
            "count": held.count,
            "remaining": limit.count.saturating_sub(held.count),
            "reset_s": held.reset_ms.div_ceil(1000),
            "owed_to_redis": owed,
        })
    }

    fn routes_of(&self, client: &Client) -> impl Iterator<Item = &'static Route> {
        let rules = self.shared().rules;
        let requests = match client.own() {
            Some(own) => &rules.routes[own..=own],
            None => &rules.routes[..=Endpoint::Auth as usize],
        };
        requests.iter().chain([&rules.tokens])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_means_an_address_a_socket_or_a_key() {
        assert_eq!(Who::parse("::1"), Some(Who::Peer(Peer::Address("::1".parse().unwrap()))));
        assert_eq!(Who::parse("unix"), Some(Who::Peer(Peer::Unix)));
        assert_eq!(Who::parse("0123456789ab"), Some(Who::Key("0123456789ab".into())));
        for text in ["", "1.2.3", "a b", "x".repeat(65).as_str()] {
            assert_eq!(Who::parse(text), None, "{text}");
        }
    }
}
