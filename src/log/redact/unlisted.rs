//! Tokens of makers that the table does not list: a short name in small letters, `_` or `-`, and behind it a long run of
//! capitals, small letters and digits in no order that a person writes.
//!
//! Names of programs change from capitals to small letters a few times, hashes and ids have no capitals or no name in
//! front, and ids with one are shorter.

use super::text::{Text, url_safe, word_begins};
use super::tokens::trimmed;
use std::ops::Range;

/// What follows the name is at least so long; ids of calls, messages and customers have 24 to 29.
const TAIL_BYTES_MIN: usize = 30;
const HEAD_BYTES_MAX: usize = 24;
/// So many bytes of it are looked at, and between so many of them the kind changes: of random ones some twenty.
const LOOKED_BYTES: usize = 32;
const CHANGES_MIN: u8 = 13;
/// Each run that is long enough has two bytes so far apart of which the first is at a multiple of it.
const STEP_BYTES: usize = TAIL_BYTES_MIN / 2;
/// What a step costs.
const STEP_COST: usize = 2;
/// What a run costs, and how many bytes of it are passed over in a nanosecond.
const RUN_COST: usize = 24;
const RUN_BYTES: usize = 2;
/// What a closer look at a run with a mark costs, beside the bytes of its name.
const LOOK_COST: usize = 50;

/// All of them, each step and each run charged to the text; or where they cost more than `worth`.
pub(super) fn tokens(text: &Text<'_>, worth: usize, mut found: impl FnMut(Range<usize>)) -> Result<(), usize> {
    let mut at = 0;
    while let Some(step) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        if !is_run(step) {
            text.spend(STEP_COST);
            at += STEP_BYTES;
            continue;
        }
        let from = at - text[..at].iter().rev().take_while(|byte| url_safe(**byte)).count();
        let end = at + text[at..].iter().take_while(|byte| url_safe(**byte)).count();
        text.spend(RUN_COST + (end - from) / RUN_BYTES);
        if text.spent() > worth {
            return Err(from);
        }
        if let Some(mark) = first_mark(text, from, end)
            && let Some(start) = head(text, mark).filter(|_| random(&text[mark + 1..end]))
        {
            found(start..trimmed(text, mark, end));
        }
        at = end + 1;
    }
    Ok(())
}

/// One question for all bytes of a step, in the processor's wide registers: most words are shorter, and a question each
/// would be guessed wrong.
fn is_run(step: &[u8; STEP_BYTES + 1]) -> bool {
    step.iter().fold(true, |all, byte| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        all & (letter | (byte.wrapping_sub(b'0') < 10) | (*byte == b'_') | (*byte == b'-'))
    })
}

/// What ends the name, with room for the rest behind it.
fn first_mark(text: &[u8], from: usize, end: usize) -> Option<usize> {
    let last = end.checked_sub(TAIL_BYTES_MIN)?;
    memchr::memchr2(b'_', b'-', text.get(from..last)?).map(|at| from + at)
}

/// Where the name before the mark begins.
fn head(text: &Text<'_>, mark: usize) -> Option<usize> {
    let floor = mark.saturating_sub(HEAD_BYTES_MAX);
    let named = |byte: &&u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || **byte == b'_';
    let length = text[floor..mark].iter().rev().take_while(named).count();
    text.spend(LOOK_COST + length);
    // A word may begin within it: behind an escape, or a colour's last letter.
    let start = (mark - length..mark).find(|at| text[*at].is_ascii_lowercase() && word_begins(text, *at))?;
    let name = &text[start..mark];
    let hash = [&b"sha"[..], b"md5", b"blake"].iter().any(|kind| name.starts_with(kind));
    (name.len() >= 2 && !hash).then_some(start)
}

/// Capitals, small letters and digits, each often, and by turns.
fn random(tail: &[u8]) -> bool {
    let tail = &tail[..tail.len().min(LOOKED_BYTES)];
    if tail.len() < TAIL_BYTES_MIN {
        return false;
    }
    let (mut counts, mut changes, mut abrupt) = ([0u8; 4], 0u8, 0u8);
    let mut before = KINDS[usize::from(tail[0])];
    for byte in tail {
        let kind = KINDS[usize::from(*byte)];
        counts[usize::from(kind)] += 1;
        changes += u8::from(kind != before);
        // In names a small letter follows a capital.
        abrupt += u8::from((before == CAPITAL) & (kind != SMALL));
        before = kind;
    }
    // The first byte follows none.
    let abrupt = abrupt - u8::from(KINDS[usize::from(tail[0])] == CAPITAL);
    let kinds = counts[0] > 3 && counts[1] > 3 && counts[2] > 1;
    kinds && abrupt > 2 && changes.saturating_sub(counts[3]) >= CHANGES_MIN
}

const SMALL: u8 = 0;
const CAPITAL: u8 = 1;

const KINDS: [u8; 256] = {
    let mut kinds = [3; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' => SMALL,
            b'A'..=b'Z' => CAPITAL,
            b'0'..=b'9' => 2,
            _ => 3,
        };
        byte += 1;
    }
    kinds
};

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        assert_eq!(tokens(&Text::new(text.as_bytes(), 0), 10_000, |range| found.push(&text[range])), Ok(()));
        found
    }

    #[test]
    fn a_name_and_a_random_run_are_a_token() {
        for token in [
            "acme_Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB9",
            "acme_live_x9_aB3-dE5gH7jK9mN1pQ3sT5vX7zC2e",
            "abc-Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB9",
        ] {
            assert_eq!(found(&format!("got {token}.")), [token], "{token}");
        }
    }

    #[test]
    fn a_colour_hides_no_token() {
        let token = "acme_Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB9";
        assert_eq!(found(&format!("\u{1b}[31m{token}\u{1b}[0m")), [token]);
    }

    #[test]
    fn names_hashes_and_ids_are_none() {
        for text in [
            "test_shouldReturnHttp404WhenUserIsNotFoundInDb2",
            "integrity sha512-Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB9Zf3D0LXCM3EIMbg==",
            "call_Zf3D0LXCM3EIMbgJpUNnkRtO chatcmpl-Zf3D0LXCM3EIMbgJpUNnkRtOfOueH",
            "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
            "rust_begin_unwind_and_then_some_more_words_of_it_2",
            "X_Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB9",
            "request_id=d3f1c2a4-5b6c-4d7e-8f90-a1b2c3d4e5f6",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }
}
