//! From token bytes to text that may leave: whole characters, and never a stop text or the beginning of one.

/// Most stop texts, as in the OpenAI API.
pub const STOPS_MAX: usize = 4;
/// Longest stop text in bytes; so much at most is held back.
pub const STOP_BYTES_MAX: usize = 256;

/// Holds back what is not certain yet.
#[derive(Debug, Default)]
pub struct Holdback {
    /// Bytes of a character that is not complete.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop text.
    held: String,
    stops: Vec<String>,
    stopped: bool,
}

impl Holdback {
    /// Ends at the first of `stops`, none of which is empty.
    pub fn new(stops: Vec<String>) -> Holdback {
        Holdback { stops, ..Holdback::default() }
    }

    /// True once a stop text was found: nothing more comes out.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes the bytes of a token and gives the text that is certain now.
    pub fn push(&mut self, piece: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(piece);
        let text = take_characters(&mut self.bytes);
        self.held.push_str(&text);
        self.release()
    }

    /// What is left at the end; bytes that never became a character are U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        self.held.push_str(&rest);
        let before = self.release();
        if self.stopped { before } else { before + &std::mem::take(&mut self.held) }
    }

    fn release(&mut self) -> String {
        if let Some(start) = first_stop(&self.held, &self.stops) {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let certain = self.held.len() - longest_beginning(&self.held, &self.stops);
        let kept = self.held.split_off(certain);
        std::mem::replace(&mut self.held, kept)
    }
}

/// Where the stop text begins that is complete first; of those that end together, the longest.
///
/// By its end and not by its start: so the result is the same however the text was cut into tokens.
fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    let found = stops.iter().filter_map(|stop| text.find(stop.as_str()).map(|start| (start + stop.len(), start)));
    found.min().map(|(_, start)| start)
}

/// Bytes at the end of `text` that one of `stops` begins with.
fn longest_beginning(text: &str, stops: &[String]) -> usize {
    let of = |stop: &String| {
        let longest = stop.len().saturating_sub(1).min(text.len());
        (1..=longest).rev().find(|length| text.as_bytes().ends_with(&stop.as_bytes()[..*length])).unwrap_or(0)
    };
    stops.iter().map(of).max().unwrap_or(0)
}

/// Takes whole characters from the front; invalid bytes become U+FFFD, an incomplete character stays.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        at += chunk.valid().len();
        let incomplete = chunks.peek().is_none() && is_beginning(chunk.invalid());
        if !chunk.invalid().is_empty() && !incomplete {
            text.push(char::REPLACEMENT_CHARACTER);
            at += chunk.invalid().len();
        }
    }
    bytes.drain(..at);
    text
}

/// True for bytes that more bytes could make a character of.
fn is_beginning(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(pieces: &[&[u8]], stops: &[&str]) -> (Vec<String>, bool) {
        let mut hold = Holdback::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out: Vec<String> = pieces.iter().map(|piece| hold.push(piece)).collect();
        out.push(hold.finish());
        (out, hold.stopped())
    }

    #[test]
    fn a_character_over_three_tokens_comes_whole() {
        let (out, _) = run(&[b"a\xf0", b"\x9f\x98", b"\x80b"], &[]);
        assert_eq!(out, ["a", "", "\u{1f600}b", ""]);
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_and_hold_nothing_up() {
        let (out, _) = run(&[b"\xffx", b"\xe2\x82"], &[]);
        assert_eq!(out, ["\u{fffd}x", "", "\u{fffd}"]);
    }

    #[test]
    fn a_stop_text_over_tokens_never_shows() {
        let (out, stopped) = run(&[b"one EN", b"D two"], &["END"]);
        assert_eq!((out.concat().as_str(), stopped), ("one ", true));
        let (out, stopped) = run(&[b"one EN", b"TER"], &["END"]);
        assert_eq!((out, stopped), (vec!["one ".into(), "ENTER".into(), String::new()], false));
    }

    #[test]
    fn what_was_held_back_comes_at_the_end() {
        assert_eq!(run(&[b"one EN"], &["END"]).0, ["one ", "EN"]);
    }

    /// The text before the stop that is complete first, of the whole text at once.
    fn expected(text: &str, stops: &[String]) -> String {
        for end in 0..=text.len() {
            let ending = stops.iter().filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(longest) = ending.map(String::len).max() {
                return text[..end - longest].to_owned();
            }
        }
        text.to_owned()
    }

    proptest! {
        #[test]
        fn cutting_into_tokens_changes_nothing(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(1..5usize, 0..40),
        ) {
            let mut hold = Holdback::new(stops.clone());
            let mut rest = text.as_bytes();
            let mut out = String::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                out.push_str(&hold.push(piece));
                rest = after;
            }
            out.push_str(&hold.push(rest));
            out.push_str(&hold.finish());
            prop_assert_eq!(out, expected(&text, &stops));
        }

        #[test]
        fn any_bytes_come_out_as_lossy_text(bytes in prop::collection::vec(any::<u8>(), 0..40), cut in 1..6usize) {
            let mut hold = Holdback::new(vec![]);
            let mut out: String = bytes.chunks(cut).map(|piece| hold.push(piece)).collect();
            out.push_str(&hold.finish());
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
