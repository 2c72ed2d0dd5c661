//! Holds a reply to one JSON object: which bytes may come next. Pure.
//!
//! ```text
//! {  key : value , key : value …  }      one byte, one step; `None` for a byte that has no place there
//! ```
//! Stricter than RFC 8259 where a reader may be: no whitespace around the object, no long runs of it inside, no number
//! that overflows, no `\u` escape of half a surrogate pair, no deep nesting. So a small model comes to an end, and
//! every reader takes the result.
//!
//! In place of llama.cpp's grammar sampler: that one wants the whole vocabulary through C++ at every token, and aborts
//! the process when a token that it did not foresee is accepted.

/// Deepest nesting, as what clients may send.
const DEPTH_MAX: u32 = 32;
/// Whitespace in a row: a line's end and the indentation of deep nesting.
const SPACES_MAX: u8 = 33;
/// Digits before and after the point: any reader's double keeps so many exactly.
const DIGITS_MAX: u8 = 15;
/// Digits of an exponent: with the others far from overflow.
const EXPONENT_MAX: u8 = 2;

/// How far an object has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    at: At,
    /// What is open, innermost last: 1 for an object, 0 for an array.
    open: u64,
    depth: u32,
    spaces: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    /// A key, or the end of an empty object.
    FirstKey,
    Key,
    Colon,
    /// A value, or the end of an empty array.
    FirstValue,
    Value,
    AfterValue,
    /// In a string; true for a key.
    Text(bool),
    Escape(bool),
    /// Hexadecimal digits still to come; true after a first one that may begin a surrogate.
    Hex(bool, u8, bool),
    Minus,
    Zero,
    Whole(u8),
    Point,
    Fraction(u8),
    Exponent,
    Sign,
    Power(u8),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    End,
}

impl Default for Object {
    fn default() -> Object {
        Object { at: At::Start, open: 0, depth: 0, spaces: 0 }
    }
}

impl Object {
    /// True when the object is whole; nothing may follow.
    pub fn is_whole(&self) -> bool {
        self.at == At::End
    }

    /// After these bytes as well; `None` when one of them has no place.
    pub fn after(self, bytes: &[u8]) -> Option<Object> {
        bytes.iter().try_fold(self, |object, byte| object.step(*byte))
    }

    fn step(self, byte: u8) -> Option<Object> {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') && self.may_pause() {
            let at = if self.at.ends_number() { At::AfterValue } else { self.at };
            return (self.spaces < SPACES_MAX).then_some(Object { at, spaces: self.spaces + 1, ..self });
        }
        let now = Object { spaces: 0, ..self };
        match (self.at, byte) {
            (At::Start, b'{') => now.opened(true),
            (At::FirstKey | At::AfterValue, b'}') if self.in_object() => now.closed(),
            (At::FirstValue | At::AfterValue, b']') if !self.in_object() => now.closed(),
            (At::FirstKey | At::Key, b'"') => now.to(At::Text(true)),
            (At::Colon, b':') => now.to(At::Value),
            (At::AfterValue, b',') => now.to(if self.in_object() { At::Key } else { At::Value }),
            (At::FirstValue | At::Value, _) => now.value(byte),
            (At::Text(key), _) => now.text(key, byte),
            (At::Escape(key), b'u') => now.to(At::Hex(key, 4, false)),
            (At::Escape(key), b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => now.to(At::Text(key)),
            (At::Hex(key, left, surrogate), _) => now.hex(key, left, surrogate, byte),
            (At::Word([next, rest @ ..]), _) if *next == byte => {
                now.to(if rest.is_empty() { At::AfterValue } else { At::Word(rest) })
            }
            _ => now.number(byte),
        }
    }

    fn may_pause(&self) -> bool {
        use At::{AfterValue, Colon, FirstKey, FirstValue, Key, Value};
        matches!(self.at, FirstKey | Key | Colon | FirstValue | Value | AfterValue) || self.at.ends_number()
    }

    fn in_object(&self) -> bool {
        self.open & 1 == 1
    }

    #[allow(clippy::unnecessary_wraps, reason = "reads well among its neighbours")]
    fn to(self, at: At) -> Option<Object> {
        Some(Object { at, ..self })
    }

    fn opened(self, object: bool) -> Option<Object> {
        let at = if object { At::FirstKey } else { At::FirstValue };
        let open = self.open << 1 | u64::from(object);
        (self.depth < DEPTH_MAX).then_some(Object { at, open, depth: self.depth + 1, ..self })
    }

    fn closed(self) -> Option<Object> {
        let at = if self.depth == 1 { At::End } else { At::AfterValue };
        Some(Object { at, open: self.open >> 1, depth: self.depth - 1, ..self })
    }

    fn value(self, byte: u8) -> Option<Object> {
        match byte {
            b'{' => self.opened(true),
            b'[' => self.opened(false),
            b'"' => self.to(At::Text(false)),
            b't' => self.to(At::Word(b"rue")),
            b'f' => self.to(At::Word(b"alse")),
            b'n' => self.to(At::Word(b"ull")),
            b'-' => self.to(At::Minus),
            b'0' => self.to(At::Zero),
            b'1'..=b'9' => self.to(At::Whole(1)),
            _ => None,
        }
    }

    fn text(self, key: bool, byte: u8) -> Option<Object> {
        match byte {
            b'"' => self.to(if key { At::Colon } else { At::AfterValue }),
            b'\\' => self.to(At::Escape(key)),
            0..0x20 => None,
            _ => Some(self),
        }
    }

    /// The surrogates are D800 to DFFF: who means one writes the character itself.
    fn hex(self, key: bool, left: u8, surrogate: bool, byte: u8) -> Option<Object> {
        if !byte.is_ascii_hexdigit() || (surrogate && !byte.is_ascii_digit()) || (surrogate && byte > b'7') {
            return None;
        }
        let begins = left == 4 && byte.eq_ignore_ascii_case(&b'd');
        self.to(if left == 1 { At::Text(key) } else { At::Hex(key, left - 1, begins) })
    }

    fn number(self, byte: u8) -> Option<Object> {
        match (self.at, byte) {
            (At::Minus, b'0') => self.to(At::Zero),
            (At::Minus, b'1'..=b'9') => self.to(At::Whole(1)),
            (At::Whole(count), b'0'..=b'9') if count < DIGITS_MAX => self.to(At::Whole(count + 1)),
            (At::Zero | At::Whole(_), b'.') => self.to(At::Point),
            (At::Point, b'0'..=b'9') => self.to(At::Fraction(1)),
            (At::Fraction(count), b'0'..=b'9') if count < DIGITS_MAX => self.to(At::Fraction(count + 1)),
            (At::Zero | At::Whole(_) | At::Fraction(_), b'e' | b'E') => self.to(At::Exponent),
            (At::Exponent, b'+' | b'-') => self.to(At::Sign),
            (At::Exponent | At::Sign, b'0'..=b'9') => self.to(At::Power(1)),
            (At::Power(count), b'0'..=b'9') if count < EXPONENT_MAX => self.to(At::Power(count + 1)),
            (at, b',' | b']' | b'}') if at.ends_number() => Object { at: At::AfterValue, ..self }.step(byte),
            _ => None,
        }
    }
}

impl At {
    /// A number may be whole here.
    fn ends_number(self) -> bool {
        matches!(self, At::Zero | At::Whole(_) | At::Fraction(_) | At::Power(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn whole(text: &str) -> bool {
        Object::default().after(text.as_bytes()).is_some_and(|object| object.is_whole())
    }

    #[test]
    fn objects_are_taken_to_their_end_and_nothing_else_is() {
        for good in [
            "{}",
            r#"{ "a" : [ 1 , -0.5e+10 , true,false , null ] , "b":{"c":[]}, "é\u00e9\n\/":"😀 \uD7FF" }"#,
            "{\n    \"n\": 0\n}",
            r#"{"a":[[[{}]]],"b":123456789012345.123456789012345E-99}"#,
        ] {
            assert!(whole(good) && serde_json::from_str::<Value>(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " {}",
            "{} ",
            "[]",
            "1",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":[1,]}",
            "{\"a\":[}",
            "{\"a\":{]",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.1}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":-}",
            "{\"a\":tru}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\ud83d\\ude00\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":1e999}",
            "{'a':1}",
            "{}{}",
        ] {
            assert!(!whole(bad), "{bad}");
        }
        let spaced = |count| format!("{{{}}}", " ".repeat(count));
        assert!(whole(&spaced(33)) && !whole(&spaced(34)));
        let deep = |count| format!("{{\"a\":{}{}}}", "[".repeat(count), "]".repeat(count));
        assert!(whole(&deep(31)) && !whole(&deep(32)));
    }

    fn objects() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-999_999_999_999_999i64..1_000_000_000_000_000).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let any = leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        });
        prop::collection::btree_map(".{0,4}", any, 0..4).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_a_writer_writes_is_taken(object in objects()) {
            prop_assert!(whole(&object.to_string()));
            prop_assert!(whole(&serde_json::to_string_pretty(&object).unwrap()));
        }

        /// Steps at random, as a model without any sense takes them: whatever comes of it can be read.
        #[test]
        fn what_comes_of_any_steps_can_be_read(choices in prop::collection::vec((any::<u16>(), 0..6u8), 1..400)) {
            let (mut object, mut text) = (Object::default(), Vec::new());
            for (choice, wish) in choices {
                let wished = [b'"', b'}', b']', b',', b':', 0][usize::from(wish)];
                let byte = match object.after(&[wished]) {
                    Some(_) if wished != 0 => Some(wished),
                    _ => (0..=127u16).map(|at| (at.wrapping_add(choice) % 128) as u8).find(|byte| object.after(&[*byte]).is_some()),
                };
                let Some(byte) = byte else { break };
                object = object.after(&[byte]).unwrap();
                text.push(byte);
            }
            if object.is_whole() {
                prop_assert!(serde_json::from_slice::<Value>(&text).is_ok(), "{}", String::from_utf8_lossy(&text));
            } else {
                prop_assert!((0..=127).any(|byte| object.after(&[byte]).is_some()), "there is always a way on");
            }
        }
    }
}
