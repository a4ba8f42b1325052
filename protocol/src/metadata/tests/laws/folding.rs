//! Folding: snapshots, cuts, drafts, bytes.

use super::{histories, same_content};
use crate::metadata::batch::MetadataBatch;
use crate::metadata::delta::Delta;
use crate::metadata::draft::Draft;
use crate::metadata::image::MetadataImage;
use crate::metadata::record::Fact;
use crate::metadata::snapshot::{decode, encode, image_hash, records};
use crate::testing::applied;

#[test]
fn a_snapshot_folds_to_the_image_it_was_made_of_wherever_its_bytes_are_cut() {
    histories(0, |history| {
        let place = history.rng.below(history.images.len());
        let image = history.images[place].clone();
        let bytes = encode(&image).concat();
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(1 + history.rng.below(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        let read = decode(pieces).expect("own bytes");
        assert_eq!(read, image, "seed {}", history.seed);
        assert_eq!(image_hash(&read), image_hash(&image));
        assert!(records(&read).eq(records(&image)));
    });
}

#[test]
fn images_that_differ_hash_apart_and_equal_ones_together() {
    histories(1, |history| {
        let place = history.rng.below(history.images.len().saturating_sub(1));
        for pair in history.images[place..].windows(2).take(6) {
            let equal = same_content(&pair[0], &pair[1]);
            assert_eq!(image_hash(&pair[0]) == image_hash(&pair[1]), equal, "seed {}", history.seed);
        }
    });
}

#[test]
fn any_cut_into_batches_folds_to_the_same_image_and_touches_the_same() {
    histories(2, |history| {
        let (mut image, mut delta, mut rest) = (MetadataImage::default(), Delta::default(), &history.facts[..]);
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(history.rng.below(rest.len() + 1));
            let (next, touched) = applied(&image, batch);
            assert_eq!(next.batch_no, image.batch_no.next(), "an empty batch counts too");
            delta.merge(touched);
            (image, rest) = (next, behind);
        }
        let (whole, at_once) = applied(&MetadataImage::default(), &history.facts);
        assert!(same_content(&image, &whole) && same_content(&image, history.last()), "seed {}", history.seed);
        assert_eq!(delta, at_once, "seed {}", history.seed);
    });
}

#[test]
fn a_draft_says_what_apply_will_say() {
    histories(3, |history| {
        let from = history.rng.below(history.images.len());
        let mut draft = Draft::new(history.images[from].clone());
        for fact in &history.facts[from..] {
            draft.push(fact.clone());
            let undone: Result<(), ()> = draft.attempt(|d| {
                if d.state().check(fact).is_ok() {
                    d.push(fact.clone());
                }
                Err(())
            });
            assert_eq!(undone, Err(()));
        }
        assert!(same_content(draft.state(), history.last()), "seed {}", history.seed);
        assert_eq!(draft.facts(), &history.facts[from..]);
    });
}

#[test]
fn batches_read_back_and_know_their_length_and_their_chain() {
    histories(4, |history| {
        let base = history.last().batch_no;
        let batch = MetadataBatch { base, facts: history.facts.clone() };
        let bytes = batch.encode();
        assert_eq!(MetadataBatch::decode(&bytes).as_ref(), Ok(&batch), "seed {}", history.seed);
        assert_eq!(batch.encoded_len(), bytes.len(), "seed {}", history.seed);
        let facts: usize = history.facts.iter().map(Fact::encoded_len).sum();
        assert!(bytes.len() - facts <= 20);
        let hashes: std::collections::BTreeSet<u64> = history.images.iter().map(|i| i.chain_hash).collect();
        assert_eq!(hashes.len(), history.images.len(), "every batch moves the chain");
    });
}
