//! A failure has two texts: one for the caller, one for the log. Every `?` on a request's path is one of these. Pure.

use super::head::Refusal;
use crate::chat::ask::Invalid;
use crate::chat::error::{Error, Refusal as Refused};
use crate::chat::store::StoreError;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;

/// Seconds that a client is told to wait for a store that is busy.
const STORE_RETRY_S: u64 = 2;
/// Seconds that a client is told to wait for a model that is not there.
const MODEL_RETRY_S: u64 = 3;

/// The longest wait that OpenAI's libraries take from `Retry-After`.
const RETRY_S_MAX: u64 = 60;

/// The stable names of `API.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 400: not JSON.
    InvalidJson,
    /// 400: a field breaks its rule.
    InvalidRequest,
    /// 400: the conversation does not fit into the model.
    ContextLength,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 413
    PayloadTooLarge,
    /// 415
    UnsupportedMediaType,
    /// What the strict filter refuses, each with its own status.
    Refused(Refusal),
    /// 429
    RateLimited,
    /// 500
    Internal,
    /// 502
    Upstream,
    /// 503: no model, no store, draining.
    NotReady,
    /// 503: too much at once.
    Overloaded,
    /// 504
    Timeout,
}

impl Code {
    /// As it stands in a body.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The response's status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn row(self) -> (u16, &'static str) {
        match self {
            Code::InvalidJson => (400, "invalid_json"),
            Code::InvalidRequest => (400, "invalid_request"),
            Code::ContextLength => (400, "context_length_exceeded"),
            Code::Unauthorized => (401, "unauthorized"),
            Code::Forbidden => (403, "forbidden"),
            Code::NotFound => (404, "not_found"),
            Code::MethodNotAllowed => (405, "method_not_allowed"),
            Code::PayloadTooLarge => (413, "payload_too_large"),
            Code::UnsupportedMediaType => (415, "unsupported_media_type"),
            Code::Refused(refusal) => (refusal.status(), refusal.code()),
            Code::RateLimited => (429, "rate_limited"),
            Code::Internal => (500, "internal_error"),
            Code::Upstream => (502, "upstream_error"),
            Code::NotReady => (503, "not_ready"),
            Code::Overloaded => (503, "overloaded"),
            Code::Timeout => (504, "timeout"),
        }
    }
}

/// Whose error bodies: those of `/v1` are OpenAI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/api` and everything else.
    Own,
    /// `/v1`
    OpenAi,
}

impl Shape {
    /// The shape below this path.
    pub fn of(path: &str) -> Shape {
        if path.starts_with("/v1/") { Shape::OpenAi } else { Shape::Own }
    }
}

/// The body of an error of `/api` (`API.md`). Not a map of values: a flood of refusals makes one for each.
#[derive(Serialize)]
struct OwnBody<'a> {
    success: bool,
    error: &'static str,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// A failure on its way to a response.
#[derive(Debug)]
pub struct Fault {
    /// Its name and status.
    pub code: Code,
    /// For the caller: what to do. Never a secret, an internal address or an upstream's words.
    pub outside: Cow<'static, str>,
    /// For the log.
    pub inside: Option<String>,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u64>,
    /// The limits that a 429 ran into; its text for the caller is made of them.
    pub limit: Option<&'static str>,
    /// `Allow` of a 405.
    pub allow: Option<&'static str>,
    /// The field that is wrong.
    pub param: Option<Box<str>>,
    /// The connection cannot be used again.
    pub close: bool,
}

impl Fault {
    /// A failure with its text for the caller.
    pub fn new(code: Code, outside: impl Into<Cow<'static, str>>) -> Fault {
        Fault {
            code,
            outside: outside.into(),
            inside: None,
            retry_after_s: None,
            limit: None,
            allow: None,
            param: None,
            close: false,
        }
    }

    /// Adds the text for the log.
    pub fn inside(mut self, text: impl ToString) -> Fault {
        self.inside = Some(text.to_string());
        self
    }

    /// Adds `Retry-After`.
    pub fn retry_after(mut self, seconds: u64) -> Fault {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// Ends the connection after the answer.
    pub fn closing(mut self) -> Fault {
        self.close = true;
        self
    }

    /// No key, or nobody's.
    pub fn unauthorized() -> Fault {
        let text = "An API key is needed: send it as Authorization: Bearer KEY or X-API-Key: KEY.";
        Fault::new(Code::Unauthorized, text)
    }

    /// A key that was good once.
    pub fn forbidden() -> Fault {
        Fault::new(Code::Forbidden, "This API key has expired or was revoked. Ask the operator for a new one.")
    }

    /// No endpoint has this path.
    pub fn not_found() -> Fault {
        Fault::new(Code::NotFound, "There is nothing here. GET / lists the endpoints.")
    }

    /// The path is known, the method is not.
    pub fn method_not_allowed(allow: &'static str) -> Fault {
        let text = format!("This endpoint takes {allow}.");
        Fault { allow: Some(allow), ..Fault::new(Code::MethodNotAllowed, text) }
    }

    /// A limit is full. A flood makes one of these for each request: nothing is written before the body is.
    pub fn rate_limited(limit: &'static str, retry_after_s: u64) -> Fault {
        Fault { limit: Some(limit), ..Fault::new(Code::RateLimited, "Too many requests.") }.retry_after(retry_after_s)
    }

    /// The text for the caller.
    fn message(&self) -> Cow<'_, str> {
        match (self.limit, self.retry_after_s) {
            (Some(limit), Some(seconds)) => format!("Too many requests ({limit}). Try again in {seconds} s.").into(),
            _ => Cow::Borrowed(&self.outside),
        }
    }

    /// As the body of a response or the data of an error event.
    pub fn body(&self, request_id: &str, shape: Shape) -> Bytes {
        match shape {
            Shape::Own => match (self.limit, self.retry_after_s) {
                (Some(limit), Some(seconds)) => limited_body(limit, seconds, request_id),
                _ => self.own_body(request_id),
            },
            Shape::OpenAi => {
                let (kind, code) = (self.openai_type(), self.code.as_str());
                let error = json!({"message": self.message(), "type": kind, "param": self.param, "code": code});
                Bytes::from(json!({ "error": error }).to_string())
            }
        }
    }

    /// The types of OpenAI's own errors (its guide "Error codes").
    fn openai_type(&self) -> &'static str {
        match self.code.status().as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// Whether a client that asks again by itself should: OpenAI's libraries go by `x-should-retry`. They wait for a
    /// minute at most, and an answer that took too long would do so again.
    pub fn should_retry(&self) -> Option<&'static str> {
        match (self.code.status().as_u16(), self.retry_after_s) {
            (504, _) => Some("false"),
            (_, Some(seconds)) if seconds > RETRY_S_MAX => Some("false"),
            (_, Some(_)) => Some("true"),
            (_, None) => None,
        }
    }

    fn own_body(&self, request_id: &str) -> Bytes {
        let body = OwnBody {
            success: false,
            error: self.code.as_str(),
            message: &self.message(),
            request_id,
            limit: self.limit,
            retry_after: self.limit.and(self.retry_after_s),
        };
        // Strings and numbers: nothing here can fail.
        Bytes::from(serde_json::to_vec(&body).unwrap_or_default())
    }
}

/// [`OwnBody`] of a 429, in one piece: nothing in the names of limits and in ids has to be escaped.
fn limited_body(limit: &str, retry_after_s: u64, request_id: &str) -> Bytes {
    let mut digits = itoa::Buffer::new();
    let seconds = digits.format(retry_after_s);
    let parts = [
        r#"{"success":false,"error":"rate_limited","message":"Too many requests ("#,
        limit,
        "). Try again in ",
        seconds,
        r#" s.","request_id":""#,
        request_id,
        r#"","limit":""#,
        limit,
        r#"","retry_after":"#,
        seconds,
        "}",
    ];
    Bytes::from(parts.concat())
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::new(Code::Refused(refusal), refusal.sentence()).closing()
    }
}

impl From<Invalid> for Fault {
    fn from(invalid: Invalid) -> Fault {
        match invalid {
            Invalid::Json(reason) => Fault::new(Code::InvalidJson, format!("The body is not valid JSON: {reason}.")),
            Invalid::Field { field, rule } => {
                Fault { param: Some(field.into()), ..Fault::new(Code::InvalidRequest, format!("{field} {rule}.")) }
            }
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let inside = error.to_string();
        let fault = match error {
            Error::NotReady(_) => Fault::new(Code::NotReady, "The model is not available yet. Try again shortly.")
                .retry_after(MODEL_RETRY_S),
            Error::Overloaded(seconds) => {
                Fault::new(Code::Overloaded, "The model has too much to do. Try again shortly.").retry_after(seconds)
            }
            Error::ContextLength(_) => Fault::new(
                Code::ContextLength,
                "The conversation is longer than the model can read. Send less history or a shorter message.",
            ),
            Error::Refused(refusal) => refused(*refusal),
            Error::Upstream(_) => Fault::new(Code::Upstream, "The model could not answer. Try again."),
            Error::Timeout(_) => Fault::new(Code::Timeout, "The answer took too long. Try again, or ask for less."),
            Error::Stopping => Fault::new(Code::NotReady, "The server is stopping. Try again.").retry_after(1),
            Error::Store(error) => return Fault::from(error),
        };
        fault.inside(inside)
    }
}

fn refused(refusal: Refused) -> Fault {
    let (code, said) = match refusal.unknown_model {
        true => (Code::NotFound, "The model does not exist here. GET /v1/models lists those that do."),
        false => (Code::InvalidRequest, "The model does not accept this request. Check its fields."),
    };
    let param = if refusal.unknown_model { Some("model".to_owned()) } else { refusal.param };
    let outside = refusal.message.map_or(Cow::Borrowed(said), Cow::Owned);
    Fault { param: param.map(Into::into), ..Fault::new(code, outside) }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::new(Code::NotReady, "Conversations cannot be stored now. Try again shortly.")
            .retry_after(STORE_RETRY_S)
            .inside(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_inside_is_told() {
        for error in [
            Error::Upstream("10.1.2.3:8000 said sk-secret".into()),
            Error::NotReady("no connection: 10.1.2.3:8000 said sk-secret".into()),
            Error::ContextLength("sk-secret".into()),
        ] {
            let fault = Fault::from(error);
            let body = String::from_utf8(fault.body("r1", Shape::Own).to_vec()).unwrap();
            assert!(!body.contains("sk-secret") && !body.contains("10.1.2.3"), "{body}");
            assert!(fault.inside.unwrap().contains("sk-secret"));
        }
    }

    #[test]
    fn a_503_says_when_to_come_back() {
        for error in [Error::NotReady(String::new()), Error::Overloaded(0), Error::Stopping] {
            let fault = Fault::from(error);
            assert_eq!(fault.code.status(), 503);
            assert!(fault.retry_after_s.is_some_and(|seconds| seconds >= 1));
        }
    }

    #[test]
    fn a_429_names_its_limits_in_both_shapes() {
        let fault = Fault::rate_limited("chat-minute, hour", 41);
        assert_eq!(fault.body("a-B_9.x", Shape::Own), fault.own_body("a-B_9.x"));
        let body: serde_json::Value = serde_json::from_slice(&fault.body("r1", Shape::Own)).unwrap();
        let message = "Too many requests (chat-minute, hour). Try again in 41 s.";
        let expected = json!({"success": false, "error": "rate_limited", "message": message, "request_id": "r1",
            "limit": "chat-minute, hour", "retry_after": 41});
        assert_eq!(body, expected);
        let body: serde_json::Value = serde_json::from_slice(&fault.body("r1", Shape::OpenAi)).unwrap();
        assert_eq!(body["error"]["message"], message);
    }

    #[test]
    fn a_body_has_the_four_fields() {
        let fault = Fault::from(Invalid::Field { field: "message", rule: "is \"required\"".into() });
        let body: serde_json::Value = serde_json::from_slice(&fault.body("r1", Shape::Own)).unwrap();
        let expected = json!({"success": false, "error": "invalid_request", "message": "message is \"required\".", "request_id": "r1"});
        assert_eq!(body, expected);
        let body: serde_json::Value = serde_json::from_slice(&fault.body("r1", Shape::OpenAi)).unwrap();
        let expected = json!({"error": {"message": "message is \"required\".", "type": "invalid_request_error",
            "param": "message", "code": "invalid_request"}});
        assert_eq!(body, expected);
    }
}
