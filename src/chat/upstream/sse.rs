//! Server-Sent Events as they arrive, in pieces of any size. Pure.
//!
//! Source of the grammar: the HTML standard, "Server-sent events", parsing an event stream.

/// Longest line, and longest event, in bytes: more is not a chat server.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; empty for the usual `message`.
    pub name: String,
    /// Its data lines, joined by newlines.
    pub data: String,
}

/// An event or line is longer than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Collects bytes until events are whole.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
}

impl Parser {
    /// Takes the next bytes and hands each event that they complete to `take`.
    ///
    /// # Errors
    /// [`TooLong`]; the stream cannot be read on.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Event)) -> Result<(), TooLong> {
        while let Some(at) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (piece, rest) = (&bytes[..at], &bytes[at + 1..]);
            // The newline of a CRLF whose CR ended the last line.
            let continued = self.after_cr && at == 0 && bytes[0] == b'\n' && self.line.is_empty();
            self.after_cr = bytes[at] == b'\r';
            bytes = rest;
            if !continued {
                self.append(piece)?;
                self.end_line(&mut take)?;
            }
        }
        if !bytes.is_empty() {
            self.after_cr = false;
        }
        self.append(bytes)
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + piece.len() > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    fn end_line(&mut self, take: &mut impl FnMut(Event)) -> Result<(), TooLong> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                take(event);
            }
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.add_data(value)?,
            "event" => self.event.name = value.to_owned(),
            _ => {}
        }
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn add_data(&mut self, value: &str) -> Result<(), TooLong> {
        if self.event.data.len() + value.len() > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        if self.has_data {
            self.event.data.push('\n');
        }
        self.event.data.push_str(value);
        self.has_data = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str =
        ": ping\n\ndata: a\ndata:b\r\n\r\nevent: done\rdata: {\"x\":1}\r\r\nid: 5\n\ndata: é\n\nevent: empty\n\n";

    fn read(pieces: &[&[u8]]) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        pieces.iter().for_each(|piece| parser.feed(piece, |event| events.push(event)).unwrap());
        events
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn all_line_ends_and_fields_are_understood() {
        let expected = [event("", "a\nb"), event("done", "{\"x\":1}"), event("", "é")];
        assert_eq!(read(&[STREAM.as_bytes()]), expected);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX];
        assert_eq!(parser.feed(&piece, |_| ()), Ok(()));
        assert_eq!(parser.feed(b"x", |_| ()), Err(TooLong));
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "y".repeat(EVENT_BYTES_MAX / 2));
        let fed: Result<(), TooLong> = (0..3).try_for_each(|_| parser.feed(line.as_bytes(), |_| ()));
        assert_eq!(fed, Err(TooLong));
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_events(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&STREAM.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&STREAM.as_bytes()[from..]);
            prop_assert_eq!(read(&pieces), read(&[STREAM.as_bytes()]));
        }
    }
}
