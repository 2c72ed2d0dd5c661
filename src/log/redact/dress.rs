//! Odd clothes of values: `q{…}`, `[[…]]`, `<…>`, `password[…]`, anchors and tags of YAML.

use super::text::{Mix, Text, alnum, ident, quote, short_run};
use std::ops::Range;

/// A value that people or programs put into brackets is no longer.
const INSIDE_BYTES_MAX: usize = 64;
/// What it costs to see whether a word is [`scattered`], beside its bytes.
const SCATTERED_COST: usize = 20;

/// A string of Perl, Ruby or Lua that opens at `at`: where its inside begins, what closes it, and whether it may as well
/// be a call or a list.
pub(super) fn opening(text: &[u8], at: usize) -> Option<(usize, u8, bool)> {
    let (word, unsure) = match text.get(at..)? {
        [b'%', b'q' | b'Q' | b'w', ..] | [b'q', b'q', ..] => (2, false),
        [b'q', mark, ..] => (1, *mark == b'('),
        [b'[', b'[', ..] => return Some((at + 2, b']', true)),
        _ => return None,
    };
    let close = match text.get(at + word)? {
        b'{' => b'}',
        b'(' => b')',
        b'[' => b']',
        b'<' => b'>',
        mark @ (b'|' | b'!') => *mark,
        _ => return None,
    };
    Some((at + word + 1, close, unsure))
}

/// `<value>` at `at`, which is no placeholder and no tag: its inside.
pub(super) fn angled(text: &Text<'_>, at: usize) -> Option<Range<usize>> {
    inside(text, at, b'<', b'>')
}

/// `[value]` or `{value}` behind a name: its inside, which is no index.
pub(super) fn bracketed(text: &Text<'_>, at: usize) -> Option<Range<usize>> {
    inside(text, at, b'[', b']').or_else(|| inside(text, at, b'{', b'}'))
}

fn inside(text: &Text<'_>, at: usize, open: u8, close: u8) -> Option<Range<usize>> {
    text.get(at).filter(|byte| **byte == open)?;
    let end = short_run(text, at + 1, INSIDE_BYTES_MAX, |byte| byte > b' ' && byte != close && !quote(byte));
    let value = at + 1..end;
    (text.get(end) == Some(&close) && is_scattered(text, value.clone())).then_some(value)
}

/// The random word that begins at `at` and ends with its line, a quote or a blank.
pub(super) fn random_word(text: &Text<'_>, at: usize) -> bool {
    let end =
        short_run(text, at, INSIDE_BYTES_MAX, |byte| byte > b' ' && !quote(byte) && !matches!(byte, b'\\' | b'<'));
    is_scattered(text, at..end)
}

/// [`scattered`], charged to the text that the word stands in.
pub(super) fn is_scattered(text: &Text<'_>, word: Range<usize>) -> bool {
    text.spend(SCATTERED_COST + word.len().min(INSIDE_BYTES_MAX));
    scattered(&text[word])
}

/// Digits in two places or more, beside letters: no name in a program has that, and few versions do.
fn scattered(word: &[u8]) -> bool {
    let word = &word[..word.len().min(INSIDE_BYTES_MAX)];
    let groups = word.windows(2).filter(|pair| pair[0].is_ascii_digit() && !pair[1].is_ascii_digit()).count()
        + usize::from(word.last().is_some_and(u8::is_ascii_digit));
    let mix = Mix::of(word);
    let constant = mix.lower == 0 && word.contains(&b'_');
    word.len() >= 8 && groups > 1 && mix.lower + mix.upper > 1 && !word.contains(&b'.') && !versioned(word) && !constant
}

/// `1-2-3rc1`, `2026-11-30T10`: more digits and marks than letters.
fn versioned(word: &[u8]) -> bool {
    word.iter().filter(|byte| byte.is_ascii_alphabetic()).count() <= 3
}

/// Past YAML's `&anchor ` or `!!tag ` in front of a value.
pub(super) fn past_yaml(text: &Text<'_>, at: usize) -> usize {
    if !matches!(text.get(at), Some(b'&' | b'!')) {
        return at;
    }
    let word = short_run(text, at + 1, 32, |byte| ident(byte) || byte == b'!' || byte == b':');
    let marked = word > at + 1 && text.get(word) == Some(&b' ') && text[at + 1..word].iter().any(|byte| alnum(*byte));
    if marked { word + 1 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_two_places_are_random_and_versions_are_not() {
        for word in ["m42ploz2wd", "h0pk1ns~21s", "Zq8vN3kL0pW2xR7t", "9f86d081884c7d65"] {
            assert!(scattered(word.as_bytes()), "{word}");
        }
        for word in [
            "base64encoded",
            "user_index2",
            "2026-11-30T10",
            "10.0.0-rc.1",
            "API_KEY_2",
            "PSS_2048_SHA384_KEY",
            "1-2-3rc1",
            "a1b2",
        ] {
            assert!(!scattered(word.as_bytes()), "{word}");
        }
    }

    #[test]
    fn strings_of_other_languages_open_and_close() {
        assert_eq!(opening(b"q{x}", 0), Some((2, b'}', false)));
        assert_eq!(opening(b"%q(x)", 0), Some((3, b')', false)));
        assert_eq!(opening(b"q(x)", 0), Some((2, b')', true)));
        assert_eq!(opening(b"[[x]]", 0), Some((2, b']', true)));
        assert_eq!(opening(b"query(x)", 0), None);
    }
}
