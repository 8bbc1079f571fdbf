//! What the command line says: one line for what is wrong, and whole output or none.

use std::error::Error as _;
use std::io::{ErrorKind as IoKind, Write};
use std::num::ParseIntError;

use anyhow::Context;
use clap::error::{ContextKind, ErrorKind};

/// Writes to standard output.
///
/// # Errors
/// When it does not take everything, as on a full disk. A reader that has seen enough closes its pipe; that is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != IoKind::BrokenPipe => Err(error).context("standard output takes no more"),
        _ => Ok(()),
    }
}

/// The text without anything that breaks a line or writes to a terminal behind the reader's back.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// What is wrong with the arguments: which one, why, and what to do. clap takes a paragraph for each.
pub(crate) fn usage(error: &clap::Error) -> String {
    let said = |kind| error.get(kind).map(ToString::to_string).filter(|text| !text.is_empty());
    let argument = said(ContextKind::InvalidArg).unwrap_or_default();
    let value = said(ContextKind::InvalidValue);
    let line = match error.kind() {
        ErrorKind::UnknownArgument => {
            let near = said(ContextKind::SuggestedArg).map_or_else(|| SEE.to_owned(), |near| format!("write {near}"));
            format!("{argument}: there is no such argument; {near}")
        }
        ErrorKind::InvalidSubcommand => {
            let name = said(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("{name}: there is no such command; use run, plan or show")
        }
        ErrorKind::InvalidValue => {
            let what =
                value.map_or_else(|| "has no value".to_owned(), |value| format!("`{value}` is none of its values"));
            let known =
                said(ContextKind::ValidValue).map_or_else(|| "add one".to_owned(), |known| format!("use {known}"));
            format!("{argument}: {what}; {known}")
        }
        ErrorKind::ValueValidation => {
            let value = value.unwrap_or_default();
            match error.source() {
                Some(source) if source.is::<ParseIntError>() => {
                    format!("{argument}: `{value}` is no whole number; write one, such as 4")
                }
                Some(source) => format!("{argument}: `{value}`: {source}; {SEE}"),
                None => format!("{argument}: `{value}` cannot be; {SEE}"),
            }
        }
        ErrorKind::ArgumentConflict => match said(ContextKind::PriorArg) {
            Some(other) if other != argument => {
                format!("{argument} and {other} exclude each other; leave one of them out")
            }
            _ => format!("{argument} is there twice; leave one of them out"),
        },
        ErrorKind::MissingRequiredArgument => format!("{argument} is missing; add it"),
        _ => {
            // Its first paragraph.
            let text = error.to_string();
            let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            format!("{}; {SEE}", text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    };
    one_line(&line)
}

const SEE: &str = "see --help";
