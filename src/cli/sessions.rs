//! `chatcorn sessions`: what is stored of conversations, for the operator. An id that the server issued is a secret, so
//! a session goes by its number here, and only `export` shows the whole id.

use crate::chat::store::{Plan, admin};
use crate::config::args::Sessions;
use crate::log::time;
use serde_json::json;
use std::io::{self, Write};

/// Sessions that a list shows.
const LISTED_MAX: u32 = 1000;
/// Characters of an issued id that a list shows.
const SHOWN_CHARS: usize = 6;

/// Does what the operator wants and writes to `out`.
///
/// # Errors
/// A sentence: no store, no such session, nobody reads.
pub fn run(wish: Sessions, plan: &Plan, out: &mut impl Write) -> Result<(), String> {
    let store = admin::Admin::open(plan).map_err(|error| format!("{}: {error}", plan.place))?;
    match wish {
        Sessions::List => list(&store, out),
        Sessions::Show(number) => show(&store, number, out),
        Sessions::Export(Some(number)) => export(&store, &found(&store, number)?, out),
        Sessions::Export(None) => {
            let all = store.list(u32::MAX).map_err(|error| error.to_string())?;
            all.iter().try_for_each(|session| export(&store, session, out))
        }
        Sessions::Delete(number) => {
            store.delete(number).map_err(|error| error.to_string())?;
            told(writeln!(out, "session {number} is deleted"))
        }
        Sessions::Purge => {
            let purged = store.purge().map_err(|error| error.to_string())?;
            told(writeln!(out, "{purged} sessions deleted"))
        }
    }
}

fn told(written: io::Result<()>) -> Result<(), String> {
    written.map_err(|error| error.to_string())
}

fn found(store: &admin::Admin, number: i64) -> Result<admin::Session, String> {
    store.find(number).map_err(|error| error.to_string())
}

fn list(store: &admin::Admin, out: &mut impl Write) -> Result<(), String> {
    let sessions = store.list(LISTED_MAX).map_err(|error| error.to_string())?;
    let head = ("NUMBER", "SESSION", "USER", "MODE", "TURNS", "LAST USED");
    told(writeln!(out, "{:>8}  {:<24}  {:<16}  {:<8}  {:>6}  {}", head.0, head.1, head.2, head.3, head.4, head.5))?;
    sessions.iter().try_for_each(|session| {
        let (name, user) = (shown(session), plain(&session.user_id, 16));
        let last = instant(session.active_ms);
        let (number, mode, turns) = (session.number, &session.mode, session.turn_count);
        told(writeln!(out, "{number:>8}  {name:<24}  {user:<16}  {mode:<8}  {turns:>6}  {last}"))
    })
}

fn show(store: &admin::Admin, number: i64, out: &mut impl Write) -> Result<(), String> {
    let session = found(store, number)?;
    told(writeln!(out, "session {number} ({}), {}, {} turns", shown(&session), session.mode, session.turn_count))?;
    let turns = store.turns(number).map_err(|error| error.to_string())?;
    turns.iter().try_for_each(|turn| {
        let (user, reply) = (plain(&turn.user, usize::MAX), plain(&turn.assistant, usize::MAX));
        told(writeln!(out, "\n{}  {}\nuser: {user}\nassistant: {reply}", instant(turn.created_ms), turn.state))
    })
}

/// One line of JSON.
fn export(store: &admin::Admin, session: &admin::Session, out: &mut impl Write) -> Result<(), String> {
    let turns = store.turns(session.number).map_err(|error| error.to_string())?;
    told(writeln!(out, "{}", json!({"session": session, "turns": turns})))
}

fn shown(session: &admin::Session) -> String {
    match session.issued {
        true => session.name.chars().take(SHOWN_CHARS).chain(['…']).collect(),
        false => plain(&session.name, 24),
    }
}

/// What a client wrote must not steer the operator's terminal.
fn plain(text: &str, chars_max: usize) -> String {
    let harmless = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(harmless).take(chars_max).collect()
}

fn instant(epoch_ms: i64) -> String {
    let seconds = u64::try_from(epoch_ms / 1000).unwrap_or(0);
    let time::Civil { year, month, day, hour, minute, second } = time::Civil::of(seconds);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}
