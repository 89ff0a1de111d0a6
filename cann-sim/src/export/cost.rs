//! The cost model, told to programs. These functions are no vendor's: they are in `libcann_sim.so` itself, and
//! `include/cann_sim_cost.h` declares them. With the null profile they answer "null", 1, the machine's clock and 0.

use std::ffi::c_char;

use crate::cost::ledger::KINDS;
use crate::cost::{self, clock};

/// Kind of resource that stands for all.
const EVERY_KIND: u32 = 0;

fn slowdown() -> u64 {
    cost::costs().map_or(1, |costs| costs.slowdown)
}

/// Name of the active profile; good for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_cost_profile() -> *const c_char {
    cost::costs().map_or(c"null".as_ptr(), |costs| costs.profile.name.as_ptr())
}

/// How many times slower than hardware this process runs.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_cost_slowdown() -> u64 {
    slowdown()
}

/// Model time of the calling thread in nanoseconds: differences are what hardware would have taken. It leaves out by
/// how much the thread's last wait overslept when it is read for the first time after it.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_cost_now_ns() -> u64 {
    match cost::costs() {
        None => clock::machine_ns(),
        Some(costs) => clock::read_ns() / costs.slowdown,
    }
}

/// Nanoseconds on the machine's clock that one way of a message of `length` bytes between two hosts takes.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_cost_message_ns(length: u64) -> u64 {
    cost::costs().map_or(0, |costs| costs.message(usize::try_from(length).unwrap_or(usize::MAX)))
}

/// The calling thread waits as long as one way of a message of `length` bytes takes: to be called once for each
/// message of a control connection, by who sends it or by who receives it.
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_cost_pass_message(length: u64) {
    if cost::costs().is_some() {
        let began_ns = clock::now_ns();
        clock::pass(began_ns, began_ns.saturating_add(cann_sim_cost_message_ns(length)), 0);
    }
}

/// Model time in nanoseconds that all processes of the namespace reserved on resources of a kind (1 launch, 2 copy
/// engine, 3 host to device, 4 device to host, 5 HCCS pair, 6 HCCS out, 7 HCCS in, 8 RoCE out, 9 RoCE in; 0 all) of a
/// device by its physical id (-1: all).
#[unsafe(no_mangle)]
pub extern "C" fn cann_sim_cost_busy_ns(kind: u32, physical_id: i32) -> u64 {
    let Some(costs) = cost::costs() else { return 0 };
    let wanted = KINDS.iter().find(|(known, _)| *known as u32 == kind).map(|(_, name)| *name);
    if wanted.is_none() && kind != EVERY_KIND {
        return 0;
    }
    let of_device = |device: u32| physical_id < 0 || u32::try_from(physical_id) == Ok(device);
    let usage = costs.ledger.usage();
    let busy_ns: u64 = usage
        .iter()
        .filter(|usage| wanted.is_none_or(|name| name == usage.kind) && of_device(usage.device))
        .map(|usage| usage.busy_ns)
        .sum();
    busy_ns / costs.slowdown
}
