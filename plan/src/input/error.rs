//! What can be wrong with the text itself, as one line.

use std::path::{Path, PathBuf};

/// Why a file could not be read as what it should be: `FILE:LINE: what is wrong; what to do`, a single line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.one_line())]
pub struct InputError {
    file: PathBuf,
    line: Option<usize>,
    what: String,
}

impl InputError {
    pub(crate) fn at_line(file: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: Some(line), what: what.into() }
    }

    /// The file as a whole is at fault.
    pub fn whole_file(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, what: what.into() }
    }

    /// The line at fault, from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    fn one_line(&self) -> String {
        let file = self.file.display();
        match self.line {
            Some(line) => escaped(&format!("{file}:{line}: {}", self.what)),
            None => escaped(&format!("{file}: {}", self.what)),
        }
    }
}

/// The text without anything that could break a line or write to a terminal behind the reader's back.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // The two separators end a line in some viewers without being control characters.
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
