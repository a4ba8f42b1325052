//! The process's metrics recorder: what the nodes' `metrics` macros write to, rendered in Prometheus' text format.
//!
//! Owns the recorder and the histogram buckets; the nodes own the names and serve the page.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::sync::Arc;
use std::time::Duration;

/// Renders the metrics page.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Upper bounds of latency histograms, in seconds: from a page-cache append (0.2 ms) to a lost node (seconds).
const SECONDS_BUCKETS: [f64; 16] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 10.0, 30.0];

/// How often finished samples are folded into the histograms, so that they do not pile up while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder of this process.
///
/// # Errors
/// When the process has a recorder already.
pub fn install() -> Result<Render, String> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .map_err(|error| error.to_string())?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        })
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(move || handle.render()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_counted_is_rendered() {
        let render = super::install().expect("no other test of this crate installs one");
        metrics::counter!("seawall_test_total").increment(2);
        metrics::histogram!("seawall_test_seconds").record(0.003);
        let page = render();
        assert!(page.contains("seawall_test_total 2"), "{page}");
        assert!(page.contains("seawall_test_seconds_bucket{le=\"0.005\"} 1"), "{page}");
    }
}
