//! Tests of the storage engine against simulated and real disks.

mod common;
mod data_dir;
mod disk_faults;
mod failed_sync;
mod log_crash;
mod log_damage;
mod log_model;
mod log_stories;
mod log_threads;
mod no_room;
#[cfg(feature = "power-loss")]
mod power_loss;
mod registry;
mod state_file;
mod storage_model;
