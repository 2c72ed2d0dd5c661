//! Where two readers of one stream have come apart: shapes that the field knows by name, each of which this reader must not guess about.

use super::refused::{chunked, get, post};
use super::{Row, row};

pub fn rows() -> Vec<Row> {
    let mut rows = encodings();
    rows.extend(lengths());
    rows.extend(chunk_sizes());
    rows.extend(hidden_fields());
    rows.extend(targets());
    rows
}

/// TE.TE: a Transfer-Encoding that one reader sees and another does not.
fn encodings() -> Vec<Row> {
    let mut rows = Vec::new();
    for field in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: x\r\nTransfer-Encoding:\tchunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding\n: chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer-Encoding\u{0}: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        "Transfer Encoding: chunked",
        "Transfer-Encoding chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding:\u{c}chunked",
        "Transfer-Encoding:\u{a0}chunked",
        "Transfer-Encoding:\u{85}chunked",
        "Transfer-Encoding: chunked\u{0}",
        "Transfer-Encoding: \u{0}chunked",
        "Transfer-Encoding: chunked\u{7f}",
        "Transfer-Encoding:\n chunked",
        "Transfer-Encoding: \n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "X: y\n\nTransfer-Encoding: chunked",
        "X: y\r\rTransfer-Encoding: chunked",
        "X:y\rTransfer-Encoding: chunked",
        "\u{0}Transfer-Encoding: chunked",
        "\u{feff}Transfer-Encoding: chunked",
        ": chunked",
        ":Transfer-Encoding: chunked",
        "Transfer-Encoding:: chunked",
        "Transfer-Encoding: : chunked",
        "Transfer-Encoding: chunked, chunked, chunked",
        "Transfer-Encoding: chunked,,",
        "Transfer-Encoding: , chunked ,",
        "Transfer-Encoding: chunked ; q=0.5",
        "Transfer-Encoding: chunked;",
        "Transfer-Encoding: [chunked]",
        "Transfer-Encoding: (chunked)",
        "Transfer-Encoding: chunked\\r\\n",
        "Transfer-Encoding: %63hunked",
        "Transfer-Encoding: ch\u{fc}nked",
        "Transfer-Encoding: chunked HTTP/1.1",
        "Transfer-Encoding: trailers, chunked",
        "Transfer-Encoding: br, gzip",
        "Transfer-Encoding: cow",
        "Transfer-Encoding: identity, identity",
        "Transfer-Encoding: chunked-",
        "Transfer-Encoding: -chunked",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding: hunked",
    ] {
        let with_length = format!("Content-Length: 4\r\n{field}\r\n");
        rows.push(row(format!("alone: {field:?}"), post(&format!("{field}\r\n"), "0\r\n\r\n"), 400));
        rows.push(row(format!("with a length: {field:?}"), post(&with_length, "0\r\n\r\n"), 400));
        // A GET carries no body, so a reader may think that nothing frames it.
        rows.push(row(format!("in a GET: {field:?}"), get(&format!("Host: t\r\n{field}\r\n")), 400));
    }
    for value in ["chunked", "Chunked", "CHUNKED", "\tchunked", "chunked\t", "identity", "x"] {
        for fields in [
            format!("Content-Length: 4\r\nTransfer-Encoding: {value}\r\n"),
            format!("Transfer-Encoding: {value}\r\nContent-Length: 4\r\n"),
            format!("Content-Length: 0\r\nTransfer-Encoding: {value}\r\n"),
        ] {
            rows.push(row(format!("CL.TE, {fields:?}"), post(&fields, "0\r\n\r\n"), 400));
        }
        let old = post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
        rows.push(row(format!("HTTP/1.0 with {value:?}"), old, 400));
    }
    rows
}

/// CL.CL, CL.0 and lengths that are read in more than one way.
fn lengths() -> Vec<Row> {
    let mut rows = Vec::new();
    for (first, second) in
        [("2", "3"), ("3", "2"), ("2", "2"), ("0", "2"), ("2", "0"), ("0", "0"), ("2", ""), ("", "2"), ("2", "x")]
    {
        let fields = format!("Content-Length: {first}\r\nX: y\r\nContent-length: {second}\r\n");
        rows.push(row(format!("lengths {first:?} and {second:?}"), post(&fields, "{}"), 400));
        rows.push(row(
            format!("the list \"{first},{second}\""),
            post(&format!("Content-Length: {first},{second}\r\n"), "{}"),
            400,
        ));
        rows.push(row(
            format!("the list \"{first}, {second}\""),
            post(&format!("Content-Length: {first}, {second}\r\n"), "{}"),
            400,
        ));
    }
    for value in [
        "2\u{0}", "\u{0}2", "2\u{b}", "\u{b}2", "2\u{c}", "2\u{a0}", "2\u{85}", "2\u{7f}", "+2", "-2", "0x2", "0b10",
        "0o2", "2e0", "2.", ".2", "2_", "_2", "2,", ",2", "2;", "2 2", "2\t2", "'2'", "(2)", "\u{ff12}", "two",
        "2 bytes", "2\\r\\n", "%32",
    ] {
        rows.push(row(format!("the length {value:?}"), post(&format!("Content-Length: {value}\r\n"), "{}"), 400));
    }
    for name in [
        "Content-Length\t",
        "Content-Length ",
        "Content-Length\u{b}",
        "Content-Length\u{0}",
        " Content-Length",
        "\tContent-Length",
        "Content Length",
    ] {
        rows.push(row(format!("the name {name:?}"), post(&format!("{name}: 2\r\n"), "{}"), 400));
    }
    rows
}

/// Chunk sizes, extensions and line ends, of which some readers take more than the grammar has.
fn chunk_sizes() -> Vec<Row> {
    [
        "2_\r\n{}\r\n0\r\n\r\n",
        "0_2\r\n{}\r\n0\r\n\r\n",
        "0X2\r\n{}\r\n0\r\n\r\n",
        "\\x02\r\n{}\r\n0\r\n\r\n",
        "2.0\r\n{}\r\n0\r\n\r\n",
        "2,\r\n{}\r\n0\r\n\r\n",
        "2\u{0}\r\n{}\r\n0\r\n\r\n",
        "2\u{b}\r\n{}\r\n0\r\n\r\n",
        "2\u{a0}\r\n{}\r\n0\r\n\r\n",
        "\t2\r\n{}\r\n0\r\n\r\n",
        "\r\n2\r\n{}\r\n0\r\n\r\n",
        "2\r\r\n{}\r\n0\r\n\r\n",
        "2\n\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r0\r\n\r\n",
        "2\r\n{}\n\r\n0\r\n\r\n",
        "2\r\n{}XX0\r\n\r\n",
        "2\r\n{}\r\n0\r\n\rX",
        "2\r\n{}\r\n0\r\n\nX",
        "2\r\n{}\r\n0\n\r\n",
        "2\r\n{}\r\n-0\r\n\r\n",
        "2\r\n{}\r\n+0\r\n\r\n",
        "2\r\n{}\r\n 0\r\n\r\n",
        "2\r\n{}\r\n0x0\r\n\r\n",
        "2\r\n{}\r\n0 \r\n\r\n",
        "2;a=\u{0}\r\n{}\r\n0\r\n\r\n",
        "2;a=b\nX: y\r\n{}\r\n0\r\n\r\n",
        "2;\r\r\n{}\r\n0\r\n\r\n",
        "2;\r\n{}\r\n0\r\n\r\n",
        "2;;\r\n{}\r\n0\r\n\r\n",
        "2;a=\r\n{}\r\n0\r\n\r\n",
        "2;a b\r\n{}\r\n0\r\n\r\n",
        "2;a=\"b\r\n{}\r\n0\r\n\r\n",
        "2;a=\"b\\\"\r\n{}\r\n0\r\n\r\n",
        "2;a=\"b\"c\r\n{}\r\n0\r\n\r\n",
        "2 a\r\n{}\r\n0\r\n\r\n",
        "2 \t\r\n{}\r\n0\r\n\r\n",
        "2 0\r\n{}\r\n0\r\n\r\n",
        "2 ;\r\n{}\r\n0\r\n\r\n",
        "2\r\r;a\r\n{}\r\n0\r\n\r\n",
        "2;a=b\r\rX\r\n0\r\n\r\n",
        "2;a=\"\r\n\"\r\n{}\r\n0\r\n\r\n",
        "2;[0]\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0;\r\n\r\n",
        "2;a=\"b\r\n{}\"\n\r\n0\r\n\r\n",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "100000000000000000000000000000002\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "2\r\n{}\r\n0\r\nGET /x HTTP/1.1\r\nHost: t\r\n\r\n",
        "2\r\n{}\r\n0\r\nX\u{0}: y\r\n\r\n",
        "2\r\n{}\r\n0\r\nX: y\u{0}\r\n\r\n",
        "2\r\n{}\r\n0\r\n: y\r\n\r\n",
        "2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n",
    ]
    .iter()
    .map(|body| row(format!("chunks {body:?}"), chunked(body), 400))
    .collect()
}

/// Fields that stand where one reader sees a name and another does not; HTTP/2's own among them.
fn hidden_fields() -> Vec<Row> {
    [
        ":method: POST",
        ":path: /api/chat",
        ":authority: evil",
        ":scheme: https",
        "Host: t\r\n\tevil",
        "X: y\r\n\r: z",
        "X\r\nY: z",
        "X: y\r\n\u{0}: z",
        "X: \u{0}",
        "X: y\u{0}\r\nZ: y",
        "X: \u{1b}[31m",
        "X: a\u{8}b",
        "X: y\r Z: y",
        "X;: y",
        "X y: z",
        "\"X\": y",
        "X=y",
        "GET / HTTP/1.1",
        "Content-Type: a\r\n; charset=b",
        "\u{1}: y",
        "X[]: y",
        "X{}: y",
        "X@: y",
        "X/Y: z",
        "X,Y: z",
        "X(Y): z",
    ]
    .iter()
    .map(|field| row(format!("the field {field:?}"), get(&format!("Host: t\r\n{field}\r\n")), 400))
    .collect()
}

/// Targets and hosts of which one reader takes this and another that.
fn targets() -> Vec<Row> {
    let mut rows = Vec::new();
    for (target, host) in [
        ("http://evil/healthz", "t"),
        ("http://t:1/healthz", "t:2"),
        ("http://t@evil/healthz", "t"),
        ("http://t:80@evil/healthz", "t"),
        ("http://evil#@t/healthz", "t"),
        ("http://t\\@evil/healthz", "t"),
        ("http://t,evil/healthz", "t"),
        ("http://t /healthz", "t"),
        ("http://t%00/healthz", "t"),
        ("http:\\\\t\\healthz", "t"),
        ("http:///t/healthz", "t"),
        ("//t@evil/\u{0}", "t"),
        ("t", "t"),
        ("@t/healthz", "t"),
        ("localhost:80/healthz", "t"),
        ("\u{0}/healthz", "t"),
        ("/healthz\u{0}", "t"),
        ("/healthz\u{b}", "t"),
        ("/healthz\tHTTP/1.1", "t"),
        ("/healthz#", "t"),
    ] {
        rows.push(row(
            format!("{target:?} at {host:?}"),
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
        ));
    }
    for hosts in [
        "Host: t\r\nhost: t",
        "Host: t\r\nHOST: evil",
        "Host: evil\r\nX: y\r\nHost: t",
        "Host : t",
        "Host\t: t",
        "Host\u{0}: t",
        " Host: t",
        "Host: t, evil",
        "Host: t evil",
        "Host: t\tevil",
        "Host: t;evil",
        "Host: t@evil",
        "Host: t:80:80",
        "Host: t:+80",
        "Host: t:0x50",
        "Host: t:65536",
        "Host: t\u{0}",
        "Host: t\u{0}evil",
        "Host: t/../evil",
        "Host: t?evil",
        "Host: t#evil",
        "Host: t%",
        "Host: [::1",
        "Host: [::1]evil",
        "Host: [::1]:x",
        "Host: [::1%25eth0]",
        "Host: ::1",
        "Host: \"t\"",
        "Host: (t)",
        "Host: t\\evil",
        "Host: http://t",
    ] {
        rows.push(row(format!("{hosts:?}"), get(&format!("{hosts}\r\n")), 400));
    }
    for line in [
        "GET /",
        "GET /healthz",
        "GET /healthz\r\nHost: t",
        "GET /healthz HTTP",
        "GET /healthz HTTP/",
        "get",
        "\u{0}GET / HTTP/1.1",
        "GET\u{0} / HTTP/1.1",
        "GET \t/ HTTP/1.1",
        "GET\u{b}/ HTTP/1.1",
        "GET\u{a0}/ HTTP/1.1",
        "{GET} / HTTP/1.1",
        "\"GET\" / HTTP/1.1",
        "G=T / HTTP/1.1",
        "GET,POST / HTTP/1.1",
    ] {
        rows.push(row(format!("the line {line:?}"), format!("{line}\r\nHost: t\r\n\r\n"), 400));
    }
    rows
}
