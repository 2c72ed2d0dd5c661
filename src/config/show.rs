//! `chatcorn config`: each setting, its value, and where it was written.

use super::raw::Raw;
use super::settings::{Kind, SETTINGS, Setting};

/// The table as text. A secret's value is never in it; a URL loses what may be a password.
pub fn table(raw: &Raw) -> String {
    let rows: Vec<[String; 3]> = SETTINGS.iter().map(|setting| row(raw, setting)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, values) = (width(0), width(1).min(48));
    rows.iter().map(|[name, value, source]| format!("{name:names$}  {value:values$}  {source}\n")).collect()
}

fn row(raw: &Raw, setting: &'static Setting) -> [String; 3] {
    let written = raw.get(setting);
    let value = match (setting.kind, written.texts.as_slice()) {
        (_, []) => "-".to_owned(),
        (Kind::Secret, _) => "[REDACTED]".to_owned(),
        (Kind::Url, texts) => texts.iter().map(|text| shown_url(text)).collect::<Vec<_>>().join(","),
        (_, texts) => texts.iter().map(|text| shown_url(text)).collect::<Vec<_>>().join(","),
    };
    [setting.key.to_owned(), value.escape_debug().to_string(), written.source.to_string()]
}

/// A URL without userinfo and query.
fn shown_url(text: &str) -> String {
    let Some(scheme) = text.find("://") else { return text.to_owned() };
    let rest = &text[scheme + 3..];
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{}[REDACTED]{}", &text[..scheme + 3], &rest[at..]),
        None => format!("{}{rest}", &text[..scheme + 3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Problems;
    use crate::config::raw::Flags;

    #[test]
    fn no_secret_is_shown() {
        let environment = [
            ("HF_TOKEN", "hf_verysecretverysecret"),
            ("DATABASE_URL", "postgres://me:pa55word@db/x?password=pa55word"),
            ("CHAT_UPSTREAM", "http://me:pa55word@h/v1?api_key=pa55word"),
        ];
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let flags =
            Flags { config_file: Some("/dev/null".into()), env_file: Some("/dev/null".into()), ..Flags::default() };
        let shown = table(&Raw::read(&flags, &environment, &mut Problems::default()));
        assert!(!shown.contains("pa55word") && !shown.contains("hf_very"), "{shown}");
        assert!(shown.contains("[REDACTED]@db/x") && shown.contains("environment HF_TOKEN"));
    }
}
