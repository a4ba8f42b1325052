//! The language every Seawall process speaks. It knows nothing of who speaks it.
//!
//! * [`ids`], [`locality`], [`error`]: identities, places, refusals.
//! * [`batch`]: Kafka record batch v2.
//! * [`timers`], [`limits`]: every timer that derives from the declared round trip, every fixed bound.
//! * [`metadata`]: the facts of the metadata log, the image they fold to, deltas, snapshots, the draft.
//! * `rpc` (feature): generated gRPC services, channel and server settings.
//!
//! * `machine` (with `rpc`): the seam for simulated machines.
//! * [`planted`]: deliberate mistakes for tests (feature `planted-bugs`; a constant `false` without it).
//! * `testing` (feature): seeded generators of legal facts.
//!
//! Everything outside `rpc` and `machine` is pure: no tokio, files, sockets, clocks, randomness.

pub mod batch;
pub mod error;
pub mod ids;
pub mod limits;
pub mod locality;
#[cfg(feature = "rpc")]
pub mod machine;
pub mod metadata;
pub mod planted;
#[cfg(feature = "rpc")]
pub mod rpc;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod timers;
