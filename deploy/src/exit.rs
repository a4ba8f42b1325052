//! Exit codes of the `seawall` command: the client's table, and those of nodes that stop themselves.
//!
//! Owns the words in `--help`; the numbers are part of the interface and never change.

pub use client::cli::Exit;

/// What follows the client's table in `--help`: a node that stops to protect data says why by its code.
pub const NODE_CODES: &str = "A broker that stops itself to protect data exits with 65 (metadata), 69 (replaced by another \
process), 70 (broken invariant) or 74 (disk); a controller that halts is ended by SIGABRT.";
