//! The headers that every response carries: made once, copied for each. Pure.
//!
//! Copying a prepared map costs two allocations; its values are shared. What differs from answer to answer has its place
//! at the map's head, so a copy neither grows nor is searched.

use super::head::is_authority;
use crate::limit::told::{FIELDS, put};
use crate::limit::{Told, Verdict};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Carries the request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a caller (`API.md`).
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// What a later version's `traceparent` may have behind the fields that are known.
const TRACE_REST_BYTES_MAX: usize = 128;

const EXPOSED: &str = "RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, X-Request-Id";
/// What a preflight lets in that asks for nothing.
const ALLOWED: &str = "Authorization, Content-Type, X-API-Key, X-Request-Id, Traceparent";
/// Longest list of fields that a preflight is granted.
const NAMES_BYTES_MAX: usize = 1024;
const NO_FEATURES: &str = "accelerometer=(), autoplay=(), browsing-topics=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), usb=(), xr-spatial-tracking=()";

/// Which map a response starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// JSON below `/api` and `/v1`: never stored.
    Api,
    /// JSON elsewhere.
    Plain,
    /// A stream of events below `/api`.
    Events,
    /// No body.
    Empty,
}

/// The prepared maps, and who may read across origins.
pub struct Headers {
    /// By [`Base`], then by [`Told`].
    maps: [[HeaderMap; 3]; 4],
    origins: Vec<HeaderValue>,
    any_origin: bool,
}

impl Headers {
    /// Prepares everything; `origins` as in `CORS_ORIGINS`.
    pub fn new(origins: &[String]) -> Headers {
        let any_origin = origins.iter().any(|origin| origin == "*");
        let maps = [Base::Api, Base::Plain, Base::Events, Base::Empty]
            .map(|base| [Told::Nothing, Told::Standing, Told::Refusal].map(|told| prepared(base, told, any_origin)));
        let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        Headers { maps, origins, any_origin }
    }

    /// A copy to add to; [`fill`] completes it. `origin` is the request's.
    pub fn base(&self, base: Base, told: Told, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut map = self.maps[base as usize][told as usize].clone();
        if !self.any_origin
            && let Some(origin) = origin.filter(|origin| self.origins.contains(origin))
        {
            map.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        map
    }

    /// What a preflight's answer adds. The fields that the page's script is going to send (`asked`) are let in whatever they
    /// are, for OpenAI's client for browsers has a dozen of its own and no cookie is ever taken.
    pub fn preflight(&self, map: &mut HeaderMap, asked: Option<&HeaderValue>) {
        map.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
        let allowed = asked.filter(|asked| is_names(asked.as_bytes())).cloned();
        map.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.unwrap_or(HeaderValue::from_static(ALLOWED)));
        map.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        map.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

/// Puts in what only this answer has. The copy was made for a verdict that tells the same.
pub fn fill(map: &mut HeaderMap, id: HeaderValue, verdict: &Verdict) {
    match verdict.told() {
        Told::Nothing if verdict.admitted() => put(map, std::iter::once((REQUEST_ID, id))),
        _ => put(map, std::iter::once((REQUEST_ID, id)).chain(verdict.fields())),
    }
}

fn prepared(base: Base, told: Told, any_origin: bool) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(24);
    let later: &[HeaderName] = if told == Told::Nothing { &[] } else { &FIELDS };
    let retry = (told == Told::Refusal).then_some(header::RETRY_AFTER);
    for name in [REQUEST_ID].iter().chain(later).cloned().chain(retry) {
        map.insert(name, HeaderValue::from_static("-"));
    }
    security(&mut map, any_origin);
    let mut set = |name: HeaderName, value| drop(map.insert(name, HeaderValue::from_static(value)));
    match base {
        Base::Api | Base::Plain => set(header::CONTENT_TYPE, "application/json"),
        Base::Events => set(header::CONTENT_TYPE, "text/event-stream"),
        Base::Empty => {}
    }
    if matches!(base, Base::Api | Base::Events) {
        set(header::CACHE_CONTROL, "no-store");
    }
    if base == Base::Events {
        // nginx buffers a proxied stream unless it is told not to.
        set(HeaderName::from_static("x-accel-buffering"), "no");
    }
    map
}

fn security(map: &mut HeaderMap, any_origin: bool) {
    let mut set = |name: &'static str, value: &'static str| {
        map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    set("x-content-type-options", "nosniff");
    set("x-frame-options", "DENY");
    set("x-xss-protection", "1; mode=block");
    set("strict-transport-security", "max-age=31536000; includeSubDomains");
    set("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
    set("referrer-policy", "no-referrer");
    set("permissions-policy", NO_FEATURES);
    set("cross-origin-opener-policy", "same-origin");
    set("cross-origin-resource-policy", "same-origin");
    set("access-control-expose-headers", EXPOSED);
    match any_origin {
        true => set("access-control-allow-origin", "*"),
        false => set("vary", "Origin"),
    }
}

/// True for an id that is taken over from a caller.
pub fn is_request_id(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(plain)
}

/// True for a list of field names as a browser writes it (Fetch, "CORS-unsafe request-header names").
fn is_names(value: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let name = |part: &[u8]| !part.trim_ascii().is_empty() && part.trim_ascii().iter().all(token);
    value.len() <= NAMES_BYTES_MAX && value.split(|byte| *byte == b',').all(name)
}

/// True for a W3C `traceparent`: of version 00, or longer of a later one; neither id is all zeros.
pub fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (Some(known), rest) = (value.get(..55), value.get(55..).unwrap_or_default()) else { return false };
    let parts = [&known[..2], &known[3..35], &known[36..52], &known[53..]];
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let ids = parts[1..3].iter().all(|part| part.iter().any(|byte| *byte != b'0'));
    let later = rest.is_empty() || (parts[0] != b"00" && rest[0] == b'-' && rest.len() <= TRACE_REST_BYTES_MAX);
    dashes && ids && later && parts[0] != b"ff" && parts.iter().all(|part| hex(part))
}

/// True for an origin as a browser writes it (RFC 6454, section 6.2); `null` is everybody's who hides.
pub fn is_origin(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.');
    // A name may hold a `*`, but whoever writes one here means many names.
    let odd = |byte: u8| byte.is_ascii_uppercase() || b"!$&'*+=".contains(&byte);
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    !scheme.is_empty()
        && scheme.bytes().all(plain)
        && is_authority(authority.as_bytes())
        && !authority.ends_with(':')
        && !authority.bytes().any(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_prepared_is_filled() {
        let headers = Headers::new(&["*".to_owned()]);
        let mut map = headers.base(Base::Api, Told::Nothing, None);
        let mut grown = map.clone();
        grown.insert(REQUEST_ID, HeaderValue::from_static("r1"));
        fill(&mut map, HeaderValue::from_static("r1"), &Verdict::default());
        assert_eq!(map, grown);
        let told = headers.base(Base::Api, Told::Refusal, None);
        assert_eq!(told.keys().take(7).cloned().collect::<Vec<_>>()[1..6], FIELDS);
        assert_eq!(told.len(), map.len() + 6);
    }

    #[test]
    fn every_base_carries_the_security_headers() {
        let headers = Headers::new(&["*".to_owned()]);
        for base in [Base::Api, Base::Plain, Base::Events, Base::Empty] {
            let map = headers.base(base, Told::Nothing, None);
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("x-xss-protection", "1; mode=block"),
                ("strict-transport-security", "max-age=31536000; includeSubDomains"),
                ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                ("referrer-policy", "no-referrer"),
                ("access-control-allow-origin", "*"),
            ] {
                assert_eq!(map[name], value, "{base:?} {name}");
            }
        }
        assert_eq!(headers.base(Base::Api, Told::Nothing, None)["cache-control"], "no-store");
    }

    #[test]
    fn only_listed_origins_are_let_in_and_never_with_credentials() {
        let headers = Headers::new(&["https://a.example".to_owned()]);
        let from =
            |origin: &'static str| headers.base(Base::Api, Told::Nothing, Some(&HeaderValue::from_static(origin)));
        assert_eq!(from("https://a.example")["access-control-allow-origin"], "https://a.example");
        assert!(!from("https://b.example").contains_key("access-control-allow-origin"));
        assert_eq!(from("https://b.example")["vary"], "Origin");
        assert!(!from("https://a.example").contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in [
            "https://a.example",
            "http://localhost:3000",
            "http://[::1]:80",
            "chrome-extension://abc",
            "http://10.0.0.1",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "null",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://*.a.example",
            "HTTPS://a",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
        for bad in
            ["https://a b", "https://u@a", "https://a:", "https://a:x", "://a", "https://a,https://b", "https://a?b"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn a_trace_is_what_w3c_writes() {
        let known = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(known.as_bytes()));
        assert!(is_traceparent(known.replacen("00", "cc", 1).as_bytes()));
        assert!(is_traceparent(format!("{}-what-else", known.replacen("00", "cc", 1)).as_bytes()));
        for bad in [
            String::new(),
            known.to_uppercase(),
            known[1..].to_owned(),
            known[..54].to_owned(),
            format!("{known}-x"),
            format!("{known}0"),
            known.replacen("00", "ff", 1),
            known.replace("b7ad6b7169203331", "0000000000000000"),
            known.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            known.replace('-', "_"),
            known.replace("0af", "0ag"),
            format!("{}-{}", known.replacen("00", "cc", 1), "x".repeat(128)),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_preflight_is_granted_what_it_asks_for_when_it_is_a_list_of_names() {
        let headers = Headers::new(&["*".to_owned()]);
        let granted = |asked: &'static str| {
            let mut map = HeaderMap::new();
            headers.preflight(&mut map, Some(&HeaderValue::from_static(asked)));
            map[header::ACCESS_CONTROL_ALLOW_HEADERS].clone()
        };
        for good in ["content-type", "authorization,content-type,x-stainless-os", "a, b"] {
            assert_eq!(granted(good), good);
        }
        for bad in ["", "a,,b", "a b", "a;b", "a, ", "\"a\"", "*/*"] {
            assert_eq!(granted(bad), ALLOWED, "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_plain() {
        assert!(is_request_id(b"a-B_9.x"));
        assert!(is_request_id(&[b'a'; 128]));
        for bad in [&b""[..], &[b'a'; 129], b"a b", b"a\"", b"a\n", "é".as_bytes()] {
            assert!(!is_request_id(bad));
        }
    }
}
