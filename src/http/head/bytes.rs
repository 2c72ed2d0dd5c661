//! Which bytes may stand where: tables made at compile time, and the search for the next control byte.

/// Token characters (RFC 9110, section 5.6.2): methods and field names.
pub static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", true);

/// What a path and query may hold: RFC 3986's characters, and those that clients send unencoded and `http::Uri` takes as well.
pub static TARGET: [bool; 256] = table(b"-._~!$&'()*+,;=:@/?%[]{}|^", true);

/// What a registered name or an IPv4 address in Host may hold (RFC 3986, section 3.2.2), but for escapes, and for the marks that
/// separate values or begin a comment: `Host: a,b` is two of them to whoever folds fields.
pub static HOST: [bool; 256] = table(b"-._~!$&'*+=", true);

const fn table(marks: &[u8], alphanumeric: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = alphanumeric && (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
}

/// The index of the first byte below 0x20 or equal to 0x7f at or after `from`; `bytes.len()` when there is none.
///
/// Eight bytes at a time: a borrow runs upwards only from a true hit, so the lowest hit is exact.
#[inline]
pub fn next_control(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let rest = bytes.get(from..).unwrap_or_default();
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let hit = (low | (del.wrapping_sub(ONES) & !del)) & HIGH;
        if hit != 0 {
            return from + index * 8 + (hit.trailing_zeros() / 8) as usize;
        }
    }
    let offset = tail.iter().position(|byte| byte.is_ascii_control()).unwrap_or(tail.len());
    bytes.len().min(from + words.len() * 8 + offset)
}

/// How many bytes of `bytes` the table takes before the first that it does not.
#[inline]
pub fn span(bytes: &[u8], table: &[bool; 256]) -> usize {
    bytes.iter().position(|byte| !table[usize::from(*byte)]).unwrap_or(bytes.len())
}

/// `bytes` without spaces and tabs at both ends (OWS of RFC 9110, section 5.6.3).
#[inline]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_search_by_words_is_the_search_by_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), from in 0usize..70) {
            let slow = (from..bytes.len()).find(|at| bytes[*at].is_ascii_control()).unwrap_or(bytes.len());
            prop_assert_eq!(next_control(&bytes, from), slow);
        }
    }
}
