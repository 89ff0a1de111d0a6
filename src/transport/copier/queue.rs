//! The requests that have pieces left to take, the threads that take them, and which thread comes to which.
//!
//! Threads whose movers wait for a peer are shared out ([`Shares`]), so that peers that stand still leave some to the
//! others. Invariant: while a request waits whose peer has no thread, none is free, or one is on its way.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Assisted, THREAD_LIMIT, WAITING_THREAD_LIMIT};

/// A request that may have pieces left to take.
pub(super) struct Queued {
    pub(super) copy: Arc<Assisted>,
    /// Somebody is sure to work on it, without being woken.
    pub(super) helped: bool,
}

impl Queued {
    pub(super) fn is(&self, copy: &Assisted) -> bool {
        std::ptr::eq(&raw const *self.copy, copy)
    }
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) copies: VecDeque<Queued>,
    pub(super) threads: usize,
    /// Of these, the ones that have nothing to work on: they sleep, look, or have just been started.
    pub(super) idle: usize,
    /// Of these, the ones that come to see what there is, because a request counts on them.
    pub(super) coming: usize,
    /// Threads that look for work without having to be woken.
    pub(super) looking: usize,
    /// Of these, the ones that a request counts on.
    pub(super) claimed: usize,
    pub(super) stopped: bool,
    /// Who has the threads; `None` where they wait for nobody, so that any may have them all.
    pub(super) shares: Option<Shares>,
}

impl Queue {
    /// Threads that no request counts on.
    pub(super) fn free(&self) -> usize {
        self.idle.saturating_sub(self.coming)
    }

    /// Counts on up to `helpers` threads, of which `started` are new; answers how many of them have to be woken.
    pub(super) fn claim(&mut self, helpers: usize, started: usize) -> usize {
        let counted = self.free().min(helpers);
        self.coming += counted;
        let asleep = counted.saturating_sub(started);
        let claimed = self.looking.saturating_sub(self.claimed).min(asleep);
        self.claimed += claimed;
        asleep - claimed
    }

    /// A thread was woken, or has been started.
    pub(super) fn came(&mut self) {
        self.coming = self.coming.saturating_sub(1);
    }

    /// A thread that looked comes to see what there is.
    pub(super) fn looked(&mut self) {
        self.looking = self.looking.saturating_sub(1);
        if self.claimed > 0 {
            self.claimed -= 1;
            self.came();
        }
    }

    /// The first request that needs a thread and may have one. At the end, any.
    pub(super) fn first_alone(&self) -> Option<&Queued> {
        let mut alone = self.copies.iter().filter(|queued| !queued.helped || self.stopped);
        let Some(shares) = self.shares.as_ref().filter(|_| !self.stopped) else { return alone.next() };
        let has_none = |queued: &&Queued| shares.held_by(queued.copy.peer()) == 0;
        let without = alone.clone().find(has_none);
        // What has to stop waits for nobody any more.
        let may = |queued: &&Queued| shares.room_for(queued.copy.peer()) > 0 || queued.copy.is_overdue();
        without.or_else(|| alone.find(may))
    }

    /// A thread begins to work on the request.
    pub(super) fn begins(&mut self, copy: &Assisted) {
        self.idle = self.idle.saturating_sub(1);
        if let Some(shares) = &mut self.shares {
            shares.0.push(Arc::clone(copy.peer()));
        }
    }

    /// The thread has come to the end of that.
    pub(super) fn ends(&mut self, copy: &Assisted) {
        self.idle += 1;
        if let Some(shares) = &mut self.shares
            && let Some(place) = shares.0.iter().position(|peer| peer == copy.peer())
        {
            shares.0.swap_remove(place);
        }
    }
}

/// For each thread that works on something, the peer that it may have to wait for.
#[derive(Default)]
pub(super) struct Shares(Vec<Arc<str>>);

impl Shares {
    fn held_by(&self, peer: &Arc<str>) -> usize {
        self.0.iter().filter(|other| Arc::ptr_eq(other, peer) || *other == peer).count()
    }

    /// How many threads more the peer may have: one if it has none, and besides fewer than are left to the others.
    pub(super) fn room_for(&self, peer: &Arc<str>) -> usize {
        let held = self.held_by(peer);
        let left = WAITING_THREAD_LIMIT.saturating_sub(self.0.len());
        let most = THREAD_LIMIT.saturating_sub(held).min(left);
        (0..most).take_while(|more| held + more == 0 || held + more < left - more).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_do_not_count_on_the_same_thread() {
        let mut queue = Queue { threads: 2, idle: 2, looking: 1, ..Queue::default() };
        assert_eq!(queue.claim(1, 0), 0, "one looks");
        assert_eq!(queue.claim(1, 0), 1, "the other has to be woken");
        assert_eq!((queue.free(), queue.claim(1, 0)), (0, 0), "nobody is left");
        queue.looked();
        assert_eq!((queue.looking, queue.claimed, queue.free()), (0, 0, 1));
        queue.came();
        assert_eq!(queue.free(), 2);
        queue.idle += 1;
        assert_eq!(queue.claim(2, 1), 1, "who has just been started is awake");
    }

    #[test]
    fn a_peer_gets_less_the_less_is_left() {
        let mut shares = Shares::default();
        let peers: Vec<Arc<str>> = (0..7).map(|number| Arc::from(format!("peer {number}"))).collect();
        let mut got = Vec::new();
        for peer in &peers {
            let room = shares.room_for(peer);
            shares.0.extend(std::iter::repeat_n(Arc::clone(peer), room));
            // Another name of the same letters is the same peer.
            assert_eq!(shares.room_for(&Arc::from(&**peer)), 0, "{peer} has got all that it may");
            got.push(room);
        }
        assert_eq!(got, [4, 4, 4, 2, 1, 1, 0]);
        assert_eq!(shares.0.len(), WAITING_THREAD_LIMIT);
    }
}
