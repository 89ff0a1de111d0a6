//! Host memory of another process of the same host, moved by the kernel from one address space to the other.
//!
//! Both ends' ranges are pinned by the engine for as long as a job runs, so that neither side can withdraw them
//! meanwhile; what is copied in one call is at most a piece, so that a stop is prompt.
//!
//! "Same host" is proven ([`proof`]), never guessed: the peer writes a number of our choice where it says, and
//! we read it there through the kernel.

mod proof;

use std::sync::Arc;

use super::copier::{Block, HostCopier, Mover};
use super::{Job, Request};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::memory::process::{MAX_BLOCKS, Process};
use crate::plan::Direction;

pub use proof::{CHALLENGE_BYTES, Challenge, ProofSlots};

/// A process of this host whose memory we may reach.
#[derive(Debug)]
pub struct HostPeer {
    process: Process,
}

impl HostPeer {
    /// The process with that number now, if this one may reach its memory. Nothing is proven yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(pid: u32) -> std::io::Result<Self> {
        Process::open(pid).map(|process| Self { process })
    }

    /// Whether `challenge` stands at that address of the process: then it is the one that was asked to write it.
    ///
    /// # Errors
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) when the kernel does not let us look.
    pub fn shows(&self, challenge: &Challenge, address: u64) -> Result<bool> {
        let mut bytes = [0; CHALLENGE_BYTES];
        self.process.peek(address, &mut bytes)?;
        Ok(challenge.matches(&bytes))
    }

    /// Whether the process has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }
}

impl Mover for HostPeer {
    fn copy(&self, direction: Direction, blocks: &[Block]) -> Result<()> {
        let mut list = [(0, 0, 0); MAX_BLOCKS];
        for chunk in blocks.chunks(MAX_BLOCKS) {
            for (entry, block) in list.iter_mut().zip(chunk) {
                *entry = (block.local, block.remote, block.length_bytes);
            }
            self.process
                .transfer(direction == Direction::Write, list.get(..chunk.len()).unwrap_or_default())?;
        }
        Ok(())
    }
}

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
