//! What a client asks of `/api`: bodies read strictly, each refusal naming the field and the rule. Pure.

use super::json;
use super::session::{self, Mode};
use serde_json::{Map, Value};

/// Longest message, in Unicode characters after trimming (`API.md`).
pub const MESSAGE_CHARS_MAX: usize = 10_000;
/// Most pairs of a history.
pub const HISTORY_PAIRS_MAX: usize = 100;
/// Longest `user_id`, in characters.
pub const USER_CHARS_MAX: usize = 128;

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not JSON as this server reads it; the sentence says where.
    Json(String),
    /// A field breaks its rule.
    Field {
        /// Which one.
        field: &'static str,
        /// The rule.
        rule: String,
    },
}

/// The body of `POST /api/chat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Trimmed.
    pub message: String,
    /// As the client named it.
    pub session_id: Option<String>,
    /// `anonymous` when absent.
    pub user_id: String,
    /// When given, it is the context in place of the stored turns.
    pub history: Option<Vec<(String, String)>>,
    /// For this turn, and remembered.
    pub mode: Option<Mode>,
    /// Server-Sent Events.
    pub stream: bool,
}

impl Ask {
    /// Reads a body.
    ///
    /// # Errors
    /// See [`Invalid`]; the first broken rule, in the order of `API.md`.
    pub fn parse(body: &[u8]) -> Result<Ask, Invalid> {
        let mut fields = object(body)?;
        Ok(Ask {
            message: message(&mut fields)?,
            session_id: session_id(&mut fields)?,
            user_id: user_id(&mut fields)?,
            history: history(&mut fields)?,
            mode: mode(&mut fields, "context_mode")?,
            stream: switch(&mut fields, "stream")?,
        })
    }
}

impl Ask {
    /// Bytes of text that the client brought for the model.
    pub fn prompt_bytes(&self) -> usize {
        let pairs = self.history.iter().flatten().map(|(user, reply)| user.len() + reply.len());
        self.message.len() + pairs.sum::<usize>()
    }
}

/// The body of `POST /api/context/mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    /// Whose.
    pub session_id: String,
    /// What it becomes.
    pub mode: Mode,
}

impl ModeChange {
    /// Reads a body.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn parse(body: &[u8]) -> Result<ModeChange, Invalid> {
        let mut fields = object(body)?;
        let session_id = session_id(&mut fields)?.ok_or_else(|| broken("session_id", "is required"))?;
        let named = mode(&mut fields, "mode")?;
        let mode = match named {
            Some(mode) => Some(mode),
            None => mode(&mut fields, "context_mode")?,
        };
        let mode = mode.ok_or_else(|| broken("mode", "is required: \"fresh\" or \"relevant\""))?;
        Ok(ModeChange { session_id, mode })
    }
}

/// Checks a session id that came in a query.
///
/// # Errors
/// The rule.
pub fn check_session_id(id: &str) -> Result<(), Invalid> {
    match session::is_id(id) {
        true => Ok(()),
        false => Err(broken("session_id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")),
    }
}

fn broken(field: &'static str, rule: impl Into<String>) -> Invalid {
    Invalid::Field { field, rule: rule.into() }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Invalid> {
    match json::parse(body).map_err(Invalid::Json)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Invalid::Json("the body must be a JSON object".to_owned())),
    }
}

fn text(fields: &mut Map<String, Value>, field: &'static str) -> Result<Option<String>, Invalid> {
    match fields.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(broken(field, "must be a string")),
    }
}

fn message(fields: &mut Map<String, Value>) -> Result<String, Invalid> {
    let text = text(fields, "message")?.ok_or_else(|| broken("message", "is required"))?;
    let message = text.trim();
    match message.chars().take(MESSAGE_CHARS_MAX + 1).count() {
        0 => Err(broken("message", "must not be empty")),
        count if count > MESSAGE_CHARS_MAX => {
            Err(broken("message", format!("must be at most {MESSAGE_CHARS_MAX} characters long")))
        }
        _ => Ok(message.to_owned()),
    }
}

fn session_id(fields: &mut Map<String, Value>) -> Result<Option<String>, Invalid> {
    let id = text(fields, "session_id")?;
    if let Some(id) = &id {
        check_session_id(id)?;
    }
    Ok(id)
}

fn user_id(fields: &mut Map<String, Value>) -> Result<String, Invalid> {
    let user = text(fields, "user_id")?.unwrap_or_else(|| "anonymous".to_owned());
    match user.chars().count() <= USER_CHARS_MAX {
        true => Ok(user),
        false => Err(broken("user_id", format!("must be at most {USER_CHARS_MAX} characters long"))),
    }
}

fn history(fields: &mut Map<String, Value>) -> Result<Option<Vec<(String, String)>>, Invalid> {
    const RULE: &str = "must be an array of [user, assistant] pairs of strings";
    let items = match fields.remove("history") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(broken("history", RULE)),
    };
    if items.len() > HISTORY_PAIRS_MAX {
        return Err(broken("history", format!("must hold at most {HISTORY_PAIRS_MAX} pairs")));
    }
    items.into_iter().map(|item| pair(item).ok_or_else(|| broken("history", RULE))).collect::<Result<_, _>>().map(Some)
}

fn pair(item: Value) -> Option<(String, String)> {
    let Value::Array(both) = item else { return None };
    let [Value::String(user), Value::String(assistant)] = <[Value; 2]>::try_from(both).ok()? else { return None };
    Some((user, assistant))
}

fn mode(fields: &mut Map<String, Value>, field: &'static str) -> Result<Option<Mode>, Invalid> {
    let named = text(fields, field)?;
    named.map(|name| name.parse().map_err(|_| broken(field, "must be \"fresh\" or \"relevant\""))).transpose()
}

fn switch(fields: &mut Map<String, Value>, field: &'static str) -> Result<bool, Invalid> {
    match fields.remove(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(on),
        Some(_) => Err(broken(field, "must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        match Ask::parse(body.as_bytes()) {
            Err(Invalid::Field { field, rule }) => format!("{field} {rule}"),
            Err(Invalid::Json(reason)) => format!("json {reason}"),
            Ok(ask) => panic!("accepted {ask:?}"),
        }
    }

    #[test]
    fn a_full_body_is_read() {
        let body = r#"{"message":"  hi ","session_id":"a.b_c:d-1","user_id":"u","history":[["q","a"]],
            "context_mode":"fresh","stream":true,"other":{"x":[1]}}"#;
        let ask = Ask::parse(body.as_bytes()).unwrap();
        assert_eq!((ask.message.as_str(), ask.session_id.as_deref(), ask.stream), ("hi", Some("a.b_c:d-1"), true));
        assert_eq!((ask.mode, ask.history), (Some(Mode::Fresh), Some(vec![("q".into(), "a".into())])));
        let least = Ask::parse(br#"{"message":"hi"}"#).unwrap();
        assert_eq!((least.user_id.as_str(), least.history, least.mode), ("anonymous", None, None));
        assert_eq!(Ask::parse(br#"{"message":"hi","history":[]}"#).unwrap().history, Some(vec![]));
    }

    #[test]
    fn each_rule_is_named() {
        for (body, says) in [
            ("[]", "json the body must be"),
            ("{", "json EOF"),
            ("{}", "message is required"),
            (r#"{"message":" \n\t"}"#, "message must not be empty"),
            (r#"{"message":5}"#, "message must be a string"),
            (r#"{"message":"a","session_id":""}"#, "session_id must be 1 to 128"),
            (r#"{"message":"a","session_id":"../etc"}"#, "session_id must be 1 to 128"),
            (r#"{"message":"a","history":[["q"]]}"#, "history must be an array of"),
            (r#"{"message":"a","history":{"q":"a"}}"#, "history must be an array of"),
            (r#"{"message":"a","context_mode":"stale"}"#, "context_mode must be \"fresh\""),
            (r#"{"message":"a","stream":"yes"}"#, "stream must be true or false"),
        ] {
            assert!(refused(body).starts_with(says), "{body}: {}", refused(body));
        }
    }

    #[test]
    fn lengths_count_characters_and_not_bytes() {
        let message = |count: usize| format!(r#"{{"message":"{}"}}"#, "é".repeat(count));
        assert!(Ask::parse(message(MESSAGE_CHARS_MAX).as_bytes()).is_ok());
        assert!(refused(&message(MESSAGE_CHARS_MAX + 1)).contains("at most 10000"));
        let history = format!(r#"{{"message":"a","history":[{}]}}"#, vec![r#"["q","a"]"#; 101].join(","));
        assert!(refused(&history).contains("at most 100 pairs"));
    }

    #[test]
    fn a_mode_change_takes_both_names() {
        for body in [r#"{"session_id":"s","mode":"fresh"}"#, r#"{"session_id":"s","context_mode":"fresh"}"#] {
            assert_eq!(ModeChange::parse(body.as_bytes()).unwrap().mode, Mode::Fresh);
        }
        assert!(ModeChange::parse(br#"{"session_id":"s"}"#).is_err());
        assert!(ModeChange::parse(br#"{"mode":"fresh"}"#).is_err());
    }
}
