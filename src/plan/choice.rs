//! Direct, staged, or partly each: the choice for a group of extents, with the numbers it was made by.
//!
//! [`choose`] sorts the extents into classes by length, in which one is at most twice as long as another, and tries
//! every border between two classes: what is shorter goes staged, what is longer direct. Contiguous runs have been merged
//! before, by [`coalesce`](super::coalesce).
//!
//! # The model
//!
//! Direct is the sum of its descriptors. Staged goes through slots, each filled as [`Fill`] says: gather, one
//! descriptor, scatter. One thread takes a slot through all three, one after another, and the threads of successive
//! slots work side by side: the first slot takes all three, and each further one as long as what it shares with the
//! others, or its part of all three where there are too few slots. Shared are the wire, where one descriptor counts as
//! launched when the one before it has arrived (those that wait by then are launched before); the copy engine of either end; and, where the threads of a device launch one
//! after another, its launches: the initiator's copies and its descriptors then. Slots that shorten from one to the next
//! (see [`Fill`]) are a way as well there, taken when modelled as faster.
//! A group that is split takes both one after the other.
//!
//! From both ends, the peer launches descriptors for a part of the group on its own device, gets where this side puts
//! and puts where it gets, so that two devices launch at once; the bytes share one wire. It takes no copies and no
//! slots, and half of the direct time where launches are what takes long.
//!
//! Of all ways that are modelled as no more than [`PREFERENCE`] times the best, the one is taken that stages least.
//!
//! Invariants: unless the table weighs them differently, what is chosen is never modelled as more than [`PREFERENCE`] times the better of direct and staged; a
//! route that is not allowed is never taken. One pass over the extents, nothing is allocated.

use std::fmt;

use super::cost::{LinkClass, LinkCosts, Side};
use super::fill::Fill;
use crate::plan::{Direction, Extent};

/// Staging for speed has to be this much better: it takes memory bandwidth and a peer's time, which are not modelled.
pub const PREFERENCE: f64 = 1.05;

/// Least number of bytes that a slot is filled with, but for the last one.
pub const MIN_FILL_BYTES: u64 = 64 << 10;

/// Slots of a run that shortens, as a part of the number at which its modelled time is least: about there the time
/// hardly depends on it, and each slot costs messages and wake-ups that are not modelled.
const TAPERED_SLOTS: f64 = 0.85;

/// Extents that both ends launch at least: fewer are not worth a message.
const LEAST_FOR_BOTH_ENDS: u64 = 8;

/// What orders to the peer, their answers and the wait for the last pieces take besides: 120 to 330 us of model time on
/// the cost profiles. Long transfers do not notice; short ones over fast links would be slower than direct.
const ORDERS_US: f64 = 200.0;

/// What a slot takes besides: threads that wake between its steps, at either end. 15 to 40 us of model time on the cost
/// profiles; as long or longer on a host.
const HAND_OVER_US: f64 = 30.0;

/// Classes of lengths: class `n` holds the lengths with `n` significant bits.
const CLASSES: usize = 65;

/// The way a group takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Both ends are in this process: a copy.
    Local,
    /// A descriptor for each extent.
    Direct,
    /// The same, of which the peer's device launches a part.
    BothEnds,
    /// Gather, one descriptor for each slot, scatter.
    Staged,
    /// Short extents staged, long ones direct.
    Split,
}

impl Route {
    /// As printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Direct => "direct",
            Self::BothEnds => "both-ends",
            Self::Staged => "staged",
            Self::Split => "split",
        }
    }
}

/// Which routes a group may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The link takes the memory, and staging for speed is not wanted or not possible.
    Direct,
    /// The link does not take the memory.
    Staged,
    /// Direct or staged, whichever is faster.
    Either,
    /// The same, or direct with the peer's help.
    Any,
}

/// The slots that staging has, on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Length of one.
    pub slot_bytes: u64,
    /// How many one transfer may use at a time, each with a thread at either end.
    pub count: u32,
}

/// A group of extents that go the same way: one peer, one direction, the same kind of memory.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// What to move.
    pub extents: &'a [Extent],
    /// Which way.
    pub direction: Direction,
    /// This side's memory.
    pub local: Side,
    /// The peer's memory.
    pub remote: Side,
}

/// What was chosen, and by which numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The way.
    pub route: Route,
    /// Extents that are shorter go staged, the others direct.
    pub staged_below_bytes: u64,
    /// A slot is sent as soon as it holds this much, or when the next extent does not fit any more; 0 bytes when
    /// nothing goes staged.
    pub fill: Fill,
    /// Extents of the group.
    pub extents: u64,
    /// Bytes of the group.
    pub length_bytes: u64,
    /// Modelled time when everything goes direct; none when it may not.
    pub direct_us: Option<f64>,
    /// Modelled time when both ends launch; none when they may not, or when there is too little for two.
    pub both_ends_us: Option<f64>,
    /// Modelled time when everything goes staged; none when it may not.
    pub staged_us: Option<f64>,
    /// Modelled time of what was chosen.
    pub chosen_us: f64,
    /// The link whose costs were taken; none for a local copy.
    pub class: Option<LinkClass>,
}

impl Choice {
    /// The choice for two ends in one process: there is no link to choose for.
    #[must_use]
    pub fn local(extents: &[Extent]) -> Self {
        let length_bytes = extents.iter().fold(0_u64, |sum, extent| sum.saturating_add(extent.length_bytes));
        Self {
            route: Route::Local,
            staged_below_bytes: 0,
            fill: Fill::even(0),
            extents: count(extents.len()),
            length_bytes,
            direct_us: None,
            both_ends_us: None,
            staged_us: None,
            chosen_us: 0.0,
            class: None,
        }
    }

    /// Whether an extent of this length goes staged.
    #[must_use]
    pub const fn is_staged(&self, length_bytes: u64) -> bool {
        length_bytes < self.staged_below_bytes
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = self.class.map_or("this process", LinkClass::name);
        write!(formatter, "{} on {class}: {} extents", self.route.name(), self.extents)?;
        write!(formatter, ", {} bytes", self.length_bytes)?;
        let show =
            |formatter: &mut fmt::Formatter<'_>, name: &str, time: Option<f64>, without: &str| match time {
                Some(time) => write!(formatter, ", {name} {time:.1} us"),
                None => write!(formatter, ", {name} {without}"),
            };
        if self.route == Route::Local {
            return Ok(());
        }
        show(formatter, "direct", self.direct_us, "not possible")?;
        if let Some(time) = self.both_ends_us {
            write!(formatter, ", from both ends {time:.1} us")?;
        }
        show(formatter, "staged", self.staged_us, "not weighed")?;
        write!(formatter, ", chosen {:.1} us", self.chosen_us)?;
        match self.route {
            Route::Split => write!(
                formatter,
                ", staged below {} bytes in slots of {} bytes",
                self.staged_below_bytes, self.fill.fullest_bytes
            )?,
            Route::Staged => write!(formatter, ", in slots of {} bytes", self.fill.fullest_bytes)?,
            Route::Local | Route::Direct | Route::BothEnds => return Ok(()),
        }
        if self.fill.step_bytes > 0 {
            let way = if self.fill.grows { "from" } else { "down to" };
            write!(formatter, " {way} {}", self.fill.shortest_bytes)?;
        }
        Ok(())
    }
}

/// What the extents of some classes cost together.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    bytes: f64,
    direct_us: f64,
    gather_us: f64,
    scatter_us: f64,
    /// Of each extent the stage that takes it longest.
    slowest_us: f64,
}

impl Load {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.direct_us += other.direct_us;
        self.gather_us += other.gather_us;
        self.scatter_us += other.scatter_us;
        self.slowest_us += other.slowest_us;
    }
}

/// Staged transfers of one group, as the model sees them.
struct Stages<'a> {
    costs: &'a LinkCosts,
    slots: &'a Slots,
    group: &'a Group<'a>,
}

impl Stages<'_> {
    fn sides(&self) -> (Side, Side) {
        match self.group.direction {
            Direction::Write => (self.group.local, self.group.remote),
            Direction::Read => (self.group.remote, self.group.local),
        }
    }

    /// What one extent adds.
    fn load(&self, length_bytes: u64) -> Load {
        let slot_bytes = self.slots.slot_bytes.max(1);
        let pieces = float(length_bytes.div_ceil(slot_bytes).max(1));
        let piece_bytes = float(length_bytes) / pieces;
        let (source, target) = self.sides();
        let (descriptor, bytes) = (self.costs.descriptor(self.group.direction), float(length_bytes));
        let copies_us = |side: Side| self.costs.copy(side).time_us(piece_bytes) * pieces;
        let (gather_us, scatter_us) = (copies_us(source), copies_us(target));
        let wire_us = bytes / descriptor.limit_bytes_per_us();
        Load {
            bytes,
            direct_us: descriptor.time_us(bytes),
            gather_us,
            scatter_us,
            slowest_us: gather_us.max(scatter_us).max(wire_us),
        }
    }

    /// Time of `load` in `fills` slots.
    fn time_us(&self, load: &Load, fills: u32) -> f64 {
        let (costs, fills) = (self.costs, f64::from(fills));
        let (source, target) = self.sides();
        let descriptor = costs.descriptor(self.group.direction);
        // A slot holds one copy at least, also where that is a part of an extent.
        let stage = |side: Side, sum_us: f64| {
            let copy = costs.copy(side);
            copy.call_us + (sum_us / fills).max(copy.launch_us)
        };
        let (gather, scatter) = (stage(source, load.gather_us), stage(target, load.scatter_us));
        let wire = descriptor.launch_us + descriptor.moving_us(load.bytes / fills);
        let whole = gather + wire + scatter + 2.0 * costs.message_us + HAND_OVER_US;
        let shared = if costs.launches_per_device {
            // The slot's descriptor is launched in the row of the initiator's copies.
            let (write, launch) = (self.group.direction == Direction::Write, descriptor.launch_us);
            let gathers = gather + if write { launch } else { 0.0 };
            let scatters = scatter + if write { 0.0 } else { launch };
            // Extents of different lengths may come in any order: what is slow about some is not hidden by others.
            gathers.max(scatters).max(load.slowest_us / fills)
        } else {
            load.bytes / fills / costs.copy(source).bytes_per_us.min(costs.copy(target).bytes_per_us)
        };
        let shared = shared.max(wire);
        let threads = f64::from(self.slots.count.max(1));
        let by_threads = (fills / threads).ceil() * whole + (fills.min(threads) - 1.0) * wire;
        (whole + (fills - 1.0) * shared).max(by_threads)
    }

    /// Time of `load` in slots that shorten (for reads: grow), and their lengths; `None` where that has no advantage,
    /// or where it is not known: the copies have to take the two ends the same time, and the wire less.
    fn tapered(&self, load: &Load) -> Option<(f64, Fill)> {
        let (source, target) = self.sides();
        let (descriptor, copy) = (self.costs.descriptor(self.group.direction), self.costs.copy(source));
        if !self.costs.launches_per_device || copy != self.costs.copy(target) || load.bytes < 1.0 {
            return None;
        }
        let launch_us = descriptor.launch_us;
        let copy_us = load.gather_us / load.bytes;
        let wire_us = 1.0 / descriptor.limit_bytes_per_us();
        let step = launch_us / (copy_us + wire_us);
        // Then no slot's wire takes longer than the copies and the launch of the next shorter one.
        if step < 1.0 || wire_us > copy_us || descriptor.setup_us + step * wire_us > launch_us {
            return None;
        }
        let least = (load.bytes / float(self.slots.slot_bytes.max(1))).ceil();
        let number = ((2.0 * load.bytes / step).sqrt() * TAPERED_SLOTS).ceil().max(least);
        let grows = self.group.direction == Direction::Read;
        let (total, slots) = (whole(load.bytes.ceil()), whole(number));
        let fill = Fill::tapered(total, slots, self.slots.slot_bytes.max(1), whole(step), grows)?;
        // Slots are lent again in time for those behind, which are shorter.
        let (count, shortest) = (f64::from(self.slots.count), float(fill.shortest_bytes));
        let is_covered = |bytes: f64| {
            let all_steps = 2.0 * (copy_us * bytes + copy.call_us + self.costs.message_us)
                + launch_us
                + descriptor.setup_us
                + wire_us * bytes
                + HAND_OVER_US;
            let shorter = (bytes - step * (count - 1.0) / 2.0).max(shortest);
            all_steps <= count * (copy_us * shorter + copy.call_us + launch_us)
        };
        let last = shortest + step * (count - 1.0).min(number - 1.0);
        if number > count && !(is_covered(float(fill.fullest_bytes)) && is_covered(last)) {
            return None;
        }
        let copies_us = load.slowest_us + copy.call_us * (number + 1.0);
        let behind_us = launch_us * number + descriptor.setup_us + (copy_us + wire_us) * shortest;
        Some((copies_us + behind_us + 2.0 * self.costs.message_us + HAND_OVER_US, fill))
    }

    /// Time of `extents` extents when the peer launches as many of them as fit the time, and the bytes share the wire.
    fn both_ends_us(&self, load: &Load, extents: u64) -> Option<f64> {
        let limit = self.costs.descriptor(self.group.direction).limit_bytes_per_us();
        let one_us = load.direct_us / float(extents.max(1));
        let launched_us = load.direct_us / 2.0 + self.costs.message_us + one_us;
        (extents >= LEAST_FOR_BOTH_ENDS).then(|| launched_us.max(load.bytes / limit + one_us) + ORDERS_US)
    }

    /// The best time of `load`, and how full the slots are for it.
    fn best(&self, load: &Load) -> (f64, Fill) {
        let even = self.best_even(load);
        match self.tapered(load) {
            Some(tapered) if tapered.0 < even.0 => tapered,
            _ => (even.0, Fill::even(even.1)),
        }
    }

    /// The best time of `load` in slots that are alike, with the number of bytes in each.
    fn best_even(&self, load: &Load) -> (f64, u64) {
        let slot = float(self.slots.slot_bytes.max(1));
        let least = small((load.bytes / slot).ceil()).max(1);
        let most = small((load.bytes / float(MIN_FILL_BYTES)).ceil()).max(least);
        let mut best = (f64::INFINITY, 0_u32);
        let mut fills = least;
        loop {
            let time = self.time_us(load, fills);
            if time < best.0 {
                best = (time, fills);
            }
            if fills >= most {
                break;
            }
            // As many for each thread.
            let twice = fills.saturating_mul(2).checked_next_multiple_of(self.slots.count.max(1));
            fills = twice.unwrap_or(most).min(most);
        }
        (best.0, whole((load.bytes / f64::from(best.1.max(1))).ceil()).min(self.slots.slot_bytes.max(1)))
    }
}

/// Chooses the way of a group between two processes.
#[must_use]
pub fn choose(costs: &LinkCosts, slots: &Slots, group: &Group<'_>, allowed: Allowed) -> Choice {
    let stages = Stages { costs, slots, group };
    let mut classes = [Load::default(); CLASSES];
    let mut all = Load::default();
    let mut length_bytes = 0_u64;
    let mut present = 0_u128;
    for extent in group.extents {
        let class = usize::try_from(u64::BITS - extent.length_bytes.leading_zeros()).unwrap_or(0);
        let load = stages.load(extent.length_bytes);
        if let Some(sum) = classes.get_mut(class) {
            sum.add(&load);
        }
        present |= 1 << class;
        all.add(&load);
        length_bytes = length_bytes.saturating_add(extent.length_bytes);
    }
    let (staged_us, staged_fill) = stages.best(&all);
    let choice = Choice {
        route: Route::Direct,
        staged_below_bytes: 0,
        fill: Fill::even(0),
        extents: count(group.extents.len()),
        length_bytes,
        direct_us: (allowed != Allowed::Staged).then_some(all.direct_us),
        both_ends_us: None,
        staged_us: (allowed != Allowed::Direct).then_some(staged_us),
        chosen_us: all.direct_us,
        class: Some(costs.class),
    };
    let staged = Choice {
        route: Route::Staged,
        staged_below_bytes: u64::MAX,
        fill: staged_fill,
        chosen_us: staged_us,
        ..choice
    };
    match allowed {
        Allowed::Direct => return choice,
        Allowed::Staged => return staged,
        Allowed::Either | Allowed::Any => {}
    }
    // Direct, then what stages more and more of it: of those that are near the best, the first is taken.
    let weight = costs.direct_weight;
    let both_ends_us = stages.both_ends_us(&all, choice.extents).filter(|_| allowed == Allowed::Any);
    let (choice, staged) = (Choice { both_ends_us, ..choice }, Choice { both_ends_us, ..staged });
    let both_ends = both_ends_us
        .map(|time| (Choice { route: Route::BothEnds, chosen_us: time, ..choice }, time * weight));
    let mut splits = [(choice, all.direct_us * weight); CLASSES];
    let mut number = 1;
    let (mut below, mut above) = (Load::default(), all);
    for (class, sum) in classes.iter().enumerate().filter(|(class, _)| present & (1 << class) != 0) {
        if present >> class == 1 {
            break;
        }
        below.add(sum);
        above.direct_us -= sum.direct_us;
        let (time, fill) = stages.best(&below);
        let direct_us = above.direct_us.max(0.0);
        let Some(split) = splits.get_mut(number) else { break };
        let choice = Choice {
            route: Route::Split,
            staged_below_bytes: 1_u64.checked_shl(u32::try_from(class).unwrap_or(0)).unwrap_or(u64::MAX),
            fill,
            chosen_us: time + direct_us,
            ..choice
        };
        *split = (choice, time + direct_us * weight);
        number += 1;
    }
    let staged = (staged, staged_us);
    let direct = splits.first().filter(|_| number > 0);
    let more = splits.iter().take(number).skip(1);
    let candidates = || direct.into_iter().chain(&both_ends).chain(more.clone()).chain([&staged]);
    let best = candidates().map(|(_, weighed)| *weighed).fold(f64::INFINITY, f64::min);
    candidates().find(|(_, weighed)| *weighed <= best * PREFERENCE).map_or(choice, |(choice, _)| *choice)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "costs are estimates; 53 bits are more than enough")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A number of slots; what is out of range becomes the nearest that is in it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such conversions saturate")]
fn small(number: f64) -> u32 {
    number as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such conversions saturate")]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::CostTable;

    const SLOTS: Slots = Slots { slot_bytes: 4 << 20, count: 4 };

    fn extents(lengths: &[u64]) -> Vec<Extent> {
        let extent = |(task, length_bytes): (u32, &u64)| Extent {
            local: u64::from(task) << 32,
            remote: u64::from(task) << 33,
            length_bytes: *length_bytes,
            first_task: task,
            task_count: 1,
            skip_bytes: 0,
        };
        (0..).zip(lengths).map(extent).collect()
    }

    fn group(extents: &[Extent], direction: Direction) -> Group<'_> {
        Group { extents, direction, local: Side::Device, remote: Side::Device }
    }

    fn costs(class: LinkClass, launches_per_device: bool) -> LinkCosts {
        LinkCosts { launches_per_device, ..CostTable::built_in().costs(class) }
    }

    /// How the lanes cut extents into slots. Blocks are packed in order.
    fn cut(slots: &Slots, extents: &[Extent], fill: Fill) -> Vec<Vec<u64>> {
        let mut fills: Vec<Vec<u64>> = vec![Vec::new()];
        let (mut moved, mut number, mut until) = (0, 0, fill.length_bytes(0));
        for extent in extents {
            let mut left = extent.length_bytes;
            while left > 0 {
                let used: u64 = fills.last().unwrap().iter().sum();
                let piece = left.min(slots.slot_bytes).min(fill.fullest_bytes);
                if used > 0 && (moved + piece / 2 > until || used + piece > slots.slot_bytes) {
                    fills.push(Vec::new());
                    while until < moved + piece / 2 {
                        number += 1;
                        until += fill.length_bytes(number);
                    }
                }
                moved += piece;
                fills.last_mut().unwrap().push(piece);
                left -= piece;
            }
        }
        fills
    }

    /// Something that is used by one at a time, in the order of coming.
    #[derive(Default)]
    struct Row(f64);

    impl Row {
        fn take(&mut self, from: f64, time: f64) -> f64 {
            self.0 = self.0.max(from) + time;
            self.0
        }
    }

    /// What the lanes really do: each takes one slot at a time through gather, wire and scatter. A device's launches
    /// are in one row, into which the wire's comes between two copies, or each thread's are its own and the copy
    /// engine is shared; the wire is one row.
    fn simulate_staged(costs: &LinkCosts, slots: &Slots, group: &Group<'_>, fill: Fill) -> f64 {
        let (descriptor, copy) = (costs.descriptor(group.direction), costs.device_copy);
        let fills = cut(slots, group.extents, fill);
        let (mut near, mut wire, mut far) = (Row::default(), Row::default(), Row::default());
        let copies = |row: &mut Row, from: f64, fill: &[u64]| {
            let bytes: f64 = float(fill.iter().sum());
            let launched: f64 = fill.iter().map(|piece| copy.time_us(float(*piece))).sum();
            if costs.launches_per_device {
                row.take(from, launched)
            } else {
                row.take(from, bytes / copy.bytes_per_us).max(from + launched)
            }
        };
        // The step that comes first is taken first: when, the lane's fill, and how far that is.
        let mut next = 0;
        let mut lanes: Vec<(f64, usize, u8)> = (0..slots.count).map(|_| (0.0, usize::MAX, 0)).collect();
        let mut end = 0.0_f64;
        loop {
            let lane = lanes.iter_mut().min_by(|one, other| one.0.total_cmp(&other.0)).unwrap();
            let (from, index, step) = *lane;
            if from.is_infinite() {
                return end;
            }
            *lane = match (index, step) {
                (usize::MAX, _) if next == fills.len() => (f64::INFINITY, index, 0),
                (usize::MAX, _) => {
                    next += 1;
                    (from, next - 1, 0)
                }
                (_, 0) => (copies(&mut near, from, &fills[index]), index, 1),
                (_, 1) => {
                    let from = from.max(wire.0);
                    if costs.launches_per_device {
                        let row = if group.direction == Direction::Write { &mut near } else { &mut far };
                        row.take(from, descriptor.launch_us);
                    }
                    let moving = descriptor.moving_us(float(fills[index].iter().sum()));
                    let arrived = wire.take(from, descriptor.launch_us + moving);
                    (arrived + costs.message_us + HAND_OVER_US, index, 2)
                }
                _ => {
                    let over = copies(&mut far, from, &fills[index]) + costs.message_us;
                    end = end.max(over);
                    (over, usize::MAX, 0)
                }
            };
        }
    }

    #[test]
    fn small_blocks_over_roce_go_staged_and_long_ones_direct() {
        let costs = costs(LinkClass::A2Roce, true);
        let choose = |length_bytes: u64, number: usize| {
            let extents = extents(&vec![length_bytes; number]);
            choose(&costs, &SLOTS, &group(&extents, Direction::Read), Allowed::Either)
        };
        for kib in [16, 32, 64, 128] {
            let choice = choose(kib << 10, 8192);
            assert_eq!(choice.route, Route::Staged, "{choice}");
            assert!(choice.direct_us.unwrap() / choice.chosen_us > 1.8, "{choice}");
        }
        assert_eq!(choose(1 << 20, 128).route, Route::Direct);
        assert_eq!(choose(4 << 20, 16).route, Route::Direct);
        // One block has nothing to be gathered with.
        assert_eq!(choose(16 << 10, 1).route, Route::Direct);
    }

    #[test]
    fn where_a_copy_costs_as_much_as_a_descriptor_everything_goes_direct() {
        for class in [LinkClass::A2Hccs, LinkClass::A3Hccs, LinkClass::A3HccsTwoServers] {
            for kib in [4, 16, 64] {
                let extents = extents(&vec![kib << 10; 1000]);
                for direction in [Direction::Write, Direction::Read] {
                    let group = group(&extents, direction);
                    let choice = choose(&costs(class, true), &SLOTS, &group, Allowed::Either);
                    assert_eq!(choice.route, Route::Direct, "{choice}");
                }
            }
        }
    }

    #[test]
    fn mixed_lengths_are_split() {
        let mut lengths = vec![16 << 10; 4000];
        lengths.extend([32 << 20; 40]);
        let extents = extents(&lengths);
        let choice = choose(
            &costs(LinkClass::A2Roce, true),
            &SLOTS,
            &group(&extents, Direction::Write),
            Allowed::Either,
        );
        assert_eq!(choice.route, Route::Split, "{choice}");
        assert!(choice.is_staged(16 << 10) && !choice.is_staged(32 << 20), "{choice}");
        assert!(choice.chosen_us * 1.2 < choice.direct_us.unwrap(), "{choice}");
        assert!(choice.chosen_us <= choice.staged_us.unwrap() * PREFERENCE, "{choice}");
    }

    /// Launches of two devices are half of those of one, whichever link it is, until the wire is what takes long.
    #[test]
    fn where_launches_take_long_both_ends_launch() {
        for class in LinkClass::ALL {
            let costs = costs(class, true);
            for direction in [Direction::Write, Direction::Read] {
                let choose = |shift: u32, number: usize, allowed| {
                    let extents = extents(&vec![1_u64 << shift; number]);
                    choose(&costs, &SLOTS, &group(&extents, direction), allowed)
                };
                let small = choose(14, 4096, Allowed::Any);
                assert_eq!(small.route, Route::BothEnds, "{small}");
                assert!(small.direct_us.unwrap() / small.chosen_us > 1.8, "{small}");
                assert!(small.to_string().contains(", from both ends "), "{small}");
                // The wire is the same one.
                let large = choose(26, 64, Allowed::Any);
                assert_eq!(large.route, Route::Direct, "{large}");
                assert_eq!(choose(14, 4, Allowed::Any).route, Route::Direct);
                assert_ne!(choose(14, 4096, Allowed::Either).route, Route::BothEnds);
            }
        }
        // 32 MiB over a link that takes them in 0.3 ms: the orders would take longer than they save.
        let extents_128k = extents(&vec![128 << 10; 256]);
        let short = group(&extents_128k, Direction::Write);
        let chosen = super::choose(&costs(LinkClass::A3Hccs, true), &SLOTS, &short, Allowed::Any);
        assert_eq!(chosen.route, Route::Direct, "{chosen}");
        // Threads that launch side by side gain more by slots than two devices do.
        let extents = extents(&vec![16 << 10; 8192]);
        let group = group(&extents, Direction::Write);
        let costs = costs(LinkClass::A2Roce, false);
        assert_eq!(super::choose(&costs, &SLOTS, &group, Allowed::Any).route, Route::Staged);
    }

    #[test]
    fn what_is_not_allowed_is_not_taken() {
        let extents = extents(&[16 << 10; 4000]);
        let group = group(&extents, Direction::Read);
        let costs = costs(LinkClass::A2Roce, true);
        let direct = choose(&costs, &SLOTS, &group, Allowed::Direct);
        assert_eq!((direct.route, direct.staged_us, direct.fill), (Route::Direct, None, Fill::even(0)));
        let staged = choose(&costs, &SLOTS, &Group { remote: Side::Host, ..group }, Allowed::Staged);
        assert_eq!((staged.route, staged.direct_us), (Route::Staged, None));
        assert!(staged.is_staged(u64::MAX - 1) && staged.fill.fullest_bytes <= SLOTS.slot_bytes);
        let nothing = choose(&costs, &SLOTS, &Group { extents: &[], ..group }, Allowed::Either);
        assert_eq!(nothing.route, Route::Direct);
        assert_eq!(Choice::local(group.extents).route, Route::Local);
    }

    #[test]
    fn a_weight_decides_against_the_model() {
        let extents = extents(&[16 << 10; 4000]);
        let group = group(&extents, Direction::Write);
        let heavy = LinkCosts { direct_weight: 1000.0, ..costs(LinkClass::A3Hccs, true) };
        let choice = choose(&heavy, &SLOTS, &group, Allowed::Either);
        assert_eq!(choice.route, Route::Staged, "{choice}");
        assert!(choice.chosen_us > choice.direct_us.unwrap(), "{choice}");
        let light = LinkCosts { direct_weight: 0.001, ..costs(LinkClass::A2Roce, true) };
        assert_eq!(choose(&light, &SLOTS, &group, Allowed::Either).route, Route::Direct);
    }

    /// More than all slots of the world hold.
    #[test]
    fn an_endless_group_has_a_choice() {
        let lengths = vec![crate::plan::MAX_EXTENT_BYTES; 300_000];
        let extents = extents(&lengths);
        for class in LinkClass::ALL {
            let choice =
                choose(&costs(class, false), &SLOTS, &group(&extents, Direction::Read), Allowed::Any);
            assert_eq!(choice.route, Route::Direct, "{choice}");
            assert!(choice.staged_us.unwrap().is_finite(), "{choice}");
        }
    }

    #[test]
    fn a_choice_tells_its_numbers() {
        let extents = extents(&[16 << 10; 4000]);
        let group = group(&extents, Direction::Write);
        let text = choose(&costs(LinkClass::A2Roce, true), &SLOTS, &group, Allowed::Either).to_string();
        for part in
            ["staged on a2-roce", "4000 extents", "65536000 bytes", "direct 92000.0 us", "in slots of"]
        {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    /// For blocks of one length, the stages really played through: the choice is never more than 5 % worse.
    #[test]
    fn played_through_the_choice_is_near_the_better_route() {
        for class in LinkClass::ALL {
            for (per_device, direction) in
                [true, false].into_iter().flat_map(|one| [(one, Direction::Write), (one, Direction::Read)])
            {
                let costs = costs(class, per_device);
                for shift in 12..=22 {
                    for number in [1, 8, 61, 512, 4096] {
                        let extents = extents(&vec![1_u64 << shift; number]);
                        let group = group(&extents, direction);
                        let direct: f64 = extents
                            .iter()
                            .map(|extent| costs.descriptor(direction).time_us(float(extent.length_bytes)))
                            .sum();
                        let staged = |fill| simulate_staged(&costs, &SLOTS, &group, fill);
                        let best_staged =
                            (16..=22).map(|fill| staged(Fill::even(1 << fill))).fold(f64::INFINITY, f64::min);
                        let choice = choose(&costs, &SLOTS, &group, Allowed::Either);
                        let played = match choice.route {
                            Route::Direct => direct,
                            _ => staged(choice.fill),
                        };
                        let better = direct.min(best_staged);
                        assert!(
                            played <= better * 1.05 * 1.01,
                            "{} {direction:?} {number} of {} bytes: {played} for {better}; {choice}",
                            class.name(),
                            1_u64 << shift,
                        );
                    }
                }
            }
        }
    }

    /// On the link that gains by it, slots that shorten are chosen, are modelled as no slower than slots alike, and are
    /// faster when really played through.
    #[test]
    fn slots_that_shorten_are_faster_than_alike_ones() {
        let costs = costs(LinkClass::A2Roce, true);
        for direction in [Direction::Write, Direction::Read] {
            for (shift, mib) in [(14, 32), (15, 32), (16, 32), (17, 32), (16, 128), (17, 128)] {
                let extents = extents(&vec![1_u64 << shift; (mib << 20) >> shift]);
                let group = group(&extents, direction);
                let choice = choose(&costs, &SLOTS, &group, Allowed::Either);
                let stages = Stages { costs: &costs, slots: &SLOTS, group: &group };
                let mut load = Load::default();
                extents.iter().for_each(|extent| load.add(&stages.load(extent.length_bytes)));
                let alike = stages.best_even(&load);
                assert!(choice.fill.step_bytes > 0, "{choice}");
                assert_eq!(choice.fill.grows, direction == Direction::Read);
                assert!(choice.chosen_us <= alike.0, "{choice}: {alike:?}");
                let played = |fill| simulate_staged(&costs, &SLOTS, &group, fill);
                let (tapered, even) = (played(choice.fill), played(Fill::even(alike.1)));
                assert!(tapered < even, "{choice}: {tapered} for {even}");
                assert!((tapered / choice.chosen_us - 1.0).abs() < 0.03, "{choice}: {tapered}");
            }
        }
    }

    proptest! {
        /// The modelled time of the choice is never more than 5 % above the better of the two pure routes, every
        /// pure route is what its parts add up to, and no slot is made fuller than it is long.
        #[test]
        fn the_choice_is_never_much_worse_than_the_better_route(
            lengths in prop::collection::vec((0_u32..28, 1_u64..=100), 1..200),
            class in prop::sample::select(LinkClass::ALL.to_vec()),
            per_device in any::<bool>(),
            write in any::<bool>(),
            sides in (any::<bool>(), any::<bool>()),
            slot_shift in 16_u32..26,
            slot_count in 1_u32..32,
            both_ends in any::<bool>(),
        ) {
            let length = |(shift, percent): &(u32, u64)| 1 + ((1 << shift) * percent / 100);
            let lengths: Vec<u64> = lengths.iter().map(length).collect();
            let extents = extents(&lengths);
            let side = |host| if host { Side::Host } else { Side::Device };
            let direction = if write { Direction::Write } else { Direction::Read };
            let group = Group { local: side(sides.0), remote: side(sides.1), ..group(&extents, direction) };
            let slots = Slots { slot_bytes: 1 << slot_shift, count: slot_count };
            let costs = costs(class, per_device);
            let allowed = if both_ends { Allowed::Any } else { Allowed::Either };
            let choice = choose(&costs, &slots, &group, allowed);
            let (direct, staged) = (choice.direct_us.unwrap(), choice.staged_us.unwrap());
            prop_assert!(choice.chosen_us <= direct.min(staged) * 1.050_001, "{}", choice);
            let one = |length: &u64| costs.descriptor(direction).time_us(float(*length));
            let sum: f64 = lengths.iter().map(one).sum();
            prop_assert!((sum - direct).abs() <= sum * 1e-6);
            prop_assert_eq!(choice.length_bytes, lengths.iter().sum::<u64>());
            prop_assert!(choice.fill.fullest_bytes <= slots.slot_bytes);
            // A bound that any way through slots has: the wire takes every byte once.
            prop_assert!(staged >= float(choice.length_bytes) / costs.descriptor(direction).limit_bytes_per_us());
            if let Some(time) = choice.both_ends_us {
                prop_assert!(both_ends && time >= direct / 2.0 && choice.chosen_us <= time * 1.050_001);
            }
            if choice.route == Route::Split {
                let staged = lengths.iter().filter(|length| choice.is_staged(**length)).count();
                prop_assert!(staged > 0 && staged < lengths.len());
            }
        }
    }
}
