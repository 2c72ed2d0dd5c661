//! The redactor takes any bytes, makes nothing grow without bound, and lets no planted secret through.
//! `cargo +nightly fuzz run redact`
#![no_main]

use chatcorn::log::redact::{Redactor, Trail, filter};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(&[]).expect("the built-in patterns compile"));

/// Shows by itself wherever a word may begin.
const SECRET: &[u8] = b"hf_QwErTyUiOpAsDfGhJkLzXcVbNmQ7Z4K1P9W";
/// A mark and its dress for each byte at most, and the same for what the trail covers.
const GROWTH_MAX: usize = 16;

fuzz_target!(|input: &[u8]| {
    let [cut, text @ ..] = input else { return };
    let at = usize::from(*cut) * text.len() / 256;
    let (before, after) = text.split_at(at);
    let planted = [before, b" ", SECRET, b" ", after].concat();
    let mut trail = Trail::default();
    for _ in 0..2 {
        let out = REDACTOR.line_after(&planted, &mut trail);
        assert!(out.len() <= planted.len() * GROWTH_MAX + 64);
        assert!(!out.windows(8).any(|window| SECRET.windows(8).any(|secret| secret == window)) || shown_before(before, after));
    }
    let mut lines = Vec::new();
    filter(&REDACTOR, &planted[..], &mut lines).expect("memory does not fail");
    assert!(lines.len() <= planted.len() * GROWTH_MAX + 64);
    let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(count(&lines), count(&planted), "lines stay lines");
});

/// The fuzzer has found the secret's own letters: they stand there without being one.
fn shown_before(before: &[u8], after: &[u8]) -> bool {
    [before, after].iter().any(|part| part.windows(8).any(|window| SECRET.windows(8).any(|secret| secret == window)))
}
