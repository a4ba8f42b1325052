//! Produce: every check that needs no replica, then to the shard. The batch is checked where it arrives, so that a bad one
//! never reaches a log.

use protocol::batch::{self, BatchError, BatchInfo, Limits, Origin};
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::configs::TopicConfig;
use protocol::rpc::convert::maybe_epoch;
use protocol::rpc::pb::data::v1 as data;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Context, Patience, gone};
use crate::clock;
use crate::limits;
use crate::replica::input::Acks;
use crate::shard::message::{Produce, ProduceReply, Request};

/// The way back on one stream.
pub type Answers = mpsc::UnboundedSender<(data::ProduceResponse, OwnedSemaphorePermit)>;

/// Checks one request and hands it to its shard; a refusal is answered at once. Waits for the shard's queue and for the
/// memory budget, which makes the stream wait.
pub async fn produce(
    context: &Context,
    request: data::ProduceRequest,
    in_flight: OwnedSemaphorePermit,
    answers: Answers,
) {
    let correlation = request.correlation;
    match checked(context, request).await {
        Ok(checked) => {
            let reply = ProduceReply { correlation, answers, in_flight, budget: checked.budget };
            let produce = Produce {
                at: checked.at,
                acks: checked.acks,
                deadline: checked.deadline,
                leader_epoch: checked.leader_epoch,
                info: checked.info,
                batch: checked.batch,
                reply,
            };
            context.shards.of(produce.at).request(Request::Produce(produce)).await;
        }
        Err(error) => {
            let answer = data::ProduceResponse { correlation, error: Some(error.into()), ..Default::default() };
            answers.send((answer, in_flight)).ok();
        }
    }
}

struct Checked {
    at: protocol::ids::TopicPartition,
    acks: Acks,
    deadline: u64,
    leader_epoch: Option<protocol::ids::LeaderEpoch>,
    info: BatchInfo,
    batch: bytes::Bytes,
    budget: OwnedSemaphorePermit,
}

async fn checked(context: &Context, request: data::ProduceRequest) -> Result<Checked, ApiError> {
    context.check_cluster(&request.cluster_id)?;
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        other => return Err(ApiError::bad(ErrorCode::InvalidRequest, "acks", other, "0, 1 or -1")),
    };
    let leader_epoch = maybe_epoch("leader_epoch", request.leader_epoch)?;
    let (at, image) = context.partition(&request.topic_id, request.partition, Patience::of_a_request()).await?;
    let info = check_batch(&request.batch, &image.topic_config(at.topic), clock::wall_ms())?;
    let units = u32::try_from(request.batch.len().div_ceil(limits::BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
    let budget = Arc::clone(&context.produce_budget).acquire_many_owned(units).await.map_err(|_| gone())?;
    let timeout = u64::from(request.timeout_ms).clamp(1, limits::PRODUCE_TIMEOUT_MS_MAX);
    let deadline = clock::now() + timeout;
    Ok(Checked { at, acks, deadline, leader_epoch, info, batch: request.batch, budget })
}

/// Size, crc, counts, attributes, and a time that is not too far ahead: retention goes by it.
///
/// # Errors
/// The refusal for the producer.
pub fn check_batch(batch: &[u8], config: &TopicConfig, wall_ms: i64) -> Result<BatchInfo, ApiError> {
    let limit = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
    let info = batch::check(batch, &Limits::with_max_batch_bytes(limit), Origin::Client).map_err(|e| refusal(&e))?;
    let latest = wall_ms.saturating_add(i64::try_from(config.timestamp_after_max_ms).unwrap_or(i64::MAX));
    if info.header.max_timestamp > latest {
        let given = info.header.max_timestamp;
        let limit = format!("at most {latest}, message.timestamp.after.max.ms ahead of the broker's clock");
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "max_timestamp", given, limit));
    }
    Ok(info)
}

fn refusal(error: &BatchError) -> ApiError {
    let code = match error {
        BatchError::TooLarge { size, limit } => {
            return ApiError::bad(
                ErrorCode::MessageTooLarge,
                "batch",
                format!("{size} bytes"),
                format!("{limit} bytes"),
            );
        }
        BatchError::Magic { .. }
        | BatchError::UnknownAttributes { .. }
        | BatchError::UnsupportedCompression { .. }
        | BatchError::Reserved { .. } => ErrorCode::UnsupportedBatch,
        _ => ErrorCode::CorruptMessage,
    };
    let mut refusal = ApiError::new(code, error.to_string());
    refusal.field = "batch".into();
    if let BatchError::Crc { stored, computed } = error {
        refusal.value = format!("{stored:#010x}");
        refusal.limit = format!("{computed:#010x}");
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::batch::{BatchBuilder, Compression};
    use protocol::metadata::image::MetadataImage;

    fn config() -> TopicConfig {
        MetadataImage::default().topic_config(protocol::ids::TopicId::default())
    }

    fn batch(bytes: usize, timestamp: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(timestamp, None, Some(&vec![7; bytes]), &[]).expect("a legal record");
        builder.build().expect("a legal batch").to_vec()
    }

    #[test]
    fn a_good_batch_passes_and_a_flipped_bit_does_not() {
        let mut good = batch(100, 5);
        assert!(check_batch(&good, &config(), 0).is_ok());
        good[80] ^= 4;
        let error = check_batch(&good, &config(), 0).expect_err("the crc does not hold");
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::CorruptMessage, "batch"));
        assert!(!error.value.is_empty() && !error.limit.is_empty());
    }

    #[test]
    fn an_oversize_batch_names_size_and_limit() {
        let config = TopicConfig { max_message_bytes: 2_000, ..config() };
        let error = check_batch(&batch(3_000, 5), &config, 0).expect_err("larger than the topic takes");
        assert_eq!((error.code, error.limit.as_str()), (ErrorCode::MessageTooLarge, "2000 bytes"));
    }

    #[test]
    fn a_record_from_the_far_future_is_refused() {
        let hour = i64::try_from(config().timestamp_after_max_ms).expect("fits");
        assert!(check_batch(&batch(10, hour), &config(), 0).is_ok());
        let error = check_batch(&batch(10, hour + 1), &config(), 0).expect_err("too far ahead");
        assert_eq!(error.field, "max_timestamp");
    }
}
