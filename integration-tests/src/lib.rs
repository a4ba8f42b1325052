//! What the tests of the whole stand on: the repository's rules as code, and a harness that starts real processes.
//!
//! Never shipped; nothing but the tests under `integration-tests/tests` depends on it.

pub mod chaos;
pub mod cluster;
pub mod damage;
pub mod history;
pub mod sim;
pub mod tidy;
pub mod wait;
pub mod wire;
