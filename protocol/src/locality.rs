//! Where a node stands: `region/dc/rack`. Placement and the durability rule count distinct data centres.

pub use crate::limits::LOCALITY_PART_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A path of three parts. Two nodes share a data centre when region and dc are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Locality {
    /// Region, for example `eu`.
    pub region: String,
    /// Data centre within the region.
    pub dc: String,
    /// Rack within the data centre.
    pub rack: String,
}

/// Why a text is not a locality.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "locality {value:?} is not region/dc/rack: three parts of 1 to {LOCALITY_PART_MAX} characters out of a-z A-Z 0-9 . _ -"
)]
pub struct LocalityError {
    /// The text as given.
    pub value: String,
}

impl Locality {
    /// Region and data centre: what `min.insync.dcs` counts.
    #[must_use]
    pub fn data_centre(&self) -> (&str, &str) {
        (&self.region, &self.dc)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.dc, self.rack)
    }
}

impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(value: &str) -> Result<Self, LocalityError> {
        let error = || LocalityError { value: value.to_owned() };
        let legal = |part: &&str| {
            !part.is_empty()
                && part.len() <= LOCALITY_PART_MAX
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = value.split('/').collect();
        match parts.as_slice() {
            [region, dc, rack] if [region, dc, rack].into_iter().all(legal) => {
                Ok(Self { region: (*region).to_owned(), dc: (*dc).to_owned(), rack: (*rack).to_owned() })
            }
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_the_same_path() {
        let locality: Locality = "eu/dc1/r-1".parse().expect("a legal path");
        assert_eq!(locality.to_string(), "eu/dc1/r-1");
        assert_eq!(locality.data_centre(), ("eu", "dc1"));
    }

    #[test]
    fn refuses_what_is_not_three_legal_parts() {
        for bad in ["", "a", "a/b", "a/b/", "a/b/c/d", "a/b c/d", "a/../c\0"] {
            assert!(bad.parse::<Locality>().is_err(), "{bad:?}");
        }
    }
}
