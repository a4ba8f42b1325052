//! Questions of applications to a shard: read, list offsets, delete records, describe.

use protocol::error::{ApiError, ErrorCode};
use protocol::ids::TopicPartition;
use protocol::rpc::convert::{known_or_minus_one, topic_id_bytes};
use protocol::rpc::pb::data::v1 as data;

use super::message::{DeleteRecords, ListOffset, Read};
use super::run::Shard;
use super::world::{Open, refusal};
use crate::partition::OffsetQuestion;
use crate::replica::RoleName;
use crate::replica::input::Input;
use crate::replica::read::{FetchQuery, ReadRefusal};

impl Shard {
    fn refused(&self, at: TopicPartition, refused: ReadRefusal) -> ApiError {
        match refused {
            ReadRefusal::Code(code) => refusal(&self.world.image, at, code),
            ReadRefusal::Diverged { epoch, end } => {
                let mut error = refusal(&self.world.image, at, ErrorCode::OffsetOutOfRange);
                error.message = format!("{at}: the history read so far parts from the leader's at offset {end}");
                error.field = "last_fetched_epoch".into();
                error.value = epoch.map_or_else(|| "none".into(), |e| e.to_string());
                error.limit = end.to_string();
                error
            }
        }
    }

    pub(super) fn read(&mut self, read: Read) {
        let now = self.now();
        let at = read.at;
        let mut answer = data::FetchedPartition {
            topic_id: topic_id_bytes(at.topic),
            partition: at.partition,
            ..Default::default()
        };
        let query = FetchQuery {
            offset: read.offset,
            leader_epoch: read.leader_epoch,
            last_fetched_epoch: read.last_fetched_epoch,
        };
        let outcome = match self.partitions.get_mut(&at) {
            Some(partition) => {
                let outcome = partition.read(&query, read.max_bytes, now, &mut self.world);
                answer.state = Some(self.world.state(partition.replica().wire_state(), now.lease));
                outcome.map_err(|refused| self.refused(at, refused))
            }
            None => {
                answer.state = Some(self.no_state());
                Err(self.absent(at))
            }
        };
        match outcome {
            Ok(bytes) => {
                // Whoever has too little with this is told of anything new: more records, or another leader.
                if bytes.len() < read.enough_bytes {
                    self.world.waiters.add(at, &read.waiter);
                }
                self.world.metrics.fetched(bytes.len());
                answer.batches = bytes;
            }
            Err(error) => answer.error = Some(error.into()),
        }
        read.reply.send((answer, now.lease)).ok();
    }

    pub(super) fn list_offset(&mut self, list: ListOffset) {
        let now = self.now();
        let at = list.at;
        let question = match list.timestamp_ms {
            -1 => OffsetQuestion::Latest,
            -2 => OffsetQuestion::Earliest,
            time => OffsetQuestion::Time(time),
        };
        let mut answer = data::ListedOffset {
            topic_id: topic_id_bytes(at.topic),
            partition: at.partition,
            offset: -1,
            timestamp_ms: -1,
            ..Default::default()
        };
        let outcome = match self.partitions.get_mut(&at) {
            Some(partition) => {
                let outcome = partition.offset_for(question, list.leader_epoch, now, &mut self.world);
                answer.state = Some(self.world.state(partition.replica().wire_state(), now.lease));
                outcome.map_err(|refused| self.refused(at, refused))
            }
            None => {
                answer.state = Some(self.no_state());
                Err(self.absent(at))
            }
        };
        match outcome {
            Ok(Some((offset, timestamp))) => {
                answer.offset = known_or_minus_one(Some(offset));
                answer.timestamp_ms = timestamp;
            }
            Ok(None) => {}
            Err(error) => answer.error = Some(error.into()),
        }
        list.reply.send((answer, now.lease)).ok();
    }

    pub(super) fn delete_records(&mut self, delete: DeleteRecords) {
        let at = delete.at;
        if !self.partitions.contains_key(&at) {
            delete.reply.send(Err(self.absent(at))).ok();
            return;
        }
        let id = self.world.enter(Open::Delete(delete.reply));
        self.step(at, Input::DeleteRecords { id, before: delete.before, deadline: delete.deadline });
    }

    pub(super) fn describe(&self, at: TopicPartition) -> data::DescribeReplicaResponse {
        let Some(partition) = self.partitions.get(&at) else {
            let error = Some(self.absent(at).into());
            return data::DescribeReplicaResponse { error, node_id: self.me.0, ..Default::default() };
        };
        let described = partition.replica().describe(crate::clock::now());
        let follower = |f: &crate::replica::describe::FollowerDescription| data::FollowerState {
            broker_id: f.broker.0,
            log_end: f.position.map_or(0, |p| p.0),
            durable_end: f.position.map_or(0, |p| p.1),
            in_isr: f.in_isr,
            caught_up_ms_ago: f.caught_up_ms_ago,
        };
        data::DescribeReplicaResponse {
            error: None,
            node_id: self.me.0,
            role: role_name(described.role).into(),
            leader_epoch: described.leader_epoch.0,
            log_start: described.log_start,
            log_end: described.log_end,
            durable_end: described.durable_end,
            high_watermark: known_or_minus_one(described.high_watermark),
            flush_policy: described.flush_policy.name().into(),
            followers: described.followers.iter().map(follower).collect(),
            isr_state: described.isr_state.into(),
            notes: described.notes,
            size_bytes: partition.log().size_bytes(),
        }
    }
}

fn role_name(role: RoleName) -> &'static str {
    match role {
        RoleName::Leader(_) => "leader",
        RoleName::Follower(..) => "follower",
        RoleName::Idle | RoleName::Leaderless | RoleName::Resigned(_) => "offline",
    }
}
