//! The OpenAPI document against the running program, by schemathesis: no 500, no status, header or body that it does not name.

use crate::support::{Server, Upstream, Way};
use std::path::PathBuf;
use std::process::Command;

/// The program, in an environment of its own that is kept for the next run; `None` when it cannot be installed.
fn schemathesis() -> Option<PathBuf> {
    let home = std::env::temp_dir().join("chatcorn-schemathesis");
    let program = home.join("bin/schemathesis");
    let works = |program: &PathBuf| Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    if !works(&program) {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&home).output().ok()?;
        let pip = ["-m", "pip", "install", "--quiet", "schemathesis>=4,<5"];
        let installed = Command::new(home.join("bin/python")).args(pip).output();
        if !made.status.success() || !installed.as_ref().is_ok_and(|it| it.status.success()) {
            eprintln!("skipped: schemathesis cannot be installed: {installed:?}");
            return None;
        }
    }
    works(&program).then_some(program)
}

#[test]
fn the_program_does_what_its_document_says() {
    let Some(program) = schemathesis() else { return };
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let run = Command::new(program)
        .args(["run", &format!("http://{}/openapi.json", server.address)])
        // Keys are off here, so nothing can be refused for want of one; and what is blank differs between languages.
        .args(["--checks", "all", "--exclude-checks", "ignored_auth,negative_data_rejection"])
        .args(["--max-examples", "20", "--seed", "1", "--generation-database", "none", "--no-color"])
        // Python 3.11 cannot parse in two threads at once: "AST constructor recursion depth mismatch".
        .args(["--workers", "1"])
        .current_dir(&server.home)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let served = server.connect().get("/openapi.json").unwrap();
    assert_eq!((served.status, served.json()["openapi"].as_str()), (200, Some("3.1.0")));
}
