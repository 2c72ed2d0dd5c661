//! A text with its escapes undone, and where each byte of it came from.
//!
//! A secret that is percent-encoded, `\u`-escaped or HTML-escaped is found in the shadow and cut out of the original.

/// The shadow of a text.
pub(super) struct Shadow {
    pub(super) text: Vec<u8>,
    /// For each byte of `text`, and for its end, the offset in the original.
    from: Vec<u32>,
}

impl Shadow {
    /// The shadow of `text`; none when nothing in it is escaped.
    pub(super) fn of(text: &[u8]) -> Option<Shadow> {
        let first = first_escape(text)?;
        let mut shadow = Shadow { text: Vec::with_capacity(text.len()), from: Vec::with_capacity(text.len() + 1) };
        shadow.text.extend_from_slice(&text[..first]);
        shadow.from.extend(0..first as u32);
        let mut at = first;
        while at < text.len() {
            let (byte, length) = match text[at] {
                b'%' | b'\\' | b'&' => escape(&text[at..]).unwrap_or((text[at], 1)),
                _ => {
                    let plain = memchr::memchr3(b'%', b'\\', b'&', &text[at..]).unwrap_or(text.len() - at);
                    shadow.text.extend_from_slice(&text[at..at + plain]);
                    shadow.from.extend(at as u32..(at + plain) as u32);
                    at += plain;
                    continue;
                }
            };
            shadow.text.push(byte);
            shadow.from.push(at as u32);
            at += length;
        }
        shadow.from.push(text.len() as u32);
        Some(shadow)
    }

    /// Where `at` in the shadow lies in the original.
    pub(super) fn original(&self, at: usize) -> usize {
        self.from.get(at).or(self.from.last()).map_or(0, |at| *at as usize)
    }
}

fn first_escape(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at = match text.get(at)? {
            b'%' | b'&' if escape(&text[at..]).is_some() => return Some(at),
            b'%' | b'&' => at + 1,
            b'\\' if escape(&text[at..]).is_some() => return Some(at),
            // A run of backslashes is one question, not one for each.
            b'\\' => super::text::run(text, at, |byte| byte == b'\\'),
            _ => at + memchr::memchr3(b'%', b'\\', b'&', &text[at..])?,
        }
    }
}

/// The byte that the escape at the start of `text` stands for, and the escape's length.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    match text[0] {
        b'%' => Some((pair(text.get(1..3)?)?, 3)),
        b'&' => ENTITIES.iter().find(|(name, _)| text.starts_with(name)).map(|(name, byte)| (*byte, name.len())),
        _ => backslash(text),
    }
}

const ENTITIES: [(&[u8], u8); 6] =
    [(b"&quot;", b'"'), (b"&#34;", b'"'), (b"&#39;", b'\''), (b"&#x27;", b'\''), (b"&amp;", b'&'), (b"&#x2F;", b'/')];

/// JSON in JSON in JSON in JSON.
const SLASHES_MAX: usize = 16;

/// `\u0041`, `\x41`, also when JSON in JSON has doubled the backslash.
fn backslash(text: &[u8]) -> Option<(u8, usize)> {
    let slashes = text.iter().take(SLASHES_MAX).take_while(|byte| **byte == b'\\').count();
    let (digits, length) = match text.get(slashes)? {
        b'u' if text.get(slashes + 1..slashes + 3)? == b"00" => (text.get(slashes + 3..slashes + 5)?, slashes + 5),
        b'x' => (text.get(slashes + 1..slashes + 3)?, slashes + 3),
        _ => return None,
    };
    pair(digits).filter(u8::is_ascii).map(|byte| (byte, length))
}

fn pair(digits: &[u8]) -> Option<u8> {
    Some(nibble(digits[0])? << 4 | nibble(digits[1])?)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

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
        assert_eq!(shadow.original(shadow.text.len()), text.len());
    }

    #[test]
    fn a_text_without_escapes_has_no_shadow() {
        for text in [&b"100% of \\n \\\" & more %"[..], b"", b"%", b"\\u", b"\\\\\\\\\\\\\\\\\\"] {
            assert!(Shadow::of(text).is_none());
        }
    }
}
