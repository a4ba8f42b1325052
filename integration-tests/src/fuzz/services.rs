//! Messages of the services that nodes serve each other and operators: administration, lifecycle, Raft, replication, the
//! metadata feed.
//!
//! An input of the replication target is a list of messages, each after two bytes of its length.

use super::records::{batch_of, facts};
use super::replica::{Attacked, EPOCH, LEADER_EPOCH, at};
use super::values::list;
use super::{Depth, seal, values, wire};
use crate::chaos::random::Random;
use broker::metadata::feed::{Fed, FeedReader};
use broker::replica::input::{Input, SubscriptionId};
use broker::replication::wire as convert;
use prost::Message;
use protocol::batch::Compression;
use protocol::ids::{BatchNo, BrokerId};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::rpc::convert::topic_id_bytes;
use protocol::rpc::pb::replication::v1::{self as replication, follower_message, leader_message};
use protocol::rpc::pb::{
    admin::v1 as admin, common::v1 as common, lifecycle::v1 as lifecycle, metadata::v1 as feed, raft::v1 as raft,
};
use protocol::testing::FactGen;
use std::collections::VecDeque;

pub(super) fn tagged(kind: u8, message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

pub(super) fn admin() -> Vec<Vec<u8>> {
    let config = |key: &str, value: &str| admin::ConfigEntry { key: key.into(), value: value.into() };
    let voter = |id: u32| admin::VoterSpec {
        id,
        directory: vec![7; 16].into(),
        endpoint: Some(common::Endpoint { host: format!("c{id}"), port: 9 }),
        locality: format!("r/dc{id}/k"),
    };
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
        tagged(4, &admin::ElectLeadersRequest { topic: "t".into(), partition: -1, ..Default::default() }),
        tagged(5, &admin::ShutdownBrokerRequest { broker_id: 2 }),
        tagged(6, &admin::ChangeVotersRequest { add: vec![voter(4)], remove: vec![voter(1)], ..Default::default() }),
        tagged(7, &admin::ExplainPartitionRequest { topic: "t".into(), partition: 0 }),
        tagged(8, &admin::DescribeConfigsRequest { kind: 2, name: "1".into() }),
        tagged(
            3,
            &admin::AlterConfigsRequest { kind: 3, set: vec![config("lease.grace.ms", "5")], ..Default::default() },
        ),
        tagged(
            3,
            &admin::AlterConfigsRequest {
                kind: 2,
                name: "1".into(),
                set: vec![config("replica.lag.max.ms", "500")],
                ..Default::default()
            },
        ),
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

/// The message behind the byte that chooses its kind.
pub(super) fn vary_tagged(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let Some((kind, message)) = bytes.split_first() else { return bytes.to_vec() };
    [&[*kind], &wire::vary(rng, message)[..]].concat()
}

/// One of a list of messages behind `LEAD` bytes.
pub(super) fn vary_pieces<const LEAD: usize>(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let (lead, rest) = bytes.split_at(LEAD.min(bytes.len()));
    let mut items: Vec<Vec<u8>> = pieces(rest).into_iter().map(<[u8]>::to_vec).collect();
    if items.is_empty() {
        return bytes.to_vec();
    }
    if rng.chance(20) {
        list(rng, &mut items);
    } else {
        let at = usize::try_from(rng.below(items.len() as u64)).unwrap_or(0);
        items[at] = wire::vary(rng, &items[at]);
    }
    [lead, &packed(&items)].concat()
}

/// A message of that kind; see [`controller::fuzzing::raft_message`].
pub(super) fn raft_message(rng: &mut Random, kind: u8) -> Vec<u8> {
    controller::fuzzing::raft_message(kind, &mut |most| rng.below(most))
}

fn enveloped(kind: u8, payload: Vec<u8>) -> Vec<u8> {
    let message = raft::RaftMessage {
        from: 1,
        to: 2,
        from_directory: vec![1; 16].into(),
        to_directory: vec![2; 16].into(),
        format: 1,
        payload: payload.into(),
        cluster: None,
    };
    tagged(kind * 2 + 1, &message)
}

/// Every kind of message and answer in the library's encoding, bare and in its envelope.
pub(super) fn raft() -> Vec<Vec<u8>> {
    let mut rng = Random::new(1);
    let mut corpus = Vec::new();
    for number in 0..controller::fuzzing::RAFT_KINDS * 3 {
        let kind = number % controller::fuzzing::RAFT_KINDS;
        let payload = raft_message(&mut rng, kind);
        corpus.push([&[kind * 2], &payload[..]].concat());
        corpus.push(enveloped(kind, payload));
    }
    corpus
}

pub(super) fn vary_raft(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    // Half of them appends: they hold the most.
    let kind = rng.below(u64::from(controller::fuzzing::RAFT_KINDS) * 2).to_le_bytes()[0];
    let kind = if kind < controller::fuzzing::RAFT_KINDS { kind } else { 0 };
    match rng.below(6) {
        0 => vary_tagged(rng, bytes),
        1 => enveloped(kind, raft_message(rng, kind)),
        _ => [&[kind * 2], &raft_message(rng, kind)[..]].concat(),
    }
}

/// Payloads of entries: nothing, voters, facts.
pub(super) fn entries() -> Vec<Vec<u8>> {
    let mut rng = Random::new(2);
    (0..24).map(|_| raft_message(&mut rng, u8::MAX)).collect()
}

pub(super) fn vary_entry(rng: &mut Random, _: &[u8]) -> Vec<u8> {
    raft_message(rng, u8::MAX)
}

/// Items of a feed, each after two bytes of its length, on an empty image. Whatever the reader makes of them, the image
/// never goes back.
pub(super) fn metadata_body(bytes: &[u8]) -> Depth {
    let (mut image, mut reader) = (MetadataImage::default(), FeedReader::default());
    let mut depth = Depth::Refused;
    for bytes in pieces(bytes) {
        let Ok(item) = feed::FeedItem::decode(bytes) else { return depth };
        depth = depth.max(Depth::Decoded);
        match reader.take(&image, item) {
            Ok(Fed::Image(next, _)) => {
                assert!(next.batch_no >= image.batch_no, "the image went back");
                image = *next;
                depth = Depth::Accepted;
            }
            Ok(Fed::Position(_) | Fed::Partial) => {}
            Err(_) => return depth,
        }
    }
    depth
}

/// Single batches, histories of several, snapshots whole and in pieces, with batches after them.
pub(super) fn metadata() -> Vec<Vec<u8>> {
    let batch = |data: Vec<u8>| {
        let batch = feed::FeedBatch { data: data.into(), ..Default::default() };
        feed::FeedItem { item: Some(feed::feed_item::Item::Batch(batch)) }
    };
    let chunk = |data: &[u8], last| {
        let chunk = feed::FeedSnapshot { data: data.to_vec().into(), last, ..Default::default() };
        feed::FeedItem { item: Some(feed::feed_item::Item::Snapshot(chunk)) }
    };
    let position = || feed::FeedItem { item: Some(feed::feed_item::Item::Position(feed::FeedPosition::default())) };
    let mut lists: Vec<Vec<feed::FeedItem>> = facts().into_iter().map(|data| vec![batch(data)]).collect();
    for seed in 0..6 {
        let history = FactGen::history(seed, 24);
        let of = |facts: &[Fact]| MetadataBatch { base: BatchNo(0), facts: facts.to_vec() }.encode();
        lists.push(history.chunks(5).map(|facts| batch(of(facts))).chain([position()]).collect());
        let image = values::image(seed, 20);
        let whole = protocol::metadata::snapshot::encode(&image).concat();
        let (one, two) = whole.split_at(whole.len() / 2);
        let mut generator = FactGen::new(seed + 50);
        let after = batch(of(&[generator.legal(&image)]));
        lists.push(vec![chunk(one, false), chunk(two, true), position(), after]);
    }
    let mut rng = Random::new(0);
    let mut corpus: Vec<Vec<u8>> = lists.iter().map(|items| joined(items)).collect();
    corpus.iter_mut().for_each(|input| seal_feed(&mut rng, input));
    corpus.retain(|input| input.len() <= super::mutate::INPUT_BYTES_MAX);
    assert!(corpus.len() > 15, "most of the corpus is too long");
    corpus
}

/// A fact of a batch of the feed, a fact of a snapshot of it, or its messages.
pub(super) fn vary_feed(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut items: Vec<Vec<u8>> = pieces(bytes).into_iter().map(<[u8]>::to_vec).collect();
    if items.is_empty() || rng.chance(30) {
        return vary_pieces::<0>(rng, bytes);
    }
    let at = usize::try_from(rng.below(items.len() as u64)).unwrap_or(0);
    let Ok(mut item) = feed::FeedItem::decode(&items[at][..]) else { return bytes.to_vec() };
    match &mut item.item {
        Some(feed::feed_item::Item::Batch(batch)) => batch.data = values::batch(rng, &batch.data).into(),
        Some(feed::feed_item::Item::Snapshot(chunk)) => {
            chunk.data = values::stream(rng).into();
            chunk.last = true;
        }
        _ => {}
    }
    items[at] = item.encode_to_vec();
    packed(&items)
}

pub(super) fn seal_feed(_: &mut Random, bytes: &mut Vec<u8>) {
    let items = pieces(bytes).into_iter().map(<[u8]>::to_vec).collect();
    *bytes = packed(&seal::feed(items));
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
    packed(&messages.iter().map(Message::encode_to_vec).collect::<Vec<_>>())
}

fn packed(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for one in messages {
        bytes.extend_from_slice(&u16::try_from(one.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(one);
    }
    bytes
}

/// The first byte chooses: a leader hears followers, or a follower hears its leader.
pub(super) fn replication_body(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    if kind % 2 == 0 { leader_hears(bytes) } else { follower_hears(bytes) }
}

fn leader_hears(bytes: &[u8]) -> Depth {
    let mut leader = Attacked::new(1);
    let mut depth = Depth::Refused;
    for (number, bytes) in pieces(bytes).into_iter().enumerate() {
        let follower = BrokerId(2 + u32::try_from(number % 2).unwrap_or(0));
        let Ok(message) = replication::FollowerMessage::decode(bytes) else { return depth };
        depth = depth.max(Depth::Decoded);
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
        for input in inputs {
            leader.step(input, VecDeque::new());
            depth = Depth::Accepted;
        }
    }
    depth
}

fn follower_hears(bytes: &[u8]) -> Depth {
    let mut follower = Attacked::new(2);
    let mut depth = Depth::Refused;
    for bytes in pieces(bytes) {
        let Ok(message) = replication::LeaderMessage::decode(bytes) else { return depth };
        depth = depth.max(Depth::Decoded);
        let subscription = follower.subscription();
        match message.message {
            Some(leader_message::Message::Push(mut push)) => {
                push.subscription = subscription;
                let Some((spans, hand)) = convert::checked(&push.batches) else { return depth };
                if !spans.is_empty() {
                    follower.step(convert::pushed(&push, spans), hand);
                    depth = Depth::Accepted;
                }
            }
            Some(message) => {
                let Some((_, input)) = convert::from_leader(&message) else { continue };
                follower.step(of(input, subscription), VecDeque::new());
                depth = Depth::Accepted;
            }
            None => {}
        }
    }
    depth
}

/// The batches inside of pushes get their lengths and checksums.
pub(super) fn seal_replication(_: &mut Random, bytes: &mut Vec<u8>) {
    let Some((kind @ 1, rest)) = bytes.split_first() else { return };
    let sealed = |bytes: &[u8]| {
        let Ok(mut message) = replication::LeaderMessage::decode(bytes) else { return bytes.to_vec() };
        if let Some(leader_message::Message::Push(push)) = &mut message.message {
            let mut batches = push.batches.to_vec();
            seal::batches(&mut batches);
            push.batches = batches.into();
        }
        message.encode_to_vec()
    };
    let items: Vec<Vec<u8>> = pieces(rest).into_iter().map(sealed).collect();
    *bytes = [&[*kind], &packed(&items)[..]].concat();
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
