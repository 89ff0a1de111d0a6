//! Cost profiles: how long hardware would take, charged to those who wait for it.
//!
//! `CANN_SIM_PROFILE` chooses a profile; `null`, the default, charges nothing and costs nothing. A profile is a set of
//! numbers in `cost/profiles.toml`, each with its source.
//!
//! # What is charged
//!
//! | operation | launch, on the calling thread | then, on the device |
//! |---|---|---|
//! | `HcclBatchPut`, `HcclBatchGet` | each descriptor | each descriptor in stream order: setup and rate of the stream, and the wire |
//! | `aclrtMemcpyAsync` inside a device | the copy | copy engine of the device |
//! | `aclrtMemcpyAsync` between devices | as a descriptor of HCCS | as a descriptor of HCCS |
//! | `aclrtMemcpyAsync` with the host | the host copy | host link of the device, one for each direction |
//! | `aclrtMemcpy`, `aclrtMemcpy2d` | the same | the same; the caller waits |
//! | `aclrtMemcpyBatch` | the batch and each item | host link; the caller waits |
//! | a message of the program ([`export`](crate::export::cost)) | none | the message |
//!
//! Everything else takes what this machine takes: fills, functions of the program, contexts, registration, preparation.
//! Events and waits take nothing. What a scripted fault delays is on the machine's clock too, and not in model time.
//!
//! # Shared resources
//!
//! A resource keeps the time at which it is free. Who needs it for a while takes that while from when both are ready,
//! and the operation ends when its last resource lets it. The times are in the memory that all processes of a
//! namespace share ([`ledger`]), so that two processes on one port get half of it each. Resources are:
//! the **launch** of a device (with `CANN_SIM_LAUNCH=thread` each thread launches for itself); the **copy engine** and
//! the two directions of the **host link** of a device; the **wire**: one for each direction of a pair on A2 HCCS, else
//! the way out of one device and the way into the other, apart for HCCS and RoCE (a RoCE port is such a way).
//!
//! # Time
//!
//! Model time is the machine's monotonic clock divided by `CANN_SIM_SLOWDOWN`: with 20, what takes 10 microseconds on
//! hardware takes 200 here. All processes of a namespace have to name the same. It must be large enough for this machine to move the bytes in the time; 20 to 50 is good
//! for the faster links. All ends follow by adding, never from when a sleep came back: a stream that is late catches
//! up, and each thread has a clock that leaves out by how much its launches overslept ([`clock`]). An operation never
//! shows as complete before its end. Timeouts of the vendor's calls, and times that events tell, are on the machine's
//! clock.
//!
//! # What the model claims, and what not
//!
//! It claims the throughput of one initiator over one stream with one communicator, the published sweep, within 15 %
//! in every cell of `cost/published.csv` that has no remark; a test computes them all. The remarks name the rest: A2
//! HCCS writes of 128 and 256 KiB, which were measured slower than smaller and larger ones, and A3 RoCE at 16 KiB,
//! which was measured faster than 32 KiB.
//!
//! `npu_calibration` of the bench replays the sweep by vendor calls and prints each cell's error; its records and their
//! plots are in `bench/record` (`*-npu-calibration.csv`, `.svg`). The first one is within 11.5 % in all claimed cells.
//!
//! It does not claim: how much several streams or communicators of one device gain together (here the setup of a
//! descriptor overlaps between streams, launches do not unless asked for); latency of a single operation (a batch here
//! has no cost beyond its descriptors); host memory at the far end of a link; that a copy inside an A2 device costs as
//! much to launch as a descriptor (no source says less); anything marked as inferred in the data file; the device
//! kernel's unfold (`opExpansionMode` 2), connecting, and registration.
//!
//! # How programs read it
//!
//! The functions of [`export::cost`](crate::export::cost) (`include/cann_sim_cost.h`), in `libcann_sim.so`: the
//! profile, the slow-down, the calling thread's model time, the time reserved on resources; `cann-sim-control cost`
//! prints the last.

pub mod charge;
pub mod clock;
pub mod ledger;
pub mod profile;

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use ledger::Ledger;
use profile::Profile;

use crate::settings::settings;

/// Name of the profile that charges nothing.
pub const NULL_PROFILE: &str = "null";

/// An active profile and where it charges.
#[derive(Debug)]
pub struct Costs {
    /// The numbers.
    pub profile: Profile,
    /// Machine time of one unit of model time.
    pub slowdown: u64,
    /// Each thread launches for itself.
    pub launches_per_thread: bool,
    /// Where resources keep their times.
    pub ledger: Ledger,
}

/// The active profile; none charges nothing.
pub fn costs() -> Option<&'static Costs> {
    static COSTS: OnceLock<Option<Costs>> = OnceLock::new();
    COSTS
        .get_or_init(|| {
            let settings = settings();
            if settings.profile == NULL_PROFILE {
                return None;
            }
            let file = Some(settings.profile_file.as_str()).filter(|path| !path.is_empty());
            match profile::load(&settings.profile, file.map(Path::new)) {
                Ok(profile) => Some(Costs {
                    profile,
                    slowdown: u64::from(settings.slowdown),
                    launches_per_thread: settings.launches_per_thread,
                    ledger: Ledger::shared(),
                }),
                Err(why) => {
                    // As the settings do: whoever runs the process must see it.
                    let _ =
                        writeln!(std::io::stderr(), "cann-sim: CANN_SIM_PROFILE: {why}; nothing is charged");
                    None
                }
            }
        })
        .as_ref()
}
