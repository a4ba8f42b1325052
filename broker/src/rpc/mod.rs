//! gRPC services of a broker. Each file turns wire messages into calls of `handlers` or messages to shards and back;
//! nothing here decides.

pub mod admin;
pub mod data;
pub mod listen;
pub mod replication;
