//! From a text as written to a value as meant; what does not fit is a problem that lists what is allowed.

use super::problem::Problems;
use super::raw::{Raw, Source};
use super::settings::{Kind, SETTINGS, Setting};
use std::path::PathBuf;
use std::time::Duration;

/// What `OMP_NUM_THREADS` becomes when it is not an integer from 1 to 8: the original deployment's rule.
const THREADS_MENDED: u32 = 4;

/// Typed access to the raw values.
pub struct Values<'a> {
    /// What is written.
    pub raw: &'a Raw,
    /// What is wrong with it.
    pub problems: &'a mut Problems,
}

impl Values<'_> {
    /// The text, when there is one.
    pub fn text(&self, key: &str) -> Option<String> {
        self.texts(key).into_iter().next()
    }

    /// All texts of a setting that takes many.
    pub fn texts(&self, key: &str) -> Vec<String> {
        self.raw.get(setting(key)).texts
    }

    /// Where it was written.
    pub fn source(&self, key: &str) -> Source {
        self.raw.get(setting(key)).source
    }

    /// True when it is written anywhere.
    pub fn is_set(&self, key: &str) -> bool {
        self.source(key) != Source::Default
    }

    /// A path, when there is one.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A whole number; 0 beside a problem.
    pub fn count(&mut self, key: &str) -> u64 {
        let Kind::Count(least, most) = setting(key).kind else { return 0 };
        let read = |text: &str| text.parse::<u64>().ok().filter(|value| (least..=most).contains(value));
        self.read(key, read, || format!("a whole number from {least} to {most}")).unwrap_or_default()
    }

    /// A whole number that may be absent.
    pub fn optional_count(&mut self, key: &str) -> Option<u64> {
        self.text(key).filter(|text| !text.is_empty()).is_some().then(|| self.count(key))
    }

    /// Seconds as a duration.
    pub fn seconds(&mut self, key: &str) -> Duration {
        let Kind::Seconds(least, most) = setting(key).kind else { return Duration::ZERO };
        let read = |text: &str| text.parse::<f64>().ok().filter(|value| (least..=most).contains(value));
        let seconds = self.read(key, read, || format!("seconds from {least} to {most}"));
        Duration::from_secs_f64(seconds.unwrap_or_default())
    }

    /// A decimal number.
    pub fn decimal(&mut self, key: &str) -> f64 {
        let Kind::Decimal(least, most) = setting(key).kind else { return 0.0 };
        let read = |text: &str| text.parse::<f64>().ok().filter(|value| (least..=most).contains(value));
        self.read(key, read, || format!("a number from {least} to {most}")).unwrap_or_default()
    }

    /// Bytes.
    pub fn bytes(&mut self, key: &str) -> u64 {
        let Kind::Bytes(least, most) = setting(key).kind else { return 0 };
        let read = |text: &str| bytes(text).filter(|value| (least..=most).contains(value));
        self.read(key, read, || format!("bytes from {least} to {most}, also as 64KiB or 1MiB")).unwrap_or_default()
    }

    /// One of the setting's words, when there is one.
    pub fn word(&mut self, key: &str) -> Option<String> {
        let Kind::OneOf(words) = setting(key).kind else { return None };
        self.text(key).filter(|text| !text.is_empty())?;
        let read =
            |text: &str| words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| (*word).to_owned());
        self.read(key, read, || format!("one of {}", words.join(", ")))
    }

    /// What `parse` makes of the text (empty when there is none); its sentence is the problem.
    pub fn parsed<T: Default>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        parse(self.text(key).unwrap_or_default().trim()).unwrap_or_else(|reason| {
            let source = self.source(key);
            self.problems.error(&source, format!("{key}: {reason}"));
            T::default()
        })
    }

    /// Compute threads: mended, with a warning, never a problem.
    pub fn threads(&mut self, key: &str) -> u32 {
        let setting = setting(key);
        let written = self.raw.get(setting);
        let text = written.texts.concat();
        if let Some(count) = text.parse::<u32>().ok().filter(|count| (1..=8).contains(count)) {
            return count;
        }
        let text = format!("{}={text:?} is not an integer from 1 to 8; {THREADS_MENDED} is used", setting.env);
        self.problems.mended(&written.source, text);
        THREADS_MENDED
    }

    fn read<T>(&mut self, key: &str, read: impl Fn(&str) -> Option<T>, allowed: impl Fn() -> String) -> Option<T> {
        let written = self.raw.get(setting(key));
        let text = match written.texts.as_slice() {
            [one] => one.trim(),
            _ => "",
        };
        let value = read(text);
        if value.is_none() {
            let shown = if setting(key).kind.is_secret() { "[REDACTED]" } else { text };
            self.problems.error(&written.source, format!("{key} = {shown:?}: write {}", allowed()));
        }
        value
    }
}

fn setting(key: &str) -> &'static Setting {
    let found = SETTINGS.iter().find(|setting| setting.key == key);
    found.unwrap_or_else(|| unreachable!("the table has no setting {key}"))
}

/// `1048576`, `64KiB`, `1MiB`, `1G`: powers of two.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::Flags;

    fn with<T>(environment: &[(&str, &str)], ask: impl Fn(&mut Values<'_>) -> T) -> (T, Problems) {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut problems = Problems::default();
        let flags =
            Flags { config_file: Some("/dev/null".into()), env_file: Some("/dev/null".into()), ..Flags::default() };
        let raw = Raw::read(&flags, &environment, &mut problems);
        let answer = ask(&mut Values { raw: &raw, problems: &mut problems });
        (answer, problems)
    }

    #[test]
    fn thread_counts_are_mended_with_a_warning() {
        for bad in ["", "invalid", "0", "9", "99", "-1", "4.0", " 4"] {
            let (count, problems) = with(&[("OMP_NUM_THREADS", bad)], |values| values.threads("omp_num_threads"));
            assert_eq!((count, problems.warnings().len()), (4, 1), "{bad:?}");
            assert!(problems.warnings()[0].mended && problems.warnings()[0].text.contains("OMP_NUM_THREADS"));
        }
        for good in 1..=8 {
            let (count, problems) =
                with(&[("OMP_NUM_THREADS", &good.to_string())], |values| values.threads("omp_num_threads"));
            assert_eq!((count, problems.is_empty()), (good, true));
        }
        let (count, problems) = with(&[], |values| values.threads("omp_num_threads"));
        assert_eq!((count, problems.is_empty()), (4, true));
    }

    #[test]
    fn a_bad_value_names_the_place_and_what_is_allowed() {
        let (_, problems) = with(&[("WEB_CONCURRENCY", "four")], |values| values.count("workers"));
        assert_eq!(
            problems.errors(),
            ["environment WEB_CONCURRENCY: workers = \"four\": write a whole number from 1 to 64"]
        );
        let (_, problems) = with(&[("TIMEOUT", "NaN")], |values| values.seconds("timeout"));
        assert_eq!(problems.errors().len(), 1);
        let (level, problems) = with(&[("LOG_LEVEL", "WARNING")], |values| values.word("log_level"));
        assert_eq!((level.as_deref(), problems.is_empty()), (Some("warning"), true));
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("1 MiB"), Some(1 << 20));
        assert_eq!(bytes("8190"), Some(8190));
        assert_eq!((bytes("1x"), bytes(""), bytes("99999999999999999999")), (None, None, None));
    }

    #[test]
    fn a_secret_and_its_file_together_are_an_error() {
        let (_, problems) = with(&[("HF_TOKEN", "a"), ("HF_TOKEN_FILE", "/x")], |_| ());
        assert!(problems.errors()[0].contains("HF_TOKEN is set as well"), "{problems}");
    }
}
