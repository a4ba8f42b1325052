//! What goes wrong with disks. The fault atlas is here: a disk is damaged, replaced or set back only while every record
//! that was acknowledged has another clean copy, so that loss is always a bug.

use super::faults::Fault;
use super::sometimes::Sometimes;
use super::wire::Event;
use super::world::{World, uuid};
use log::storage::memory::{self, Call, Op};
use protocol::ids::{BrokerId, Millis};
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::topics::Partition;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a disk says whose call fails.
pub(super) const SICK: &str = "this call fails by the plan";

/// What a disk writes at once, bytes.
const SECTOR: u64 = 512;

/// How long a command may be on its way to the image, ms: a frozen controller holds it, a deposed one's batch commits late.
const COMMAND_TAKES_MS: Millis = 10_000;

/// Where batches begin in a segment: what is written before are marks.
const FIRST_BATCH_AT: u64 = 4_096;

impl World {
    pub(super) fn hurt_disk(&mut self, fault: Fault, id: BrokerId) -> Result<bool, String> {
        match fault {
            Fault::SickSync | Fault::WriteError => {
                self.sicken(fault, id);
                Ok(false)
            }
            Fault::ReadError | Fault::ReadFlip => {
                self.mislead(fault, id);
                Ok(false)
            }
            Fault::SickSyncEverywhere => {
                let ids: Vec<_> = self.nodes.keys().copied().collect();
                ids.into_iter().for_each(|id| _ = self.sicken(fault, id));
                Ok(false)
            }
            Fault::FullDisk => {
                self.fill(id);
                Ok(false)
            }
            Fault::SlowDisk => {
                let (worst, until) = (self.rng.between(100, 3_000), self.rng.between(500, 8_000));
                let Some(node) = self.nodes.get_mut(&id) else { return Ok(false) };
                node.flush_ms = worst;
                self.after(until, Event::DiskWell(id));
                Ok(true)
            }
            Fault::Damage | Fault::MisdirectedWrite => self.damage(fault, id),
            Fault::DiskReplaced => self.replace(id),
            _ => self.set_back(id),
        }
    }

    /// One of the next calls of a kind on the disk of a broker that runs goes wrong, and is counted once it has. Of a failed
    /// sync, what it should have written is only in the page cache from then on; the process stops, and starts again on the
    /// same boot.
    fn sicken(&mut self, fault: Fault, id: BrokerId) -> bool {
        let skip = self.rng.below(20);
        let bit = self.rng.number();
        let well = |n: &&mut super::node::Node| n.process.is_some() && n.full_until == 0;
        let Some(node) = self.nodes.get_mut(&id).filter(well) else { return false };
        node.failing = true;
        let (left, sprung) = (AtomicU64::new(skip), Arc::new(AtomicBool::new(false)));
        node.armed = Some((fault, sprung.clone()));
        node.disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            let meant = match fault {
                Fault::WriteError => call.op == Op::Write,
                Fault::ReadError | Fault::ReadFlip => call.op == Op::Read,
                _ => call.op == Op::Sync,
            };
            if !meant || sprung.load(Ordering::Relaxed) {
                return None;
            }
            let before = left.load(Ordering::Relaxed);
            left.store(before.saturating_sub(1), Ordering::Relaxed);
            if before > 0 {
                return None;
            }
            sprung.store(true, Ordering::Relaxed);
            Some(match fault {
                Fault::ReadFlip => memory::Fault::Flip(bit),
                _ => memory::Fault::Fail(io::Error::other(SICK)),
            })
        })));
        true
    }

    /// A read will fail or tell a lie, and what it was of is set aside: as bad as damage, whenever it comes. So the disk
    /// counts as hurt from now on, and the other copies are spared until it has caught up in another life.
    fn mislead(&mut self, fault: Fault, id: BrokerId) {
        if self.may_hurt(id) && self.sicken(fault, id) {
            self.taint(id);
        }
    }

    /// A process told why it died: a planned fault of its disk, or not.
    pub(super) fn disk_told(&mut self, id: BrokerId, reason: &str) {
        if reason.contains(SICK) {
            self.laws.tally.failed_syncs += 1;
            self.laws.tally.sometimes(Sometimes::FailedSync);
            self.trace.note(self.now, Some(id), format_args!("its disk failed it"));
        }
        if reason.contains("damaged") {
            self.laws.tally.sometimes(Sometimes::DamageFound);
        }
    }

    /// No room for anything that grows a partition's log. Counted once something was refused.
    fn fill(&mut self, id: BrokerId) {
        let lasts = self.rng.between(200, 6_000);
        let (said, now) = (self.rng.chance(50), self.now);
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.full_until == 0) else { return };
        let Some(process) = node.process.as_mut() else { return };
        node.failing = true;
        let sprung = Arc::new(AtomicBool::new(false));
        node.armed = Some((Fault::FullDisk, sprung.clone()));
        node.full_until = now + lasts;
        // The watcher of free space has noticed, or not yet.
        process.full = said;
        node.disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            // What was not reserved beforehand is refused as it is written.
            let appends = call.op == Op::Write && call.position >= FIRST_BATCH_AT;
            let grows = appends || call.op == Op::Preallocate;
            let grows = grows && call.path.to_string_lossy().contains("partitions");
            sprung.fetch_or(grows, Ordering::Relaxed);
            grows.then(|| memory::Fault::Fail(io::ErrorKind::StorageFull.into()))
        })));
        self.after(lasts, Event::DiskWell(id));
    }

    pub(super) fn disk_well(&mut self, id: BrokerId, all: bool) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.flush_ms = 0;
        if all || (node.full_until != 0 && node.full_until <= now) {
            node.full_until = 0;
            node.unhook();
            if let Some(process) = node.process.as_mut() {
                process.full = false;
            }
        }
    }

    /// Somebody asked for fewer copies, and it may not be in the image yet.
    fn fewer_copies_are_on_their_way(&self) -> bool {
        self.fewer_asked_at.is_some_and(|at| self.now - at < COMMAND_TAKES_MS)
    }

    /// Whether this disk may be hurt: nobody else's is, and for every partition on it whose records must survive, the
    /// rule asks for two copies and another member of the ISR has a sound disk.
    fn may_hurt(&self, id: BrokerId) -> bool {
        if self.plan.hopeless {
            return true;
        }
        if self.nodes.values().any(|n| n.tainted && n.id != id) || self.fewer_copies_are_on_their_way() {
            return false;
        }
        let image = &self.quorum.image;
        let spared = |p: &Partition, rule: usize| {
            let holds = p.replicas.contains(&id);
            !holds || (rule >= 2 && p.isr.iter().any(|b| *b != id))
        };
        image.topics.iter().filter(|t| t.is_live()).all(|topic| {
            let config = image.topic_config(topic.id);
            let strict = config.flush_policy == FlushPolicy::Sync;
            topic.partitions.iter().all(|p| {
                let rule = usize::from(config.min_insync_replicas).min(p.replicas.len());
                !strict || spared(p, rule)
            })
        })
    }

    /// A tainted disk has caught up: it is in sync everywhere again, under another life than the one that was hurt.
    pub(super) fn untaint(&mut self) {
        let image = &self.quorum.image;
        for node in self.nodes.values_mut().filter(|n| n.tainted && n.process.is_some()) {
            let mut places = image.topics.places_of(node.id);
            let whole = places.all(|at| image.topics.partition(at).is_some_and(|p| p.isr.contains(&node.id)));
            let admitted = image.brokers.get(node.id).is_some_and(protocol::metadata::brokers::Broker::is_active);
            let epoch = node.process.as_ref().and_then(super::process::Process::epoch);
            let waits = node.armed.as_ref().is_some_and(|(fault, _)| fault.is_of_reads());
            if whole && admitted && !waits && !node.latent && node.hurt_under != epoch && epoch.is_some() {
                node.tainted = false;
            }
        }
    }

    pub(super) fn taint(&mut self, id: BrokerId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.tainted = true;
            node.hurt_under = node.process.as_ref().and_then(super::process::Process::epoch);
        }
    }

    /// An operator replaces a disk by an empty one.
    fn replace(&mut self, id: BrokerId) -> Result<bool, String> {
        if !self.may_hurt(id) || self.nodes.get(&id).is_none_or(|n| n.process.is_none()) {
            return Ok(false);
        }
        self.taint(id);
        self.strike(id, true)?;
        let directory = uuid(&mut self.rng);
        let cluster = self.cluster;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(false) };
        node.format(cluster, directory);
        (node.copy, node.latent) = (None, false);
        self.laws.tally.wiped += 1;
        Ok(true)
    }

    /// A copy of the disk from before the last unfencing is put back. The first time, the copy is taken.
    fn set_back(&mut self, id: BrokerId) -> Result<bool, String> {
        let unfenced = self.quorum.image.brokers.get(id).and_then(|b| b.last_unfenced_epoch);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(false) };
        let Some((copy, under)) = node.copy.clone() else {
            let epoch = node.process.as_ref().and_then(super::process::Process::epoch);
            if let Some(epoch) = epoch {
                node.copy = Some((node.disk.fork(), epoch));
            }
            return Ok(false);
        };
        if unfenced.is_none_or(|epoch| epoch <= under) || !self.may_hurt(id) {
            return Ok(false);
        }
        self.taint(id);
        self.strike(id, true)?;
        let rng = &mut self.rng;
        copy.crash(&mut || rng.chance(70));
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.disk, node.copy, node.latent, node.armed) = (copy, None, false, None);
        }
        self.laws.tally.sometimes(Sometimes::OldDiskCameBack);
        Ok(true)
    }

    /// Bits of a partition's files at rest turn over, or sectors of them are overwritten by what was meant for another file
    /// (and may be sound in itself). Not where a start would take it for a tail that was never finished, and cut it: of what
    /// lies above the end mark nobody could tell.
    fn damage(&mut self, fault: Fault, id: BrokerId) -> Result<bool, String> {
        if !self.may_hurt(id) {
            return Ok(false);
        }
        let Some(node) = self.nodes.get(&id) else { return Ok(false) };
        let (Some(process), disk) = (node.process.as_ref(), node.disk.clone()) else { return Ok(false) };
        let places: Vec<_> =
            self.quorum.image.topics.places_of(id).filter(|at| process.log_of(*at).is_some()).collect();
        if places.is_empty() {
            return Ok(false);
        }
        let at = *self.rng.one_of(&places);
        let mut files = disk.files_below(&process.dir_of(at)).unwrap_or_default();
        files.retain(|path| disk.contents(path).is_ok_and(|bytes| !bytes.is_empty()));
        if files.is_empty() {
            return Ok(false);
        }
        let path = self.rng.one_of(&files).clone();
        let Ok(mut bytes) = disk.contents(&path) else { return Ok(false) };
        let len = bytes.len() as u64;
        if fault == Fault::MisdirectedWrite {
            let from = self.rng.one_of(&places);
            let others = disk.files_below(&process.dir_of(*from)).unwrap_or_default();
            let Some(strange) = others.first().and_then(|other| disk.contents(other).ok()) else { return Ok(false) };
            let (to, sectors) = (self.rng.below(len) / SECTOR * SECTOR, self.rng.between(1, 8));
            let begin = usize::try_from(self.rng.below(strange.len() as u64 + 1) / SECTOR * SECTOR).unwrap_or(0);
            let to = usize::try_from(to).unwrap_or(0);
            let wanted = usize::try_from(sectors * SECTOR).unwrap_or(0);
            let count = wanted.min(strange.len() - begin).min(bytes.len() - to);
            bytes[to..to + count].copy_from_slice(&strange[begin..begin + count]);
        } else {
            for _ in 0..self.rng.between(1, 8) {
                let (position, bit) = (self.rng.below(len), self.rng.below(8));
                bytes[usize::try_from(position).unwrap_or(0)] ^= 1 << bit;
            }
        }
        let before = process.log_of(at).map_or(0, log::Log::end_offset);
        let tried = disk.fork();
        let written = tried.damage(&path, bytes.clone());
        if written.is_err() || process.would_find(at, &tried).is_ok_and(|end| end < before) {
            return Ok(false);
        }
        if disk.contents(&path).is_ok_and(|now| now == bytes) || disk.damage(&path, bytes).is_err() {
            return Ok(false);
        }
        self.taint(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.latent = true;
        }
        if self.rng.chance(60) {
            self.strike(id, false)?;
        }
        Ok(true)
    }

    /// How long a flush takes on this disk.
    pub(super) fn flush_delay(&mut self, id: BrokerId) -> Millis {
        use super::buggify::Point;
        let slow = self.nodes.get(&id).map_or(0, |n| n.flush_ms);
        let usual = if Point::SlowFlush.is_on(self.plan.buggify) && self.rng.chance(10) { 300 } else { 12 };
        if Point::FlushAtOnce.is_on(self.plan.buggify) && self.rng.chance(30) {
            return 0;
        }
        self.rng.between(1, usual.max(slow))
    }
}
