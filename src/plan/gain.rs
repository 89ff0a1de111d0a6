//! What aggregation can give at best, from the table of costs.
//!
//! # The limit
//!
//! Direct, a block of `n` bytes costs a descriptor: `d(n) = max(launch, setup + n / rate, n / wire)`. Staged, it costs a
//! copy into a slot at one end and one out of a slot at the other, `c(n) = max(copy, n / copy rate)` each, and its share
//! of one descriptor for the whole slot of `S` bytes. In a run so long that filling and emptying the row of slots does
//! not count, the three stages work at the same time, and a block takes as long as the slowest of them:
//!
//! ```text
//! wire(n) = (launch + setup + S / rate) * n / S
//! s(n) = max( (c(n) + launch * n / S) , wire(n) , c(n) )
//!             gather and launch                  scatter
//! limit(n) = d(n) / s(n)
//! ```
//!
//! (The slot is counted as sent when the one before it has arrived; one that waits then is launched before that.)
//!
//! Two things follow without any number. Blocks gain only while `d(n)` is more than `c(n)`: where starting a copy costs
//! as much as starting a descriptor there is nothing to gain. And no block gains more than `launch / copy`, since a
//! copy is started for each.
//!
//! Where threads of a device start copies side by side, `k` of them work at `k` slots. Each takes its slot through all
//! stages, and what they share is the copy engine and the wire:
//!
//! ```text
//! s(n) = max( (c(n) + wire(n) + c(n)) / k , n / copy rate , wire(n) )
//! ```
//!
//! So four threads gain twice as much as one, not four times: half of the time of each belongs to the copies of the
//! other end.
//!
//! # By the built-in table
//!
//! Slots of 4 MiB; a number above 1 is how much faster than direct a long staged run can be. The first number is with
//! launches of a device in one row, the second with four threads that launch side by side. A test computes the table.
//!
//! | link | way | 16 KiB | 32 KiB | 64 KiB | 128 KiB | 256 KiB | 512 KiB | 1 MiB | 2 MiB |
//! |---|---|---|---|---|---|---|---|---|---|
//! | a2-hccs | write | 1.00 / 1.93 | 0.99 / 1.87 | 0.98 / 1.75 | 0.97 / 1.55 | 0.95 / 0.95 | 0.95 / 0.95 | 0.95 / 0.95 | 0.95 / 0.95 |
//! | a2-hccs | read | 1.00 / 1.96 | 1.00 / 1.91 | 0.99 / 1.82 | 0.98 / 1.65 | 0.95 / 1.15 | 0.93 / 0.93 | 0.93 / 0.93 | 0.93 / 0.93 |
//! | a2-roce | write | 1.93 / 3.76 | 1.92 / 3.63 | 1.89 / 3.40 | 1.84 / 3.01 | 1.65 / 1.65 | 1.21 / 1.21 | 1.03 / 1.03 | 0.94 / 0.94 |
//! | a2-roce | read | 1.97 / 3.84 | 1.95 / 3.72 | 1.92 / 3.51 | 1.87 / 3.14 | 1.76 / 1.89 | 0.94 / 0.94 | 0.88 / 0.88 | 0.88 / 0.88 |
//! | a3-hccs | write | 0.18 / 0.36 | 0.18 / 0.35 | 0.18 / 0.35 | 0.19 / 0.36 | 0.33 / 0.58 | 0.60 / 0.95 | 1.00 / 1.00 | 0.97 / 0.97 |
//! | a3-hccs | read | 0.18 / 0.36 | 0.19 / 0.38 | 0.23 / 0.44 | 0.30 / 0.55 | 0.43 / 0.76 | 0.70 / 1.10 | 1.06 / 1.06 | 0.99 / 0.99 |
//! | a3-hccs-2node | write | 0.80 / 1.57 | 0.82 / 1.60 | 0.87 / 1.65 | 0.98 / 1.75 | 1.18 / 1.92 | 1.57 / 1.68 | 1.28 / 1.28 | 1.08 / 1.08 |
//! | a3-hccs-2node | read | 0.56 / 1.12 | 0.58 / 1.14 | 0.62 / 1.19 | 0.70 / 1.29 | 0.86 / 1.46 | 1.16 / 1.61 | 1.24 / 1.24 | 1.06 / 1.06 |
//! | a3-roce | write | 0.81 / 1.53 | 0.89 / 1.58 | 1.04 / 1.67 | 1.33 / 1.37 | 0.99 / 0.99 | 0.99 / 0.99 | 0.99 / 0.99 | 0.99 / 0.99 |
//! | a3-roce | read | 0.81 / 1.53 | 0.89 / 1.58 | 1.04 / 1.67 | 1.33 / 1.37 | 0.99 / 0.99 | 0.99 / 0.99 | 0.99 / 0.99 | 0.99 / 0.99 |
//!
//! # From both ends
//!
//! A descriptor that the peer's device launches costs this one nothing. Where launches of a device are in one row, two
//! rows take half of the time, until the bytes fill the wire:
//!
//! ```text
//! both(n) = max( d(n) / 2 , n / wire )
//! ```
//!
//! That is more than slots can give in any cell of the first number above, takes no copies, and begins at once. Of the
//! second number only short blocks over RoCE on A2 are higher. [`choose`](super::choose) takes it where it may
//! ([`Allowed::Any`](super::Allowed::Any)) and is modelled at least 5 % faster than direct. The model says nothing of how
//! one device's launches disturb another's, because nothing is known of it.
//!
//! # How close
//!
//! Measured on a quiet machine with `transfer_engine_bench --profile`; 32 MiB as a short batch, and 224 MiB as a long
//! one, a request of 4,096 tokens of Qwen2.5-7B in one call. How many times faster than direct, written and read:
//!
//! | link | launches in a row for each | batch | blocks | staged | staged at best | chosen |
//! |---|---|---|---|---|---|---|
//! | a2-roce | device | 32 MiB | 16 KiB | 1.82, 1.87 | 1.93, 1.97 | 1.96, 1.99 |
//! | a2-roce | device | 32 MiB | 128 KiB | 1.54, 1.53 | 1.84, 1.87 | 1.80, 1.85 |
//! | a2-roce | device | 224 MiB | 64 KiB | 1.85, 1.87 | 1.89, 1.92 | 1.96, 2.00 |
//! | a2-roce | device | 224 MiB | 128 KiB | 1.77, 1.79 | 1.84, 1.87 | 1.94, 1.98 |
//! | a2-hccs | device | 32 MiB | 64 KiB | 0.89, 0.89 | 0.98, 0.99 | 1.89, 1.00 |
//! | a3-roce | device | 32 MiB | 64 KiB | 0.93, 0.90 | 1.04, 1.04 | 1.66, 1.64 |
//! | a2-roce | thread | 32 MiB | 16 KiB | 3.49, 3.57 | 3.76, 3.84 | 3.47, 3.58 |
//! | a2-roce | thread | 32 MiB | 128 KiB | 1.98, 2.14 | 3.01, 3.14 | 2.01, 2.14 |
//! | a2-hccs | thread | 32 MiB | 16 KiB | 1.78, 1.84 | 1.93, 1.96 | 1.96, 1.83 |
//!
//! With launches of a device in one row the choice is from both ends but for what is read over HCCS, which goes direct:
//! see [`staged`](crate::transport::ascend::staged). Threads that launch side by side stage over RoCE on A2, and what is
//! read over HCCS there; a short batch of blocks of 128 KiB is eight slots, and filling the
//! first and emptying the last is what they miss. All cells are in the records of `bench/record/*-aggregation.csv`, each on every link: the
//! choice was 0.967 or more of the better of direct and staged in every one, and direct 0.99 or more of a bare loop of
//! vendor calls.
//!
//! What staging misses of its limit is the filling and emptying of the row of slots. For a write of `B` bytes with
//! launches in one row it cannot be less than `sqrt(2 * B * launch * (time of a byte in copy and wire))`, however the
//! slots are filled ([`Fill`](super::Fill)): a write of 32 MiB in blocks of 128 KiB gains 1.66 at best, in blocks of
//! 64 KiB 1.76; one of 224 MiB 1.81 and 1.87.
//!
//! # What was not built
//!
//! While the far side empties the last slots of a write, the near device launches nothing; it could send the last
//! blocks direct (and read the first ones direct while the first slot of a read is being filled). Computed over every
//! number of blocks, slots and steps between them, that gains nothing worth its code:
//!
//! | a2-roce, write | 16 KiB | 32 KiB | 64 KiB | 128 KiB |
//! |---|---|---|---|---|
//! | 32 MiB, slots alone | 1.86 | 1.82 | 1.76 | 1.66 |
//! | 32 MiB, last blocks direct | 1.87 | 1.84 | 1.79 | 1.71 |
//! | 224 MiB, slots alone | 1.92 | 1.90 | 1.87 | 1.81 |
//! | 224 MiB, last blocks direct | 1.92 | 1.91 | 1.88 | 1.82 |
//!
//! Less than 3 % in every cell; the peer's launches give more.
//!
//! The engine stages a group only where the whole group is modelled at least 5 % faster, filling and emptying included:
//! see [`choose`](super::choose). Short groups have less of an advantage than the table says, or none.

use super::choice::Slots;
use super::cost::{LinkCosts, Side};
use crate::plan::Direction;

/// How much faster than direct a long staged run of device memory can be: the time of a block direct over its time
/// staged.
#[must_use]
pub fn limit(costs: &LinkCosts, slots: &Slots, direction: Direction, block_bytes: u32) -> f64 {
    let block = f64::from(block_bytes);
    let slot = f64::from(u32::try_from(slots.slot_bytes).unwrap_or(u32::MAX)).max(block);
    let share = block / slot;
    let descriptor = costs.descriptor(direction);
    let copies = costs.copy(Side::Device);
    let (copy, launch) = (copies.time_us(block), descriptor.launch_us * share);
    let wire = launch + descriptor.moving_us(slot) * share;
    let staged = if costs.launches_per_device {
        (copy + launch).max(wire)
    } else {
        (block / copies.bytes_per_us).max(wire).max((2.0 * copy + wire) / f64::from(slots.count.max(1)))
    };
    descriptor.time_us(block) / staged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CostTable, LinkClass};

    const SLOTS: Slots = Slots { slot_bytes: 4 << 20, count: 4 };

    fn lines() -> Vec<String> {
        let table = CostTable::built_in();
        let mut lines = Vec::new();
        for class in LinkClass::ALL {
            for direction in [Direction::Write, Direction::Read] {
                let cells = (14..22).map(|shift| {
                    let limit = |launches_per_device| {
                        let costs = LinkCosts { launches_per_device, ..table.costs(class) };
                        limit(&costs, &SLOTS, direction, 1 << shift)
                    };
                    format!("{:.2} / {:.2}", limit(true), limit(false))
                });
                let cells: Vec<String> = cells.collect();
                lines.push(format!(
                    "//! | {} | {} | {} |",
                    class.name(),
                    direction.name(),
                    cells.join(" | ")
                ));
            }
        }
        lines
    }

    #[test]
    fn the_table_of_the_documentation_is_what_the_costs_say() {
        let source = include_str!("gain.rs");
        for line in lines() {
            assert!(
                source.lines().any(|known| known == line),
                "not in the documentation:\n{}",
                lines().join("\n")
            );
        }
    }

    #[test]
    fn nothing_gains_more_than_a_launch_against_a_copy() {
        let table = CostTable::built_in();
        for class in LinkClass::ALL {
            let costs = table.costs(class);
            for direction in [Direction::Write, Direction::Read] {
                for shift in 12..24 {
                    let gain = limit(&costs, &SLOTS, direction, 1 << shift);
                    let block = f64::from(1_u32 << shift);
                    let most = costs.descriptor(direction).time_us(block) / costs.device_copy.launch_us;
                    assert!(gain <= most + 1e-9 || gain <= 1.25, "{} {shift}: {gain} {most}", class.name());
                }
            }
        }
    }
}
