//! The data service of the client listener (and, for `DescribeReplica`, of the internal one).

use futures_util::{Stream, StreamExt};
use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::convert::status;
use protocol::rpc::pb::data::v1::data_server::Data;
use protocol::rpc::pb::data::v1::*;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::handlers::{Context, fetch, offsets, produce, routing};
use crate::limits;

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DataService {
    context: Context,
}

impl DataService {
    /// Serves with these handlers.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl Data for DataService {
    type ProduceStream = Pin<Box<dyn Stream<Item = Result<ProduceResponse, Status>> + Send>>;

    async fn produce(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (answers, receiver) = mpsc::unbounded_channel();
        let context = self.context.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(limits::PRODUCE_IN_FLIGHT_PER_STREAM));
            while let Ok(Some(message)) = incoming.message().await {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                produce::produce(&context, message, place, answers.clone()).await;
            }
        });
        // An answer's place is given back once it goes out.
        let answers = UnboundedReceiverStream::new(receiver).map(|(answer, place)| {
            drop(place);
            Ok(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        fetch::fetch(&self.context, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        offsets::list(&self.context, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        Ok(Response::new(offsets::delete(&self.context, request.into_inner()).await))
    }

    async fn routing(&self, request: Request<RoutingRequest>) -> Result<Response<RoutingResponse>, Status> {
        routing::routing(&self.context.images.load(), request.get_ref()).map(Response::new).map_err(status)
    }

    async fn describe_replica(
        &self,
        request: Request<DescribeReplicaRequest>,
    ) -> Result<Response<DescribeReplicaResponse>, Status> {
        Ok(Response::new(offsets::describe(&self.context, request.into_inner()).await))
    }
}

/// What nodes of the cluster may ask on the internal listener: how a replica stands, nothing else.
#[derive(Debug, Clone)]
pub struct NodeDataService(pub DataService);

fn not_here() -> Status {
    status(ApiError::new(
        ErrorCode::InvalidRequest,
        "this listener is for nodes of the cluster; use the client listener",
    ))
}

#[tonic::async_trait]
impl Data for NodeDataService {
    type ProduceStream = Pin<Box<dyn Stream<Item = Result<ProduceResponse, Status>> + Send>>;

    async fn produce(&self, _: Request<Streaming<ProduceRequest>>) -> Result<Response<Self::ProduceStream>, Status> {
        Err(not_here())
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        Err(not_here())
    }

    async fn list_offsets(&self, _: Request<ListOffsetsRequest>) -> Result<Response<ListOffsetsResponse>, Status> {
        Err(not_here())
    }

    async fn delete_records(
        &self,
        _: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        Err(not_here())
    }

    async fn routing(&self, _: Request<RoutingRequest>) -> Result<Response<RoutingResponse>, Status> {
        Err(not_here())
    }

    async fn describe_replica(
        &self,
        request: Request<DescribeReplicaRequest>,
    ) -> Result<Response<DescribeReplicaResponse>, Status> {
        self.0.describe_replica(request).await
    }
}
