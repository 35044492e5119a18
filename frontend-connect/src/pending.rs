//! Limits on dials that wait for their answer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use tunnel_core::Client;

/// Whose dials are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientKey {
    /// Whoever has proven to be this.
    Principal(String),
    /// Whoever comes from here. An IPv6 address stands for its /64, which one host may have whole.
    Ip(IpAddr),
    /// A user of this machine, on a Unix socket; `None` if the kernel does not tell which.
    User(Option<u32>),
}

impl ClientKey {
    pub(crate) fn of(client: &Client, user: Option<u32>) -> Self {
        if let Some(principal) = client.identity.principal() {
            return Self::Principal(principal);
        }
        match client.addr.map(|addr| addr.ip().to_canonical()) {
            Some(IpAddr::V6(ip)) => {
                let prefix = u128::from(ip) & (u128::MAX << 64);
                Self::Ip(Ipv6Addr::from(prefix).into())
            }
            Some(ip) => Self::Ip(ip),
            None => Self::User(user),
        }
    }
}

/// Counts the dials that wait for their answer.
#[derive(Debug)]
pub(crate) struct PendingDials {
    per_client: usize,
    total: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_client: HashMap<ClientKey, usize>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    OfClient,
    InAll,
}

impl PendingDials {
    pub(crate) fn new(per_client: usize, total: usize) -> Self {
        Self {
            per_client,
            total,
            counts: Mutex::default(),
        }
    }

    /// Counts one more until the guard is dropped, unless a limit is reached.
    pub(crate) fn begin(&self, client: ClientKey) -> Result<PendingDial<'_>, TooMany> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.by_client.get(&client).copied().unwrap_or_default() >= self.per_client {
            return Err(TooMany::OfClient);
        }
        if counts.total >= self.total {
            return Err(TooMany::InAll);
        }
        counts.total += 1;
        *counts.by_client.entry(client.clone()).or_default() += 1;
        Ok(PendingDial { dials: self, client })
    }
}

/// A dial that waits for its answer.
#[derive(Debug)]
pub(crate) struct PendingDial<'a> {
    dials: &'a PendingDials,
    client: ClientKey,
}

impl Drop for PendingDial<'_> {
    fn drop(&mut self) {
        let mut counts = self.dials.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(count) = counts.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_core::Identity;

    use super::*;

    fn user(id: u32) -> ClientKey {
        ClientKey::User(Some(id))
    }

    #[test]
    fn one_client_cannot_take_the_place_of_another() {
        let dials = PendingDials::new(2, 3);
        let first = dials.begin(user(1)).unwrap();
        let _second = dials.begin(user(1)).unwrap();
        assert_eq!(dials.begin(user(1)).unwrap_err(), TooMany::OfClient);
        let _third = dials.begin(user(2)).unwrap();
        assert_eq!(dials.begin(user(3)).unwrap_err(), TooMany::InAll);
        drop(first);
        let _fourth = dials.begin(user(1)).unwrap();
    }

    #[test]
    fn nothing_is_kept_of_clients_without_dials() {
        let dials = PendingDials::new(2, 3);
        drop(dials.begin(user(1)).unwrap());
        let counts = dials.counts.into_inner().unwrap();
        assert_eq!((counts.total, counts.by_client.len()), (0, 0));
    }

    #[test]
    fn a_client_is_its_principal_or_where_it_comes_from() {
        let at = |addr: &str| {
            ClientKey::of(
                &Client {
                    addr: Some(addr.parse().unwrap()),
                    ..Client::default()
                },
                None,
            )
        };
        assert_eq!(at("10.0.0.1:1"), at("10.0.0.1:2"));
        assert_eq!(at("10.0.0.1:1"), at("[::ffff:10.0.0.1]:2"));
        assert_ne!(at("10.0.0.1:1"), at("10.0.0.2:1"));
        assert_eq!(at("[2001:db8::1]:1"), at("[2001:db8::ffff:2]:1"));
        assert_ne!(at("[2001:db8::1]:1"), at("[2001:db8:0:1::1]:1"));
        let known = Client {
            identity: Identity::from_subject("dev"),
            addr: Some("10.0.0.1:1".parse().unwrap()),
        };
        assert_eq!(ClientKey::of(&known, None), ClientKey::Principal("token:dev".into()));
    }
}
