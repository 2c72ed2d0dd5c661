//! How fast the redactor and the access line are: `cargo bench --bench redact`.
//!
//! With files as arguments: how many of their lines the redactor alters, and the first of them.

use chatcorn::log::redact::{Redactor, Trail};
use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// CPU time of this thread: what others do on the machine does not count.
fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

const RUN: Duration = Duration::from_millis(300);

fn main() {
    let begun = cpu();
    let Ok(redactor) = Redactor::new(&[]) else { return };
    println!("compiled in {:?}", cpu() - begun);
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if !files.is_empty() {
        return altered(&redactor, &files);
    }
    println!("{:<28} {:>8}  {:>6}", "1 KiB lines of", "MB/s", "cost");
    let normal = rate(&redactor, &ordinary());
    show("ordinary lines", normal, normal);
    for (name, piece) in INPUTS {
        let line: Vec<u8> = piece.bytes().cycle().take(1024).collect();
        show(name, rate(&redactor, &[line]), normal);
    }
    access_line();
}

/// Lines of a running server: access, application, an upstream's error, prose.
fn ordinary() -> Vec<Vec<u8>> {
    let access = r#"{"time":"2026-01-02T03:04:05.678Z","level":"info","target":"access","request_id":"550e8400-e29b-41d4-a716-446655440000","client":"h:0123456789abcdef","method":"POST","path":"/api/chat","protocol":"HTTP/1.1","verdict":"admitted","status":200,"bytes_in":123,"bytes_out":4567,"duration_ms":12.345,"worker":2,"user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"}"#;
    let app = r#"{"time":"2026-01-02T03:04:05.678Z","level":"warn","target":"chatcorn::chat::upstream","pid":4711,"process":"worker 2","message":"upstream answered 503 after 1204 ms: {\"error\":{\"message\":\"Rate limit reached for requests\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}","url":"https://api.example.com/v1/chat/completions","attempt":2,"prompt_tokens":812,"max_tokens":512}"#;
    let prose = "The quick brown fox jumps over the lazy dog, and the log says so: request 42 was served in 12 ms by worker 3. ";
    [access, app, prose].iter().map(|text| text.bytes().cycle().take(1024).collect()).collect()
}

/// Inputs made to be slow: as many hits as fit, half secrets, escapes of all kinds.
const INPUTS: &[(&str, &str)] = &[
    ("token ", "token "),
    ("token=", "token="),
    ("token=a ", "token=a "),
    ("password: wrong ", "password: wrong "),
    ("password:password:", "password:"),
    ("\"password\":\"\"", "\"password\":\"\","),
    ("\"token\":\"word\"", "\"token\":\"word\","),
    ("sk-", "sk-"),
    ("sk-a sk-b", "sk-a sk-b "),
    ("hf_", "hf_"),
    ("eyJ-", "eyJ-"),
    ("eyJa.", "eyJa."),
    ("bearer ", "bearer "),
    ("basic ", "basic "),
    ("basic aaaaaa", "basic aaaaaa "),
    ("://", "://"),
    ("://a:b ", "://a:b "),
    ("://a:b/c", "://a:b/c"),
    ("cookie: a", "cookie: a "),
    ("authorization: b", "authorization: b "),
    ("PRIVATE KEY-----", "PRIVATE KEY-----"),
    ("END PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
    (" -u a:1", " -u a:1"),
    ("&key=a", "&key=a"),
    ("%41", "%41"),
    ("%2541", "%2541"),
    ("%252541", "%252541"),
    ("%", "%"),
    ("\\u0041", "\\u0041"),
    ("\\", "\\"),
    ("\\\"", "\\\""),
    ("&quot;", "&quot;"),
    ("password=%41", "password=%41 "),
    ("name=\"token\"\\n", "name=\\\"token\\\"\\n"),
    ("\"password\",", "(\"password\","),
    ("password='", "password='"),
    ("secret=x(", "secret=x("),
    ("--token a", "--token a "),
    ("pass=a1", "pass=a1 "),
    ("a secret in each 64", "level=info user=bob password=4f9a8b7c6d5e4f3a2b1c0d9e n=1 rest=ok"),
];

fn rate(redactor: &Redactor, lines: &[Vec<u8>]) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..3 {
        let (mut bytes, begun, cpu_begun) = (0, Instant::now(), cpu());
        while begun.elapsed() < RUN / 3 {
            for line in lines {
                let mut trail = Trail::default();
                black_box(redactor.line_after(black_box(line), &mut trail));
                bytes += line.len();
            }
        }
        best = best.max(bytes as f64 / (cpu() - cpu_begun).as_secs_f64() / 1e6);
    }
    best
}

fn show(name: &str, rate: f64, normal: f64) {
    println!("{name:<28} {rate:>8.0}  {:>5.1}x", normal / rate);
}

fn altered(redactor: &Redactor, files: &[String]) {
    let (mut total, mut count) = (0u64, 0u64);
    for file in files {
        let Ok(bytes) = std::fs::read(file) else { continue };
        let mut trail = Trail::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            total += 1;
            if let Cow::Owned(out) = redactor.line_after(line, &mut trail) {
                count += 1;
                let cut = |text: &[u8]| String::from_utf8_lossy(text).chars().take(200).collect::<String>();
                println!("{file}\n  - {}\n  + {}", cut(line), cut(&out));
            }
        }
    }
    println!("{count} of {total} lines altered: {:.3} in 1000", count as f64 * 1000.0 / total.max(1) as f64);
}

fn access_line() {
    use chatcorn::board::{Board, Sender};
    use chatcorn::log::{self, Plan, access};
    let (Ok(board), Ok((pipe, reader))) = (Board::create(), chatcorn::sys::fd::packet_pair()) else { return };
    let drain = std::thread::spawn(move || {
        let mut buffer = vec![0u8; 1 << 16];
        while nix::unistd::read(&reader, &mut buffer).is_ok_and(|length| length > 0) {}
    });
    let Ok(guard) = log::start_worker(&Plan::default(), Sender::Slot(0), pipe, board) else { return };
    let record = access::Record {
        request_id: "550e8400-e29b-41d4-a716-446655440000",
        client: Some([10, 1, 2, 3].into()),
        method: "POST",
        path: "/api/chat",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_in: 123,
        bytes_out: 4567,
        duration: Duration::from_micros(12_345),
        first_byte: Some(Duration::from_micros(2_345)),
        worker: 2,
        verdict: "admitted",
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0"),
    };
    let count = 100_000u32;
    let run = || {
        let begun = cpu();
        (0..count).for_each(|_| access::emit(black_box(&record)));
        (cpu() - begun).as_nanos() as f64 / f64::from(count)
    };
    let best = (0..10).map(|_| run()).fold(f64::MAX, f64::min);
    println!("access line: {best:.0} ns (best of 10)");
    let begun = cpu();
    for _ in 0..count {
        log::flush();
    }
    println!("empty flush: {:.1} ns", (cpu() - begun).as_nanos() as f64 / f64::from(count));
    drop(guard);
    let _ = drain;
}
