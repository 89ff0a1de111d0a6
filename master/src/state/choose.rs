//! Which segments a new object goes to.
//!
//! Replicas of one object go to different segment names. Fewer than asked for is success if there is one: the caller
//! sees how many it got. Order: what the writer prefers, then its own host where that is wanted, then the strategy.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use mooncake_wire::model::ReplicateConfig;
use smallvec::SmallVec;

use super::pool::{Named, View};
use super::segment::{Range, host_of};
use crate::moment::Moment;
use crate::policy::{Policy, Strategy};

/// At most this many names are tried for one replica.
const MAX_PROBES: usize = 100;

/// A small generator (splitmix64): no lock, a seed, no secret. All threads share it, so each call takes a `Dice`.
#[derive(Debug)]
pub struct Random(AtomicU64);

/// The generator of one call.
#[derive(Debug)]
pub struct Dice(Cell<u64>);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mixed(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// With this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A generator that begins where no other did.
    #[must_use]
    pub fn dice(&self) -> Dice {
        Dice(Cell::new(mixed(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))))
    }
}

impl Dice {
    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(STEP);
        self.0.set(state);
        mixed(state)
    }

    fn below(&self, bound: usize) -> usize {
        let bound = (bound as u64).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }
}

/// One choice: the ranges are taken as they are chosen.
pub struct Choice<'c> {
    /// The segments that take puts.
    pub view: &'c View,
    /// What the writer asks for.
    pub config: &'c ReplicateConfig,
    /// A name or endpoint that comes before what the writer prefers: the node of a batch's first key.
    pub same_node: Option<&'c str>,
    /// The settings.
    pub policy: &'c Policy,
    /// The generator.
    pub dice: &'c Dice,
    /// Now.
    pub now: Moment,
}

impl Choice<'_> {
    /// Allocates up to the number of replicas asked for.
    #[must_use]
    pub fn allocate(&self, length: u64) -> SmallVec<[Range; 1]> {
        let wanted =
            usize::try_from(self.config.replica_num).unwrap_or(usize::MAX).min(self.view.names.len());
        let mut ranges: SmallVec<[Range; 1]> = SmallVec::new();
        let mut used: SmallVec<[usize; 4]> = SmallVec::new();
        let take = |position: usize, ranges: &mut SmallVec<[Range; 1]>, used: &mut SmallVec<[usize; 4]>| {
            if ranges.len() < wanted
                && !used.contains(&position)
                && let Some(named) = self.view.names.get(position)
                && let Some(range) = self.allocate_in(named, length)
            {
                ranges.push(range);
                used.push(position);
            }
        };
        if self.view.names.len() > 1 {
            for name in self.preferred() {
                if let Some(position) = self.view.position(name) {
                    take(position, &mut ranges, &mut used);
                }
            }
            if ranges.is_empty() && wanted == 1 {
                for position in self.own_host() {
                    take(position, &mut ranges, &mut used);
                }
            }
        }
        if ranges.len() < wanted && self.policy.strategy == Strategy::FreeRatioFirst {
            for position in self.emptiest(wanted - ranges.len()) {
                take(position, &mut ranges, &mut used);
            }
        }
        // First the segments that have their full share, then all: a fresh one is passed over, never starved.
        for ramped in [true, false] {
            let count = self.view.names.len();
            let start = self.dice.below(count);
            for step in 0..count.min(MAX_PROBES) {
                if ranges.len() >= wanted {
                    return ranges;
                }
                let position = (start + step) % count;
                let fresh =
                    ramped && self.view.names.get(position).is_some_and(|named| self.held_back(named));
                if !fresh {
                    take(position, &mut ranges, &mut used);
                }
            }
        }
        ranges
    }

    fn preferred(&self) -> impl Iterator<Item = &str> {
        let one = Some(self.config.preferred_segment.as_str()).filter(|name| !name.is_empty());
        let list = self.config.preferred_segments.iter().map(String::as_str).filter(move |_| one.is_none());
        self.same_node.into_iter().chain(one).chain(list)
    }

    fn own_host(&self) -> Vec<usize> {
        let wanted = self.config.prefer_alloc_in_same_node || self.policy.strategy == Strategy::LocalFirst;
        let host = host_of(&self.config.host_id);
        if !wanted || host.is_empty() {
            return Vec::new();
        }
        let on_host = |named: &Named| named.segments.iter().any(|segment| *segment.host == *host);
        self.view
            .names
            .iter()
            .enumerate()
            .filter(|(_, named)| on_host(named))
            .map(|(position, _)| position)
            .collect()
    }

    /// A few neighbouring names, the emptiest first.
    fn emptiest(&self, remaining: usize) -> Vec<usize> {
        let count = self.view.names.len();
        let start = self.dice.below(count);
        let mut sample: Vec<(u64, usize)> = (0..count.min(remaining.saturating_mul(6)))
            .map(|step| (start + step) % count)
            .filter_map(|position| {
                let segments = &self.view.names.get(position)?.segments;
                let size: u64 = segments.iter().map(|segment| segment.size).sum();
                let used: u64 = segments.iter().map(|segment| segment.used_bytes()).sum();
                let per_mille = u128::from(used) * 1000 / u128::from(size.max(1));
                Some((u64::try_from(per_mille).unwrap_or(u64::MAX), position))
            })
            .collect();
        sample.sort_unstable();
        sample.into_iter().map(|(_, position)| position).collect()
    }

    /// Whether a segment that joined a running pool is passed over this time: its share grows with its age.
    fn held_back(&self, named: &Named) -> bool {
        let age_of = |named: &Named| {
            named.segments.iter().map(|segment| self.now.since_ms(segment.mounted_at())).max().unwrap_or(0)
        };
        let age = age_of(named);
        if age >= self.policy.ramp_ms {
            return false;
        }
        let oldest = self.view.names.iter().take(MAX_PROBES).map(age_of).max().unwrap_or(0);
        // Of a pool that starts together, nobody is held back.
        if oldest.saturating_sub(age) < self.policy.ramp_ms {
            return false;
        }
        let share_floor = self.policy.ramp_ms / 10;
        self.dice.next() % self.policy.ramp_ms.max(1) >= age.max(share_floor)
    }

    fn allocate_in(&self, named: &Named, length: u64) -> Option<Range> {
        let count = named.segments.len();
        let start = if count > 1 { self.dice.below(count) } else { 0 };
        (0..count)
            .filter_map(|step| named.segments.get((start + step) % count))
            .find_map(|segment| Range::allocate(segment, length))
    }
}
