//! Looks at a process from outside: roles, ends, contents. Changes nothing.

use super::Process;
use super::serve::value_of;
use crate::sim::laws::Contents;
use broker::lifecycle::state::Phase;
use broker::partition::{Partition, log_config};
use log::Log;
use log::storage::memory::MemStorage;
use protocol::batch::{Limits, batches, records};
use protocol::ids::{Millis, TopicPartition};
use std::path::PathBuf;
use std::sync::Arc;

impl Process {
    /// How often this process has cut a diverged tail.
    pub(in crate::sim) fn truncations(&self) -> u64 {
        self.cut_before + self.partitions.values().map(|p| p.log().generation()).sum::<u64>()
    }

    /// The partition that runs here, if it does.
    pub(in crate::sim) fn partition(&self, at: TopicPartition) -> Option<&Partition> {
        self.partitions.get(&at)
    }

    /// Whether a replica that runs here knows its log to be damaged.
    pub(in crate::sim) fn is_damaged(&self, at: TopicPartition) -> bool {
        let moment = self.setup.clock.shows(0);
        let told = self.partitions.get(&at).map(|p| p.replica().describe(moment));
        told.is_some_and(|told| told.notes.iter().any(|note| note.contains("damaged")))
    }

    /// Whether the start found nothing missing or damaged of it.
    pub(in crate::sim) fn is_whole(&self, at: TopicPartition) -> bool {
        self.evidence.found.get(&at).is_none_or(|found| found.whole)
    }

    /// Partitions in which the start found something missing or damaged.
    pub(in crate::sim) fn found_wanting(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.evidence.found.iter().filter(|(_, found)| !found.whole).map(|(at, _)| *at)
    }

    /// It has asked to leave.
    pub(in crate::sim) fn wants_to_leave(&self) -> bool {
        matches!(self.lifecycle.phase(), Phase::ShuttingDown | Phase::Stopped)
    }

    /// Where it is in its life, and with its metadata.
    pub(in crate::sim) fn stands(&self) -> String {
        let (phase, feed) = (self.lifecycle.phase(), &self.feed);
        format!("{phase:?}, image {}, stream {} of source {}", self.image.batch_no, feed.stream, feed.source)
    }

    /// Whether its lease still runs, on its own clock.
    pub(in crate::sim) fn lease_runs(&self, now: Millis) -> bool {
        self.now(now).permits(broker::replica::lease::Guard::Lease)
    }

    /// The log of a partition, if it runs or was recovered.
    pub(in crate::sim) fn log_of(&self, at: TopicPartition) -> Option<&Log> {
        let running = self.partitions.get(&at).map(Partition::log);
        running.or_else(|| self.recovered.get(&at).map(|opened| &opened.log))
    }

    /// Where the log would end if power failed now and only what was synced remained.
    pub(in crate::sim) fn after_power_cut(&self, at: TopicPartition, disk: &MemStorage) -> Result<u64, String> {
        let copy = disk.fork();
        copy.crash(&mut || false);
        self.would_find(at, &copy)
    }

    /// The directory of a partition's log.
    pub(in crate::sim) fn dir_of(&self, at: TopicPartition) -> PathBuf {
        self.data.partition_dir(at.topic.0, at.partition)
    }

    /// Where a start would find the log to end on this copy of the disk; `Err`: it would find damage.
    pub(in crate::sim) fn would_find(&self, at: TopicPartition, copy: &MemStorage) -> Result<u64, String> {
        let config = log_config(&self.image.topic_config(at.topic));
        let opened = Log::open(Arc::new(copy.clone()), &self.dir_of(at), config).map_err(|e| e.to_string())?;
        Ok(opened.0.end_offset())
    }

    /// Log end and high watermark, to see whether everything has settled.
    pub(in crate::sim) fn ends(&self, at: TopicPartition) -> Option<(u64, u64)> {
        let replica = self.partitions.get(&at)?.replica();
        Some((replica.log_end(), replica.high_watermark()))
    }

    /// What every replica here says of itself, for the text of a failure.
    pub(in crate::sim) fn describe(&self, now: Millis) -> Vec<String> {
        let (texts, id) = (self.partitions.iter(), self.setup.id);
        let now = self.setup.clock.shows(now);
        texts.map(|(at, p)| format!("broker {id} {at}: {:?}", p.replica().describe(now))).collect()
    }

    /// Every value in the log below its high watermark.
    pub(in crate::sim) fn contents(&self, at: TopicPartition) -> Result<Contents, String> {
        let Some(partition) = self.partitions.get(&at) else { return Ok(Contents::new()) };
        let (mut next, upto) = (partition.log().start_offset(), partition.replica().high_watermark());
        let mut contents = Contents::new();
        while next < upto {
            let bytes = partition.log().read(next, 1 << 20, upto, true).map_err(|e| format!("{at}: {e}"))?;
            if bytes.is_empty() {
                break;
            }
            for batch in batches(&bytes) {
                let batch = batch.map_err(|e| format!("{at}: {e}"))?;
                for stored in records(&batch, &Limits::default()).map_err(|e| format!("{at}: {e}"))? {
                    let stored = stored.map_err(|e| format!("{at}: {e}"))?;
                    let value = value_of(stored.record.value.as_deref());
                    contents.insert(stored.offset, value.ok_or_else(|| format!("{at}: a value that nobody wrote"))?);
                    next = stored.offset + 1;
                }
            }
        }
        Ok(contents)
    }
}
