//! What a client asks of `/v1`: the body is looked at, not taken apart, and goes to the upstream as it came. Pure.
//!
//! ```text
//! bytes ─▶ depth ─▶ top-level fields as raw text ─▶ the few rules that are ours ─▶ the same bytes
//!                                                       └─ another model is configured: spliced once
//! ```
//! Everything else is the upstream's to judge. Our own engine cannot call tools, follow a schema or give several
//! answers; what it would have to ignore is refused here, by name.

use super::ask::Invalid;
use super::json;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Deepest nesting of a body: a tool's schema takes three levels for each of its own.
pub const DEPTH_MAX: usize = 64;

/// The body of `POST /v1/chat/completions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// As it goes to the upstream.
    pub body: Bytes,
    /// Chunks as they are generated.
    pub stream: bool,
    /// Most tokens of the reply, where the client named a number.
    pub tokens_max: Option<u32>,
    /// Length of the messages as they are written.
    pub prompt_bytes: usize,
}

/// What the operator has decided.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Our own engine answers.
    pub own_engine: bool,
    /// The model that every call asks for.
    pub model: Option<&'a str>,
}

/// The fields that a rule of ours is about. serde refuses a second one of the same name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    n: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    functions: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    logit_bias: Option<&'a RawValue>,
    #[serde(borrow)]
    presence_penalty: Option<&'a RawValue>,
    #[serde(borrow)]
    frequency_penalty: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

impl Ask {
    /// Looks at a body.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn read(body: Bytes, rules: Rules<'_>) -> Result<Ask, Invalid> {
        let text = std::str::from_utf8(&body)
            .map_err(|error| Invalid::Json(format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
        // Most bodies have fewer brackets than that.
        let brackets = memchr::memchr2_iter(b'[', b'{', &body).take(DEPTH_MAX + 1).count();
        if brackets > DEPTH_MAX && json::depth(text) > DEPTH_MAX {
            return Err(Invalid::Json(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if !text.trim_start().starts_with('{') {
            return Err(Invalid::Json("the body must be a JSON object".to_owned()));
        }
        let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| Invalid::Json(error.to_string()))?;
        let stream = fields.check(rules.own_engine)?;
        let spliced = rules.model.and_then(|model| with_model(text, fields.model, model));
        let number = |field: Option<&RawValue>| field.and_then(|value| value.get().parse::<u64>().ok());
        let tokens_max = number(fields.max_completion_tokens).or(number(fields.max_tokens));
        let tokens_max = tokens_max.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        let prompt_bytes = fields.messages.map_or(0, |messages| messages.get().len());
        Ok(Ask { body: spliced.unwrap_or(body), stream, tokens_max, prompt_bytes })
    }
}

impl Fields<'_> {
    /// True when a stream is asked for.
    fn check(&self, own_engine: bool) -> Result<bool, Invalid> {
        let messages = self.messages.map_or("", RawValue::get);
        if !messages.starts_with('[') || messages[1..].trim_start().starts_with(']') {
            return Err(broken("messages", "must be an array of at least one message"));
        }
        if self.model.is_some_and(|model| !model.get().starts_with('"')) {
            return Err(broken("model", "must be a string"));
        }
        if self.n.is_some_and(|n| n.get() != "1") {
            return Err(broken("n", "must be 1: one answer at a time"));
        }
        if own_engine {
            self.check_engine()?;
        }
        match self.stream.map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(broken("stream", "must be true or false")),
        }
    }

    fn check_engine(&self) -> Result<(), Invalid> {
        const NO_TOOLS: &str = "cannot be used: this model does not call tools";
        let set = |field: Option<&RawValue>, harmless: &[&str]| {
            field.is_some_and(|value| !harmless.contains(&value.get().replace(char::is_whitespace, "").as_str()))
        };
        let nothing = &["[]", "{}", "false", "0", "0.0"][..];
        let refused = [
            ("tools", set(self.tools, nothing), NO_TOOLS),
            ("tool_choice", set(self.tool_choice, &["\"none\"", "\"auto\""]), NO_TOOLS),
            ("functions", set(self.functions, nothing), NO_TOOLS),
            (
                "response_format",
                set(self.response_format, &["{\"type\":\"text\"}", "{\"type\":\"json_object\"}"]),
                "must be of type text or json_object: this model cannot be held to a schema",
            ),
            ("logprobs", set(self.logprobs, nothing), "cannot be given by this model"),
            ("logit_bias", set(self.logit_bias, nothing), "cannot be used with this model"),
            ("presence_penalty", set(self.presence_penalty, nothing), "must be 0 with this model"),
            ("frequency_penalty", set(self.frequency_penalty, nothing), "must be 0 with this model"),
            ("audio", set(self.audio, nothing), "cannot be given by this model"),
        ];
        match refused.into_iter().find(|(_, set, _)| *set) {
            Some((field, _, rule)) => Err(broken(field, rule)),
            None => Ok(()),
        }
    }
}

fn broken(field: &'static str, rule: &str) -> Invalid {
    Invalid::Field { field, rule: rule.to_owned() }
}

/// The body with another model in it; `None` when it asks for that one already.
fn with_model(text: &str, asked: Option<&RawValue>, model: &str) -> Option<Bytes> {
    let quoted = serde_json::Value::from(model).to_string();
    let (from, to, put) = match asked {
        Some(asked) if asked.get() == quoted => return None,
        Some(asked) => {
            // The raw text is a part of `text`, so its place is the difference of two addresses.
            let from = asked.get().as_ptr() as usize - text.as_ptr() as usize;
            (from, from + asked.get().len(), quoted)
        }
        // An object with messages is never empty, so a comma belongs behind it.
        None => {
            let at = text.find('{')? + 1;
            (at, at, format!("\"model\":{quoted},"))
        }
    };
    Some(Bytes::from([&text[..from], &put, &text[to..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, own_engine: bool) -> Result<Ask, Invalid> {
        Ask::read(Bytes::copy_from_slice(body.as_bytes()), Rules { own_engine, model: None })
    }

    fn refused(body: &str, own_engine: bool) -> String {
        match read(body, own_engine) {
            Err(Invalid::Field { field, .. }) => field.to_owned(),
            Err(Invalid::Json(reason)) => format!("json: {reason}"),
            Ok(ask) => panic!("accepted {ask:?}"),
        }
    }

    #[test]
    fn what_is_right_goes_on_as_it_came() {
        let body = Bytes::from_static(br#" {"messages":[{"role":"user"}],"stream":true,"n":1,"tools":[{"a":1}]}"#);
        let ask = Ask::read(body.clone(), Rules::default()).unwrap();
        assert_eq!((ask.body.as_ptr(), ask.stream), (body.as_ptr(), true));
        let plain = r#"{"messages":[1],"tools":[],"stream":null,"response_format":{"type": "json_object"},"tool_choice":"none","presence_penalty":0}"#;
        assert!(!read(plain, true).unwrap().stream);
    }

    #[test]
    fn each_rule_is_named() {
        for (body, says) in [
            (r#"{"messages":[]}"#, "messages"),
            (r#"{"messages":"x"}"#, "messages"),
            ("{}", "messages"),
            (r#"{"messages":[1],"model":5}"#, "model"),
            (r#"{"messages":[1],"n":2}"#, "n"),
            (r#"{"messages":[1],"stream":"yes"}"#, "stream"),
            (r#"{"messages":[1],"stream":true,"stream":false}"#, "json: duplicate field `stream` at line 1 column 38"),
            ("[1]", "json: the body must be a JSON object"),
        ] {
            assert_eq!(refused(body, false), says, "{body}");
        }
        let deep = format!(r#"{{"messages":[1],"tools":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        assert!(refused(&deep, false).contains("deeper"));
        assert!(refused("{\"messages\":[1]", false).starts_with("json: EOF"));
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused_by_name() {
        for (field, value) in [
            ("tools", r#"[{"type":"function"}]"#),
            ("tool_choice", r#""required""#),
            ("response_format", r#"{"type":"json_schema","json_schema":{"name":"x","schema":{}}}"#),
            ("logprobs", "true"),
            ("logit_bias", r#"{"5":1}"#),
            ("frequency_penalty", "0.5"),
        ] {
            let body = format!(r#"{{"messages":[1],"{field}":{value}}}"#);
            assert_eq!(refused(&body, true), field);
            assert!(read(&body, false).is_ok());
        }
    }

    #[test]
    fn the_operators_model_takes_the_place_of_the_asked_one() {
        let with = |body: &str| {
            let rules = Rules { own_engine: false, model: Some("m\"1") };
            let ask = Ask::read(Bytes::copy_from_slice(body.as_bytes()), rules).unwrap();
            String::from_utf8(ask.body.to_vec()).unwrap()
        };
        assert_eq!(with(r#"{"model": "gpt-x", "messages":[1]}"#), r#"{"model": "m\"1", "messages":[1]}"#);
        assert_eq!(with(r#" {"messages":[1]}"#), r#" {"model":"m\"1","messages":[1]}"#);
        assert_eq!(with(r#"{"messages":[1],"model":"m\"1"}"#), r#"{"messages":[1],"model":"m\"1"}"#);
    }
}
