//! The scanner as a whole: streams, cuts, and the bytes of published holes.

use super::*;
use proptest::prelude::*;

/// What a stream is, piece by piece: heads with their bodies, then the refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    requests: Vec<(Vec<u8>, Vec<u8>)>,
    passed: usize,
    refusal: Option<Refusal>,
    place: Option<Place>,
}

/// Presents `stream` as if the socket gave it in parts that end at `cuts` (ascending) and at its end.
fn read(stream: &[u8], cuts: &[usize]) -> Read {
    let (mut scanner, mut read) = (Scanner::new(Limits::default()), Read::default());
    for end in cuts.iter().copied().chain([stream.len()]) {
        while read.refusal.is_none() {
            let bytes = &stream[read.passed..end];
            let taken = match scanner.step(bytes) {
                Step::More => break,
                Step::Head(taken) => {
                    read.requests.push((bytes[..taken].to_vec(), Vec::new()));
                    taken
                }
                Step::Data(taken) => {
                    read.requests.last_mut().unwrap().1.extend_from_slice(&bytes[..taken]);
                    taken
                }
                Step::Framing(taken) => taken,
                Step::Refused(refusal) => {
                    read.refusal = Some(refusal);
                    0
                }
            };
            read.passed += taken;
        }
    }
    assert_eq!(scanner.requests() as usize, read.requests.len());
    read.place = Some(scanner.place());
    read
}

/// Every way to cut it in two, and one byte at a time, gives what the whole gives.
fn read_in_every_way(stream: &[u8]) -> Read {
    let whole = read(stream, &[]);
    for cut in 0..=stream.len() {
        assert_eq!(read(stream, &[cut]), whole, "cut at {cut} of {:?}", String::from_utf8_lossy(stream));
    }
    let singly: Vec<_> = (0..stream.len()).collect();
    assert_eq!(read(stream, &singly), whole);
    whole
}

#[test]
fn a_pipeline_is_read_to_its_end() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n\
        POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n\
        GET / HTTP/1.0\r\n\r\n\
        POST /d HTTP/1.1\r\nHost:\ta\r\nContent-Length: 0\r\n\r\n\
        \r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let read = read_in_every_way(stream);
    assert_eq!((read.requests.len(), read.passed, read.refusal), (6, stream.len(), None));
    assert_eq!(read.place, Some(Place::Between));
    let bodies: Vec<_> = read.requests.iter().map(|request| request.1.as_slice()).collect();
    assert_eq!(bodies, [&b""[..], b"abc", b"abc", b"", b"", b""]);
}

#[test]
fn heads_that_are_refused() {
    use Refusal::*;
    for (head, reason) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\nContent-Length: 3\r\n\r\n", LengthAndEncoding),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", EncodingInOldVersion),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", LengthAndEncoding),
        ("GET / HTTP/1.1\r\n\r\n", HostMissing),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", HostRepeated),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", HostDiffers),
        ("GET / HTTP/1.1\nHost: a\n\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BareLineEnd),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", BareLineEnd),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineEnd),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", ControlByte),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", ControlByte),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", ControlByte),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", ControlByte),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", ControlByte),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", ControlByte),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", ControlByte),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", LeadingSpace),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", FoldedField),
        ("GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", FoldedField),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", FieldName),
        ("GET /\r\n", RequestLine),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Version),
        ("G T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
    ] {
        let stream = format!("{head}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let read = read_in_every_way(stream.as_bytes());
        assert_eq!((read.requests.len(), read.passed, read.refusal), (0, 0, Some(reason)), "{head:?}");
        assert_eq!(read.place, Some(Place::RefusedHead));

        let after = format!("GET /good HTTP/1.1\r\nHost: a\r\n\r\n{stream}");
        let read = read_in_every_way(after.as_bytes());
        assert_eq!((read.requests.len(), read.passed, read.refusal), (1, 31, Some(reason)), "{head:?}");
    }
}

/// The published holes that meet a server of HTTP/1, as bytes (rapid reset and its kin belong to HTTP/2): a name, what is
/// sent, requests before the refusal, and the refusal.
const PUBLISHED: &[(&str, &str, usize, Refusal)] = &[
    (
        "CVE-2018-1000164: CR LF in a header",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\rSet-Cookie: c\r\n\r\n",
        0,
        Refusal::BareLineEnd,
    ),
    (
        "CVE-2024-1135: TE that is not chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,gzip\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        0,
        Refusal::Encoding,
    ),
    (
        "CVE-2024-6827: TE that is not checked",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked2\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        0,
        Refusal::Encoding,
    ),
    (
        "CVE-2024-6827: tab in TE",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tgzip\tchunked\r\n\r\n0\r\n\r\n",
        0,
        Refusal::Encoding,
    ),
    (
        "CVE-2021-21299: two TE",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
        0,
        Refusal::Encoding,
    ),
    (
        "CVE-2021-21299: TE then CL",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        0,
        Refusal::Encoding,
    ),
    (
        "CVE-2021-32715: CL with a plus",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        0,
        Refusal::LengthInvalid,
    ),
    (
        "CVE-2021-32714: chunk size that overflows",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf0000000000000003\r\nabc\r\n0\r\n\r\n",
        1,
        Refusal::ChunkSize,
    ),
    (
        "chunk size after which a bare LF hides an extension",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n4c\r\n0\r\n\r\n",
        1,
        Refusal::ChunkExtension,
    ),
    (
        "a trailer that frames",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        1,
        Refusal::TrailerForbidden,
    ),
    (
        "bare LF ends the body",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        1,
        Refusal::BareLineEnd,
    ),
];

#[test]
fn published_holes_are_refused() {
    for (name, bytes, requests, reason) in PUBLISHED {
        let read = read_in_every_way(bytes.as_bytes());
        assert_eq!((read.requests.len(), read.refusal), (*requests, Some(*reason)), "{name}");
        assert!(read.requests.iter().all(|request| request.1.is_empty()), "{name}");
    }
}

/// CVE-2020-35863: a GET may have a body, and what stands in it is no request.
#[test]
fn the_body_of_a_get_is_a_body() {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let counted = format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
    let chunked = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    for stream in [counted, chunked] {
        let read = read_in_every_way(stream.as_bytes());
        assert_eq!((read.requests.len(), read.passed, read.refusal), (1, stream.len(), None));
        assert_eq!(read.requests[0].1, inner.as_bytes());
    }
}

#[test]
fn limits_hold_at_their_byte() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n";
    let head = |line: usize, field: usize, fields: usize| {
        let mut head =
            format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "p".repeat(line - 14), "v".repeat(field - 3));
        (2..fields).for_each(|_| head.push_str("Y: z\r\n"));
        head + "\r\n"
    };
    for (head, reason) in [
        (head(8190, 8190, 100), None),
        (head(8191, 10, 2), Some(Refusal::LineTooLong)),
        (head(20, 8191, 2), Some(Refusal::FieldTooLong)),
        (head(20, 10, 101), Some(Refusal::FieldsTooMany)),
    ] {
        let whole = read(head.as_bytes(), &[]);
        assert_eq!((whole.refusal, whole.requests.len()), (reason, usize::from(reason.is_none())));
        assert_eq!(read(head.as_bytes(), &(0..head.len()).collect::<Vec<_>>()), whole);
    }
    let field = format!("X: {}\r\n", "v".repeat(8185));
    let full = format!("{good}{}X: {}\r\n\r\n", field.repeat(7), "v".repeat(65_536 - good.len() - 7 * field.len() - 7));
    assert_eq!(full.len(), 65_536);
    assert_eq!(read(full.as_bytes(), &[]).refusal, None);
    assert_eq!(read(full.replace("GET /", "GET /x").as_bytes(), &[]).refusal, Some(Refusal::HeadTooLarge));
    let endless = format!("{good}{}", field.repeat(9));
    assert_eq!(read(endless.as_bytes(), &[]).refusal, Some(Refusal::HeadTooLarge));
    assert_eq!(read("A".repeat(8191).as_bytes(), &[]).refusal, Some(Refusal::LineTooLong));
}

#[test]
fn trailers_are_bounded() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    let many = format!("{head}{}\r\n", "X: y\r\n".repeat(TRAILERS_MAX + 1));
    assert_eq!(read(many.as_bytes(), &[]).refusal, Some(Refusal::TrailersTooLarge));
    let long = format!("{head}X: {}", "v".repeat(TRAILERS_BYTES_MAX));
    assert_eq!(read(long.as_bytes(), &[]).refusal, Some(Refusal::TrailersTooLarge));
    let most = format!("{head}{}\r\n", "X: y\r\n".repeat(TRAILERS_MAX));
    assert_eq!(read(most.as_bytes(), &[]).refusal, None);
}

#[test]
fn a_refusal_from_outside_stays() {
    let mut scanner = Scanner::new(Limits::default());
    assert_eq!(scanner.step(b"GET"), Step::More);
    assert_eq!(scanner.place(), Place::Head);
    assert_eq!(scanner.refuse(Refusal::HeadTimeout), Step::Refused(Refusal::HeadTimeout));
    assert_eq!(scanner.refuse(Refusal::BodyTimeout), Step::Refused(Refusal::HeadTimeout));
    assert_eq!(
        scanner.scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Scan { pass: 0, refusal: Some(Refusal::HeadTimeout) }
    );
}

prop_compose! {
    fn a_request()(kind in 0u8..4, body in "[a-z\r\n]{0,40}", cut in 1usize..9) -> (String, String) {
        match kind {
            0 => ("GET /x?y=z HTTP/1.1\r\nHost: a.b:80\r\nAccept: */*\r\n\r\n".to_owned(), String::new()),
            1 => (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()), body),
            2 => {
                let chunks: String = body.as_bytes().chunks(cut)
                    .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part))).collect();
                (format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"), body)
            }
            _ => ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), String::new()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_pipeline_is_the_same_however_it_is_cut(requests in proptest::collection::vec(a_request(), 1..6), mut cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let stream: String = requests.iter().map(|request| request.0.as_str()).collect();
        let whole = read_in_every_way(stream.as_bytes());
        prop_assert_eq!((whole.refusal, whole.passed), (None, stream.len()));
        let bodies: Vec<_> = whole.requests.iter().map(|request| request.1.clone()).collect();
        prop_assert_eq!(bodies, requests.iter().map(|request| request.1.clone().into_bytes()).collect::<Vec<_>>());
        let mut ends: Vec<_> = cuts.drain(..).map(|cut| cut.index(stream.len())).collect();
        ends.sort_unstable();
        prop_assert_eq!(read(stream.as_bytes(), &ends), whole);
    }

    #[test]
    fn any_bytes_are_the_same_however_they_are_cut(parts in proptest::collection::vec(prop_oneof![
        Just(&b"GET / HTTP/1.1\r\n"[..]), Just(&b"Host: a\r\n"[..]), Just(&b"\r\n"[..]), Just(&b"\n"[..]), Just(&b"\r"[..]), Just(&b" "[..]),
        Just(&b"Content-Length: 2\r\n"[..]), Just(&b"Transfer-Encoding: chunked\r\n"[..]), Just(&b"2\r\nab\r\n"[..]), Just(&b"0\r\n"[..]),
        Just(&b"\x00"[..]), Just(&b"\xff"[..]), Just(&b"\t"[..]), Just(&b":"[..]), Just(&b"X: y\r\n"[..])], 0..16)) {
        read_in_every_way(&parts.concat());
    }
}
