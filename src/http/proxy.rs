//! The PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): who the client behind a balancer is. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Version 1 is one line of at most so many bytes, with its CR LF.
const LINE_BYTES_MAX: usize = 107;
/// Version 2's addresses and what follows them (a certificate's names, the host asked for, an id): nginx reads 4096 bytes, too.
const REST_BYTES_MAX: usize = HEADER_BYTES_MAX - 16;
/// The longest header.
pub const HEADER_BYTES_MAX: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The header is not whole.
    More,
    /// A header of so many bytes; `None`: the balancer speaks for itself, or does not say.
    Header(usize, Option<IpAddr>),
    /// No header.
    Bad,
}

/// Reads the header at the front of `bytes`.
pub fn parse(bytes: &[u8]) -> Found {
    let is = |start: &[u8]| bytes.iter().zip(start).all(|(a, b)| a == b);
    match bytes.len() {
        12.. if is(SIGNATURE) => second(bytes),
        ..12 if is(SIGNATURE) => Found::More,
        6.. if is(b"PROXY ") => first(bytes),
        ..6 if is(b"PROXY ") => Found::More,
        _ => Found::Bad,
    }
}

fn first(bytes: &[u8]) -> Found {
    let head = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= LINE_BYTES_MAX { Found::Bad } else { Found::More };
    };
    let Ok(line) = std::str::from_utf8(&head[..end]) else { return Found::Bad };
    let words: Vec<&str> = line.split(' ').collect();
    // No sign, and no zero in front that could be taken for octal.
    let port = |text: &str| {
        (text == "0" || text.starts_with(|first| matches!(first, '1'..='9'))) && text.parse::<u16>().is_ok()
    };
    let source = match words[1..] {
        ["UNKNOWN", ..] => Some(None),
        ["TCP4", from, to, a, b] if to.parse::<Ipv4Addr>().is_ok() && port(a) && port(b) => {
            from.parse().ok().map(|ip: Ipv4Addr| Some(IpAddr::V4(ip)))
        }
        ["TCP6", from, to, a, b] if to.parse::<Ipv6Addr>().is_ok() && port(a) && port(b) => {
            from.parse().ok().map(|ip: Ipv6Addr| Some(IpAddr::V6(ip)))
        }
        _ => None,
    };
    source.map_or(Found::Bad, |source| Found::Header(end + 2, source))
}

fn second(bytes: &[u8]) -> Found {
    let Some(&[kind, family, high, low]) = bytes.get(12..16) else { return Found::More };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // Families above Unix sockets and transports above datagrams are nobody's.
    if kind >> 4 != 2 || kind & 15 > 1 || family >> 4 > 3 || family & 15 > 2 || length > REST_BYTES_MAX {
        return Found::Bad;
    }
    let Some(rest) = bytes.get(16..16 + length) else { return Found::More };
    let source = match (kind & 15, family) {
        (0, _) | (1, 0) => None,
        (_, 0x11) => match rest.first_chunk::<4>() {
            Some(ip) if length >= 12 => Some(IpAddr::from(*ip)),
            _ => return Found::Bad,
        },
        (_, 0x21) => match rest.first_chunk::<16>() {
            Some(ip) if length >= 36 => Some(IpAddr::from(*ip)),
            _ => return Found::Bad,
        },
        // A datagram or a Unix socket behind the balancer: it says nothing about who pays.
        _ => None,
    };
    Found::Header(16 + length, source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_version_1() {
        let of = |text: &str| parse(text.as_bytes());
        let header = |text: &str, ip: &str| Found::Header(text.len(), Some(ip.parse().unwrap()));
        for (text, ip) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1"),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1"),
        ] {
            assert_eq!(of(text), header(text, ip));
            assert_eq!(of(&format!("{text}GET / HTTP/1.1\r\n")), header(text, ip));
            for cut in 0..text.len() {
                assert_eq!(of(&text[..cut]), Found::More, "{cut}");
            }
        }
        assert_eq!(of("PROXY UNKNOWN\r\n"), Found::Header(15, None));
        assert_eq!(
            of("PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n"),
            header("PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", "192.0.2.1")
        );
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n",
            "PROXY \r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            "PROXY TCP4  1.1.1.1 1.1.1.1 1 2\r\n",
            "proxy TCP4 1.1.1.1 1.1.1.1 1 2\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 0443 2\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 00\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 2\r\n",
            "PROXY TCP4 01.1.1.1 1.1.1.1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 1.1.1.1 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
        ] {
            assert_eq!(of(bad), Found::Bad, "{bad}");
        }
        assert_eq!(of(&format!("PROXY UNKNOWN {}", "x".repeat(107))), Found::Bad);
    }

    #[test]
    fn headers_of_version_2() {
        let of = |kind: u8, family: u8, rest: &[u8]| {
            parse(&[SIGNATURE, &[kind, family, 0, rest.len() as u8][..], rest, b"GET /"].concat())
        };
        assert_eq!(
            of(0x21, 0x11, &[192, 0, 2, 1, 1, 1, 1, 1, 0, 1, 0, 2]),
            Found::Header(28, "192.0.2.1".parse().ok())
        );
        assert_eq!(of(0x21, 0x21, &[0; 36]), Found::Header(52, "::".parse().ok()));
        assert_eq!(of(0x20, 0, &[]), Found::Header(16, None));
        for (kind, family, rest) in [
            (0x11, 0x11, &[0; 12][..]),
            (0x22, 0x11, &[0; 12]),
            (0x21, 0x11, &[0; 11]),
            (0x21, 0x21, &[0; 12]),
            (0x21, 0x41, &[0; 12]),
            (0x21, 0x13, &[0; 12]),
            (0x20, 0xf0, &[]),
        ] {
            assert_eq!(of(kind, family, rest), Found::Bad);
        }
        // As long as it may be, and longer by one.
        for (rest, found) in [(4080, Found::Header(4096, "192.0.2.1".parse().ok())), (4081, Found::Bad)] {
            let head = [SIGNATURE, &[0x21, 0x11, (rest >> 8) as u8, rest as u8, 192, 0, 2, 1][..]].concat();
            let header = [&head[..], &vec![0; rest - 4]].concat();
            assert_eq!(parse(&header), found);
            assert!((12..16).all(|cut| parse(&header[..cut]) == Found::More));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }
    }
}
