//! What of HTTP/1.1 a client needs: the head of an answer, and where its body ends. Pure; nothing is held between calls.
//!
//! Source: RFC 9112, sections 4 to 7. Heads are parsed by the parser that hyper has. What could be read in two ways is
//! refused, or its connection is not used again.

use std::mem::MaybeUninit;

/// Longest head, informational ones before it included, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most fields of a head.
const FIELDS_MAX: usize = 100;
/// Most bytes of a body's chunk extensions and trailers; nobody reads them.
const ASIDE_BYTES_MAX: u32 = 64 << 10;

/// What of an answer's head matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// 200 and above, or 101.
    pub status: u16,
    /// Its body is a stream of events.
    pub streams: bool,
    /// `Retry-After`, where it is a number of seconds.
    pub retry_after_s: Option<u64>,
    /// Where its body ends.
    pub framing: Framing,
    /// The connection may be used again after the body.
    pub keeps: bool,
}

/// No HTTP that this client takes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl Head {
    /// Reads a head and says how many bytes it took; `None` when it is not whole yet. Informational heads are skipped.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
        let mut skipped = 0;
        loop {
            let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
            let mut response = httparse::Response::new(&mut []);
            let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut response,
                &bytes[skipped..],
                &mut fields,
            );
            match parsed.map_err(|_| Malformed("the head is no HTTP/1"))? {
                httparse::Status::Partial if bytes.len() > HEAD_BYTES_MAX => {
                    return Err(Malformed("the head is too long"));
                }
                httparse::Status::Partial => return Ok(None),
                httparse::Status::Complete(length) => skipped += length,
            }
            let head = Head::of(&response)?;
            if head.status >= 200 || head.status == 101 {
                return Ok(Some((head, skipped)));
            }
        }
    }

    fn of(response: &httparse::Response<'_, '_>) -> Result<Head, Malformed> {
        let (status, version) = (response.code.unwrap_or(0), response.version.unwrap_or(0));
        let mut told = Told::default();
        response.headers.iter().try_for_each(|field| told.field(field))?;
        let framing = match (status, told.chunked, told.length) {
            (204 | 304, ..) => Framing::Sized(0),
            (_, true, _) if version == 0 => return Err(Malformed("HTTP/1.0 knows no chunks")),
            (_, true, _) => Framing::Chunked(Chunked::default()),
            (_, false, Some(length)) => Framing::Sized(length),
            (_, false, None) => Framing::UntilClosed,
        };
        let twice = told.chunked && told.length.is_some();
        let keeps = version == 1 && !told.closes && !twice && framing != Framing::UntilClosed && status != 101;
        Ok(Head { status, streams: told.streams, retry_after_s: told.retry_after_s, framing, keeps })
    }
}

/// What the fields say.
#[derive(Default)]
struct Told {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    streams: bool,
    retry_after_s: Option<u64>,
}

impl Told {
    fn field(&mut self, field: &httparse::Header<'_>) -> Result<(), Malformed> {
        let (name, value) = (field.name, field.value.trim_ascii());
        if name.eq_ignore_ascii_case("content-length") {
            let length = number(value).ok_or(Malformed("Content-Length is no number"))?;
            if self.length.is_some_and(|known| known != length) {
                return Err(Malformed("there are two lengths"));
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("the transfer coding is not known"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            self.closes |=
                value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
        } else if name.eq_ignore_ascii_case("content-type") {
            const EVENTS: &[u8] = b"text/event-stream";
            self.streams = value.get(..EVENTS.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS));
        } else if name.eq_ignore_ascii_case("retry-after") {
            self.retry_after_s = number(value);
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    // `parse` alone would take a plus sign.
    let plain = digits.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are to come.
    Sized(u64),
    /// Chunks.
    Chunked(Chunked),
    /// With the connection.
    UntilClosed,
}

/// How far a chunked body was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunked {
    place: Place,
    /// Of the chunk's size what was read of it, then of its data what is to come.
    left: u64,
    aside: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the size's first digit.
    #[default]
    Size,
    Digits,
    Padding,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLine,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    TrailerLine,
    TrailerEnd,
    End,
    Done,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// So many of them belong to this body.
    pub used: usize,
    /// The first so many bytes are now the body's data.
    pub data: usize,
}

impl Framing {
    /// True when nothing of the body is to come.
    pub fn is_done(&self) -> bool {
        matches!(self, Framing::Sized(0) | Framing::Chunked(Chunked { place: Place::Done, .. }))
    }

    /// Takes the body's next bytes and moves its data to their beginning.
    ///
    /// # Errors
    /// See [`Malformed`]; the body cannot be read on.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Malformed> {
        match self {
            Framing::UntilClosed => Ok(Taken { used: bytes.len(), data: bytes.len() }),
            Framing::Sized(left) => {
                let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= used as u64;
                Ok(Taken { used, data: used })
            }
            Framing::Chunked(chunked) => chunked.take(bytes),
        }
    }
}

impl Chunked {
    fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Malformed> {
        let mut taken = Taken { used: 0, data: 0 };
        while taken.used < bytes.len() && self.place != Place::Done {
            if self.place == Place::Data {
                let rest = bytes.len() - taken.used;
                let length = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                bytes.copy_within(taken.used..taken.used + length, taken.data);
                taken = Taken { used: taken.used + length, data: taken.data + length };
                self.left -= length as u64;
                if self.left == 0 {
                    self.place = Place::DataEnd;
                }
            } else {
                self.place = self.next(bytes[taken.used])?;
                taken.used += 1;
            }
        }
        Ok(taken)
    }

    fn next(&mut self, byte: u8) -> Result<Place, Malformed> {
        use Place::{
            Data, DataEnd, DataEndLine, Digits, Done, End, Extension, Padding, Size, SizeEnd, Trailer, TrailerEnd,
            TrailerLine,
        };
        Ok(match (self.place, byte) {
            (Size | Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = self.left.checked_mul(16).ok_or(Malformed("a chunk's size is too large"))?;
                self.left = size + u64::from(digit);
                Digits
            }
            (Digits | Padding, b' ' | b'\t') => self.passing(Padding)?,
            (Digits | Padding, b';') => Extension,
            (Digits | Padding | Extension, b'\r') => SizeEnd,
            (SizeEnd, b'\n') if self.left == 0 => Trailer,
            (SizeEnd, b'\n') => Data,
            (DataEnd, b'\r') => DataEndLine,
            (DataEndLine, b'\n') => Size,
            (Trailer, b'\r') => End,
            (TrailerLine, b'\r') => TrailerEnd,
            (TrailerEnd, b'\n') => Trailer,
            (End, b'\n') => Done,
            (Extension | Trailer | TrailerLine, b'\n') => return Err(Malformed("a line ends without CR")),
            (Extension, _) => self.passing(Extension)?,
            (Trailer | TrailerLine, _) => self.passing(TrailerLine)?,
            _ => return Err(Malformed("a chunk is malformed")),
        })
    }

    /// A byte that nobody reads; `place` follows it.
    fn passing(&mut self, place: Place) -> Result<Place, Malformed> {
        self.aside += 1;
        match self.aside <= ASIDE_BYTES_MAX {
            true => Ok(place),
            false => Err(Malformed("extensions or trailers are too long")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(fields: &str) -> Result<Head, Malformed> {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\nrest");
        Head::parse(text.as_bytes()).map(|parsed| {
            let (head, length) = parsed.expect("a whole head");
            assert_eq!(length, text.len() - 4);
            head
        })
    }

    /// The data of a body that comes in these pieces, whether it has ended, and what came behind it.
    fn read(mut framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Malformed> {
        let (mut data, mut behind) = (Vec::new(), 0);
        for piece in pieces {
            let mut bytes = piece.to_vec();
            let taken = framing.take(&mut bytes)?;
            data.extend_from_slice(&bytes[..taken.data]);
            behind += piece.len() - taken.used;
        }
        Ok((data, framing.is_done(), behind))
    }

    fn chunked(text: &str) -> Result<(Vec<u8>, bool, usize), Malformed> {
        read(Framing::Chunked(Chunked::default()), &[text.as_bytes()])
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_the_connection_goes_on() {
        let sized = head("Content-Length: 12\r\nContent-Type: text/event-stream; charset=utf-8\r\nRetry-After: 7\r\n");
        let expected =
            Head { status: 200, streams: true, retry_after_s: Some(7), framing: Framing::Sized(12), keeps: true };
        assert_eq!(sized, Ok(expected));
        let chunks = head("Transfer-Encoding: Chunked\r\n").unwrap();
        assert!(chunks.keeps && chunks.framing == Framing::Chunked(Chunked::default()));
        for (fields, framing) in [
            ("", Framing::UntilClosed),
            ("Connection: x, Close\r\nContent-Length: 0\r\n", Framing::Sized(0)),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Framing::Chunked(Chunked::default())),
        ] {
            let head = head(fields).unwrap();
            assert_eq!((head.framing, head.keeps), (framing, false), "{fields}");
        }
        for wrong in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "no field\r\n",
        ] {
            assert!(head(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_versions_and_statuses_have_rules_of_their_own() {
        let parse = |text: &str| Head::parse(text.as_bytes());
        let (old, _) = parse("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap().unwrap();
        assert_eq!((old.framing, old.keeps), (Framing::Sized(3), false));
        assert!(parse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 X\r\n\r\n";
        let (head, length) = parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.framing, length), (204, Framing::Sized(0), text.len()));
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Ok(None), "{cut}");
        }
        let switching = parse("HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().unwrap().0;
        assert_eq!((switching.status, switching.keeps), (101, false));
        assert!(parse("\u{1}\u{2} hello\r\n\r\n").is_err() && parse("HTTP/2 200\r\n\r\n").is_err());
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        assert!(parse(&endless).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert!(parse(&many).is_err());
    }

    #[test]
    fn a_body_of_chunks_ends_with_its_trailers() {
        let text = "3\r\nabc\r\n00A ;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n";
        assert_eq!(chunked(text), Ok((b"abc0123456789".to_vec(), true, 0)));
        assert_eq!(chunked("0\r\n\r\nHTTP"), Ok((vec![], true, 4)));
        assert_eq!(chunked("3\r\nab"), Ok((b"ab".to_vec(), false, 0)));
        for wrong in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "3\nabc\n",
            "3\r\nabcd\r\n",
            "3;x\nabc",
            "11112222333344445\r\n",
            "0\r\nx\n\r\n",
        ] {
            assert!(chunked(wrong).is_err(), "{wrong:?}");
        }
        let long = format!("3;{}\r\nabc", "x".repeat(ASIDE_BYTES_MAX as usize + 1));
        assert!(chunked(&long).is_err());
    }

    #[test]
    fn a_length_is_counted_and_a_body_without_one_goes_on() {
        assert_eq!(read(Framing::Sized(3), &[b"ab", b"cd"]), Ok((b"abc".to_vec(), true, 1)));
        assert_eq!(read(Framing::Sized(3), &[b"ab"]), Ok((b"ab".to_vec(), false, 0)));
        assert_eq!(read(Framing::UntilClosed, &[b"ab", b"cd"]), Ok((b"abcd".to_vec(), false, 0)));
    }

    proptest! {
        #[test]
        fn every_split_of_chunks_gives_the_same(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in proptest::collection::vec(0usize..300, 0..8),
        ) {
            let mut text: Vec<u8> = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let mut ends: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).chain([text.len()]).collect();
            ends.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = ends.into_iter().map(|end| &text[std::mem::replace(&mut from, end)..end]).collect();
            prop_assert_eq!(read(Framing::Chunked(Chunked::default()), &pieces), Ok((chunks.concat(), true, 0)));
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise_than_by_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::parse(&bytes);
            let _ = read(Framing::Chunked(Chunked::default()), &[&bytes]);
        }
    }
}
