//! The request line, and what Host and an absolute target name.

use super::Refusal;
use super::bytes::{HOST, TARGET, TOKEN, span};
use std::ops::Range;

/// Longer than any registered method; a longer one is a scan or an attack.
const METHOD_BYTES_MAX: usize = 32;

const HTTP: &[u8] = b"http://";
const HTTPS: &[u8] = b"https://";

/// What the request line says about the rest of the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// HTTP/1.0: no Host needed, no Transfer-Encoding allowed.
    pub old: bool,
    /// Where in the line an absolute target's (or CONNECT's) authority stands, which Host must repeat.
    pub authority: Option<Range<usize>>,
    /// The port that both need not write, as it is written: that of an absolute target's scheme.
    pub default_port: &'static [u8],
}

/// Reads a request line without its CR LF (RFC 9112, section 3).
///
/// # Errors
/// What is wrong with it.
#[inline]
pub fn parse(line: &[u8]) -> Result<RequestLine, Refusal> {
    let method_end = span(line, &TOKEN);
    let Some((b' ', rest)) = line[method_end..].split_first() else {
        return Err(if method_end == line.len() { Refusal::RequestLine } else { Refusal::Method });
    };
    if method_end == 0 || method_end > METHOD_BYTES_MAX {
        return Err(Refusal::Method);
    }
    let Some(target_bytes) = memchr::memchr(b' ', rest) else {
        return Err(Refusal::RequestLine);
    };
    let (target, version) = rest.split_at(target_bytes);
    let old = old_version(&version[1..])?;
    let authority = authority(&line[..method_end], target)?;
    let default_port: &[u8] = match authority.as_ref().map(|range| range.start) {
        Some(scheme_bytes) if scheme_bytes == HTTP.len() => b":80",
        Some(scheme_bytes) if scheme_bytes == HTTPS.len() => b":443",
        _ => b"",
    };
    let shift = method_end + 1;
    let authority = authority.map(|range| range.start + shift..range.end + shift);
    Ok(RequestLine { old, authority, default_port })
}

/// Whether `authority` is `host[:port]` (RFC 3986, section 3.2) without user information, the host not empty.
pub fn is_authority(authority: &[u8]) -> bool {
    let host_bytes = match authority {
        [b'[', rest @ ..] => match memchr::memchr(b']', rest) {
            Some(inner) if is_ipv6(&rest[..inner]) => inner + 2,
            _ => return false,
        },
        _ => span(authority, &HOST),
    };
    host_bytes > 0 && is_port(&authority[host_bytes..])
}

/// Whether two authorities are the same (RFC 9110, section 4.2.3): in any letters, with or without `default_port`.
pub fn same_authority(one: &[u8], other: &[u8], default_port: &[u8]) -> bool {
    let bare = |authority: &[u8]| match authority {
        [host @ .., b':'] => host.len(),
        _ => authority.strip_suffix(default_port).unwrap_or(authority).len(),
    };
    one[..bare(one)].eq_ignore_ascii_case(&other[..bare(other)])
}

/// Whether `target` is a path as a request line has it, with its query.
pub fn is_path(target: &[u8]) -> bool {
    matches!(target, [b'/', rest @ ..] if span(rest, &TARGET) == rest.len())
}

fn old_version(version: &[u8]) -> Result<bool, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::Version),
        _ => Err(Refusal::RequestLine),
    }
}

/// The authority's range in `target`, where the form has one (RFC 9112, section 3.2).
fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
    let connect = method == b"CONNECT";
    match target {
        _ if !connect && is_path(target) => Ok(None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ if connect && is_authority(target) && has_port(target) => Ok(Some(0..target.len())),
        _ if !connect => absolute(target).map(Some).ok_or(Refusal::Target),
        _ => Err(Refusal::Target),
    }
}

fn absolute(target: &[u8]) -> Option<Range<usize>> {
    let scheme = [HTTP, HTTPS]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    let rest = &target[scheme.len()..];
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let path = &rest[end..];
    (is_authority(&rest[..end]) && span(path, &TARGET) == path.len()).then_some(scheme.len()..scheme.len() + end)
}

fn is_ipv6(inner: &[u8]) -> bool {
    std::str::from_utf8(inner).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && digits.len() <= 5
                && digits.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= 65_535
        }
        _ => false,
    }
}

fn has_port(authority: &[u8]) -> bool {
    memchr::memrchr(b':', authority).is_some_and(|colon| authority[colon + 1..].first().is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_that_are_taken() {
        for (line, old) in [("GET / HTTP/1.1", false), ("OPTIONS * HTTP/1.1", false), ("get /a?b=c[] HTTP/1.0", true)] {
            assert_eq!(parse(line.as_bytes()), Ok(RequestLine { old, authority: None, default_port: b"" }), "{line}");
        }
        let line = b"GET http://a.b:80/c HTTP/1.1";
        let range = parse(line).unwrap().authority.unwrap();
        assert_eq!(&line[range], b"a.b:80");
        let line = b"CONNECT [::1]:443 HTTP/1.1";
        let range = parse(line).unwrap().authority.unwrap();
        assert_eq!(&line[range], b"[::1]:443");
    }

    #[test]
    fn a_port_that_says_nothing_is_none() {
        for (target, host, same) in [
            ("http://a/", "a", true),
            ("http://A:80/", "a", true),
            ("http://a/", "a:80", true),
            ("http://a:/", "a:80", true),
            ("https://a:443/", "a", true),
            ("http://[::1]:80/", "[::1]", true),
            ("http://a:443/", "a", false),
            ("https://a:80/", "a", false),
            ("http://a:80/", "a:81", false),
            ("http://a:180/", "a:1", false),
            ("http://a:80/", "b", false),
        ] {
            let line = format!("GET {target} HTTP/1.1");
            let parsed = parse(line.as_bytes()).unwrap();
            let authority = &line.as_bytes()[parsed.authority.clone().unwrap()];
            assert_eq!(same_authority(authority, host.as_bytes(), parsed.default_port), same, "{target} {host}");
        }
        let connect = parse(b"CONNECT a:80 HTTP/1.1").unwrap();
        assert!(!same_authority(b"a:80", b"a", connect.default_port));
    }

    #[test]
    fn lines_that_are_refused() {
        use Refusal::*;
        for (line, reason) in [
            ("", RequestLine),
            ("GET", RequestLine),
            ("GET /", RequestLine),
            (" GET / HTTP/1.1", Method),
            ("G<T / HTTP/1.1", Method),
            ("G\u{e9}T / HTTP/1.1", Method),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1", Method),
            ("GET  / HTTP/1.1", RequestLine),
            ("GET /  HTTP/1.1", RequestLine),
            ("GET / HTTP/1.1 ", RequestLine),
            ("GET / x HTTP/1.1", RequestLine),
            ("GET / http/1.1", RequestLine),
            ("GET / HTTP/1.10", RequestLine),
            ("GET / HTTP/1,1", RequestLine),
            ("GET / HTTP/+1.1", RequestLine),
            ("GET / HTTP/0.9", Version),
            ("GET / HTTP/1.2", Version),
            ("GET / HTTP/2.0", Version),
            ("PRI * HTTP/2.0", Version),
            ("GET * HTTP/1.1", Target),
            ("GET a HTTP/1.1", Target),
            ("GET ?a HTTP/1.1", Target),
            ("GET /a#b HTTP/1.1", Target),
            ("GET /\u{e9} HTTP/1.1", Target),
            ("GET /<a> HTTP/1.1", Target),
            ("GET /\\a HTTP/1.1", Target),
            ("GET ftp://a/ HTTP/1.1", Target),
            ("GET http:/// HTTP/1.1", Target),
            ("GET http://u@a/ HTTP/1.1", Target),
            ("GET a:80 HTTP/1.1", Target),
            ("CONNECT / HTTP/1.1", Target),
            ("CONNECT a HTTP/1.1", Target),
            ("CONNECT http://a:80/ HTTP/1.1", Target),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(reason), "{line:?}");
        }
    }

    #[test]
    fn hosts() {
        for host in [
            "a",
            "a.b",
            "a:",
            "a:80",
            "127.0.0.1:65535",
            "[::1]",
            "[2001:db8::1.2.3.4]:8000",
            "my_host",
            "0.0.0.0=5000",
            "a!$&'*+=b:1",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a,b",
            "a@b",
            "a/b",
            "a?b",
            "a#b",
            "a:b",
            "a:65536",
            "a:000080",
            "a:80:80",
            "[::1",
            "[]",
            "[::1]x",
            "[fe80::1%25e]",
            "::1",
            "a\u{e9}",
            "a;b",
            "(a)",
            "a%00",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }

    proptest! {
        /// hyper answers a target that `http::Uri` does not take by itself, without our headers.
        #[test]
        fn every_target_that_is_taken_is_a_uri(target in "(/|\\*|https?://[a-z0-9.:\\[\\]]{1,9}|[a-z.]{1,4}:[0-9]{0,3})[ -~]{0,12}", connect in any::<bool>()) {
            let method = if connect { "CONNECT" } else { "OPTIONS" };
            if parse(format!("{method} {target} HTTP/1.1").as_bytes()).is_ok() {
                prop_assert!(target.parse::<http::Uri>().is_ok(), "{}", target);
            }
        }
    }
}
