//! A PROXY header is found however it arrives, and ends where it says.
#![no_main]

use chatcorn::http::proxy::{Found, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Found::Header(bytes, client) => {
            assert!(bytes <= input.len());
            assert_eq!(parse(&input[..bytes]), Found::Header(bytes, client));
            assert!((0..bytes).all(|cut| parse(&input[..cut]) == Found::More));
        }
        // What more bytes could still make whole began as one.
        Found::More => assert!((0..input.len()).all(|cut| parse(&input[..cut]) == Found::More)),
        Found::Bad => {}
    }
});
