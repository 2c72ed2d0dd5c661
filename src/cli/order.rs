//! `chatcorn status`, `top`, `metrics`, `reload`, `upgrade`, `stop`, `reopen`, `scale`: what a running server is asked, and how it is shown.

use super::ask::ask;
use super::keyboard::Keyboard;
use super::table;
use crate::master::control::words::{Answer, Request};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// How often `top` asks.
const TOP_EVERY: Duration = Duration::from_secs(1);

/// What an operator wants of a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Show it.
    Status {
        /// As JSON.
        json: bool,
    },
    /// Show it every second.
    Top,
    /// Print its metrics.
    Metrics,
    /// Reload, and wait until it is done.
    Reload,
    /// Replace the program, and wait until it is done.
    Upgrade,
    /// Stop, and wait until it is done.
    Stop {
        /// Without finishing what is under way.
        now: bool,
    },
    /// Open the log files anew.
    Reopen,
    /// So many workers.
    Scale(usize),
}

/// Does it.
///
/// # Errors
/// Nobody answers, or it was refused, with the cause.
pub fn run(order: Order, socket: &Path) -> Result<(), String> {
    let request = match order {
        Order::Status { json } => return show(&status(socket)?, json),
        Order::Top => return top(socket),
        Order::Metrics => return metrics(socket),
        Order::Reload => Request::Reload,
        Order::Upgrade => Request::Upgrade,
        Order::Stop { now } => Request::Stop { now },
        Order::Reopen => Request::Reopen,
        Order::Scale(workers) => Request::Scale { workers },
    };
    match ask(socket, &request, |text| println!("{text}"))? {
        Answer::Done(text) => {
            println!("{text}");
            Ok(())
        }
        Answer::Refused(reason) => Err(format!("refused: {reason}")),
        other => Err(format!("an answer of another version: {other:?}")),
    }
}

fn status(socket: &Path) -> Result<Value, String> {
    match ask(socket, &Request::Status, |_| {})? {
        Answer::Status(status) => Ok(status),
        Answer::Refused(reason) => Err(reason),
        other => Err(format!("an answer of another version: {other:?}")),
    }
}

fn metrics(socket: &Path) -> Result<(), String> {
    match ask(socket, &Request::Metrics, |_| {})? {
        Answer::Metrics(text) => print(&text),
        Answer::Refused(reason) => Err(reason),
        other => Err(format!("an answer of another version: {other:?}")),
    }
}

fn show(status: &Value, json: bool) -> Result<(), String> {
    match json {
        true => print(&format!("{status:#}\n")),
        false => print(&table::status(status)),
    }
}

fn top(socket: &Path) -> Result<(), String> {
    let terminal = std::io::stdout().is_terminal();
    let keyboard = terminal.then(Keyboard::take).flatten();
    let hint = if keyboard.is_some() { "   q leaves" } else { "" };
    let mut former = None;
    loop {
        let status = status(socket)?;
        let rate = former.as_ref().map_or(0.0, |former| table::requests(&status) - table::requests(former));
        // Home and clear: one write a screen, so that it does not flicker.
        let clear = if terminal { "\x1b[H\x1b[2J" } else { "" };
        let screen = format!("{clear}{rate:.0} requests/s{hint}\n{}", table::status(&status));
        if print(&screen).is_err() {
            return Ok(());
        }
        former = Some(status);
        match &keyboard {
            Some(keyboard) if keyboard.leaves(TOP_EVERY) => return Ok(()),
            Some(_) => {}
            None => std::thread::park_timeout(TOP_EVERY),
        }
    }
}

/// A reader that left (`| head`) is no failure worth a word.
fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}
