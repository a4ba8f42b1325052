//! Ring 3: the real program as real processes, each in a network namespace of its own, in three data centres.
//!
//! * [`net`]: namespaces, bridges, one router between them; drops at a node. * [`wan`]: the program on the router that
//!   delays, drops and cuts, pair by pair of data centres, each way by itself. * [`nodes`]: the processes.
//! * [`plan`] (pure): which faults, in which order. * [`nemesis`]: carries them out, and shows that they took effect.
//! * [`outer`]: what surrounds a run. * [`run`]: the whole of it. * [`scene`]: its clients. * [`end`]: its end. * [`pair_cut`]: one broker pair cut from each other only.
//!
//! Owns no verdict: `crate::checker` judges. Needs root and namespaces; without them it says so and is not green.
//! Invariant: everything made here carries the runner's process number in its name, and goes with the runner; what a
//! runner that died left behind is swept by the next.

pub mod end;
pub mod nemesis;
pub mod net;
pub mod nodes;
pub mod outer;
pub mod pair_cut;
pub mod plan;
pub mod run;
pub mod scene;
pub mod wan;

/// What goes wrong outside the cluster under test: namespaces, files, programs.
pub type Failure = String;
