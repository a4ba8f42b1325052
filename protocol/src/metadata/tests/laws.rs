//! The laws of the image over random legal histories (STYLE.md 3.5): each test draws its own, so that one run looks at
//! more than 10,000. `SEAWALL_SEED` moves all of them; a failure names the seed.

mod deltas;
mod folding;
mod invariants;
mod refusals;

use crate::metadata::image::MetadataImage;
use crate::metadata::record::Fact;
use crate::testing::{FactGen, Rng, applied};

/// Histories that each law looks at. With 14 laws over 10,000 in a run.
const HISTORIES: u64 = 900;
const LONGEST: usize = 100;

/// A history and the image after each of its facts; `images[0]` is empty.
struct History {
    seed: u64,
    facts: Vec<Fact>,
    images: Vec<MetadataImage>,
    rng: Rng,
}

impl History {
    fn last(&self) -> &MetadataImage {
        self.images.last().expect("the empty image is always there")
    }
}

/// Runs a law over its histories. `law` keeps the seeds of different laws apart.
fn histories(law: u64, mut check: impl FnMut(&mut History)) {
    let base = std::env::var("SEAWALL_SEED").ok().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
    for number in 0..HISTORIES {
        let seed = base.wrapping_mul(1_000_003).wrapping_add(law * HISTORIES + number);
        let mut generator = FactGen::new(seed);
        let mut history =
            History { seed, facts: Vec::new(), images: vec![MetadataImage::default()], rng: Rng::new(!seed) };
        for _ in 0..generator.rng.below(LONGEST) {
            let fact = generator.legal(history.last());
            let image = applied(history.last(), std::slice::from_ref(&fact)).0;
            history.facts.push(fact);
            history.images.push(image);
        }
        check(&mut history);
    }
}

/// What two images say, apart from how many batches led there.
fn same_content(a: &MetadataImage, b: &MetadataImage) -> bool {
    let b = MetadataImage { batch_no: a.batch_no, chain_hash: a.chain_hash, ..b.clone() };
    *a == b
}
