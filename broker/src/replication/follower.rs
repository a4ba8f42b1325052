//! A follower's end of a replication stream: dials one leader's internal listener for one shard, keeps the stream up with
//! growing pauses, and hands everything received to the shard.
//!
//! Never: looks into a batch or decides what is appended. Invariant: the shard hears `Up` before the first message of a
//! stream and `Down` after the last, so a subscription belongs to exactly one stream.

use protocol::ids::{BrokerEpoch, BrokerId};
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::{Dialer, Traffic, replication_client};
use protocol::rpc::convert::{cluster_ref, from_status};
use protocol::rpc::pb::replication::v1::{self as wire, follower_message, leader_message};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::outbox::{MergedAcks, Outbox};
use crate::limits;
use crate::link::jittered;
use crate::metadata::follower::Images;
use crate::shard::ShardSender;
use crate::shard::message::{LeaderEvent, Request};

/// The sending half of an open stream to a leader.
#[derive(Debug, Default)]
pub struct LeaderStream {
    /// What will be sent.
    pub outbox: Arc<Outbox<MergedAcks>>,
}

impl LeaderStream {
    /// Queues a message.
    pub fn send(&self, message: follower_message::Message) {
        self.outbox.push(wire::FollowerMessage { message: Some(message) });
    }
}

/// Keeps one stream to one leader for one shard.
#[derive(Debug)]
pub struct LeaderDialer {
    /// Whom to follow.
    pub leader: BrokerId,
    /// This broker.
    pub me: BrokerId,
    /// Its registration.
    pub my_epoch: BrokerEpoch,
    /// Where the leader's address and registration are looked up.
    pub images: Arc<Images>,
    /// How connections are made.
    pub dialer: Dialer,
    /// The shard that wants it.
    pub shard: ShardSender,
}

impl LeaderDialer {
    /// Until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = Duration::from_millis(limits::RETRY_PAUSE_MS_MIN);
        loop {
            let mut stood = None;
            let ended = tokio::select! {
                () = stop.cancelled() => None,
                why = self.one_stream(&mut stood) => Some(why),
            };
            let was_up = stood.is_some();
            if let Some(stream) = stood.take() {
                stream.outbox.close();
                self.tell(LeaderEvent::Down(stream)).await;
            }
            let Some(why) = ended else { return };
            tracing::debug!(leader = %self.leader, %why, "replication stream ended");
            if was_up {
                pause = Duration::from_millis(limits::RETRY_PAUSE_MS_MIN);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(Duration::from_millis(limits::REPLICATION_PAUSE_MS_MAX));
        }
    }

    async fn tell(&self, event: LeaderEvent) {
        self.shard.request(Request::FromLeader { leader: self.leader, event }).await;
    }

    /// Opens a stream and reads it to its end; says why it ended, and leaves the stream behind if it stood.
    async fn one_stream(&self, stood: &mut Option<Arc<LeaderStream>>) -> String {
        let (stream, mut incoming) = match self.open().await {
            Ok(opened) => opened,
            Err(why) => return why,
        };
        *stood = Some(stream.clone());
        self.tell(LeaderEvent::Up(stream)).await;
        loop {
            match incoming.message().await {
                Ok(Some(wire::LeaderMessage { message: Some(message) })) => {
                    self.tell(LeaderEvent::Message(Box::new(message))).await;
                }
                Ok(Some(_)) => break "a message this build does not know".to_owned(),
                Ok(None) => break "the leader ended it".to_owned(),
                Err(status) => break from_status(&status).to_string(),
            }
        }
    }

    fn target(&self) -> Option<(Endpoint, BrokerEpoch, wire::Hello)> {
        let image = self.images.load();
        let leader = image.brokers.get(self.leader)?;
        let hello = wire::Hello {
            cluster: Some(cluster_ref(image.cluster.cluster_id, image.cluster.incarnation)),
            broker_id: self.me.0,
            broker_epoch: self.my_epoch.0,
            leader_id: self.leader.0,
            credit_bytes: limits::CREDIT_BYTES,
        };
        Some((leader.internal.clone(), leader.epoch, hello))
    }

    async fn open(&self) -> Result<(Arc<LeaderStream>, Streaming<wire::LeaderMessage>), String> {
        let (address, epoch, hello) = self.target().ok_or("the image does not know the leader's address")?;
        let channel = self.dialer.connect(&address, Traffic::Data).await.map_err(|e| e.to_string())?;
        let stream = Arc::new(LeaderStream::default());
        stream.send(follower_message::Message::Hello(hello));
        let patience = Duration::from_millis(limits::REPLICATION_HELLO_MS);
        let mut client = replication_client(channel);
        let opened = timeout(patience, client.replicate(stream.outbox.clone().messages())).await;
        let mut incoming = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(from_status(&status).to_string()),
            Err(_) => return Err("the leader did not answer the hello in time".into()),
        };
        let first = timeout(patience, incoming.message()).await;
        match first {
            Ok(Ok(Some(wire::LeaderMessage { message: Some(leader_message::Message::Welcome(welcome)) }))) => {
                if (welcome.broker_id, welcome.broker_epoch) == (self.leader.0, epoch.0) {
                    return Ok((stream, incoming));
                }
                Err(format!(
                    "broker {} of epoch {} answered, the image has broker {} of epoch {epoch}",
                    welcome.broker_id, welcome.broker_epoch, self.leader
                ))
            }
            Ok(Err(status)) => Err(from_status(&status).to_string()),
            Ok(Ok(_)) => Err("the leader did not begin with a welcome".into()),
            Err(_) => Err("the leader did not welcome in time".into()),
        }
    }
}
