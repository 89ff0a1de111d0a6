//! Which connection stands for which peer, and who may open the next one.
//!
//! Invariants: a peer has at most one live connection; a new one is only made when the handler has been told of
//! the loss of the last one; of two openings that cross, that of the lower incarnation stays.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::connection::Connection;
use super::message::Hello;
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};

/// Peers with a live connection at once.
pub const MAX_PEERS: usize = 4096;

/// Peers of which something is remembered.
const MAX_REMEMBERED: usize = 4 * MAX_PEERS;

#[derive(Default)]
struct Entry {
    live: Option<Arc<Connection>>,
    /// A thread of ours is opening one.
    opening: bool,
    /// The handler is being told of the loss of the last one.
    losing: bool,
    /// The last connection known to be over.
    previous: Option<String>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Incarnation, Entry>,
    live: usize,
    stopped: bool,
}

/// What a thread that wants a connection has to do.
pub(super) enum Claim {
    /// There is one.
    Live(Arc<Connection>),
    /// Open one; `previous` goes into the hello. [`Peers::finish`] or [`Peers::give_up`] must follow.
    Open { previous: Option<String> },
}

/// What becomes of a peer's hello.
pub(super) enum Verdict {
    /// Taken; the connection is registered.
    Taken,
    /// Not now: the peer tries again or finds the connection that crossed with its own.
    Later(&'static str),
    /// Not now: the peer has lost the connection that is live here, which must be dropped first.
    Replace(Arc<Connection>),
    /// Never.
    Refused(Error),
}

/// All peers of one engine.
#[derive(Default)]
pub(super) struct Peers {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Peers {
    /// Every live connection.
    pub(super) fn all_live(&self) -> Vec<Arc<Connection>> {
        self.table.lock().entries.values().filter_map(|entry| entry.live.clone()).collect()
    }

    /// The live connection of a peer.
    pub(super) fn live(&self, peer: &Incarnation) -> Option<Arc<Connection>> {
        let table = self.table.lock();
        table.entries.get(peer)?.live.clone().filter(|connection| connection.is_alive())
    }

    /// Waits until there is a connection or until the caller is the one to open it.
    pub(super) fn claim(&self, peer: &Incarnation, deadline: Deadline) -> Result<Claim> {
        let mut table = self.table.lock();
        loop {
            if table.stopped {
                return Err(stopped());
            }
            forget_some(&mut table);
            let entry = table.entries.entry(peer.clone()).or_default();
            match &entry.live {
                Some(connection) if connection.is_alive() => {
                    return Ok(Claim::Live(Arc::clone(connection)));
                }
                // The loop takes it out soon.
                Some(_) => {}
                None if entry.opening || entry.losing => {}
                None => {
                    entry.opening = true;
                    return Ok(Claim::Open { previous: entry.previous.clone() });
                }
            }
            if self.changed.wait_until(&mut table, deadline.at()).timed_out() && deadline.expired() {
                let text = format!(
                    "no control connection to {peer} in time: another attempt or its end takes too long"
                );
                return Err(Error::new(Code::Timeout, Stage::Connect, text));
            }
        }
    }

    /// An opening that succeeded. Gives the connection that stays: `connection`, or one that crossed with it.
    pub(super) fn finish(&self, peer: &Incarnation, connection: &Arc<Connection>) -> Result<Arc<Connection>> {
        let mut table = self.table.lock();
        let result = finish_locked(&mut table, peer, connection);
        drop(table);
        self.changed.notify_all();
        result
    }

    /// An opening that failed; `attempt` is over.
    pub(super) fn give_up(&self, peer: &Incarnation, attempt: &str) {
        let mut table = self.table.lock();
        if let Some(entry) = table.entries.get_mut(peer) {
            entry.opening = false;
            if entry.live.is_none() {
                entry.previous = Some(attempt.to_owned());
            }
        }
        drop(table);
        self.changed.notify_all();
    }

    /// Waits for a change, at most until `deadline`: for a connection that crossed with one's own.
    pub(super) fn wait(&self, peer: &Incarnation, deadline: Deadline) {
        let mut table = self.table.lock();
        if table.entries.get(peer).is_none_or(|entry| entry.live.is_none() && !entry.losing) && !table.stopped
        {
            let _ = self.changed.wait_until(&mut table, deadline.at());
        }
    }

    /// Decides on the hello of a peer, and registers `connection` if it is taken.
    pub(super) fn judge(&self, own: &Incarnation, hello: &Hello, connection: &Arc<Connection>) -> Verdict {
        let mut table = self.table.lock();
        if table.stopped {
            return Verdict::Refused(stopped());
        }
        if table.live >= MAX_PEERS {
            let text = format!("{MAX_PEERS} peers are connected already");
            return Verdict::Refused(Error::new(Code::TooManyRequests, Stage::Connect, text));
        }
        forget_some(&mut table);
        let entry = table.entries.entry(hello.incarnation.clone()).or_default();
        if entry.losing {
            return Verdict::Later("the end of the last connection is being handled");
        }
        if let Some(live) = &entry.live {
            if live.is_alive() && hello.previous.as_deref() == Some(live.peer().connection.as_str()) {
                return Verdict::Replace(Arc::clone(live));
            }
            return Verdict::Later("there is a connection already");
        }
        if entry.opening && *own < hello.incarnation {
            return Verdict::Later("both sides open a connection, and the other one stays");
        }
        entry.live = Some(Arc::clone(connection));
        table.live = table.live.saturating_add(1);
        drop(table);
        self.changed.notify_all();
        Verdict::Taken
    }

    /// Takes a connection out. True when it stood for its peer: then [`Peers::lost_told`] must follow if
    /// `losing`.
    pub(super) fn remove(&self, connection: &Arc<Connection>, losing: bool) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&connection.peer().incarnation) else { return false };
        if !entry.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, connection)) {
            return false;
        }
        entry.live = None;
        entry.losing = losing;
        entry.previous = Some(connection.peer().connection.clone());
        table.live = table.live.saturating_sub(1);
        drop(table);
        self.changed.notify_all();
        true
    }

    /// The handler has been told of a loss: the next connection may come.
    pub(super) fn lost_told(&self, peer: &Incarnation) {
        if let Some(entry) = self.table.lock().entries.get_mut(peer) {
            entry.losing = false;
        }
        self.changed.notify_all();
    }

    /// No connection can be made any more.
    pub(super) fn stop(&self) {
        self.table.lock().stopped = true;
        self.changed.notify_all();
    }
}

fn finish_locked(
    table: &mut Table,
    peer: &Incarnation,
    connection: &Arc<Connection>,
) -> Result<Arc<Connection>> {
    let (stop, full) = (table.stopped, table.live >= MAX_PEERS);
    let entry = table.entries.entry(peer.clone()).or_default();
    entry.opening = false;
    if stop {
        return Err(stopped());
    }
    if let Some(live) = entry.live.clone().filter(|live| live.is_alive()) {
        return Ok(live);
    }
    if entry.live.is_some() {
        // Taken out by the loop at any moment; its loss has to be told before the next may come.
        let text = "a connection that crossed with this one broke at once";
        return Err(Error::new(Code::Socket, Stage::Connect, text));
    }
    if full {
        let text = format!("{MAX_PEERS} peers are connected already");
        return Err(Error::new(Code::TooManyRequests, Stage::Connect, text));
    }
    entry.live = Some(Arc::clone(connection));
    table.live = table.live.saturating_add(1);
    Ok(Arc::clone(connection))
}

/// Forgets peers of which only the name of an old connection is known, when they become too many.
fn forget_some(table: &mut Table) {
    if table.entries.len() >= MAX_REMEMBERED {
        table.entries.retain(|_, entry| entry.live.is_some() || entry.opening || entry.losing);
    }
}

pub(super) fn stopped() -> Error {
    Error::new(Code::StaleHandle, Stage::Connect, "the engine is closed")
}
