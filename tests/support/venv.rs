//! Clients that others have written, each in a Python environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A Python interpreter that can import `module`, from these packages; kept for the next run below the temporary directory.
/// `None`, with the reason on stderr, when it cannot be had: no pip, no network.
pub fn python_with(module: &str, packages: &[&str]) -> Option<PathBuf> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let home = std::env::temp_dir().join(format!("chatcorn-clients-{module}"));
    let python = home.join("bin/python");
    if !imports(&python, module) {
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&home), "python3 -m venv")?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        quiet(Command::new(&python).args(pip).args(packages), &format!("pip install {}", packages.join(" ")))?;
    }
    imports(&python, module).then_some(python)
}

fn imports(python: &Path, module: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn quiet(command: &mut Command, what: &str) -> Option<()> {
    let output = command.stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => {
            eprintln!("skipped: {what} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            eprintln!("skipped: {what} failed: {error}");
            None
        }
    }
}
