//! The proxies that a server dials itself.

use std::{collections::BTreeSet, fmt, num::NonZeroU32, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use tunnel_core::{AgentConfig, AgentId, Carrier, Claim, Generation, HostPort};
use tunnel_tls::ClientTls;

use super::Scheme;
use crate::{
    carriers::{Settings, forward},
    cli::ServerArgs,
    tls, url,
};

/// The largest number of connections with an upstream, as of an agent with a server.
const MOST: u32 = AgentConfig::MAX_CONNECTIONS;

/// An `--upstream` that was understood.
#[derive(Clone, Debug)]
pub struct UpstreamSpec {
    /// How it is spoken.
    pub scheme: Scheme,
    /// Where it is.
    pub proxy: HostPort,
    /// Its name and labels.
    pub claim: Claim,
    /// What is said of this side in every request.
    pub baggage: Option<String>,
    /// The SPIFFE IDs of which the proxy's certificate must hold one.
    pub spiffe: Vec<String>,
    /// The name that the proxy's certificate must hold, if it is not the host of the URL.
    pub server_name: Option<String>,
    /// How many connections are kept with it.
    pub connections: NonZeroU32,
}

/// An upstream that is ready to be dialled.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name and labels.
    pub claim: Claim,
    /// What dials it.
    pub carrier: Arc<dyn Carrier>,
    /// How many connections are kept with it.
    pub connections: NonZeroU32,
    /// What it is verified by, where there is TLS.
    pub tls: Option<ClientTls>,
}

impl UpstreamSpec {
    /// Understands all of them and loads what verifies them; nothing is dialled yet.
    pub fn ready_all(args: &ServerArgs, settings: &Settings) -> anyhow::Result<Vec<Upstream>> {
        let mut names = BTreeSet::new();
        let mut ready = Vec::with_capacity(args.upstream.len());
        for upstream in &args.upstream {
            let spec = Self::parse(upstream).with_context(|| format!("--upstream {}", shown(upstream)))?;
            let name = spec.claim.agent.clone();
            if !names.insert(name.clone()) {
                bail!("there are two upstreams named {name}; give each --upstream a name of its own");
            }
            ready.push(spec.ready(args, settings)?);
        }
        Ok(ready)
    }

    fn ready(&self, args: &ServerArgs, settings: &Settings) -> anyhow::Result<Upstream> {
        let tls = self.scheme.is_secure().then(|| tls::for_upstream(args, self));
        let tls = tls.transpose()?;
        let carrier = forward::carrier(self, tls.as_ref(), settings);
        Ok(Upstream {
            claim: self.claim.clone(),
            carrier: carrier.with_context(|| format!("cannot dial {self}"))?,
            connections: self.connections,
            tls,
        })
    }

    /// `NAME=SCHEME://HOST[:PORT][?label=NAME=VALUE&…]`.
    fn parse(upstream: &str) -> anyhow::Result<Self> {
        let Some((name, target)) = upstream.split_once('=').filter(|(name, _)| !name.contains("://")) else {
            bail!("is not NAME=URL, as in site-a=h2://proxy.example");
        };
        let name: AgentId = name.parse().with_context(|| format!("the name {name:?}"))?;
        let (scheme, rest) = url::split(target)?;
        let scheme = Scheme::of_url("--upstream", scheme)?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut spec = Self {
            scheme,
            proxy: authority_of(scheme, target, authority)?,
            claim: Claim::new(name, Generation(1)),
            baggage: None,
            spiffe: Vec::new(),
            server_name: None,
            connections: NonZeroU32::MIN,
        };
        for (key, value) in url::query(query)? {
            spec.set(&key, value)?;
        }
        if scheme.is_hbone() && spec.spiffe.is_empty() {
            bail!(
                "hbone:// goes by SPIFFE IDs: say which the proxy has, as in ?spiffe=spiffe://cluster.local/ns/x/sa/y, or \
                 ?spiffe=spiffe://cluster.local for a whole trust domain"
            );
        }
        Ok(spec)
    }

    fn set(&mut self, key: &str, value: String) -> anyhow::Result<()> {
        let needs_tls = matches!(key, "spiffe" | "server-name");
        if needs_tls && !self.scheme.is_secure() {
            bail!("{key} is about a certificate, and h2c:// has none");
        }
        match key {
            "label" => {
                let labels = &mut self.claim.labels;
                let fits = value
                    .split_once('=')
                    .is_some_and(|(name, value)| labels.insert(name, value));
                if !fits {
                    bail!("label={value} is not NAME=VALUE in visible ASCII, or there are too many");
                }
            }
            "spiffe" => self.spiffe.push(value),
            "server-name" => self.server_name = Some(value),
            "baggage" => self.baggage = Some(value),
            "connections" => {
                let number = value.parse().ok().filter(|number: &NonZeroU32| number.get() <= MOST);
                let Some(number) = number else {
                    bail!("connections={value} is not a number from 1 to {MOST}");
                };
                self.connections = number;
            }
            _ => {
                bail!("has an unknown parameter {key:?}; there is label, spiffe, server-name, baggage and connections")
            }
        }
        Ok(())
    }
}

/// What an error may say of an upstream: not the whole, in which there may be a password.
fn shown(upstream: &str) -> &str {
    upstream.split(['=', ':']).next().unwrap_or_default()
}

fn authority_of(scheme: Scheme, url: &str, authority: &str) -> anyhow::Result<HostPort> {
    match scheme.port() {
        Some(port) => url::dial_authority(url, authority, port),
        None if authority.contains('@') => url::dial_authority(url, authority, 0),
        None => authority
            .strip_suffix('/')
            .unwrap_or(authority)
            .parse()
            .map_err(|_| anyhow!("{url:?} does not name a host and a port, as in h2c://127.0.0.1:8080")),
    }
}

impl fmt::Display for UpstreamSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}://{}", self.claim.agent, self.scheme, self.proxy)
    }
}

#[cfg(all(test, feature = "h2"))]
mod tests {
    use super::*;

    fn parsed(upstream: &str) -> String {
        match UpstreamSpec::parse(upstream) {
            Ok(spec) => format!("{spec} {:?} {:?} {:?}", spec.spiffe, spec.server_name, spec.baggage),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn what_an_upstream_leaves_out_is_filled_in() {
        for (upstream, meaning) in [
            ("a=h2://proxy.example", "a=h2://proxy.example:443 [] None None"),
            ("a=h2://[2001:db8::7]:8443/", "a=h2://[2001:db8::7]:8443 [] None None"),
            ("a=h2c://127.0.0.1:8080", "a=h2c://127.0.0.1:8080 [] None None"),
            (
                "a=hbone://10.0.0.7?spiffe=spiffe://td/ns/x&spiffe=spiffe://other&baggage=a%3Db%2Cc%3Dd",
                "a=hbone://10.0.0.7:15008 [\"spiffe://td/ns/x\", \"spiffe://other\"] None Some(\"a=b,c=d\")",
            ),
            (
                "a=h2://10.0.0.7?server-name=proxy.example",
                "a=h2://10.0.0.7:443 [] Some(\"proxy.example\") None",
            ),
        ] {
            assert_eq!(parsed(upstream), meaning);
        }
        let spec = UpstreamSpec::parse("a=h2://p?label=zone=a&label=tier=1").unwrap();
        assert_eq!(spec.connections.get(), 1);
        let several = UpstreamSpec::parse("a=h2://p?connections=4").unwrap();
        assert_eq!(several.connections.get(), 4);
        let mut labels: Vec<_> = spec.claim.labels.iter().collect();
        labels.sort();
        assert_eq!(labels, [("tier", "1"), ("zone", "a")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (upstream, part) in [
            ("h2://proxy.example", "is not NAME=URL"),
            ("h2://p?label=a=b", "is not NAME=URL"),
            ("a b=h2://p", "the name \"a b\""),
            (
                "a=wss://p",
                "\"wss\" is nothing that --upstream knows; there is h2://, h2c://, hbone://",
            ),
            ("a=h2c://p", "does not name a host and a port"),
            ("a=h2://p/tunnel", "has a path"),
            ("a=hbone://p", "say which the proxy has"),
            ("a=h2c://p:1?spiffe=spiffe://td", "h2c:// has none"),
            ("a=h2://p?zone=a", "unknown parameter \"zone\""),
            ("a=h2://p?label=zone", "label=zone is not NAME=VALUE"),
            ("a=h2://p?connections=0", "connections=0 is not a number from 1 to 32"),
            ("a=h2://p?connections=33", "connections=33 is not a number from 1 to 32"),
            ("a=h2://p?label", "is not KEY=VALUE"),
            ("a=h2://p?baggage=%zz", "is not percent-encoded"),
        ] {
            let said = parsed(upstream);
            assert!(said.contains(part), "{upstream}: {said}");
        }
        for secret in ["a=h2c://me:hunter2@p:1", "a=h2://me:hunter2@p"] {
            assert!(!parsed(secret).contains("hunter2"), "{}", parsed(secret));
        }
    }
}
