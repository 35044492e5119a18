//! Policy files.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde::de::DeserializeOwned;

use crate::values;

/// Reads a policy's configuration from a TOML file.
pub fn read<C: DeserializeOwned>(path: &Path) -> anyhow::Result<C> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the policy file {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        anyhow!(
            "the policy file {}, {}",
            path.display(),
            values::toml_error(&text, &error)
        )
    })
}
