//! The history checker: what clients were told, and whether the cluster kept its word.
//!
//! * [`event`]: what is written down. * [`mod@file`]: as bytes and as lines of JSON. * [`recorder`]: while a run goes on.
//! * [`view`]: sorted by key. * [`passes`]: the checks. * [`anomaly`]: their names, and the verdict. * [`report`]: for people.
//! * [`shrink`]: the smallest history that shows an anomaly. * [`model`], [`mutate`]: histories of an ideal cluster, and
//!   ways to spoil them: the checker's own proof.
//!
//! Owns the verdict on a run, from the outside: it knows nothing of the brokers' insides and names no crate of ours.
//! Pure but for [`recorder`]: a history in, findings out. After Jepsen's Kafka workload, with more passes.

pub mod anomaly;
pub mod event;
pub mod file;
pub mod model;
pub mod mutate;
pub mod passes;
pub mod recorder;
#[cfg(test)]
mod reference;
pub mod report;
pub mod shrink;
#[cfg(test)]
mod tests;
pub mod view;

pub use anomaly::{Anomaly, Class, Findings, Verdict};
pub use event::{Header, History, Rules};
pub use passes::judge;
