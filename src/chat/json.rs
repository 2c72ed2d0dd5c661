//! Strict JSON: no duplicate keys, bounded depth. Pure.
//!
//! serde_json alone takes the last of two equal keys, and two readers that choose differently are a hole.

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Deepest nesting of arrays and objects (`API.md`).
pub const DEPTH_MAX: usize = 32;

/// Reads one JSON value.
///
/// # Errors
/// A sentence with line and column: invalid UTF-8 or syntax, a duplicate key, nesting deeper than [`DEPTH_MAX`],
/// something behind the value.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("invalid UTF-8 at byte {}", error.valid_up_to()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// The deepest nesting of arrays and objects in a text that may not be JSON at all.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Strict, E> {
        match self.depth < DEPTH_MAX {
            true => Ok(Strict { depth: self.depth + 1 }),
            false => Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if map.contains_key(&key) {
                let shown: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("the key {shown:?} is there twice")));
            }
            map.insert(key, members.next_value_seed(inner)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert_eq!(depth(r#"{"a":[1,[2]],"b":"[[[[\"[["}"#), 3);
        assert_eq!((depth(""), depth("]]["), depth(&"[".repeat(99))), (0, 1, 99));
    }

    #[test]
    fn what_is_doubtful_is_refused() {
        let deep = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        for (bad, says) in [
            (r#"{"a":1,"a":2}"#.to_owned(), "twice"),
            (r#"{"x":{"a":1,"\u0061":2}}"#.to_owned(), "twice"),
            (deep(33), "deeper than 32"),
            (deep(5000), "deeper than 32"),
            ("{} {}".to_owned(), "trailing"),
            ("NaN".to_owned(), "expected value"),
            ("1e999".to_owned(), "out of range"),
            (String::new(), "EOF"),
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error} lacks {says}");
        }
        assert!(parse(b"\"\xff\"").unwrap_err().contains("UTF-8 at byte 1"));
        assert!(parse(deep(32).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_back(text in ".{0,40}", number in any::<i64>(), truth in any::<bool>()) {
            let value = serde_json::json!({"t": text, "n": [number, null, {"b": truth}]});
            prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
