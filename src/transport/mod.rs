//! What moves bytes: one folder per way there is.
//!
//! A [`Job`] is what the engine hands to a transport: extents that all go to one peer, in one direction, between
//! one local and one remote device. The transport finishes every extent of it exactly once, through the job's
//! [`Submission`], and keeps the pins of the local ranges until nothing it started can touch them any more.
//!
//! Invariants: accepting a job never blocks on a peer; a job is finished by its deadline plus the grace time, or
//! stays unfinished only because something started for it could not be made quiet.

pub mod ascend;
pub(crate) mod copier;
pub mod host;
pub mod local;
mod request;
pub mod tcp;

use std::sync::Arc;

pub use request::Request;

use crate::batch::Submission;
use crate::deadline::Deadline;
use crate::plan::{Direction, Extent};
use crate::registry::Pin;

/// Which of a link's ways a job takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Whichever serves it: one descriptor for each extent where the link takes the memory, else by slots.
    #[default]
    Any,
    /// By slots, because no channel has the memory of one end bound.
    Staged,
    /// A job of the staged transport itself, from slot to slot.
    Wire,
}

/// Extents of one submission that share peer, direction and devices.
pub struct Job {
    /// Read (remote to local) or write (local to remote).
    pub direction: Direction,
    /// What to move; never empty.
    pub extents: Vec<Extent>,
    /// Who is told about each extent's end.
    pub submission: Arc<Submission>,
    /// The local regions the extents lie in; released before the job's last task becomes terminal.
    pub pins: Vec<Pin>,
    /// When the job has to be over.
    pub deadline: Deadline,
    /// The device of the local memory (the id `aclrtSetDevice` takes); `None` for host memory.
    pub local_device: Option<i32>,
    /// The device of the remote memory, as the peer numbers it; `None` for host memory.
    pub remote_device: Option<i32>,
    /// Which way, where there are several.
    pub route: Route,
    /// How the caller names the peer, for messages.
    pub peer: Arc<str>,
}
