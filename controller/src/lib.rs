//! Crate under construction.

pub mod decide;
