//! Values that cost a walk over the whole image. Owns the last one of each kind: it is computed once per image, off the
//! threads that serve, by one caller at a time; whoever comes meanwhile gets the same. Never gives a value of another
//! image than the one it comes with. Why: anybody may ask, and a walk takes as long as the cluster is large.

use crate::feed::Feed;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::BatchNo;
use protocol::metadata::image::MetadataImage;
use std::sync::Arc;
use tokio::sync::Mutex;

/// See the module's text.
pub(crate) struct Derived<T> {
    walk: fn(&MetadataImage) -> T,
    /// By batch number and chain hash: which image, without keeping it.
    last: Mutex<Option<((BatchNo, u64), T)>>,
}

impl<T: Copy + Send + 'static> Derived<T> {
    pub(crate) fn new(walk: fn(&MetadataImage) -> T) -> Self {
        Self { walk, last: Mutex::new(None) }
    }

    /// The committed image and the value of it.
    ///
    /// # Errors
    /// `ShuttingDown` when the process ends meanwhile.
    pub(crate) async fn of(&self, feed: &Feed) -> Result<(Arc<MetadataImage>, T), ApiError> {
        let mut last = self.last.lock().await;
        // Taken by whoever holds the lock: those who waited share one image, and so one walk.
        let image = feed.image();
        let which = (image.batch_no, image.chain_hash);
        if let Some((known, value)) = *last
            && known == which
        {
            return Ok((image, value));
        }
        let (walk, walked) = (self.walk, Arc::clone(&image));
        let value = protocol::machine::blocking(move || walk(&walked)).await;
        let value = value.map_err(|e| ApiError::new(ErrorCode::ShuttingDown, e.to_string()))?;
        *last = Some((which, value));
        Ok((image, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WALKS: AtomicU64 = AtomicU64::new(0);

    fn walk(image: &MetadataImage) -> u64 {
        WALKS.fetch_add(1, Ordering::SeqCst);
        image.batch_no.0
    }

    #[tokio::test]
    async fn an_image_is_walked_once_however_many_ask() {
        let (feed, derived) = (Feed::default(), Derived::new(walk));
        let asked = futures_util::future::join_all((0..50).map(|_| derived.of(&feed))).await;
        assert!(asked.into_iter().all(|told| told.is_ok_and(|(image, value)| value == image.batch_no.0)));
        assert_eq!(WALKS.load(Ordering::SeqCst), 1);
        let next = MetadataImage { batch_no: BatchNo(1), chain_hash: 1, ..MetadataImage::default() };
        feed.publish(next, Bytes::new());
        let (image, value) = derived.of(&feed).await.expect("told");
        assert_eq!((image.batch_no.0, value, WALKS.load(Ordering::SeqCst)), (1, 1, 2), "of the image that is");
        derived.of(&feed).await.expect("told");
        assert_eq!(WALKS.load(Ordering::SeqCst), 2);
    }
}
