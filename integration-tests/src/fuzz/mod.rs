//! Hostile bytes: one body per thing that reads bytes it did not write. Run by `tests/fuzz.rs` and `seawall-fuzz` from a
//! seed, and by libFuzzer through `fuzz/`.
//!
//! A body takes any bytes, must not panic, asserts what holds of whatever was accepted (it reads back the same, it can be
//! read by everybody else, it may be written), and says how deep the input got. Owns the bodies, their corpora, what changes
//! an input and what makes it right again; never looks at what an error says.

mod data;
mod disk;
mod drive;
mod mutate;
mod records;
mod replica;
mod seal;
mod services;
mod text;
mod values;
mod wire;

pub use controller::fuzzing::Depth;
pub use drive::{
    Bounds, DEV_SLOWNESS, Failure, INPUT_CPU_MAX, Outcome, SHOWN_BYTES_MAX, Tally, drive, input, one, told,
};

use crate::chaos::random::Random;
use controller::fuzzing as control;

/// Per cent of the inputs made from a seed that must get so deep: about half of what was measured. Without them a body
/// whose corpus dies at a checksum looks as clean as any other.
#[derive(Debug, Clone, Copy)]
pub struct Floors {
    /// Past the first check.
    pub past: u8,
    /// Taken.
    pub accepted: u8,
    /// What the first check is, and what it means to be taken.
    pub why: &'static str,
}

/// One thing under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes any bytes.
    pub body: fn(&[u8]) -> Depth,
    /// Legal inputs to begin with.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Changes what an input says.
    pub vary: fn(&mut Random, &[u8]) -> Vec<u8>,
    /// Makes checksums, lengths and numbers right after a change.
    pub seal: fn(&mut Random, &mut Vec<u8>),
    /// How deep its inputs must get.
    pub floors: Floors,
}

const fn target(
    name: &'static str,
    body: fn(&[u8]) -> Depth,
    corpus: fn() -> Vec<Vec<u8>>,
    vary: fn(&mut Random, &[u8]) -> Vec<u8>,
    seal: fn(&mut Random, &mut Vec<u8>),
    floors: (u8, u8, &'static str),
) -> Target {
    Target { name, body, corpus, vary, seal, floors: Floors { past: floors.0, accepted: floors.1, why: floors.2 } }
}

/// Every target there is.
#[rustfmt::skip]
pub const TARGETS: [Target; 20] = [
    target("service-admin", control::admin, services::admin,
        services::vary_tagged, seal::nothing, (27, 18, "a protobuf message; decided on a cluster")),
    target("service-lifecycle", control::lifecycle, services::lifecycle,
        services::vary_tagged, seal::nothing, (29, 16, "a protobuf message; decided on a cluster")),
    target("service-raft", control::raft, services::raft,
        services::vary_raft, seal::nothing, (31, 9, "postcard; let in by the gate, an append then in the log and applied")),
    target("service-metadata", services::metadata_body, services::metadata,
        services::vary_feed, services::seal_feed, (39, 18, "a protobuf message; an image made of it")),
    target("service-replication", services::replication_body, services::replication,
        services::vary_pieces::<1>, services::seal_replication, (41, 41, "a protobuf message; stepped by a replica")),
    target("service-data", data::body, data::corpus,
        services::vary_tagged, data::seal, (28, 25, "a protobuf message; answered by a leader")),
    target("record-batch", records::batch_body, records::batches,
        records::vary_batch, records::seal_batch, (24, 13, "length, checksum and header; every record read")),
    target("record-batch-sealed", records::sealed_body, records::batches,
        records::vary_batch, seal::nothing, (30, 14, "the header; every record read")),
    target("log-segment", disk::segment_body, disk::segments,
        mutate::bytes, seal::behind::<0>, (30, 7, "identity and marks; batches read and appended to")),
    target("log-index", disk::index_body, disk::indexes,
        mutate::bytes, seal::behind::<1>, (90, 48, "none; the log reads the same, the rest of a lie is damage")),
    target("log-registry", disk::registry_body, disk::registries,
        mutate::bytes, seal::behind::<1>, (27, 20, "the file's checksums; every note read")),
    target("data-directory", disk::directory_body, disk::directories,
        mutate::bytes, seal::behind::<1>, (23, 16, "the record's checksum; a start that goes through")),
    target("epoch-table", disk::epochs_body, disk::epochs,
        mutate::bytes, seal::nothing, (90, 90, "none: any bytes are two tables")),
    target("raft-directory", control::raft_directory, disk::raft_directories,
        disk::vary_raft_directory, disk::seal_raft_directory, (37, 21, "the file's checksums; a start that goes through")),
    target("raft-entry", control::raft_entry, services::entries,
        services::vary_entry, seal::nothing, (37, 26, "postcard; let in by the gate, in the log, applied")),
    target("controller-snapshot", control::snapshot_file, records::snapshot_files,
        records::vary_snapshot_file, records::seal_snapshot_file, (35, 22, "head, body and meta; its image read")),
    target("metadata-batch", records::facts_body, records::facts,
        values::batch, seal::nothing, (30, 12, "postcard of every fact; folded")),
    target("metadata-snapshot", records::snapshot_body, records::snapshots,
        records::vary_snapshot, records::seal_snapshot, (40, 23, "the chunks' checksums; an image made of it")),
    target("configuration", text::configuration_body, text::configurations,
        text::vary_configuration, seal::nothing, (27, 14, "toml; a role's whole file, or a config in its range")),
    target("arguments", text::arguments_body, text::arguments,
        text::vary_arguments, seal::nothing, (4, 4, "the command line as a whole: nothing lies behind it here")),
];

/// The target of that name.
#[must_use]
pub fn target_of(name: &str) -> Option<&'static Target> {
    const ALL: &[Target] = &TARGETS;
    ALL.iter().find(|target| target.name == name)
}

/// Runs the body of that name.
///
/// # Panics
/// If there is no such target, and whenever the body does.
pub fn run(name: &str, bytes: &[u8]) {
    let target = target_of(name).expect("a target of that name");
    let _how_deep = (target.body)(bytes);
}
