//! The environment of a test's own software NPU.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::artifacts;

/// Distinguishes the namespaces of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Environment that a child process needs to find a software NPU of this test's own.
///
/// Two tests that run side by side do not see each other's devices: each instance has a namespace of its own.
/// Processes that are to reach each other are started from the same instance.
#[derive(Clone, Debug)]
pub struct SoftwareNpu {
    settings: Vec<(String, String)>,
}

impl SoftwareNpu {
    /// A software NPU with the defaults of `cann-sim` and a namespace of its own.
    ///
    /// # Panics
    /// If the software NPU was not built.
    #[must_use]
    pub fn new() -> Self {
        let directory = artifacts::software_npu().to_string_lossy().into_owned();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("test-{}-{number}", std::process::id());
        Self { settings: Vec::new() }
            .variable("MOONCAKE_TRANSFER_CANN_PATH", &directory)
            .variable("CANN_SIM_NAMESPACE", &namespace)
    }

    /// The number of devices.
    #[must_use]
    pub fn devices(self, count: u32) -> Self {
        self.variable("CANN_SIM_DEVICE_COUNT", &count.to_string())
    }

    /// The chip it poses as, for example `Ascend910B3`.
    #[must_use]
    pub fn soc(self, name: &str) -> Self {
        self.variable("CANN_SIM_SOC", name)
    }

    /// The memory of each device.
    #[must_use]
    pub fn memory_bytes(self, bytes: u64) -> Self {
        self.variable("CANN_SIM_HBM_SIZE", &bytes.to_string())
    }

    /// Any variable; a later value of the same name replaces the earlier one.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The variables, for processes that are not started by [`Command`].
    #[must_use]
    pub fn variables(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Gives `command` this software NPU, and nothing of a CANN or of other settings of the caller's shell.
    pub fn apply(&self, command: &mut Command) {
        let inherited = ["ASCEND_", "CANN_SIM_", "HCCL_", "MC_", "MOONCAKE_"];
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if inherited.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
    }
}

impl Default for SoftwareNpu {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_value_replaces_the_earlier_one() {
        let npu = SoftwareNpu { settings: Vec::new() }.devices(2).devices(4);
        assert_eq!(npu.variables(), [("CANN_SIM_DEVICE_COUNT".to_owned(), "4".to_owned())]);
    }
}
