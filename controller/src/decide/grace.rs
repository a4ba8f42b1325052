//! How long a former leader may go on without a lease, when `lease.grace.ms` is lowered.
//!
//! A broker that renewed its lease on the old value acts on it until the old grace has run out, whatever the image says
//! since. So the image keeps the larger value beside the new one, and waits count with the larger. Every renewal on the
//! old value was answered before the change committed; one lease and one old grace, and a tenth for slower clocks, after an
//! active controller saw the change committed nobody acts on it any more, and the key goes. A new active controller
//! counts from its takeover.

use super::sessions::Sessions;
use super::work::Budget;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, Millis};
use protocol::metadata::configs::{LEASE_GRACE, LEASE_GRACE_LOWERED_FROM};
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{ConfigResource, ConfigSet, ConfigUnset, Fact};

/// Where the wait for a lowered grace stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GraceMemo {
    /// Image that the last change was decided on: it counts from the next one on.
    decided_on: Option<BatchNo>,
    /// When the change was first seen committed.
    since: Option<Millis>,
}

fn number(image: &MetadataImage, key: &str) -> Millis {
    image.config_number(ConfigResource::Cluster, key).unwrap_or(Millis::MAX)
}

/// The grace that some broker may act on.
pub(super) fn longest(image: &MetadataImage) -> Millis {
    number(image, LEASE_GRACE).max(number(image, LEASE_GRACE_LOWERED_FROM))
}

/// How long a broker may act on a lease and this grace: its clock may run slower than ours by a tenth (docs/protocol.md,
/// the model), which fencing allows for too.
pub(super) fn lasts(lease: Millis, grace: Millis) -> Millis {
    let own = lease.saturating_add(grace);
    own.saturating_add(own.div_ceil(10))
}

/// The grace in force, to be handed to [`keep_larger`] once configs were changed.
pub(super) fn current(image: &MetadataImage) -> Millis {
    number(image, LEASE_GRACE)
}

/// Configs were changed in the draft, with the grace at `before`: if that lowered it, the larger value stays beside it.
pub(super) fn keep_larger(draft: &mut Draft<MetadataImage>, before: Millis) {
    let image = draft.state();
    let kept = number(image, LEASE_GRACE_LOWERED_FROM);
    if current(image) >= before || kept >= before {
        return;
    }
    draft.push(Fact::ConfigSet(ConfigSet {
        resource: ConfigResource::Cluster,
        key: LEASE_GRACE_LOWERED_FROM.to_owned(),
        value: before.to_string(),
    }));
}

/// A change of the grace was decided on this image: whatever was waited for so far is waited for anew.
pub(super) fn begin_again(sessions: &mut Sessions, image: BatchNo) {
    sessions.memo.grace = GraceMemo { decided_on: Some(image), since: None };
}

/// Refuses a key that only the controller itself writes.
pub(super) fn check_key(key: &str) -> Result<(), ApiError> {
    if key == LEASE_GRACE_LOWERED_FROM {
        let limit = format!("a key that commands may set; this one follows from {LEASE_GRACE}");
        return Err(ApiError::bad(ErrorCode::InvalidConfig, "config key", key, limit));
    }
    Ok(())
}

/// Drops the larger value when nobody acts on it any more. False: the budget ran out.
pub(super) fn end(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Millis, budget: &mut Budget) -> bool {
    let image = draft.state();
    let memo = sessions.memo.grace;
    let kept = image.configs.get(ConfigResource::Cluster, LEASE_GRACE_LOWERED_FROM).is_some();
    if !kept || memo.decided_on.is_some_and(|base| image.batch_no <= base) {
        return true;
    }
    let since = memo.since.unwrap_or(now);
    sessions.memo.grace.since = Some(since);
    let wait = lasts(sessions.timers().lease_ms, number(image, LEASE_GRACE_LOWERED_FROM));
    if now.saturating_sub(since) < wait {
        return true;
    }
    if budget.is_spent() {
        return false;
    }
    let (resource, key) = (ConfigResource::Cluster, LEASE_GRACE_LOWERED_FROM.to_owned());
    draft.push(Fact::ConfigUnset(ConfigUnset { resource, key }));
    budget.fact();
    sessions.memo.grace = GraceMemo::default();
    true
}
