//! What is checked on the controllers again and again while a run goes on.
//!
//! Owns: what was seen of terms and images so far. Never: changes a node.
//! Invariant: everything compared was read from a committed image or from Raft itself, of a process that runs.

use super::clients::TOPIC;
use super::links::Links;
use super::nodes::{Cluster, Kind, Node};
use super::record::{Law, Record};
use controller::quorum::Lead;
use protocol::ids::TopicPartition;
use protocol::metadata::image::MetadataImage;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// More dials of one host within a second than any pause between two attempts allows: five for every other host.
const DIALS_MAX: u64 = 100;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// Who led in each term.
    leaders: BTreeMap<u64, String>,
    /// Hash of the metadata up to each batch, and who showed it first.
    chains: BTreeMap<u64, (u64, String)>,
    /// Last batch seen in this life of each controller.
    newest: BTreeMap<(String, u64), u64>,
}

impl Watch {
    /// One look at everything.
    pub fn look(&mut self, at: Duration, cluster: &Cluster, links: &Links, record: &mut Record) {
        let (dials, host) = links.most_dials();
        if dials > DIALS_MAX {
            record.broke(Law::NobodyDialsInALoop, at, format!("{host:?} dialled {dials} times within a second"));
        }
        for node in &cluster.nodes {
            if let Some(why) = node.halted() {
                record.broke(Law::NobodyHalts, at, format!("{}: {why}", node.name));
            }
        }
        for node in cluster.of(Kind::Controller).filter(|node| node.up.get()) {
            self.controller(at, node, record);
        }
    }

    /// Who may answer reads while somebody else has passed the barrier of a later term. Looked at in every tick: such a
    /// moment is short.
    pub fn look_at_leases(&mut self, at: Duration, cluster: &Cluster, record: &mut Record) {
        let leading = |node: &Rc<Node>| node.leads.get().map(|(term, fresh)| (term, fresh, node.name.clone()));
        let active: Vec<_> = cluster.of(Kind::Controller).filter_map(leading).collect();
        let Some((newest, _, winner)) = active.iter().max() else { return };
        if let Some((term, _, name)) = active.iter().find(|(term, fresh, _)| *fresh && term < newest) {
            let what = format!("{name} in term {term}, while {winner} is active in term {newest}");
            record.broke(Law::OneMayAnswer, at, what);
        }
    }

    fn controller(&mut self, at: Duration, node: &Node, record: &mut Record) {
        let Some(quorum) = node.quorum() else { return };
        let lead = quorum.lead().borrow().clone();
        if let Lead::Me { term } = lead {
            let name = &node.name;
            let known = self.leaders.entry(term).or_insert_with(|| {
                record.count("leader terms");
                record.note(at, &format!("{name} leads term {term}"));
                name.clone()
            });
            if known != name {
                record.broke(Law::OneLeaderPerTerm, at, format!("term {term}: {known} and {name}"));
            }
        }
        let image = quorum.committed();
        let (batch, chain) = (image.batch_no.0, image.chain_hash);
        let known = self.chains.entry(batch).or_insert_with(|| {
            leaders(&image, record);
            (chain, node.name.clone())
        });
        if known.0 != chain {
            let what = format!("batch {batch} of {} is {:x}, of {} {chain:x}", known.1, known.0, node.name);
            record.broke(Law::OneMetadataHistory, at, what);
        }
        let newest = self.newest.entry((node.name.clone(), node.lives.get())).or_insert(batch);
        if batch < *newest {
            record.broke(Law::ImageGoesForward, at, format!("{} went from batch {newest} to {batch}", node.name));
        }
        *newest = batch;
    }
}

/// Who leads the partitions, as an image says that nobody has shown before.
fn leaders(image: &MetadataImage, record: &mut Record) {
    let Some(topic) = image.topics.by_name(TOPIC) else { return };
    let found = (0..).map_while(|partition| image.topics.partition(TopicPartition { topic: topic.id, partition }));
    for (number, partition) in (0..).zip(found) {
        if let Some(leader) = partition.leader {
            record.leads(TOPIC, number, partition.leader_epoch.0, leader.0);
        }
    }
}
