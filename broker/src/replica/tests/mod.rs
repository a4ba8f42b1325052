//! Stories and laws of the replica: `harness` drives one replica by hand, `stories_*` tell one rule each, `sim` runs
//! three replicas, a model controller, model disks and a hostile network from a seed.

mod harness;
mod sim;
mod sim_controller;
mod sim_disk;
mod sim_laws;
mod stories_follower;
mod stories_isr;
mod stories_leader;
mod stories_read;
