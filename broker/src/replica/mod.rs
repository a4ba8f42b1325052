//! The replica: one partition on one broker, as a pure step machine. `step(input, now, &mut effects)`.
//!
//! Owns every rule of DESIGN.md section 5 that a broker enforces: who may be answered when, how far the high watermark
//! reaches, when a follower counts, what is cut. Never reads a clock, a file or a socket; logs nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod effect;
pub mod input;
pub mod lease;
pub mod view;
