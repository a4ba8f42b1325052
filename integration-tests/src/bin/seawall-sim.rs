//! Runs seeds of the core simulation: one with its trace, or many with their distribution. Also the table of planted bugs.

use integration_tests::{mutants, ring2, sim};
use std::process::ExitCode;

fn main() -> ExitCode {
    // What the product itself would log, for somebody who replays a seed and asks for it (RUST_LOG).
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((verb, rest)) if verb == "mutants" => mutants::main(rest),
        Some((verb, rest)) if verb == "ring2" => ring2::main(rest),
        _ => sim::cli::main(words.into_iter()),
    }
}
