//! Seawall's client: [`Producer`], [`Consumer`], [`Admin`], and (feature `cli`) the command tree over them.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Producer, ProducerConfig, ProducerRecord};
//! let producer = Producer::new(ProducerConfig::new("127.0.0.1:19190")?.set("linger.ms", "2")?);
//! let delivery = producer.send(ProducerRecord::new("orders", "hello").key("k1")).await?;
//! let written = delivery.await?;
//! println!("{}/{} at {:?}", written.topic, written.partition, written.offset);
//! # Ok(()) }
//! ```
//!
//! Deciding parts are pure (no clock, sockets, tasks): `routing`, `retry`, `producer::{accumulator, partitioner,
//! verdict}`, `consumer::positions`. `transport` alone names tonic. This crate never sees broker, controller or log.

pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
mod cluster;
pub mod config;
pub mod consumer;
mod error;
pub mod limits;
pub mod producer;
pub mod retry;
pub mod routing;
mod transport;

pub use admin::{Admin, NewTopic};
pub use config::{Acks, ClientConfig, ConfigError, ConsumerConfig, OffsetReset, ProducerConfig};
pub use consumer::{Consumer, ConsumerRecord, Start};
pub use error::{Effect, Error};
pub use producer::{Delivery, DeliveryFailure, Producer, ProducerRecord, SendError, Written};
pub use protocol::batch::{Compression, RecordHeader};
