//! What is served: the status, and whether the next request on the connection is answered, too.

use super::{Row, row};

/// One row and its connection's fate.
pub struct Served {
    pub row: Row,
    /// The next request is answered.
    pub kept: bool,
    /// A HEAD.
    pub bodiless: bool,
}

fn kept(name: &str, bytes: &str, status: u16) -> Served {
    Served { row: row(name, bytes, status), kept: true, bodiless: bytes.starts_with("HEAD") }
}

fn closed(name: &str, bytes: &str, status: u16) -> Served {
    Served { kept: false, ..kept(name, bytes, status) }
}

pub fn rows() -> Vec<Served> {
    let mut rows = plain();
    rows.extend(framed());
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "PURGE", "M-SEARCH"] {
        let status = match method {
            "GET" | "HEAD" => 200,
            "OPTIONS" => 204,
            _ => 405,
        };
        rows.push(kept(method, &format!("{method} /healthz HTTP/1.1\r\nHost: t\r\n\r\n"), status));
        rows.push(kept(method, &format!("{method} /nowhere HTTP/1.1\r\nHost: t\r\n\r\n"), 404));
    }
    for target in [
        "//healthz",
        "/healthz/",
        "/healthz;x",
        "/HEALTHZ",
        "/%68ealthz",
        "/healthz%00",
        "/a/../healthz",
        "/.refused",
        "/{healthz}",
        "/a|b^c",
    ] {
        rows.push(kept(target, &format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"), 404));
    }
    for target in
        ["/healthz", "/healthz?x=1", "/healthz?", "/healthz?a=b&c=%zz", "http://t/healthz", "HTTP://t/healthz"]
    {
        rows.push(kept(target, &format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"), 200));
    }
    rows
}

fn plain() -> Vec<Served> {
    vec![
        kept("an empty line before", "\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 200),
        kept("no space behind colons", "GET /healthz HTTP/1.1\r\nHost:t\r\nAccept:*/*\r\n\r\n", 200),
        kept("much space around values", "GET /healthz HTTP/1.1\r\nHost: \t t \t\r\nX: \t \r\n\r\n", 200),
        kept("an empty value", "GET /healthz HTTP/1.1\r\nHost: t\r\nX:\r\n\r\n", 200),
        kept("bytes above ASCII in a value", "GET /healthz HTTP/1.1\r\nHost: t\r\nX: \u{e9}\r\n\r\n", 200),
        kept("an IPv6 host", "GET /healthz HTTP/1.1\r\nHost: [::1]:7860\r\n\r\n", 200),
        kept("a port", "GET /healthz HTTP/1.1\r\nHost: t:80\r\n\r\n", 200),
        kept("HTTP/1.0, kept", "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
        closed("HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n", 200),
        closed("close", "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 200),
        closed("close, in a list", "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: x, Close\r\n\r\n", 200),
        kept(
            "an upgrade that is not made",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            200,
        ),
        kept(
            "h2c is not made",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
            200,
        ),
        kept("OPTIONS of everything", "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n", 204),
        kept("a range", "GET /healthz HTTP/1.1\r\nHost: t\r\nRange: bytes=0-1\r\n\r\n", 200),
        kept(
            "names that only look like framing",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\nX-Content-Length: 9\r\nContent-Length-: 9\r\n\r\n",
            200,
        ),
        kept(
            "Connection names what frames",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: Host, Content-Length, Transfer-Encoding\r\n\r\n",
            200,
        ),
        kept("an expectation that nobody knows", "GET /healthz HTTP/1.1\r\nHost: t\r\nExpect: miracles\r\n\r\n", 200),
        kept("a host with an empty port", "GET /healthz HTTP/1.1\r\nHost: t:\r\n\r\n", 200),
        kept("a port that says nothing", "GET http://t:80/healthz HTTP/1.1\r\nHost: t\r\n\r\n", 200),
        kept("the other way about", "GET https://t/healthz HTTP/1.1\r\nHost: T:443\r\n\r\n", 200),
        kept("a host with what else a name may hold", "GET /healthz HTTP/1.1\r\nHost: 0.0.0.0=5000\r\n\r\n", 200),
        kept("a host with an underscore", "GET /healthz HTTP/1.1\r\nHost: a_b.example\r\n\r\n", 200),
        kept("a method above all", "GET /healthz HTTP/1.1\r\nHost: t\r\nX-HTTP-Method-Override: DELETE\r\n\r\n", 200),
        kept(
            "another path above all",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nX-Original-URL: /api/chat\r\nX-Rewrite-URL: /x\r\n\r\n",
            200,
        ),
        kept(
            "another host above all",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nX-Forwarded-Host: evil\r\nForwarded: host=evil\r\n\r\n",
            200,
        ),
        kept("a TE", "GET /healthz HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: TE\r\n\r\n", 200),
        kept("100 fields", &format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: y\r\n".repeat(99)), 200),
        kept("a line of 8190", &format!("GET /healthz?{} HTTP/1.1\r\nHost: t\r\n\r\n", "q".repeat(8190 - 22)), 200),
        kept("a field of 8190", &format!("GET /healthz HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "v".repeat(8187)), 200),
    ]
}

fn framed() -> Vec<Served> {
    let post = |fields: &str, body: &str| {
        format!("POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
    };
    vec![
        kept("a length of 0", &post("Content-Length: 0\r\n", ""), 400),
        kept("no length at all", &post("", ""), 400),
        kept("zeros before a length", &post("Content-Length: 0002\r\n", "{}"), 400),
        kept("a length", &post("Content-Length: 2\r\n", "{}"), 400),
        kept("chunks", &post("Transfer-Encoding: chunked\r\n", "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), 400),
        kept("chunks, in capitals", &post("TRANSFER-ENCODING: Chunked\r\n", "02\r\n{}\r\n000\r\n\r\n"), 400),
        kept("an encoding between tabs", &post("Transfer-Encoding:\t chunked \t\r\n", "2\r\n{}\r\n0\r\n\r\n"), 400),
        kept("zeros before a chunk's size", &post("Transfer-Encoding: chunked\r\n", "0000002\r\n{}\r\n0\r\n\r\n"), 400),
        kept(
            "a chunk's size in capitals",
            &post("Transfer-Encoding: chunked\r\n", "A\r\n0123456789\r\n0\r\n\r\n"),
            400,
        ),
        kept(
            "an extension that quotes",
            &post("Transfer-Encoding: chunked\r\n", "2;a=\"0 ; b\"\r\n{}\r\n0\r\n\r\n"),
            400,
        ),
        kept(
            "extensions with spaces and escapes",
            &post("Transfer-Encoding: chunked\r\n", "2; a = \"\\\"\" ;b\r\n{}\r\n0\r\n\r\n"),
            400,
        ),
        kept(
            "extensions with spaces before their semicolon",
            &post("Transfer-Encoding: chunked\r\n", "2 ;a\r\n{}\r\n0\t ; b=c\r\n\r\n"),
            400,
        ),
        kept("a chunk extension", &post("Transfer-Encoding: chunked\r\n", "2;a=\"b\"\r\n{}\r\n0;x\r\n\r\n"), 400),
        kept("a trailer", &post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n"), 400),
        kept("NaN", &post("Content-Length: 15\r\n", "{\"message\":NaN}"), 400),
        kept("a lone surrogate", &post("Content-Length: 20\r\n", "{\"message\":\"\\ud800\"}"), 400),
        kept(
            "a request in a body",
            &post(&format!("Content-Length: {}\r\n", super::NEXT.len()), &String::from_utf8_lossy(super::NEXT)),
            400,
        ),
        kept(
            "another media type",
            "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
            415,
        ),
        kept("no media type", "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}", 415),
        kept("the body of a GET", "GET /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc", 200),
        kept(
            "the chunks of a GET",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            200,
        ),
    ]
}
