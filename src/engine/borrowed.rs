//! Memory of other engines of this process that this engine moves.
//!
//! vLLM-Ascend's pool connector hands its engine tensors that only the connector's other engine has registered.
//! Vendor registrations are counted per process and device, so taking the same range again costs bookkeeping only.
//! The owner's registration decides: a transfer pins the owner's region, and when the owner unregisters or ends,
//! every engine that has borrowed the range gives it back first.
//!
//! Invariants: at most [`MAX_BORROWED`] ranges; the one borrowed longest ago goes first. A range that is listed as
//! taken is registered; of several threads that want it at once one registers, and the others wait for its outcome.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Shared, process};
use crate::batch::Batch;
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::{ByteRange, MemoryKind};
use crate::registry::Pin;

/// Most ranges that one engine has borrowed at a time.
pub const MAX_BORROWED: usize = 1024;

/// Time that a thread waits for another one's registration of the same range, which is bounded itself.
const LOAN_LIMIT: Duration = Duration::from_secs(60);

/// A range and the device it is on.
type Loan = (ByteRange, i32);

/// The ranges of one engine.
#[derive(Default)]
pub(super) struct Borrowed {
    loans: Mutex<Loans>,
    changed: Condvar,
}

#[derive(Default)]
struct Loans {
    /// Registered; the one borrowed longest ago first.
    taken: VecDeque<Loan>,
    /// Being registered.
    coming: Vec<Loan>,
}

impl Borrowed {
    /// Runs `register` unless the range is taken already; gives the loan that has to go back for it.
    ///
    /// # Errors
    /// What `register` says; [`Code::Timeout`] when another thread's registration does not end.
    fn take(&self, loan: Loan, register: impl FnOnce() -> Result<()>) -> Result<Option<Loan>> {
        let limit = Deadline::after(LOAN_LIMIT);
        {
            let mut loans = self.loans.lock();
            loop {
                if loans.taken.contains(&loan) {
                    return Ok(None);
                }
                if !loans.coming.contains(&loan) {
                    break;
                }
                if self.changed.wait_until(&mut loans, limit.at()).timed_out() {
                    let text = "another thread's registration of the same memory does not end";
                    return Err(Error::new(Code::Timeout, Stage::Register, text)
                        .range(loan.0.start(), loan.0.length_bytes()));
                }
            }
            loans.coming.push(loan);
        }
        // The guard ends the wait of the others however the registration ends.
        let coming = Coming { borrowed: self, loan };
        let outcome = register();
        let mut loans = self.loans.lock();
        let mut oldest = None;
        if outcome.is_ok() {
            loans.taken.push_back(loan);
            oldest = if loans.taken.len() > MAX_BORROWED { loans.taken.pop_front() } else { None };
        }
        drop(loans);
        drop(coming);
        outcome.map(|()| oldest)
    }

    /// Takes out what overlaps one of the ranges.
    fn overlapping(&self, ranges: &[ByteRange]) -> Vec<Loan> {
        let mut loans = self.loans.lock();
        if loans.taken.is_empty() {
            return Vec::new();
        }
        let (called, kept) = std::mem::take(&mut loans.taken)
            .into_iter()
            .partition(|loan: &Loan| ranges.iter().any(|range| loan.0.overlaps(*range)));
        loans.taken = kept;
        let called: VecDeque<Loan> = called;
        called.into()
    }
}

/// A registration under way.
struct Coming<'a> {
    borrowed: &'a Borrowed,
    loan: Loan,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.borrowed.loans.lock().coming.retain(|loan| *loan != self.loan);
        self.borrowed.changed.notify_all();
    }
}

impl Shared {
    /// Pins memory that another engine of this process has registered, for a batch of this one, and makes it this
    /// engine's to move; `None` when nobody has registered the range.
    pub(super) fn borrow(&self, range: ByteRange, batch: &Arc<Batch>) -> Result<Option<Pin>> {
        let Some(pin) = process::pin(range, batch) else { return Ok(None) };
        let region = pin.region();
        if let MemoryKind::Device(device) = region.kind() {
            self.take_loan(region.range(), region.kind(), device)?;
        }
        Ok(Some(pin))
    }

    /// The caller holds a pin of the owner's region, so the loan cannot be called in meanwhile.
    fn take_loan(&self, range: ByteRange, kind: MemoryKind, device: i32) -> Result<()> {
        let oldest = self.borrowed.take((range, device), || {
            self.npu().and_then(|ascend| ascend.register(range, kind, device)).map(drop)
        })?;
        if let Some(loan) = oldest {
            self.give_back(loan, self.metadata_deadline());
        }
        Ok(())
    }

    /// The owner unregisters or ends: what overlaps goes back. Nothing of ours is in flight on it, since the owner's
    /// regions have no pins.
    pub(super) fn call_in(&self, ranges: &[ByteRange], deadline: Deadline) {
        for loan in self.borrowed.overlapping(ranges) {
            self.give_back(loan, deadline);
        }
    }

    fn give_back(&self, (range, device): Loan, deadline: Deadline) {
        let outcome = self.npu.opened().map_or(Ok(()), |ascend| ascend.unregister(range, device, deadline));
        if let Err(error) = outcome {
            log::warn!("{}: giving back borrowed memory: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::channel;

    fn loan(start: u64) -> Loan {
        (ByteRange::new(start, 10).unwrap(), 0)
    }

    #[test]
    fn a_second_thread_goes_on_when_the_registration_is_done_and_not_before() {
        let (borrowed, registered) = (Borrowed::default(), AtomicU32::new(0));
        let (begun, has_begun) = channel();
        let (go_on, may_go_on) = channel::<()>();
        std::thread::scope(|scope| {
            let (borrowed, registered) = (&borrowed, &registered);
            scope.spawn(move || {
                borrowed.take(loan(0), || {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    registered.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            });
            has_begun.recv().unwrap();
            let second = scope.spawn(move || {
                borrowed.take(loan(0), || panic!("registered twice")).unwrap();
                registered.load(Ordering::SeqCst)
            });
            // Another range waits for nobody.
            borrowed.take(loan(100), || Ok(())).unwrap();
            go_on.send(()).unwrap();
            assert_eq!(
                second.join().unwrap(),
                1,
                "the second thread went on before the range was registered"
            );
        });
    }

    #[test]
    fn a_registration_that_fails_is_tried_by_the_next() {
        let borrowed = Borrowed::default();
        let refused = || Err(Error::new(Code::Vendor, Stage::Register, "refused"));
        assert!(borrowed.take(loan(0), refused).is_err());
        let mut tried = false;
        borrowed
            .take(loan(0), || {
                tried = true;
                Ok(())
            })
            .unwrap();
        assert!(tried);
        assert_eq!(borrowed.overlapping(&[loan(5).0]), [loan(0)]);
        assert!(borrowed.overlapping(&[loan(5).0]).is_empty());
    }

    #[test]
    fn the_oldest_loan_goes_when_there_are_too_many() {
        let borrowed = Borrowed::default();
        for number in 0..MAX_BORROWED as u64 {
            assert_eq!(borrowed.take(loan(number * 10), || Ok(())).unwrap(), None);
        }
        assert_eq!(borrowed.take(loan(1 << 40), || Ok(())).unwrap(), Some(loan(0)));
    }
}
