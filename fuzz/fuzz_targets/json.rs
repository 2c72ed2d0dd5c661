//! The strict reader takes nothing that serde_json would not, and reads it as serde_json does; no body makes a reader of bodies panic.
#![no_main]

use bytes::Bytes;
use chatcorn::chat::ask::{Ask, MESSAGE_CHARS_MAX, ModeChange};
use chatcorn::chat::{json, openai};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let loose = serde_json::from_slice::<Value>(input);
    if let Ok(strict) = json::parse(input) {
        assert_eq!(Some(&strict), loose.as_ref().ok());
        assert!(json::depth(&strict.to_string()) <= json::DEPTH_MAX);
        // What we write down others can read; a long number may lose its last digit in between.
        assert!(json::parse(strict.to_string().as_bytes()).is_ok());
    }
    if let Ok(ask) = Ask::parse(input) {
        assert!((1..=MESSAGE_CHARS_MAX).contains(&ask.message.chars().count()));
        assert_eq!(ask.message.trim(), ask.message);
    }
    let _ = ModeChange::parse(input);
    for own_engine in [false, true] {
        let model = own_engine.then_some("another");
        let read = openai::Ask::read(Bytes::copy_from_slice(input), openai::Rules { own_engine, model });
        if let Ok(ask) = read {
            // By its grammar: a lone surrogate or 1e999 where nobody looks is for the upstream to judge.
            assert!(serde_json::from_slice::<IgnoredAny>(input).is_ok(), "an upstream would be sent what is no JSON");
            if loose.is_err() {
                continue;
            }
            let sent = serde_json::from_slice::<Value>(&ask.body).expect("JSON goes out");
            assert!(model.is_none_or(|model| sent["model"] == model));
            assert_eq!(ask.stream, sent["stream"] == true);
        }
    }
});
