//! A broker stores partitions and obeys the metadata log. It decides nothing about who leads: it learns that from
//! the feed, and asks the active controller for changes of the ISR.
//!
//! Pure cores (no clock, files, sockets, randomness): `replica`, `lifecycle::state`, `metadata::reconcile`.
//! Shells: [`partition`] runs a replica's effects over its log (and is driven by simulations too), `shard` gives
//! many partitions one thread, [`replication`] moves batches between brokers, [`rpc`] and [`handlers`] serve
//! applications, [`link`] and `lifecycle::task` talk to controllers, [`metadata::follower`] follows the feed,
//! [`node`] builds all of it in order and stops it in reverse.
//!
//! Absent on purpose: nothing here is dialled by a controller; nothing elects; no answer is released by
//! anything but `replica`.

pub mod checkpoints;
pub mod clock;
pub mod config;
pub mod controller_queue;
pub mod disk_room;
pub mod evidence;
pub mod fatal;
pub mod flush_pool;
pub mod handlers;
pub mod http;
pub mod lease_cell;
pub mod lifecycle;
pub mod limits;
pub mod link;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod notes;
pub mod partition;
pub mod recovery;
pub mod replica;
pub mod replication;
pub mod rpc;
pub mod shard;
pub mod strays;
