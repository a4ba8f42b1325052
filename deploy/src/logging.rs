//! Where a process's own words go: `tracing` to stderr, as text or JSON lines.
//!
//! Owns the subscriber, installed once by the binary. Libraries only emit; data never goes here.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Why logging cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggingError {
    /// Not a format.
    #[error("config log.format is {0:?}, allowed: text, json")]
    Format(String),
    /// Not a filter.
    #[error("config log.level is {value:?}, allowed: error, warn, info, debug, trace, or target=level pairs ({why})")]
    Level {
        /// As written.
        value: String,
        /// What the parser said.
        why: String,
    },
}

/// Checks the two settings; None = default.
///
/// # Errors
/// [`LoggingError`].
pub fn settings(format: Option<&str>, level: Option<&str>) -> Result<(Format, EnvFilter), LoggingError> {
    let format = match format.unwrap_or("text") {
        "text" => Format::Text,
        "json" => Format::Json,
        other => return Err(LoggingError::Format(other.to_owned())),
    };
    let level = level.unwrap_or("info");
    let filter = EnvFilter::try_new(quieted(level))
        .map_err(|error| LoggingError::Level { value: level.to_owned(), why: error.to_string() })?;
    // The parser takes any single word for a target's name, so that a misspelt level would silence everything.
    let lone = !level.contains(['=', ',', ':']);
    if lone && !["off", "error", "warn", "info", "debug", "trace"].contains(&level.to_lowercase().as_str()) {
        return Err(LoggingError::Level { value: level.to_owned(), why: "not a level".to_owned() });
    }
    Ok((format, filter))
}

/// The consensus library warns at every attempt to reach a peer that is down; the controller says it once. Whoever asks for
/// details, or names the library, is given what it says.
fn quieted(level: &str) -> String {
    let plain = ["info", "warn"].contains(&level.to_lowercase().as_str());
    if plain { format!("{level},openraft=error") } else { level.to_owned() }
}

/// Installs the subscriber. A second call in one process changes nothing.
pub fn install(format: Format, filter: EnvFilter) {
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        Format::Text => base.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => base.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_what_is_allowed() {
        assert!(settings(None, None).is_ok());
        assert!(settings(Some("json"), Some("warn,broker=debug")).is_ok());
        assert_eq!(settings(Some("xml"), None).err(), Some(LoggingError::Format("xml".to_owned())));
        assert!(matches!(settings(None, Some("loud")), Err(LoggingError::Level { .. })));
        assert!(matches!(settings(None, Some("broker=loud")), Err(LoggingError::Level { .. })));
    }

    #[test]
    fn the_consensus_library_is_quiet_unless_it_is_asked() {
        let filter = |level| settings(None, level).expect("a filter").1.to_string();
        for quiet in [None, Some("info"), Some("WARN")] {
            assert!(filter(quiet).contains("openraft=error"), "{quiet:?}: {}", filter(quiet));
        }
        for asked in ["debug", "trace", "info,openraft=info", "error"] {
            assert!(!filter(Some(asked)).contains("openraft=error"), "{asked}");
        }
    }
}
