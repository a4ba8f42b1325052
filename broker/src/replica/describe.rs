//! What a replica knows of itself, for `describe`, `explain` and metrics. Reads state, decides nothing.

use super::{Replica, Role, RoleName};
use protocol::ids::{BrokerId, LeaderEpoch, Millis};
use protocol::metadata::configs::FlushPolicy;

/// One follower as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerDescription {
    /// Which broker.
    pub broker: BrokerId,
    /// (log end, durable end); None = not subscribed.
    pub position: Option<(u64, u64)>,
    /// In the committed ISR.
    pub in_isr: bool,
    /// Time since it had everything, ms.
    pub caught_up_ms_ago: Millis,
}

/// See the module's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Role and epoch.
    pub role: RoleName,
    /// Leader epoch of the applied image.
    pub leader_epoch: LeaderEpoch,
    /// First offset.
    pub log_start: u64,
    /// Offset after the last.
    pub log_end: u64,
    /// End of what is on disk.
    pub durable_end: u64,
    /// None = unknown in this epoch.
    pub high_watermark: Option<u64>,
    /// The policy it counts by.
    pub flush_policy: FlushPolicy,
    /// By broker; empty unless leading.
    pub followers: Vec<FollowerDescription>,
    /// committed, growing, shrinking; empty unless leading.
    pub isr_state: &'static str,
    /// Fewer members in the committed ISR than replicas that count.
    pub under_replicated: bool,
    /// The committed ISR does not satisfy the durability rule.
    pub under_min_isr: bool,
    /// Why something waits.
    pub notes: Vec<String>,
}

impl Replica {
    /// Everything above.
    #[must_use]
    pub fn describe(&self, now: Millis) -> Description {
        let wire = self.wire_state();
        let mut description = Description {
            role: self.role(),
            leader_epoch: wire.leader_epoch,
            log_start: wire.log_start,
            log_end: self.base.log.end,
            durable_end: self.base.log.durable_end(),
            high_watermark: wire.high_watermark,
            flush_policy: self.base.log.named_policy(),
            followers: Vec::new(),
            isr_state: "",
            under_replicated: false,
            under_min_isr: false,
            notes: Vec::new(),
        };
        self.describe_leader(now, &mut description);
        self.describe_notes(&mut description);
        description
    }

    fn describe_leader(&self, now: Millis, to: &mut Description) {
        let Role::Leader(leadership) = &self.role else { return };
        let committed = leadership.isr.committed();
        let follower = |(broker, f): (BrokerId, &super::positions::Follower)| FollowerDescription {
            broker,
            position: f.position.map(|p| (p.log_end, p.durable_end)),
            in_isr: committed.contains(&broker),
            caught_up_ms_ago: if f.is_caught_up(leadership.strict(), self.base.log.end) {
                0
            } else {
                now.saturating_sub(f.caught_up_at)
            },
        };
        to.followers = leadership.positions.iter().map(follower).collect();
        to.isr_state = leadership.isr.state();
        to.under_replicated = leadership.view.members.iter().any(|(id, m)| m.counts && !committed.contains(id));
        to.under_min_isr = !leadership.view.satisfies(committed);
    }

    fn describe_notes(&self, to: &mut Description) {
        let notes = &mut to.notes;
        match &self.role {
            Role::Idle => notes.push("this broker has no place in the partition, or is not registered yet".into()),
            Role::Leaderless(_) => notes.push("the partition has no leader".into()),
            Role::Resigned(view) => notes.push(format!(
                "named as leader in epoch {}, which this process may not lead: a new leader epoch is needed",
                view.leader_epoch
            )),
            Role::Follower(_) => {}
            Role::Leader(leadership) => {
                if to.high_watermark.is_none() {
                    let start = leadership.epoch_start;
                    notes.push(format!("high watermark not known until the ISR has reached offset {start}"));
                }
                for f in to.followers.iter().filter(|f| f.in_isr && f.position.is_none()) {
                    notes.push(format!("broker {} is in the ISR but not subscribed; answers wait for it", f.broker));
                }
            }
        }
        if to.under_min_isr {
            to.notes.push("the ISR does not satisfy the durability rule: acks=all is refused".into());
        }
        if self.base.log.damaged {
            to.notes.push("part of this log was damaged".into());
        }
    }
}
