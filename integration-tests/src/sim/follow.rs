//! The metadata feed between a controller and a broker: a stream that is in order until it breaks, from a controller that
//! may lag, with batches or a snapshot, as `Feed::next` of the product chooses between them.

use super::buggify::Point;
use super::network::Site;
use super::wire::{Event, ToBroker};
use super::world::World;
use protocol::ids::{BatchNo, BrokerId, Millis};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::snapshot;
use protocol::rpc::pb::metadata::v1::{FeedBatch, FeedItem, FeedPosition, FeedSnapshot, feed_item::Item};

/// After so long a follower that lacks nothing is told where its controller stands.
const POSITION_MS: Millis = 1_000;

/// The controller's end of a broker's feed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Following {
    stream: u64,
    source: usize,
    /// Batches sent, counted from the first.
    sent: usize,
    /// When the last item arrives.
    last: Millis,
    told_at: Millis,
    /// A look is due.
    pending: bool,
    /// When a look comes by itself.
    look_at: Millis,
}

impl World {
    /// A broker asks for the feed of the controller that is its turn.
    pub(super) fn feed_open(&mut self, id: BrokerId, life: u64, stream: u64) {
        let Some(node) = self.nodes.get(&id).filter(|n| n.life == life) else { return };
        let Some(process) = node.process.as_ref().filter(|p| p.feed.stream == stream) else { return };
        let source = process.feed.source % self.quorum.members.len();
        let (batch_no, chain_hash) = (process.image.batch_no, process.image.chain_hash);
        let (from, to) = (self.net.broker(id), self.net.controller(source));
        let frozen = self.quorum.members[source].frozen_until > self.now;
        let blocked = self.net.blocked(from, to, self.now).or(self.net.blocked(to, from, self.now));
        if frozen || blocked.is_some() {
            let message = ToBroker::FeedBroke(stream, "it did not answer");
            return self.to_broker(id, life, self.timers.session_timeout_ms, message);
        }
        let sent = usize::try_from(batch_no.0).unwrap_or(usize::MAX);
        let known = self.quorum.images.get(sent).filter(|_| sent <= self.quorum.members[source].applied);
        if known.is_some_and(|image| image.chain_hash != chain_hash) {
            return self.to_broker(id, life, 5, ToBroker::FeedBroke(stream, "histories parted"));
        }
        let told_at = self.now;
        let following = Following { stream, source, sent, last: self.now, told_at, pending: true, look_at: 0 };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.following = following;
        }
        let delay = self.net.delay(from, to, &mut self.rng);
        self.after(delay, Event::FeedServe { id, life, stream });
    }

    /// Controllers have new batches: whoever follows them is looked at.
    pub(super) fn feed_news(&mut self, controller: usize) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let (life, following) = (node.life, &mut node.following);
            if following.source == controller && !following.pending && node.process.is_some() {
                following.pending = true;
                let stream = following.stream;
                self.after(1, Event::FeedServe { id, life, stream });
            }
        }
    }

    /// Sends what a follower lacks.
    pub(super) fn feed_serve(&mut self, id: BrokerId, life: u64, stream: u64) {
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.life == life && n.following.stream == stream) else {
            return;
        };
        node.following.pending = false;
        let following = node.following;
        let (from, to) = (self.net.controller(following.source), self.net.broker(id));
        let frozen = self.quorum.members[following.source].frozen_until;
        let wait = self.net.blocked(from, to, self.now).unwrap_or(0).max(frozen);
        if wait > self.now {
            // What is written into a way that is closed arrives when it opens, or never.
            if wait > self.now + self.timers.session_timeout_ms || self.rng.chance(10) {
                return self.to_broker(id, life, 500, ToBroker::FeedBroke(stream, "it fell silent"));
            }
            return self.look_again(id, life, stream, wait - self.now);
        }
        if Point::FeedBreaks.is_on(self.plan.buggify) && self.faults && self.rng.chance(1) {
            return self.to_broker(id, life, 3, ToBroker::FeedBroke(stream, "it ended the stream"));
        }
        let applied = self.quorum.members[following.source].applied;
        if following.sent > applied && Point::OldSnapshots.is_on(self.plan.buggify) && self.faults {
            let image = self.quorum.image_at(following.source).clone();
            return self.send_snapshot(id, life, (from, to), &image);
        }
        if following.sent >= applied {
            if self.now >= following.told_at + POSITION_MS {
                let batch_no = self.quorum.image_at(following.source).batch_no.0;
                self.feed_item(id, life, (from, to), Item::Position(FeedPosition { batch_no }));
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.following.told_at = self.now;
                }
            }
            return self.look_again(id, life, stream, POSITION_MS);
        }
        if following.sent < self.quorum.members[following.source].feed_from {
            let image = self.quorum.image_at(following.source).clone();
            self.send_snapshot(id, life, (from, to), &image);
            self.sent_upto(id, applied);
        } else {
            self.send_batches(id, life, (from, to), following.sent, applied);
        }
    }

    /// A follower that has everything is looked at when there is news, and told where we stand once in a while.
    fn look_again(&mut self, id: BrokerId, life: u64, stream: u64, delay: Millis) {
        if delay >= POSITION_MS {
            // News come by themselves; this look does not stand in their way.
            let at = self.now + delay;
            let Some(node) = self.nodes.get_mut(&id).filter(|n| n.following.look_at <= self.now) else { return };
            node.following.look_at = at;
            return self.at(at, Event::FeedServe { id, life, stream });
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.following.pending = true;
        }
        self.after(delay, Event::FeedServe { id, life, stream });
    }

    fn sent_upto(&mut self, id: BrokerId, sent: usize) {
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.following.sent, node.following.told_at) = (sent, self.now);
        }
    }

    fn send_batches(&mut self, id: BrokerId, life: u64, way: (Site, Site), sent: usize, applied: usize) {
        let trickles = Point::FeedTrickles.is_on(self.plan.buggify);
        let upto = if trickles { sent + 1 } else { applied };
        for number in sent..upto {
            if Point::FeedSkips.is_on(self.plan.buggify) && self.faults && self.rng.below(200) == 0 {
                continue;
            }
            let times = if Point::FeedRepeats.is_on(self.plan.buggify) && self.rng.below(100) == 0 { 2 } else { 1 };
            for _ in 0..times {
                let (after, data) = (&self.quorum.images[number + 1], self.quorum.log[number].clone());
                let batch = FeedBatch { batch_no: after.batch_no.0, chain_hash: after.chain_hash, data };
                self.feed_item(id, life, way, Item::Batch(batch));
            }
        }
        self.sent_upto(id, upto);
        let stream = self.nodes.get(&id).map_or(0, |n| n.following.stream);
        let delay = if upto < applied { 15 } else { POSITION_MS };
        self.look_again(id, life, stream, delay);
    }

    fn send_snapshot(&mut self, id: BrokerId, life: u64, way: (Site, Site), image: &MetadataImage) {
        let chunks = snapshot::encode(image);
        let crc32c = chunks.iter().fold(0, |crc, chunk| crc32c::crc32c_append(crc, chunk));
        let count = chunks.len();
        for (number, data) in chunks.into_iter().enumerate() {
            let last = number + 1 == count;
            let (batch_no, chain_hash) = (image.batch_no.0, image.chain_hash);
            let chunk = FeedSnapshot { batch_no, chain_hash, data, last, crc32c: if last { crc32c } else { 0 } };
            self.feed_item(id, life, way, Item::Snapshot(chunk));
        }
        let stream = self.nodes.get(&id).map_or(0, |n| n.following.stream);
        self.look_again(id, life, stream, POSITION_MS);
    }

    fn feed_item(&mut self, id: BrokerId, life: u64, (from, to): (Site, Site), item: Item) {
        let arrives = self.now + self.net.delay(from, to, &mut self.rng);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.following.last = node.following.last.max(arrives);
        let (stream, at) = (node.following.stream, node.following.last);
        let message = ToBroker::Feed { stream, item: FeedItem { item: Some(item) } };
        self.at(at, Event::Broker { id, life, message });
    }

    /// A broker that wants to register first makes sure that its image is as new as the controllers'.
    pub(super) fn catch_up(&mut self, id: BrokerId, life: u64, goal: BatchNo, until: Millis) {
        let Some(node) = self.nodes.get(&id).filter(|n| n.life == life) else { return };
        let Some(process) = node.process.as_ref() else { return };
        if process.image.batch_no >= goal {
            return self.register(id, life);
        }
        if self.now >= until {
            let late = ToBroker::Registered(Err(protocol::error::ErrorCode::Timeout));
            return self.to_broker(id, life, 1, late);
        }
        self.after(20, Event::CatchUp { id, life, goal, until });
    }
}
