//! Everything that is wrong with a configuration, named at once.

use super::raw::Source;
use std::fmt;

/// Errors and warnings, in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    errors: Vec<String>,
    warnings: Vec<Warning>,
}

/// A warning that is logged when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The sentence.
    pub text: String,
    /// True for what belongs to the security log as `invalid_setting`.
    pub mended: bool,
}

impl Problems {
    /// The configuration cannot be used.
    pub fn error(&mut self, place: &Source, text: impl fmt::Display) {
        self.errors.push(format!("{place}: {text}"));
    }

    /// An error without a place.
    pub fn failure(&mut self, text: impl fmt::Display) {
        self.errors.push(text.to_string());
    }

    /// It can be used, and the operator should know.
    pub fn warning(&mut self, place: &Source, text: impl fmt::Display) {
        self.warnings.push(Warning { text: format!("{place}: {text}"), mended: false });
    }

    /// A warning without a place.
    pub fn advice(&mut self, text: impl fmt::Display) {
        self.warnings.push(Warning { text: text.to_string(), mended: false });
    }

    /// A bad value was replaced by a good one.
    pub fn mended(&mut self, place: &Source, text: impl fmt::Display) {
        self.warnings.push(Warning { text: format!("{place}: {text}"), mended: true });
    }

    /// True when there is neither error nor warning.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.warnings.is_empty()
    }

    /// What makes it unusable.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// What the operator should know.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.errors.iter().try_for_each(|error| writeln!(f, "error: {error}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {}", warning.text))
    }
}
