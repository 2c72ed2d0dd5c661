//! Records and packets: what travels between a sender and the log process.
//!
//! ```text
//! packet = magic (8) | number of its first record (8) | record …
//! record = kind (1) | level (1) | clean (1) | 0 | length (4) | line
//! ```
//!
//! Numbers count what a sender handed over, over all of its lives; little endian. A packet without the magic is what
//! a child printed on its stderr or stdout.

/// Longest line in bytes, cut mark included.
pub const RECORD_BYTES_MAX: usize = 8 * 1024;
/// Longest packet in bytes: two of them are what the log process can lose when it is killed (64 KiB).
pub const PACKET_BYTES_MAX: usize = 32 * 1024;
/// Bytes before the first record.
pub const PACKET_HEAD_BYTES: usize = MAGIC.len() + 8;
/// Bytes before a record's line.
pub const RECORD_HEAD_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"\0ccl\x01\0\0\0";

/// What a record is, which decides where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of the program.
    App = 1,
    /// A security event.
    Security = 2,
    /// An access line.
    Access = 3,
}

/// One record of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it belongs.
    pub kind: Kind,
    /// 1 (error) to 5 (trace).
    pub level: u8,
    /// The sender has read it: one clean line without a secret.
    pub clean: bool,
    /// Its text, without a newline.
    pub line: &'a [u8],
}

/// A packet taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The number of its first record.
    pub first: u64,
    records: &'a [u8],
}

/// The number of a level as it travels.
pub fn level_number(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 1,
        tracing::Level::WARN => 2,
        tracing::Level::INFO => 3,
        tracing::Level::DEBUG => 4,
        tracing::Level::TRACE => 5,
    }
}

/// Begins a record in `out`; the line is appended next, then [`end`] is called with what this returned.
pub fn begin(kind: Kind, level: u8, out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[kind as u8, level, 0, 0, 0, 0, 0, 0]);
    at
}

/// Marks the record that begins at `at` as one that the redactor need not read.
pub fn mark_clean(at: usize, out: &mut [u8]) {
    out[at + 2] = 1;
}

/// Ends the record that begins at `at`.
pub fn end(at: usize, out: &mut [u8]) {
    let length = (out.len() - at - RECORD_HEAD_BYTES) as u32;
    out[at + 4..at + RECORD_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Bytes of `out` before the line of the record that begins at `at`.
pub fn line_at(at: usize) -> usize {
    at + RECORD_HEAD_BYTES
}

/// The head of a packet.
pub fn packet_head(first: u64) -> [u8; PACKET_HEAD_BYTES] {
    let mut head = [0; PACKET_HEAD_BYTES];
    head[..MAGIC.len()].copy_from_slice(&MAGIC);
    head[MAGIC.len()..].copy_from_slice(&first.to_le_bytes());
    head
}

/// Length of the records at the start of `records` that fit into `bytes_max`, and how many they are.
pub fn fitting(records: &[u8], bytes_max: usize) -> (usize, u64) {
    let (mut length, mut count) = (0, 0);
    while let Some((_, rest)) = split(&records[length..]) {
        let next = records.len() - rest.len();
        if next > bytes_max && count > 0 {
            break;
        }
        (length, count) = (next, count + 1);
    }
    (length, count)
}

impl<'a> Packet<'a> {
    /// Reads a packet; `None` for one that is a child's print.
    pub fn parse(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (first, records) = rest.split_first_chunk::<8>()?;
        Some(Packet { first: u64::from_le_bytes(*first), records })
    }

    /// Its records in order, as far as they are well formed.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut rest = self.records;
        std::iter::from_fn(move || {
            let (record, after) = split(rest)?;
            rest = after;
            Some(record)
        })
    }
}

fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let kind = match head[0] {
        1 => Kind::App,
        2 => Kind::Security,
        3 => Kind::Access,
        _ => return None,
    };
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let (line, rest) = rest.split_at_checked(length)?;
    Some((Record { kind, level: head[1].clamp(1, 5), clean: head[2] == 1, line }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(first: u64, lines: &[Vec<u8>]) -> Vec<u8> {
        let mut out = packet_head(first).to_vec();
        for line in lines {
            let at = begin(Kind::Access, 3, &mut out);
            out.extend_from_slice(line);
            end(at, &mut out);
        }
        out
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(first in any::<u64>(), lines in proptest::collection::vec(any::<Vec<u8>>(), 0..9)) {
            let bytes = packet(first, &lines);
            let parsed = Packet::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.first, first);
            let back: Vec<Vec<u8>> = parsed.records().map(|record| record.line.to_vec()).collect();
            prop_assert_eq!(back, lines);
        }

        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in any::<Vec<u8>>(), framed in any::<bool>()) {
            if framed {
                bytes = [&packet_head(7)[..], &bytes].concat();
            }
            let total: usize = Packet::parse(&bytes).iter().flat_map(Packet::records).map(|r| r.line.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }

    #[test]
    fn whole_records_are_taken_up_to_a_limit_and_always_one() {
        let bytes = packet(0, &[vec![b'a'; 10], vec![b'b'; 10], vec![b'c'; 10]]);
        let records = &bytes[PACKET_HEAD_BYTES..];
        assert_eq!(fitting(records, 36), (36, 2));
        assert_eq!(fitting(records, 35), (18, 1));
        assert_eq!(fitting(records, 1), (18, 1));
        assert_eq!(fitting(&[], 100), (0, 0));
    }
}
