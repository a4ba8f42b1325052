//! `docs/limits.md` against the constants of every `limits.rs`: each has a row, each row has a constant, values agree.
//!
//! Owns the reading of both. A constant's expression is evaluated where it is integer arithmetic or a `Duration`
//! (in milliseconds); anything else is compared as text. A row is written `| \`crate::path::NAME\` | value | why |`
//! and its value may be followed by words: `1,048,576 bytes (1 MiB)`.

use super::RustFile;
use std::collections::BTreeMap;

/// What a limit is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number; durations in milliseconds.
    Number(i128),
    /// Anything else, as written.
    Text(String),
}

/// Constants of the files named `limits.rs`, by full path.
pub fn from_code(files: &[RustFile]) -> BTreeMap<String, Value> {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.ends_with("/limits.rs") && file.crate_dir() != "integration-tests")
    {
        let module = module_path(&file.path);
        let mut local: BTreeMap<String, i128> = BTreeMap::new();
        for (name, expression) in constants(&file.source.code, &file.source.text) {
            let value = match evaluate(&expression, &local) {
                Some(number) => {
                    local.insert(name.clone(), number);
                    Value::Number(number)
                }
                None => Value::Text(expression),
            };
            found.insert(format!("{module}::{name}"), value);
        }
    }
    found
}

/// `log/src/batch/limits.rs` → `log::batch::limits`.
fn module_path(path: &str) -> String {
    let mut parts: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|part| *part != "src").collect();
    if parts[0] == "integration-tests" {
        parts[0] = "integration_tests";
    }
    parts.join("::")
}

/// `(name, expression)` of each `pub const` at the top level; values are taken from `text`, which keeps strings.
fn constants(code: &str, text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("pub const ") {
        let Some(end) = code[at..].find(';').map(|offset| at + offset) else { continue };
        // `code` blanks characters one for one only where every character is one byte wide, so go by its own text.
        let item = if text.len() == code.len() { &text[at..end] } else { &code[at..end] };
        let (Some(colon), Some(equals)) = (item.find(':'), item.find(" = ")) else { continue };
        let name = item["pub const ".len()..colon].trim();
        if name.contains("fn ") {
            continue;
        }
        found.push((name.to_owned(), item[equals + 3..].split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    found
}

/// Rows of the document: full path → value.
pub fn from_document(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(name), Some(value)) = (cells.next(), cells.next()) else { continue };
        found.insert(name.trim_matches('`').to_owned(), document_value(value));
    }
    found
}

/// A leading number with thousands separators, scaled by a time unit if one follows; else the text.
fn document_value(cell: &str) -> Value {
    let cell = cell.trim_matches('`');
    let digits: String = cell.chars().take_while(|c| c.is_ascii_digit() || matches!(c, ',' | '_' | '-')).collect();
    let Ok(number) = digits.replace([',', '_'], "").parse::<i128>() else { return Value::Text(cell.to_owned()) };
    let unit = cell[digits.len()..].split_whitespace().next().unwrap_or_default();
    let scale = match unit.trim_end_matches([',', ';', '.']) {
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" | "days" => 86_400_000,
        "" | "ms" | "bytes" | "B" => 1,
        word if word.starts_with('.') || word.starts_with('*') || word.starts_with('/') => {
            return Value::Text(cell.to_owned());
        }
        _ => 1,
    };
    Value::Number(number * scale)
}

/// Where the two disagree.
pub fn differences(code: &BTreeMap<String, Value>, document: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in code {
        match document.get(name) {
            None => found.push(format!("{name} = {value:?}: no row in docs/limits.md")),
            Some(written) if !agree(name, value, written) => {
                found.push(format!("{name}: the code says {value:?}, docs/limits.md {written:?}"));
            }
            Some(_) => {}
        }
    }
    let gone = document.keys().filter(|name| !code.contains_key(*name));
    found.extend(gone.map(|name| format!("{name}: a row in docs/limits.md without a constant")));
    found
}

/// A constant in seconds (by its name) may be written with a unit, which the document turns into milliseconds.
fn agree(name: &str, code: &Value, written: &Value) -> bool {
    let scale = match (name.ends_with("_SECS") || name.ends_with("_SECONDS"), name.ends_with("_DAYS")) {
        (true, _) => 1000,
        (_, true) => 86_400_000,
        _ => 1,
    };
    match (code, written) {
        (Value::Number(code), Value::Number(written)) => code == written || code * scale == *written,
        _ => code == written,
    }
}

/// Integer arithmetic over literals and earlier constants, and `Duration::from_*`; None for anything else.
pub fn evaluate(expression: &str, known: &BTreeMap<String, i128>) -> Option<i128> {
    let mut parser = Parser { rest: expression, known };
    let value = parser.sum()?;
    parser.rest.trim().is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    known: &'a BTreeMap<String, i128>,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Option<i128> {
        let mut value = self.product()?;
        loop {
            if self.eat("<<") {
                value = value.checked_shl(u32::try_from(self.product()?).ok()?)?;
            } else if self.eat("+") {
                value = value.checked_add(self.product()?)?;
            } else if self.eat("-") {
                value = value.checked_sub(self.product()?)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<i128> {
        let mut value = self.atom()?;
        loop {
            if self.eat("*") {
                value = value.checked_mul(self.atom()?)?;
            } else if self.eat("/") {
                value = value.checked_div(self.atom()?)?;
            } else if self.eat("as") {
                self.word();
            } else {
                return Some(value);
            }
        }
    }

    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn atom(&mut self) -> Option<i128> {
        if self.eat("(") {
            let value = self.sum()?;
            return self.eat(")").then_some(value);
        }
        if self.eat("-") {
            return self.atom().map(|value| -value);
        }
        let word = self.word();
        let word = word.trim_start_matches("std::time::").trim_start_matches("core::time::");
        if let Some(unit) = word.strip_prefix("Duration::from_") {
            let scale = match unit {
                "millis" => 1,
                "secs" => 1000,
                "mins" => 60_000,
                "hours" => 3_600_000,
                _ => return None,
            };
            return self.atom().map(|value| value * scale);
        }
        if let Some(value) = self.known.get(word) {
            return Some(*value);
        }
        let digits = word.replace('_', "");
        let digits = ["u8", "u16", "u32", "u64", "usize", "i32", "i64"]
            .iter()
            .find_map(|suffix| digits.strip_suffix(suffix))
            .unwrap_or(&digits);
        match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_evaluated() {
        let known = BTreeMap::from([("BASE".to_owned(), 10)]);
        let cases = [
            ("1024 * 1024 + 4096", 1_052_672),
            ("1 << 20", 1_048_576),
            ("Duration::from_secs(2 * 3)", 6000),
            ("BASE * 3", 30),
            ("64_000u64", 64_000),
            ("(2 + 3) * 4", 20),
            ("16 * 1024 as usize", 16_384),
        ];
        for (expression, value) in cases {
            assert_eq!(evaluate(expression, &known), Some(value), "{expression}");
        }
        assert_eq!(evaluate("\"text\"", &known), None);
        assert_eq!(evaluate("1.5", &known), None);
    }

    #[test]
    fn every_kind_of_disagreement_is_named() {
        let file = RustFile::new(
            "log/src/a/limits.rs",
            "//! x\n/// A.\npub const A: usize = 2 * 512;\npub const B: Duration = Duration::from_secs(2);\npub const C: u8 = 1;\npub const F: f64 = 1.5;\n",
        );
        let code = from_code(std::slice::from_ref(&file));
        assert_eq!(code["log::a::limits::A"], Value::Number(1024));
        let good = "| name | value | why |\n|---|---|---|\n| `log::a::limits::A` | 1,024 bytes | x |\n| `log::a::limits::B` | 2 s | x |\n| `log::a::limits::C` | 1 | x |\n| `log::a::limits::F` | 1.5 | x |\n";
        assert_eq!(differences(&code, &from_document(good)), Vec::<String>::new());
        let bad = good.replace("1,024", "1,025").replace("::C`", "::D`");
        assert_eq!(differences(&code, &from_document(&bad)).len(), 3);
    }
}
