//! How full the slots of a staged run are made: all alike, or fewer bytes from slot to slot.
//!
//! # Why not all alike
//!
//! A slot's bytes are copied twice one after the other, into the slot and out of the one at the other end, and while
//! the run as a whole does both at once, it cannot do so for one slot. Where the launches of a device stand in one
//! row, a write of `k` slots so takes, through its slot `i`,
//!
//! ```text
//! all copies of one end + launch * i + wire(slot i) + copies(slot i) + two messages
//! ```
//!
//! and as long as its worst slot. Alike slots have it worst at the last one. The sum is the same for every slot, and
//! least, when each holds `launch / (time of a byte in copy and wire)` bytes fewer than the one before it. A read, whose
//! launches stand in the row of the last stage, is the mirror image: its slots grow.
//!
//! Invariants: the lengths of all slots together are the bytes of the run or a few more; none is longer than a slot.

/// Lengths of the slots of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Of the fullest.
    pub fullest_bytes: u64,
    /// Of the one that holds least.
    pub shortest_bytes: u64,
    /// How much more a slot holds than its neighbour on the shorter side, up to the fullest.
    pub step_bytes: u64,
    /// How many there are; 0 where that is not known.
    pub slots: u64,
    /// Whether the shortest comes first.
    pub grows: bool,
}

impl Fill {
    /// Every slot alike.
    #[must_use]
    pub const fn even(length_bytes: u64) -> Self {
        Self {
            fullest_bytes: length_bytes,
            shortest_bytes: length_bytes,
            step_bytes: 0,
            slots: 0,
            grows: false,
        }
    }

    /// `total_bytes` in `slots` slots of at most `slot_bytes`, each `step_bytes` from the next; `None` when they do
    /// not fit, or when fewer slots would do.
    #[must_use]
    pub fn tapered(
        total_bytes: u64,
        slots: u64,
        slot_bytes: u64,
        step_bytes: u64,
        grows: bool,
    ) -> Option<Self> {
        let with = |shortest_bytes: u64| {
            // Slots short of a full one, from the shortest.
            let rising = (slot_bytes - shortest_bytes)
                .checked_div(step_bytes)
                .map_or(slots, |steps| steps.saturating_add(1));
            let rising = rising.min(slots);
            let steps = rising.saturating_mul(rising.saturating_sub(1)) / 2;
            shortest_bytes
                .saturating_mul(rising)
                .saturating_add(steps.saturating_mul(step_bytes))
                .saturating_add((slots - rising).saturating_mul(slot_bytes))
        };
        if slots == 0 || with(slot_bytes) < total_bytes || with(0) >= total_bytes {
            return None;
        }
        let (mut too_short, mut enough) = (0, slot_bytes);
        while enough - too_short > 1 {
            let middle = too_short.midpoint(enough);
            if with(middle) < total_bytes {
                too_short = middle;
            } else {
                enough = middle;
            }
        }
        let fullest = step_bytes.saturating_mul(slots - 1).saturating_add(enough).min(slot_bytes);
        Some(Self { fullest_bytes: fullest, shortest_bytes: enough, step_bytes, slots, grows })
    }

    /// Length of the slot with this number, counted from 0.
    #[must_use]
    pub fn length_bytes(&self, number: u64) -> u64 {
        let steps = if self.grows { number } else { self.slots.saturating_sub(1).saturating_sub(number) };
        steps.saturating_mul(self.step_bytes).saturating_add(self.shortest_bytes).min(self.fullest_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_fall_by_a_step_and_those_of_a_read_rise() {
        let lengths = |grows| -> Vec<u64> {
            let fill = Fill::tapered(100, 6, 25, 5, grows).unwrap();
            (0..6).map(|number| fill.length_bytes(number)).collect()
        };
        assert_eq!(lengths(false), [25, 25, 20, 15, 10, 5]);
        assert_eq!(lengths(true), lengths(false).into_iter().rev().collect::<Vec<_>>());
        assert_eq!(Fill::tapered(151, 6, 25, 5, false), None);
        assert_eq!(Fill::tapered(10, 6, 25, 5, false), None);
        assert_eq!(Fill::even(7).length_bytes(1000), 7);
    }

    proptest! {
        #[test]
        fn all_bytes_have_a_place_and_no_slot_is_too_long(
            total_bytes in 1_u64..1 << 34,
            slots in 1_u64..5000,
            slot_bytes in 1_u64..1 << 24,
            step_bytes in 0_u64..1 << 22,
            grows in any::<bool>(),
        ) {
            let Some(fill) = Fill::tapered(total_bytes, slots, slot_bytes, step_bytes, grows) else {
                let least: u64 = (0..slots).map(|number| (number * step_bytes).min(slot_bytes)).sum();
                prop_assert!(slots * slot_bytes < total_bytes || least >= total_bytes);
                return Ok(());
            };
            let lengths: Vec<u64> = (0..slots).map(|number| fill.length_bytes(number)).collect();
            let sum: u64 = lengths.iter().sum();
            prop_assert!(sum >= total_bytes && sum - total_bytes < slots);
            prop_assert!(lengths.iter().all(|length| (1..=slot_bytes).contains(length)));
            let in_order = if grows { lengths.is_sorted() } else { lengths.iter().rev().is_sorted() };
            prop_assert!(in_order);
            prop_assert_eq!(lengths.iter().max(), Some(&fill.fullest_bytes));
        }
    }
}
