//! What happens by the passing of time: eviction, silence of clients, unfinished puts, the journal's compaction.

use std::sync::atomic::Ordering;

use super::object::Standing;
use super::segment::SegmentStatus;
use super::{SHARDS, State};
use crate::journal::{Journal, Record};
use crate::moment::Moment;

/// How often clients are looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;
/// Most time between two searches for unfinished puts, in milliseconds; each looks at every object of the shards in
/// which a put is under way, and under load that is all of them.
const MAX_SWEEP_EVERY_MS: u64 = 30_000;

impl State {
    /// To be called every few milliseconds.
    pub fn tick(&self, now: Moment) {
        self.evict_if_needed(now);
        if now.0 >= self.next_look.load(Ordering::Acquire) {
            self.next_look.store(now.after_ms(LOOK_EVERY_MS).0, Ordering::Release);
            self.look_at_clients(now);
            self.release_quarantined(now);
        }
        if now.0 >= self.next_sweep.load(Ordering::Acquire) {
            let every_ms = (self.policy.put_release_ms / 20).clamp(LOOK_EVERY_MS, MAX_SWEEP_EVERY_MS);
            self.next_sweep.store(now.after_ms(every_ms).0, Ordering::Release);
            self.sweep(now);
        }
        self.flush();
    }

    /// Acts on everything whose time is over, at once.
    pub fn look(&self, now: Moment) {
        self.look_at_clients(now);
        self.release_quarantined(now);
        self.sweep(now);
    }

    fn look_at_clients(&self, now: Moment) {
        let policy = &self.policy;
        let silence = self.pool.look(now, policy.suspect_ms(), policy.client_ttl_ms, policy.restore_wait_ms);
        for client in &silence.suspected {
            self.metrics.clients_suspected.increment();
            log::warn!("client {client} is silent: its segments take no new puts until it is heard again");
        }
        for client in &silence.expired {
            self.metrics.clients_expired.increment();
            log::warn!(
                "client {client} was silent for {} ms: its segments are unmounted",
                policy.client_ttl_ms
            );
        }
        for segment in &silence.lost {
            self.segment_gone(segment);
        }
    }

    /// Gives back the space of puts that never ended, and of those that ended in a segment that had gone.
    fn sweep(&self, now: Moment) {
        // An object can join the table after its segment has left it.
        let search = self
            .searches
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
            .is_ok();
        let limit = Moment(now.0.saturating_sub(self.policy.put_release_ms));
        for index in 0..SHARDS {
            let mut shard = self.shard_at(index);
            shard.extract_unfinished(limit, |object| {
                self.metrics.puts_released.increment();
                self.discard(object);
            });
            if search {
                shard.drop_replicas_in(
                    |segment| segment.status() == SegmentStatus::Gone,
                    |object| self.discard(object),
                );
            }
        }
    }

    /// Gives back the space whose quarantine is over.
    pub(super) fn release_quarantined(&self, now: Moment) {
        let mut quarantine = self.quarantine.lock();
        while quarantine.peek().is_some_and(|quarantined| quarantined.until <= now) {
            if let Some(quarantined) = quarantine.pop() {
                self.metrics.puts_released.increment();
                self.record(&Record::Dropped { id: quarantined.object });
                drop(quarantined);
            }
        }
    }

    /// Compacts the journal if it is worth while.
    pub fn compact_journal_if_wanted(&self) {
        if self.journal.as_ref().is_some_and(Journal::wants_compaction) {
            self.compact_journal();
        }
    }

    /// Compacts the journal. Takes a while, on a thread that may.
    pub fn compact_journal(&self) {
        let Some(journal) = &self.journal else {
            return;
        };
        // Records are gathered under a shard's lock and written without it.
        let written = journal.compact(|write| {
            let mut records = Vec::new();
            for segment in self.pool.segments() {
                Record::Mounted(segment.description(), segment.client).write(&mut records);
            }
            for index in 0..SHARDS {
                for object in self.shard_at(index).iter().filter(|object| object.standing() != Standing::Lost)
                {
                    Record::Object(object.record()).write(&mut records);
                }
                write(&records);
                records.clear();
            }
            for quarantined in self.quarantine.lock().iter() {
                Record::Object(quarantined.record()).write(&mut records);
            }
            write(&records);
        });
        match written {
            Ok(()) => log::info!("journal: compacted"),
            Err(error) => log::warn!("journal: not compacted: {error}"),
        }
    }
}
