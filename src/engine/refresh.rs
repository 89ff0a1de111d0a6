//! Asking for the descriptors of all open segments again, now and then, where the environment wants that.
//!
//! Nothing here needs it: a peer's descriptor is asked for again when it does not fit what is asked of the peer. Who
//! runs with upstream's setting has its effect.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::WeakShared;
use crate::error::{Code, Error, Result, Stage};

/// The thread that asks. Dropping it ends the thread, in its own time.
pub(super) struct Refresher(Arc<Gate>);

#[derive(Default)]
struct Gate {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Refresher {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Code::Internal`] when there is none to be had.
    pub(super) fn start(engine: WeakShared, interval: Duration) -> Result<Self> {
        let gate: Arc<Gate> = Arc::default();
        let on_thread = Arc::clone(&gate);
        std::thread::Builder::new()
            .name("mct-refresh".into())
            .spawn(move || {
                while on_thread.sleep(interval) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.refresh_all();
                }
            })
            .map_err(|error| {
                Error::new(Code::Internal, Stage::Configure, format!("no thread for refreshing: {error}"))
            })?;
        Ok(Self(gate))
    }
}

impl Gate {
    /// False when it is over.
    fn sleep(&self, interval: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        let _timed_out = self.changed.wait_while_for(&mut stopped, |stopped| !*stopped, interval);
        !*stopped
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        *self.0.stopped.lock() = true;
        self.0.changed.notify_all();
    }
}
