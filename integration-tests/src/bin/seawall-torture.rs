//! Tortures everything that is stored: see `integration_tests::torture`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    integration_tests::torture::main(&words)
}
