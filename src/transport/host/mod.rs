//! Host memory of another process of the same host: mapped where it is of our own making
//! ([`SharedMemory`](crate::memory::SharedMemory)), else moved by the kernel from one address space to the other.
//!
//! The kernel's copy is twice as fast over huge pages, so that an engine puts what was registered together into them.
//!
//! Both ends' ranges are pinned by the engine for as long as a job runs, so that neither side can withdraw them
//! meanwhile; what is copied in one call is at most a piece, so that a stop is prompt. Besides, each access is
//! counted on a board that the two processes share ([`layout`]), so that the owner knows when nobody touches a range
//! even if the peer says nothing.
//!
//! "Same host" is proven ([`proof`]), never guessed: the peer writes a number of our choice on the board, and we find
//! it there by its process number. That needs the right to look at the other process; the kernel's copy needs more
//! (Yama can forbid it), so it is tried apart, and without it only mapped memory goes this way.

mod board;
mod layout;
mod peer;
mod proof;
mod visit;

use std::sync::Arc;

use super::copier::{HostCopier, Mover};
use super::{Job, Request};
use crate::deadline::Deadline;
use crate::error::Result;

pub use board::{BoardPlace, Boards, MAX_BOARDS, Placed};
pub use layout::MAX_RANGES;
pub use peer::{HostPeer, MAX_IMPORTED};
pub use proof::{CHALLENGE_BYTES, Challenge};

/// The transport of requests whose other end is another process of this host.
pub struct Host {
    copier: HostCopier,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Without threads yet; they start with the first request that is too large for its caller's thread.
    #[must_use]
    pub fn new() -> Self {
        Self { copier: HostCopier::new("mct-host") }
    }

    /// Takes a job. Small ones are over when this returns; all are finished through the job's submission.
    ///
    /// # Errors
    /// [`Code::StaleHandle`](crate::error::Code::StaleHandle) after [`shutdown`](Self::shutdown),
    /// [`Code::Internal`](crate::error::Code::Internal) without a thread. The job is finished as failed then.
    pub fn submit(&self, job: Job, peer: &Arc<HostPeer>) -> Result<()> {
        let request = Request::new(job);
        let mover: Arc<dyn Mover> = Arc::clone(peer) as Arc<dyn Mover>;
        self.copier.submit(&request, &mover).inspect_err(|error| request.fail(error))
    }

    /// Ends the threads; what they have not finished fails as cancelled.
    ///
    /// # Errors
    /// [`Code::StillRunning`](crate::error::Code::StillRunning) when a copy is still running at the deadline.
    pub fn shutdown(&self, deadline: Deadline) -> Result<()> {
        self.copier.stop();
        self.copier.wait_stopped(deadline)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.copier.stop();
    }
}
