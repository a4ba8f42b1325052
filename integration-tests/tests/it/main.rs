//! Real processes: the program as shipped, started, broken and asked from outside. One cluster at a time.

mod bad_input;
mod chaos;
mod disk;
mod main_job;
mod smoke;
mod syscalls;

/// The program, built with the storage whose unsynced bytes die with the process (and, by default, not using it).
const PROGRAM: &str = env!("CARGO_BIN_EXE_seawall-power-loss");

/// A runtime for a test's own clients.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
}

/// A number from the environment, for runs larger than the usual.
fn size(variable: &str, usual: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
