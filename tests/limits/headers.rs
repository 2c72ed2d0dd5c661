//! What clients are told: structured fields, and a time after which they are admitted.

use super::{ask, standing, used};
use crate::support::{Server, pass, python_with};
use std::process::Command;
use std::time::Duration;

/// Parses each argument as a list of structured fields, and prints names and parameters.
const PARSE: &str = "
import http_sfv, json, sys
for text in sys.argv[1:]:
    fields = http_sfv.List()
    fields.parse(text.encode())
    print(json.dumps([[item.value, dict(item.params)] for item in fields]))
";

#[test]
fn the_headers_are_structured_fields() {
    let Some(python) = python_with("http_sfv", &["http_sfv"]) else { return };
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "3/90 seconds;50 per hour;200 per day")], &[]);
    for left in [2, 1, 0, 0] {
        let answer = ask(&server, "198.51.100.1");
        let fields = ["ratelimit-policy", "ratelimit"].map(|name| answer.header(name).unwrap().to_owned());
        let output = Command::new(&python).args(["-c", PARSE]).args(&fields).output().unwrap();
        assert!(output.status.success(), "{fields:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let policies = serde_json::json!([["90-seconds", {"q": 3, "w": 90}], ["hour", {"q": 50, "w": 3600}], ["day", {"q": 200, "w": 86400}]]);
        assert_eq!(told[0], policies);
        assert_eq!((&told[1][0][0], &told[1][0][1]["r"]), (&"90-seconds".into(), &left.into()), "{text}");
        assert!((1..=90).contains(&told[1][0][1]["t"].as_u64().unwrap()));
    }
}

#[test]
fn a_retry_after_the_time_that_was_told_is_admitted() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "2/3 seconds;90 per day")], &[]);
    let told: Vec<u16> = (0..2).map(|_| ask(&server, "198.51.100.1").status).collect();
    assert_eq!(told, [404, 404]);
    let refused = ask(&server, "198.51.100.1");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(refused.status == 429 && (1..=3).contains(&wait), "{refused:?}");
    // The time itself is what the client was promised.
    pass(Duration::from_secs(wait));
    assert_eq!(ask(&server, "198.51.100.1").status, 404);
    assert_eq!(used(&standing(&server, "198.51.100.1"), "day"), 3, "the refused one consumed nothing");
}
