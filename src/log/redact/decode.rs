//! A text with all its escapes undone, and where each byte of it came from.
//!
//! A secret that is percent-encoded, `\u`-escaped or HTML-escaped, also twice over, is found in the shadow and cut out of
//! the original.

/// The shadow of a text.
pub(super) struct Shadow {
    pub(super) text: Vec<u8>,
    /// Where stretches begin that lie in the original as they lie here: offset here, offset there.
    stretches: Vec<(u32, u32)>,
}

/// A shadow begins so far before the first escape: a name and its separator.
const LEAD_BYTES: usize = 160;
/// An escape in an escape in an escape.
const DEPTH_MAX: usize = 5;

impl Shadow {
    /// Where the shadow of `text` begins; nothing when nothing in it is escaped.
    pub(super) fn begins(text: &[u8]) -> Option<usize> {
        first_escape(text).map(|first| first.saturating_sub(LEAD_BYTES))
    }

    /// The shadow of `text` from a little before its first escape on; none when nothing in it is escaped.
    pub(super) fn of(text: &[u8]) -> Option<Shadow> {
        let first = first_escape(text)?;
        let from = first.saturating_sub(LEAD_BYTES);
        let length = text.len() - from;
        let mut shadow = Shadow { text: Vec::with_capacity(length), stretches: Vec::with_capacity(2 + length / 2) };
        shadow.stretches.push((0, from as u32));
        shadow.text.extend_from_slice(&text[from..first]);
        let mut at = first;
        while at < text.len() {
            match escape(text, at) {
                Some((byte, end)) => {
                    shadow.stretches.push((shadow.text.len() as u32, at as u32));
                    shadow.text.push(byte);
                    at = end;
                }
                None => {
                    let from = at;
                    at = introducer(text, past(text, at)).unwrap_or(text.len());
                    shadow.stretch(from);
                    shadow.text.extend_from_slice(&text[from..at]);
                }
            }
        }
        shadow.stretches.push((shadow.text.len() as u32, text.len() as u32));
        Some(shadow)
    }

    /// What comes next lies at `there` in the original: a stretch of its own, unless the last one goes on.
    fn stretch(&mut self, there: usize) {
        let here = self.text.len() as u32;
        let goes_on = self.stretches.last().is_some_and(|(from, at)| here - from == there as u32 - at);
        if !goes_on {
            self.stretches.push((here, there as u32));
        }
    }

    /// How many escapes and stretches between them it was made of.
    pub(super) fn escapes(&self) -> usize {
        self.stretches.len()
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

fn first_escape(text: &[u8]) -> Option<usize> {
    let mut at = introducer(text, 0)?;
    loop {
        if escape(text, at).is_some() {
            return Some(at);
        }
        at = introducer(text, past(text, at))?;
    }
}

/// Behind what begins no escape at `at`: a run of backslashes is one question, not one for each; of a longer one than
/// an escape may have, its end is another.
fn past(text: &[u8], at: usize) -> usize {
    if text[at] != b'\\' {
        return at + 1;
    }
    let same = text[at..].iter().take_while(|byte| **byte == b'\\').count();
    at + if same > SLASHES_MAX { (same - SLASHES_MAX).max(1) } else { same }
}

/// The first byte at or after `from` that may begin an escape. Whole blocks without one are passed over; in others each
/// byte is looked at, for there may be many.
fn introducer(text: &[u8], from: usize) -> Option<usize> {
    let introduces = |byte: &u8| matches!(byte, b'%' | b'\\' | b'&');
    let mut at = from;
    loop {
        let near = text.len().min(at + 8);
        at = match text.get(at..near)?.iter().position(introduces) {
            Some(steps) => at + steps,
            None => swift(text, near)?,
        };
        if begins(text, at) {
            return Some(at);
        }
        at = past(text, at);
    }
}

/// The first byte at or after `at` that introduces escapes, looked for in blocks.
fn swift(text: &[u8], mut at: usize) -> Option<usize> {
    let introduces = |byte: &u8| matches!(byte, b'%' | b'\\' | b'&');
    loop {
        let block = text.get(at..text.len().min(at + BLOCK_BYTES)).filter(|block| !block.is_empty())?;
        if block.iter().fold(false, |any, byte| any | introduces(byte)) {
            return block.iter().position(introduces).map(|steps| at + steps);
        }
        at += block.len();
    }
}

const BLOCK_BYTES: usize = 32;

/// True where an escape may begin: the next bytes fit.
fn begins(text: &[u8], at: usize) -> bool {
    match (text[at], text.get(at + 1)) {
        (b'%', Some(next)) => nibble(*next).is_some() && text.get(at + 2).is_some_and(|low| nibble(*low).is_some()),
        (b'\\', Some(_)) => {
            let after = text[at..].iter().take(SLASHES_MAX + 1).take_while(|byte| **byte == b'\\').count();
            match text.get(at + after) {
                Some(b'u') => text[at + after + 1..].starts_with(b"00"),
                next => matches!(next, Some(b'x' | b'/')),
            }
        }
        (b'&', Some(next)) => {
            let second = text.get(at + 2).copied().unwrap_or(0);
            matches!(
                (*next, second),
                (b'#', _) | (b'q', b'u') | (b'a', b'm' | b'p') | (b'l' | b'g', b't') | (b'e', b'q')
            )
        }
        _ => false,
    }
}

/// The byte that the escape at `at` stands for in the end, and the escape's end.
fn escape(text: &[u8], at: usize) -> Option<(u8, usize)> {
    if !begins(text, at) {
        return None;
    }
    // Most are a percent sign and two digits, and stand for nothing that is an escape again.
    if let [b'%', high, low, ..] = text[at..] {
        let byte = nibble(high)? << 4 | nibble(low)?;
        if !matches!(byte, b'%' | b'&' | b'\\') {
            return Some((byte, at + 3));
        }
    }
    let (mut byte, mut end) = follow(text, text[at], at + 1, false)?;
    for _ in 1..DEPTH_MAX {
        match follow(text, byte, end, true) {
            Some(deeper) => (byte, end) = deeper,
            None => break,
        }
    }
    Some((byte, end))
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

const ENTITIES: [(&[u8], u8); 6] =
    [(b"quot;", b'"'), (b"apos;", b'\''), (b"amp;", b'&'), (b"lt;", b'<'), (b"gt;", b'>'), (b"equals;", b'=')];

/// `quot;`, `#34;`, `#x22;` after an `&`.
fn entity(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let rest = &text[at..text.len().min(at + 8)];
    if let [b'#', number @ ..] = rest {
        let end = number.iter().position(|byte| *byte == b';')?;
        let number = std::str::from_utf8(&number[..end]).ok()?;
        let code = match number.strip_prefix(['x', 'X']) {
            Some(digits) => u8::from_str_radix(digits, 16),
            None => number.parse(),
        };
        return code.ok().filter(u8::is_ascii).map(|byte| (byte, at + 2 + end));
    }
    ENTITIES.iter().find(|(name, _)| rest.starts_with(name)).map(|(name, byte)| (*byte, at + name.len()))
}

/// JSON in JSON in JSON in JSON.
const SLASHES_MAX: usize = 15;

/// `u0041`, `x41`, `/` after a backslash, also when JSON in JSON has doubled the backslash.
fn backslash(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let more = text[at..].iter().take(SLASHES_MAX).take_while(|byte| **byte == b'\\').count();
    let at = at + more;
    let (digits, end) = match text.get(at)? {
        b'u' if text.get(at + 1..at + 3)? == b"00" => (text.get(at + 3..at + 5)?, at + 5),
        b'x' => (text.get(at + 1..at + 3)?, at + 3),
        b'/' => return Some((b'/', at + 1)),
        _ => return None,
    };
    let byte = nibble(digits[0])? << 4 | nibble(digits[1])?;
    byte.is_ascii().then_some((byte, end))
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

    #[test]
    fn escapes_are_undone_and_lead_back() {
        let text = br#"a%41\u0042\\u0043\x44&quot;%zz\n"#;
        let shadow = Shadow::of(text).unwrap();
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
        ] {
            assert_eq!(Shadow::of(text).unwrap().text, clear);
        }
    }

    #[test]
    fn an_escape_behind_any_run_of_backslashes_is_undone() {
        for slashes in 1..64 {
            let text = ["%41".as_bytes(), &vec![b'\\'; slashes], b"u0042"].concat();
            assert!(Shadow::of(&text).unwrap().text.ends_with(b"B"), "{slashes}");
        }
    }

    #[test]
    fn a_text_without_escapes_has_no_shadow() {
        for text in [&b"100% of \\n \\\" & more %"[..], b"", b"%", b"\\u", b"\\\\\\\\\\\\\\\\\\"] {
            assert!(Shadow::of(text).is_none());
        }
    }
}
