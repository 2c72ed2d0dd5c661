//! A text with all its escapes undone, and where each byte of it came from.
//!
//! A secret that is percent-encoded, `\u`-escaped or HTML-escaped, also twice over, is found in the shadow and cut out of
//! the original.

use super::wary;
use std::ops::Range;

/// The shadow of a text.
pub(super) struct Shadow {
    pub(super) text: Vec<u8>,
    /// Where stretches begin that lie in the original as they lie here: offset here, offset there.
    stretches: Vec<(u32, u32)>,
    /// What it has cost to make it, in nanoseconds.
    cost: usize,
}

/// A shadow begins so far before the first escape: a name and its separator.
const LEAD_BYTES: usize = 160;
/// An escape in an escape in an escape.
const DEPTH_MAX: usize = 5;

/// The first escape of a text, and what it cost to find it.
pub(super) struct First {
    found: Option<Escape>,
    pub(super) cost: usize,
}

impl First {
    /// Looks for it until that has cost more than `worth`.
    pub(super) fn of(text: &[u8], worth: usize) -> First {
        let mut cost = 0;
        let found = next_escape(text, 0, &mut cost, worth);
        First { found, cost }
    }

    /// Where the shadow of its text begins; nothing when nothing in it is escaped.
    pub(super) fn lead(&self) -> Option<usize> {
        self.found.map(|first| (first.at as usize).saturating_sub(LEAD_BYTES))
    }
}

/// True when nothing in `text` can be an escape; quick, and charged like a look in blocks.
pub(super) fn is_plain(text: &[u8]) -> bool {
    swift(text, 0).is_none()
}

/// What [`is_plain`] costs.
pub(super) fn plain_cost(text: &[u8]) -> usize {
    text.len() / BLOCK_SWIFT_BYTES
}

impl Shadow {
    /// The shadow of `text` from a little before its first escape on; none when nothing in it is escaped, or when to
    /// make it and to scan it would cost more than `worth`.
    pub(super) fn of(text: &[u8], first: &First, worth: usize) -> Option<Shadow> {
        let from = first.lead()?;
        let length = text.len() - from;
        let mut shadow =
            Shadow { text: Vec::with_capacity(length), stretches: Vec::with_capacity(2 + length / 2), cost: MADE_COST };
        // Who gives up looks at the rest of the line in another way.
        let rest = length * wary::EIGHT_BYTES_COST / 8;
        let (mut taken, mut next) = (from, first.found);
        while let Some(escape) = next {
            shadow.plain(text, taken..escape.at as usize);
            shadow.undo(text, escape);
            if shadow.cost + rest.max(shadow.scan_cost()) > worth {
                return None;
            }
            taken = escape.end();
            next = next_escape(text, taken, &mut shadow.cost, worth);
        }
        shadow.plain(text, taken..text.len());
        shadow.stretches.push((shadow.text.len() as u32, text.len() as u32));
        (shadow.whole_cost() <= worth).then_some(shadow)
    }

    /// The shadow of a text at any price.
    #[cfg(test)]
    pub(super) fn of_all(text: &[u8]) -> Option<Shadow> {
        Shadow::of(text, &First::of(text, usize::MAX), usize::MAX)
    }

    /// Takes what an escape stands for in its place.
    #[inline]
    fn undo(&mut self, text: &[u8], escape: Escape) {
        self.stretches.push((self.text.len() as u32, escape.at));
        if escape.byte != UNSEEN {
            self.text.push(escape.byte as u8);
        }
        let once = if text[escape.at as usize] == b'%' { 3 } else { 6 };
        let deep = escape.length > once || introduces(escape.byte as u8);
        self.cost += match (deep, once) {
            (true, _) => DEEP_COST + usize::from(escape.length),
            (false, 3) => ESCAPE_COST,
            (false, _) => WORDY_COST,
        };
    }

    /// Takes over what is no escape.
    #[inline]
    fn plain(&mut self, text: &[u8], range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.stretch(range.start);
        self.cost += PLAIN_COST + range.len() / SWIFT_BYTES;
        if range.len() < SHORT_BYTES {
            range.for_each(|at| self.text.push(text[at]));
        } else {
            self.text.extend_from_slice(&text[range]);
        }
    }

    /// What it cost to make it, and what it costs to scan it.
    pub(super) fn whole_cost(&self) -> usize {
        self.cost + self.scan_cost()
    }

    fn scan_cost(&self) -> usize {
        self.text.len() * SCAN_EIGHT_BYTES / 8
    }

    /// What comes next lies at `there` in the original: a stretch of its own, unless the last one goes on.
    fn stretch(&mut self, there: usize) {
        let here = self.text.len() as u32;
        let goes_on = self.stretches.last().is_some_and(|(from, at)| here - from == there as u32 - at);
        if !goes_on {
            self.stretches.push((here, there as u32));
        }
    }

    /// Where `at` in the shadow lies in the original.
    pub(super) fn original(&self, at: usize) -> usize {
        let next = self.stretches.partition_point(|(here, _)| *here as usize <= at);
        let (here, there) = self.stretches[next.saturating_sub(1)];
        there as usize + at - here as usize
    }
}

/// The end of what goes on at `at` with escapes of escapes: what ended a value there was part of it one level up.
pub(super) fn tail(text: &[u8], at: usize) -> usize {
    if !text[at..].starts_with(b"%25") {
        return at;
    }
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'_' | b'-' | b'.' | b'~' | b'+');
    at + text[at..].iter().take_while(|byte| goes_on(byte)).count()
}

/// The next escape at or after `from`, unless looking for it makes the cost more than `worth`.
#[inline]
fn next_escape(text: &[u8], from: usize, cost: &mut usize, worth: usize) -> Option<Escape> {
    // Where one ends the next begins, in a text that is all escapes.
    if from < text.len()
        && suspects(text, from)
        && let Some(escape) = escape(text, from)
    {
        return Some(escape);
    }
    later_escape(text, from, cost, worth)
}

#[inline(never)]
fn later_escape(text: &[u8], mut from: usize, cost: &mut usize, worth: usize) -> Option<Escape> {
    while *cost <= worth {
        let at = introducer(text, from, cost, worth)?;
        if let Some(escape) = escape(text, at) {
            return Some(escape);
        }
        *cost += FAILED_COST;
        from = past(text, at);
        *cost += from - at;
    }
    None
}

/// Behind what begins no escape at `at`: a run of backslashes is one question, not one for each; of a longer one than
/// an escape may have, its end is another.
#[inline]
fn past(text: &[u8], at: usize) -> usize {
    if text[at] != b'\\' {
        return at + 1;
    }
    let same = text[at..].iter().take_while(|byte| **byte == b'\\').count();
    at + if same > SLASHES_MAX { (same - SLASHES_MAX).max(1) } else { same }
}

/// The first place at or after `from` whose first bytes may begin an escape.
fn introducer(text: &[u8], from: usize, cost: &mut usize, worth: usize) -> Option<usize> {
    let mut at = from;
    loop {
        if at >= text.len() || *cost > worth {
            return None;
        }
        // Byte by byte for a while, for there may be many; then in blocks, for there may be none.
        let near = text.len().min(at + NEAR_BYTES);
        let found = (at..near).find(|at| introduces(text[*at]) && suspects(text, *at));
        *cost += ASKED_COST + (found.unwrap_or(near) - at) * 3 / 4;
        if found.is_some() {
            return found;
        }
        at = swift(text, near)?;
        *cost += BLOCK_COST + (at - near) / BLOCK_SWIFT_BYTES;
    }
}

/// The first byte at or after `at` that introduces escapes, looked for in blocks.
fn swift(text: &[u8], mut at: usize) -> Option<usize> {
    let introduces = |byte: &u8| matches!(byte, b'%' | b'\\' | b'&' | 0xc2 | 0xe2 | 0xef);
    loop {
        let block = text.get(at..text.len().min(at + BLOCK_BYTES)).filter(|block| !block.is_empty())?;
        if block.iter().fold(false, |any, byte| any | introduces(byte)) {
            return block.iter().position(introduces).map(|steps| at + steps);
        }
        at += block.len();
    }
}

const NEAR_BYTES: usize = 32;
const BLOCK_BYTES: usize = 32;
/// What it costs to find the byte in a block.
const BLOCK_COST: usize = 12;
/// Bytes passed over in a nanosecond, in blocks and when they are copied.
const BLOCK_SWIFT_BYTES: usize = 10;
const SWIFT_BYTES: usize = 4;
/// What an escape costs to undo, and what looks like one and is none, in nanoseconds.
const ESCAPE_COST: usize = 6;
const WORDY_COST: usize = 13;
const PLAIN_COST: usize = 8;
/// So few bytes are taken over one by one.
const SHORT_BYTES: usize = 12;
const FAILED_COST: usize = 20;
/// What a question for the next one costs, beside the bytes.
const ASKED_COST: usize = 4;

/// What it costs to make a shadow of nothing, and to scan eight bytes of one.
const MADE_COST: usize = 60;
const SCAN_EIGHT_BYTES: usize = 18;
/// What an escape of an escape costs, beside its bytes.
const DEEP_COST: usize = 16;

/// What introduces escapes, a bit for each, and under the same bits what may come second and third.
const PERCENT: u8 = 1;
const AMPERSAND: u8 = 2;
/// `\\u` and `\/`; `\u0041`; `\x41`, `\101`.
const DOUBLED: u8 = 4;
const NAMED: u8 = 8;
const NUMBERED: u8 = 128;
/// First bytes of characters that are not seen, or seen as another: UTF-8 of U+00A0, U+00AD, U+200B, U+FF1D.
const LATIN: u8 = 16;
const GENERAL: u8 = 32;
const WIDE: u8 = 64;

const INTRODUCES: [u8; 256] = {
    let mut table = [0; 256];
    table[b'%' as usize] = PERCENT;
    table[b'&' as usize] = AMPERSAND;
    table[b'\\' as usize] = DOUBLED | NAMED | NUMBERED;
    table[0xc2] = LATIN;
    table[0xe2] = GENERAL;
    table[0xef] = WIDE;
    table
};

const FOLLOWS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let of = byte as u8;
        table[byte] = if of.is_ascii_hexdigit() { PERCENT } else { 0 }
            | if matches!(of, b'#' | b'q' | b'a' | b'l' | b'g' | b'e' | b'n') { AMPERSAND } else { 0 }
            | if matches!(of, b'/' | b'\\') { DOUBLED } else { 0 }
            | if of == b'u' { NAMED } else { 0 }
            | if matches!(of, b'x' | b'0' | b'1') { NUMBERED } else { 0 }
            | if matches!(of, 0xa0 | 0xad) { LATIN } else { 0 }
            | if matches!(of, 0x80 | 0x81) { GENERAL } else { 0 }
            | if matches!(of, 0xbb..=0xbd) { WIDE } else { 0 };
        byte += 1;
    }
    table
};

const THIRDS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let of = byte as u8;
        table[byte] = DOUBLED
            | LATIN
            | WIDE
            | if of.is_ascii_hexdigit() { PERCENT | NUMBERED } else { 0 }
            | if matches!(of, b'm' | b'p' | b'u' | b't' | b'q' | b'b' | b'x' | b'X' | b'0'..=b'9') {
                AMPERSAND
            } else {
                0
            }
            | if matches!(of, b'0' | b'{') { NAMED } else { 0 }
            | if matches!(of, 0x8b..=0x8f | 0xa0) { GENERAL } else { 0 };
        byte += 1;
    }
    table
};

/// True where an escape may begin, by its first bytes.
#[inline]
fn suspects(text: &[u8], at: usize) -> bool {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let of = |table: &[u8; 256], at: usize| table[usize::from(byte(at))];
    let kinds = INTRODUCES[usize::from(byte(at))] & of(&FOLLOWS, at + 1) & of(&THIRDS, at + 2);
    // Of `\u0430` and its like whole lines are made.
    kinds != 0 && (kinds & NAMED == 0 || matches!((byte(at + 2), byte(at + 3)), (b'{', _) | (_, b'0')))
}

#[inline]
fn introduces(byte: u8) -> bool {
    INTRODUCES[usize::from(byte)] != 0
}

/// Where an escape stands, how long it is, and what it stands for in the end. Small, for it is handed on in registers.
#[derive(Clone, Copy)]
struct Escape {
    at: u32,
    length: u16,
    /// [`UNSEEN`] for what is not seen.
    byte: u16,
}

const UNSEEN: u16 = 256;

impl Escape {
    #[inline]
    fn new(at: usize, end: usize, byte: u8) -> Escape {
        Escape { at: at as u32, length: (end - at) as u16, byte: u16::from(byte) }
    }

    #[inline]
    fn end(self) -> usize {
        self.at as usize + usize::from(self.length)
    }
}

/// The escape at `at`.
#[inline]
fn escape(text: &[u8], at: usize) -> Option<Escape> {
    if let [b'%', high, low, ..] = text[at..] {
        let byte = nibble(high)? << 4 | nibble(low)?;
        // Most stand for nothing that is an escape again.
        if !introduces(byte) || byte >= 0x80 {
            return Some(Escape::new(at, at + 3, byte));
        }
    }
    other_escape(text, at)
}

#[inline(never)]
fn other_escape(text: &[u8], at: usize) -> Option<Escape> {
    let first = text[at];
    if first >= 0x80 {
        return character(text, at);
    }
    let (mut byte, mut end) = follow(text, first, at + 1, false)?;
    for _ in 1..DEPTH_MAX {
        match follow(text, byte, end, true) {
            Some(deeper) => (byte, end) = deeper,
            None => break,
        }
    }
    Some(Escape::new(at, end, byte))
}

/// A character that is not seen, a blank that is none, or a letter of ASCII in full width.
fn character(text: &[u8], at: usize) -> Option<Escape> {
    let unseen = |length| Some(Escape { at: at as u32, length, byte: UNSEEN });
    match text[at..] {
        [0xc2, 0xa0, ..] => Some(Escape::new(at, at + 2, b' ')),
        [0xc2, 0xad, ..] => unseen(2),
        [0xe2, 0x80, 0x8b..=0x8f, ..] | [0xe2, 0x81, 0xa0, ..] | [0xef, 0xbb, 0xbf, ..] => unseen(3),
        [0xef, 0xbc, low @ 0x81..=0xbf, ..] => Some(Escape::new(at, at + 3, low - 0x60)),
        [0xef, 0xbd, low @ 0x80..=0x9e, ..] => Some(Escape::new(at, at + 3, low - 0x20)),
        _ => None,
    }
}

/// What `byte` stands for together with what follows it at `at`.
fn follow(text: &[u8], byte: u8, at: usize, deeper: bool) -> Option<(u8, usize)> {
    match byte {
        b'%' => {
            let (high, at) = digit(text, at, deeper)?;
            let (low, at) = digit(text, at, deeper)?;
            Some((high << 4 | low, at))
        }
        b'&' => entity(text, at),
        b'\\' => backslash(text, at),
        _ => None,
    }
}

/// A hexadecimal digit, which may be percent-encoded itself when its `%` was.
fn digit(text: &[u8], at: usize, deeper: bool) -> Option<(u8, usize)> {
    match text.get(at..at + 3) {
        Some([b'%', high, low]) if deeper => nibble(nibble(*high)? << 4 | nibble(*low)?).map(|digit| (digit, at + 3)),
        _ => nibble(*text.get(at)?).map(|digit| (digit, at + 1)),
    }
}

/// `quot;`, `#34;`, `#x22;` after an `&`.
fn entity(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let named = |word: &[u8], byte: u8| text[at..].starts_with(word).then_some((byte, at + word.len()));
    match (text.get(at)?, text.get(at + 1)?) {
        (b'#', b'x' | b'X' | b'0'..=b'9') => numeric(text, at + 1),
        (b'q', b'u') => named(b"quot;", b'"'),
        (b'a', b'p') => named(b"apos;", b'\''),
        (b'a', b'm') => named(b"amp;", b'&'),
        (b'l', b't') => named(b"lt;", b'<'),
        (b'g', b't') => named(b"gt;", b'>'),
        (b'e', b'q') => named(b"equals;", b'='),
        (b'n', b'b') => named(b"nbsp;", b' '),
        _ => None,
    }
}

/// `34;` or `x22;` after `&#`.
fn numeric(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let radix = if matches!(text.get(at)?, b'x' | b'X') { 16 } else { 10 };
    let from = at + usize::from(radix == 16);
    let mut code = 0;
    for end in from..from + NUMBER_BYTES_MAX {
        match *text.get(end)? {
            b';' if end > from => return u8::try_from(code).ok().filter(u8::is_ascii).map(|byte| (byte, end + 1)),
            digit => code = code * radix + u32::from(nibble(digit).filter(|digit| u32::from(*digit) < radix)?),
        }
    }
    None
}

/// The longest number of an entity, and its semicolon.
const NUMBER_BYTES_MAX: usize = 7;

/// JSON in JSON in JSON in JSON.
const SLASHES_MAX: usize = 15;

/// `u0041`, `u{41}`, `x41`, `101`, `/` after a backslash, also when JSON in JSON has doubled the backslash.
fn backslash(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let more = text[at..].iter().take(SLASHES_MAX).take_while(|byte| **byte == b'\\').count();
    let at = at + more;
    let (digits, end) = match text.get(at)? {
        b'u' if text.get(at + 1)? == &b'{' => return braced(text, at + 2),
        b'u' if text.get(at + 1..at + 3)? == b"00" => (text.get(at + 3..at + 5)?, at + 5),
        b'x' => (text.get(at + 1..at + 3)?, at + 3),
        b'/' => return Some((b'/', at + 1)),
        b'0' | b'1' => return octal(text, at),
        _ => return None,
    };
    let byte = nibble(digits[0])? << 4 | nibble(digits[1])?;
    byte.is_ascii().then_some((byte, end))
}

/// `41}`, `0041}` after `\u{`.
fn braced(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let mut code = 0u32;
    for end in at..at + BRACED_BYTES_MAX {
        match *text.get(end)? {
            b'}' if end > at => return u8::try_from(code).ok().filter(u8::is_ascii).map(|byte| (byte, end + 1)),
            digit => code = code << 4 | u32::from(nibble(digit)?),
        }
    }
    None
}

/// The longest number in braces, and the brace.
const BRACED_BYTES_MAX: usize = 7;

/// `075`: three octal digits of a character that is seen.
fn octal(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let digits = text.get(at..at + 3)?;
    let octal = digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
    let byte = digits.iter().fold(0u32, |byte, digit| byte << 3 | u32::from(digit & 7)) as u8;
    (octal && byte.is_ascii_graphic()).then_some((byte, at + 3))
}

#[inline]
fn nibble(digit: u8) -> Option<u8> {
    let value = NIBBLES[usize::from(digit)];
    (value < 16).then_some(value)
}

const NIBBLES: [u8; 256] = {
    let mut nibbles = [16; 256];
    let mut digit = 0;
    while digit < 256 {
        nibbles[digit] = match digit as u8 {
            byte @ b'0'..=b'9' => byte - b'0',
            byte @ b'a'..=b'f' => byte - b'a' + 10,
            byte @ b'A'..=b'F' => byte - b'A' + 10,
            _ => 16,
        };
        digit += 1;
    }
    nibbles
};

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Option<Shadow> {
        Shadow::of_all(text)
    }

    #[test]
    fn escapes_are_undone_and_lead_back() {
        let text = br#"a%41\u0042\\u0043\x44&quot;%zz\n"#;
        let shadow = of(text).unwrap();
        assert_eq!(shadow.text, br#"aABCD"%zz\n"#);
        assert_eq!(shadow.original(1), 1);
        assert_eq!(shadow.original(2), 4);
        assert_eq!(shadow.original(8), text.len() - 3);
        assert_eq!(shadow.original(shadow.text.len()), text.len());
    }

    #[test]
    fn escapes_of_escapes_are_undone_too() {
        for (text, clear) in [
            (&b"%2541%252541"[..], &b"AA"[..]),
            (b"%25%34%31", b"A"),
            (b"%5Cu0041 &amp;quot; &#61;&#x3D;", b"A \" =="),
            (b"https:\\/\\/x", b"https://x"),
            (b"\\075\\u{41}", b"=A"),
            ("pass\u{200b}word\u{ff1d}\u{ff21}\u{ff42}\u{a0}\u{feff}x".as_bytes(), b"password=Ab x"),
        ] {
            assert_eq!(of(text).unwrap().text, clear);
        }
    }

    #[test]
    fn an_escape_behind_any_run_of_backslashes_is_undone() {
        for slashes in 1..64 {
            let text = ["%41".as_bytes(), &vec![b'\\'; slashes], b"u0042"].concat();
            assert!(of(&text).unwrap().text.ends_with(b"B"), "{slashes}");
        }
    }

    #[test]
    fn a_text_without_escapes_has_no_shadow() {
        for text in [&b"100% of \\n \\\" & more %"[..], b"", b"%", b"\\u", b"\\\\\\\\\\\\\\\\\\"] {
            assert!(of(text).is_none());
        }
    }
}
