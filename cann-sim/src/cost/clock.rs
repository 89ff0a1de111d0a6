//! Clocks of the cost model: the machine's, and each thread's.
//!
//! A thread that waits for the end of an operation comes back later than that end, by what the kernel's timers and the
//! load of the machine make of it. Its own clock leaves that out: after a wait it stands at the end of what was waited
//! for, and then goes on with the machine's. Launches that follow each other begin by the thread's clock, so what they
//! oversleep does not add up. A thread may also be ahead, a little, instead of sleeping for every short launch.
//!
//! What was overslept until something was seen to be complete is no credit for what is launched afterwards: that begins
//! when it is launched, or a transfer that follows another one would end before its time on the machine's clock. The
//! first reading ([`read_ns`]) after such a wait tells the end of what was waited for; from then on the machine's clock
//! goes on.
//!
//! All times are nanoseconds of the monotonic clock, which is the same in all processes.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How far a thread, or what a stream reserves, may be ahead of the machine's clock before it sleeps.
pub const LEAD_NS: u64 = 1_000_000;

thread_local! {
    /// The machine's clock less the thread's.
    static BEHIND_NS: Cell<i64> = const { Cell::new(0) };
    /// Something was seen to be complete, and nothing was launched or read since.
    static SAW_END: Cell<bool> = const { Cell::new(false) };
}

/// The machine's clock.
pub fn machine_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one writable struct; the monotonic clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The calling thread's clock.
pub fn now_ns() -> u64 {
    // A thread that is ending has the machine's clock.
    let behind = BEHIND_NS.try_with(Cell::get).unwrap_or(0);
    machine_ns().saturating_add_signed(behind.saturating_neg())
}

/// The calling thread's clock for what it launches now.
pub fn launching_ns() -> u64 {
    let saw_end = SAW_END.try_with(Cell::take).unwrap_or(false);
    if saw_end {
        let _ = BEHIND_NS.try_with(|cell| cell.set(cell.get().min(0)));
    }
    now_ns()
}

/// The calling thread's clock as a program reads it.
pub fn read_ns() -> u64 {
    let time_ns = now_ns();
    launching_ns();
    time_ns
}

/// The calling thread sees that something is complete, without having waited for it.
pub fn saw_end() {
    let _ = SAW_END.try_with(|cell| cell.set(true));
}

/// Sets the calling thread's clock.
fn set(time_ns: u64) {
    let behind = i64::try_from(i128::from(machine_ns()) - i128::from(time_ns)).unwrap_or(0);
    let _ = BEHIND_NS.try_with(|cell| cell.set(behind));
}

/// The calling thread waited, since its clock stood at `entered_ns`, for what ended at `end_ns`.
pub fn waited(entered_ns: u64, end_ns: u64) {
    set(entered_ns.max(end_ns));
    saw_end();
}

/// The calling thread, whose clock stood at `entered_ns` when it began, is busy until `end_ns`: sleeps unless that is
/// within `lead_ns`.
pub fn pass(entered_ns: u64, end_ns: u64, lead_ns: u64) {
    if end_ns > machine_ns().saturating_add(lead_ns) {
        sleep_until(end_ns);
    }
    set(entered_ns.max(end_ns));
}

/// The instant of a time of the machine's clock.
pub fn instant(time_ns: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_nanos(time_ns.saturating_sub(machine_ns())))
}

fn sleep_until(time_ns: u64) {
    let left = time_ns.saturating_sub(machine_ns());
    if left > 0 {
        std::thread::sleep(Duration::from_nanos(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts 7.1, cost model: what a wait oversleeps is not charged.
    #[test]
    fn a_wait_ends_when_what_was_waited_for_ended() {
        let entered = now_ns();
        let end = entered + 1000;
        std::thread::sleep(Duration::from_millis(5));
        waited(entered, end);
        let after = now_ns();
        assert!(after >= end && after < entered + 5_000_000, "{entered} {end} {after}");
        // What ended before the wait began does not turn the clock back.
        waited(after, end);
        assert!(now_ns() >= after);
    }

    /// Facts 7.1, cost model: an operation never ends before its time, also behind one that was waited for too long.
    #[test]
    fn what_a_wait_overslept_is_no_credit_for_launches() {
        let entered = now_ns();
        std::thread::sleep(Duration::from_millis(5));
        waited(entered, entered + 1000);
        let machine = machine_ns();
        assert!(launching_ns() >= machine);
        // The same behind a look that found it complete, after a launch that overslept.
        pass(machine - 2_000_000, machine - 1_000_000, 0);
        assert!(now_ns() < machine_ns(), "launches that follow each other make up for what one overslept");
        saw_end();
        let machine = machine_ns();
        assert!(launching_ns() >= machine);
    }

    #[test]
    fn the_first_reading_after_a_wait_tells_the_end_and_the_next_one_the_machines_time() {
        let entered = now_ns();
        std::thread::sleep(Duration::from_millis(5));
        waited(entered, entered + 1000);
        let machine = machine_ns();
        assert!(read_ns() < machine);
        assert!(read_ns() >= machine);
    }

    #[test]
    fn a_long_launch_sleeps_and_a_short_one_does_not() {
        let (entered, machine) = (now_ns(), machine_ns());
        pass(entered, entered + 20 * LEAD_NS, LEAD_NS);
        assert!(machine_ns() >= machine + 20 * LEAD_NS);
        let end = now_ns() + LEAD_NS / 2;
        pass(now_ns(), end, LEAD_NS);
        assert!(now_ns() >= end);
    }
}
