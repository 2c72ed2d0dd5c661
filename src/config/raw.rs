//! What is written, where: flags, environment, `.env`, `chatcorn.toml`, each value with its place.

use super::problem::Problems;
use super::settings::{self, CONFIG_FILE, ENV_FILE, SETTINGS, Setting};
use super::{dotenv, toml_file};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Flag(&'static str),
    /// In the environment.
    Environment(String),
    /// In a file, at a line (0: the whole file is the value).
    File(PathBuf, usize),
    /// Nowhere.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(flag) => write!(f, "flag --{flag}"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::File(path, 0) => write!(f, "{}", path.display()),
            Source::File(path, line) => write!(f, "{}:{line}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// A value as written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// One text, or several for a setting that takes many.
    pub texts: Vec<String>,
    /// Where.
    pub source: Source,
}

/// The command line's part of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Key to the texts given.
    pub values: BTreeMap<&'static str, Vec<String>>,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// Of `chatcorn key`.
    pub key: KeyFlags,
    /// `--env-file`.
    pub env_file: Option<PathBuf>,
    /// The running server that `chat` and `audit` are about.
    pub url: Option<String>,
    /// `audit --json`, `limits show --json`
    pub json: bool,
    /// `audit --try-limit`
    pub try_limit: bool,
    /// `chatcorn logs -f`.
    pub follow: bool,
    /// The other options of `chatcorn logs`, by name.
    pub reading: BTreeMap<&'static str, String>,
}

/// What `chatcorn key` is given.
#[derive(Clone, Debug, Default)]
pub struct KeyFlags {
    /// `new --name`
    pub name: String,
    /// `new --expires-days`
    pub expires_days: Option<u64>,
    /// `new --quota`
    pub quota: Option<String>,
    /// `revoke ID`, `limits show CLIENT`
    pub id: String,
}

/// The kept environment, as name and value.
pub type Environment = Vec<(String, String)>;

/// Everything that is written, the winning place of each setting first.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    values: BTreeMap<&'static str, Written>,
    environment: BTreeMap<String, String>,
}

impl Raw {
    /// Reads all places. What cannot be read or is not known is a problem; the rest goes on, so that all problems
    /// are named at once.
    pub fn read(flags: &Flags, environment: &Environment, problems: &mut Problems) -> Raw {
        let environment: BTreeMap<String, String> = environment.iter().cloned().collect();
        let mut raw = Raw { values: BTreeMap::new(), environment };
        let variable = |name: &str| raw.environment.get(name).map(PathBuf::from);
        let toml = flags.config_file.clone().or_else(|| variable("CHATCORN_CONFIG"));
        let dotenv = flags.env_file.clone().or_else(|| variable("CHATCORN_ENV_FILE"));
        raw.read_toml(toml.as_deref(), problems);
        raw.read_dotenv(dotenv.as_deref(), problems);
        raw.read_environment(problems);
        for (key, texts) in &flags.values {
            if let Some(setting) = settings::by_key(key) {
                raw.put(setting, texts.clone(), Source::Flag(setting.flag));
            }
        }
        raw
    }

    /// The value of a setting as written, or its default.
    pub fn get(&self, setting: &'static Setting) -> Written {
        self.values.get(setting.key).cloned().unwrap_or_else(|| {
            let texts = if setting.default.is_empty() { Vec::new() } else { vec![setting.default.to_owned()] };
            Written { texts: split(setting, texts), source: Source::Default }
        })
    }

    /// A variable that is no setting, such as `STATE_DIRECTORY`.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    fn put(&mut self, setting: &'static Setting, texts: Vec<String>, source: Source) {
        let texts = if matches!(source, Source::Flag(_)) { texts } else { split(setting, texts) };
        self.values.insert(setting.key, Written { texts, source });
    }

    fn read_toml(&mut self, named: Option<&Path>, problems: &mut Problems) {
        let path = named.unwrap_or(Path::new(CONFIG_FILE));
        let Some(text) = read_file(path, named.is_some(), problems) else { return };
        for (line, key, texts) in toml_file::parse(path, &text, problems) {
            let source = Source::File(path.to_owned(), line);
            match settings::by_key(&key) {
                Some(setting) => self.put(setting, texts, source),
                None => self.read_secret_file_or_refuse(&key.to_uppercase(), &key, texts, source, problems),
            }
        }
    }

    fn read_dotenv(&mut self, named: Option<&Path>, problems: &mut Problems) {
        let path = named.unwrap_or(Path::new(ENV_FILE));
        let Some(text) = read_file(path, named.is_some(), problems) else { return };
        for (line, name, value) in dotenv::parse(path, &text, problems) {
            let source = Source::File(path.to_owned(), line);
            match settings::by_env(&name) {
                Some(setting) => self.put(setting, vec![value], source),
                None => self.read_secret_file_or_refuse(&name, &name, vec![value], source, problems),
            }
        }
    }

    /// Only names that are settings: an environment holds much that is not meant for us.
    fn read_environment(&mut self, problems: &mut Problems) {
        for setting in SETTINGS {
            let own = self.environment.get(setting.env).cloned();
            let file_name = format!("{}_FILE", setting.env);
            let file = self.environment.get(&file_name).cloned().filter(|_| setting.kind.is_secret());
            match (own, file) {
                (Some(_), Some(_)) => {
                    problems.error(
                        &Source::Environment(file_name),
                        format!("{} is set as well: keep one of them", setting.env),
                    );
                }
                (Some(value), None) => self.put(setting, vec![value], Source::Environment(setting.env.to_owned())),
                (None, Some(path)) => {
                    self.put_secret_file(setting, Path::new(&path), &Source::Environment(file_name), problems)
                }
                (None, None) => self.read_credential(setting, problems),
            }
        }
    }

    /// systemd's `LoadCredential=`: a file with the setting's name below `$CREDENTIALS_DIRECTORY`.
    fn read_credential(&mut self, setting: &'static Setting, problems: &mut Problems) {
        let Some(directory) = self.environment.get("CREDENTIALS_DIRECTORY") else { return };
        let path = Path::new(directory).join(setting.env);
        if setting.kind.is_secret() && path.exists() {
            let source = Source::Environment("CREDENTIALS_DIRECTORY".into());
            self.put_secret_file(setting, &path, &source, problems);
        }
    }

    fn read_secret_file_or_refuse(
        &mut self,
        env: &str,
        written: &str,
        texts: Vec<String>,
        source: Source,
        problems: &mut Problems,
    ) {
        let secret = env.strip_suffix("_FILE").and_then(settings::by_env).filter(|setting| setting.kind.is_secret());
        match secret {
            Some(setting) => self.put_secret_file(setting, Path::new(&texts.concat()), &source, problems),
            None => {
                let upper = written.chars().all(|c| !c.is_lowercase());
                let names = SETTINGS.iter().map(|setting| if upper { setting.env } else { setting.key });
                let hint = match settings::nearest(written, names) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "`chatcorn config` lists all of them".to_owned(),
                };
                problems.error(&source, format!("unknown setting {written:?}: {hint}"));
            }
        }
    }

    fn put_secret_file(&mut self, setting: &'static Setting, path: &Path, source: &Source, problems: &mut Problems) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map(|found| found.permissions().mode()).unwrap_or(0);
        if mode & 0o022 != 0 {
            let mend = format!("{} can be written by others: chmod go-w it", path.display());
            return problems.error(source, mend);
        }
        if mode & 0o004 != 0 {
            problems.warning(source, format!("{} can be read by everyone: chmod 0400 it", path.display()));
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let texts = vec![text.trim_end_matches(['\r', '\n']).to_owned()];
                self.put(setting, texts, Source::File(path.to_owned(), 0));
            }
            Err(error) => problems.error(source, format!("{} cannot be read: {error}", path.display())),
        }
    }
}

fn read_file(path: &Path, named: bool, problems: &mut Problems) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => None,
        Err(error) => {
            problems.error(&Source::File(path.to_owned(), 0), format!("cannot be read: {error}"));
            None
        }
    }
}

/// A comma separates several values in one text; a regular expression may hold commas, so patterns stay whole.
fn split(setting: &Setting, texts: Vec<String>) -> Vec<String> {
    if !setting.many || setting.key == "log_redact" {
        return texts;
    }
    let parts = texts.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}
