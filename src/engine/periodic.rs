//! What an engine does again and again while it lives: asking for the descriptors of all open segments, where the
//! environment wants that, and looking whether a metadata service still knows the engine.
//!
//! Invariants: nothing runs but in its turn; who ends the work does not wait for the turn that is under way; a turn
//! that met a defect is not the last.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Shared, WeakShared};
use crate::error::{Code, Error, Result, Stage};

/// When the next turn comes.
#[derive(Clone, Copy)]
pub(super) enum Pause {
    /// After just that time.
    Exactly(Duration),
    /// After about that time, up to a quarter more or less: engines that started together do not ask together.
    About(Duration),
}

/// The thread that does it. Dropping it ends the thread, in its own time.
pub(super) struct Periodic(Arc<Gate>);

#[derive(Default)]
struct Gate {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Periodic {
    /// Starts the thread; the first turn comes after the first pause.
    ///
    /// # Errors
    /// [`Code::Internal`] when there is none to be had.
    pub(super) fn start(name: &str, engine: WeakShared, pause: Pause, work: fn(&Shared)) -> Result<Self> {
        let gate: Arc<Gate> = Arc::default();
        let on_thread = Arc::clone(&gate);
        let shown = name.to_owned();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while on_thread.sleep(pause.length()) {
                    let Some(engine) = engine.upgrade() else { return };
                    if catch_unwind(AssertUnwindSafe(|| work(&engine))).is_err() {
                        log::error!("{}: a turn of {shown} met a defect; there are more", engine.name);
                    }
                }
            })
            .map_err(|error| {
                Error::new(Code::Internal, Stage::Configure, format!("no thread {name}: {error}"))
            })?;
        Ok(Self(gate))
    }
}

impl Pause {
    fn length(self) -> Duration {
        match self {
            Self::Exactly(length) => length,
            Self::About(length) => {
                // The standard library's hash keys differ from one map to the next: no secret, but no pattern either.
                let hundredths = RandomState::new().hash_one(()) % 51;
                length.saturating_mul(75 + u32::try_from(hundredths).unwrap_or(25)) / 100
            }
        }
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

impl Drop for Periodic {
    fn drop(&mut self) {
        *self.0.stopped.lock() = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::engine::{Engine, EngineOptions};

    const LONG: Duration = Duration::from_secs(30);
    static TURNS: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn a_turn_that_met_a_defect_is_not_the_last() {
        let engine = Engine::new(EngineOptions {
            metadata: "P2PHANDSHAKE".into(),
            local_name: "127.0.0.1".into(),
            device: None,
            auto_discover: false,
            config: Config::default(),
        })
        .unwrap();
        let weak = Arc::downgrade(&engine.shared);
        let pause = Pause::Exactly(Duration::from_millis(1));
        let _turns = Periodic::start("test-turns", weak, pause, |_| {
            if TURNS.fetch_add(1, Ordering::Relaxed) == 0 {
                std::panic::resume_unwind(Box::new(()));
            }
        })
        .unwrap();
        let begun = Instant::now();
        while TURNS.load(Ordering::Relaxed) < 3 {
            assert!(begun.elapsed() < LONG, "{} turns", TURNS.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(1));
        }
        engine.close();
    }

    #[test]
    fn about_is_within_a_quarter_and_not_always_the_same() {
        let length = Duration::from_secs(100);
        let lengths: Vec<Duration> = (0..200).map(|_| Pause::About(length).length()).collect();
        assert!(lengths.iter().all(|one| (Duration::from_secs(75)..=Duration::from_secs(125)).contains(one)));
        assert!(lengths.iter().any(|one| *one != lengths[0]));
        assert_eq!(Pause::Exactly(length).length(), length);
    }
}
