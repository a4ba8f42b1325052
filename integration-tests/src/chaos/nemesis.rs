//! Carries a plan out on a real cluster: kills, freezes, restarts; and counts what really happened.
//!
//! Owns the order within a round. Between two rounds every node is ready again: what a round proves must not depend on
//! the leftovers of the one before. Runs on a thread of its own; nothing here knows of clients.

use super::plan::Round;
use crate::cluster::TestCluster;
use crate::wait::hold_fault;
use deploy::dev::layout::{NodeName, Role};
use deploy::dev::process::Signal;
use std::time::Duration;

/// What was done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Done {
    /// Processes killed.
    pub kills: usize,
    /// Controllers among them.
    pub controllers: usize,
    /// Brokers among them.
    pub brokers: usize,
    /// Times when everything died at once.
    pub power_losses: usize,
    /// Freezes.
    pub pauses: usize,
}

impl Done {
    fn killed(&mut self, name: NodeName) {
        self.kills += 1;
        match name.role {
            Role::Controller => self.controllers += 1,
            Role::Broker => self.brokers += 1,
        }
    }
}

/// Makes one round of faults and waits until every node is ready again. `fell_behind` answers whether a controller that
/// is away would need a snapshot by now.
///
/// # Panics
/// When a node does not die or does not come back.
pub fn run(cluster: &TestCluster, round: &Round, done: &mut Done, fell_behind: &dyn Fn() -> bool) {
    eprintln!("fault: {round:?}");
    match round {
        Round::Kill { nodes, down_ms } => {
            for node in nodes {
                cluster.kill(*node);
                done.killed(*node);
            }
            hold_fault(Duration::from_millis(*down_ms));
            cluster.start_nodes(nodes);
        }
        Round::Pause { node, for_ms } => {
            cluster.cluster.signal(*node, Signal::STOP).unwrap_or_else(|error| panic!("{error}"));
            hold_fault(Duration::from_millis(*for_ms));
            cluster.cluster.signal(*node, Signal::CONT).unwrap_or_else(|error| panic!("{error}"));
            done.pauses += 1;
        }
        Round::KillAll { order } => {
            cluster.kill_all();
            order.iter().for_each(|node| done.killed(*node));
            done.power_losses += 1;
            cluster.start_nodes(order);
        }
        Round::OneByOne { brokers, gap_ms } => {
            for broker in brokers {
                cluster.kill(*broker);
                done.killed(*broker);
                hold_fault(Duration::from_millis(*gap_ms));
            }
            // The last to die has everything; it comes back last, so that the others must be known by the ELR or wait.
            cluster.cluster.start(brokers).unwrap_or_else(|error| panic!("{error}"));
        }
        Round::LongControllerOutage { node } => {
            cluster.kill(*node);
            done.killed(*node);
            crate::wait::eventually("the others have compacted what the controller misses", || {
                if fell_behind() { Ok(()) } else { Err("not yet".to_owned()) }
            });
            cluster.start_nodes(&[*node]);
        }
    }
    let everyone = cluster.names();
    cluster.cluster.wait_ready(&everyone, crate::wait::PATIENCE, |_| ()).unwrap_or_else(|error| panic!("{error}"));
}
