//! What the tests of the whole stand on: the repository's rules as code, and a harness that starts real processes.
//!
//! Never shipped; nothing but the tests under `integration-tests/tests` depends on it.

pub mod chaos;
pub mod checker;
pub mod cluster;
pub mod damage;
pub mod fuzz;
pub mod mutants;
pub mod ring2;
pub mod ring3;
pub mod sim;
pub mod syscalls;
pub mod tidy;
pub mod torture;
pub mod wait;
pub mod wire;
