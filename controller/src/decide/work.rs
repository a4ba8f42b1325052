//! Level-triggered work.

/// Where sweeps stand.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkMemo {}
