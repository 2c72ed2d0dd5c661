//! The `Date` field of answers that hyper does not write: made once a second and thread.

use crate::sys::clock;
use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

thread_local! {
    static TOLD: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}

/// Appends the time as HTTP writes it (RFC 9110, section 5.6.7).
pub fn write(out: &mut Vec<u8>) {
    write_at(clock::epoch_coarse_ms() / 1_000, out);
}

fn write_at(epoch_s: u64, out: &mut Vec<u8>) {
    TOLD.with_borrow_mut(|(told_s, text)| {
        if *told_s != epoch_s {
            *told_s = epoch_s;
            text.clear();
            // Writing to a vector does not fail.
            let _ = write!(text, "{}", httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(epoch_s)));
        }
        out.extend_from_slice(text);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own() {
        let told = |epoch_s| {
            let mut out = Vec::new();
            write_at(epoch_s, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(told(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(told(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
