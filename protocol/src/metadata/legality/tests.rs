//! One refusal per rule, by its text, each beside the nearest fact that is legal.

use super::*;
use crate::ids::{BrokerEpoch, TopicPartition};
use crate::locality::Locality;
use crate::metadata::brokers::BrokerView;
use crate::metadata::record::*;
use crate::testing::applied;
use uuid::Uuid;

fn ids(ids: &[u32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn topic() -> TopicId {
    TopicId(Uuid::from_u128(7))
}

fn registration(broker: u32, epoch: u64) -> BrokerRegistered {
    let endpoint = Endpoint { host: "h".to_owned(), port: 1 };
    BrokerRegistered {
        broker: BrokerId(broker),
        epoch: BrokerEpoch(epoch),
        incarnation: Uuid::from_u128(u128::from(epoch)),
        internal: endpoint.clone(),
        client: endpoint,
        locality: Locality { region: "r".to_owned(), dc: format!("dc{broker}"), rack: "r".to_owned() },
        directories: vec![Uuid::from_u128(u128::from(broker))],
        min_metadata_version: 1,
        max_metadata_version: 1,
        seen: BrokerView::default(),
        proof_admissible: false,
    }
}

fn at(broker: u32, epoch: u64) -> BrokerRef {
    BrokerRef { broker: BrokerId(broker), epoch: BrokerEpoch(epoch) }
}

/// A cluster with brokers 1 to 4: 1 to 3 active, 4 registered and fenced. Topic 7 has one partition on 1, 2, 3: leader 1,
/// ISR 1 and 2, ELR 3.
fn cluster() -> MetadataImage {
    let formed = ClusterFormed { cluster_id: Uuid::from_u128(1), incarnation: 1, metadata_version: 1 };
    let mut facts = vec![Fact::ClusterFormed(formed)];
    for broker in 1..=4 {
        facts.push(Fact::BrokerRegistered(registration(broker, u64::from(broker))));
    }
    for broker in 1..=3 {
        facts.push(Fact::BrokerProved(at(broker, u64::from(broker))));
        facts.push(Fact::BrokerUnfenced(at(broker, u64::from(broker))));
    }
    facts.push(Fact::TopicCreated(created(topic(), "t")));
    let assignment = Assignment { replicas: ids(&[1, 2, 3]), isr: ids(&[1, 2, 3]), leader: Some(BrokerId(1)) };
    facts.push(Fact::PartitionsCreated(PartitionsCreated { topic: topic(), first: 0, assignments: vec![assignment] }));
    facts.push(change(PartitionChange { isr: Some(ids(&[1, 2])), elr: Some(ids(&[3])), ..PartitionChange::default() }));
    applied(&MetadataImage::default(), &facts).0
}

fn created(topic: TopicId, name: &str) -> TopicCreated {
    TopicCreated { topic, name: name.to_owned(), replication_factor: 3, created_ms: 0 }
}

fn change(change: PartitionChange) -> Fact {
    Fact::PartitionsChanged(PartitionsChanged { topic: topic(), changes: vec![change] })
}

fn refused(image: &MetadataImage, fact: Fact) -> String {
    image.check(&fact).expect_err(&format!("{fact:?} must be refused"))
}

#[track_caller]
fn refuses(image: &MetadataImage, fact: Fact, because: &str) {
    let reason = refused(image, fact);
    assert!(reason.contains(because), "{reason:?} does not say {because:?}");
}

#[track_caller]
fn takes(image: &MetadataImage, fact: Fact) {
    assert_eq!(image.check(&fact), Ok(()), "{fact:?}");
}

#[test]
fn nothing_comes_before_the_cluster_and_its_life_only_grows() {
    let formed = |id, incarnation, metadata_version| {
        Fact::ClusterFormed(ClusterFormed { cluster_id: Uuid::from_u128(id), incarnation, metadata_version })
    };
    let empty = MetadataImage::default();
    refuses(&empty, Fact::TopicCreated(created(topic(), "t")), "no cluster");
    refuses(&empty, formed(1, 2, 1), "life 2");
    refuses(&empty, formed(0, 1, 1), "life 1");
    refuses(&empty, formed(1, 1, 0), "metadata.version 0");
    refuses(&empty, formed(1, 1, 2), "folds up to 1");
    takes(&empty, formed(1, 1, 1));
    let image = cluster();
    takes(&image, formed(1, 2, 1));
    refuses(&image, formed(1, 1, 1), "life 1 after");
    refuses(&image, formed(2, 2, 1), "life 2 after");
}

#[test]
fn a_version_this_build_cannot_fold_halts_with_a_message_that_says_so() {
    for version in [0, 1, 2, 9] {
        let fact = Fact::MetadataVersionFinalized(MetadataVersionFinalized { version });
        refuses(
            &cluster(),
            fact,
            &format!("metadata.version {version}: expected 2 or more, and this build folds up to 1"),
        );
    }
}

#[test]
fn a_registration_takes_the_next_epoch_and_never_replaces_a_broker_that_takes_part() {
    let image = cluster();
    let registration =
        |broker, epoch| BrokerRegistered { seen: image.brokers.view(BrokerId(broker)), ..registration(broker, epoch) };
    takes(&image, Fact::BrokerRegistered(registration(4, 5)));
    takes(&image, Fact::BrokerRegistered(registration(9, 5)));
    refuses(&image, Fact::BrokerRegistered(registration(4, 4)), "broker epoch 4 instead of 5");
    refuses(&image, Fact::BrokerRegistered(registration(4, 6)), "broker epoch 6 instead of 5");
    refuses(&image, Fact::BrokerRegistered(registration(1, 5)), "not fenced");
    refuses(&image, Fact::BrokerRegistered(registration(0, 5)), "no broker id");
    let f = |change: fn(&mut BrokerRegistered)| {
        let mut f = registration(4, 5);
        change(&mut f);
        Fact::BrokerRegistered(f)
    };
    refuses(&image, f(|f| f.directories.clear()), "no directory");
    refuses(&image, f(|f| f.min_metadata_version = 2), "metadata.version is 1");
    refuses(&image, f(|f| f.max_metadata_version = 0), "metadata.version is 1");
    refuses(&image, f(|f| f.proof_admissible = true), "nothing that it could prove");
}

#[test]
fn only_the_same_directory_of_a_broker_once_unfenced_may_prove() {
    let image = applied(&cluster(), &[Fact::BrokerFenced(at(3, 3))]).0;
    let again = |directory: u128| {
        let directories = vec![Uuid::from_u128(directory)];
        let seen = image.brokers.view(BrokerId(3));
        Fact::BrokerRegistered(BrokerRegistered { directories, seen, proof_admissible: true, ..registration(3, 5) })
    };
    takes(&image, again(3));
    refuses(&image, again(33), "nothing that it could prove");
}

#[test]
fn a_registration_made_on_another_view_of_the_broker_is_illegal() {
    let image = applied(&cluster(), &[Fact::BrokerFenced(at(3, 3))]).0;
    let of = |broker: u32, registered: Option<u64>, last_unfenced: Option<u64>| {
        let seen =
            BrokerView { registered: registered.map(BrokerEpoch), last_unfenced: last_unfenced.map(BrokerEpoch) };
        Fact::BrokerRegistered(BrokerRegistered { seen, ..registration(broker, 5) })
    };
    takes(&image, of(3, Some(3), Some(3)));
    takes(&image, of(4, Some(4), None));
    takes(&image, of(9, None, None));
    let has = "made on \"registered none, last unfenced 3\", the image has \"registered 3, last unfenced 3\"";
    refuses(&image, of(3, None, Some(3)), has);
    for stale in [of(3, Some(3), None), of(3, Some(2), Some(3)), of(3, None, None), of(4, None, None)] {
        refuses(&image, stale, "made on");
    }
    refuses(&image, of(9, Some(3), Some(3)), "the image has \"registered none, last unfenced none\"");
}

#[test]
fn fencing_proof_and_unfencing_follow_each_other_under_one_registration() {
    let image = cluster();
    takes(&image, Fact::BrokerProved(at(4, 4)));
    refuses(&image, Fact::BrokerUnfenced(at(4, 4)), "proved false");
    refuses(&image, Fact::BrokerFenced(at(4, 4)), "Fenced");
    refuses(&image, Fact::BrokerShutdownBegan(at(4, 4)), "Fenced");
    refuses(&image, Fact::BrokerFenced(at(1, 9)), "broker epoch 9 instead of 1");
    refuses(&image, Fact::BrokerFenced(at(8, 1)), "not registered");
    refuses(&image, Fact::BrokerUnfenced(at(1, 1)), "Active");
    refuses(&image, Fact::BrokerProved(at(1, 1)), "Active");
    takes(&image, Fact::BrokerShutdownBegan(at(1, 1)));
    let stopping = applied(&image, &[Fact::BrokerShutdownBegan(at(1, 1))]).0;
    refuses(&stopping, Fact::BrokerShutdownBegan(at(1, 1)), "ShuttingDown");
    takes(&stopping, Fact::BrokerFenced(at(1, 1)));
}

#[test]
fn no_broker_is_unfenced_while_it_still_leads() {
    let fenced = applied(&cluster(), &[Fact::BrokerFenced(at(1, 1))]).0;
    refuses(&fenced, Fact::BrokerUnfenced(at(1, 1)), "still leads");
    let moved = PartitionChange { leader: LeaderChange::Broker(BrokerId(2)), ..PartitionChange::default() };
    takes(&applied(&fenced, &[change(moved)]).0, Fact::BrokerUnfenced(at(1, 1)));
    takes(&applied(&cluster(), &[Fact::BrokerFenced(at(2, 2))]).0, Fact::BrokerUnfenced(at(2, 2)));
}

#[test]
fn topics_are_made_once_and_purged_only_after_deletion() {
    let image = cluster();
    refuses(&image, Fact::TopicCreated(created(topic(), "other")), "exists");
    refuses(&image, Fact::TopicCreated(created(TopicId(Uuid::from_u128(8)), "t")), "topic t exists");
    refuses(&image, Fact::TopicCreated(created(TopicId(Uuid::from_u128(8)), "")), "no name");
    refuses(&image, Fact::TopicPurged(TopicPurged { topic: topic() }), "not deleted");
    let deleted = applied(&image, &[Fact::TopicDeleted(TopicDeleted { topic: topic(), at_ms: 1 })]).0;
    takes(&deleted, Fact::TopicPurged(TopicPurged { topic: topic() }));
    takes(&deleted, Fact::TopicCreated(created(TopicId(Uuid::from_u128(8)), "t")));
    refuses(&deleted, Fact::TopicDeleted(TopicDeleted { topic: topic(), at_ms: 1 }), "no live topic");
    refuses(&deleted, change(PartitionChange::default()), "no live topic");
    let set = ConfigSet { resource: ConfigResource::Topic(topic()), key: "retention.ms".into(), value: "1".into() };
    refuses(&deleted, Fact::ConfigSet(set), "no live topic");
}

#[test]
fn new_partitions_follow_the_last_on_registered_brokers_with_a_first_isr_that_takes_part() {
    let image = cluster();
    let made = |first, replicas: &[u32], isr: &[u32], leader: Option<u32>| {
        let assignment = Assignment { replicas: ids(replicas), isr: ids(isr), leader: leader.map(BrokerId) };
        Fact::PartitionsCreated(PartitionsCreated { topic: topic(), first, assignments: vec![assignment] })
    };
    takes(&image, made(1, &[1, 4], &[1], Some(1)));
    takes(&image, made(1, &[4], &[], None));
    refuses(&image, made(0, &[1], &[1], Some(1)), "partitions from 0 after 1");
    refuses(&image, made(2, &[1], &[1], Some(1)), "partitions from 2 after 1");
    refuses(&image, made(1, &[], &[], None), "replicas []");
    refuses(&image, made(1, &[1, 1], &[1], Some(1)), "replicas");
    refuses(&image, made(1, &[1, 9], &[1], Some(1)), "unknown");
    refuses(&image, made(1, &[1, 4], &[1, 4], Some(1)), "fenced in the first ISR");
    refuses(&image, made(1, &[1, 2], &[2], Some(1)), "not in ISR");
    refuses(&image, made(1, &[1], &[2], None), "ISR");
}

#[test]
fn lists_of_a_partition_only_change_the_ways_that_keep_records() {
    let image = cluster();
    let p = PartitionChange::default;
    takes(&image, change(p()));
    takes(&image, change(PartitionChange { isr: Some(ids(&[1, 2, 3])), elr: Some(ids(&[])), ..p() }));
    takes(&image, change(PartitionChange { isr: Some(ids(&[1])), elr: Some(ids(&[2, 3])), ..p() }));
    refuses(&image, change(PartitionChange { partition: 1, ..p() }), "no partition 1");
    refuses(&image, change(PartitionChange { isr: Some(ids(&[2])), ..p() }), "not in ISR");
    refuses(&image, change(PartitionChange { isr: Some(ids(&[1, 3])), ..p() }), "ELR");
    refuses(&image, change(PartitionChange { isr: Some(ids(&[1, 4])), ..p() }), "ISR");
    refuses(&image, change(PartitionChange { adding: Some(ids(&[4])), ..p() }), "adding");
    let grown = PartitionChange { replicas: Some(ids(&[1, 2, 3, 4])), adding: Some(ids(&[4])), ..p() };
    takes(&image, change(grown.clone()));
    refuses(&image, change(PartitionChange { replicas: Some(ids(&[1, 2, 3, 9])), ..p() }), "unknown");
    let image = applied(&image, &[change(grown)]).0;
    refuses(&image, change(PartitionChange { isr: Some(ids(&[1, 2, 4])), ..p() }), "a fenced broker enters the ISR");
    refuses(&image, change(PartitionChange { elr: Some(ids(&[3, 4])), ..p() }), "out of ISR");
    let twice = PartitionsChanged { topic: topic(), changes: vec![p(), p()] };
    refuses(&image, Fact::PartitionsChanged(twice), "partition 0 twice");
}

#[test]
fn a_leader_takes_part_and_comes_out_of_isr_or_elr_unless_marked_unclean() {
    let image = applied(&cluster(), &[Fact::BrokerFenced(at(2, 2))]).0;
    let lead = |leader: u32, isr: &[u32], elr: &[u32], recovery| {
        change(PartitionChange {
            leader: LeaderChange::Broker(BrokerId(leader)),
            isr: Some(ids(isr)),
            elr: Some(ids(elr)),
            recovery,
            ..PartitionChange::default()
        })
    };
    takes(&image, lead(1, &[1, 2], &[3], None));
    takes(&image, lead(3, &[3], &[1, 2], None));
    refuses(&image, lead(2, &[2], &[1, 3], None), "leader 2 is fenced");
    let lost = applied(&image, &[lead(1, &[1, 2], &[], None)]).0;
    refuses(&lost, lead(3, &[3], &[], None), "neither ISR nor ELR");
    let unclean = lead(3, &[3], &[], Some(RecoveryState::Recovering));
    takes(&lost, unclean.clone());
    let nobody = PartitionChange { recovery: Some(RecoveryState::Recovering), ..PartitionChange::default() };
    refuses(&lost, change(nobody), "without a leader");
    let at = TopicPartition { topic: topic(), partition: 0 };
    let elected = applied(&lost, &[unclean]).0;
    let partition = elected.topics.partition(at).expect("it is there");
    assert_eq!(partition.unclean_epoch, Some(partition.leader_epoch), "the image names the epoch that began uncleanly");
}

#[test]
fn an_unclean_election_is_recorded_of_a_replica_of_a_live_partition() {
    let image = cluster();
    let record = |partition, leader| {
        let leader = BrokerId(leader);
        let at_ms = 1;
        UncleanElection { topic: topic(), partition, leader, last_epoch: None, log_end: 9, forced_now: false, at_ms }
    };
    refuses(&image, Fact::UncleanElection(record(1, 1)), "no partition 1");
    refuses(&image, Fact::UncleanElection(record(0, 4)), "no replica");
    let noted = applied(&image, &[Fact::UncleanElection(record(0, 2))]).0;
    let at = TopicPartition { topic: topic(), partition: 0 };
    assert_eq!(noted.topics.last_unclean(at), Some(&record(0, 2)));
    let gone = [
        Fact::TopicDeleted(TopicDeleted { topic: topic(), at_ms: 1 }),
        Fact::TopicPurged(TopicPurged { topic: topic() }),
    ];
    assert_eq!(applied(&noted, &gone).0.topics.last_unclean(at), None);
}

#[test]
fn configs_are_checked_again_when_they_are_folded() {
    let image = cluster();
    let set = |resource, key: &str, value: &str| {
        Fact::ConfigSet(ConfigSet { resource, key: key.into(), value: value.into() })
    };
    takes(&image, set(ConfigResource::Topic(topic()), "min.insync.replicas", "2"));
    refuses(&image, set(ConfigResource::Topic(topic()), "min.insync.replicas", "0"), "min.insync.replicas is 0");
    refuses(&image, set(ConfigResource::Topic(topic()), "no.such", "0"), "config key is no.such");
    refuses(&image, set(ConfigResource::Broker(BrokerId(1)), "retention.ms", "1"), "config key is retention.ms");
    let unset = ConfigUnset { resource: ConfigResource::Cluster, key: "retention.ms".into() };
    refuses(&image, Fact::ConfigUnset(unset), "is not set");
}
