//! Requests of the service that clients talk to.

use super::Depth;
use super::records::batch_of;
use super::replica::{Attacked, at};
use super::services::tagged;
use crate::chaos::random::Random;
use broker::handlers::produce::check_batch;
use broker::partition::OffsetQuestion;
use broker::replica::input::{Input, RequestId};
use broker::replica::read::FetchQuery;
use prost::Message;
use protocol::batch::Compression;
use protocol::metadata::image::MetadataImage;
use protocol::rpc::convert::{maybe_epoch, maybe_number, topic_id, topic_id_bytes};
use protocol::rpc::pb::data::v1 as data;
use std::collections::VecDeque;

/// The first byte chooses the request.
pub(super) fn body(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let config = MetadataImage::default().topic_config(at().topic);
    let taken = match kind % 4 {
        0 => {
            let Ok(request) = data::ProduceRequest::decode(bytes) else { return Depth::Refused };
            let named =
                topic_id(&request.topic_id).is_ok() && maybe_epoch("leader_epoch", request.leader_epoch).is_ok();
            check_batch(&request.batch, &config, 1_700_000_000_000).is_ok() && named
        }
        1 => {
            let Ok(request) = data::FetchRequest::decode(bytes) else { return Depth::Refused };
            request.partitions.iter().filter(|wanted| fetched(wanted)).count() > 0
        }
        2 => {
            let Ok(request) = data::ListOffsetsRequest::decode(bytes) else { return Depth::Refused };
            request.partitions.iter().filter(|wanted| listed(wanted)).count() > 0
        }
        _ => {
            let Ok(request) = data::DeleteRecordsRequest::decode(bytes) else { return Depth::Refused };
            let Ok(before) = maybe_number("before_offset", request.before_offset) else { return Depth::Decoded };
            let delete = Input::DeleteRecords { id: RequestId(77), before, deadline: u64::from(request.timeout_ms) };
            Attacked::new(1).step(delete, VecDeque::new());
            true
        }
    };
    if taken { Depth::Accepted } else { Depth::Decoded }
}

fn listed(wanted: &data::ListOffsetsPartition) -> bool {
    let Ok(epoch) = maybe_epoch("leader_epoch", wanted.leader_epoch) else { return false };
    let (question, mut answered) = (OffsetQuestion::Time(wanted.timestamp_ms), false);
    Attacked::new(1).ask(|partition, now, out| answered = partition.offset_for(question, epoch, now, out).is_ok());
    answered
}

fn fetched(wanted: &data::FetchPartition) -> bool {
    let (Ok(leader_epoch), Ok(last_fetched_epoch)) = (
        maybe_epoch("leader_epoch", wanted.leader_epoch),
        maybe_epoch("last_fetched_epoch", wanted.last_fetched_epoch),
    ) else {
        return false;
    };
    let query = FetchQuery { offset: wanted.offset, leader_epoch, last_fetched_epoch };
    let most = usize::try_from(wanted.max_bytes).unwrap_or(usize::MAX).min(1 << 20);
    let mut leader = Attacked::new(1);
    let high = leader.partition.replica().high_watermark();
    let mut answered = false;
    leader.ask(|partition, now, out| {
        let Ok(bytes) = partition.read(&query, most, now, out) else { return };
        answered = true;
        if let Some(end) = broker::partition::end_of(&bytes) {
            assert!(end <= high, "a reader was given what is not committed");
        }
    });
    answered
}

/// The batch inside of a produce gets its length and its checksum.
pub(super) fn seal(_: &mut Random, bytes: &mut Vec<u8>) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Ok(mut request) = data::ProduceRequest::decode(rest) else { return };
    if kind % 4 == 0 {
        let mut batch = request.batch.to_vec();
        super::seal::batch(&mut batch);
        request.batch = batch.into();
        *bytes = tagged(*kind, &request);
    }
}

pub(super) fn corpus() -> Vec<Vec<u8>> {
    let topic = topic_id_bytes(at().topic);
    let batch = batch_of(Compression::Lz4, 3, b"produced");
    let fetch = data::FetchPartition {
        topic_id: topic.clone(),
        offset: 2,
        max_bytes: 900,
        leader_epoch: 3,
        last_fetched_epoch: 3,
        ..Default::default()
    };
    let list = data::ListOffsetsPartition {
        topic_id: topic.clone(),
        timestamp_ms: 1_001,
        leader_epoch: -1,
        ..Default::default()
    };
    vec![
        tagged(
            0,
            &data::ProduceRequest {
                correlation: 1,
                topic_id: topic.clone(),
                leader_epoch: -1,
                acks: -1,
                timeout_ms: 9,
                batch: batch.into(),
                ..Default::default()
            },
        ),
        tagged(1, &data::FetchRequest { partitions: vec![fetch.clone(), fetch], max_bytes: 7, ..Default::default() }),
        tagged(2, &data::ListOffsetsRequest { partitions: vec![list] }),
        tagged(3, &data::DeleteRecordsRequest { topic_id: topic, partition: 0, before_offset: 2, timeout_ms: 9 }),
    ]
}
