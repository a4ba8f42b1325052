//! The metadata log: what it says, and what it means.
//!
//! One log of [`record::Fact`]s, written in [`batch::MetadataBatch`]es by the active controller, is the whole
//! cluster state. [`image::MetadataImage`] is their fold and `apply` its only mutator; replaying needs none
//! of the deciding code. A node that does not know a fact's kind or version stops: skipping one would part
//! the images.
//!
//! A snapshot ([`snapshot`]) is the image written back as restoring facts.
//!
//! Laws (property tests beside the code): fold(records(image)) == image; any cut of a list of facts folds to the
//! same image; a batch applies only on the image it was decided on; an image never goes back; leader and
//! partition epochs never fall, and a leader change raises the leader epoch by one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod batch;
pub mod brokers;
pub mod cluster;
pub mod configs;
pub mod delta;
pub mod draft;
pub mod durability;
mod envelope;
pub mod image;
mod legality;
pub mod record;
pub mod snapshot;
pub mod topics;

#[cfg(test)]
mod tests;
