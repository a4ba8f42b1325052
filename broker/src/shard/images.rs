//! What a new image asks of a shard's partitions, carried out: open, assign, park, set aside, purge.
//!
//! Invariant: nothing is opened or assigned before the image shows this process's own registration with its restart
//! proved. Until then a later start must find the directories as this one did, or it would prove what this one could not.

use log::Log;
use protocol::ids::{BrokerEpoch, TopicPartition};
use protocol::metadata::image::MetadataImage;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::run::Shard;
use crate::fatal::Fatal;
use crate::metadata::feed::Change;
use crate::metadata::reconcile::{Local, Me, Op, Scope, plan_where};
use crate::partition::outside::Outside;
use crate::partition::{Opened, Partition, log_config};
use crate::replica::input::Input;

impl Shard {
    pub(super) fn take_image(&mut self, image: Arc<MetadataImage>, change: &Change) {
        self.world.image = image;
        if self.planned {
            self.plan(Scope::Touched(&change.delta), &change.purged);
        } else {
            self.plan_everything();
        }
    }

    pub(super) fn plan_everything(&mut self) {
        self.plan(Scope::Everything, &BTreeSet::new());
    }

    fn plan(&mut self, scope: Scope<'_>, purged: &BTreeSet<protocol::ids::TopicId>) {
        let image = self.world.image.clone();
        let Some(epoch) = self.epoch else { return };
        let proved = image.brokers.get(self.me).is_some_and(|b| b.epoch == epoch && b.proved);
        if !proved {
            return;
        }
        let mine = |at| self.shards.index_of(at) == self.index;
        let me = Me { id: self.me, epoch };
        let Some(ops) = plan_where(&self.local, &image, me, scope, purged, mine) else { return };
        self.planned = true;
        for op in ops {
            let at = subject(&op);
            if let Err(error) = self.carry_out(op, &image, epoch) {
                self.world.fatal(Fatal::Disk(format!("{at}: {error}")));
                return;
            }
        }
    }

    fn carry_out(&mut self, op: Op, image: &MetadataImage, epoch: BrokerEpoch) -> Result<(), log::LogError> {
        match op {
            Op::Open(at) => self.open(at, image, epoch)?,
            Op::Assign(at, view) => {
                let config = log_config(&image.topic_config(at.topic));
                if let Some(partition) = self.partitions.get_mut(&at) {
                    partition.configure(config);
                }
                self.step(at, Input::Assign(view));
                self.world.waiters.wake(at);
            }
            Op::Park(at) => {
                self.withdraw(at);
                self.local.insert(at, Local::Parked);
            }
            Op::SetAside(at) => {
                self.end(at)?;
                let dir = self.data.partition_dir(at.topic.0, at.partition);
                let exists = self.data.storage().exists(&dir);
                if exists.map_err(|source| log::LogError::Io { op: "look for", path: dir, source })? {
                    let to = self.data.set_aside(at.topic.0, at.partition)?;
                    tracing::warn!(partition = %at, to = %to.display(), "the image has no place for this partition here: set aside");
                }
                self.world.notes.set_aside(at);
            }
            Op::Purge(at) => {
                self.end(at)?;
                self.data.delete_partition(at.topic.0, at.partition)?;
                self.world.notes.removed(at);
                tracing::info!(partition = %at, "purged");
            }
        }
        Ok(())
    }

    fn open(&mut self, at: TopicPartition, image: &MetadataImage, epoch: BrokerEpoch) -> Result<(), log::LogError> {
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
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let partition = Partition::new(self.me, epoch, slot, opened, self.data.clone());
        self.partitions.insert(at, partition);
        Ok(())
    }

    fn withdraw(&mut self, at: TopicPartition) {
        self.step(at, Input::Withdraw);
        self.world.waiters.wake(at);
    }

    /// Ends the partition here; its files are closed and nobody holds them.
    fn end(&mut self, at: TopicPartition) -> Result<(), log::LogError> {
        self.withdraw(at);
        self.local.remove(&at);
        self.forget_deadline(at);
        self.world.touched.remove(&at);
        if let Some(opened) = self.recovered.remove(&at) {
            opened.log.close_clean()?;
        }
        match self.partitions.remove(&at) {
            Some(partition) => partition.close(),
            None => Ok(()),
        }
    }
}

fn subject(op: &Op) -> TopicPartition {
    match op {
        Op::Purge(at) | Op::SetAside(at) | Op::Park(at) | Op::Open(at) | Op::Assign(at, _) => *at,
    }
}
