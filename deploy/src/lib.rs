//! The one binary: roles (`controller`, `broker`), verbs that open files or start processes (`format`, `dev`, `log`,
//! `bench`), and the client's command tree.
//!
//! Owns process matters only: arguments, configuration layers, logging, metrics, signals, exit codes. Decides nothing
//! about data. Invariant: a role that cannot start says why, naming field, value and limit, and exits non-zero before
//! it has changed anything.

pub mod bench;
mod cli;
pub mod config;
pub mod dev;
pub mod exit;
pub mod format;
pub mod limits;
pub mod log_tool;
pub mod logging;
pub mod metrics;
pub mod role;

/// Runs the command line of this process; the whole program, for every binary that is it.
pub fn main() -> std::process::ExitCode {
    cli::main()
}

/// Parses arguments (the program's name first) and does nothing.
///
/// # Errors
/// What would be printed to whoever typed them.
pub fn check_arguments(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<(), clap::Error> {
    cli::check(arguments)
}
