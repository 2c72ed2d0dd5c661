//! Sessions: who an id belongs to, and what of a session a model gets to read. Pure but for the kernel's random bytes.

use super::store::StoredTurn;
use super::wire::{Message, Role};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest session id (`API.md`).
pub const ID_CHARS_MAX: usize = 128;
/// Most stored turns that one request reads or shows.
pub const TURNS_MAX: usize = 100;
/// Most bytes of stored turns that one request reads or shows: what a context of 128k tokens holds of plain text.
pub const TURNS_BYTES_MAX: usize = 512 << 10;

/// Whether stored turns are context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are not.
    Fresh,
    /// They are.
    #[default]
    Relevant,
}

impl Mode {
    /// As clients and the store write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Fresh => "fresh",
            Mode::Relevant => "relevant",
        }
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Mode, ()> {
        match text {
            "fresh" => Ok(Mode::Fresh),
            "relevant" => Ok(Mode::Relevant),
            _ => Err(()),
        }
    }
}

/// True for `[A-Za-z0-9._:-]{1,128}`.
pub fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// A new id of 128 bits from the kernel, in hexadecimal: knowing it is having the right to the session.
///
/// # Errors
/// The kernel has no random bytes.
pub fn issue_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whose an id is that the server did not issue.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal(Vec<u8>);

impl Principal {
    /// A visitor: the address, and the website that the browser came from. So nobody reads another's session by
    /// guessing its name, nor a strange website through a visitor's browser.
    /// No address: the peer came over a Unix socket.
    pub fn visitor(client: Option<IpAddr>, origin: Option<&[u8]>) -> Principal {
        let mut bytes =
            client.map_or_else(|| "visitor local ".to_owned(), |client| format!("visitor {client} ")).into_bytes();
        bytes.extend_from_slice(origin.map_or(b"-", host));
        Principal(bytes)
    }

    /// The holder of a verified API key, wherever he asks from; `id` is the key's.
    pub fn key(id: &str) -> Principal {
        Principal(format!("key {id}").into_bytes())
    }

    /// As the store keeps it; never empty.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal")
    }
}

/// The host of an `Origin`: `https://a.example:8443` and `http://a.example` are one place.
fn host(origin: &[u8]) -> &[u8] {
    let rest = match origin.windows(3).position(|three| three == b"://") {
        Some(at) => &origin[at + 3..],
        None => origin,
    };
    let end = if rest.first() == Some(&b'[') {
        rest.iter().position(|byte| *byte == b']').map_or(rest.len(), |at| at + 1)
    } else {
        rest.iter().position(|byte| *byte == b':').unwrap_or(rest.len())
    };
    &rest[..end]
}

/// Which session a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRef {
    /// A new one, with an id that the server makes.
    Issue,
    /// The one with this id.
    Given(String),
}

/// A session together with who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// Which.
    pub session: SessionRef,
    /// Who.
    pub principal: Principal,
}

impl SessionKey {
    /// Both.
    pub fn new(session: SessionRef, principal: Principal) -> SessionKey {
        SessionKey { session, principal }
    }
}

/// What a model's context is made of.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whether stored turns count.
    pub mode: Mode,
    /// The newest, oldest first.
    pub stored: &'a [StoredTurn],
    /// The client's own history, which replaces the stored turns whatever the mode.
    pub history: Option<&'a [(String, String)]>,
    /// Stands first.
    pub system_prompt: Option<&'a str>,
    /// The user's message; it is never left out.
    pub message: &'a str,
    /// Tokens that all of it may have, by [`tokens_of`].
    pub tokens_max: usize,
}

/// Bytes that are taken for a token: a little fewer than English has (4 to 5) and as many as a Chinese character's.
const TOKEN_BYTES: usize = 3;
/// Tokens that a message costs beside its text.
const MESSAGE_TOKENS: usize = 4;

/// About how many tokens a message has, rather too many than too few; only a model's own vocabulary knows.
pub fn tokens_of(text: &str) -> usize {
    text.len().div_ceil(TOKEN_BYTES) + MESSAGE_TOKENS
}

/// The conversation to send: instructions, the newest turns that fit, the message.
pub fn context(from: Context<'_>) -> Vec<Message> {
    let turns: Vec<(&str, &str)> = match (from.history, from.mode) {
        (Some(given), _) => given.iter().map(|(user, assistant)| (user.as_str(), assistant.as_str())).collect(),
        (None, Mode::Fresh) => Vec::new(),
        (None, Mode::Relevant) => {
            from.stored.iter().map(|turn| (turn.user.as_str(), turn.assistant.as_str())).collect()
        }
    };
    let always = tokens_of(from.message) + from.system_prompt.map_or(0, tokens_of);
    let mut left = from.tokens_max.saturating_sub(always);
    let fits = |turn: &&(&str, &str)| {
        let tokens = tokens_of(turn.0) + tokens_of(turn.1);
        let fits = tokens <= left;
        left = left.saturating_sub(tokens);
        fits
    };
    let mut kept: Vec<&(&str, &str)> = turns.iter().rev().take(TURNS_MAX).take_while(fits).collect();
    kept.reverse();
    let system = from.system_prompt.map(|prompt| Message::new(Role::System, prompt));
    let pairs = kept
        .into_iter()
        .flat_map(|(user, assistant)| [Message::new(Role::User, *user), Message::new(Role::Assistant, *assistant)]);
    system.into_iter().chain(pairs).chain([Message::new(Role::User, from.message)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turn(user: &str, assistant: &str) -> StoredTurn {
        StoredTurn { user: user.into(), assistant: assistant.into() }
    }

    fn texts(context_of: Context<'_>) -> String {
        context(context_of).iter().map(Message::text).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn the_context_is_what_the_mode_and_the_client_say() {
        let stored = [turn("a", "b"), turn("c", "d")];
        let base = Context {
            mode: Mode::Relevant,
            stored: &stored,
            history: None,
            system_prompt: Some("S"),
            message: "m",
            tokens_max: 100,
        };
        assert_eq!(texts(base), "S|a|b|c|d|m");
        assert_eq!(texts(Context { mode: Mode::Fresh, ..base }), "S|m");
        let given = [("x".to_owned(), "y".to_owned())];
        assert_eq!(texts(Context { mode: Mode::Fresh, history: Some(&given), ..base }), "S|x|y|m");
        assert_eq!(texts(Context { history: Some(&[]), system_prompt: None, ..base }), "m");
        assert_eq!(texts(Context { tokens_max: 22, ..base }), "S|c|d|m", "the oldest is left out");
        assert_eq!(texts(Context { tokens_max: 0, ..base }), "S|m");
    }

    #[test]
    fn ids_are_checked_and_issued() {
        assert!(is_id("a.b_c:d-9") && is_id(&"x".repeat(128)));
        for bad in ["", &"x".repeat(129), "a b", "é", "a/b", "a\n"] {
            assert!(!is_id(bad), "{bad}");
        }
        let (one, two) = (issue_id().unwrap(), issue_id().unwrap());
        assert!(one != two && one.len() == 32 && is_id(&one));
    }

    #[test]
    fn a_principal_is_an_address_and_a_website() {
        let at =
            |ip: &str, origin: Option<&str>| Principal::visitor(Some(ip.parse().unwrap()), origin.map(str::as_bytes));
        assert_eq!(at("1.2.3.4", Some("https://a.example:8443")), at("1.2.3.4", Some("http://a.example")));
        assert_eq!(host(b"http://[::1]:80"), b"[::1]");
        assert_ne!(at("1.2.3.4", Some("https://a.example")), at("1.2.3.4", Some("https://b.example")));
        assert_ne!(at("1.2.3.4", None), at("1.2.3.5", None));
    }

    proptest! {
        #[test]
        fn the_message_is_last_and_roles_alternate(
            turns in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..130), tokens_max in 0usize..400, message in ".{1,20}",
        ) {
            let stored: Vec<StoredTurn> = turns.iter().map(|(user, assistant)| turn(user, assistant)).collect();
            let made = context(Context {
                mode: Mode::Relevant, stored: &stored, history: None, system_prompt: None, message: &message, tokens_max,
            });
            prop_assert_eq!(made.last().map(Message::text), Some(message.clone()));
            prop_assert!(made.len() <= 2 * TURNS_MAX + 1);
            for (at, one) in made.iter().enumerate() {
                prop_assert_eq!(one.role, if at % 2 == 0 { Role::User } else { Role::Assistant });
            }
            let tokens: usize = made.iter().map(|one| tokens_of(&one.text())).sum();
            prop_assert!(tokens <= tokens_max || made.len() == 1);
        }
    }
}
