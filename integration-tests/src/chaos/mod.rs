//! A cluster under random faults, with clients that write down everything they are told.
//!
//! * [`random`]: the seed's numbers. * [`plan`] (pure): which faults, in which order. * [`nemesis`]: carries them out.
//! * [`workload`]: writers, and an administrator. * [`observe`]: counters over all lives of all processes.
//! * [`metadata`]: the committed facts, followed as a broker follows them.
//! * [`read_back`]: everything read again at the end. * [`replicas`]: the logs on disk, compared.
//!
//! Owns no verdict: `crate::history` judges what was told against what was read. A run in which a planned fault did not
//! take effect is invalid, not green; the test asks [`observe`] for that evidence.

pub mod metadata;
pub mod nemesis;
pub mod observe;
pub mod plan;
pub mod random;
pub mod read_back;
pub mod replicas;
pub mod workload;
