//! Follows the metadata feed as any broker does, and counts what the committed facts say happened.
//!
//! Owns an image of its own, folded from the feed; checks on the way what must hold of every committed image: a leader
//! epoch has one leader, epochs never fall. A feed that ends is taken up again at another controller; what was missed
//! meanwhile arrives as a snapshot, which shows less: the counts are lower bounds.

use super::stamp::Partition as Name;
use crate::wire;
use bytes::Bytes;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, TopicId, TopicPartition};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::metadata::snapshot;
use protocol::rpc::channel::{Traffic, metadata_client};
use protocol::rpc::convert::{cluster_ref, from_status};
use protocol::rpc::pb::metadata::v1::feed_item::Item;
use protocol::rpc::pb::metadata::v1::{FeedItem, FollowRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// What the facts said.
#[derive(Debug, Default, Clone)]
pub struct Story {
    /// Leaders found in the ELR: the ISR had nobody left.
    pub elr_elections: u64,
    /// Elections that may have lost records.
    pub unclean_elections: u64,
    /// Registrations after which the broker lost a place in an ISR or ELR that it could not prove.
    pub unproved_restarts: u64,
    /// Registrations that kept every place.
    pub proved_restarts: u64,
    /// Times a whole snapshot came instead of batches.
    pub snapshots: u64,
    /// Batches folded one by one.
    pub batches: u64,
    /// `(partition, leader epoch, leader)` as committed.
    pub leaders: BTreeMap<(TopicPartition, u32), u32>,
    /// What must never be: two leaders in an epoch, an epoch that fell.
    pub broken: Vec<String>,
    /// Places in ISR and ELR that a broker had when it registered, until its proof is decided.
    unproved: BTreeMap<BrokerId, BTreeSet<TopicPartition>>,
}

/// The image as followed so far, and its story.
#[derive(Debug, Default)]
pub struct Watch {
    image: MetadataImage,
    pieces: Vec<Bytes>,
    story: Story,
}

impl Watch {
    /// The story so far.
    pub fn story(&self) -> &Story {
        &self.story
    }

    /// The names of partitions led, for the clients' history: `(partition, epoch, leader)`.
    pub fn leaders(&self) -> Vec<(Name, u32, u32)> {
        let named = |at: &TopicPartition| {
            let topic = self.image.topics.get(at.topic)?;
            Some((topic.name.clone(), at.partition))
        };
        let leaders = self.story.leaders.iter();
        leaders.filter_map(|((at, epoch), leader)| Some((named(at)?, *epoch, *leader))).collect()
    }

    /// Takes in what a controller says was committed. An error is a broken law: it was committed, so it must be legal.
    fn take(&mut self, item: FeedItem) -> Result<(), String> {
        let outcome = self.fold(item);
        if let Err(why) = &outcome {
            self.story.broken.push(format!("after batch {}: {why}", self.image.batch_no.0));
        }
        outcome
    }

    fn fold(&mut self, item: FeedItem) -> Result<(), String> {
        match item.item.ok_or("an item of no kind")? {
            Item::Batch(fed) => {
                let batch = MetadataBatch::decode(&fed.data).map_err(|error| error.to_string())?;
                let (new, _) = self.image.apply(&batch, &fed.data).map_err(|error| error.to_string())?;
                if new.chain_hash != fed.chain_hash {
                    return Err(format!("chain hash {:x}, the controller's is {:x}", new.chain_hash, fed.chain_hash));
                }
                self.story.batches += 1;
                for fact in &batch.facts {
                    self.story.note(&self.image, &new, fact);
                }
                self.image = new;
            }
            Item::Snapshot(piece) => {
                let last = piece.last;
                self.pieces.push(piece.data);
                if last {
                    let new = snapshot::decode(std::mem::take(&mut self.pieces)).map_err(|error| error.to_string())?;
                    if new.batch_no < self.image.batch_no {
                        return Err(format!("a snapshot of batch {} takes the image back", new.batch_no.0));
                    }
                    self.story.snapshots += 1;
                    self.story.unproved.clear();
                    for topic in new.topics.iter() {
                        self.story.led(&new, topic.id);
                    }
                    self.image = new;
                }
            }
            Item::Position(_) => {}
        }
        Ok(())
    }
}

impl Story {
    fn note(&mut self, old: &MetadataImage, new: &MetadataImage, fact: &Fact) {
        match fact {
            Fact::BrokerRegistered(registered) => {
                let places = |at: &TopicPartition| {
                    old.topics
                        .partition(*at)
                        .is_some_and(|p| p.isr.contains(&registered.broker) || p.elr.contains(&registered.broker))
                };
                let held = old.topics.places_of(registered.broker).filter(places).collect();
                self.unproved.insert(registered.broker, held);
            }
            Fact::BrokerProved(proved) => {
                let held = self.unproved.remove(&proved.broker).unwrap_or_default();
                let kept = |at: &TopicPartition| {
                    new.topics
                        .partition(*at)
                        .is_none_or(|p| p.isr.contains(&proved.broker) || p.elr.contains(&proved.broker))
                };
                match held.iter().all(kept) {
                    true if !held.is_empty() => self.proved_restarts += 1,
                    true => {}
                    false => self.unproved_restarts += 1,
                }
            }
            Fact::PartitionsChanged(changed) => {
                for change in &changed.changes {
                    let at = TopicPartition { topic: changed.topic, partition: change.partition };
                    self.partition_changed(old, new, at);
                }
            }
            Fact::PartitionsCreated(created) => self.led(new, created.topic),
            Fact::UncleanElection(_) => self.unclean_elections += 1,
            _ => {}
        }
    }

    fn partition_changed(&mut self, old: &MetadataImage, new: &MetadataImage, at: TopicPartition) {
        let (Some(before), Some(after)) = (old.topics.partition(at), new.topics.partition(at)) else { return };
        if after.leader_epoch < before.leader_epoch || after.partition_epoch < before.partition_epoch {
            self.broken.push(format!("{at}: an epoch fell from {before:?} to {after:?}"));
        }
        let Some(leader) = after.leader else { return };
        if before.leader != after.leader && before.elr.contains(&leader) && !before.isr.contains(&leader) {
            self.elr_elections += 1;
        }
        self.leads(at, after.leader_epoch.0, leader.0);
    }

    /// Who leads a topic's partitions.
    fn led(&mut self, image: &MetadataImage, topic: TopicId) {
        let Some(partitions) = image.topics.get(topic).map(|topic| &topic.partitions) else { return };
        for (partition, state) in (0..).zip(partitions.iter()) {
            if let Some(leader) = state.leader {
                self.leads(TopicPartition { topic, partition }, state.leader_epoch.0, leader.0);
            }
        }
    }

    fn leads(&mut self, at: TopicPartition, epoch: u32, leader: u32) {
        let known = *self.leaders.entry((at, epoch)).or_insert(leader);
        if known != leader {
            self.broken.push(format!("{at}: epoch {epoch} has leaders {known} and {leader}"));
        }
    }
}

/// Follows the feed of any of these controllers until dropped; what was learnt is in the watch.
pub async fn follow(watch: Arc<Mutex<Watch>>, controllers: Vec<String>, cluster_id: Uuid) {
    let mut turn = 0;
    loop {
        let address = &controllers[turn % controllers.len()];
        turn += 1;
        // A feed that ends or cannot be opened is a fault of the test's own making: the next controller is asked.
        let _ended: Result<(), String> = follow_one(&watch, address, cluster_id).await;
        tokio::task::yield_now().await;
    }
}

async fn follow_one(watch: &Mutex<Watch>, address: &str, cluster_id: Uuid) -> Result<(), String> {
    let request = {
        let mut watch = watch.lock().expect("the watch is not poisoned");
        // A snapshot that was cut off with its stream begins anew with the next.
        watch.pieces.clear();
        FollowRequest {
            cluster: Some(cluster_ref(cluster_id, 1)),
            batch_no: watch.image.batch_no.0,
            chain_hash: watch.image.chain_hash,
            node_id: 0,
            supported_version: u32::from(protocol::metadata::record::METADATA_VERSION_MAX),
        }
    };
    let mut client = metadata_client(wire::channel(address, Traffic::Control));
    let mut items = wire::call(client.follow(request)).await?;
    loop {
        // A source that says nothing for long is cut off or paused.
        let next = tokio::time::timeout(wire::DEADLINE, items.message()).await.map_err(|_| "silence".to_owned())?;
        let item = match next {
            Ok(Some(item)) => item,
            Ok(None) => return Ok(()),
            Err(status) => {
                let error = from_status(&status);
                if error.code == ErrorCode::FeedDiverged {
                    watch.lock().expect("the watch is not poisoned").story.broken.push(error.to_string());
                }
                return Err(error.to_string());
            }
        };
        watch.lock().expect("the watch is not poisoned").take(item)?;
    }
}
