//! The configuration: what is written, then what is meant, then no one checks again.
//!
//! ```text
//! argv, environment, .env, chatcorn.toml ─▶ raw ─▶ values ─▶ plan
//!                                            └──────┴─────────┴──▶ problems: all of them at once
//! ```
//! The table in [`settings`] is the only list of settings: flags, variables, keys, defaults and `--help` come from it.
//! Rooms below get plain structures and never see a text that an operator wrote.

pub mod args;
mod dotenv;
mod listen;
mod model;
pub mod plan;
pub mod problem;
pub mod raw;
pub mod settings;
mod show;
mod toml_file;
mod values;

pub use model::installed_model;
pub use plan::Plan;
pub use show::table;

use crate::listener::Address;
use crate::log::Destination;
use crate::log::rotate::APP_LOG;
use crate::sys::process::Identity;
use problem::Problems;
use raw::{Environment, Flags, Raw};
use std::ffi::OsString;
use std::path::PathBuf;
use values::Values;

/// Everything that a load needs, kept so that a reload can read the files again.
#[derive(Clone)]
pub struct Sources {
    /// The command line.
    pub flags: Flags,
    /// The environment as the process was started with, secrets included.
    pub environment: Vec<(OsString, OsString)>,
    /// Abstract name of the engine's socket.
    pub engine_socket: Vec<u8>,
}

impl Sources {
    /// Reads everything; the plan is absent when there are errors.
    pub fn load(&self) -> (Option<Plan>, Problems) {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        let plan = plan::resolve(&raw, &self.engine_socket, &self.environment, &mut problems);
        (plan, problems)
    }

    /// Where the server listens; for commands that need nothing else of the plan.
    pub fn addresses(&self) -> Vec<Address> {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        listen::addresses(&mut Values { raw: &raw, problems: &mut problems })
    }

    /// `--certfile`.
    pub fn certfile(&self) -> Option<PathBuf> {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        Values { raw: &raw, problems: &mut problems }.path("certfile")
    }

    /// `--proxy-protocol`.
    pub fn proxy_protocol(&self) -> bool {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        Values { raw: &raw, problems: &mut problems }.word("proxy_protocol").as_deref() == Some("true")
    }

    /// `API_KEYS_FILE`.
    pub fn keys_file(&self) -> Option<PathBuf> {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        Values { raw: &raw, problems: &mut problems }.path("api_keys_file")
    }

    /// Who the service runs as, where that is set and there is such a user.
    pub fn identity(&self) -> Option<Identity> {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        plan::identity(&mut Values { raw: &raw, problems: &mut problems })
    }

    /// The socket that the server's operators talk to.
    pub fn control_socket(&self) -> PathBuf {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        plan::control_socket(&Values { raw: &raw, problems: &mut problems })
    }

    /// The operator's own patterns of secrets.
    pub fn secret_patterns(&self) -> Vec<String> {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        Values { raw: &raw, problems: &mut problems }.texts("log_redact")
    }

    /// The log files that there can be: `app.log`, then the access and the error file.
    pub fn log_files(&self) -> Vec<PathBuf> {
        let mut problems = Problems::default();
        let raw = self.raw(&mut problems);
        let mut logs = plan::logs(&mut Values { raw: &raw, problems: &mut problems });
        let others = [&mut logs.access, &mut logs.error].map(|other| std::mem::replace(other, Destination::Off));
        let named = others.into_iter().filter_map(|other| match other {
            Destination::File(path) => Some(path),
            Destination::Stream | Destination::Off => None,
        });
        std::iter::once(logs.dir.join(APP_LOG)).chain(named).collect()
    }

    /// What is written, without a meaning yet.
    pub fn raw(&self, problems: &mut Problems) -> Raw {
        let lossy = |text: &OsString| text.to_string_lossy().into_owned();
        let environment: Environment =
            self.environment.iter().map(|(name, value)| (lossy(name), lossy(value))).collect();
        Raw::read(&self.flags, &environment, problems)
    }
}
