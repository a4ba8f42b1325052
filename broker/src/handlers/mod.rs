//! What requests mean: check, find the shard, wait, shape the answer. No state of their own; the gRPC services and,
//! later, the Kafka listener stand on the same handlers.

pub mod routing;
