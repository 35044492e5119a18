//! Places for pending handshakes, shared out fairly.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A bounded number of places, of which no source gets all: it may hold half of those that are left, and never more
/// than its own limit. So whoever comes late, while one source has taken all that it can, still finds places.
#[derive(Debug)]
pub struct Places {
    total: u32,
    per_source: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: u32,
    by_source: HashMap<IpAddr, u32>,
}

/// A place that is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Total,
    /// The source has its share.
    Source,
}

impl Places {
    /// So many places, of which one source gets at most `per_source`.
    #[must_use]
    pub fn new(total: u32, per_source: u32) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_source,
            taken: Mutex::default(),
        })
    }

    /// Takes a place for a connection from this address. An IPv6 source is its /64 network, of which one machine can
    /// take any address.
    pub fn take(self: &Arc<Self>, addr: IpAddr) -> Result<Place, NoPlace> {
        let source = source(addr);
        let mut taken = self.taken();
        let free = self.total.saturating_sub(taken.total);
        if free == 0 {
            return Err(NoPlace::Total);
        }
        let share = self.per_source.min(free / 2).max(1);
        let held = taken.by_source.get(&source).copied().unwrap_or_default();
        if held >= share {
            return Err(NoPlace::Source);
        }
        taken.by_source.insert(source, held + 1);
        taken.total += 1;
        drop(taken);
        Ok(Place {
            places: Arc::clone(self),
            source,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total -= 1;
        if let Some(held) = taken.by_source.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 network of an IPv6 address, out of which one machine can
/// take any.
fn source(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let places = Places::new(10, 64);
        let mut held = Vec::new();
        while let Ok(place) = places.take(ip("192.0.2.1")) {
            held.push(place);
        }
        assert!(held.len() < 10);
        assert!(places.take(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn a_source_has_its_own_limit() {
        let places = Places::new(1024, 2);
        let _held = [
            places.take(ip("192.0.2.1")).unwrap(),
            places.take(ip("::ffff:192.0.2.1")).unwrap(),
        ];
        assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), NoPlace::Source);
        assert!(places.take(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one_source() {
        let places = Places::new(1024, 1);
        let _held = places.take(ip("2001:db8::1")).unwrap();
        assert_eq!(places.take(ip("2001:db8::2")).unwrap_err(), NoPlace::Source);
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_place_can_be_taken_again() {
        let places = Places::new(1, 1);
        let place = places.take(ip("192.0.2.1")).unwrap();
        assert_eq!(places.take(ip("192.0.2.2")).unwrap_err(), NoPlace::Total);
        drop(place);
        assert!(places.take(ip("192.0.2.2")).is_ok());
    }

    proptest! {
        /// `true` takes a place for a source, `false` gives the oldest back.
        #[test]
        fn the_books_always_balance(steps in vec((any::<bool>(), 0..5u8), 0..100), total in 1..12u32, each in 1..12u32) {
            let places = Places::new(total, each);
            let mut held = std::collections::VecDeque::new();
            for (take, source) in steps {
                if take {
                    held.extend(places.take(IpAddr::from([192, 0, 2, source])).ok());
                } else {
                    held.pop_front();
                }
                let taken = places.taken();
                prop_assert_eq!(taken.total as usize, held.len());
                prop_assert_eq!(taken.by_source.values().sum::<u32>(), taken.total);
                prop_assert!(taken.total <= total);
                prop_assert!(taken.by_source.values().all(|held| (1..=each).contains(held)));
            }
        }
    }
}
