//! Hostile bytes: one body per thing that reads bytes it did not write. Run by `tests/fuzz.rs` and `seawall-fuzz` from a
//! seed, and by libFuzzer through `fuzz/`.
//!
//! A body takes any bytes, must not panic, and asserts what holds of whatever was accepted (it reads back the same, it
//! can be read by everybody else, it may be written). Owns the bodies, their corpora and the mutator; never looks at what
//! an error says.

mod disk;
mod drive;
mod mutate;
mod records;
mod replica;
mod services;
mod text;

pub use drive::{Outcome, drive};

/// One thing under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes any bytes.
    pub body: fn(&[u8]),
    /// Legal inputs to begin with.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// Every target there is.
pub const TARGETS: [Target; 20] = [
    Target { name: "service-admin", body: controller::fuzzing::admin, corpus: services::admin },
    Target { name: "service-lifecycle", body: controller::fuzzing::lifecycle, corpus: services::lifecycle },
    Target { name: "service-raft", body: controller::fuzzing::raft, corpus: services::raft },
    Target { name: "service-metadata", body: services::metadata_body, corpus: services::metadata },
    Target { name: "service-replication", body: services::replication_body, corpus: services::replication },
    Target { name: "service-data", body: services::data_body, corpus: services::data },
    Target { name: "record-batch", body: records::batch_body, corpus: records::batches },
    Target { name: "record-batch-sealed", body: records::sealed_body, corpus: records::batches },
    Target { name: "log-segment", body: disk::segment_body, corpus: disk::segments },
    Target { name: "log-index", body: disk::index_body, corpus: disk::indexes },
    Target { name: "log-registry", body: disk::registry_body, corpus: disk::registries },
    Target { name: "data-directory", body: disk::directory_body, corpus: disk::directories },
    Target { name: "epoch-table", body: disk::epochs_body, corpus: disk::epochs },
    Target { name: "raft-directory", body: controller::fuzzing::raft_directory, corpus: disk::raft_directories },
    Target { name: "raft-entry", body: controller::fuzzing::raft_entry, corpus: services::raft },
    Target { name: "controller-snapshot", body: controller::fuzzing::snapshot_file, corpus: records::snapshots },
    Target { name: "metadata-batch", body: records::facts_body, corpus: records::facts },
    Target { name: "metadata-snapshot", body: records::snapshot_body, corpus: records::snapshots },
    Target { name: "configuration", body: text::configuration_body, corpus: text::configurations },
    Target { name: "arguments", body: text::arguments_body, corpus: text::arguments },
];

/// Runs the body of that name.
///
/// # Panics
/// If there is no such target, and whenever the body does.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").body)(bytes);
}
