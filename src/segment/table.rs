//! The segments an engine knows: the name is the key, the id is what callers hold.
//!
//! Invariants: id 0 is the engine's own segment; others count from 1 in the order of first insertion; an id
//! is never given twice, even when its segment was removed and comes back. A name is compared as it is
//! written. Looking an id up takes one shared lock and no other.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::descriptor::{BufferDescriptor, SegmentDescriptor};
use crate::error::{Code, Error, Result, Stage};

/// What callers hold for a segment; upstream's handle is a 32-bit signed integer.
pub type SegmentId = i32;

/// The engine's own segment.
pub const LOCAL_SEGMENT: SegmentId = 0;

/// Segments known at once.
pub const MAX_SEGMENTS: usize = 1 << 20;

/// A descriptor with an index over its buffers; never changes.
#[derive(Debug)]
pub struct View {
    descriptor: Arc<SegmentDescriptor>,
    /// Start, end and position of the buffers that lie in no other one, by start; hence by end too.
    index: Vec<(u64, u64, usize)>,
}

impl View {
    /// Builds the index: n log n for n buffers, whatever a peer claims.
    #[must_use]
    pub fn new(descriptor: Arc<SegmentDescriptor>) -> Self {
        let mut ranges: Vec<(u64, u64, usize)> = descriptor
            .buffers
            .iter()
            .enumerate()
            .map(|(position, buffer)| (buffer.address, buffer.end(), position))
            .collect();
        ranges.sort_unstable_by_key(|(start, end, position)| (*start, std::cmp::Reverse(*end), *position));
        let mut index: Vec<(u64, u64, usize)> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if index.last().is_none_or(|(_, end, _)| range.1 > *end) {
                index.push(range);
            }
        }
        Self { descriptor, index }
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> &Arc<SegmentDescriptor> {
        &self.descriptor
    }

    /// A buffer that holds the whole range. Ranges that span two buffers lie in none.
    #[must_use]
    pub fn find(&self, address: u64, length_bytes: u64) -> Option<&BufferDescriptor> {
        let end = address.checked_add(length_bytes)?;
        let behind = self.index.partition_point(|(start, ..)| *start <= address);
        let (_, last, position) = self.index.get(behind.checked_sub(1)?)?;
        if end > *last {
            return None;
        }
        self.descriptor.buffers.get(*position)
    }
}

/// One known segment.
#[derive(Debug)]
pub struct Segment {
    /// Its id.
    pub id: SegmentId,
    /// The name it was opened under.
    pub name: String,
    view: RwLock<Arc<View>>,
}

impl Segment {
    /// The current descriptor with its index; take it once for each submission.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// The current descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Arc<SegmentDescriptor> {
        Arc::clone(self.view.read().descriptor())
    }

    /// A copy of the buffer that holds the whole range; [`View::find`] copies nothing.
    #[must_use]
    pub fn find(&self, address: u64, length_bytes: u64) -> Option<BufferDescriptor> {
        self.view().find(address, length_bytes).cloned()
    }

    fn replace(&self, descriptor: Arc<SegmentDescriptor>) {
        let view = Arc::new(View::new(descriptor));
        *self.view.write() = view;
    }
}

struct Known {
    by_id: HashMap<SegmentId, Arc<Segment>>,
    by_name: HashMap<String, SegmentId>,
    last_id: SegmentId,
}

/// All segments of one engine.
pub struct SegmentTable {
    known: RwLock<Known>,
}

impl SegmentTable {
    /// A table that knows the local segment only, with a descriptor that has nothing but the name.
    #[must_use]
    pub fn new(local_name: &str) -> Self {
        let descriptor = SegmentDescriptor { name: local_name.to_owned(), ..SegmentDescriptor::default() };
        let local = new_segment(LOCAL_SEGMENT, local_name, Arc::new(descriptor));
        Self {
            known: RwLock::new(Known {
                by_id: HashMap::from([(LOCAL_SEGMENT, local)]),
                by_name: HashMap::from([(local_name.to_owned(), LOCAL_SEGMENT)]),
                last_id: LOCAL_SEGMENT,
            }),
        }
    }

    /// Adds a segment, or replaces the descriptor of the one with this name. Gives its id.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] when [`MAX_SEGMENTS`] are known or the ids are used up.
    pub fn insert(&self, name: &str, descriptor: Arc<SegmentDescriptor>) -> Result<SegmentId> {
        if let Some(segment) = self.by_name(name) {
            segment.replace(descriptor);
            return Ok(segment.id);
        }
        let mut known = self.known.write();
        if let Some(id) = known.by_name.get(name).copied() {
            if let Some(segment) = known.by_id.get(&id) {
                segment.replace(descriptor);
            }
            return Ok(id);
        }
        let full = |what: &str| Err(Error::new(Code::TooManyRequests, Stage::Resolve, what).peer(name));
        if known.by_id.len() >= MAX_SEGMENTS {
            return full("too many segments are open").map_err(|error| error.advice("remove unused ones"));
        }
        let id = known.last_id.saturating_add(1);
        if id == known.last_id {
            return full("the segment ids of this engine are used up");
        }
        known.last_id = id;
        known.by_id.insert(id, new_segment(id, name, descriptor));
        known.by_name.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The segment with this id.
    #[must_use]
    pub fn get(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.known.read().by_id.get(&id).cloned()
    }

    /// The segment opened under this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Segment>> {
        let known = self.known.read();
        known.by_name.get(name).and_then(|id| known.by_id.get(id)).cloned()
    }

    /// Gives the segment another descriptor. False when the id is not known.
    pub fn replace(&self, id: SegmentId, descriptor: Arc<SegmentDescriptor>) -> bool {
        match self.get(id) {
            Some(segment) => {
                segment.replace(descriptor);
                true
            }
            None => false,
        }
    }

    /// Forgets a remote segment; its id stays used up. The local segment cannot be forgotten.
    pub fn remove(&self, name: &str) -> Option<Arc<Segment>> {
        let mut known = self.known.write();
        let id = known.by_name.get(name).copied().filter(|id| *id != LOCAL_SEGMENT)?;
        known.by_name.remove(name);
        known.by_id.remove(&id)
    }

    /// All ids, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<SegmentId> {
        let mut ids: Vec<_> = self.known.read().by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }
}

fn new_segment(id: SegmentId, name: &str, descriptor: Arc<SegmentDescriptor>) -> Arc<Segment> {
    let view = RwLock::new(Arc::new(View::new(descriptor)));
    Arc::new(Segment { id, name: name.to_owned(), view })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(ranges: &[(u64, u64)]) -> Arc<SegmentDescriptor> {
        let buffers = ranges
            .iter()
            .map(|(address, length_bytes)| BufferDescriptor {
                name: format!("{address}"),
                address: *address,
                length_bytes: *length_bytes,
                device_id: None,
            })
            .collect();
        Arc::new(SegmentDescriptor {
            name: "h:1".into(),
            protocol: "tcp".into(),
            buffers,
            ..Default::default()
        })
    }

    #[test]
    fn ids_count_by_first_opening_and_are_never_given_twice() {
        let table = SegmentTable::new("me:1");
        assert_eq!(table.insert("localhost:5", descriptor(&[])).unwrap(), 1);
        assert_eq!(table.insert("127.0.0.1:5", descriptor(&[])).unwrap(), 2);
        assert_eq!(table.insert("localhost:5", descriptor(&[])).unwrap(), 1);
        assert_eq!(table.insert("me:1", descriptor(&[])).unwrap(), LOCAL_SEGMENT);
        assert!(table.remove("localhost:5").is_some());
        assert!(table.remove("localhost:5").is_none());
        assert!(table.get(1).is_none());
        assert_eq!(table.insert("localhost:5", descriptor(&[])).unwrap(), 3);
        assert_eq!(table.ids(), [0, 2, 3]);
        assert!(table.remove("me:1").is_none(), "the local segment stays");
    }

    #[test]
    fn a_replaced_descriptor_leaves_views_in_use_alone() {
        let table = SegmentTable::new("me:1");
        let id = table.insert("p", descriptor(&[(100, 10)])).unwrap();
        let segment = table.get(id).unwrap();
        let before = segment.view();
        assert!(table.replace(id, descriptor(&[(200, 10)])));
        assert!(before.find(100, 10).is_some());
        assert!(segment.find(100, 10).is_none());
        assert!(segment.find(200, 10).is_some());
        assert!(!table.replace(99, descriptor(&[])));
    }

    #[test]
    fn a_range_is_found_in_one_buffer_only() {
        let view = View::new(descriptor(&[(200, 100), (100, 100), (1000, 1)]));
        let found = |address, length| view.find(address, length).map(|buffer| buffer.address);
        assert_eq!(found(100, 100), Some(100));
        assert_eq!(found(250, 50), Some(200));
        assert_eq!(found(150, 100), None, "spans two buffers");
        assert_eq!(found(99, 1), None);
        assert_eq!(found(1000, 2), None);
        assert_eq!(found(1000, u64::MAX), None);
    }

    #[test]
    fn overlapping_claims_are_found_as_by_a_plain_search() {
        // Nested, equal and overlapping ranges, as only a careless or hostile peer publishes them.
        let ranges = [(10, 90), (20, 5), (20, 200), (20, 200), (50, 100), (215, 10), (219, 1), (220, 30)];
        let descriptor = descriptor(&ranges);
        let view = View::new(Arc::clone(&descriptor));
        for address in 0..260 {
            for length in [1, 2, 5, 30, 100] {
                let plain = descriptor.buffers.iter().any(|buffer| buffer.contains(address, length));
                assert_eq!(view.find(address, length).is_some(), plain, "{address}+{length}");
            }
        }
    }
}
