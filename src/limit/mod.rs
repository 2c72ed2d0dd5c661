//! Rate limits: never more than N admitted in a window, over all workers and all machines.
//!
//! ```text
//! address or key -> client -> Limiter::check -> Verdict -> headers
//!                               |  table    shared memory: the decision, or the memory of what Redis refused
//!                               |  remote   Redis: one script call; its reply is learnt by the table
//!                               `- breaker  Redis is away: the table decides and notes what Redis is owed (carry)
//!
//! plan      what configuration asks for, compiled over the table's words
//! quota     "10 per minute"            client   X-Forwarded-For, ranges, /64
//! word      64 bits a limit            table    who owns a slot        tally   counting in it
//! hint      where a slot was last
//! budget    tokens, reserved and settled
//! operator  show and reset a client                name    a client's, and its hash
//! shared    the memory file            script   the decision in Lua    verdict what was decided
//!                                                 told    in headers
//! target    REDIS_URL                  wire     one server, sentinels, a cluster; in clear or by TLS
//! ```
//!
//! A window begins with the first request it admits. All limits are looked at before one is counted; a refused request
//! consumes nothing. The memory is made by the master before it forks; a [`Limiter`] is made in the worker.
//! Deliberately absent: locks between processes, a clock of one's own, retries.

pub mod breaker;
pub mod budget;
pub mod client;
pub mod hint;
pub mod limiter;
pub mod name;
pub mod operator;
pub mod plan;
pub mod quota;
pub mod remote;
pub mod script;
pub mod shared;
pub mod table;
pub mod tally;
pub mod target;
pub mod told;
pub mod verdict;
pub mod wire;
pub mod word;

pub use client::{Identity, Peer, Trusted};
pub use limiter::{Client, Limiter};
pub use plan::{Endpoint, Fallback, Mode, Plan};
pub use shared::Shared;
pub use target::Target;
pub use told::Told;
pub use verdict::{Outcome, Verdict};

#[cfg(test)]
mod budget_tests;
#[cfg(all(test, shuttle))]
mod orders_tests;
#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod wire_tests;
