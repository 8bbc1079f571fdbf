//! Figures on a page of 100 columns, and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench::Outcome;

/// Rows of words under a heading each. Numbers go to the right: a column does so whose heading starts with a space.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) headings: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
    /// Lines below it.
    pub(crate) notes: Vec<String>,
}

/// Which side of its limit a value has to be on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "limit")]
pub(crate) enum Limit {
    Below(f64),
    AtLeast(f64),
    AtMost(f64),
    /// From the first to the second.
    Within(f64, f64),
    /// Told for the record: it always holds.
    None,
}

/// A figure that has to be on one side of a limit.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    /// None when no round was left to tell; then it does not hold.
    pub(crate) value: Option<f64>,
    pub(crate) limit: Limit,
    /// Why it does not count though its value is on the right side; then it does not hold.
    pub(crate) void: Option<&'static str>,
}

impl Bar {
    pub(crate) fn holds(&self) -> bool {
        match (self.limit, self.value) {
            (Limit::None, _) => true,
            _ if self.void.is_some() => false,
            (_, None) => false,
            (Limit::Below(limit), Some(value)) => value < limit,
            (Limit::AtLeast(limit), Some(value)) => value >= limit,
            (Limit::AtMost(limit), Some(value)) => value <= limit,
            (Limit::Within(low, high), Some(value)) => (low..=high).contains(&value),
        }
    }

    fn row(&self) -> Vec<String> {
        let verdict = if self.holds() { "yes" } else { self.void.unwrap_or("NO") };
        let (limit, verdict) = match self.limit {
            Limit::Below(limit) => (format!("< {limit:.2}"), verdict),
            Limit::AtLeast(limit) => (format!(">= {limit:.2}"), verdict),
            Limit::AtMost(limit) => (format!("<= {limit:.2}"), verdict),
            Limit::Within(low, high) => (format!("{low:.2} to {high:.2}"), verdict),
            Limit::None => ("-".to_owned(), "-"),
        };
        vec![self.what.clone(), figure(self.value, 3), limit, verdict.to_owned()]
    }
}

/// A number with so many decimals, or a dash.
pub(crate) fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// All of it, for people.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut page = String::new();
    for line in &outcome.head {
        let _ = writeln!(page, "{line}");
    }
    for table in &outcome.tables {
        let _ = write!(page, "\n{}", render(table));
    }
    if !outcome.bars.is_empty() {
        let rows = outcome.bars.iter().map(Bar::row).collect();
        let headings = &["bar (medians of ratios within a round)", " value", " limit", "holds"];
        let _ = write!(page, "\n{}", render(&Table { headings, rows, notes: Vec::new() }));
    }
    page
}

/// All of it, for machines.
pub(crate) fn write_json(outcome: &Outcome, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&outcome.json)?;
    fs::write(path, text + "\n").with_context(|| format!("{}", path.display()))
}

fn render(table: &Table) -> String {
    let width = |column: usize| {
        let cells = table.rows.iter().map(|row| row[column].chars().count());
        cells.chain([table.headings[column].trim().chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..table.headings.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let columns = cells.iter().zip(table.headings).zip(&widths).map(|((cell, heading), &width)| {
            if heading.starts_with(' ') { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        columns.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let headings: Vec<&str> = table.headings.iter().map(|heading| heading.trim()).collect();
    let rows = table.rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    let notes = table.notes.iter().map(|note| format!("{note}\n"));
    std::iter::once(line(&headings)).chain(rows).chain(notes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: Option<f64>, limit: Limit) -> Bar {
        Bar { what: "x".to_owned(), value, limit, void: None }
    }

    #[test]
    fn a_bar_holds_on_its_side_of_the_limit() {
        assert!(bar(Some(0.99), Limit::Below(1.0)).holds());
        assert!(!bar(Some(1.0), Limit::Below(1.0)).holds());
        assert!(bar(Some(1.0), Limit::AtLeast(1.0)).holds());
        assert!(!bar(Some(0.99), Limit::AtLeast(1.0)).holds());
        assert!(bar(Some(1.2), Limit::AtMost(1.2)).holds());
        assert!(!bar(Some(1.21), Limit::AtMost(1.2)).holds());
        assert!(bar(Some(1.1), Limit::Within(0.9, 1.1)).holds());
        assert!(!bar(Some(0.89), Limit::Within(0.9, 1.1)).holds());
        assert!(bar(Some(7.0), Limit::None).holds());
    }

    #[test]
    fn a_bar_that_is_void_does_not_hold_and_says_why() {
        let void = |limit| Bar { void: Some("void"), ..bar(Some(0.5), limit) };
        assert!(!void(Limit::Below(1.0)).holds());
        assert_eq!(void(Limit::Below(1.0)).row()[3], "void");
        assert!(void(Limit::None).holds());
    }

    #[test]
    fn a_bar_without_a_value_does_not_hold() {
        assert!(!bar(None, Limit::Below(1.0)).holds());
        assert!(!bar(None, Limit::AtLeast(1.0)).holds());
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "1.5".to_owned()], vec!["bcd".to_owned(), "10.5".to_owned()]];
        let table = Table { headings: &["name", " value"], rows, notes: vec!["that is all".to_owned()] };
        assert_eq!(render(&table), "name  value\na       1.5\nbcd    10.5\nthat is all\n");
    }
}
