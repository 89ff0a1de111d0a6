//! What many threads change at once is kept once for each of a few groups of threads, so that they do not take one
//! line of memory from each other again and again.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Groups of threads; a power of two. More threads than that share.
pub const STRIPES: usize = 8;

thread_local! {
    static STRIPE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The calling thread's group, below `STRIPES`. The first threads that ask have one each.
#[must_use]
pub fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STRIPE.with(|own| {
        own.get().unwrap_or_else(|| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
            own.set(Some(number));
            number
        })
    })
}

/// One value for each group of threads, on a line of memory of its own.
#[derive(Debug, Default)]
pub struct Striped<T>([Line<T>; STRIPES]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl<T> Striped<T> {
    /// Makes each value.
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        Self(std::array::from_fn(|_| Line(make())))
    }

    /// The calling thread's.
    #[must_use]
    pub fn own(&self) -> &T {
        let [first, ..] = &self.0;
        &self.0.get(stripe()).unwrap_or(first).0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_stripe_and_stripes_do_not_share_a_line() {
        let striped: Striped<AtomicUsize> = Striped::default();
        striped.own().fetch_add(1, Ordering::Relaxed);
        striped.own().fetch_add(1, Ordering::Relaxed);
        let values: Vec<usize> = striped.iter().map(|value| value.load(Ordering::Relaxed)).collect();
        assert_eq!(values.iter().filter(|value| **value == 2).count(), 1, "{values:?}");
        assert_eq!(size_of::<Striped<AtomicUsize>>(), STRIPES * 64);
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| striped.own().fetch_add(1, Ordering::Relaxed));
            }
        });
        let sum: usize = striped.iter().map(|value| value.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 2 + 2 * STRIPES);
    }
}
