//! Tests of the storage engine against simulated and real disks.

mod common;
mod log_model;
mod log_stories;
mod data_dir;
mod registry;
mod state_file;
