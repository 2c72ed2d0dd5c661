//! Access lines: the hot path. Formatted by hand into the thread's batch, without an allocation in the steady state.

use super::batch;
use super::known::{Known, Sight};
use super::record::Kind;
use super::sink::{self, Sink};
use super::time::{self, Stamp};
use super::{Client, Destination, Format, Plan, escape};
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

/// What is known of a finished request. Never a body, a header beyond these, or a query.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// `X-Request-Id`.
    pub request_id: &'a str,
    /// The id is one of our own making, not the caller's.
    pub own_id: bool,
    /// The client's address; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// The request's method.
    pub method: &'a str,
    /// The path; a query that is still there is cut off.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub protocol: &'a str,
    /// The status that was sent; 499 for a client that left before.
    pub status: u16,
    /// Body bytes received.
    pub bytes_in: u64,
    /// Body bytes sent.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// From the first byte of the request to the first of the response.
    pub first_byte: Option<Duration>,
    /// The worker's slot.
    pub worker: usize,
    /// What the limiter said.
    pub verdict: &'a str,
    /// The client's own name for itself.
    pub user_agent: Option<&'a str>,
}

/// How access lines look.
pub(super) enum Layout {
    Json,
    Text,
    Atoms(Atoms),
}

/// A compiled `--access-logformat`.
///
/// The atoms are gunicorn's (`%(h)s` …, its settings page, "access_log_format"). What could carry a secret prints
/// `-`: referer, query, user, every header but the user agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Atoms(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Atom(Atom),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Atom {
    Client,
    Absent,
    Time,
    RequestLine,
    Status,
    Method,
    Path,
    Empty,
    Protocol,
    Bytes,
    BytesOrDash,
    UserAgent,
    Seconds,
    Micros,
    Millis,
    SecondsExact,
    Pid,
    RequestId,
}

/// One access line. Nothing happens when access lines are off.
pub fn emit(record: &Record<'_>) {
    batch::with(|batch| {
        let Some(layout) = batch.sink().and_then(|sink| sink.access.as_ref()) else { return };
        batch.record(Kind::Access, INFO, |sink, stamp, out| {
            let from = out.len();
            let line = Line { record, client: sink.client, pid: sink.pid };
            match layout {
                Layout::Json => line.json(stamp, out),
                Layout::Text => line.text(stamp, out),
                Layout::Atoms(atoms) => line.atoms(atoms, out),
            }
            !matches!(layout, Layout::Atoms(_)) && sink.redactor.is_plain() && clean(record, sink, &out[from..])
        });
    });
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// True for a line of a kind that was read before and found without a secret.
fn clean(record: &Record<'_>, sink: &Sink, line: &[u8]) -> bool {
    let known = KNOWN.try_with(|known| {
        let mut known = known.try_borrow_mut().ok()?;
        let sight = known.sight(sink::generation(), record);
        if let Sight::Again(at) = sight {
            known.judged(at, sink.redactor.leaves(line) && escape::is_clean(line));
        }
        Some(sight == Sight::Clean)
    });
    known.ok().flatten().unwrap_or(false)
}

const INFO: u8 = 3;
/// Room made at once for a line.
const LINE_BYTES_USUAL: usize = 512;

/// Appends a client's name as the plan wants it.
pub(super) fn write_client(mode: Client, client: Option<IpAddr>, out: &mut Vec<u8>) {
    match (mode, client) {
        (Client::Off, _) => out.push(b'-'),
        (_, None) => out.extend_from_slice(b"unix"),
        (Client::Full, Some(address)) => {
            // Writing to a vector does not fail.
            let _ = std::io::Write::write_fmt(out, format_args!("{}", address.to_canonical()));
        }
        (Client::Hashed, Some(address)) => {
            let hash = sink::client_key().hash_one(address.to_canonical());
            let mut text = *b"h:0000000000000000";
            for (at, place) in text[2..].iter_mut().enumerate() {
                *place = b"0123456789abcdef"[(hash >> (60 - 4 * at) & 0xf) as usize];
            }
            out.extend_from_slice(&text);
        }
    }
}

impl Layout {
    /// What the plan wants; none when access lines are off.
    pub(super) fn of(plan: &Plan) -> Result<Option<Layout>, String> {
        let atoms = plan.access_format.as_deref().map(Atoms::parse).transpose()?;
        Ok(match (&plan.access, plan.format, atoms) {
            (Destination::Off, ..) => None,
            (_, Format::Json, _) => Some(Layout::Json),
            (_, Format::Text, Some(atoms)) => Some(Layout::Atoms(atoms)),
            (_, Format::Text, None) => Some(Layout::Text),
        })
    }
}

struct Line<'a> {
    record: &'a Record<'a>,
    client: Client,
    pid: u32,
}

impl Line<'_> {
    fn path(&self) -> &str {
        let path = self.record.path;
        memchr::memchr2(b'?', b'#', path.as_bytes()).map_or(path, |end| &path[..end])
    }

    fn json(&self, stamp: &mut Stamp, out: &mut Vec<u8>) {
        let record = self.record;
        out.reserve(LINE_BYTES_USUAL);
        out.extend_from_slice(b"{\"time\":\"");
        stamp.write(time::now(), out);
        out.extend_from_slice(b"\",\"level\":\"info\",\"target\":\"access\",\"request_id\":\"");
        escape::json(record.request_id, out);
        out.extend_from_slice(b"\",\"client\":\"");
        write_client(self.client, record.client, out);
        out.extend_from_slice(b"\",\"method\":\"");
        escape::json(record.method, out);
        out.extend_from_slice(b"\",\"path\":\"");
        escape::json(self.path(), out);
        out.extend_from_slice(b"\",\"protocol\":\"");
        escape::json(record.protocol, out);
        out.extend_from_slice(b"\",\"verdict\":\"");
        escape::json(record.verdict, out);
        out.extend_from_slice(b"\",\"status\":");
        number(u64::from(record.status), out);
        out.extend_from_slice(b",\"bytes_in\":");
        number(record.bytes_in, out);
        out.extend_from_slice(b",\"bytes_out\":");
        number(record.bytes_out, out);
        self.json_rest(out);
    }

    fn json_rest(&self, out: &mut Vec<u8>) {
        let record = self.record;
        out.extend_from_slice(b",\"duration_ms\":");
        thousandths(record.duration, out);
        if let Some(first) = record.first_byte {
            out.extend_from_slice(b",\"first_byte_ms\":");
            thousandths(first, out);
        }
        out.extend_from_slice(b",\"worker\":");
        number(record.worker as u64, out);
        if let Some(agent) = record.user_agent {
            out.extend_from_slice(b",\"user_agent\":\"");
            escape::json(agent, out);
            out.push(b'"');
        }
        out.push(b'}');
    }

    fn text(&self, stamp: &mut Stamp, out: &mut Vec<u8>) {
        let record = self.record;
        stamp.write(time::now(), out);
        out.push(b' ');
        write_client(self.client, record.client, out);
        out.extend_from_slice(b" \"");
        self.request_line(out);
        out.extend_from_slice(b"\" ");
        number(u64::from(record.status), out);
        out.extend_from_slice(b" in=");
        number(record.bytes_in, out);
        out.extend_from_slice(b" out=");
        number(record.bytes_out, out);
        out.extend_from_slice(b" ms=");
        thousandths(record.duration, out);
        if let Some(first) = record.first_byte {
            out.extend_from_slice(b" first_ms=");
            thousandths(first, out);
        }
        out.extend_from_slice(b" worker=");
        number(record.worker as u64, out);
        for (name, value) in [(&b" verdict="[..], record.verdict), (b" id=", record.request_id)] {
            out.extend_from_slice(name);
            escape::json(value, out);
        }
        out.extend_from_slice(b" \"");
        escape::json(record.user_agent.unwrap_or("-"), out);
        out.push(b'"');
    }

    fn request_line(&self, out: &mut Vec<u8>) {
        for (at, part) in [self.record.method, self.path(), self.record.protocol].into_iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            escape::json(part, out);
        }
    }

    fn atoms(&self, atoms: &Atoms, out: &mut Vec<u8>) {
        for piece in &atoms.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Atom(atom) => self.atom(*atom, out),
            }
        }
    }

    fn atom(&self, atom: Atom, out: &mut Vec<u8>) {
        let record = self.record;
        match atom {
            Atom::Client => write_client(self.client, record.client, out),
            Atom::Absent => out.push(b'-'),
            Atom::Empty => {}
            Atom::Time => time::write_clf(time::now(), out),
            Atom::RequestLine => self.request_line(out),
            Atom::Status => number(u64::from(record.status), out),
            Atom::Method => escape::json(record.method, out),
            Atom::Path => escape::json(self.path(), out),
            Atom::Protocol => escape::json(record.protocol, out),
            Atom::BytesOrDash if record.bytes_out == 0 => out.push(b'-'),
            Atom::Bytes | Atom::BytesOrDash => number(record.bytes_out, out),
            Atom::UserAgent => escape::json(record.user_agent.unwrap_or("-"), out),
            Atom::Seconds => number(record.duration.as_secs(), out),
            Atom::Micros => number(record.duration.as_micros() as u64, out),
            Atom::Millis => number(record.duration.as_millis() as u64, out),
            Atom::SecondsExact => {
                number(record.duration.as_secs(), out);
                out.push(b'.');
                padded(record.duration.subsec_micros(), 6, out);
            }
            Atom::Pid => {
                out.push(b'<');
                number(u64::from(self.pid), out);
                out.push(b'>');
            }
            Atom::RequestId => escape::json(record.request_id, out),
        }
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three decimals.
fn thousandths(duration: Duration, out: &mut Vec<u8>) {
    let micros = duration.as_micros() as u64;
    number(micros / 1000, out);
    out.push(b'.');
    padded((micros % 1000) as u32, 3, out);
}

fn padded(value: u32, digits: u32, out: &mut Vec<u8>) {
    (0..digits).rev().for_each(|place| out.push(b'0' + (value / 10u32.pow(place) % 10) as u8));
}

impl Atoms {
    /// Compiles a format; what is no atom of gunicorn's prints `-`, as there.
    ///
    /// # Errors
    /// A sentence for an atom that does not end, or a control character.
    pub fn parse(format: &str) -> Result<Atoms, String> {
        if format.chars().any(char::is_control) {
            return Err("access log format: control characters are not allowed".to_owned());
        }
        let (mut pieces, mut rest) = (Vec::new(), format);
        while let Some(at) = rest.find("%(") {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            let Some((name, after)) = rest[at + 2..].split_once(")s") else {
                return Err(format!("access log format: {:?} does not end with \")s\"", &rest[at..]));
            };
            pieces.push(Piece::Atom(Atom::named(name)));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Atoms(pieces))
    }
}

impl Atom {
    fn named(name: &str) -> Atom {
        match name {
            "h" => Atom::Client,
            "t" => Atom::Time,
            "r" => Atom::RequestLine,
            "s" => Atom::Status,
            "m" => Atom::Method,
            "U" => Atom::Path,
            "q" => Atom::Empty,
            "H" => Atom::Protocol,
            "B" => Atom::Bytes,
            "b" => Atom::BytesOrDash,
            "a" => Atom::UserAgent,
            "T" => Atom::Seconds,
            "D" => Atom::Micros,
            "M" => Atom::Millis,
            "L" => Atom::SecondsExact,
            "p" => Atom::Pid,
            _ if name.eq_ignore_ascii_case("{user-agent}i") => Atom::UserAgent,
            _ if name.eq_ignore_ascii_case("{x-request-id}o") => Atom::RequestId,
            _ => Atom::Absent,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn record<'a>() -> Record<'a> {
        Record {
            request_id: "0f3a",
            own_id: true,
            client: Some("10.1.2.3".parse().unwrap()),
            method: "POST",
            path: "/api/chat?api_key=abc",
            protocol: "HTTP/1.1",
            status: 200,
            bytes_in: 17,
            bytes_out: 0,
            duration: Duration::from_micros(1_234_567),
            first_byte: Some(Duration::from_micros(12_005)),
            worker: 2,
            verdict: "admitted",
            user_agent: Some("evil\"\n\u{2028}agent"),
        }
    }

    fn line<'a>(record: &'a Record<'a>, client: Client) -> Line<'a> {
        Line { record, client, pid: 42 }
    }

    #[test]
    fn a_json_line_holds_every_field_and_no_query() {
        let (record, mut out) = (record(), Vec::new());
        line(&record, Client::Full).json(&mut Stamp::default(), &mut out);
        assert!(escape::is_clean(&out));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["client"], "10.1.2.3");
        assert_eq!(value["path"], "/api/chat");
        assert_eq!(value["status"], 200);
        assert_eq!(value["duration_ms"], 1234.567);
        assert_eq!(value["first_byte_ms"], 12.005);
        assert_eq!(value["user_agent"], "evil\"\n\u{2028}agent");
        assert_eq!(value["worker"], 2);
        assert_eq!(value["verdict"], "admitted");
    }

    #[test]
    fn a_hashed_client_is_stable_and_does_not_show_the_address() {
        let (mut first, mut second, mut off) = (Vec::new(), Vec::new(), Vec::new());
        let address = "10.1.2.3".parse().ok();
        write_client(Client::Hashed, address, &mut first);
        write_client(Client::Hashed, "::ffff:10.1.2.3".parse().ok(), &mut second);
        write_client(Client::Off, address, &mut off);
        assert_eq!(first, second);
        assert_eq!((first.len(), off.as_slice()), (18, &b"-"[..]));
        assert!(!first.windows(4).any(|window| window == b"10.1"));
    }

    #[test]
    fn gunicorns_atoms_print_what_gunicorn_prints() {
        let format = r#"%(h)s %(l)s %(u)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(T)s %(D)s %(M)s %(L)s %(p)s %(q)s%({x-api-key}i)s %"#;
        let (record, mut out) = (record(), Vec::new());
        line(&record, Client::Full).atoms(&Atoms::parse(format).unwrap(), &mut out);
        let expected = r#"10.1.2.3 - - "POST /api/chat HTTP/1.1" 200 - "-" "evil\"\n\u2028agent" 1 1234567 1234 1.234567 <42> - %"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_format_that_does_not_end_is_refused_with_its_place() {
        assert!(Atoms::parse("%(h)s %(r").unwrap_err().contains("%(r"));
        assert!(Atoms::parse("a\nb").is_err());
    }
}
