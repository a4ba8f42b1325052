//! Push replication with credits between brokers (DESIGN section 5): one stream per broker pair and shard of the
//! follower. `outbox` queues what a stream will send, `leader` is a leader's end of a stream, `follower` dials and keeps
//! the other end.
//!
//! Invariant: bytes under way on a stream never exceed the follower's credit by more than one push. A stream never outlives
//! the registration of either side: both name their broker epochs when it is opened.

pub mod follower;
pub mod leader;
pub mod outbox;
pub mod wire;
