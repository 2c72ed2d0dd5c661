//! Beside flask-limiter: in `replace` mode the same schedule gets the same statuses.

use crate::support::{Server, Upstream, Way, pass, post, python_with};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The original's limits in small: an endpoint's own replace the defaults.
const FLASK: &str = r#"
from flask import Flask, request
from flask_limiter import Limiter
app = Flask(__name__)
limiter = Limiter(lambda: request.headers["X-Forwarded-For"], app=app, default_limits=["4 per 2 seconds", "7 per 5 seconds"], storage_uri="memory://")
@app.route("/api/context/mode")
def mode():
    return "ok"
@app.route("/api/chat", methods=["POST"])
@limiter.limit("3 per 2 seconds")
def chat():
    return "ok"
@app.route("/api/initialize", methods=["POST"])
@limiter.limit("1 per 1 second")
def initialize():
    return "ok"
import logging
logging.getLogger("werkzeug").disabled = True
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app)
print(server.port, flush=True)
server.serve_forever()
"#;

/// Tenths of a second, and what is asked then: no request is within a tenth of a window's end. What flask-limiter takes
/// from narrow windows for a refused request (and we do not) is over by the next one.
const SCHEDULE: [(u64, char); 33] = [
    (0, 'c'),
    (1, 'm'),
    (2, 'c'),
    (3, 'm'),
    (4, 'c'),
    (5, 'm'),
    (6, 'c'),
    (7, 'm'),
    (8, 'm'),
    (9, 'i'),
    (11, 'i'),
    (12, 'c'),
    (14, 'i'),
    (16, 'm'),
    (18, 'c'),
    (22, 'c'),
    (23, 'm'),
    (24, 'm'),
    (25, 'm'),
    (26, 'c'),
    (27, 'c'),
    (28, 'c'),
    (29, 'i'),
    (31, 'i'),
    (34, 'm'),
    (36, 'i'),
    (38, 'c'),
    (41, 'i'),
    (44, 'c'),
    (53, 'm'),
    (54, 'm'),
    (55, 'c'),
    (56, 'c'),
];

#[test]
fn the_same_schedule_gets_the_same_statuses_as_from_flask_limiter() {
    let Some(python) = python_with("flask_limiter", &["flask-limiter"]) else { return };
    let mut flask = Command::new(python).args(["-c", FLASK]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(flask.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start_with(
        &[
            ("CHAT_UPSTREAM", &upstream.url),
            ("RATE_LIMIT_ENDPOINT_MODE", "replace"),
            ("RATE_LIMIT_DEFAULT", "7 per 5 seconds;4 per 2 seconds"),
            ("RATE_LIMIT_CHAT", "3 per 2 seconds"),
            ("RATE_LIMIT_INITIALIZE", "1 per 1 second"),
        ],
        &[],
    );
    let theirs = format!("127.0.0.1:{}", port.trim());
    // On a machine so busy that it comes late the schedule says nothing any more: then another client begins it anew.
    let differs = (0..10).find_map(|time| differences([&server.address, &theirs], &format!("198.51.100.{time}")));
    let _ = flask.kill();
    let _ = flask.wait();
    match differs {
        Some(differs) => assert!(differs.is_empty(), "when, what, ours and theirs: {differs:?}"),
        None => eprintln!("skipped: this machine is too busy for a schedule in tenths of a second"),
    }
}

/// How late a request may be answered: the next window's end is a tenth of a second away.
const LATE_MAX: Duration = Duration::from_millis(80);

/// What was answered in different ways; nothing when a request came too late.
fn differences(addresses: [&str; 2], client: &str) -> Option<Vec<(u64, char, [u16; 2])>> {
    let (began, mut differs) = (Instant::now(), Vec::new());
    for (tenths, what) in SCHEDULE {
        let due = began + Duration::from_millis(tenths * 100);
        pass(due.saturating_duration_since(Instant::now()));
        let statuses = addresses.map(|address| status(address, client, what));
        if due.elapsed() > LATE_MAX {
            return None;
        }
        if statuses[0] != statuses[1] {
            differs.push((tenths, what, statuses));
        }
    }
    Some(differs)
}

fn status(address: &str, client: &str, what: char) -> u16 {
    let request = match what {
        'c' => post("/api/chat", r#"{"message":"x","context_mode":"fresh"}"#),
        'i' => post("/api/initialize", "{}"),
        _ => "GET /api/context/mode?session_id=x HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
    };
    let mut connection = crate::support::Connection::open(address);
    let fields = format!("\r\nConnection: close\r\nX-Forwarded-For: {client}\r\n");
    connection.send(request.replacen("\r\n", &fields, 1)).unwrap();
    connection.head().unwrap().status
}
