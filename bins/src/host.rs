//! What this machine calls itself.

use std::str::FromStr;

use anyhow::{Context as _, anyhow};

/// The id that was given, or the host name.
pub fn id<I>(given: Option<&str>) -> anyhow::Result<I>
where
    I: FromStr,
    I::Err: std::error::Error + Send + Sync + 'static,
{
    if let Some(id) = given {
        return id.parse().with_context(|| format!("--id {id:?}"));
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host name; give --id")?;
    let host = host.trim();
    host.parse()
        .map_err(|error| anyhow!("the host name {host:?} cannot be the id: {error}; give --id"))
}

#[cfg(test)]
mod tests {
    use tunnel_core::{AgentId, ServerId};

    use super::*;

    #[test]
    fn a_given_id_is_checked() {
        assert_eq!(id::<ServerId>(Some("gw-1")).unwrap().as_str(), "gw-1");
        let error = format!("{:#}", id::<AgentId>(Some("no spaces")).unwrap_err());
        assert!(
            error.contains("\"no spaces\"") && error.contains("letters, digits"),
            "{error}"
        );
    }
}
