//! One line per event, whatever it holds: no byte below 0x20, no 0x7f, no C1 control, no U+2028 or U+2029.
//!
//! Runs of harmless bytes are copied whole; a table says which bytes need a second look.

/// What a byte is to a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    Plain,
    /// A quote or a backslash: matters inside JSON only.
    Quote,
    /// A control byte.
    Control,
    /// The first byte of characters of which some are controls or line separators.
    Lead,
}

const fn table() -> [Care; 256] {
    let mut table = [Care::Plain; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = Care::Control;
        byte += 1;
    }
    table[0x7f] = Care::Control;
    table[b'"' as usize] = Care::Quote;
    table[b'\\' as usize] = Care::Quote;
    table[0xc2] = Care::Lead;
    table[0xe2] = Care::Lead;
    table
}

static CARE: [Care; 256] = table();
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as the inside of a JSON string.
pub fn json(text: &str, out: &mut Vec<u8>) {
    escape(text.as_bytes(), true, out);
}

/// Appends `text` with its controls escaped; quotes and backslashes stay.
pub fn plain(text: &str, out: &mut Vec<u8>) {
    escape(text.as_bytes(), false, out);
}

/// As [`json`] or [`plain`], but `out` grows to `length_max` bytes at most; true when all of `text` fitted. The cut
/// is between characters and escapes.
pub fn up_to(text: &str, quoted: bool, length_max: usize, out: &mut Vec<u8>) -> bool {
    text.char_indices().all(|(at, character)| {
        let before = out.len();
        escape(&text.as_bytes()[at..at + character.len_utf8()], quoted, out);
        let fits = out.len() <= length_max;
        if !fits {
            out.truncate(before);
        }
        fits
    })
}

/// True when a finished line holds nothing that would break it.
pub fn is_clean(line: &[u8]) -> bool {
    if line.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
        return false;
    }
    line.is_ascii() || (std::str::from_utf8(line).is_ok() && !has_wide_control(line))
}

fn has_wide_control(line: &[u8]) -> bool {
    memchr::memchr2_iter(0xc2, 0xe2, line).any(|at| wide(&line[at..]).is_some())
}

/// True when no byte needs a second look. Every byte is looked at: that lets the compiler take many at once.
fn is_plain(text: &[u8]) -> bool {
    let odd = |byte: &u8| *byte < 0x20 || *byte >= 0x7f || *byte == b'"' || *byte == b'\\';
    !text.iter().fold(false, |any, byte| any | odd(byte))
}

fn escape(text: &[u8], quoted: bool, out: &mut Vec<u8>) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    let mut from = 0;
    let mut at = 0;
    while at < text.len() {
        let length = match CARE[text[at] as usize] {
            Care::Plain => 0,
            Care::Quote => usize::from(quoted),
            Care::Control => 1,
            Care::Lead => wide(&text[at..]).map_or(0, |(_, length)| length),
        };
        if length == 0 {
            at += 1;
            continue;
        }
        out.extend_from_slice(&text[from..at]);
        write_escape(&text[at..at + length], out);
        at += length;
        from = at;
    }
    out.extend_from_slice(&text[from..at]);
}

fn write_escape(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes[0] {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', bytes[0]]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        byte => {
            let code = wide(bytes).map_or(u32::from(byte), |(code, _)| code);
            out.extend_from_slice(b"\\u");
            (0..4).rev().for_each(|nibble| out.push(HEX[(code >> (4 * nibble) & 0xf) as usize]));
        }
    }
}

/// The control or separator of several bytes that `bytes` begins with, and how long it is.
fn wide(bytes: &[u8]) -> Option<(u32, usize)> {
    match bytes {
        [0xc2, second @ 0x80..=0x9f, ..] => Some((u32::from(*second), 2)),
        [0xe2, 0x80, third @ 0xa8..=0xa9, ..] => Some((0x2000 + u32::from(*third) - 0x80, 3)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json_of(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        json(text, &mut out);
        out
    }

    #[test]
    fn separators_and_controls_become_escapes() {
        assert_eq!(json_of("a\"b\\c\n\u{85}\u{2028}\u{2029}\u{7f}"), br#"a\"b\\c\n\u0085\u2028\u2029\u007f"#);
        assert_eq!(json_of("äöü € 🐱"), "äöü € 🐱".as_bytes());
    }

    proptest! {
        #[test]
        fn what_json_reads_back_is_what_went_in(text in any::<String>()) {
            let quoted = [b"\"".as_slice(), &json_of(&text), b"\""].concat();
            prop_assert!(is_clean(&quoted));
            let back: String = serde_json::from_slice(&quoted).unwrap();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn any_text_becomes_one_line(text in any::<String>()) {
            let mut out = Vec::new();
            plain(&text, &mut out);
            prop_assert!(is_clean(&out));
            prop_assert!(std::str::from_utf8(&out).is_ok());
        }

        #[test]
        fn a_cut_is_between_characters(text in any::<String>(), max in 0usize..40) {
            let mut out = Vec::new();
            let whole = up_to(&text, true, max, &mut out);
            prop_assert!(out.len() <= max);
            prop_assert!(json_of(&text).starts_with(&out));
            prop_assert_eq!(whole, out.len() == json_of(&text).len());
        }
    }
}
