//! Opening the vendor's libraries on first use, once per engine.

use std::sync::{Arc, Weak};

use cann_sys::LoadOptions;
use parking_lot::{Mutex, RwLock};

use super::Shared;
use super::passive::Passive;
use crate::config::Config;
use crate::error::{Code, Error, Result, Stage};
use crate::topology::NpuLink;
use crate::transport::ascend::{Ascend, Runtime, rank};

/// The ascend transport of one engine: unopened, opened, or the reason why it cannot be.
#[derive(Default)]
pub(super) struct Npu {
    /// Held while the vendor opens, so that it is asked once and a close waits for it. Taken before `opened`.
    opening: Mutex<Option<Result<Arc<Ascend>>>>,
    /// What was opened; never held across a call, so that host memory does not wait for a vendor that opens.
    opened: RwLock<Option<Arc<Ascend>>>,
}

impl Npu {
    /// The transport, if it was opened.
    pub(super) fn opened(&self) -> Option<Arc<Ascend>> {
        self.opened.read().clone()
    }

    /// Takes the transport out, for good.
    pub(super) fn take(&self) -> Option<Arc<Ascend>> {
        let mut slot = self.opening.lock();
        *slot = None;
        self.opened.write().take()
    }
}

impl Shared {
    /// The ascend transport; opens it at the first call, on the caller's thread, whose current device is the
    /// engine's unless one was given.
    ///
    /// # Errors
    /// [`Code::LibraryUnavailable`] with every path tried; the same answer at each later call, since libraries
    /// do not appear in a running process.
    pub(super) fn npu(&self) -> Result<Arc<Ascend>> {
        if let Some(ascend) = self.npu.opened() {
            return Ok(ascend);
        }
        let mut slot = self.npu.opening.lock();
        if let Some(outcome) = slot.as_ref() {
            return outcome.clone();
        }
        let outcome = self.open_npu();
        // A wrong device is the caller's to mend; it must not stick.
        if outcome.as_ref().map_or_else(|error| error.code() == Code::LibraryUnavailable, |_| true) {
            *slot = Some(outcome.clone());
            *self.npu.opened.write() = outcome.as_ref().ok().cloned();
        }
        outcome
    }

    fn open_npu(&self) -> Result<Arc<Ascend>> {
        self.check_usable()?;
        if self.config.force_tcp {
            return Err(Error::new(
                Code::NotSupportedTransport,
                Stage::Configure,
                "MC_FORCE_TCP is set: NPUs are not used",
            )
            .advice("unset MC_FORCE_TCP to move NPU memory"));
        }
        let runtime = Runtime::load(&load_options(&self.config))?;
        let ascend = Ascend::start(runtime, &self.config, self.incarnation.clone())?;
        ascend.serve(Arc::new(Passive::new(Weak::clone(&self.own))));
        let device = match self.device {
            Some(device) => Some(device),
            None => match ascend.device_for_caller(self.npu_hint) {
                Ok(device) => Some(device),
                // No device is bound and none was named: registered memory will say which.
                Err(error) if error.code() == Code::Context => None,
                Err(error) => return Err(error),
            },
        };
        if let Some(device) = device {
            ascend.attach(device)?;
            log::info!("engine {} uses NPU device {device}", self.name);
        } else {
            log::info!("engine {} uses the NPU of the memory that it is given", self.name);
        }
        Ok(Arc::new(ascend))
    }

    /// The opened NPUs, for the links report.
    pub(super) fn npu_links(&self) -> Vec<NpuLink> {
        let Some(ascend) = self.npu.opened() else { return Vec::new() };
        let hccn = std::fs::read_to_string(&self.config.hccn_conf).unwrap_or_default();
        let soc = ascend.runtime().soc_name().unwrap_or_else(|_| "unknown".to_owned());
        ascend
            .devices()
            .into_iter()
            .filter_map(|device| {
                let physical = ascend.physical_device(device).ok()?;
                Some(NpuLink {
                    device,
                    physical: i32::try_from(physical).ok()?,
                    soc: soc.clone(),
                    address: rank::hccn_address(&hccn, physical),
                })
            })
            .collect()
    }
}

/// Where the settings say CANN may be.
pub(crate) fn load_options(config: &Config) -> LoadOptions {
    LoadOptions {
        cann_path: config.cann_path.clone(),
        ascend_home_path: config.ascend_home.clone(),
        ascend_toolkit_home: config.ascend_toolkit_home.clone(),
        ..LoadOptions::default()
    }
}
