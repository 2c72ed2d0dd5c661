//! The model engine: a process of its own that answers the OpenAI chat API on a Unix socket.
//!
//! ```text
//! worker -> Unix socket -> serve (hyper, main thread) -> prompt: template, tokens -> Job
//!                                                          |
//!        <- JSON or event stream <- answer <- Event <- batch (one thread, all requests in each step) -> model
//! ```
//!
//! Deliberately absent: a lock between requests (one thread owns the slots), a wait for a reader, a second model,
//! TCP. The HTTP side speaks to the batch by a message each way and nothing else.

pub mod batch;
pub mod command;
pub mod counters;
pub mod job;
pub mod json;
pub mod pace;
pub mod queue;
pub mod sample;
pub mod slot;
pub mod text;
pub mod trim;
pub mod walls;

#[cfg(feature = "engine")]
mod answer;
#[cfg(feature = "engine")]
mod life;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(test)]
#[cfg(feature = "engine")]
mod model_tests;
#[cfg(feature = "engine")]
pub mod prompt;
#[cfg(feature = "engine")]
mod serve;
#[cfg(feature = "engine")]
pub mod template;

#[cfg(feature = "engine")]
pub use life::run;

use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

/// The environment variable that carries [`Settings`] as JSON over the exec.
pub const SETTINGS_VARIABLE: &str = "CHATCORN_ENGINE";

/// Environment of the engine's exec, read by libgomp before `main`: a thread that waits for its partner spins for some
/// tens of microseconds and then sleeps. With the default (300,000 turns, longer than a time slice) a waiting thread
/// eats the time of the one that it waits for as soon as anything else wants the processors.
pub const ENVIRONMENT: &[(&str, &str)] = &[("GOMP_SPINCOUNT", "10000")];

/// Connections that the engine takes at once; the workers pool theirs.
pub const CONNECTIONS_MAX: usize = 512;

/// The engine that the master keeps alive.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Ours.
    Own(Settings),
    /// Another one.
    Command(Box<command::Command>),
}

impl Plan {
    /// Everything in it as one number: a reload that changes it replaces the engine.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Plan::Own(settings) => settings.to_json().hash(&mut hasher),
            Plan::Command(command) => command.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// What the master tells the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The GGUF file.
    pub model: PathBuf,
    /// Requests that run at once.
    pub slots: u32,
    /// Tokens of one conversation, reply included.
    pub context: u32,
    /// Requests that may wait for a slot; one more is refused.
    pub queue: usize,
    /// Threads that evaluate; never more than the processors are used.
    pub threads: u32,
    /// A listening Unix socket.
    pub listener_fd: i32,
    /// The packet socket to the master; -1 for none.
    pub link_fd: i32,
    /// The board's memory; -1 for none.
    pub board_fd: i32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            model: PathBuf::new(),
            slots: 4,
            context: 2048,
            queue: 32,
            threads: 4,
            listener_fd: -1,
            link_fd: -1,
            board_fd: -1,
        }
    }
}

impl Settings {
    /// Reads the settings that the master left in the environment.
    ///
    /// # Errors
    /// A sentence: absent, or not what this version writes.
    pub fn from_environment() -> Result<Settings, String> {
        let text = std::env::var(SETTINGS_VARIABLE)
            .map_err(|_| format!("{SETTINGS_VARIABLE} is not set: the master starts the engine, not a person"))?;
        serde_json::from_str(&text).map_err(|error| format!("{SETTINGS_VARIABLE} is not understood: {error}"))
    }

    /// As they travel in [`SETTINGS_VARIABLE`].
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// This build has no engine: says so to the master and leaves.
#[cfg(not(feature = "engine"))]
pub fn run(settings: Settings) -> std::process::ExitCode {
    use crate::worker::link::{ToMaster, say};
    let reason = "this build has no model engine (cargo feature `engine`)".to_owned();
    tracing::error!("{reason}");
    if let Ok(link) = crate::sys::fd::adopt(settings.link_fd) {
        let _ = say(&link, &ToMaster::Failed(reason).encode());
    }
    std::process::ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_exec() {
        let settings = Settings { model: "/a b/\u{e9}.gguf".into(), slots: 2, listener_fd: 7, ..Settings::default() };
        assert_eq!(serde_json::from_str::<Settings>(&settings.to_json()).unwrap(), settings);
    }
}
