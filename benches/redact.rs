//! How fast the redactor is, on lines as they come and on lines made to be slow: `cargo bench --bench redact`.
//!
//! With files as arguments: how many of their lines the redactor alters, and the first of them. `--tries=200000` looks
//! longer for slow lines, `--audit` for lines that take more than they are charged.

mod redact_hunt;

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
    let tries =
        std::env::args().find_map(|argument| argument.strip_prefix("--tries=").and_then(|tries| tries.parse().ok()));
    let tries = tries.unwrap_or(redact_hunt::TRIES);
    if std::env::args().any(|argument| argument == "--audit") {
        return redact_hunt::audit(&redactor, tries);
    }
    println!("{:<36} {:>8}  {:>6}", "1 KiB lines of", "MB/s", "cost");
    let normal = rate(&redactor, &ordinary());
    show("ordinary lines", normal, normal);
    families(&redactor, normal);
    println!("\nmade to be slow:");
    let known = INPUTS.iter().map(|(name, piece)| {
        let line: Vec<u8> = piece.bytes().cycle().take(1024).collect();
        show(name, rate(&redactor, &[line]), normal)
    });
    let known = known.fold(0.0, f64::max);
    let found = redact_hunt::hunt(&redactor, tries);
    redact_hunt::hunt_short(&redactor);
    // Rows for bin/bench: what, value, goal.
    println!("\nrow\tredactor, ordinary lines of 1 KiB\t{normal:.0} MB/s a core\t>= 200 MB/s");
    println!("row\tredactor, worst of {} known inputs\t{known:.1}x the cost a byte\t<= 3x", INPUTS.len());
    println!("row\tredactor, worst found by {tries} tries\t{found:.1}x the cost a byte\t<= 3x");
}

/// What a secret of each family costs in an ordinary line, beside the same line without one.
fn families(redactor: &Redactor, normal: f64) {
    println!("\nordinary lines, each with a secret:");
    for (family, before, alphabet, length, after) in FAMILIES {
        let mut dice = 0x1234_5678_9abc_def1u64;
        let secret: String =
            (0..*length).map(|_| alphabet.as_bytes()[roll(&mut dice, alphabet.len())] as char).collect();
        let planted = format!("{before}{secret}{after}");
        let lines: Vec<Vec<u8>> = ordinary().into_iter().map(|line| plant(line, planted.as_bytes())).collect();
        show(family, rate(redactor, &lines), normal);
    }
}

/// The same length, with `planted` in its middle.
fn plant(mut line: Vec<u8>, planted: &[u8]) -> Vec<u8> {
    line.truncate(line.len().saturating_sub(planted.len()));
    let middle = line.len() / 2;
    line.splice(middle..middle, planted.iter().copied());
    line
}

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &str = "0123456789abcdef";

/// Family, what stands before, alphabet and length of the secret, what stands after.
const FAMILIES: &[(&str, &str, &str, usize, &str)] = &[
    ("a maker's prefix", " with hf_", ALNUM, 34, " and "),
    ("an id in capitals", " id AKIA", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16, " and "),
    ("an infix", " bot 123456789:AA", ALNUM, 33, " and "),
    ("a webhook", " to https://hooks.slack.com/services/T1/B2/", ALNUM, 24, " and "),
    ("a JSON Web Token", " jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.", ALNUM, 43, " and "),
    ("a name and its value", " password=", ALNUM, 20, " and "),
    ("a name in JSON", "{\"api_key\":\"", HEX, 32, "\"}"),
    ("a name in JSON in JSON", "{\\\"client_secret\\\":\\\"", HEX, 32, "\\\"}"),
    ("a name of a key", " AZURE_OPENAI_KEY: ", HEX, 32, " and "),
    ("a flag", " --token ", HEX, 40, " and "),
    ("a query", " /x?a=1&sig=", ALNUM, 43, "&b=2 "),
    ("a form's part", "name=\\\"password\\\"\\r\\n\\r\\n", ALNUM, 20, "\\r\\n--x "),
    ("a user in a URL", " postgres://app:", ALNUM, 20, "@db:5432/x "),
    ("Bearer", " Bearer ", ALNUM, 40, " and "),
    ("Basic", " Basic dXNlcjpw", ALNUM, 20, " and "),
    ("Authorization", "\"authorization\":\"Token ", HEX, 40, "\" "),
    ("Cookie", "\"cookie\":\"theme=dark; session=", ALNUM, 40, "\" "),
    ("curl -u", " curl -u bob:", ALNUM, 20, " https://x "),
    ("a program's flag", " mysql -u root -p", ALNUM, 20, " db "),
    ("a private key", "-----BEGIN PRIVATE KEY-----\\n", ALNUM, 256, "\\n-----END PRIVATE KEY-----\\n"),
    ("percent-encoded", " %70%61%73%73%77%6f%72%64%3d", ALNUM, 20, "%20and "),
    ("\\u-escaped", " \\u0068\\u0066\\u005f", ALNUM, 34, " and "),
];

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

fn roll(dice: &mut u64, sides: usize) -> usize {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    (*dice % sides as u64) as usize
}

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

/// Prints a line of the table; returns the cost.
fn show(name: &str, rate: f64, normal: f64) -> f64 {
    println!("{name:<36} {rate:>8.0}  {:>5.1}x", normal / rate);
    normal / rate
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
