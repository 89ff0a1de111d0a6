//! How an answer is counted.

use mooncake_wire::Outcome;

use crate::metrics::Calls;

/// An answer that can be counted.
pub(super) trait Tally {
    fn tally(&self, calls: &Calls);
}

impl<T> Tally for Outcome<T> {
    fn tally(&self, calls: &Calls) {
        calls.single(self.is_err());
    }
}

impl<T> Tally for Vec<Outcome<T>> {
    fn tally(&self, calls: &Calls) {
        calls.batch(self.len(), self.iter().filter(|outcome| outcome.is_err()).count());
    }
}

impl Tally for i64 {
    fn tally(&self, calls: &Calls) {
        calls.single(*self < 0);
    }
}
