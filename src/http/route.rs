//! Which endpoint a request means. Pure.

use super::page::File;
use crate::board::tally;
use http::Method;

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /`
    Root,
    /// A file of the chat page.
    Page(File),
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /api/health`
    Health,
    /// `GET /healthz`
    Live,
    /// `GET /readyz`
    Ready,
    /// `POST /api/chat`
    Chat,
    /// `POST /api/initialize`
    Initialize,
    /// `GET /api/context/mode`
    ModeGet,
    /// `POST /api/context/mode`
    ModeSet,
    /// `POST /v1/chat/completions`
    Completions,
    /// `GET /v1/models`
    Models,
    /// `OPTIONS` of any known path, whose methods these are, and of `*`, the server itself (RFC 9110, section 9.3.7).
    Preflight(&'static str),
}

impl Route {
    /// Its number in [`tally::ROUTES`].
    pub fn number(self) -> usize {
        match self {
            Route::Health => tally::HEALTH,
            Route::Live => 1,
            Route::Ready => 2,
            Route::Root => 3,
            Route::Page(_) => 4,
            Route::Chat => tally::CHAT,
            Route::Initialize => 6,
            Route::ModeGet | Route::ModeSet => 7,
            Route::Completions => tally::COMPLETIONS,
            Route::Models => 9,
            Route::OpenApi => 10,
            Route::Preflight(_) => tally::OTHER,
        }
    }
}

/// Why there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing has this path.
    Path,
    /// The path is known; these methods are allowed.
    Method(&'static str),
}

const GET: &str = "GET, HEAD, OPTIONS";
const POST: &str = "POST, OPTIONS";
const GET_POST: &str = "GET, HEAD, POST, OPTIONS";

/// Finds the endpoint. HEAD is answered wherever GET is.
///
/// # Errors
/// See [`Miss`].
pub fn find(method: &Method, path: &str) -> Result<Route, Miss> {
    let (get, post, allow) = match path {
        "/api/health" => (Some(Route::Health), None, GET),
        "/api/chat" => (None, Some(Route::Chat), POST),
        "/v1/chat/completions" => (None, Some(Route::Completions), POST),
        "/v1/models" => (Some(Route::Models), None, GET),
        "/" => (Some(Route::Root), None, GET),
        "/healthz" => (Some(Route::Live), None, GET),
        "/readyz" => (Some(Route::Ready), None, GET),
        "/openapi.json" => (Some(Route::OpenApi), None, GET),
        "/api/initialize" => (None, Some(Route::Initialize), POST),
        "/api/context/mode" => (Some(Route::ModeGet), Some(Route::ModeSet), GET_POST),
        "*" if *method == Method::OPTIONS => return Ok(Route::Preflight(GET_POST)),
        _ => match File::at(path) {
            Some(file) => (Some(Route::Page(file)), None, GET),
            None => return Err(Miss::Path),
        },
    };
    let route = match *method {
        Method::GET | Method::HEAD => get,
        Method::POST => post,
        Method::OPTIONS => Some(Route::Preflight(allow)),
        _ => None,
    };
    route.ok_or(Miss::Method(allow))
}

/// The value of `name` in a query, percent-decoded; `None` when it is absent or not UTF-8.
pub fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    decoded(value)
}

fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_paths_find_their_endpoint() {
        assert_eq!(find(&Method::GET, "/api/health"), Ok(Route::Health));
        assert_eq!(find(&Method::HEAD, "/"), Ok(Route::Root));
        assert_eq!(find(&Method::POST, "/api/chat"), Ok(Route::Chat));
        assert_eq!(find(&Method::POST, "/v1/chat/completions"), Ok(Route::Completions));
        assert_eq!(find(&Method::POST, "/v1/models"), Err(Miss::Method(GET)));
        assert_eq!(find(&Method::GET, "/api/chat"), Err(Miss::Method(POST)));
        assert_eq!(find(&Method::DELETE, "/api/context/mode"), Err(Miss::Method(GET_POST)));
        assert_eq!(find(&Method::OPTIONS, "/api/chat"), Ok(Route::Preflight(POST)));
        assert_eq!(find(&Method::OPTIONS, "*"), Ok(Route::Preflight(GET_POST)));
        for path in ["/api/chat/", "/API/chat", "/api//chat", "", "*", "/api/chat%00"] {
            assert_eq!(find(&Method::POST, path), Err(Miss::Path), "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(query_value(Some("a=1&session_id=a%3Ab+c"), "session_id").as_deref(), Some("a:b c"));
        assert_eq!(query_value(Some("session_id=%zz"), "session_id"), None);
        assert_eq!(query_value(Some("session_id=%f"), "session_id"), None);
        assert_eq!(query_value(Some("session_id=%ff"), "session_id"), None);
        assert_eq!(query_value(None, "session_id"), None);
    }
}
