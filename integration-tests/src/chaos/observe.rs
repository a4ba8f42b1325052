//! How often the rare things happened: counters of all processes, added up over their lives.
//!
//! Owns the adding up. A counter dies with its process, so pages are read again and again, and what a life had counted
//! when it was last seen stays in the sum: the sum is a lower bound, which is what evidence needs to be.

use deploy::dev::layout::NodeName;
use std::collections::BTreeMap;

/// Sums of counters over all lives of all nodes.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    seen: BTreeMap<(NodeName, i32, String), f64>,
}

impl Counters {
    /// A page of the process `pid` of a node. Series that differ only in labels are added.
    pub fn page(&mut self, node: NodeName, pid: i32, page: &str) {
        for (name, value) in totals(page) {
            let seen = self.seen.entry((node, pid, name)).or_insert(0.0);
            *seen = seen.max(value);
        }
    }

    /// The sum of a counter over everything seen.
    pub fn sum(&self, name: &str) -> f64 {
        self.seen.iter().filter(|((_, _, seen), _)| seen == name).map(|(_, value)| value).sum()
    }

    /// How many processes were seen.
    pub fn lives(&self) -> usize {
        let mut lives: Vec<(NodeName, i32)> = self.seen.keys().map(|(node, pid, _)| (*node, *pid)).collect();
        lives.dedup();
        lives.len()
    }

    /// Every counter seen, with its sum.
    pub fn all(&self) -> BTreeMap<String, f64> {
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for ((_, _, name), value) in &self.seen {
            *sums.entry(name.clone()).or_default() += value;
        }
        sums
    }
}

/// Series of a Prometheus text page that end in `_total`, summed over labels.
pub fn totals(page: &str) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or_default();
        if let (true, Ok(value)) = (name.ends_with("_total"), value.parse::<f64>()) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_ended_stays_in_the_sum() {
        let mut counters = Counters::default();
        let node = NodeName::broker(1);
        counters.page(node, 10, "# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 1\nb 9\n");
        counters.page(node, 10, "a_total{x=\"1\"} 4\n");
        counters.page(node, 11, "a_total 5\n");
        assert!((counters.sum("a_total") - 9.0).abs() < f64::EPSILON);
        assert_eq!((counters.lives(), counters.all().len()), (2, 1));
    }
}
