//! Generated services and messages, the shared channel and server settings, and the conversions
//! between wire errors and [`crate::error::ApiError`]. Knows sockets only through tonic.

pub mod channel;
pub mod connections;
pub mod convert;
pub mod guard;
pub mod server;
pub mod socket;

/// Messages and services as generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod pb {
    /// `seawall.common.v1`
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("seawall.common.v1");
        }
    }
    /// `seawall.raft.v1`
    pub mod raft {
        pub mod v1 {
            tonic::include_proto!("seawall.raft.v1");
        }
    }
    /// `seawall.metadata.v1`
    pub mod metadata {
        pub mod v1 {
            tonic::include_proto!("seawall.metadata.v1");
        }
    }
    /// `seawall.lifecycle.v1`
    pub mod lifecycle {
        pub mod v1 {
            tonic::include_proto!("seawall.lifecycle.v1");
        }
    }
    /// `seawall.replication.v1`
    pub mod replication {
        pub mod v1 {
            tonic::include_proto!("seawall.replication.v1");
        }
    }
    /// `seawall.data.v1`
    pub mod data {
        pub mod v1 {
            tonic::include_proto!("seawall.data.v1");
        }
    }
    /// `seawall.admin.v1`
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("seawall.admin.v1");
        }
    }
}

/// Encoded descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
