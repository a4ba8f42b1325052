//! `seawall dev`: a whole cluster on this machine, each node a process of this same program.
//!
//! * [`layout`] (pure): which nodes, ports and settings. * [`process`]: start, recognise, signal. * [`state`]: what is
//!   remembered between commands. * [`http`]: one small GET. * [`cluster`]: the cluster as a thing to act on.
//! * [`verbs`]: the command line over it.
//!
//! Never used by a node in production: nothing outside this folder, the benches and the tests knows of it.

pub mod cluster;
pub mod discovery;
pub mod http;
pub mod layout;
pub mod process;
pub mod state;
pub mod up;
pub mod verbs;

use crate::limits;
