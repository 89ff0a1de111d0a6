//! The requests that have pieces left to take, the threads that take them, and which thread comes to which.
//!
//! Threads whose movers wait for a peer are shared out ([`Shares`]), so that peers that stand still leave some to the
//! others.
//!
//! Invariants: while a request waits whose peer has no thread, none is free, or one is on its way. No more threads are
//! counted on than are idle and awake, and each of these sees what there is before it sleeps. Who sleeps is woken by
//! what stands here, and not by the signal: a signal may reach nobody, since a thread may just be about to wake by
//! itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

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
    /// Changed by [`push`](Self::push) and [`remove`](Self::remove) alone.
    pub(super) copies: VecDeque<Queued>,
    pub(super) threads: usize,
    /// Of these, the ones that have nothing to work on: they sleep, look, have just been started, or are between two
    /// of these.
    pub(super) idle: usize,
    /// Of the idle ones, those that sleep until they are called.
    pub(super) asleep: usize,
    /// Of the idle ones, those that were called and have not woken yet.
    called: usize,
    /// Of the idle ones that are awake or called, how many a request counts on.
    coming: usize,
    pub(super) stopped: bool,
    /// Who has the threads; `None` where they wait for nobody, so that any may have them all.
    pub(super) shares: Option<Shares>,
}

impl Queue {
    /// With threads that wait for peers, or with such as wait for nobody.
    pub(super) fn new(wait: bool) -> Self {
        Self { shares: wait.then(Shares::default), ..Self::default() }
    }

    /// Threads that no request counts on.
    pub(super) fn free(&self) -> usize {
        self.idle.saturating_sub(self.coming)
    }

    /// Counts on up to `helpers` threads, first on those that come by themselves; calls the others, and answers how
    /// many signals that takes.
    pub(super) fn claim(&mut self, helpers: usize) -> usize {
        self.coming += self.free().min(helpers);
        let awake = self.idle.saturating_sub(self.asleep);
        let more = self.coming.saturating_sub(awake).min(self.asleep);
        self.asleep -= more;
        self.called += more;
        more
    }

    /// A thread that is awake and idle sees what there is.
    pub(super) fn came(&mut self) {
        self.coming = self.coming.saturating_sub(1);
    }

    /// A thread begins to sleep, until it [is to wake](Self::wakes).
    pub(super) fn sleeps(&mut self) {
        self.asleep += 1;
    }

    /// Whether one of those that sleep is to wake.
    pub(super) fn wakes(&self) -> bool {
        self.called > 0 || self.stopped
    }

    /// A thread has woken, called or by itself.
    pub(super) fn woke(&mut self) {
        // Whoever wakes first may take a call: whom it was for sleeps on, and is counted so.
        match self.called.checked_sub(1) {
            Some(called) => self.called = called,
            None => self.asleep = self.asleep.saturating_sub(1),
        }
    }

    pub(super) fn push(&mut self, queued: Queued) {
        if let Some(shares) = &mut self.shares {
            shares.change(queued.copy.peer(), |peer| peer.waiting += 1);
        }
        self.copies.push_back(queued);
    }

    pub(super) fn remove(&mut self, copy: &Assisted) -> Option<Queued> {
        let place = self.copies.iter().position(|queued| queued.is(copy))?;
        if let Some(shares) = &mut self.shares {
            shares.change(copy.peer(), |peer| peer.waiting = peer.waiting.saturating_sub(1));
        }
        self.copies.remove(place)
    }

    /// The first request that needs a thread and may have one. At the end, any.
    pub(super) fn first_alone(&self) -> Option<&Queued> {
        let mut alone = self.copies.iter().filter(|queued| !queued.helped || self.stopped);
        let Some(shares) = self.shares.as_ref().filter(|_| !self.stopped) else { return alone.next() };
        let mut without = None;
        if shares.peers.values().any(Peer::waits_without) {
            let mut waits = shares.tells(Peer::waits_without);
            without = alone.clone().find(|queued| waits(queued));
        }
        without.or_else(|| {
            // What has to stop waits for nobody any more.
            let now = Instant::now();
            let mut has_room = shares.tells(|peer| shares.room_beside(peer.threads) > 0);
            alone.find(|queued| has_room(queued) || queued.copy.is_overdue(now))
        })
    }

    /// A thread begins to work on the request.
    pub(super) fn begins(&mut self, copy: &Assisted) {
        self.idle = self.idle.saturating_sub(1);
        if let Some(shares) = &mut self.shares {
            shares.begins(copy.peer());
        }
    }

    /// The thread has come to the end of that.
    pub(super) fn ends(&mut self, copy: &Assisted) {
        self.idle += 1;
        if let Some(shares) = &mut self.shares {
            shares.ends(copy.peer());
        }
    }
}

/// What a peer has to do with the threads.
#[derive(Default)]
struct Peer {
    /// Its requests in the queue.
    waiting: usize,
    /// Threads that work on something of its, and may have to wait for it.
    threads: usize,
}

impl Peer {
    fn waits_without(&self) -> bool {
        self.waiting > 0 && self.threads == 0
    }
}

/// Which peer has how many of the threads; only those are known here that have or want any.
#[derive(Default)]
pub(super) struct Shares {
    peers: HashMap<Arc<str>, Peer>,
    /// Threads of all of them.
    threads: usize,
}

impl Shares {
    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Peer)) {
        let peer = self.peers.entry(Arc::clone(name)).or_default();
        change(peer);
        if peer.waiting == 0 && peer.threads == 0 {
            self.peers.remove(name);
        }
    }

    fn begins(&mut self, peer: &Arc<str>) {
        self.threads += 1;
        self.change(peer, |peer| peer.threads += 1);
    }

    fn ends(&mut self, peer: &Arc<str>) {
        self.threads = self.threads.saturating_sub(1);
        self.change(peer, |peer| peer.threads = peer.threads.saturating_sub(1));
    }

    /// What tells of one request after another whether something is so of its peer; neighbours are mostly of one peer.
    fn tells<'a>(&'a self, of: impl Fn(&Peer) -> bool + 'a) -> impl FnMut(&'a Queued) -> bool {
        let mut last: Option<(&Arc<str>, bool)> = None;
        move |queued| {
            let name = queued.copy.peer();
            match last {
                Some((known, is_so)) if Arc::ptr_eq(known, name) => is_so,
                _ => {
                    let is_so = self.peers.get(name).is_some_and(&of);
                    last = Some((name, is_so));
                    is_so
                }
            }
        }
    }

    /// How many threads more the peer may have: one if it has none, and besides fewer than are left to the others.
    pub(super) fn room_for(&self, peer: &str) -> usize {
        self.room_beside(self.peers.get(peer).map_or(0, |peer| peer.threads))
    }

    /// The same for one that has `held` already.
    fn room_beside(&self, held: usize) -> usize {
        let left = WAITING_THREAD_LIMIT.saturating_sub(self.threads);
        let most = THREAD_LIMIT.saturating_sub(held).min(left);
        (0..most).take_while(|more| held + more == 0 || held + more < left - more).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_on_each_thread_once_and_wakes_only_who_sleeps() {
        let mut queue = Queue { threads: 2, idle: 2, ..Queue::default() };
        queue.sleeps();
        assert_eq!(queue.claim(1), 0, "one is awake");
        assert_eq!(queue.claim(1), 1, "the other has to be woken");
        assert_eq!((queue.free(), queue.claim(1)), (0, 0), "nobody is left");
        assert!(queue.wakes());
        queue.woke();
        assert!(!queue.wakes());
        queue.came();
        assert_eq!((queue.free(), queue.claim(1)), (1, 0), "it has come, and has not gone to sleep again");
        queue.came();
        queue.came();
        queue.sleeps();
        queue.sleeps();
        assert_eq!(queue.free(), 2);
        queue.idle += 1;
        assert_eq!(queue.claim(2), 1, "who has just been started is awake");
    }

    /// The signal for it reaches nobody then.
    #[test]
    fn who_was_called_when_it_woke_by_itself_is_free_again_later() {
        let mut queue = Queue { threads: 1, idle: 1, ..Queue::default() };
        for _ in 0..3 {
            queue.sleeps();
            assert_eq!(queue.claim(1), 1);
            queue.woke();
            queue.came();
            assert_eq!((queue.free(), queue.asleep, queue.called), (1, 0, 0));
        }
        // One that was not called takes the call of another, which sleeps on.
        queue.idle += 1;
        queue.sleeps();
        assert_eq!(queue.claim(2), 1);
        queue.came();
        queue.sleeps();
        assert!(queue.wakes());
        queue.woke();
        queue.came();
        assert_eq!((queue.free(), queue.asleep, queue.called), (2, 1, 0));
    }

    #[test]
    fn a_peer_gets_less_the_less_is_left() {
        let mut shares = Shares::default();
        let peers: Vec<Arc<str>> = (0..7).map(|number| Arc::from(format!("peer {number}"))).collect();
        let mut got = Vec::new();
        for peer in &peers {
            let room = shares.room_for(peer);
            for _ in 0..room {
                shares.begins(peer);
            }
            assert_eq!(shares.room_for(peer), 0, "{peer} has got all that it may");
            got.push(room);
        }
        assert_eq!(got, [4, 4, 4, 2, 1, 1, 0]);
        assert_eq!(shares.threads, WAITING_THREAD_LIMIT);
        // Another name of the same letters is the same peer.
        for (peer, threads) in peers.iter().zip(got) {
            (0..threads).for_each(|_| shares.ends(&Arc::from(&**peer)));
        }
        assert!(shares.peers.is_empty() && shares.threads == 0);
    }
}
