//! Controllers as they are shipped: real listeners, real files, gRPC between them, in one process.

mod broker;
mod cluster;
mod stories;
