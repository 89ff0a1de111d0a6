//! Resources of the cost model: when each is free, and how long it was taken.
//!
//! A ledger is an open-addressed table of words: key, label, free-at, busy. The shared one lies on the board, so that
//! all processes of a namespace reserve from the same times; a process that has no board has a ledger of its own.
//! Reserving is one compare-and-swap; no lock is held.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::board;

/// Resources of a namespace; a device has at most nine, and each pair of A2 devices two more.
pub const RESOURCES: usize = 2048;
/// Key, label, free-at, busy.
pub const RESOURCE_WORDS: usize = 4;

/// What can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Launches of a device.
    Launch = 1,
    /// The engine that copies inside a device.
    CopyEngine = 2,
    /// Bytes from the host to a device.
    HostToDevice = 3,
    /// Bytes from a device to the host.
    DeviceToHost = 4,
    /// The way of a pair in one direction.
    HccsPair = 5,
    /// The way out of a device into the chips' interconnect.
    HccsOut = 6,
    /// The way in.
    HccsIn = 7,
    /// The way out of a device's RoCE port.
    RoceOut = 8,
    /// The way in.
    RoceIn = 9,
}

/// All kinds, with what people call them.
pub const KINDS: [(Kind, &str); 9] = [
    (Kind::Launch, "launch"),
    (Kind::CopyEngine, "copy-engine"),
    (Kind::HostToDevice, "host-to-device"),
    (Kind::DeviceToHost, "device-to-host"),
    (Kind::HccsPair, "hccs-pair"),
    (Kind::HccsOut, "hccs-out"),
    (Kind::HccsIn, "hccs-in"),
    (Kind::RoceOut, "roce-out"),
    (Kind::RoceIn, "roce-in"),
];

/// A device among those that can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which server, in a number: the board's for what a process does with its own devices, that of the name in the
    /// rank table for links.
    pub server: u64,
    /// Physical id.
    pub device: u32,
}

impl Place {
    /// The place of a device in a rank table.
    pub fn named(server: &str, device: u32) -> Self {
        Self { server: number(&server), device }
    }
}

/// A number that every process makes of the same value.
fn number(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish().max(1)
}

/// A resource as it is told to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What.
    pub kind: &'static str,
    /// Physical id of the device.
    pub device: u32,
    /// Physical id of the other device, of a pair.
    pub other: Option<u32>,
    /// Machine time it was taken for.
    pub busy_ns: u64,
}

/// The words of a table of resources.
#[derive(Debug)]
pub struct Ledger(&'static [AtomicU64]);

/// One resource.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    free_at: &'static AtomicU64,
    busy: &'static AtomicU64,
}

impl Resource {
    /// Takes the resource for `length_ns`, from `ready_ns` at the earliest; answers when that is over.
    pub fn reserve(&self, ready_ns: u64, length_ns: u64) -> u64 {
        self.busy.fetch_add(length_ns, Ordering::Relaxed);
        let after = |free: u64| free.max(ready_ns).saturating_add(length_ns);
        let free = self
            .free_at
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| Some(after(free)))
            .unwrap_or_else(|free| free);
        after(free)
    }
}

impl Ledger {
    /// The namespace's, or this process's own where the others cannot be seen.
    pub fn shared() -> Self {
        board::ledger().map_or_else(Self::private, Self)
    }

    /// One that nobody else sees; it stays for the life of the process.
    pub fn private() -> Self {
        let words: Vec<AtomicU64> = (0..RESOURCES * RESOURCE_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self(words.leak())
    }

    /// A ledger over words of a board.
    pub fn over(words: &'static [AtomicU64]) -> Self {
        Self(words)
    }

    /// The resource of a device, or of the way from it to another one. None when the table is full.
    pub fn resource(&self, kind: Kind, place: Place, other: Option<Place>) -> Option<Resource> {
        let key = number(&(kind, place, other));
        let label = (kind as u64) << 56
            | u64::from(place.device & 0xff_ffff) << 24
            | other.map_or(0, |other| u64::from(other.device & 0x7f_ffff) + 1);
        let first = usize::try_from(key % u64::try_from(RESOURCES).unwrap_or(1)).unwrap_or(0);
        (first..RESOURCES).chain(0..first).find_map(|index| {
            let entry = self.entry(index)?;
            let [entry_key, entry_label, free_at, busy] = entry else { return None };
            let taken = entry_key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_ok() {
                entry_label.store(label, Ordering::Release);
            }
            (taken.is_ok() || taken == Err(key)).then_some(Resource { free_at, busy })
        })
    }

    fn entry(&self, index: usize) -> Option<&'static [AtomicU64]> {
        let at = index.checked_mul(RESOURCE_WORDS)?;
        self.0.get(at..at.checked_add(RESOURCE_WORDS)?)
    }

    /// What was taken so far.
    pub fn usage(&self) -> Vec<Usage> {
        (0..RESOURCES)
            .filter_map(|index| {
                let [_, label, _, busy] = self.entry(index)? else { return None };
                let label = label.load(Ordering::Acquire);
                let (_, kind) = KINDS.iter().find(|(kind, _)| *kind as u64 == label >> 56)?;
                Some(Usage {
                    kind,
                    device: u32::try_from((label >> 24) & 0xff_ffff).unwrap_or(u32::MAX),
                    other: u32::try_from(label & 0xff_ffff).unwrap_or(0).checked_sub(1),
                    busy_ns: busy.load(Ordering::Relaxed),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts 7.1, cost model: shared tokens per port and direction.
    #[test]
    fn who_comes_second_waits_for_the_first() {
        let ledger = Ledger::private();
        let place = Place::named("10.0.0.7", 3);
        let port = ledger.resource(Kind::RoceOut, place, None).unwrap();
        assert_eq!(port.reserve(1000, 50), 1050);
        let same = ledger.resource(Kind::RoceOut, place, None).unwrap();
        assert_eq!(same.reserve(1020, 50), 1100);
        assert_eq!(same.reserve(5000, 1), 5001);
        let other = ledger.resource(Kind::RoceIn, place, None).unwrap();
        assert_eq!(other.reserve(1000, 50), 1050);
        let pair = ledger.resource(Kind::HccsPair, place, Some(Place::named("10.0.0.7", 0))).unwrap();
        assert_eq!(pair.reserve(0, 7), 7);
        let mut usage = ledger.usage();
        usage.sort_by_key(|usage| usage.busy_ns);
        assert_eq!(usage.iter().map(|usage| usage.busy_ns).collect::<Vec<_>>(), [7, 50, 101]);
        assert_eq!((usage[0].kind, usage[0].device, usage[0].other), ("hccs-pair", 3, Some(0)));
        assert_eq!((usage[2].kind, usage[2].other), ("roce-out", None));
    }

    #[test]
    fn a_full_ledger_answers_nothing() {
        let ledger = Ledger::private();
        let server = |number: usize| Place::named(&number.to_string(), 0);
        assert!((0..RESOURCES).all(|number| ledger.resource(Kind::RoceIn, server(number), None).is_some()));
        assert!(ledger.resource(Kind::RoceIn, server(RESOURCES), None).is_none());
        assert!(ledger.resource(Kind::RoceIn, server(0), None).is_some());
    }
}
