//! A produce stream: requests one way, answers the other, over a connection of its own.
//!
//! Owns: the stream's two ends.
//! Never: matches answers with requests (`producer::link` does), opens itself again.
//! Invariant: a request taken by [`ProduceStream::requests`] counts as sent, whatever happens to the connection after.

use crate::limits::STREAM_QUEUE;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use protocol::error::ApiError;
use protocol::rpc::channel;
use protocol::rpc::channel::Channel;
use protocol::rpc::convert::from_status;
use protocol::rpc::pb::data::v1::{ProduceRequest, ProduceResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Both ends of an open stream.
pub(crate) struct ProduceStream {
    /// Requests, taken as fast as the connection's flow control lets them through.
    pub(crate) requests: mpsc::Sender<ProduceRequest>,
    /// Answers in any order; ends with the connection.
    pub(crate) answers: BoxStream<'static, Result<ProduceResponse, ApiError>>,
}

impl ProduceStream {
    pub(super) fn open(channel: Channel) -> Self {
        let (requests, inbox) = mpsc::channel(STREAM_QUEUE);
        let mut client = channel::data_client(channel);
        // The head of the answer may come only after the first request was read, so both ends move from the start.
        let call = async move { client.produce(ReceiverStream::new(inbox)).await };
        let answers =
            call.map_ok(tonic::Response::into_inner).try_flatten_stream().map_err(|s| from_status(&s)).boxed();
        Self { requests, answers }
    }
}
