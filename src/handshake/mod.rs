//! Upstream's peer-to-peer handshake: the listener that answers and the client that asks.
//!
//! There is nothing of our own in it: frames, types and bodies are upstream's, in both directions. What it
//! leaves to others: the content of the descriptor ([`segment`](crate::segment)), where notes go
//! ([`notify`](crate::notify)), and everything that needs a lasting connection ([`control`](crate::control)).

pub mod bind;
pub(crate) mod client;
pub mod frame;
mod listener;
mod session;

pub use client::{fetch_descriptor, probe, send_notify};
pub use listener::{Binding, Listener, MAX_HELD_BYTES};

use crate::error::Result;
use crate::notify::Note;

/// What the listener needs from the engine. Called on the listener's thread: must not wait.
pub trait Responder: Send + Sync {
    /// The descriptor of the local segment, encoded; `null\n` while there is none.
    fn descriptor(&self) -> Vec<u8>;

    /// Takes a note.
    ///
    /// # Errors
    /// When it cannot be kept; the sender then gets no answer.
    fn notify(&self, note: Note) -> Result<()>;
}
