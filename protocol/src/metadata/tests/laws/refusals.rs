//! What is refused: facts no correct decider writes, batches decided elsewhere.

use super::histories;
use crate::ids::BatchNo;
use crate::metadata::batch::MetadataBatch;
use crate::metadata::image::ApplyError;
use crate::testing::FactGen;

#[test]
fn an_illegal_fact_anywhere_in_a_batch_changes_nothing_and_is_named() {
    let mut refused = 0;
    histories(12, |history| {
        let mut generator = FactGen::new(history.rng.bits());
        let image = history.last().clone();
        for _ in 0..20 {
            let Some(fact) = generator.any(&image) else { continue };
            let reason = image.check(&fact);
            let batch = MetadataBatch { base: image.batch_no, facts: vec![fact.clone()] };
            match (image.apply(&batch, &batch.encode()), reason) {
                (Ok((new, _)), Ok(())) => assert_eq!(new.batch_no, image.batch_no.next()),
                (Err(ApplyError::Illegal { number: 0, name, reason, base }), Err(why)) => {
                    assert_eq!((name, reason, base), (fact.name(), why, image.batch_no));
                    refused += 1;
                }
                (outcome, reason) => panic!("seed {}: check says {reason:?}, apply {outcome:?}", history.seed),
            }
        }
        assert_eq!(&image, history.last(), "nothing half-applied");
    });
    assert!(refused > 500, "the generator makes illegal facts too: {refused}");
}

#[test]
fn a_batch_decided_on_any_other_image_is_dropped() {
    histories(13, |history| {
        let other = BatchNo(history.rng.below(100) as u64);
        let image = history.last();
        let batch = MetadataBatch { base: other, facts: Vec::new() };
        match image.apply(&batch, &batch.encode()) {
            Err(error) => assert_eq!(error, ApplyError::Mismatch { base: other, at: image.batch_no }),
            Ok((new, delta)) => {
                assert_eq!(other, image.batch_no);
                assert!(delta.is_empty() && new.batch_no == other.next());
            }
        }
    });
}
