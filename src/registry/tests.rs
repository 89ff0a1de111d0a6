use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::Code;
use crate::memory::{ByteRange, Location, MemoryKind};

fn range(start: u64, length_bytes: u64) -> ByteRange {
    ByteRange::new(start, length_bytes).unwrap()
}

fn insert(registry: &Registry, start: u64, length_bytes: u64) -> crate::error::Result<Arc<Region>> {
    registry.insert(range(start, length_bytes), Location::Cpu(Some(0)), MemoryKind::Host)
}

fn host(start: u64, length_bytes: u64) -> (ByteRange, Location, MemoryKind) {
    (range(start, length_bytes), Location::Any, MemoryKind::Host)
}

#[test]
fn codes_are_upstreams() {
    let registry = Registry::new();
    insert(&registry, 0x1000, 0x1000).unwrap();
    assert_eq!(insert(&registry, 0x3000, 0).unwrap_err().code().negative(), -1);
    for (start, length_bytes) in [(0x1000, 0x1000), (0x1fff, 2), (0xfff, 2), (0x1400, 1), (0, 0x10000)] {
        assert_eq!(insert(&registry, start, length_bytes).unwrap_err().code().negative(), -7);
    }
    assert_eq!(registry.remove(0x1001).unwrap_err().code().negative(), -3);
    insert(&registry, 0x2000, 1).unwrap(); // neighbours are accepted
    insert(&registry, 0xfff, 1).unwrap();
}

#[test]
fn a_list_is_taken_whole_or_not_at_all() {
    let registry = Registry::new();
    insert(&registry, 100, 10).unwrap();
    let epoch = registry.epoch();
    for list in
        [vec![host(0, 10), host(5, 10)], vec![host(0, 10), host(95, 10)], vec![host(0, 10), host(50, 0)]]
    {
        assert!(registry.reserve(&list).is_err());
        assert_eq!((registry.len(), registry.epoch()), (1, epoch));
    }
    let regions = registry.reserve(&[host(50, 10), host(0, 10)]).unwrap().commit();
    assert_eq!(regions.len(), 2);
    assert_eq!(registry.epoch(), epoch + 1);
    assert!(registry.reserve(&[]).unwrap().commit().is_empty());
    assert_eq!(registry.epoch(), epoch + 1);
}

#[test]
fn a_reserved_range_is_taken_but_not_usable() {
    let registry = Registry::new();
    let registration = registry.reserve(&[host(0, 10)]).unwrap();
    assert!(registry.find_containing(range(0, 1)).is_none());
    assert!(registry.resolver().resolve(range(0, 1)).is_none());
    assert!(registration.regions()[0].pin().is_none());
    assert_eq!(registry.snapshot().1.len(), 0);
    assert_eq!(insert(&registry, 5, 1).unwrap_err().code(), Code::AddressOverlapped);
    assert_eq!(registry.remove(0).unwrap_err().code(), Code::Busy);
    drop(registration); // taken back
    insert(&registry, 5, 1).unwrap();
}

#[test]
fn a_range_in_flight_is_busy() {
    let registry = Registry::new();
    let region = insert(&registry, 0, 10).unwrap();
    let pin = region.pin().unwrap();
    let second = pin.clone();
    drop(pin);
    assert_eq!(region.in_flight(), 1);
    let error = registry.remove(0).unwrap_err();
    assert_eq!((error.code().negative(), error.record().range), (-4, Some((0, 10))));
    assert!(region.pin().is_some(), "a refused removal changes nothing");
    drop(second);
    assert!(Arc::ptr_eq(&registry.remove(0).unwrap(), &region));
    assert!(region.pin().is_none());
    assert_eq!(registry.remove(0).unwrap_err().code(), Code::AddressNotRegistered);
}

#[test]
fn a_removal_can_be_given_up() {
    let registry = Registry::new();
    let region = insert(&registry, 0, 10).unwrap();
    let epoch = registry.epoch();
    let removal = registry.begin_remove(0).unwrap();
    assert!(registry.find_containing(range(0, 10)).is_none());
    assert_eq!(registry.begin_remove(0).unwrap_err().code(), Code::Busy);
    drop(removal);
    assert!(region.pin().is_some());
    // Whoever was told of the removal must be able to tell that the range is there again.
    assert_eq!(registry.epoch(), epoch + 1);
    registry.begin_remove(0).unwrap().commit();
    assert_eq!((registry.len(), registry.epoch()), (0, epoch + 2));
}

#[test]
fn a_snapshot_keeps_the_order_of_registration() {
    let registry = Registry::new();
    for start in [300, 100, 200] {
        insert(&registry, start, 10).unwrap();
    }
    registry.remove(100).unwrap();
    insert(&registry, 50, 10).unwrap();
    let (epoch, regions) = registry.snapshot();
    let starts: Vec<_> = regions.iter().map(|region| region.range().start()).collect();
    assert_eq!((epoch, starts), (5, vec![300, 200, 50]));
}

#[test]
fn a_resolver_pins_each_region_once() {
    let registry = Registry::new();
    for start in 0..200 {
        insert(&registry, start * 100, 50).unwrap();
    }
    let mut resolver = registry.resolver();
    for turn in 0..1000u64 {
        let found = resolver.resolve(range(turn * 7 % 200 * 100 + 10, 40)).unwrap();
        assert_eq!(found.range().start(), turn * 7 % 200 * 100);
    }
    assert!(resolver.resolve(range(60, 10)).is_none());
    assert!(resolver.resolve(range(40, 20)).is_none());
    let pins = resolver.into_pins();
    assert_eq!(pins.len(), 200);
    assert!(pins.iter().all(|pin| pin.region().in_flight() == 1));
    assert_eq!(registry.remove(700).unwrap_err().code(), Code::Busy);
    drop(pins);
    registry.remove(700).unwrap();
}

#[test]
fn threads_pin_and_remove_without_harm() {
    let registry = Registry::new();
    // An interpreter takes a thousand times as long.
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let registry = &registry;
            scope.spawn(move || {
                for _ in 0..rounds {
                    insert(registry, thread * 100, 100).unwrap();
                    while registry.remove(thread * 100).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for turn in 0..rounds {
                    let mut resolver = registry.resolver();
                    let found = resolver.resolve(range(turn % 2 * 100 + 5, 10)).cloned();
                    let pins = resolver.into_pins();
                    if let Some(region) = found {
                        assert_eq!(pins.len(), 1);
                        assert!(region.in_flight() >= 1 && region.is_open());
                        assert_eq!(registry.remove(region.range().start()).unwrap_err().code(), Code::Busy);
                    }
                }
            });
        }
    });
    assert!(registry.is_empty());
    assert_eq!(registry.epoch(), 2 * 2 * rounds);
}

proptest! {
    /// The registry agrees with a list of ranges that is searched by hand.
    #[test]
    fn agrees_with_a_list(steps in prop::collection::vec((0u64..200, 0u64..30, 0u8..3), 1..60)) {
        let registry = Registry::new();
        let mut list: BTreeMap<u64, ByteRange> = BTreeMap::new();
        for (start, length_bytes, what) in steps {
            let wanted = range(start, length_bytes);
            match what {
                0 => {
                    let done = insert(&registry, start, length_bytes);
                    if wanted.is_empty() {
                        prop_assert_eq!(done.unwrap_err().code(), Code::InvalidArgument);
                    } else if list.values().any(|other| other.overlaps(wanted)) {
                        prop_assert_eq!(done.unwrap_err().code(), Code::AddressOverlapped);
                    } else {
                        prop_assert!(done.is_ok());
                        list.insert(start, wanted);
                    }
                }
                1 => prop_assert_eq!(registry.remove(start).is_ok(), list.remove(&start).is_some()),
                _ => {
                    let found = registry.find_containing(wanted).map(|region| region.range());
                    let expected: Vec<_> = list.values().filter(|other| other.contains(wanted)).collect();
                    match found {
                        Some(found) => prop_assert!(expected.contains(&&found)),
                        // An empty range at the end of a region may be said to lie in it or not.
                        None => prop_assert!(expected.is_empty() || wanted.is_empty()),
                    }
                    let pinned = registry.resolver().resolve(wanted).map(|region| region.range());
                    prop_assert_eq!(pinned, found);
                }
            }
            prop_assert_eq!(registry.len(), list.len());
        }
    }
}
