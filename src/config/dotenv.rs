//! `.env` files: `NAME=value`, `export NAME=value`, quotes, comments. Pure.

use super::problem::Problems;
use super::raw::Source;
use std::path::Path;

/// `(line, name, value)` of each assignment; what is not one is a problem with its line.
///
/// Single quotes keep everything, double quotes know `\n`, `\"` and `\\`, unquoted values end at ` #`. Variables
/// are not expanded: a `$` is a `$`.
pub fn parse(path: &Path, text: &str, problems: &mut Problems) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match assignment(line) {
            Ok((name, value)) => found.push((index + 1, name, value)),
            Err(reason) => problems.error(&Source::File(path.to_owned(), index + 1), reason),
        }
    }
    found
}

fn assignment(line: &str) -> Result<(String, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=').ok_or("write NAME=value")?;
    let name = name.trim_end();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err("a name consists of letters, digits and _");
    }
    Ok((name.to_owned(), unquoted(value.trim())?))
}

fn unquoted(value: &str) -> Result<String, &'static str> {
    if let Some(rest) = value.strip_prefix('\'') {
        let (inside, after) = rest.split_once('\'').ok_or("a ' is not closed")?;
        return only_comment(after).map(|()| inside.to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        return double_quoted(rest);
    }
    let end = value.find(" #").unwrap_or(value.len());
    Ok(value[..end].trim_end().to_owned())
}

fn double_quoted(rest: &str) -> Result<String, &'static str> {
    let mut inside = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return only_comment(chars.as_str()).map(|()| inside),
            '\\' => match chars.next() {
                Some('n') => inside.push('\n'),
                Some(other) => inside.push(other),
                None => break,
            },
            other => inside.push(other),
        }
    }
    Err("a \" is not closed")
}

fn only_comment(after: &str) -> Result<(), &'static str> {
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') { Ok(()) } else { Err("something stands behind the closing quote") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<String, String> {
        let mut problems = Problems::default();
        let found = parse(Path::new(".env"), line, &mut problems);
        match found.into_iter().next() {
            Some((_, _, value)) if problems.is_empty() => Ok(value),
            _ => Err(problems.to_string()),
        }
    }

    #[test]
    fn values_are_read_as_a_shell_would() {
        for (line, expected) in [
            ("A=1", "1"),
            ("export A = 1 # one", "1"),
            ("A='x # y'", "x # y"),
            (r#"A="a\"b\n""#, "a\"b\n"),
            ("A=", ""),
            ("A=http://h/#frag", "http://h/#frag"),
            ("A=$HOME", "$HOME"),
        ] {
            assert_eq!(value(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for line in ["A", "A='x", "A=\"x", "A='x' y", "A B=1", "=1"] {
            let error = value(line).unwrap_err();
            assert!(error.contains(".env:1"), "{line}: {error}");
        }
    }
}
