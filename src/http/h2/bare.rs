//! h2 answers a head over its own limit by itself, with a status and nothing else; here that answer gets what every answer has. Pure.
//!
//! ```text
//! frames going out ──▶ walked by their 9-byte heads ──▶ HEADERS, last of its stream, a status alone ──▶ the same with fields behind it
//! ```
//! No answer of ours is so short: each has more than a dozen fields, of which the shortest is one byte. Fields are added as
//! literals that no table remembers (RFC 7541, section 6.2.2), so the encoder that does not know of them stays right.

use http::HeaderMap;

const HEAD_BYTES: usize = 9;
/// A status in HPACK, perhaps behind a change of the table's size.
const BARE_BYTES_MAX: usize = 12;
const HEADERS: u8 = 1;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 1 | 4;

/// Where in the frames that go out a connection stands.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    held: usize,
}

impl Walk {
    /// Where in the next bytes a bare answer begins, and how long it is; it must be whole.
    pub fn find(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let mut walk = self.clone();
        let mut at = 0;
        loop {
            at += walk.skip_to_head(&bytes[at..]);
            let rest = &bytes[at..];
            if rest.is_empty() {
                return None;
            }
            if let (0, Some(head)) = (walk.held, rest.first_chunk::<HEAD_BYTES>())
                && is_bare(head)
                && rest.len() >= HEAD_BYTES + length(head)
            {
                return Some((at, HEAD_BYTES + length(head)));
            }
            at += walk.take_head(rest);
        }
    }

    /// These bytes have gone out.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.skip_to_head(bytes)..];
            bytes = &bytes[self.take_head(bytes)..];
        }
    }

    fn skip_to_head(&mut self, bytes: &[u8]) -> usize {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        skipped
    }

    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let taken = (HEAD_BYTES - self.held).min(bytes.len());
        self.head[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
        self.held += taken;
        if self.held == HEAD_BYTES {
            (self.held, self.skip) = (0, length(&self.head));
        }
        taken
    }
}

fn length(head: &[u8; HEAD_BYTES]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

fn is_bare(head: &[u8; HEAD_BYTES]) -> bool {
    head[3] == HEADERS && head[4] & WHOLE == WHOLE && length(head) <= BARE_BYTES_MAX
}

/// A bare answer with these fields behind its status.
pub fn dressed(frame: &[u8], fields: &HeaderMap) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_str().as_bytes());
        text(&mut bytes, value.as_bytes());
    }
    let length = (bytes.len() - HEAD_BYTES) as u32;
    bytes[..3].copy_from_slice(&length.to_be_bytes()[1..]);
    bytes
}

/// A string without Huffman's code: its length with a prefix of 7 bits (RFC 7541, sections 5.1 and 5.2).
fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(rest as u8);
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(rest as u8 | 128);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn only_a_status_alone_is_bare() {
        let bare = frame(HEADERS, WHOLE, b"\x48\x03431");
        let other = [
            frame(0, 1, b"data"),
            frame(HEADERS, WHOLE, &[0x88; 13]),
            frame(HEADERS, 4, b"\x88"),
            frame(8, 0, &[0; 4]),
        ];
        let before = other.concat();
        assert_eq!(Walk::default().find(&before), None);
        let all = [&before[..], &bare, &before].concat();
        for cut in 0..=before.len() {
            let mut walk = Walk::default();
            walk.pass(&all[..cut]);
            assert_eq!(walk.find(&all[cut..]), Some((before.len() - cut, bare.len())), "{cut}");
            assert_eq!(walk.find(&all[cut..before.len() + bare.len() - 1]), None, "{cut}: not whole");
        }
    }

    #[test]
    fn fields_stand_behind_the_status_and_the_length_is_right() {
        let mut fields = HeaderMap::new();
        fields.insert("a", HeaderValue::from_static("b"));
        let bare = frame(HEADERS, WHOLE, b"\x48\x03431");
        assert_eq!(dressed(&bare, &fields), frame(HEADERS, WHOLE, b"\x48\x03431\0\x01a\x01b"));
        for (bytes, prefix) in [(126, &[126][..]), (127, &[127, 0]), (254, &[127, 127]), (255, &[127, 128, 1])] {
            let mut written = Vec::new();
            text(&mut written, &vec![b'x'; bytes]);
            assert_eq!(&written[..prefix.len()], prefix);
            assert_eq!(written.len(), prefix.len() + bytes);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_the_same_however_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len() + 1);
            let (mut whole, mut parts) = (Walk::default(), Walk::default());
            whole.pass(&bytes);
            parts.pass(&bytes[..cut]);
            parts.pass(&bytes[cut..]);
            prop_assert_eq!((whole.skip, whole.held), (parts.skip, parts.held));
            whole.find(&bytes);
        }
    }
}
