//! The cost model of the software NPU, where this process runs on it: its profile, and the time hardware would take.
//!
//! The functions belong to the software NPU and to no CANN; on hardware there is no model clock. One of the few
//! modules of this crate with `unsafe`.

#![expect(unsafe_code, reason = "functions of the software NPU's library, by their names")]

use std::ffi::{CStr, c_char};
use std::time::Duration;

use anyhow::{Context, Result};
use libloading::os::unix::{Library, RTLD_LAZY, RTLD_LOCAL};

/// The library that holds all of the software NPU.
const LIBRARY: &str = "libcann_sim.so";
/// Only if the process has it already.
const NO_LOAD: i32 = 4;

/// The clock of the model and what it is set to.
pub struct ModelClock {
    now_ns: extern "C" fn() -> u64,
    busy_ns: extern "C" fn(u32, i32) -> u64,
    profile: String,
    slowdown: u64,
    _library: Library,
}

impl ModelClock {
    /// The clock, once the process has loaded CANN and that is the software NPU with its cost model.
    ///
    /// # Errors
    /// If it is something else.
    pub fn find() -> Result<Self> {
        // SAFETY: nothing is loaded, so no initialiser runs.
        let library = unsafe { Library::open(Some(LIBRARY), RTLD_LAZY | RTLD_LOCAL | NO_LOAD) }
            .context("this process does not run on the software NPU")?;
        // SAFETY: the types are those of cann_sim_cost.h; the functions are used as long as the library is kept.
        unsafe {
            let now_ns = *library.get::<extern "C" fn() -> u64>(b"cann_sim_cost_now_ns\0")?;
            let busy_ns = *library.get::<extern "C" fn(u32, i32) -> u64>(b"cann_sim_cost_busy_ns\0")?;
            let slowdown = library.get::<extern "C" fn() -> u64>(b"cann_sim_cost_slowdown\0")?();
            let profile = library.get::<extern "C" fn() -> *const c_char>(b"cann_sim_cost_profile\0")?();
            let profile = CStr::from_ptr(profile).to_string_lossy().into_owned();
            Ok(Self { now_ns, busy_ns, profile, slowdown, _library: library })
        }
    }

    /// The profile; "null" charges nothing.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// How many times slower than hardware this process runs.
    #[must_use]
    pub fn slowdown(&self) -> u64 {
        self.slowdown
    }

    /// Model time of the calling thread; only differences mean something.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos((self.now_ns)())
    }

    /// Model time for which launches of a device were reserved, by its physical id.
    #[must_use]
    pub fn launching(&self, physical_id: i32) -> Duration {
        const LAUNCH: u32 = 1;
        Duration::from_nanos((self.busy_ns)(LAUNCH, physical_id))
    }
}

/// The data file of the profiles.
const PROFILES: &str = include_str!("../../cann-sim/cost/profiles.toml");

/// What one way of a small message between two hosts takes by a profile, in nanoseconds of model time.
///
/// # Errors
/// If the data has no such number.
pub fn message_ns(profile: &str) -> Result<u64> {
    let chip = profile.split('-').next().unwrap_or(profile);
    let (_, section) =
        PROFILES.split_once(&format!("[chip.{chip}]\n")).context("no profile has this chip")?;
    let section = section.split("\n[").next().unwrap_or(section);
    let (_, number) =
        section.split_once("\nmessage_ns = { value = ").context("the chip has no message_ns")?;
    let digits: String =
        number.chars().take_while(|letter| *letter != ',').filter(|letter| *letter != '_').collect();
    digits.parse().with_context(|| format!("message_ns of {chip} is {digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chip_says_what_a_message_costs() {
        for profile in ["a2-hccs", "a2-roce", "a3-hccs", "a3-hccs-2node", "a3-roce"] {
            assert!((1_000..1_000_000).contains(&message_ns(profile).unwrap()), "{profile}");
        }
        assert!(message_ns("a4-hccs").is_err());
    }
}
