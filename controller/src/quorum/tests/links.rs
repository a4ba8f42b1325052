//! A network in memory whose links can be cut, one direction at a time, and a cluster over it on simulated disks.
//! A cut link loses what is sent into it: callers find out by their deadlines, as on a real network.

use super::super::transport::{Call, LinkError, Peer, Transport};
use super::super::types::{VoterNode, VoterSpec};
use super::super::{Halt, Lead, Quorum, QuorumConfig, Verdict, VoterId};
use crate::feed::Feed;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use log::storage::memory::MemStorage;
use parking_lot::Mutex;
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{ClusterFormed, ConfigResource, ConfigSet, Fact};
use protocol::timers::Timers;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Longest wait for anything that must happen.
pub(super) const SOON: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Net {
    nodes: Mutex<BTreeMap<VoterId, Arc<Quorum>>>,
    cut: Mutex<BTreeSet<(u32, u32)>>,
    /// Members whose entries go nowhere, while their heartbeats and votes do.
    stalled: Mutex<BTreeSet<u32>>,
    /// Members whose appends are answered late, and whose heartbeats get lost.
    answered_late: Mutex<BTreeSet<u32>>,
    /// Hand-overs that were sent; with `lose_hand_overs` they get lost.
    hand_overs: AtomicU32,
    lose_hand_overs: AtomicBool,
    /// Questions whether a member would lead.
    asked_to_lead: AtomicU32,
}

impl Net {
    fn open(&self, from: VoterId, to: VoterId) -> bool {
        !self.cut.lock().contains(&(from.id, to.id))
    }

    fn reach(&self, from: VoterId, to: VoterId) -> Option<Arc<Quorum>> {
        self.nodes.lock().get(&to).filter(|_| self.open(from, to)).cloned()
    }

    fn carries_entries(&self, from: VoterId, to: VoterId) -> bool {
        self.open(from, to) && !self.stalled.lock().contains(&from.id)
    }

    /// An answer to this member on its way: late ones take longer than the lease of the request they answer.
    async fn hold_fault(&self, to: VoterId) {
        if self.answered_late.lock().contains(&to.id) {
            tokio::time::sleep(Duration::from_millis(timers().election_max_ms + timers().raft_heartbeat_ms)).await;
        }
    }

    fn both_ways(&self, from: VoterId, to: VoterId) -> bool {
        self.open(from, to) && self.open(to, from)
    }
}

struct Links {
    me: VoterId,
    net: Arc<Net>,
}

/// A message into a cut link: nothing happens until the caller's deadline.
async fn hold_fault<T>(deadline: Duration) -> Result<T, LinkError> {
    tokio::time::sleep(deadline).await;
    Err(LinkError::Timeout(deadline))
}

impl Transport for Links {
    fn call(
        &self,
        to: Peer,
        call: Call,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let (net, me) = (Arc::clone(&self.net), self.me);
        Box::pin(async move {
            if call == Call::WouldLead {
                net.asked_to_lead.fetch_add(1, Ordering::SeqCst);
            }
            if call == Call::TransferLeader {
                net.hand_overs.fetch_add(1, Ordering::SeqCst);
                if net.lose_hand_overs.load(Ordering::SeqCst) {
                    return hold_fault(deadline).await;
                }
            }
            if call == Call::Append && net.answered_late.lock().contains(&me.id) {
                return hold_fault(deadline).await;
            }
            let Some(target) = net.reach(me, to.voter) else { return hold_fault(deadline).await };
            target.check_sender(me).map_err(|e| LinkError::Refused(e.to_string()))?;
            let answer = tokio::time::timeout(deadline, target.serve(call, payload)).await;
            match answer {
                Ok(answer) if net.open(to.voter, me) => answer.map_err(|e| LinkError::Refused(e.to_string())),
                _ => hold_fault(deadline).await,
            }
        })
    }

    fn appends(
        &self,
        to: Peer,
        requests: BoxStream<'static, Bytes>,
        setup: Duration,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, LinkError>>, LinkError>> {
        let (net, me) = (Arc::clone(&self.net), self.me);
        Box::pin(async move {
            let reached = net.reach(me, to.voter).filter(|_| net.carries_entries(me, to.voter));
            let Some(target) = reached else { return hold_fault(setup).await };
            // Once something was lost nothing after it arrives: a byte stream has no gaps.
            let there = Arc::clone(&net);
            let requests = requests.take_while(move |_| std::future::ready(there.carries_entries(me, to.voter)));
            let answers = target.serve_appends(requests.chain(futures_util::stream::pending()).boxed());
            let answers = answers.map(|a| a.map_err(|e| LinkError::Refused(e.to_string())));
            let late = Arc::clone(&net);
            let answers = answers.then(move |answer| {
                let net = Arc::clone(&late);
                async move {
                    net.hold_fault(me).await;
                    answer
                }
            });
            let back = answers.take_while(move |_| std::future::ready(net.both_ways(me, to.voter)));
            Ok(back.chain(futures_util::stream::pending()).boxed())
        })
    }

    fn snapshot(
        &self,
        to: Peer,
        head: Bytes,
        data: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, LinkError>> {
        let (net, me) = (Arc::clone(&self.net), self.me);
        Box::pin(async move {
            let Some(target) = net.reach(me, to.voter) else { return hold_fault(deadline).await };
            target.serve_snapshot(&head, data).await.map_err(|e| LinkError::Refused(e.to_string()))
        })
    }
}

/// Waits until `look` gives something.
pub(super) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A cluster of quorum members.
pub(super) struct World {
    net: Arc<Net>,
    pub(super) disks: BTreeMap<u32, MemStorage>,
    pub(super) halts: Arc<Mutex<Vec<(u32, String)>>>,
    pub(super) snapshot_every: u64,
    first: Vec<VoterSpec>,
}

pub(super) fn timers() -> Timers {
    Timers::from_rtt(10)
}

pub(super) fn spec(id: u32) -> VoterSpec {
    let node = VoterNode { host: "memory".to_owned(), port: 1, locality: format!("eu/dc{id}/r1") };
    VoterSpec { voter: VoterId::from(u64::from(id)), node }
}

impl World {
    /// Members 1..=count of a new cluster, started.
    pub(super) async fn start(count: u32) -> Self {
        let mut world = Self {
            net: Arc::new(Net::default()),
            disks: BTreeMap::new(),
            halts: Arc::new(Mutex::new(Vec::new())),
            snapshot_every: 5000,
            first: (1..=count).map(spec).collect(),
        };
        for id in 1..=count {
            world.boot(id).await;
        }
        world
    }

    /// Starts a member on its disk, as another incarnation of the same voter.
    pub(super) async fn boot(&mut self, id: u32) {
        self.boot_as(id, spec(id).voter).await;
    }

    pub(super) async fn boot_as(&mut self, id: u32, me: VoterId) {
        let started = self.try_boot(id, me).await;
        let quorum = started.unwrap_or_else(|e| panic!("member {id} does not start: {e}"));
        self.net.nodes.lock().insert(me, quorum);
    }

    pub(super) async fn try_boot(
        &mut self,
        id: u32,
        me: VoterId,
    ) -> Result<Arc<Quorum>, super::super::QuorumStartError> {
        let disk = self.disks.entry(id).or_default().clone();
        let config = QuorumConfig {
            me,
            dir: PathBuf::from("/raft"),
            timers: timers(),
            snapshot_every: self.snapshot_every,
            segment_bytes: 64 << 10,
            scrub_every: SOON,
            addresses: BTreeMap::new(),
            bootstrap: self.first.clone(),
        };
        let links = Arc::new(Links { me, net: Arc::clone(&self.net) });
        let halts = Arc::clone(&self.halts);
        let halt = Halt::recording(move |reason| halts.lock().push((id, reason.to_owned())));
        Quorum::start(config, Arc::new(disk), links, Arc::new(Feed::default()), halt).await
    }

    pub(super) fn node(&self, id: u32) -> Arc<Quorum> {
        let nodes = self.net.nodes.lock();
        let found = nodes.iter().find(|(voter, _)| voter.id == id).map(|(_, quorum)| Arc::clone(quorum));
        found.unwrap_or_else(|| panic!("member {id} does not run"))
    }

    fn ids(&self) -> Vec<u32> {
        self.net.nodes.lock().keys().map(|voter| voter.id).collect()
    }

    /// Power cut: unsynced bytes are gone, the process with them.
    pub(super) async fn cut_power(&mut self, id: u32) {
        let quorum = self.node(id);
        self.net.nodes.lock().retain(|voter, _| voter.id != id);
        self.disks[&id].crash(&mut || false);
        quorum.end().await;
    }

    /// Cuts every link of a member, both ways.
    pub(super) fn isolate(&self, id: u32) {
        for other in self.ids().into_iter().filter(|other| *other != id) {
            self.net.cut.lock().extend([(id, other), (other, id)]);
        }
    }

    /// Entries of this member go nowhere from now on; its heartbeats and votes still do.
    pub(super) fn stall_entries(&self, id: u32) {
        self.net.stalled.lock().insert(id);
    }

    /// Appends of this member are answered later than its lease lasts, and its heartbeats get lost, from now on.
    pub(super) fn answer_late(&self, id: u32) {
        self.net.answered_late.lock().insert(id);
    }

    /// Hand-overs of leadership get lost from now on.
    pub(super) fn lose_hand_overs(&self) {
        self.net.lose_hand_overs.store(true, Ordering::SeqCst);
    }

    /// Hand-overs that were sent.
    pub(super) fn hand_overs(&self) -> u32 {
        self.net.hand_overs.load(Ordering::SeqCst)
    }

    /// Questions whether a member would lead.
    pub(super) fn asked_to_lead(&self) -> u32 {
        self.net.asked_to_lead.load(Ordering::SeqCst)
    }

    pub(super) fn heal(&self) {
        self.net.cut.lock().clear();
        self.net.stalled.lock().clear();
        self.net.answered_late.lock().clear();
    }

    /// Waits until one of these members leads, and tells which, and its term.
    pub(super) async fn leader_among(&self, ids: &[u32]) -> (u32, u64) {
        eventually("a leader", async || {
            for id in ids {
                let quorum = self.node(*id);
                let lead = quorum.lead().borrow().clone();
                if let Lead::Me { term } = lead
                    && quorum.barrier(term).await.is_ok()
                {
                    return Some((*id, term));
                }
            }
            None
        })
        .await
    }

    pub(super) async fn leader(&self) -> (u32, u64) {
        self.leader_among(&self.ids()).await
    }

    /// Writes one setting through whoever leads among `ids`, again until it is known to be applied.
    pub(super) async fn set(&self, ids: &[u32], value: u64) {
        let writing = async {
            loop {
                let (id, term) = self.leader_among(ids).await;
                let quorum = self.node(id);
                let batch = next_batch(&quorum.committed(), value);
                match quorum.write(term, batch).await {
                    Ok(Verdict::Applied { .. }) if retention(&quorum.committed()) == Some(value) => return,
                    Ok(_) | Err(_) => {}
                }
            }
        };
        tokio::time::timeout(SOON, writing).await.unwrap_or_else(|_| panic!("setting {value} was not applied"));
    }

    /// Waits until all these members have the image of the first one.
    pub(super) async fn converged(&self, ids: &[u32]) -> Arc<MetadataImage> {
        eventually("equal images", async || {
            let images: Vec<_> = ids.iter().map(|id| self.node(*id).committed()).collect();
            images.iter().all(|image| image == &images[0]).then(|| Arc::clone(&images[0]))
        })
        .await
    }

    /// Waits until this holds of a member.
    pub(super) async fn until(&self, what: &str, id: u32, holds: impl Fn(&Quorum) -> bool) {
        eventually(what, async || holds(&self.node(id)).then_some(())).await;
    }

    /// Waits until this many members have halted with a reason that says so.
    pub(super) async fn halted(&self, count: usize, reason: &str) {
        eventually(reason, async || {
            let halts = self.halts.lock();
            let ids: BTreeSet<u32> = halts.iter().filter(|(_, why)| why.contains(reason)).map(|(id, _)| *id).collect();
            (ids.len() >= count).then_some(())
        })
        .await;
    }
}

/// The next batch on an image: the cluster's beginning, or a setting.
pub(super) fn next_batch(image: &MetadataImage, value: u64) -> Bytes {
    let mut facts = Vec::new();
    if !image.cluster.is_formed() {
        let cluster_id = Uuid::from_u128(7);
        facts.push(Fact::ClusterFormed(ClusterFormed { cluster_id, incarnation: 1, metadata_version: 1 }));
    }
    facts.push(Fact::ConfigSet(ConfigSet {
        resource: ConfigResource::Cluster,
        key: "retention.ms".to_owned(),
        value: value.to_string(),
    }));
    Bytes::from(MetadataBatch { base: image.batch_no, facts }.encode())
}

pub(super) fn retention(image: &MetadataImage) -> Option<u64> {
    image.configs.get(ConfigResource::Cluster, "retention.ms").and_then(|v| v.parse().ok())
}
