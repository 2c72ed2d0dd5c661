//! Any text is answered: quotas that the words can hold, or an error that quotes the text; and what is shown of a quota is
//! read again as the same. `cargo +nightly fuzz run quota`
#![no_main]

use chatcorn::limit::quota::{COUNT_MAX, TOKENS_MAX, WINDOW_S_MAX, parse, parse_tokens};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for (read, count_max) in [(parse as fn(&str) -> _, COUNT_MAX), (parse_tokens, TOKENS_MAX)] {
        match read(text) {
            Ok(quotas) => {
                assert!(quotas.windows(2).all(|pair| pair[0].window_s < pair[1].window_s), "narrow before wide, one a window");
                for quota in &quotas {
                    assert!((1..=count_max).contains(&quota.count) && (1..=WINDOW_S_MAX).contains(&quota.window_s));
                    assert_eq!(read(&quota.to_string()).as_deref(), Ok(&[*quota][..]));
                }
            }
            Err(error) => assert!(error.to_string().len() < 2048, "an error is a sentence"),
        }
    }
});
