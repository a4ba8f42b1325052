//! One heartbeat stream to every controller. A stream that breaks is opened again; a heartbeat that finds no stream is
//! lost, the next one says the same.
//!
//! Never: keeps a heartbeat for later. An old one sent late would look like a fresh sign of life.

use protocol::error::ErrorCode;
use protocol::ids::{BatchNo, ControllerId};
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::{Traffic, lifecycle_client};
use protocol::rpc::pb::lifecycle::v1 as wire;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::state::HeartbeatAnswer;
use super::task::Event;
use crate::limits;
use crate::link::{Controllers, jittered};

/// Streams to every known controller.
#[derive(Debug)]
pub(super) struct Heartbeats {
    controllers: Controllers,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    /// Longest pause before a stream is opened again: one heartbeat.
    pause_max: Duration,
    streams: BTreeMap<Endpoint, mpsc::Sender<wire::HeartbeatRequest>>,
    numbers: Vec<Endpoint>,
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Heartbeats {
    pub(super) fn new(controllers: Controllers, events: mpsc::Sender<Event>, pause_max: Duration) -> Self {
        let stop = CancellationToken::new();
        Self { controllers, events, stop, pause_max, streams: BTreeMap::new(), numbers: Vec::new() }
    }

    /// Sends to all; controllers learned meanwhile get a stream.
    pub(super) fn send(&mut self, request: &wire::HeartbeatRequest) {
        for endpoint in self.controllers.all() {
            if !self.streams.contains_key(&endpoint) {
                self.open(endpoint);
            }
        }
        for queue in self.streams.values() {
            // Full: the stream is being opened or does not drain; this heartbeat is lost on it.
            queue.try_send(request.clone()).ok();
        }
    }

    /// Where a controller, as numbered in answers, listens.
    pub(super) fn endpoint(&self, number: ControllerId) -> Option<&Endpoint> {
        self.numbers.get(usize::try_from(number.0).ok()?.checked_sub(1)?)
    }

    fn open(&mut self, endpoint: Endpoint) {
        let (sender, queue) = mpsc::channel(1);
        self.numbers.push(endpoint.clone());
        let number = ControllerId(u32::try_from(self.numbers.len()).unwrap_or(u32::MAX));
        self.streams.insert(endpoint.clone(), sender);
        let stream = Stream {
            endpoint,
            number,
            controllers: self.controllers.clone(),
            events: self.events.clone(),
            pause_max: self.pause_max,
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = stream.run(queue) => {}
            }
        });
    }
}

struct Stream {
    endpoint: Endpoint,
    number: ControllerId,
    controllers: Controllers,
    events: mpsc::Sender<Event>,
    pause_max: Duration,
}

impl Stream {
    async fn run(self, mut queue: mpsc::Receiver<wire::HeartbeatRequest>) {
        let first = Duration::from_millis(limits::RETRY_PAUSE_MS_MIN);
        let mut pause = first;
        loop {
            if self.one(&mut queue).await.is_ok() {
                pause = first;
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(self.pause_max.max(first));
            // What waited is old by now.
            while queue.try_recv().is_ok() {}
        }
    }

    /// One stream from its opening to its end. `Ok` if it stood.
    async fn one(&self, queue: &mut mpsc::Receiver<wire::HeartbeatRequest>) -> Result<(), ()> {
        let channel = self.controllers.dialer().connect(&self.endpoint, Traffic::Control).await.map_err(|_| ())?;
        let (sender, requests) = mpsc::channel(2);
        let mut client = lifecycle_client(channel);
        let mut answers = client.heartbeat(ReceiverStream::new(requests)).await.map_err(|_| ())?.into_inner();
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.events.send(Event::Answer(read(self.number, &answer))).await.ok();
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        let code = protocol::rpc::convert::from_status(&status).code;
                        self.events.send(Event::Answer(self.refusal(code))).await.ok();
                        return Ok(());
                    }
                },
                request = queue.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    if sender.try_send(request).is_err() && sender.is_closed() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn refusal(&self, code: ErrorCode) -> HeartbeatAnswer {
        HeartbeatAnswer {
            controller: self.number,
            seq: 0,
            active: false,
            committed: BatchNo(0),
            renews_at: BatchNo(0),
            fenced: false,
            may_stop: false,
            error: Some(code),
        }
    }
}

fn read(number: ControllerId, answer: &wire::HeartbeatResponse) -> HeartbeatAnswer {
    HeartbeatAnswer {
        controller: number,
        seq: answer.seq,
        active: answer.active,
        committed: BatchNo(answer.committed_batch_no),
        renews_at: BatchNo(answer.renews_at_batch_no.max(answer.committed_batch_no)),
        fenced: answer.fenced,
        may_stop: answer.may_stop,
        error: (answer.error_code != 0).then(|| ErrorCode::from_wire(answer.error_code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_that_a_lease_waits_for_is_read_from_the_answer() {
        let given = wire::HeartbeatResponse {
            seq: 7,
            active: true,
            committed_batch_no: 20,
            renews_at_batch_no: 21,
            ..wire::HeartbeatResponse::default()
        };
        let answer = read(ControllerId(2), &given);
        assert_eq!((answer.committed, answer.renews_at), (BatchNo(20), BatchNo(21)));
    }
}
