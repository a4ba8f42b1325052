//! `seawall log`: looks into log directories on disk, of partitions and of the Raft log alike, without a running node.
//!
//! * [`overlay`]: a disk that is never changed. * [`find`]: the logs below a path. * [`inspect`]: reads one whole.
//! * [`verbs`]: the command line.
//!
//! Never changes a byte: recovery runs on the overlay. What it reports is what a starting node would find.

pub mod find;
pub mod inspect;
pub mod overlay;
pub mod verbs;
