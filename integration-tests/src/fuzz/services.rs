//! Messages of the services that brokers serve and read: data, replication, the metadata feed.
//!
//! An input of the replication target is a list of messages, each after two bytes of its length.

use super::records::{batch_of, facts};
use super::replica::{Attacked, EPOCH, LEADER_EPOCH, at};
use broker::handlers::produce::check_batch;
use broker::metadata::feed::{Fed, FeedReader};
use broker::partition::OffsetQuestion;
use broker::replica::input::{Input, RequestId, SubscriptionId};
use broker::replica::read::FetchQuery;
use broker::replication::wire as convert;
use prost::Message;
use protocol::batch::Compression;
use protocol::ids::BrokerId;
use protocol::metadata::batch::chain;
use protocol::metadata::image::MetadataImage;
use protocol::rpc::convert::{maybe_epoch, maybe_number, topic_id, topic_id_bytes};
use protocol::rpc::pb::replication::v1::{self as replication, follower_message, leader_message};
use protocol::rpc::pb::{
    admin::v1 as admin, data::v1 as data, lifecycle::v1 as lifecycle, metadata::v1 as feed, raft::v1 as raft,
};
use std::collections::VecDeque;

fn tagged(kind: u8, message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

pub(super) fn admin() -> Vec<Vec<u8>> {
    let config = |key: &str, value: &str| admin::ConfigEntry { key: key.into(), value: value.into() };
    vec![
        tagged(
            0,
            &admin::CreateTopicRequest {
                name: "u".into(),
                partitions: 4,
                replicas: 2,
                configs: vec![config("min.insync.replicas", "2"), config("retention.ms", "-1")],
                validate_only: false,
            },
        ),
        tagged(1, &admin::DeleteTopicRequest { name: "t".into() }),
        tagged(2, &admin::CreatePartitionsRequest { topic: "t".into(), total: 9, validate_only: false }),
        tagged(
            3,
            &admin::AlterConfigsRequest {
                kind: 1,
                name: "t".into(),
                set: vec![config("flush.policy", "interval")],
                unset: vec!["retention.ms".into()],
                validate_only: true,
            },
        ),
        tagged(
            4,
            &admin::ElectLeadersRequest {
                topic: "t".into(),
                partition: 1,
                unclean: true,
                now: true,
                chosen: 2,
                dry_run: false,
            },
        ),
        tagged(4, &admin::ElectLeadersRequest { partition: -1, ..Default::default() }),
        tagged(5, &admin::ShutdownBrokerRequest { broker_id: 2 }),
        tagged(7, &admin::ExplainPartitionRequest { topic: "t".into(), partition: 0 }),
    ]
}

pub(super) fn lifecycle() -> Vec<Vec<u8>> {
    let mut register = vec![0];
    register.extend_from_slice(&controller::fuzzing::register_bytes(4));
    let topic = topic_id_bytes(at().topic);
    let end =
        lifecycle::LogEnd { topic_id: topic.clone(), partition: 1, leader_epoch: 1, log_end: 9, ..Default::default() };
    let isr = |broker_id| lifecycle::IsrMember { broker_id, broker_epoch: u64::from(broker_id) };
    let alter = lifecycle::AlterPartition {
        topic_id: topic.clone(),
        partition: 1,
        leader_epoch: 1,
        partition_epoch: 1,
        new_isr: vec![isr(1), isr(2)],
    };
    let places = lifecycle::ProvedTopic { topic_id: topic, partitions: vec![0, 1, 2] };
    vec![
        register,
        tagged(
            1,
            &lifecycle::ProveRestartRequest {
                broker_id: 1,
                broker_epoch: 1,
                proved: vec![places],
                last: true,
                cluster: None,
            },
        ),
        tagged(
            2,
            &lifecycle::AlterPartitionsRequest {
                broker_id: 1,
                broker_epoch: 1,
                partitions: vec![alter],
                cluster: None,
            },
        ),
        tagged(3, &lifecycle::ReportLogEndsRequest { broker_id: 1, broker_epoch: 1, ends: vec![end], cluster: None }),
        tagged(
            4,
            &lifecycle::HeartbeatRequest {
                broker_id: 1,
                broker_epoch: 1,
                seq: 3,
                applied_batch_no: 2,
                wants_unfence: true,
                ..Default::default()
            },
        ),
    ]
}

/// Messages in the library's encoding, bare and in their envelope.
pub(super) fn raft() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    for (kind, payload) in controller::fuzzing::raft_corpus() {
        let message = raft::RaftMessage {
            from: 1,
            to: 2,
            from_directory: vec![1; 16].into(),
            to_directory: vec![2; 16].into(),
            format: 1,
            payload: payload.clone().into(),
            cluster: None,
        };
        corpus.push([&[kind * 2], &payload[..]].concat());
        corpus.push(tagged(kind * 2 + 1, &message));
    }
    corpus
}

/// Items of a feed, each after two bytes of its length, on an empty image. Whatever the reader makes of them, the image
/// never goes back.
pub(super) fn metadata_body(bytes: &[u8]) {
    let (mut image, mut reader) = (MetadataImage::default(), FeedReader::default());
    for bytes in pieces(bytes) {
        let Ok(item) = feed::FeedItem::decode(bytes) else { return };
        match reader.take(&image, item) {
            Ok(Fed::Image(next, _)) => {
                assert!(next.batch_no >= image.batch_no, "the image went back");
                image = *next;
            }
            Ok(Fed::Position(_) | Fed::Partial) => {}
            Err(_) => return,
        }
    }
}

pub(super) fn metadata() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = facts()
        .into_iter()
        .take(8)
        .map(|data| {
            let chain_hash = chain(MetadataImage::default().chain_hash, &data);
            let batch = feed::FeedBatch { batch_no: 1, chain_hash, data: data.into() };
            joined(&[feed::FeedItem { item: Some(feed::feed_item::Item::Batch(batch)) }])
        })
        .collect();
    for pieces in super::records::snapshots() {
        let image = protocol::metadata::snapshot::decode([&pieces]).expect("a legal snapshot");
        let crc32c = super::records::crc32c(&pieces);
        let (batch_no, chain_hash) = (image.batch_no.0, image.chain_hash);
        let chunk = feed::FeedSnapshot { batch_no, chain_hash, data: pieces.into(), last: true, crc32c };
        let position = feed::FeedPosition { batch_no };
        corpus.push(joined(&[
            feed::FeedItem { item: Some(feed::feed_item::Item::Snapshot(chunk)) },
            feed::FeedItem { item: Some(feed::feed_item::Item::Position(position)) },
        ]));
    }
    corpus.retain(|input| input.len() <= super::mutate::INPUT_BYTES_MAX);
    assert!(corpus.len() > 6, "most of the corpus is too long");
    corpus
}

fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(tail.len());
        found.push(&tail[..len]);
        rest = &tail[len..];
    }
    found
}

fn joined(messages: &[impl Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let one = message.encode_to_vec();
        bytes.extend_from_slice(&u16::try_from(one.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&one);
    }
    bytes
}

/// The first byte chooses: a leader hears followers, or a follower hears its leader.
pub(super) fn replication_body(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if kind % 2 == 0 { leader_hears(bytes) } else { follower_hears(bytes) }
}

fn leader_hears(bytes: &[u8]) {
    let mut leader = Attacked::new(1);
    for (number, bytes) in pieces(bytes).into_iter().enumerate() {
        let follower = BrokerId(2 + u32::try_from(number % 2).unwrap_or(0));
        let Ok(message) = replication::FollowerMessage::decode(bytes) else { return };
        let inputs = match message.message {
            Some(follower_message::Message::Subscribe(m)) => {
                vec![Input::Subscribe(convert::subscribe(&m, follower, EPOCH))]
            }
            Some(follower_message::Message::Unsubscribe(m)) => {
                vec![Input::Unsubscribed { follower, subscription: SubscriptionId(m.subscription) }]
            }
            Some(follower_message::Message::Acks(m)) => {
                m.acks.iter().map(|ack| Input::Ack(convert::ack(ack, follower, EPOCH))).collect()
            }
            Some(follower_message::Message::Hello(_)) | None => Vec::new(),
        };
        inputs.into_iter().for_each(|input| leader.step(input, VecDeque::new()));
    }
}

fn follower_hears(bytes: &[u8]) {
    let mut follower = Attacked::new(2);
    for bytes in pieces(bytes) {
        let Ok(message) = replication::LeaderMessage::decode(bytes) else { return };
        let subscription = follower.subscription();
        match message.message {
            Some(leader_message::Message::Push(mut push)) => {
                push.subscription = subscription;
                let Some((spans, hand)) = convert::checked(&push.batches) else { return };
                if !spans.is_empty() {
                    follower.step(convert::pushed(&push, spans), hand);
                }
            }
            Some(message) => {
                let Some((_, input)) = convert::from_leader(&message) else { continue };
                follower.step(of(input, subscription), VecDeque::new());
            }
            None => {}
        }
    }
}

/// The shard finds the replica by its subscription: an input always brings the present one.
fn of(input: Input, number: u64) -> Input {
    let subscription = SubscriptionId(number);
    match input {
        Input::Started { leader_epoch, from, high_watermark, log_start, .. } => {
            Input::Started { subscription, leader_epoch, from, high_watermark, log_start }
        }
        Input::Diverged { leader_epoch, epoch, end, .. } => Input::Diverged { subscription, leader_epoch, epoch, end },
        Input::BeginAt { leader_epoch, log_start, .. } => Input::BeginAt { subscription, leader_epoch, log_start },
        Input::Refused { code, .. } => Input::Refused { subscription, code },
        Input::Advance { leader_epoch, high_watermark, log_start, .. } => {
            Input::Advance { subscription, leader_epoch, high_watermark, log_start }
        }
        other => other,
    }
}

pub(super) fn replication() -> Vec<Vec<u8>> {
    let leader_epoch = LEADER_EPOCH.0;
    let subscribe = replication::Subscribe {
        subscription: 1,
        topic_id: topic_id_bytes(at().topic),
        partition: 0,
        leader_epoch,
        last_epoch: -1,
        broker_epoch: EPOCH.0,
        ..Default::default()
    };
    let ack = replication::Ack { subscription: 1, leader_epoch, log_end: 6, durable_end: 6, ..Default::default() };
    let acks = replication::Acks { acks: vec![ack], credit_bytes: 9 };
    let from = |message| replication::FollowerMessage { message: Some(message) };
    let mut leader = vec![0];
    leader.extend(joined(&[
        from(follower_message::Message::Subscribe(subscribe.clone())),
        from(follower_message::Message::Subscribe(subscribe)),
        from(follower_message::Message::Acks(acks.clone())),
        from(follower_message::Message::Acks(acks)),
        from(follower_message::Message::Unsubscribe(replication::Unsubscribe { subscription: 1 })),
    ]));
    let mut batch = batch_of(Compression::None, 2, b"pushed");
    protocol::batch::stamp(&mut batch, 0, leader_epoch);
    let push = replication::Push { subscription: 1, leader_epoch, batches: batch.into(), ..Default::default() };
    let started = replication::Started { subscription: 1, leader_epoch, ..Default::default() };
    let diverged = replication::Diverged { subscription: 1, leader_epoch, epoch: 1, end_offset: 1 };
    let advance = replication::Advance { subscription: 1, leader_epoch, high_watermark: 2, log_start: 1 };
    let begin = replication::BeginAt { subscription: 1, leader_epoch, log_start: 40 };
    let says = |message| replication::LeaderMessage { message: Some(message) };
    let follower = |messages: Vec<leader_message::Message>| {
        let mut bytes = vec![1];
        bytes.extend(joined(&messages.into_iter().map(says).collect::<Vec<_>>()));
        bytes
    };
    vec![
        leader,
        follower(vec![
            leader_message::Message::Started(started),
            leader_message::Message::Push(push.clone()),
            leader_message::Message::Advance(advance),
        ]),
        follower(vec![
            leader_message::Message::Started(started),
            leader_message::Message::Push(push),
            leader_message::Message::Diverged(diverged),
            leader_message::Message::BeginAt(begin),
        ]),
    ]
}

/// The first byte chooses the request.
pub(super) fn data_body(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let config = MetadataImage::default().topic_config(at().topic);
    match kind % 4 {
        0 => {
            let Ok(request) = data::ProduceRequest::decode(bytes) else { return };
            topic_id(&request.topic_id).ok();
            maybe_epoch("leader_epoch", request.leader_epoch).ok();
            check_batch(&request.batch, &config, 1_700_000_000_000).ok();
        }
        1 => {
            let Ok(request) = data::FetchRequest::decode(bytes) else { return };
            request.partitions.iter().for_each(fetched);
        }
        2 => {
            let Ok(request) = data::ListOffsetsRequest::decode(bytes) else { return };
            for wanted in request.partitions {
                let Ok(epoch) = maybe_epoch("leader_epoch", wanted.leader_epoch) else { continue };
                let question = OffsetQuestion::Time(wanted.timestamp_ms);
                Attacked::new(1).ask(|partition, now, out| {
                    partition.offset_for(question, epoch, now, out).ok();
                });
            }
        }
        _ => {
            let Ok(request) = data::DeleteRecordsRequest::decode(bytes) else { return };
            let Ok(before) = maybe_number("before_offset", request.before_offset) else { return };
            let delete = Input::DeleteRecords { id: RequestId(77), before, deadline: u64::from(request.timeout_ms) };
            Attacked::new(1).step(delete, VecDeque::new());
        }
    }
}

fn fetched(wanted: &data::FetchPartition) {
    let (Ok(leader_epoch), Ok(last_fetched_epoch)) = (
        maybe_epoch("leader_epoch", wanted.leader_epoch),
        maybe_epoch("last_fetched_epoch", wanted.last_fetched_epoch),
    ) else {
        return;
    };
    let query = FetchQuery { offset: wanted.offset, leader_epoch, last_fetched_epoch };
    let most = usize::try_from(wanted.max_bytes).unwrap_or(usize::MAX).min(1 << 20);
    let mut leader = Attacked::new(1);
    let high = leader.partition.replica().high_watermark();
    leader.ask(|partition, now, out| {
        if let Ok(bytes) = partition.read(&query, most, now, out)
            && let Some(end) = broker::partition::end_of(&bytes)
        {
            assert!(end <= high, "a reader was given what is not committed");
        }
    });
}

pub(super) fn data() -> Vec<Vec<u8>> {
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
