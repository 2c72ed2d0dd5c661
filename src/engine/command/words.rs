//! A command as an operator writes it: words, some in quotes; no shell. Pure.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for when nobody says.
const PATHS: &str = "/usr/local/bin:/usr/bin:/bin";

/// The words of a command. Quotes keep spaces; within double ones, and outside of any, a backslash takes the next
/// character as it is.
///
/// # Errors
/// A quote without its end.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(format!("a {open} has no end in the command")),
        None => Ok(words),
    }
}

/// The program's file: the name itself when it has a slash, else as `PATH` finds it.
pub fn program(name: &OsStr, paths: Option<&OsStr>) -> Option<PathBuf> {
    let runs = |path: &PathBuf| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if Path::new(name).components().count() > 1 {
        return std::path::absolute(name).ok().filter(runs);
    }
    std::env::split_paths(paths.unwrap_or(OsStr::new(PATHS))).map(|path| path.join(name)).find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_keep_words_together() {
        let text = r#"  vllm serve 'a b' --x="c \"d\"" e\ f '' "#;
        assert_eq!(words(text).unwrap(), ["vllm", "serve", "a b", "--x=c \"d\"", "e f", ""]);
        assert_eq!((words(" "), words("a\\")), (Ok(vec![]), Ok(vec!["a".to_owned()])));
        assert!(words("a 'b").is_err() && words("\"").is_err());
    }

    #[test]
    fn a_program_is_found_by_its_name_or_not_at_all() {
        assert!(program(OsStr::new("sh"), None).is_some_and(|path| path.is_absolute()));
        assert_eq!(program(OsStr::new("sh"), Some(OsStr::new("/nowhere"))), None);
        assert_eq!(program(OsStr::new("/etc/passwd"), None), None);
    }
}
