//! A process's life in the cluster: effects of the lifecycle, the feed, and what an image asks of partitions.

use super::Process;
use crate::sim::laws::{Law, Laws};
use crate::sim::sometimes::Sometimes;
use crate::sim::told::Told;
use crate::sim::wire::Wish;
use broker::lifecycle::state::{Effect, ImageFacts, Input as LifeInput};
use broker::limits::REPORT_AGAIN_MS;
use broker::metadata::feed::{Change, Fed, FeedFault, FeedReader};
use broker::metadata::reconcile::{Local, Me, Op, Scope, plan};
use broker::partition::{Opened, Partition, log_config};
use broker::replica::Lease;
use broker::replica::input::Input;
use log::data_dir::BrokerState;
use log::registry::Event;
use log::{Log, LogError};
use protocol::ids::{BrokerEpoch, Millis, TopicId, TopicPartition};
use protocol::metadata::brokers::BrokerView;
use protocol::metadata::image::MetadataImage;
use protocol::rpc::pb::metadata::v1::{FeedItem, feed_item::Item};
use std::collections::{BTreeSet, VecDeque};
use uuid::Uuid;

impl Process {
    pub(super) fn live(&mut self, input: LifeInput, now: Millis) {
        let mut effects = Vec::new();
        self.lifecycle.step(input, self.setup.clock.shows(now), &mut effects);
        for effect in effects {
            match effect {
                Effect::Register => self.wishes.push(Wish::Register),
                Effect::StoreEpoch(epoch) => self.store_epoch(epoch, now),
                Effect::Prove(_) => self.wishes.push(Wish::Prove),
                Effect::Heartbeat(heartbeat) => self.wishes.push(Wish::Heartbeat(heartbeat)),
                Effect::Lease(lease) => self.lease = lease,
                Effect::ActiveController(_) => self.report_again(),
                Effect::ChangeFeedSource => {
                    self.seen.push(Sometimes::FeedBehind);
                    self.change_source(self.feed.stream);
                }
                Effect::Stopped { released } => self.wishes.push(Wish::Stopped { released }),
                Effect::Fatal(reason) => {
                    self.lease = Lease::NONE;
                    self.seen.push(Sometimes::BrokerReplaced);
                    self.wishes.push(Wish::Dead(reason.to_string()));
                }
            }
        }
    }

    /// Tells the active controller what replicas of partitions without a leader have.
    fn report_again(&mut self) {
        let ends = self.partitions.iter().filter_map(|(at, p)| Some((*at, p.replica().log_end_report()?)));
        let reports = ends.collect();
        self.want_reports(reports);
    }

    fn store_epoch(&mut self, epoch: BrokerEpoch, now: Millis) {
        let earlier_epoch = (self.claimed.0 != 0).then_some(self.claimed.0);
        let stored = self.data.boot_id().and_then(|boot_id| {
            self.data.store_broker_state(&BrokerState { broker_epoch: epoch.0, earlier_epoch, boot_id })
        });
        match stored {
            Ok(()) => {
                self.live(LifeInput::EpochStored, now);
                self.plan(Scope::Everything, &BTreeSet::new(), now);
            }
            Err(error) => self.wishes.push(Wish::Dead(format!("broker state: {error}"))),
        }
    }

    /// Partitions that this start can prove, as the image has them.
    pub(in crate::sim) fn proved(&self) -> Vec<TopicPartition> {
        let places = self.image.topics.places_of(self.setup.id);
        places.filter(|at| self.admissible && self.evidence.proves(*at, self.claimed)).collect()
    }

    /// The claim to register with, and what it was chosen by.
    pub(in crate::sim) fn claim(&mut self) -> (BrokerEpoch, BrokerView) {
        let seen = self.image.brokers.view(self.setup.id);
        self.claimed = self.evidence.claim(seen.last_unfenced);
        (self.claimed, seen)
    }

    pub(in crate::sim) fn directory(&self) -> Uuid {
        self.data.identity().directory
    }

    pub(in crate::sim) fn epoch(&self) -> Option<BrokerEpoch> {
        self.lifecycle.epoch()
    }

    /// One item of the feed, judged as the product judges it.
    pub(super) fn fed(&mut self, stream: u64, item: FeedItem, now: Millis, laws: &mut Laws) -> Result<(), String> {
        if stream != self.feed.stream {
            return Ok(());
        }
        let is_snapshot = matches!(item.item, Some(Item::Snapshot(_)));
        match self.feed.reader.take(&self.image, item) {
            Ok(Fed::Image(image, change)) => {
                if is_snapshot {
                    self.seen.push(Sometimes::SnapshotFeed);
                }
                self.take_image(*image, &change, now, laws)
            }
            Ok(Fed::Position(_) | Fed::Partial) => Ok(()),
            Err(FeedFault::Switch(_)) => {
                self.change_source(stream);
                Ok(())
            }
            Err(FeedFault::Halt(why)) => {
                Err(Law::LogIsLegal.broken(format!("broker {} is halted by the feed: {why}", self.setup.id)))
            }
        }
    }

    fn take_image(
        &mut self,
        image: MetadataImage,
        change: &Change,
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        let before = self.image.batch_no;
        self.image = image;
        laws.observe(now, &Told::Image { who: self.who(), before, image: &self.image })?;
        let scope = if self.planned { Scope::Touched(&change.delta) } else { Scope::Everything };
        self.plan(scope, &change.purged, now);
        self.live(LifeInput::Image(ImageFacts::of(&self.image, self.setup.id)), now);
        self.live(LifeInput::Reconciled(self.image.batch_no), now);
        if !self.may_register && self.image.cluster.is_formed() {
            self.may_register = true;
            self.live(LifeInput::Recovered, now);
        }
        Ok(())
    }

    /// The stream is of no more use: the next controller is asked.
    pub(super) fn change_source(&mut self, stream: u64) {
        if stream != self.feed.stream {
            return;
        }
        self.seen.push(Sometimes::FeedSwitched);
        self.feed.stream += 1;
        self.feed.source += 1;
        self.feed.reader = FeedReader::default();
        self.wishes.push(Wish::FollowLater);
    }

    fn plan(&mut self, scope: Scope<'_>, purged: &BTreeSet<TopicId>, now: Millis) {
        let Some(epoch) = self.epoch() else { return };
        if !self.image.brokers.get(self.setup.id).is_some_and(|b| b.epoch == epoch && b.proved) {
            return;
        }
        let image = self.image.clone();
        let Some(ops) = plan(&self.local, &image, Me { id: self.setup.id, epoch }, scope, purged) else { return };
        self.planned = true;
        for op in ops {
            if let Err(error) = self.carry_out(op, &image, epoch, now) {
                return self.wishes.push(Wish::Dead(error.to_string()));
            }
        }
    }

    fn carry_out(&mut self, op: Op, image: &MetadataImage, epoch: BrokerEpoch, now: Millis) -> Result<(), LogError> {
        match op {
            Op::Open(at) => self.open(at, image, epoch)?,
            Op::Assign(at, view) => {
                if let Some(partition) = self.partitions.get_mut(&at) {
                    partition.configure(log_config(&image.topic_config(at.topic)));
                }
                self.step(at, Input::Assign(view), VecDeque::new(), now);
            }
            Op::Park(at) => {
                self.step(at, Input::Withdraw, VecDeque::new(), now);
                self.local.insert(at, Local::Parked);
            }
            Op::SetAside(at) => {
                self.end(at, now)?;
                let dir = self.data.partition_dir(at.topic.0, at.partition);
                let exists = self.data.storage().exists(&dir);
                if exists.map_err(|source| LogError::Io { op: "look for", path: dir, source })? {
                    self.data.set_aside(at.topic.0, at.partition)?;
                }
                self.record(at, Event::SetAside);
            }
            Op::Purge(at) => {
                self.end(at, now)?;
                self.data.delete_partition(at.topic.0, at.partition)?;
                self.record(at, Event::Removed);
            }
        }
        Ok(())
    }

    fn open(&mut self, at: TopicPartition, image: &MetadataImage, epoch: BrokerEpoch) -> Result<(), LogError> {
        self.local.insert(at, Local::Open);
        if self.partitions.contains_key(&at) {
            return Ok(());
        }
        let opened = match self.recovered.remove(&at) {
            Some(opened) => opened,
            None => {
                let dir = self.data.partition_dir(at.topic.0, at.partition);
                let config = log_config(&image.topic_config(at.topic));
                let (log, _) = Log::open(self.data.storage().clone(), &dir, config)?;
                Opened { at, log, noted_policy: None, directory_noted: false, damaged: false, checkpoint: None }
            }
        };
        self.slots += 1;
        let partition = Partition::new(self.setup.id, epoch, self.slots, opened, self.data.clone());
        self.partitions.insert(at, partition);
        Ok(())
    }

    /// Ends the partition here; its files are closed and nobody holds them.
    fn end(&mut self, at: TopicPartition, now: Millis) -> Result<(), LogError> {
        self.step(at, Input::Withdraw, VecDeque::new(), now);
        self.local.remove(&at);
        self.deadlines.remove(&at);
        if let Some(opened) = self.recovered.remove(&at) {
            opened.log.close_clean()?;
        }
        let Some(partition) = self.partitions.remove(&at) else { return Ok(()) };
        self.cut_before += partition.log().generation();
        partition.close()
    }

    /// The end of a clean stop: every log closed, then the marker. True if all of it is on disk.
    pub(in crate::sim) fn close(mut self) -> bool {
        let opened = std::mem::take(&mut self.recovered).into_values().map(|opened| opened.log.close_clean());
        let running = std::mem::take(&mut self.partitions).into_values().map(Partition::close);
        let clean = opened.chain(running).fold(true, |clean, closed| clean & closed.is_ok());
        let marked = self.epoch().is_some_and(|epoch| clean && self.data.mark_clean_shutdown(epoch.0).is_ok());
        self.registry.close().is_ok() && marked
    }

    /// Retention, and end marks of logs gone idle.
    pub(super) fn keep_house(&mut self, now: Millis) {
        let (local, wall) = (self.setup.clock.shows(now), self.setup.clock.wall(now));
        let retains = local >= self.retain_at;
        if retains {
            self.retain_at = local + REPORT_AGAIN_MS;
            self.report_again();
        }
        let (moment, mut out) = (self.now(now), self.outbox());
        for (at, partition) in &mut self.partitions {
            if partition.retry_flush() {
                self.touched.insert(*at);
            }
            partition.idle(&mut out);
            if !out.credits {
                self.touched.insert(*at);
            }
            if retains {
                let start = partition.log().start_offset();
                partition.retain(&self.image.topic_config(at.topic), wall, moment, &mut out);
                self.touched.insert(*at);
                if partition.log().start_offset() > start {
                    self.seen.push(Sometimes::RetentionRan);
                }
            }
        }
        self.outgoing.append(&mut out.out);
    }
}
