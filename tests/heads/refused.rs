//! What is refused, with the advisories' own bytes. Generated rows name the byte that was put in.

use super::{Row, desync, row};

pub fn rows() -> Vec<Row> {
    let mut rows = advisories();
    rows.extend(framing());
    rows.extend(lines());
    rows.extend(hosts());
    rows.extend(oversize());
    rows.extend(control_bytes());
    rows.extend(name_bytes());
    rows.extend(encodings());
    rows.extend(lengths());
    rows.extend(chunks());
    rows.extend(desync::rows());
    rows
}

pub fn post(fields: &str, rest: &str) -> String {
    format!("POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{fields}\r\n{rest}")
}

pub fn chunked(rest: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", rest)
}

pub fn get(fields: &str) -> String {
    format!("GET /healthz HTTP/1.1\r\n{fields}\r\n")
}

/// Of gunicorn and hyper.
fn advisories() -> Vec<Row> {
    vec![
        row("CVE-2018-1000164", get("Host: t\r\nX: a\r\n\rSet-Cookie: b\r\n"), 400),
        row("CVE-2024-1135", post("Transfer-Encoding: chunked,gzip\r\nContent-Length: 6\r\n", "0\r\n\r\nG"), 400),
        row(
            "CVE-2024-1135, two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\nG"),
            400,
        ),
        row("CVE-2024-6827", post("Transfer-Encoding: chunked2\r\nContent-Length: 6\r\n", "0\r\n\r\nG"), 400),
        row("CVE-2024-6827, tab", post("Transfer-Encoding:\tgzip\tchunked\r\n", "0\r\n\r\n"), 400),
        row("CVE-2021-21299", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", "0\r\n\r\n"), 400),
        row(
            "CVE-2021-21299, first",
            post("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
        ),
        row("CVE-2021-32715", post("Content-Length: +3\r\n", "abc"), 400),
        row("CVE-2021-32714", chunked("f0000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
        row(
            "CVE-2020-35863",
            "GET /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
    ]
}

fn framing() -> Vec<Row> {
    vec![
        row("length, then encoding", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        row("encoding, then length", post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "0\r\n\r\n"), 400),
        row("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), 400),
        row("two equal lengths", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400),
        row(
            "encoding in HTTP/1.0",
            "POST /api/chat HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        row("an encoding with a space before its colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400),
        row("a length with a space before its colon", post("Content-Length : 2\r\n", "{}"), 400),
        row("an encoding on two lines", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400),
        row("a length on two lines", post("Content-Length:\r\n 2\r\n", "{}"), 400),
        row("an encoding behind a bare CR", post("X: y\rTransfer-Encoding: chunked\r\n", ""), 400),
        row("a HEAD without a host", "HEAD /healthz HTTP/1.1\r\n\r\n", 400),
        row("a HEAD behind an empty line", "\r\nHEAD * HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        row(
            "a HEAD with length and encoding",
            "HEAD / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        row("an encoding behind a bare LF", post("X: y\nTransfer-Encoding: chunked\r\n", ""), 400),
    ]
}

fn lines() -> Vec<Row> {
    let mut rows = vec![
        row("bare LF", "GET /healthz HTTP/1.1\nHost: t\n\n", 400),
        row("bare LF at the end", "GET /healthz HTTP/1.1\r\nHost: t\r\n\n", 400),
        row("bare LF in the middle", "GET /healthz HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", 400),
        row("bare LF first", "\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        row("bare CR", "GET /healthz HTTP/1.1\rHost: t\r\r", 400),
        row("CR CR LF", get("Host: t\r\r\n"), 400),
        row("bare CR in a value", get("Host: t\r\nX: a\rb\r\n"), 400),
        row("two empty lines first", "\r\n\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        row("folded", get("Host: t\r\nX: a\r\n b\r\n"), 400),
        row("folded by a tab", get("Host: t\r\nX: a\r\n\tb\r\n"), 400),
        row("a folded host", get("Host:\r\n t\r\n"), 400),
        row("an empty folded line", get("Host: t\r\n \r\n"), 400),
        row("space before the first field", get(" Host: t\r\n"), 400),
        row("tab before the first field", get("\tHost: t\r\n"), 400),
        row("no colon", get("Host: t\r\nX\r\n"), 400),
        row("no name", get("Host: t\r\n: y\r\n"), 400),
        row("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        row("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        row("SOCKS", b"\x05\x01\x00", 400),
        row("SSH", "SSH-2.0-OpenSSH_9.2\r\n", 400),
        row("SMTP", "EHLO t\r\n", 400),
        row("PROXY", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    ];
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"] {
        rows.push(row(version, format!("GET /healthz {version}\r\nHost: t\r\n\r\n"), 505));
    }
    for version in [
        "",
        "HTTP",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.1x",
        "http/1.1",
        "Http/1.1",
        "HTTP/1,1",
        "HTTP /1.1",
        "HTTPS/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 x",
        "HTTP/+1.1",
        "HTTP/a.b",
        "ICY/1.0",
    ] {
        rows.push(row(format!("version {version:?}"), format!("GET /healthz {version}\r\nHost: t\r\n\r\n"), 400));
    }
    for line in [
        "",
        " ",
        "GET",
        "GET /",
        "GET  /",
        "GET / ",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "G(T / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "/ HTTP/1.1",
        "GET: / HTTP/1.1",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1",
    ] {
        // An empty first line is taken, a second one is not.
        rows.push(row(format!("line {line:?}"), format!("{line}\r\n\r\n\r\n"), 400));
    }
    for target in [
        "healthz",
        "",
        "*",
        "../x",
        "?x",
        "http:",
        "http:/",
        "http:///x",
        "http://",
        "https://u@t/",
        "ftp://t/",
        "file:///etc/passwd",
        "javascript:1",
        "/a#b",
        "/a\\b",
        "/\"",
        "/<x>",
        "/`",
        "/\u{e9}",
        "t:80",
        "//t\u{0}",
    ] {
        rows.push(row(format!("target {target:?}"), format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"), 400));
    }
    for target in ["t", "/", "*", "http://t/", "t:", "t:99999", ":80", "u@t:80", "t:80/x"] {
        rows.push(row(format!("CONNECT {target}"), format!("CONNECT {target} HTTP/1.1\r\nHost: t\r\n\r\n"), 400));
    }
    rows
}

fn hosts() -> Vec<Row> {
    let mut rows = vec![
        row("no host", get(""), 400),
        row("no host among fields", get("Accept: */*\r\nX-Host: t\r\n"), 400),
        row("two hosts", get("Host: a\r\nHost: b\r\n"), 400),
        row("two equal hosts", get("Host: t\r\nHost: t\r\n"), 400),
        row("two hosts in other letters", get("Host: t\r\nX: y\r\nhOsT: t\r\n"), 400),
        row("two hosts in HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: t\r\nHost: t\r\n\r\n", 400),
        row("another host than the target's", "GET http://a/healthz HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        row("another port than the target's", "GET http://a:1/healthz HTTP/1.1\r\nHost: a:2\r\n\r\n", 400),
    ];
    for host in [
        "",
        " ",
        "a b",
        "a,b",
        "a/b",
        "u@a",
        "a:b",
        "a:99999",
        "a:-1",
        "a:1:2",
        ":80",
        "[::1",
        "::1",
        "[::1]x",
        "[g::]",
        "[]",
        "a\\b",
        "a#b",
        "a?b",
        "http://a",
        "\u{e9}",
        "a\"",
        "<a>",
        "[1.2.3.4]",
        "a:1 b",
    ] {
        rows.push(row(format!("host {host:?}"), get(&format!("Host: {host}\r\n")), 400));
    }
    rows
}

fn oversize() -> Vec<Row> {
    let field = |bytes: usize| format!("X: {}\r\n", "v".repeat(bytes - 3));
    vec![
        row("a line of 8191", format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "q".repeat(8191 - 14)), 414),
        row("a line without an end", "A".repeat(8191), 414),
        row("a line of 60 KiB", format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "q".repeat(60 << 10)), 414),
        row("a field of 8191", get(&format!("Host: t\r\n{}", field(8191))), 431),
        row("a field without an end", format!("GET /healthz HTTP/1.1\r\nHost: t\r\nX: {}", "v".repeat(8191)), 431),
        row("a name of 8191", get(&format!("Host: t\r\n{}: y\r\n", "n".repeat(8191))), 431),
        row("101 fields", get(&format!("Host: t\r\n{}", "X: y\r\n".repeat(100))), 431),
        row("10,000 fields", get(&format!("Host: t\r\n{}", "X: y\r\n".repeat(10_000))), 431),
        row("a head of 80 KiB", get(&format!("Host: t\r\n{}", field(8190).repeat(10))), 431),
        row("many trailers", chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(40))), 431),
        row("long trailers", chunked(&format!("0\r\n{}\r\n", field(8190).repeat(3))), 431),
        row("a body of 2^60", post("Content-Length: 1152921504606846976\r\n", ""), 413),
        row("a body of 2^64", post("Content-Length: 18446744073709551616\r\n", ""), 413),
        row("a body of 10^40", post(&format!("Content-Length: 1{}\r\n", "0".repeat(40)), ""), 413),
        row("a body of 1 MiB and 1", post("Content-Length: 1048577\r\n", ""), 413),
        row("chunks of 1 MiB and 1", chunked(&format!("100001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x100001))), 413),
        row("a chunk of 2^59", chunked(&format!("800000000000000\r\n{}", "x".repeat(0x110000))), 413),
    ]
}

/// Every byte below the space but tab, and DEL, wherever one may hide in a head.
fn control_bytes() -> Vec<Row> {
    let bytes = (0..32).chain([127]).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r'));
    let put = |before: &str, byte: u8, behind: &str| [before.as_bytes(), &[byte], behind.as_bytes()].concat();
    let places = [
        ("in a value", "GET /healthz HTTP/1.1\r\nHost: t\r\nX: a", "b\r\n\r\n"),
        ("in a name", "GET /healthz HTTP/1.1\r\nHost: t\r\nX", "Y: b\r\n\r\n"),
        ("in the target", "GET /healthz", "x HTTP/1.1\r\nHost: t\r\n\r\n"),
        ("before the method", "", "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"),
        ("behind the version", "GET /healthz HTTP/1.1", "\r\nHost: t\r\n\r\n"),
        ("in a length", "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Length: 2", "\r\n\r\n{}"),
        ("before an encoding", "POST /api/chat HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: ", "chunked\r\n\r\n0\r\n\r\n"),
    ];
    bytes
        .flat_map(|byte| {
            places.map(|(place, before, behind)| row(format!("{byte:#04x} {place}"), put(before, byte, behind), 400))
        })
        .collect()
}

/// What no name may hold, above all in the names that frame.
fn name_bytes() -> Vec<Row> {
    let bad = [
        " ", "\t", "(", ")", ",", "/", ";", "<", "=", ">", "?", "@", "[", "\\", "]", "{", "}", "\"", "\u{e9}",
        "\u{a0}", "\u{feff}",
    ];
    bad.iter()
        .flat_map(|text| {
            [
                row(format!("{text:?} in a name"), get(&format!("Host: t\r\nX{text}Y: b\r\n")), 400),
                row(
                    format!("{text:?} behind the length's name"),
                    post(&format!("Content-Length{text}: 2\r\n"), "{}"),
                    400,
                ),
                row(
                    format!("{text:?} before the encoding's name"),
                    post(&format!("{text}Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"),
                    400,
                ),
            ]
        })
        .collect()
}

fn encodings() -> Vec<Row> {
    let values = [
        "",
        " ",
        "identity",
        "identity, chunked",
        "chunked, identity",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunked chunked",
        "gzip",
        "gzip, chunked",
        "deflate",
        "compress, chunked",
        "x chunked",
        "chun ked",
        "chunked\u{e9}",
        "\u{212a}",
        "chunked\\",
        "chunked\u{0b}",
        "null",
        "0",
    ];
    values
        .iter()
        .map(|value| {
            row(format!("encoding {value:?}"), post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n"), 400)
        })
        .collect()
}

fn lengths() -> Vec<Row> {
    let values = [
        "",
        " ",
        "+3",
        "-1",
        "-0",
        "3.0",
        "3,3",
        "3, 3",
        "3 3",
        "0x3",
        "3e0",
        "3;",
        "\"3\"",
        "a",
        "3a",
        "a3",
        "\u{663}",
        "1_0",
        "3\u{a0}",
        "00000000000000000000003",
        "NaN",
        "infinity",
        "--3",
        "3-",
        "${3}",
    ];
    values
        .iter()
        .map(|value| row(format!("length {value:?}"), post(&format!("Content-Length: {value}\r\n"), "abc"), 400))
        .collect()
}

fn chunks() -> Vec<Row> {
    let bodies = [
        "\r\n",
        " 2\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2h\r\n{}\r\n",
        "g\r\n",
        ";x\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "1\r\n{}\r\n0\r\n\r\n",
        "3\r\n{}\r\n0\r\n\r\n",
        "2;\n\r\n{}\r\n",
        "2;a\nb\r\n{}\r\n0\r\n\r\n",
        "2;a\rb\r\n{}\r\n0\r\n\r\n",
        "2;\u{0}\r\n{}\r\n",
        "0\r\n\n",
        "0\r\n\r\r\n",
        "0\n\n",
        "0000000000000000\r\n\r\n",
        "fffffffffffffffff\r\n",
        "8000000000000000\r\n",
        "2\r\n{}\r\n0\r\nX : y\r\n\r\n",
        "2\r\n{}\r\n0\r\nX\r\n\r\n",
        "2\r\n{}\r\n0\r\n folded\r\n\r\n",
        "2\r\n{}\r\n0\r\nX: a\nb\r\n\r\n",
        "2\r\n{}\r\n\r\n",
    ];
    let mut rows: Vec<Row> = bodies.iter().map(|body| row(format!("chunk {body:?}"), chunked(body), 400)).collect();
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "X-Api-Key",
        "Cookie",
        "X-Forwarded-For",
        "Forwarded",
        "Connection",
        "Content-Type",
        "TE",
        "Trailer",
        "Upgrade",
    ] {
        rows.push(row(format!("trailer {name}"), chunked(&format!("2\r\n{{}}\r\n0\r\n{name}: 1\r\n\r\n")), 400));
    }
    rows.push(row("a long extension", chunked(&format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(300))), 400));
    rows.push(row(
        "many extensions",
        chunked(&format!("{}0\r\n\r\n", format!("1;{}\r\n \r\n", "x".repeat(250)).repeat(20))),
        400,
    ));
    rows
}
