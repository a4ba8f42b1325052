//! Tables for people, JSON for programs, on stdout.
//!
//! Owns: the two formats and their rules: the same bytes to a terminal and to a pipe, no colour, no borders.
//! Never: writes talk to stdout.

use super::exit::Failure;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    Table,
    /// One JSON document.
    Json,
}

/// Prints data.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Prints in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether programs read this.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints the document, or its table.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn print(self, json: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(json).unwrap_or_else(|e| format!("\"{e}\"")),
            Format::Table => table(),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end())?;
        out.flush()?;
        Ok(())
    }
}

/// Columns with a head. Columns named in `right` are aligned to the right (numbers).
#[must_use]
pub(super) fn table(head: &[&str], right: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head.iter().map(|h| h.to_uppercase()));
    table.add_rows(rows);
    for (place, name) in head.iter().enumerate() {
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `key: value` lines, aligned.
#[must_use]
pub(super) fn facts(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
    lines.iter().map(|(key, value)| format!("{:width$}  {value}\n", format!("{key}:"))).collect()
}

/// Broker ids as `1,2,3`, `-` if none.
#[must_use]
pub(super) fn ids(list: &[u32]) -> String {
    if list.is_empty() { "-".to_owned() } else { list.iter().map(u32::to_string).collect::<Vec<_>>().join(",") }
}

/// A broker id, `none` for 0.
#[must_use]
pub(super) fn id(id: u32) -> String {
    if id == 0 { "none".to_owned() } else { id.to_string() }
}

/// A number that may be unknown (-1).
#[must_use]
pub(super) fn known(number: i64) -> String {
    if number < 0 { "unknown".to_owned() } else { number.to_string() }
}

/// The same for programs: null if unknown.
#[must_use]
pub(super) fn known_json(number: i64) -> Value {
    if number < 0 { Value::Null } else { number.into() }
}

/// 16 bytes as a uuid.
#[must_use]
pub(super) fn uuid(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes).map_or_else(|_| String::new(), |id| id.to_string())
}

/// Asks before something that cannot be taken back lightly. Only a terminal is asked; scripts are trusted.
///
/// # Errors
/// The answer was no.
pub(super) fn confirm(plan: &str, yes: bool) -> Result<(), Failure> {
    eprintln!("{plan}");
    if yes || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    eprint!("Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(super::Exit::Refused, "not confirmed, nothing was done"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_without_trailing_blanks() {
        let text = table(&["name", "n"], &["n"], vec![vec!["a".into(), "5".into()], vec!["bcd".into(), "10".into()]]);
        assert_eq!(text, "NAME   N\na      5\nbcd   10");
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a:     1\nlong:  2\n");
    }
}
