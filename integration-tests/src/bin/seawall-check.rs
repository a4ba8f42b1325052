//! Judges a history file: `seawall-check FILE [-o json] [--lines] [--shrink CLASS]`; exit code 0 valid, 1 invalid,
//! 2 unknown, 3 not a history. `seawall-check --bench N` makes a history of N operations, judges it, and says what that
//! took.
//!
//! Owns the arguments and what is printed; every judgement is the checker's.

use integration_tests::checker::model::{Shape, valid};
use integration_tests::checker::{Class, History, file, judge, report, shrink};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: seawall-check FILE [-o json] [--lines] [--shrink CLASS] | --bench OPERATIONS";

/// Not a history, or not understood.
const REFUSED: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["--bench", operations] => operations.parse().map_err(|_| USAGE.to_owned()).and_then(bench),
        [path] => read(path).map(|history| print(&history, false)),
        [path, "-o", "json"] => read(path).map(|history| print(&history, true)),
        [path, "--lines"] => read(path).and_then(|history| lines(&history)),
        [path, "--shrink", class] => read(path).and_then(|history| shrunk(&history, class)),
        _ => Err(USAGE.to_owned()),
    };
    outcome.unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::from(REFUSED)
    })
}

fn read(path: &str) -> Result<History, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let history = if bytes.starts_with(file::MAGIC) {
        file::decode(&bytes)
    } else {
        file::import(&String::from_utf8_lossy(&bytes))
    };
    history.map_err(|error| format!("{path}: {error}"))
}

fn print(history: &History, json: bool) -> ExitCode {
    let findings = judge(history);
    if json {
        println!("{:#}", report::json(history, &findings));
    } else {
        print!("{}", report::text(history, &findings));
    }
    ExitCode::from(findings.verdict().exit_code())
}

fn lines(history: &History) -> Result<ExitCode, String> {
    let sink = std::io::stdout();
    file::export(history, &mut sink.lock()).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the smallest history that shows an anomaly of the class, as lines.
fn shrunk(history: &History, class: &str) -> Result<ExitCode, String> {
    let named = Class::ALL.iter().find(|known| known.name() == class);
    let class = named.ok_or_else(|| format!("{class}: no such class"))?;
    let findings = judge(history);
    let anomaly = shrink::shortest(&findings, Some(*class)).ok_or_else(|| format!("no {} here", class.name()))?;
    lines(&shrink::shrink(history, anomaly))
}

fn bench(operations: usize) -> Result<ExitCode, String> {
    let shape = Shape { operations, keys: 64, clients: 32, admin_every: 200, duplicates: true, permitted_loss: false };
    let made = valid(1, shape);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("bench.history");
    let bytes = file::encode(&made);
    std::fs::write(&path, &bytes).map_err(|error| error.to_string())?;
    drop(made);
    let size = bytes.len();
    drop(bytes);
    let begin = Instant::now();
    let history = read(&path.to_string_lossy())?;
    let read_s = begin.elapsed().as_secs_f64();
    let findings = judge(&history);
    let total_s = begin.elapsed().as_secs_f64();
    println!(
        "{} operations, {} events, {size} bytes: read in {read_s:.2} s, read and judged in {total_s:.2} s, {}; peak {} MiB",
        findings.counts.operations,
        history.events.len(),
        report::word(findings.verdict()),
        peak_mib().unwrap_or(0),
    );
    for found in findings.by_class().iter().map(|found| format!("{found:?}")).chain(findings.doubts.iter().cloned()) {
        println!("{found}");
    }
    Ok(ExitCode::from(findings.verdict().exit_code()))
}

/// The most memory that this process ever held.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
