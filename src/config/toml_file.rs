//! `chatcorn.toml`: flat keys with their lines. Pure.

use super::problem::Problems;
use super::raw::Source;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// `(line, key, texts)` of each key; a list gives several texts.
pub fn parse(path: &Path, text: &str, problems: &mut Problems) -> Vec<(usize, String, Vec<String>)> {
    let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let line = error.span().map_or(0, |span| line_of(span.start));
            problems.error(&Source::File(path.to_owned(), line), format!("not TOML: {}", error.message()));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (key, value) in table {
        let line = line_of(key.span().start);
        match texts(value.get_ref()) {
            Some(texts) => found.push((line, key.into_inner().into_owned(), texts)),
            None => problems.error(
                &Source::File(path.to_owned(), line),
                format!(
                    "{:?}: write a text, a number, true, false, or a list of texts; there are no sections",
                    key.get_ref()
                ),
            ),
        }
    }
    found
}

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    match value {
        DeValue::Array(items) => items.iter().map(|item| scalar(item.get_ref())).collect(),
        single => scalar(single).map(|text| vec![text]),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_their_lines() {
        let mut problems = Problems::default();
        let text = "# mine\nworkers = 2\n\nbind = [\"a:1\", \"b:2\"]\ntimeout = 1.5\n";
        let mut found = parse(Path::new("c.toml"), text, &mut problems);
        found.sort();
        assert_eq!(found[0], (2, "workers".into(), vec!["2".into()]));
        assert_eq!(found[1], (4, "bind".into(), vec!["a:1".into(), "b:2".into()]));
        assert_eq!(found[2], (5, "timeout".into(), vec!["1.5".into()]));
        assert!(problems.is_empty());
    }

    #[test]
    fn an_error_names_its_line() {
        for (text, line) in [("workers = 2\nbind = \"x\n", 2), ("a = 1\n[server]\nport = 1\n", 2)] {
            let mut problems = Problems::default();
            parse(Path::new("c.toml"), text, &mut problems);
            assert!(problems.to_string().contains(&format!("c.toml:{line}:")), "{problems}");
        }
    }
}
