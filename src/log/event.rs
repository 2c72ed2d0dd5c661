//! Events of `tracing` become lines. Spans do nothing here.

use super::batch::{self, CUT_MARK};
use super::record::{self, Kind};
use super::sink::{self, Sink};
use super::time::{self, Stamp};
use super::{Client, Format, escape};
use std::fmt::{self, Write as _};
use std::panic::PanicHookInfo;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, span};

/// The target of security events.
pub(super) const SECURITY_TARGET: &str = "security";
/// A message may fill so much of a line, in bytes, and the fields together the rest.
const MESSAGE_BYTES_MAX: usize = 6 * 1024;
const FIELDS_BYTES_MAX: usize = 7 * 1024 + 512;

/// Makes this program's events ours, once a process image; a fork inherits it.
pub(super) fn subscribe() {
    // Fails when it is installed already, which is what a forked child finds.
    let _ = tracing::subscriber::set_global_default(Events);
}

struct Events;

impl Subscriber for Events {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = record::level_number(*metadata.level());
        let ours = metadata.target().starts_with("chatcorn") || metadata.target() == SECURITY_TARGET;
        // h2 warns of what a client sent, a line for each such frame.
        let others = if metadata.target().starts_with("h2::") && sink::level() < DEBUG { ERROR } else { WARN };
        metadata.is_event() && level <= if ours { sink::level() } else { sink::level().min(others) }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match sink::level() {
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let kind = if metadata.target() == SECURITY_TARGET { Kind::Security } else { Kind::App };
        let level = record::level_number(*metadata.level());
        let _ = write(kind, level, metadata.target(), |visitor| event.record(visitor));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

const ERROR: u8 = 1;
const WARN: u8 = 2;
const DEBUG: u8 = 4;

/// One line of `fields`, handed over at once, after what its thread had gathered before. None inside a formatter.
pub(super) fn write(kind: Kind, level: u8, target: &str, fields: impl FnOnce(&mut Fields<'_>)) -> Option<()> {
    batch::with(|batch| {
        batch.record(kind, level, |sink, stamp, out| {
            line(sink, stamp, level, target, fields, out);
            false
        });
        batch.flush();
    })
}

/// A panic is one line with its place, not three on stderr.
pub(super) fn panicked(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("a panic without a text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let written = write(Kind::App, ERROR, "panic", |visitor| {
        visitor.text(MESSAGE, text);
        visitor.text("place", &place);
        visitor.text("thread", thread.name().unwrap_or("?"));
    });
    if written.is_none() {
        // In the middle of a line: stderr leads to the log process too.
        eprintln!("panic: {text} at {place}");
    }
}

fn line(
    sink: &Sink,
    stamp: &mut Stamp,
    level: u8,
    target: &str,
    fields: impl FnOnce(&mut Fields<'_>),
    out: &mut Vec<u8>,
) {
    let from = out.len();
    head(sink.format, stamp, level, &Origin { target, pid: sink.pid, process: &sink.process }, out);
    let mut visitor = Fields { sink, from, out, text: String::new() };
    fields(&mut visitor);
    tail(sink.format, out);
}

/// Who speaks.
pub(super) struct Origin<'a> {
    pub(super) target: &'a str,
    pub(super) pid: u32,
    pub(super) process: &'a str,
}

/// The beginning of a line, up to its fields.
pub(super) fn head(format: Format, stamp: &mut Stamp, level: u8, origin: &Origin<'_>, out: &mut Vec<u8>) {
    let mut pid = itoa::Buffer::new();
    let pid = pid.format(origin.pid).as_bytes();
    let name = LEVELS[usize::from(level.clamp(1, 5)) - 1];
    match format {
        Format::Json => {
            out.extend_from_slice(b"{\"time\":\"");
            stamp.write(time::now(), out);
            let name = name.trim_end().to_ascii_lowercase();
            for part in [b"\",\"level\":\"", name.as_bytes(), b"\",\"target\":\""] {
                out.extend_from_slice(part);
            }
            escape::json(origin.target, out);
            for part in [b"\",\"pid\":", pid, b",\"process\":\"", origin.process.as_bytes(), b"\""] {
                out.extend_from_slice(part);
            }
        }
        Format::Text => {
            stamp.write(time::now(), out);
            for part in [b" ", name.as_bytes(), b" ", origin.process.as_bytes(), b"[", pid, b"] "] {
                out.extend_from_slice(part);
            }
            escape::plain(origin.target, out);
            out.push(b':');
        }
    }
}

/// One text field of a line that has no sink.
pub(super) fn pair(format: Format, name: &str, value: &str, out: &mut Vec<u8>) {
    let quoted = quotes(format, name, value);
    name_of(format, name, quoted, out);
    if quoted {
        escape::json(value, out)
    } else {
        escape::plain(value, out)
    }
    if quoted {
        out.push(b'"');
    }
}

/// In text, a value of several words needs quotes, a message does not.
fn quotes(format: Format, name: &str, value: &str) -> bool {
    let words = value.is_empty() || value.contains([' ', '"', '=']);
    format == Format::Json || (name != MESSAGE && words)
}

/// The end of a line.
pub(super) fn tail(format: Format, out: &mut Vec<u8>) {
    if format == Format::Json {
        out.push(b'}');
    }
}

fn name_of(format: Format, name: &str, quoted: bool, out: &mut Vec<u8>) {
    if format == Format::Json {
        out.extend_from_slice(b",\"");
        escape::json(name, out);
        out.extend_from_slice(b"\":");
    } else {
        out.push(b' ');
        if name != MESSAGE {
            escape::plain(name, out);
            out.push(b'=');
        }
    }
    if quoted {
        out.push(b'"');
    }
}

const LEVELS: [&str; 5] = ["ERROR", "WARN ", "INFO ", "DEBUG", "TRACE"];

/// Appends fields to a line.
pub(super) struct Fields<'a> {
    sink: &'a Sink,
    from: usize,
    out: &'a mut Vec<u8>,
    /// Reused for what only a formatter can print.
    text: String,
}

impl Fields<'_> {
    /// How clients are named here.
    pub(super) fn client(&self) -> Client {
        self.sink.client
    }

    /// A text value.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        let bytes_max = self.from + if name == MESSAGE { MESSAGE_BYTES_MAX } else { FIELDS_BYTES_MAX };
        let before = self.out.len();
        pair(self.sink.format, name, value, self.out);
        if self.out.len() > bytes_max {
            self.out.truncate(before);
            self.cut(name, value, bytes_max);
        }
    }

    /// A text value that is too long: redacted, then cut.
    fn cut(&mut self, name: &str, value: &str, bytes_max: usize) {
        let value = self.sink.redactor.line(value.as_bytes());
        let value = String::from_utf8_lossy(&value);
        let quoted = quotes(self.sink.format, name, &value);
        name_of(self.sink.format, name, quoted, self.out);
        escape::up_to(&value, quoted, bytes_max.max(self.out.len() + CUT_MARK.len()) - CUT_MARK.len(), self.out);
        self.out.extend_from_slice(CUT_MARK.as_bytes());
        if quoted {
            self.out.push(b'"');
        }
    }

    /// A value that is a number or a truth in JSON too.
    pub(super) fn bare(&mut self, name: &str, value: impl fmt::Display) {
        name_of(self.sink.format, name, false, self.out);
        self.formatted(format_args!("{value}"));
        self.out.extend_from_slice(self.text.as_bytes());
    }

    fn formatted(&mut self, value: fmt::Arguments<'_>) {
        self.text.clear();
        // Writing to a string fails only when the value's own formatter does; then what it wrote is what there is.
        let _ = self.text.write_fmt(value);
    }
}

const MESSAGE: &str = "message";

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field.name(), value);
        } else {
            self.text(field.name(), &value.to_string());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.formatted(format_args!("{value:?}"));
        let text = std::mem::take(&mut self.text);
        self.text(field.name(), &text);
        self.text = text;
    }
}
