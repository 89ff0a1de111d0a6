//! One device's part in staging: its ring, made at the first need, and its agent.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::super::device::Device;
use super::Staged;
use super::agent::Agent;
use super::gate::Gate;
use super::ring::Ring;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Longest wait for a ring that another thread makes.
const RING_LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
enum Making {
    #[default]
    Not,
    Now,
    Done(Arc<Ring>),
}

/// Ring and agent of one device.
pub struct Station {
    staged: Weak<Staged>,
    device: Arc<Device>,
    ring: Mutex<Making>,
    made: Condvar,
    agent: Agent,
    gate: Arc<Gate>,
}

impl Station {
    /// Without a ring yet. `turns` threads start copies at a time.
    #[must_use]
    pub fn new(staged: Weak<Staged>, device: &Arc<Device>, turns: usize) -> Arc<Self> {
        Arc::new(Self {
            staged,
            device: Arc::clone(device),
            ring: Mutex::default(),
            made: Condvar::new(),
            agent: Agent::default(),
            gate: Arc::new(Gate::new(turns)),
        })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Who may start copies on it.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What serves peers on it.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Whose it is.
    #[must_use]
    pub fn staged(&self) -> &Weak<Staged> {
        &self.staged
    }

    /// Whether a worker up to number `worker` still runs a channel with `peer`.
    #[must_use]
    pub fn channels_run(&self, peer: u128, worker: u64) -> bool {
        self.staged.upgrade().is_none_or(|staged| staged.channels_run(peer, worker))
    }

    /// The ring, if it was made.
    #[must_use]
    pub fn ring_if_made(&self) -> Option<Arc<Ring>> {
        match &*self.ring.lock() {
            Making::Done(ring) => Some(Arc::clone(ring)),
            _ => None,
        }
    }

    /// The ring; made by the first who needs it.
    ///
    /// # Errors
    /// What [`Ring::make`] says; the next one tries again.
    pub fn ring(&self) -> Result<Arc<Ring>> {
        let deadline = Deadline::after(RING_LIMIT);
        {
            let mut making = self.ring.lock();
            loop {
                match &*making {
                    Making::Done(ring) => return Ok(Arc::clone(ring)),
                    Making::Not => break,
                    Making::Now => {
                        if self.made.wait_until(&mut making, deadline.at()).timed_out() {
                            let text = "the ring of the device is being made for too long";
                            return Err(
                                Error::new(Code::Timeout, Stage::Submit, text).device(self.device.id())
                            );
                        }
                    }
                }
            }
            *making = Making::Now;
        }
        let made = self
            .staged
            .upgrade()
            .ok_or_else(|| Error::new(Code::StaleHandle, Stage::Submit, "the engine was shut down"))
            .and_then(|staged| staged.make_ring(&self.device));
        let mut making = self.ring.lock();
        *making = made.as_ref().map_or(Making::Not, |ring| Making::Done(Arc::clone(ring)));
        drop(making);
        self.made.notify_all();
        made
    }

    /// Takes the ring out, so that its memory goes back when nobody uses it any more.
    #[must_use]
    pub fn take_ring(&self) -> Option<Arc<Ring>> {
        match std::mem::take(&mut *self.ring.lock()) {
            Making::Done(ring) => Some(ring),
            _ => None,
        }
    }
}
