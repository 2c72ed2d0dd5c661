//! Clients that go on asking while something breaks: a connection a request, kept connections without a retry, event
//! streams. Open loop: the next request is due by the clock and not by the last answer.

use super::{Connection, Server, post};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads that open a connection a request, and how often each does.
const SINGLE: (usize, Duration) = (4, Duration::from_millis(40));
/// Kept connections, and how often each asks.
const KEPT: (usize, Duration) = (10, Duration::from_millis(100));
/// Event streams open at once; each begins anew when it has ended.
const STREAMS: usize = 20;

/// It asks until [`Load::end`].
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: String,
    stop: AtomicBool,
    served: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

/// A request that came to nothing: its class (`single`, `kept`, `stream`) and what the client saw.
pub type Failure = (&'static str, String);

/// What became of all requests.
#[derive(Debug)]
pub struct Report {
    /// Answered whole, with the status that belongs to them.
    pub served: u64,
    /// All others.
    pub failures: Vec<Failure>,
}

impl Report {
    /// # Panics
    /// One of these classes had a failure.
    pub fn assert_none_failed(&self, classes: &[&str]) {
        let failed: Vec<_> = self.failures.iter().filter(|(class, _)| classes.contains(class)).collect();
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), self.served);
        assert!(self.served > 20, "too few requests to say anything: {}", self.served);
    }
}

impl Load {
    /// About 200 requests a second and 20 streams; the server's upstream must be one of [`super::Way::Load`].
    pub fn start(server: &Server) -> Load {
        let shared = Arc::new(Shared {
            address: server.address.clone(),
            stop: AtomicBool::new(false),
            served: AtomicU64::new(0),
            failures: Mutex::default(),
        });
        let mut threads = Vec::new();
        for number in 0..SINGLE.0 {
            threads.push(shared.spawn(move |shared| shared.single(number)));
        }
        threads.extend((0..KEPT.0).map(|number| shared.spawn(move |shared| shared.kept(number))));
        threads.extend((0..STREAMS).map(|_| shared.spawn(Shared::stream)));
        Load { shared, threads }
    }

    /// Answers so far.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Relaxed)
    }

    /// Waits until so many more requests were answered.
    pub fn goes_on(&self, more: u64) {
        let from = self.served();
        super::until("more answers", || self.served() >= from + more);
    }

    /// Lets every client finish what it has begun.
    pub fn end(self) -> Report {
        self.shared.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let failures = self.shared.failures.lock().unwrap().clone();
        Report { served: self.shared.served.load(Relaxed), failures }
    }
}

impl Shared {
    fn spawn(self: &Arc<Shared>, run: impl FnOnce(&Shared) + Send + 'static) -> JoinHandle<()> {
        let shared = self.clone();
        std::thread::spawn(move || run(&shared))
    }

    fn single(&self, number: usize) {
        self.paced(SINGLE.1, SINGLE.1 * number as u32 / SINGLE.0 as u32, |turn| {
            let asked = Connection::try_open(&self.address).and_then(|mut connection| ask(&mut connection, turn));
            self.note("single", asked.map(|_| ()));
        });
    }

    fn kept(&self, number: usize) {
        let mut connection = None;
        self.paced(KEPT.1, KEPT.1 * number as u32 / KEPT.0 as u32, |turn| {
            let open = connection.take().map_or_else(|| Connection::try_open(&self.address), Ok);
            let asked = open.and_then(|mut open| ask(&mut open, turn).map(|closes| (open, closes)));
            self.note("kept", asked.map(|(open, closes)| connection = (!closes).then_some(open)));
        });
    }

    fn stream(&self) {
        while !self.stop.load(Relaxed) {
            self.note("stream", Connection::try_open(&self.address).and_then(|mut open| drip(&mut open)));
        }
    }

    fn paced(&self, every: Duration, first: Duration, mut turn: impl FnMut(u32)) {
        let mut due = Instant::now() + first;
        for number in 0.. {
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            if self.stop.load(Relaxed) {
                return;
            }
            turn(number);
            due += every;
        }
    }

    fn note(&self, class: &'static str, what: io::Result<()>) {
        match what {
            Ok(()) => {
                self.served.fetch_add(1, Relaxed);
            }
            Err(error) => self.failures.lock().unwrap().push((class, error.to_string())),
        }
    }
}

/// Health and chat in turn; true when the server closes after it.
fn ask(connection: &mut Connection, turn: u32) -> io::Result<bool> {
    let answer = match turn % 2 {
        0 => connection.get("/api/health")?,
        _ => connection.post("/api/chat", r#"{"message":"x","context_mode":"fresh"}"#)?,
    };
    match answer.status {
        200 => Ok(answer.header("connection") == Some("close")),
        status => Err(io::Error::other(format!("{status} {}", answer.body))),
    }
}

fn drip(connection: &mut Connection) -> io::Result<()> {
    connection.send(post("/api/chat", r#"{"message":"drip","context_mode":"fresh","stream":true}"#))?;
    let head = connection.head()?;
    if head.status != 200 {
        return Err(io::Error::other(format!("{}", head.status)));
    }
    loop {
        match connection.event_line()?.as_str() {
            "event: done" => return Ok(()),
            "event: error" => return Err(io::Error::other(connection.event_line()?)),
            _ => {}
        }
    }
}
