//! Clients that others have written, in a Python environment that `bin/test` makes and names in `CHATCORN_TEST_CLIENTS`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A Python interpreter that can import `module`, which is in these packages. `None`, with the reason on stderr, when
/// there is none.
pub fn python_with(module: &str, packages: &[&str]) -> Option<PathBuf> {
    let Some(python) = std::env::var_os("CHATCORN_TEST_CLIENTS").map(PathBuf::from) else {
        eprintln!("skipped: CHATCORN_TEST_CLIENTS names no Python with {}; bin/test does", packages.join(" "));
        return None;
    };
    let mut command = Command::new(&python);
    command.args(["-c", &format!("import {module}")]).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    eprintln!("skipped: {} cannot import {module} (pip install {})", python.display(), packages.join(" "));
    None
}
