//! Folds restoring facts into an image, indexes included. The reader's half of the paired checks: what no image can say is
//! refused here, although crc and hash of the stream were right. It never sees bytes.

use super::super::configs;
use super::super::image::MetadataImage;
use super::super::legality::check_lists;
use super::super::record::{ConfigResource, ConfigSet, METADATA_VERSION_MAX, UncleanElection};
use super::super::topics::Topic;
use super::restored::{BrokerRestored, ClusterRestored, PartitionsRestored, Restored, TopicRestored};
use crate::ids::TopicPartition;
use rpds::VectorSync;

type Verdict = Result<(), String>;

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(reason()) }
}

/// Folds one restoring fact.
///
/// # Errors
/// What about it no image can say.
pub(super) fn restore(image: &mut MetadataImage, fact: Restored) -> Verdict {
    match fact {
        Restored::ClusterRestored(f) => cluster(image, &f),
        Restored::BrokerRestored(f) => broker(image, f),
        Restored::TopicRestored(f) => topic(image, f),
        Restored::PartitionsRestored(f) => partitions(image, f),
        Restored::ConfigRestored(f) => config(image, &f),
        Restored::UncleanRestored(f) => unclean(image, f),
        Restored::SnapshotBegan(_) | Restored::SnapshotEnded(_) => Err("head or end in the middle".to_owned()),
    }
}

fn cluster(image: &mut MetadataImage, f: &ClusterRestored) -> Verdict {
    ensure(
        *image == MetadataImage { batch_no: image.batch_no, chain_hash: image.chain_hash, ..Default::default() },
        || "the cluster is not the first thing restored".to_owned(),
    )?;
    let version = f.metadata_version;
    ensure(version <= METADATA_VERSION_MAX, || {
        format!("metadata.version {version}; this build folds up to {METADATA_VERSION_MAX}")
    })?;
    image.cluster.cluster_id = f.cluster_id;
    image.cluster.incarnation = f.incarnation;
    image.cluster.metadata_version = version;
    image.cluster.last_broker_epoch = f.last_broker_epoch;
    Ok(())
}

fn broker(image: &mut MetadataImage, f: BrokerRestored) -> Verdict {
    ensure(image.brokers.get(f.broker).is_none(), || format!("broker {} twice", f.broker))?;
    let newest = image.cluster.last_broker_epoch;
    ensure(f.epoch <= newest, || format!("broker epoch {} above {newest}", f.epoch))?;
    image.brokers.brokers.insert_mut(f.broker, f.into());
    Ok(())
}

fn topic(image: &mut MetadataImage, f: TopicRestored) -> Verdict {
    ensure(image.topics.get(f.topic).is_none(), || format!("topic id {} twice", f.topic))?;
    let topic = Topic {
        id: f.topic,
        name: f.name,
        replication_factor: f.replication_factor,
        created_ms: f.created_ms,
        state: f.state,
        partitions: VectorSync::new_sync(),
    };
    let taken = topic.is_live() && image.topics.by_name(&topic.name).is_some();
    ensure(!taken, || format!("two live topics named {}", topic.name))?;
    image.topics.restore_topic(topic);
    Ok(())
}

fn partitions(image: &mut MetadataImage, f: PartitionsRestored) -> Verdict {
    let count = image.topics.get(f.topic).map(|t| t.partitions.len());
    ensure(count == Some(f.first as usize), || {
        format!("partitions from {} of topic {} at {count:?}", f.first, f.topic)
    })?;
    for p in f.partitions {
        check_lists(&p.replicas, &p.isr, &p.elr, p.leader)
            .map_err(|e| format!("a partition of topic {}: {e}", f.topic))?;
        image.topics.restore_partition(f.topic, p.into());
    }
    Ok(())
}

fn config(image: &mut MetadataImage, f: &ConfigSet) -> Verdict {
    configs::check(f.resource, &f.key, &f.value).map_err(|e| e.message)?;
    if let ConfigResource::Topic(topic) = f.resource {
        ensure(image.topics.get(topic).is_some(), || format!("config of unknown topic {topic}"))?;
    }
    image.configs.set(f.resource, &f.key, &f.value);
    Ok(())
}

fn unclean(image: &mut MetadataImage, f: UncleanElection) -> Verdict {
    let at = TopicPartition { topic: f.topic, partition: f.partition };
    ensure(image.topics.partition(at).is_some(), || format!("an election of unknown partition {at}"))?;
    image.topics.unclean.insert_mut(at, f);
    Ok(())
}
