//! The failover bench's result: figures against promises, as table and JSON.

use super::scenario::{Figure, Scenario, Target};
use super::stats::Distribution;
use serde::Serialize;
use std::time::Duration;

/// One figure of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was broken.
    pub scenario: Scenario,
    /// What was measured.
    pub figure: Figure,
    /// How it came out.
    pub measured: Distribution,
    /// What is promised.
    pub target: Target,
    /// Whether the promise held.
    pub met: bool,
}

/// Everything measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Figures in the order measured.
    pub rows: Vec<Row>,
    /// Writes acknowledged during the bench.
    pub acknowledged: u64,
    /// Writes that failed for good during the bench.
    pub failed: u64,
}

impl Report {
    /// Adds a figure. Nothing is added when nothing was measured.
    pub fn add(&mut self, scenario: Scenario, figure: Figure, target: Target, times: &[Duration]) {
        let Some(measured) = Distribution::of(times) else { return };
        let within = |value: f64, bound: u32| value <= f64::from(bound);
        let met =
            within(measured.max_ms, target.max_ms) && target.p50_ms.is_none_or(|bound| within(measured.p50_ms, bound));
        self.rows.push(Row { scenario, figure, measured, target, met });
    }

    /// Whether every promise held.
    pub fn met(&self) -> bool {
        self.rows.iter().all(|row| row.met)
    }

    /// Columns for people.
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["SCENARIO", "MEASURED", "N", "MIN ms", "P50 ms", "P90 ms", "MAX ms", "PROMISED", ""]);
        for row in &self.rows {
            let promised = match row.target.p50_ms {
                Some(p50) => format!("p50 <= {p50}, max <= {}", row.target.max_ms),
                None => format!("max <= {}", row.target.max_ms),
            };
            let ms = |value: f64| format!("{value:.0}");
            table.add_row([
                row.scenario.name().to_owned(),
                row.figure.name().to_owned(),
                row.measured.count.to_string(),
                ms(row.measured.min_ms),
                ms(row.measured.p50_ms),
                ms(row.measured.p90_ms),
                ms(row.measured.max_ms),
                promised,
                (if row.met { "ok" } else { "MISSED" }).to_owned(),
            ]);
        }
        format!("{table}\n{} writes acknowledged, {} failed", self.acknowledged, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_promise_is_said() {
        let mut report = Report::default();
        let target = Target { p50_ms: Some(10), max_ms: 20 };
        let ms = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        report.add(Scenario::LeaderKill, Figure::NextWrite, target, &ms(&[5, 10, 20]));
        assert!(report.met());
        report.add(Scenario::LeaderKill, Figure::NextWrite, target, &ms(&[11, 12]));
        report.add(Scenario::LeaderKill, Figure::NextWrite, target, &ms(&[1, 2, 21]));
        report.add(Scenario::LeaderKill, Figure::NextWrite, target, &[]);
        assert_eq!(report.rows.iter().map(|row| row.met).collect::<Vec<_>>(), [true, false, false]);
        assert!(report.table().contains("MISSED"));
    }
}
