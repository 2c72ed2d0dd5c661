//! Somebody tries `chatcorn redact` on text of all kinds: no planted secret comes out, and what holds none stays.

mod corpus;

use std::io::Write;
use std::process::{Command, Stdio};

/// What goes through the filter together: texts must not touch each other, so each has a line of its own kind around it.
const FENCE: &str = "== next ==\n\n";

fn redacted(text: String) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatcorn"));
    let mut child = command.arg("redact").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_planted_secret_comes_out_of_the_filter() {
    let rounds = if std::env::var_os("CHATCORN_TEST_LONG").is_some() { 20 } else { 3 };
    let planted = corpus::planted(rounds, 0x9e37_79b9_7f4a_7c15);
    assert!(planted.len() > 40_000, "{}", planted.len());
    let out = redacted(planted.iter().map(|planted| format!("{}\n{FENCE}", planted.text)).collect());
    let texts: Vec<&str> = out.split(FENCE).collect();
    assert_eq!(texts.len(), planted.len() + 1, "lines stay lines");
    let leaked: Vec<String> = planted
        .iter()
        .zip(&texts)
        .filter(|(planted, text)| corpus::leaks(text, &planted.secret))
        .map(|(planted, text)| format!("{} in {}:\n    {}\n    {text}", planted.family, planted.carrier, planted.text))
        .collect();
    let shown = leaked.iter().take(20).cloned().collect::<String>();
    assert!(leaked.is_empty(), "{} of {} leak:\n{shown}", leaked.len(), planted.len());
}

#[test]
fn what_holds_no_secret_comes_out_as_it_went_in() {
    // This program's own pages and sources, but for those that are about secrets; ids, hashes and pictures.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    let mut open =
        vec![root.join("src"), root.join("benches"), root.join("docs"), root.join("README.md"), root.join("bin")];
    while let Some(path) = open.pop() {
        let about_secrets = ["redact", "keys.rs", "auth.rs", "audit"].iter().any(|part| path.ends_with(part));
        if path.is_dir() && !about_secrets {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let (false, Ok(content)) =
            (about_secrets || path.ends_with("redact.rs"), std::fs::read_to_string(&path))
        {
            // The tests of a module plant secrets.
            text.push_str(content.split("#[cfg(test)]").next().unwrap());
        }
    }
    text.push_str(&corpus::clean(20_000, 77));
    let out = redacted(text.clone());
    let altered: Vec<_> = text.lines().zip(out.lines()).filter(|(before, after)| before != after).collect();
    let total = text.lines().count();
    assert_eq!(out.lines().count(), total);
    assert!(total > 40_000, "{total}");
    assert!(
        altered.len() * 1000 <= total,
        "{} of {total} altered: {:#?}",
        altered.len(),
        &altered[..40.min(altered.len())]
    );
}
