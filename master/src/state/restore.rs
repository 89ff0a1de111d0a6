//! Between the state and what the journal knows of it.

use std::collections::HashMap;
use std::sync::Arc;

use mooncake_wire::model::Uuid;
use smallvec::SmallVec;

use super::object::{Object, Replica, Replicas};
use super::segment::{Range, Segment, SegmentStatus};
use super::{Quarantined, State};
use crate::journal::{ObjectRecord, Replayed, ReplicaRecord};
use crate::moment::Moment;

fn replica_records(replicas: &Replicas) -> SmallVec<[ReplicaRecord; 1]> {
    replicas
        .iter()
        .map(|replica| ReplicaRecord {
            id: replica.id,
            segment: replica.range.segment().id,
            offset: replica.range.offset(),
        })
        .collect()
}

impl Object {
    /// The object as the journal knows it.
    pub(super) fn record(&self) -> ObjectRecord<'_> {
        ObjectRecord {
            id: self.id,
            key: &self.key,
            length: self.length(),
            owner: self.owner,
            complete: self.complete(),
            hard_pin: self.hard_pin,
            data_type: self.data_type,
            soft_pin_ttl_ms: self.soft_pin_ttl_ms,
            checksum: self.checksum,
            group: self.group.as_deref(),
            replicas: replica_records(&self.replicas),
        }
    }
}

impl Quarantined {
    /// Space that is in use by nobody: an unfinished put without a key, which no restart makes readable.
    pub(super) fn record(&self) -> ObjectRecord<'_> {
        ObjectRecord {
            id: self.object,
            key: &[],
            length: self.replicas.first().map_or(0, |replica| replica.range.length()),
            owner: Uuid::default(),
            complete: false,
            hard_pin: false,
            data_type: 0,
            soft_pin_ttl_ms: 0,
            checksum: None,
            group: None,
            replicas: replica_records(&self.replicas),
        }
    }
}

impl State {
    /// Takes over what a journal says: its segments wait to be mounted again, and its objects with them. Answers how
    /// many objects wait.
    pub fn restore(&self, replayed: Replayed, now: Moment) -> usize {
        for shard in &self.shards {
            shard.lock().ids_from(replayed.next_id);
        }
        let mut segments: HashMap<Uuid, Arc<Segment>> = HashMap::new();
        self.may_be_told(replayed.segments.iter().map(|(segment, _)| segment));
        for (description, client) in &replayed.segments {
            let segment = Arc::new(Segment::new(description, *client, SegmentStatus::Awaiting, now));
            segments.insert(segment.id, Arc::clone(&segment));
            self.pool.await_segment(segment);
        }
        let mut restored = 0;
        for record in replayed.objects {
            let replicas: Replicas = record
                .replicas
                .iter()
                .filter_map(|replica| {
                    let segment = segments.get(&replica.segment)?;
                    let range = Range::claim(segment, replica.offset, record.length);
                    if range.is_none() {
                        log::error!("journal: object {} overlaps another one and is left out", record.id);
                    }
                    Some(Replica { id: replica.id, range: range?, complete: record.complete })
                })
                .collect();
            if replicas.is_empty() {
                continue;
            }
            let object = Object {
                id: record.id,
                owner: record.owner,
                put_started: now,
                lease_until: now,
                soft_pin_until: if record.complete && record.soft_pin_ttl_ms > 0 {
                    now.after_ms(record.soft_pin_ttl_ms)
                } else {
                    Moment::NEVER
                },
                soft_pin_ttl_ms: record.soft_pin_ttl_ms,
                checksum: record.checksum,
                group: record.group.as_deref().map(Arc::from),
                replicas,
                hard_pin: record.hard_pin,
                data_type: record.data_type,
                key: record.key,
            };
            if object.key.is_empty() {
                self.quarantine(object, now.after_ms(self.policy.put_release_ms), now);
                continue;
            }
            restored += usize::from(record.complete);
            let key = object.key.clone();
            let hashed = self.hashed(&key);
            // Objects come in the order they were made: an older one of the same key was set aside by the newer.
            let older = self.shard(hashed).insert(hashed.hash, Box::new(object));
            if let Some(older) = older {
                self.quarantine(*older, now.after_ms(self.policy.put_release_ms), now);
            }
        }
        self.metrics.objects_restored.add(restored as u64);
        restored
    }
}
