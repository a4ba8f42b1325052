//! Why a partition is as it is, and what losing a broker or a data centre now would do to it: pure over the image.
//! Verdicts come from the very rules that elections use (fence on a copy, settle, look), so they cannot drift apart.

use super::election::{Electorate, live};
use super::limits::VERDICTS_MAX;
use super::topics;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerId, TopicPartition};
use protocol::metadata::brokers::BrokerState;
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{BrokerRef, Fact, RecoveryState};
use protocol::metadata::topics::{Partition, Topic, changed};
use std::collections::{BTreeMap, BTreeSet};

/// What there is to say about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Which.
    pub at: TopicPartition,
    /// Its state.
    pub state: Partition,
    /// Whether its ISR satisfies the durability rule.
    pub satisfies: bool,
    /// Sentences, most important first.
    pub findings: Vec<String>,
    /// One verdict per replica and per data centre that holds one.
    pub losses: Vec<LossVerdict>,
}

/// What stopping something now would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LossVerdict {
    /// What stops.
    pub what: String,
    /// acks=all goes on (after an election if need be).
    pub writes_continue: bool,
    /// A survivor is known to hold every record acknowledged with acks=all.
    pub acked_records_safe: bool,
    /// In words.
    pub text: String,
}

/// Explains one partition of a live topic.
///
/// # Errors
/// `UnknownTopic`, `UnknownPartition`.
pub fn explain_partition(image: &MetadataImage, topic: &str, number: u32) -> Result<Explanation, ApiError> {
    let topic = topics::by_name(image, topic)?;
    let Some(state) = topic.partition(number) else {
        let limit = format!("0 to {}", topic.partitions.len().saturating_sub(1));
        return Err(ApiError::bad(ErrorCode::UnknownPartition, "partition", number, limit));
    };
    let at = TopicPartition { topic: topic.id, partition: number };
    Ok(Explanation {
        at,
        state: state.clone(),
        satisfies: image.satisfies(topic, &state.isr),
        findings: findings(image, topic, state),
        losses: losses(image, at, state),
    })
}

fn findings(image: &MetadataImage, topic: &Topic, state: &Partition) -> Vec<String> {
    let mut found = vec![leadership(image, state), durability(image, topic, state)];
    if state.recovery == RecoveryState::Recovering {
        found.push("the last election was unclean, and no ISR that satisfies the rule has formed since".to_owned());
    }
    let absent = state.replicas.iter().filter(|b| !state.isr.contains(b));
    found.extend(absent.map(|b| why_absent(image, state, *b)));
    if let (Some(leader), Some(first)) = (state.leader, state.replicas.first())
        && leader != *first
    {
        let text = "leadership returns once it is in the ISR and has been active for a while";
        found.push(format!("the preferred leader is broker {first}; {text}"));
    }
    found
}

fn leadership(image: &MetadataImage, state: &Partition) -> String {
    if let Some(leader) = state.leader {
        return format!("broker {leader} leads in leader epoch {}", state.leader_epoch);
    }
    let safe: Vec<_> = state.isr.iter().chain(&state.elr).collect();
    if safe.is_empty() {
        return "offline: no replica is known to hold every committed record; an operator can run `partition elect \
                --unclean` and accept the loss it names"
            .to_owned();
    }
    let waiting: Vec<_> = safe.iter().map(|b| format!("broker {b} ({})", state_of(image, **b))).collect();
    format!(
        "offline until one of these is active again, each of which holds every committed record: {}",
        waiting.join(", ")
    )
}

fn durability(image: &MetadataImage, topic: &Topic, state: &Partition) -> String {
    let rule = image.rule_of(topic);
    let places = state.isr.iter().filter_map(|b| image.brokers.get(*b)).map(|b| b.locality.data_centre());
    let dcs = places.collect::<BTreeSet<_>>().len();
    let verdict = if rule.holds(image, &state.isr) {
        "acks=all is taken"
    } else {
        "acks=all is refused and nothing new becomes visible until the ISR has grown"
    };
    format!(
        "ISR of {} in {dcs} data centre(s), the rule asks for {} in {}: {verdict}",
        state.isr.len(),
        rule.min_replicas,
        rule.min_dcs
    )
}

fn why_absent(image: &MetadataImage, state: &Partition, broker: BrokerId) -> String {
    let place = if state.elr.contains(&broker) { ", holds every committed record (ELR)" } else { "" };
    let why = match image.brokers.get(broker).map(|b| b.state) {
        Some(BrokerState::Active) if state.leader.is_some() => "is active but has not caught up with the leader yet",
        Some(BrokerState::Active) => "is active, but there is no leader to catch up with",
        Some(BrokerState::ShuttingDown) => "is shutting down",
        Some(BrokerState::Fenced) => "is fenced",
        None => "is not registered",
    };
    format!("broker {broker} is out of the ISR: it {why}{place}")
}

fn state_of(image: &MetadataImage, broker: BrokerId) -> &'static str {
    match image.brokers.get(broker).map(|b| b.state) {
        Some(BrokerState::Active) => "active",
        Some(BrokerState::ShuttingDown) => "shutting down",
        Some(BrokerState::Fenced) => "fenced",
        None => "not registered",
    }
}

fn losses(image: &MetadataImage, at: TopicPartition, state: &Partition) -> Vec<LossVerdict> {
    let mut by_dc: BTreeMap<(&str, &str), Vec<BrokerId>> = BTreeMap::new();
    for broker in state.replicas.iter().filter_map(|b| image.brokers.get(*b)) {
        by_dc.entry(broker.locality.data_centre()).or_default().push(broker.id);
    }
    let brokers = state.replicas.iter().map(|b| (format!("broker {b} stops now"), vec![*b]));
    let dcs =
        by_dc.into_iter().map(|((region, dc), members)| (format!("data centre {region}/{dc} stops now"), members));
    brokers.chain(dcs).take(VERDICTS_MAX).map(|(what, gone)| verdict(image, at, what, &gone)).collect()
}

fn verdict(image: &MetadataImage, at: TopicPartition, what: String, gone: &[BrokerId]) -> LossVerdict {
    let mut draft = Draft::new(image.clone());
    for broker in gone.iter().filter_map(|b| image.brokers.get(*b)).filter(|b| !b.is_fenced()) {
        draft.push(Fact::BrokerFenced(BrokerRef { broker: broker.id, epoch: broker.epoch }));
    }
    let nobody = BTreeSet::new();
    let Some((topic, old)) = live(draft.state(), at) else {
        return LossVerdict {
            what,
            writes_continue: false,
            acked_records_safe: false,
            text: "no such partition".into(),
        };
    };
    let settled = Electorate::new(draft.state(), topic, &nobody).settle(at.partition, old, None);
    let after = settled.map_or_else(|| old.clone(), |change| changed(old, &change));
    let writes_continue = after.leader.is_some() && draft.state().satisfies(topic, &after.isr);
    let acked_records_safe = old.isr.iter().chain(&old.elr).any(|b| !gone.contains(b));
    let text = match (writes_continue, after.leader, acked_records_safe) {
        (true, Some(leader), _) => format!("writes go on under broker {leader}"),
        (_, Some(leader), _) => {
            format!("broker {leader} leads, but acks=all is refused until the ISR satisfies the rule again")
        }
        (_, None, true) => {
            "offline until a broker that holds every committed record is back; nothing acknowledged is lost".to_owned()
        }
        (_, None, false) => "offline; the acknowledged records survive only on what stopped".to_owned(),
    };
    LossVerdict { what, writes_continue, acked_records_safe, text }
}

#[cfg(test)]
mod tests;
