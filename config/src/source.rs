//! Places in the text, and what the TOML reader says about them.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Problem};

/// The text under validation, with the name that errors carry.
pub(crate) struct Source<'a> {
    pub(crate) file: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// The line, from 1, on which `span` starts.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        line_at(self.text.as_bytes(), span.start)
    }

    pub(crate) fn refuse(&self, span: Range<usize>, problem: Problem) -> Error {
        Error::at_line(self.file, self.line(&span), problem)
    }

    /// Reduces the reader's error, which displays as a drawing of several lines, to a line and a problem.
    pub(crate) fn refuse_toml(&self, error: &toml::de::Error) -> Error {
        // The reader places every error it makes; the start of the text stands in should one ever come without.
        let span = error.span().unwrap_or(0..0);
        let problem = self.problem(error.message(), span.start);
        self.refuse(span, problem)
    }

    /// Recognises serde's two sentences that deserve advice of their own; any other is one about syntax.
    fn problem(&self, message: &str, at: usize) -> Problem {
        if let Some((key, known)) = parts(message, "unknown field `", "`, expected ") {
            return Problem::UnknownKey { key: key.to_owned(), known: known.to_owned() };
        }
        if let Some((found, wanted)) = parts(message, "invalid type: ", ", expected ") {
            return Problem::WrongType {
                place: match self.key_of_value(at) {
                    Some(key) => format!("`{key}`"),
                    None => "this".to_owned(),
                },
                found: match found {
                    "map" => "a table or a date".to_owned(),
                    "sequence" => "a list".to_owned(),
                    other => other.to_owned(),
                },
                wanted: match wanted {
                    "a string" => "text in double quotes".to_owned(),
                    "i128" => "a whole number without quotes".to_owned(),
                    "a sequence" => "a list: `[...]` for values, `[[bridge]]` or `[[port]]` for tables".to_owned(),
                    other => other.to_owned(),
                },
            };
        }
        match message {
            "duplicate key" => Problem::DuplicateKey,
            other => Problem::Syntax(other.to_owned()),
        }
    }

    /// The bare key whose value starts at `at`, if what is written before it is `key =`.
    fn key_of_value(&self, at: usize) -> Option<&str> {
        let key = self.text.get(..at)?.trim_end().strip_suffix('=')?.trim_end();
        let is_part_of_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        key.rsplit(|c| !is_part_of_key(c)).next().filter(|key| !key.is_empty())
    }
}

/// The line, from 1, that holds byte `at`; the end of the text belongs to the last line that has any.
pub(crate) fn line_at(text: &[u8], at: usize) -> usize {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let before = &text[..at.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// What stands between `start` and the last `middle`, and what follows it.
fn parts<'m>(message: &'m str, start: &str, middle: &str) -> Option<(&'m str, &'m str)> {
    message.strip_prefix(start)?.rsplit_once(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_belongs_to_the_line_that_its_newline_ends() {
        let text = b"a\nb\n\nc\n";
        let lines: Vec<usize> = (0..=text.len()).map(|at| line_at(text, at)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 3, 4, 4, 4]);
    }

    #[test]
    fn an_empty_text_has_one_line() {
        assert_eq!(line_at(b"", 0), 1);
        assert_eq!(line_at(b"", 9), 1);
    }

    #[test]
    fn the_key_of_a_value_is_what_stands_before_its_equals_sign() {
        let key = |text, at| {
            let file = Path::new("f");
            Source { file, text }.key_of_value(at).map(str::to_owned)
        };
        assert_eq!(key("mode = 3", 7).as_deref(), Some("mode"));
        assert_eq!(key("port = [{ name=3 }]", 15).as_deref(), Some("name"));
        assert_eq!(key("cpus = [\"a\"]", 8), None);
        assert_eq!(key("\"é\" = 3", 7), None);
        assert_eq!(key("é", 1), None);
    }
}
