//! No file of keys makes its reader panic, and no presented bytes are taken for a key but those of which the file holds the digest.
#![no_main]

use chatcorn::http::keys::{Keys, Standing, id_of, issue};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::LazyLock;

static ISSUED: LazyLock<(String, Keys)> = LazyLock::new(|| {
    let (key, record) = issue("one", 0).expect("random bytes");
    let text = serde_json::json!({"keys": [record]}).to_string();
    (key, Keys::parse(&text, Path::new("keys")).expect("our own record"))
});

fuzz_target!(|input: &[u8]| {
    let (key, keys) = &*ISSUED;
    // A key with some of its bytes changed by the input, and with what more there is of the input behind it.
    let mut near: Vec<u8> =
        key.bytes().enumerate().map(|(at, byte)| byte ^ input.get(at).copied().unwrap_or(0)).collect();
    near.extend_from_slice(input.get(key.len()..).unwrap_or_default());
    for presented in [input, &near] {
        let good = matches!(keys.look(presented, 1), Standing::Good(..));
        assert_eq!(good, presented == key.as_bytes());
        assert!(!good || id_of(presented).is_some());
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(read) = Keys::parse(text, Path::new("keys")) {
        assert_eq!(read.look(key.as_bytes(), 1), Standing::Unknown);
        read.quotas();
    }
});
