//! `chatcorn audit`: the security checklist of a deployment, executed.
//!
//! ```text
//! settings: what the configuration says ─┐
//! files: what lies in LOG_DIR ───────────┼─▶ findings ─▶ one line each, or JSON ─▶ exit 0, or 1 on a failure
//! asked: what a running server answers ──┘
//! ```
//! Deliberately absent: changing anything. A finding says how to mend it, and the operator does.

mod asked;
mod files;
mod settings;

use super::server::Server;
use crate::config::raw::Raw;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// The operator should know; nothing is open.
    Warning,
    /// To be mended before anyone else can reach the server.
    Failure,
}

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name.
    pub item: &'static str,
    /// How it ended.
    pub state: State,
    /// What was seen.
    pub says: String,
    /// What to do about it; empty when all is well.
    pub mend: String,
}

impl Finding {
    fn ok(item: &'static str, says: impl Into<String>) -> Finding {
        Finding { item, state: State::Ok, says: says.into(), mend: String::new() }
    }

    fn warning(item: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { item, state: State::Warning, says: says.into(), mend: mend.into() }
    }

    fn failure(item: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { item, state: State::Failure, says: says.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failure => "failure",
        };
        write!(f, "{state:<8} {:<18} {}", self.item, self.says)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, ". To mend: {}", self.mend) }
    }
}

/// What is audited, and how far.
pub struct Audit<'a> {
    /// The configuration as written.
    pub raw: &'a Raw,
    /// What reading it complained about.
    pub errors: &'a [String],
    /// The model that would be loaded.
    pub model: Option<&'a Path>,
    /// A running server to ask.
    pub server: Option<&'a Server>,
    /// The operator's word: requests may be sent until one is refused.
    pub try_limit: bool,
}

impl Audit<'_> {
    /// Looks at everything.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = settings::look(self);
        // Before anything is asked: a request makes lines in the log.
        findings.extend(files::look(self.raw));
        if let Some(server) = self.server {
            findings.extend(asked::look(server, self));
        }
        findings
    }
}

/// Prints the findings; exit 1 when one is a failure.
pub fn report(findings: &[Finding], as_json: bool) -> ExitCode {
    let failures = findings.iter().filter(|finding| finding.state == State::Failure).count();
    if as_json {
        println!("{}", serde_json::json!({"ok": failures == 0, "findings": findings}));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A setting's texts as one, or its default.
fn text(raw: &Raw, key: &str) -> String {
    crate::config::settings::by_key(key).map(|setting| raw.get(setting).texts.join(",")).unwrap_or_default()
}
