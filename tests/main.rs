//! Chatcorn from outside: each test starts the real program in a place of its own and does what somebody does.
//!
//! No test sleeps: each waits for a line of the log, an answer, an end, always with a limit. `support` holds the server,
//! a client without retries and an upstream that does as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod audit;
mod balance;
mod breakdown;
mod chaos;
mod chat;
mod clients;
mod clock;
mod configuration;
mod connections;
mod engine_command;
mod errors;
mod faults;
mod front;
mod hanging;
mod heads;
mod http2;
mod keys;
mod limits;
mod logs;
mod logs_accounts;
mod logs_faults;
mod logs_reading;
mod masters;
mod metrics;
#[cfg(feature = "engine")]
mod model;
mod openai;
mod openapi;
mod operator;
mod page;
mod patience;
mod postgres;
mod privileges;
mod probes;
mod recycling;
mod redaction;
mod reload;
mod secrets;
mod sessions;
mod status_page;
mod store;
mod streams;
mod supervision;
mod support;
mod systemd;
mod terminal;
mod tls;
mod upgrade;
mod upstreams;
