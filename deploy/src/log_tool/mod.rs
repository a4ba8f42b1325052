//! `seawall log`: looks into log directories on disk, of partitions and of the Raft log alike, without a running node.
//!
//! * [`overlay`]: a disk that is never changed. * [`find`]: the logs below a path. * [`inspect`]: reads one whole.
//! * [`strays`]: what a broker set aside. * [`verbs`]: the command line.
//!
//! Never changes a byte of a log: recovery runs on the overlay. What it reports is what a starting node would find. Only
//! `purge-strays` deletes, and only what was set aside.

pub mod find;
pub mod inspect;
pub mod overlay;
pub mod strays;
pub mod verbs;
