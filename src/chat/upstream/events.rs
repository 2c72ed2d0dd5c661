//! An event stream that is passed on: each event is looked at in its place, none is copied. Pure.

use super::super::error::Error;
use super::sse::EVENT_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Finds where events end, and what is wrong with one.
#[derive(Debug, Default)]
pub struct Events {
    /// The beginning of an event whose end has not come.
    held: BytesMut,
    finished: bool,
    done: bool,
}

/// What may go on of the bytes that came, and why nothing behind it may.
#[derive(Debug)]
pub struct Passed {
    /// Whole events.
    pub bytes: Bytes,
    /// The event behind them.
    pub failure: Option<Error>,
}

impl Events {
    /// Takes the next bytes.
    pub fn take(&mut self, fresh: Bytes) -> Passed {
        let mut bytes = match self.held.is_empty() {
            true => fresh,
            false => {
                self.held.extend_from_slice(&fresh);
                self.held.split().freeze()
            }
        };
        let mut whole = 0;
        let mut failure = None;
        while !self.done
            && let Some(length) = event_length(&bytes[whole..])
        {
            failure = self.look(&bytes[whole..whole + length]).err();
            if failure.is_some() {
                break;
            }
            whole += length;
        }
        let passed = bytes.split_to(whole);
        if failure.is_none() && !self.done {
            self.held.extend_from_slice(&bytes);
            failure = (self.held.len() > EVENT_BYTES_MAX).then(|| wrong("an event is longer than 1 MiB"));
        }
        Passed { bytes: passed, failure }
    }

    /// True when the last event, `[DONE]`, has been passed on.
    pub fn done(&self) -> bool {
        self.done
    }

    /// True when the reply was whole, whether or not `[DONE]` came.
    pub fn finished(&self) -> bool {
        self.finished
    }

    fn look(&mut self, event: &[u8]) -> Result<(), Error> {
        let mut lines = event.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
        let Some(first) = lines.next() else { return Ok(()) };
        match lines.next() {
            None => self.look_at(first.trim_ascii()),
            Some(second) => {
                let rest = lines.flat_map(|line| [&b"\n"[..], line]);
                let data: Vec<u8> = [first, b"\n", second].into_iter().chain(rest).flatten().copied().collect();
                self.look_at(data.trim_ascii())
            }
        }
    }

    fn look_at(&mut self, data: &[u8]) -> Result<(), Error> {
        if data == b"[DONE]" {
            (self.finished, self.done) = (true, true);
            return Ok(());
        }
        // serde would read an array's items as the fields.
        if !data.starts_with(b"{") {
            return Err(wrong("an event is not a chunk"));
        }
        let chunk: Seen = serde_json::from_slice(data).map_err(|_| wrong("an event is not a chunk"))?;
        if chunk.error.is_some() {
            return Err(wrong("it sent an error event"));
        }
        if chunk.choices.is_none() {
            return Err(wrong("an event is not a chunk"));
        }
        self.finished |= ends(data);
        Ok(())
    }
}

/// Neither is taken apart.
#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    choices: Option<IgnoredAny>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// True when the chunk names a reason to end. Inside a JSON string the quotes would be escaped.
fn ends(chunk: &[u8]) -> bool {
    const NAME: &[u8] = b"\"finish_reason\"";
    memchr::memmem::find_iter(chunk, NAME).any(|at| {
        let value = chunk[at + NAME.len()..].trim_ascii_start();
        value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"\""))
    })
}

/// Bytes of the first event with the empty line that ends it.
fn event_length(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

fn wrong(what: &str) -> Error {
    Error::Upstream(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = ": hello\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"a \\\"error\\\" {\"}}]}\n\n\
        data: {\"choices\":[{\"finish_reason\": \"stop\"}]}\r\n\r\ndata: {\"choices\":[],\ndata: \"usage\":{}}\n\ndata: [DONE]\n\n";

    fn passed(pieces: &[&[u8]]) -> (Vec<u8>, Option<String>, Events) {
        let (mut events, mut out) = (Events::default(), Vec::new());
        for piece in pieces {
            let passed = events.take(Bytes::copy_from_slice(piece));
            out.extend_from_slice(&passed.bytes);
            if let Some(failure) = passed.failure {
                return (out, Some(failure.to_string()), events);
            }
        }
        (out, None, events)
    }

    #[test]
    fn whole_events_go_on_in_their_place() {
        let mut events = Events::default();
        let piece = Bytes::from_static(STREAM.as_bytes());
        assert_eq!(events.take(piece.clone()).bytes.as_ptr(), piece.as_ptr());
        assert!(events.done() && events.finished());
        let (out, failure, events) = passed(&[b"data: {\"choices\":[{\"finish_reason\":null}]}\n\nda"]);
        assert_eq!((out.len(), failure, events.finished()), (44, None, false));
    }

    #[test]
    fn an_error_or_junk_ends_the_stream_and_goes_no_further() {
        let good = "data: {\"choices\":[]}\n\n";
        for bad in ["{\"error\":{\"message\":\"sk-secret\"}}", "{}", "[1]", "{\"choices\":[", "x", "\u{7f}"] {
            let (out, failure, _) = passed(&[format!("{good}data: {bad}\n\n{good}").as_bytes()]);
            assert_eq!(out, good.as_bytes(), "{bad}");
            assert!(failure.is_some_and(|text| !text.contains("sk-")), "{bad}");
        }
        let (out, failure, _) = passed(&[&[b'x'; EVENT_BYTES_MAX], b"xx"]);
        assert!(out.is_empty() && failure.is_some());
    }

    proptest! {
        #[test]
        fn every_split_passes_the_same(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([STREAM.len()]);
            let mut from = 0;
            let pieces: Vec<&[u8]> = ends.map(|end| &STREAM.as_bytes()[std::mem::replace(&mut from, end)..end]).collect();
            let (out, failure, events) = passed(&pieces);
            prop_assert_eq!(out, STREAM.as_bytes());
            prop_assert!(failure.is_none() && events.done());
        }
    }
}
