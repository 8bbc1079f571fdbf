//! Rules shared by the tables: keys that must be there, names that must differ, words that must be known.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Problem};
use crate::raw::Text;
use crate::source::Source;

const NAME_BYTES_MAX: usize = 32;

/// A key that its table cannot do without: the table, the key, and a value to show as an example.
pub(crate) type Required = (&'static str, &'static str, &'static str);

/// The value of a required key; without it, the fault is on the line of the table's header.
pub(crate) fn required(
    source: &Source<'_>,
    header: &Range<usize>,
    written: Option<Text>,
    (table, key, example): Required,
) -> Result<Text, Error> {
    written.ok_or_else(|| source.refuse(header.clone(), Problem::MissingKey { table, key, example }))
}

/// The names given out so far, each with its line.
pub(crate) struct Names {
    what: &'static str,
    lines: HashMap<String, usize>,
}

impl Names {
    pub(crate) fn of(what: &'static str) -> Self {
        let lines = HashMap::new();
        Self { what, lines }
    }

    /// A name that is well formed and not yet given out.
    pub(crate) fn claim(&mut self, source: &Source<'_>, written: &Text) -> Result<String, Error> {
        let (what, name) = (self.what, written.as_ref().clone());
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_allowed) {
            return Err(source.refuse(written.span(), Problem::BadName { what, given: name }));
        }
        let line = source.line(&written.span());
        if let Some(first_line) = self.lines.insert(name.clone(), line) {
            let problem = Problem::DuplicateName { what, name, first_line };
            return Err(source.refuse(written.span(), problem));
        }
        Ok(name)
    }
}

pub(crate) fn unknown_word(source: &Source<'_>, written: &Text, what: &'static str, known: &[&str]) -> Error {
    let given = written.as_ref().clone();
    let known = match known {
        [only] => format!("`{only}`"),
        several => format!("one of {}", backquoted(several)),
    };
    source.refuse(written.span(), Problem::UnknownWord { what, given, known })
}

/// Words as a message lists them.
pub(crate) fn backquoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
