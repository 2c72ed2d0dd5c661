//! Requests (section 8): what is no request, what would be another one behind a server that speaks HTTP/1, and what is served.

use super::wire::{Expect, GET, POST, PROTOCOL, frame};
use super::{Case, case};

/// A field that no table remembers.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0, name.len() as u8][..], name, &[value.len() as u8], value].concat()
}

fn get(fields: &[Vec<u8>]) -> Vec<u8> {
    frame(1, 5, 1, &[GET, &fields.concat()].concat())
}

/// A head of these pseudo-fields alone.
fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(
        1,
        5,
        1,
        &fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect::<Vec<u8>>(),
    )
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/healthz");
const AUTHORITY: (&str, &str) = (":authority", "t");

/// But for a pseudo-field in trailers, which the h2 crate leaves out; nothing here reads trailers.
pub fn malformed() -> Vec<Case> {
    let error = Expect::Stream(&[PROTOCOL]);
    let post = |length: &str| frame(1, 4, 1, &[POST, &field(b"content-length", length.as_bytes())].concat());
    let trailers =
        |flags: u8, fields: &[u8]| [frame(1, 4, 1, POST), frame(0, 0, 1, b"{}"), frame(1, flags, 1, fields)].concat();
    vec![
        case("8.1: a second head that does not end the stream", trailers(4, &field(b"x", b"y")), error),
        case("8.1.1: a length above its DATA", [post("3"), frame(0, 1, 1, b"{}")].concat(), error),
        case("8.1.1: a length below its DATA", [post("1"), frame(0, 1, 1, b"{}")].concat(), error),
        case(
            "8.1.1: a length below several DATA",
            [post("1"), frame(0, 0, 1, b"{"), frame(0, 1, 1, b"}")].concat(),
            error,
        ),
        case("8.1.1: a length and no DATA", frame(1, 5, 1, &[POST, &field(b"content-length", b"2")].concat()), error),
        case("8.2.1: a name in capitals", get(&[field(b"X-A", b"y")]), error),
        case("8.2.2: Connection", get(&[field(b"connection", b"keep-alive")]), error),
        case("8.2.2: Keep-Alive", get(&[field(b"keep-alive", b"timeout=5")]), error),
        case("8.2.2: Proxy-Connection", get(&[field(b"proxy-connection", b"keep-alive")]), error),
        case("8.2.2: Upgrade", get(&[field(b"upgrade", b"websocket")]), error),
        case("8.2.2: Transfer-Encoding", get(&[field(b"transfer-encoding", b"chunked")]), error),
        case("8.2.2: a TE other than trailers", get(&[field(b"te", b"trailers, deflate")]), error),
        case("8.3: an unknown pseudo-field", get(&[field(b":test", b"ok")]), error),
        case("8.3: a pseudo-field of answers", head(&[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")]), error),
        case("8.3: a pseudo-field behind a field", head(&[METHOD, SCHEME, PATH, ("x", "y"), AUTHORITY]), error),
        case("8.3.1: an empty path", head(&[METHOD, SCHEME, (":path", ""), AUTHORITY]), error),
        case("8.3.1: no method", head(&[SCHEME, PATH, AUTHORITY]), error),
        case("8.3.1: no scheme", head(&[METHOD, PATH, AUTHORITY]), error),
        case("8.3.1: no path", head(&[METHOD, SCHEME, AUTHORITY]), error),
        case("8.3.1: two methods", head(&[METHOD, METHOD, SCHEME, PATH, AUTHORITY]), error),
        case("8.3.1: two schemes", head(&[METHOD, SCHEME, SCHEME, PATH, AUTHORITY]), error),
        case("8.3.1: two paths", head(&[METHOD, SCHEME, PATH, PATH, AUTHORITY]), error),
        case("8.3.1: two authorities", head(&[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY]), error),
    ]
}

/// Shapes that become another request when they are written down as HTTP/1.
pub fn smuggling() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &'static str, frames: Vec<u8>| cases.push(case(name, frames, Expect::Refused));
    add("CR LF in a value", get(&[field(b"x", b"y\r\nTransfer-Encoding: chunked")]));
    add("LF in a value", get(&[field(b"x", b"y\nz: 1")]));
    add("CR in a value", get(&[field(b"x", b"y\rz: 1")]));
    add("NUL in a value", get(&[field(b"x", b"y\0z")]));
    add("CR LF in a name", get(&[field(b"x: y\r\nz", b"1")]));
    add("a colon in a name", get(&[field(b"x: y", b"1")]));
    add("a space in a name", get(&[field(b"content-length ", b"3")]));
    add("an empty name", get(&[field(b"", b"1")]));
    add("a name above ASCII", get(&[field(b"\xc3\xa9", b"1")]));
    add(
        "two lengths",
        frame(1, 4, 1, &[POST, &field(b"content-length", b"2"), &field(b"content-length", b"3")].concat()),
    );
    let zero = field(b"content-length", b"0");
    add("two equal lengths", get(&[zero.clone(), zero]));
    add("a length with a sign", frame(1, 4, 1, &[POST, &field(b"content-length", b"+2")].concat()));
    add("a list of lengths", frame(1, 4, 1, &[POST, &field(b"content-length", b"2, 2")].concat()));
    add("a length that is none", frame(1, 4, 1, &[POST, &field(b"content-length", b"two")].concat()));
    add("an empty length", get(&[field(b"content-length", b"")]));
    for (name, value) in [
        ("a space", " "),
        ("a tab first", "\ty"),
        ("a space first", " y"),
        ("a space last", "y "),
        ("a tab last", "y\t"),
    ] {
        add(name, get(&[field(b"x", value.as_bytes())]));
    }
    add("another host than the authority", get(&[field(b"host", b"evil")]));
    add("two hosts", get(&[field(b"host", b"t"), field(b"host", b"t")]));
    add("no host at all", head(&[METHOD, SCHEME, PATH]));
    for (name, method) in
        [("a method with a space", "GET / HTTP/1.1"), ("a method with CR LF", "GET /\r\nX:"), ("an empty method", "")]
    {
        add(name, head(&[(":method", method), SCHEME, PATH, AUTHORITY]));
    }
    for (name, path) in [
        ("a path with a space", "/healthz HTTP/1.1"),
        ("a path with CR LF", "/healthz HTTP/1.1\r\nHost: evil\r\n\r\n"),
        ("a path with a NUL", "/healthz\0"),
        ("a path without a slash", "healthz"),
        ("a path of another host", "http://evil/healthz"),
        ("a path that is a name", "@evil/healthz"),
        ("a path with DEL", "/healthz\x7f"),
        ("a path with a quote", "/\"healthz"),
        ("a path with a backslash", "/x\\..\\healthz"),
        ("a path above ASCII", "/\u{e9}"),
        ("a query alone", "?x"),
        ("all paths, for a GET", "*"),
    ] {
        add(name, head(&[METHOD, SCHEME, (":path", path), AUTHORITY]));
    }
    for (name, authority) in [
        ("an authority with CR LF", "t\r\nX: y"),
        ("an authority with a space", "t x"),
        ("an authority with a path", "t/x"),
        ("an authority with a user", "u@t"),
        ("an authority with a NUL", "t\0"),
        ("an empty authority", ""),
        ("an authority with two ports", "t:1:2"),
        ("an authority with a large port", "t:99999"),
    ] {
        add(name, head(&[METHOD, SCHEME, PATH, (":authority", authority)]));
    }
    for (name, scheme) in [
        ("a scheme with CR LF", "http\r\nX: y"),
        ("a scheme with a host", "http://evil/?"),
        ("another scheme", "ftp"),
        ("an empty scheme", ""),
    ] {
        add(name, head(&[METHOD, (":scheme", scheme), PATH, AUTHORITY]));
    }
    add("CONNECT", head(&[(":method", "CONNECT"), (":authority", "t:80")]));
    add("extended CONNECT", head(&[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, PATH, AUTHORITY]));
    cases
}

pub fn served() -> Vec<Case> {
    let ping = frame(6, 0, 0, b"12345678");
    let parts = [frame(1, 1, 1, &GET[..1]), frame(9, 0, 1, &GET[1..4]), frame(9, 4, 1, &GET[4..])].concat();
    vec![
        case(
            "4.1: an unknown frame",
            [frame(0x42, 0xff, 0, b"12345678"), frame(1, 5, 1, GET)].concat(),
            Expect::Served(1),
        ),
        case(
            "4.1: an unknown frame of a stream",
            [frame(0x42, 0xff, 7, b"x"), frame(1, 5, 1, GET)].concat(),
            Expect::Served(1),
        ),
        case("4.1: flags without a meaning", [frame(6, 0x16, 0, b"12345678")].concat(), Expect::Pong),
        case("4.1: the reserved bit", frame(6, 0, 1 << 31, b"12345678"), Expect::Pong),
        case(
            "5.1: WINDOW_UPDATE behind the end of its stream",
            [frame(1, 5, 1, GET), frame(8, 0, 1, &[0, 0, 0, 1])].concat(),
            Expect::Served(1),
        ),
        case(
            "5.1: PRIORITY of an idle stream",
            [frame(2, 0, 3, &[0, 0, 0, 0, 1]), frame(1, 5, 5, GET)].concat(),
            Expect::Served(5),
        ),
        case(
            "6.1: padded DATA",
            [frame(1, 4, 1, POST), frame(0, 9, 1, b"\x02{}\0\0"), ping.clone()].concat(),
            Expect::Pong,
        ),
        case(
            "6.1: DATA of padding alone",
            [frame(1, 4, 1, POST), frame(0, 9, 1, b"\x05test!"), ping.clone()].concat(),
            Expect::Pong,
        ),
        case("6.2: padded HEADERS", frame(1, 13, 1, &[b"\x02", GET, b"\0\0"].concat()), Expect::Served(1)),
        case("6.2: HEADERS with a priority", frame(1, 0x25, 1, &[b"\0\0\0\0\x10", GET].concat()), Expect::Served(1)),
        case(
            "6.5.2: an unknown setting",
            [frame(4, 0, 0, &[0, 0xff, 0, 0, 0, 1]), frame(1, 5, 1, GET)].concat(),
            Expect::Served(1),
        ),
        case("6.7: PING", ping.clone(), Expect::Pong),
        case("6.7: an answer that nobody asked for", [frame(6, 1, 0, b"87654321"), ping].concat(), Expect::Pong),
        case("6.10: a head in parts", parts, Expect::Served(1)),
        case("8.1: the same host twice", get(&[field(b"host", b"t")]), Expect::Served(1)),
        case("8.1: the same host in capitals", get(&[field(b"host", b"T")]), Expect::Served(1)),
        case("8.2.2: TE: trailers", get(&[field(b"te", b"trailers")]), Expect::Served(1)),
        case("8.2.3: cookies in parts", get(&[field(b"cookie", b"a=b"), field(b"cookie", b"c=d")]), Expect::Served(1)),
        case("HPACK: a table's size first", frame(1, 5, 1, &[b"\x20", GET].concat()), Expect::Served(1)),
        case("HPACK: never indexed", get(&[b"\x10\x01x\x01y".to_vec()]), Expect::Served(1)),
    ]
}
