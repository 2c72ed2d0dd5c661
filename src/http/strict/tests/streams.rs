//! Streams as nobody would write them: hyper and the filter agree on all of them.

use super::{GOOD, compare, declare};
use proptest::prelude::*;

fn a_request() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(GOOD.to_owned()),
        Just("GET http://a.b/x?y HTTP/1.1\r\nHost: a.b\r\n\r\n".to_owned()),
        Just("OPTIONS * HTTP/1.1\r\nhost: a\r\nConnection: keep-alive\r\n\r\n".to_owned()),
        Just("HEAD / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n".to_owned()),
        Just("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nGET / HTTP/\r\n".to_owned()),
        Just("POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n".to_owned() + GOOD),
        Just("POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
        Just("POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1F\r\n".to_owned() + GOOD + "\r\n0\r\n\r\n"),
        Just("PUT /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\r\n\r\n0\r\nX-Sum: 9\r\nY: z\r\n\r\n".to_owned()),
    ]
}

/// Bytes on which parsers of HTTP have disagreed.
fn a_part() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        "\r\n\r\n",
        "\n\n",
        "\n\r\n",
        "\r\r\n",
        " ",
        "\t",
        "\0",
        "\x0b",
        "\x0c",
        "\x7f",
        ":",
        ";",
        ",",
        "0",
        "1",
        "3",
        "a",
        "F",
        "+",
        "-",
        "x",
        "_",
        "\"",
        "0\r\n\r\n",
        "0\r\n",
        "3\r\nabc\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "content-length:3\r\n",
        "Content-Length : 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:chunked\r\n",
        "transfer-encoding:\tchunked \r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\n ,x\r\n",
        "Transfer-Encoding\0: chunked\r\n",
        "Host: b\r\n",
        "Connection: close\r\n",
        "Connection: Content-Length\r\n",
        "Expect: 100-continue\r\n",
        "HTTP/1.0",
        "HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        ";a=b",
        ";\"\r\n\"",
        "ffffffffffffffff",
        "10000000000000000",
        "00000000000000003",
        "GET ",
        "POST ",
        "\u{e9}",
    ])
}

fn mutate(mut stream: Vec<u8>, changes: &[(prop::sample::Index, u8, &str)]) -> Vec<u8> {
    for (place, kind, part) in changes {
        if stream.is_empty() {
            break;
        }
        let at = place.index(stream.len());
        match kind {
            0 => drop(stream.splice(at..at, part.bytes())),
            1 => drop(stream.splice(at..=at, part.bytes())),
            2 => drop(stream.remove(at)),
            3 => drop(stream.splice(at..(at + part.len()).min(stream.len()), part.bytes())),
            // A line's end, or half of it.
            5 | 6 => {
                let found =
                    stream[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')).map_or(at, |found| at + found);
                let put = if *kind == 5 { part } else { "" };
                drop(stream.splice(found..=found, put.bytes()));
            }
            // At a line's start, where a field or a chunk may stand.
            _ => {
                let start = stream[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |found| found + 1);
                drop(stream.splice(start..start, part.bytes()));
            }
        }
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn hyper_and_the_filter_agree_on_good_streams(requests in proptest::collection::vec(a_request(), 1..5), cut in any::<prop::sample::Index>()) {
        let stream = requests.concat();
        let (declared, refusal, _) = declare(stream.as_bytes());
        prop_assert_eq!((declared.len(), refusal), (requests.len(), None));
        compare(stream.as_bytes(), &[cut.index(stream.len())]);
    }

    #[test]
    fn hyper_and_the_filter_agree_on_hostile_streams(
        requests in proptest::collection::vec(a_request(), 1..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8, a_part()), 1..4),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let stream = mutate(requests.concat().into_bytes(), &changes);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len().max(1))).collect();
        cuts.sort_unstable();
        compare(&stream, &cuts);
    }
}

/// Quick in the ordinary run; `PROPTEST_CASES=1000000` is the long one.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}
