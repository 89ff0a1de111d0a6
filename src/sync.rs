//! The one door to atomics and locks for code that is model-checked.
//!
//! Normally these are the standard atomics and `parking_lot`'s locks. Under `--cfg loom`, in tests, they are
//! loom's, so that the very code that ships is what the models in `batch` and `registry` explore:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --lib loom_
//! ```
//!
//! Only what those modules need is here, in one shape for both: [`Mutex::lock`] never poisons, and
//! [`Condvar::wait_until`] takes an optional end.

#[cfg(not(all(loom, test)))]
mod real {
    use std::time::Instant;

    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

    pub(crate) use parking_lot::{Mutex, MutexGuard};

    /// A condition variable with an absolute end.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        /// Sleeps until notified, or until `end`. May wake for no reason; the caller looks at its condition.
        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, end: Instant) {
            let _timed_out = self.0.wait_until(guard, end);
        }

        pub(crate) fn notify_all(&self) {
            let _woken = self.0.notify_all();
        }
    }
}

#[cfg(all(loom, test))]
mod real {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

    /// Runs a model over interleavings, in two ways: loom's reduction (it skips what looks equivalent) and all
    /// schedules of up to three preemptions. The reduction alone was seen to miss an interleaving of two
    /// words, the bounded search alone does not go deep; together they found every fault that was tried.
    pub(crate) fn explore(model: impl Fn() + Sync + Send + 'static) {
        let model = std::sync::Arc::new(model);
        for preemption_bound in [None, Some(3)] {
            let model = std::sync::Arc::clone(&model);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = preemption_bound;
            builder.check(move || model());
        }
    }

    /// Loom's lock with `parking_lot`'s face.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    /// Holds the inner guard as an option, so that a wait can hand it to loom and take it back.
    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap()))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    /// Loom's condition variable; loom has no time, so an end never comes.
    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _end: Instant) {
            let inner = guard.0.take().unwrap();
            guard.0 = Some(self.0.wait(inner).unwrap());
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

pub(crate) use real::*;
