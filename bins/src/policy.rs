//! Policy files.

use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Reads a policy's configuration from a TOML file.
pub fn read<C: DeserializeOwned>(path: &Path) -> anyhow::Result<C> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the policy file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("the policy file {} does not make sense", path.display()))
}
