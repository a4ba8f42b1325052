//! From files, environment and arguments to one flat map of dotted keys.
//!
//! Owns the layering: file, then `SEAWALL_<UPPER_SNAKE>` (dots written as `_`), then `-X key=value`; the later wins.
//! Knows no key: the roles' own `RawConfig::from_flat` refuses unknown ones, so that a typing mistake in any layer is
//! an error. Invariant: a value keeps the name of the layer it came from until it is checked, so errors can say where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Prefix of the environment variables that set configuration keys.
pub const ENV_PREFIX: &str = "SEAWALL_";

/// Variables with the prefix that are not node configuration: they belong to the command line client.
pub const ENV_RESERVED: [&str; 2] = ["SEAWALL_BOOTSTRAP", "SEAWALL_OUTPUT"];

/// Why the layers cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {error}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: toml::de::Error,
    },
    /// A value of a kind that no key takes.
    #[error("{}: config {key} is {value}, allowed: text, number, true/false, or a list of those", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The dotted key.
        key: String,
        /// As written.
        value: String,
    },
    /// A key written twice in one file, dotted and as a table.
    #[error("{}: config {key} is written twice", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The dotted key.
        key: String,
    },
    /// An override without `=`.
    #[error("-X {value:?}, allowed: key=value")]
    Override {
        /// As written.
        value: String,
    },
}

/// A flat configuration and where each value came from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Layered {
    /// Dotted key → value as text; lists are comma separated.
    pub values: BTreeMap<String, String>,
    /// Dotted key → the layer that won: a file name, a variable, or `-X`.
    pub origins: BTreeMap<String, String>,
}

impl Layered {
    fn set(&mut self, key: String, value: String, origin: String) {
        self.origins.insert(key.clone(), origin);
        self.values.insert(key, value);
    }

    /// Takes a key out of the map, for keys the binary itself acts on.
    pub fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    /// Where the first key that an error text mentions was set: ` (key is set by ...)`, or nothing.
    pub fn blame(&self, text: &str) -> String {
        let mut words = text.split([' ', ',', ':', ';', '"']);
        match words.find_map(|word| self.origins.get_key_value(word)) {
            Some((key, origin)) => format!(" ({key} is set by {origin})"),
            None => String::new(),
        }
    }
}

/// Reads the three layers.
///
/// # Errors
/// [`LayerError`], naming the file, key and value.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[String],
) -> Result<Layered, LayerError> {
    let mut layered = Layered::default();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| LayerError::Unreadable { path: path.to_path_buf(), error })?;
        read_file(path, &text, &mut layered)?;
    }
    for (name, value) in environment {
        if let Some(rest) = name.strip_prefix(ENV_PREFIX)
            && !ENV_RESERVED.contains(&name.as_str())
        {
            let key = rest.to_lowercase().replace('_', ".");
            layered.set(key, value, format!("the environment variable {name}"));
        }
    }
    for pair in overrides {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(LayerError::Override { value: pair.clone() });
        };
        layered.set(key.trim().to_owned(), value.trim().to_owned(), "-X".to_owned());
    }
    Ok(layered)
}

/// Reads the text of a file, as [`load`] does; `path` is what errors name.
///
/// # Errors
/// [`LayerError`].
pub fn parse(path: &Path, text: &str) -> Result<Layered, LayerError> {
    let mut layered = Layered::default();
    read_file(path, text, &mut layered)?;
    Ok(layered)
}

fn read_file(path: &Path, text: &str, layered: &mut Layered) -> Result<(), LayerError> {
    let table: toml::Table =
        toml::from_str(text).map_err(|error| LayerError::NotToml { path: path.to_path_buf(), error })?;
    flatten(path, "", &table, layered)
}

fn flatten(path: &Path, prefix: &str, table: &toml::Table, layered: &mut Layered) -> Result<(), LayerError> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if let toml::Value::Table(inner) = value {
            flatten(path, &key, inner, layered)?;
            continue;
        }
        let text = as_text(value).ok_or_else(|| LayerError::Kind {
            path: path.to_path_buf(),
            key: key.clone(),
            value: value.to_string(),
        })?;
        if layered.values.contains_key(&key) {
            return Err(LayerError::Twice { path: path.to_path_buf(), key });
        }
        layered.set(key, text, path.display().to_string());
    }
    Ok(())
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| if item.is_array() { None } else { as_text(item) }).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(text: &str, env: &[(&str, &str)], overrides: &[&str]) -> Result<Layered, LayerError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("node.toml");
        std::fs::write(&path, text).expect("writable");
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&path), env, &overrides.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_later_layer_wins_and_is_remembered() {
        let text = "\"node.id\" = 1\n\"data.dir\" = \"a\"\nshards = 2\n";
        let layered =
            layers(text, &[("SEAWALL_DATA_DIR", "b"), ("SEAWALL_NODE_ID", "7")], &["node.id=9"]).expect("good");
        assert_eq!(layered.values["node.id"], "9");
        assert_eq!(layered.values["data.dir"], "b");
        assert_eq!(layered.values["shards"], "2");
        assert!(layered.blame("config data.dir is \"b\"").contains("SEAWALL_DATA_DIR"));
        assert_eq!(layered.blame("nothing of ours"), "");
    }

    #[test]
    fn tables_flatten_to_the_same_dotted_names() {
        let dotted = layers("\"client.listen\" = \"x:1\"\ncontrollers = [\"a:1\", \"b:2\"]\n", &[], &[]).expect("good");
        let nested = layers("controllers = [\"a:1\", \"b:2\"]\n[client]\nlisten = \"x:1\"\n", &[], &[]).expect("good");
        assert_eq!(dotted.values, nested.values);
        assert_eq!(dotted.values["controllers"], "a:1,b:2");
    }

    #[test]
    fn the_client_variables_are_not_node_configuration() {
        let layered = layers("", &[("SEAWALL_BOOTSTRAP", "x:1"), ("PATH", "y")], &[]).expect("good");
        assert!(layered.values.is_empty());
    }

    #[test]
    fn errors_name_the_place_and_what_is_allowed() {
        let twice = layers("\"a.b\" = 1\n[a]\nb = 2\n", &[], &[]).expect_err("written twice").to_string();
        assert!(twice.contains("a.b") && twice.contains("node.toml"), "{twice}");
        let kind = layers("a = 2026-01-01\n", &[], &[]).expect_err("no key takes a date").to_string();
        assert!(kind.contains("config a is 2026-01-01, allowed:"), "{kind}");
        assert!(matches!(layers("a = [", &[], &[]), Err(LayerError::NotToml { .. })));
        assert!(matches!(layers("", &[], &["novalue"]), Err(LayerError::Override { .. })));
        let missing = load(Some(Path::new("nowhere/node.toml")), [], &[]);
        assert!(matches!(missing, Err(LayerError::Unreadable { .. })));
    }
}
