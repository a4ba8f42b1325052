//! A cluster under random faults, with clients that write down everything they are told.
//!
//! * [`random`]: the seed's numbers. * [`plan`] (pure): which faults, in which order. * [`nemesis`]: carries them out.
//! * [`workload`]: writers. * [`readers`]: who reads meanwhile. * [`admins`]: who changes topics, configs and heads. * [`observe`]: counters over all lives of all processes.
//! * [`metadata`]: the committed facts, followed as a broker follows them.
//! * [`stamp`]: what is written. * [`tape`]: the history that is kept of it.
//! * [`read_back`]: everything read again at the end. * [`replicas`], [`controllers`]: the logs on disk,
//!   compared.
//!
//! Owns no verdict: `crate::checker` judges what was told against what was read. A run in which a planned fault did not
//! take effect is invalid, not green; the test asks [`observe`] for that evidence.

pub mod admins;
pub mod controllers;
pub mod metadata;
pub mod nemesis;
pub mod observe;
pub mod plan;
pub mod random;
pub mod read_back;
pub mod readers;
pub mod replicas;
pub mod stamp;
pub mod tape;
pub mod workload;
