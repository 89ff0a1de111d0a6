//! Who lends what: clients, their segments, and the view of the segments that allocation works with.
//!
//! Liveness has two steps. A client that is silent for a while becomes *suspect*: its segments are read from, and take
//! no new puts; one heartbeat clears that. Only when the full time to live has passed is it *expired* and its segments
//! are gone.
//!
//! Before the first step there is a hint. When the last connection closes on which a client has pinged or mounted, it
//! has most likely ended, and a writer sent to its memory would fail until it is suspect. Its segments are *doubtful*
//! until it is heard again: puts pass them over as long as another segment has room, or gets it by one eviction; what
//! lies there is evicted for a put only when that is to go there because the others have nothing left to give; readers
//! are told of other replicas first. A client that only changes its connection loses nothing by that: its next
//! heartbeat, a second later, ends it, nothing was unmounted, and a pool that has no other segment goes on, be it full.
//! (A failed transfer is no such hint: the writer that revokes its put may be the one that is cut off, and would turn
//! the whole pool against its owners.)

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mooncake_wire::model::{self, PingAnswer, Uuid};
use mooncake_wire::{ErrorCode, Outcome};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::segment::{Segment, SegmentStatus};
use crate::moment::Moment;

/// Most segments of one pool, and most clients: far above any cluster, and a bound on a hostile one.
const MAX_SEGMENTS: usize = 65_536;
const MAX_CLIENTS: usize = 65_536;
/// Most connections of one client that are remembered; if all of these close, the client is in doubt until it is heard.
const MAX_CONNECTIONS_PER_CLIENT: usize = 64;

#[derive(Debug)]
struct Client {
    last_seen: Moment,
    remounted: bool,
    suspect: bool,
    doubtful: bool,
    /// Open connections on which it has pinged or mounted.
    connections: SmallVec<[u64; 2]>,
}

#[derive(Debug, Default)]
struct Inner {
    clients: HashMap<Uuid, Client>,
    segments: HashMap<Uuid, Arc<Segment>>,
    leaving: Vec<(Moment, Uuid)>,
}

/// Segments that share a name: replicas of one object never share a name.
#[derive(Debug)]
pub struct Named {
    /// The name.
    pub name: Arc<str>,
    /// The segments of that name which take puts.
    pub segments: Vec<Arc<Segment>>,
}

/// The segments that take puts, ordered by name: a snapshot that a call works with from its start to its end.
#[derive(Debug, Default)]
pub struct View {
    /// By name.
    pub names: Vec<Named>,
    /// Those whose client is in doubt, for when no other has room; none if there are none.
    pub doubtful: Option<Box<View>>,
}

impl View {
    /// The position of a name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|named| (*named.name).cmp(name)).ok()
    }

    /// Whether a segment could hold so many bytes if it were empty.
    #[must_use]
    pub fn has_segment_of(&self, length: u64) -> bool {
        self.names.iter().flat_map(|named| &named.segments).any(|segment| segment.size >= length)
    }
}

/// What changed about a segment.
#[derive(Debug)]
pub enum Mounted {
    /// It is new.
    New(Arc<Segment>),
    /// It was mounted already.
    Same,
    /// It came back: the objects that waited for it are readable again.
    Returned(Arc<Segment>),
    /// Another segment with this id was known and is gone now.
    Replaced {
        /// The one that is gone.
        old: Arc<Segment>,
        /// The one that is mounted.
        new: Arc<Segment>,
    },
    /// Another segment at the same place is gone, since its process must be.
    Displaced(Arc<Segment>),
}

/// The registry.
#[derive(Debug, Default)]
pub struct Pool {
    inner: Mutex<Inner>,
    view: RwLock<Arc<View>>,
    /// Whether the view is older than the last doubt: many clients may go at once, and the next put makes one view for
    /// all.
    stale: AtomicBool,
}

/// What a look at the clients' silence led to.
#[derive(Debug, Default)]
pub struct Silence {
    /// Segments that are gone now.
    pub lost: Vec<Arc<Segment>>,
    /// Clients that are expired now and lent something.
    pub expired: Vec<Uuid>,
    /// Clients that are suspect now and lend something.
    pub suspected: Vec<Uuid>,
}

impl Pool {
    /// The segments that take puts.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        if self.stale.load(Ordering::Acquire) {
            self.refresh();
        }
        Arc::clone(&self.view.read())
    }

    fn rebuild(&self, inner: &Inner) {
        self.stale.store(false, Ordering::Release);
        let doubtful = Self::named(inner, SegmentStatus::Doubtful);
        let doubtful = (!doubtful.is_empty()).then(|| Box::new(View { names: doubtful, doubtful: None }));
        let names = Self::named(inner, SegmentStatus::Mounted);
        *self.view.write() = Arc::new(View { names, doubtful });
    }

    fn named(inner: &Inner, status: SegmentStatus) -> Vec<Named> {
        let mut segments: Vec<_> =
            inner.segments.values().filter(|segment| segment.status() == status).cloned().collect();
        segments.sort_unstable_by(|left, right| (&left.name, left.id).cmp(&(&right.name, right.id)));
        let mut names: Vec<Named> = Vec::new();
        for segment in segments {
            match names.last_mut() {
                Some(named) if named.name == segment.name => named.segments.push(segment),
                _ => names.push(Named { name: Arc::clone(&segment.name), segments: vec![segment] }),
            }
        }
        names
    }

    /// Brings the view up to date with doubts that came since.
    #[cold]
    fn refresh(&self) {
        let inner = self.inner.lock();
        if self.stale.load(Ordering::Acquire) {
            self.rebuild(&inner);
        }
    }

    /// Notes that a client was heard on a connection. False if the client is not known.
    pub fn heard_on(&self, client: Uuid, connection: u64) -> bool {
        let mut inner = self.inner.lock();
        let Some(known) = inner.clients.get_mut(&client) else {
            return false;
        };
        if !known.connections.contains(&connection) && known.connections.len() < MAX_CONNECTIONS_PER_CLIENT {
            known.connections.push(connection);
        }
        true
    }

    /// Notes that a connection has closed; answers which of its clients are in doubt now.
    pub fn closed(&self, connection: u64, clients: &[Uuid]) -> Vec<Uuid> {
        let mut inner = self.inner.lock();
        let Inner { clients: known, segments, .. } = &mut *inner;
        let mut doubtful = Vec::new();
        for id in clients {
            let Some(client) = known.get_mut(id) else {
                continue;
            };
            client.connections.retain(|open| *open != connection);
            if !client.connections.is_empty() {
                continue;
            }
            let lent = segments
                .values()
                .filter(|lent| lent.client == *id && lent.status() == SegmentStatus::Mounted);
            let mut lends = false;
            for segment in lent {
                segment.set_status(SegmentStatus::Doubtful);
                lends = true;
            }
            if lends {
                client.doubtful = true;
                doubtful.push(*id);
                self.stale.store(true, Ordering::Release);
            }
        }
        doubtful
    }

    /// Every segment that is not gone.
    #[must_use]
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.inner.lock().segments.values().cloned().collect()
    }

    /// The segment with this id.
    #[must_use]
    pub fn segment(&self, id: Uuid) -> Option<Arc<Segment>> {
        self.inner.lock().segments.get(&id).cloned()
    }

    /// Clients that have mounted everything they lend.
    #[must_use]
    pub fn active_clients(&self) -> usize {
        self.inner.lock().clients.values().filter(|client| client.remounted).count()
    }

    /// Notes a sign of life; clears doubt and suspicion. True if segments take puts again.
    fn seen(inner: &mut Inner, client: Uuid, now: Moment, remounted: bool) -> Outcome<bool> {
        let room = inner.clients.len() < MAX_CLIENTS;
        match inner.clients.get_mut(&client) {
            Some(known) => {
                known.last_seen = now;
                known.remounted |= remounted;
                let (suspect, doubtful) =
                    (std::mem::take(&mut known.suspect), std::mem::take(&mut known.doubtful));
                if !suspect && !doubtful {
                    return Ok(false);
                }
            }
            None if room => {
                let connections = SmallVec::new();
                let known =
                    Client { last_seen: now, remounted, suspect: false, doubtful: false, connections };
                inner.clients.insert(client, known);
                return Ok(false);
            }
            None => return Err(ErrorCode::UNAVAILABLE_IN_CURRENT_STATUS),
        }
        for segment in inner.segments.values() {
            if segment.client == client && segment.status().in_doubt() {
                segment.set_status(SegmentStatus::Mounted);
            }
        }
        Ok(true)
    }

    /// A heartbeat. A client that is not known is told to mount again, and is not remembered.
    pub fn ping(&self, client: Uuid, now: Moment) -> PingAnswer {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let known = inner.clients.contains_key(&client);
        if known && Self::seen(inner, client, now, false) == Ok(true) {
            self.rebuild(inner);
        }
        let remounted = inner.clients.get(&client).is_some_and(|client| client.remounted);
        let client_status = if remounted { PingAnswer::OK } else { PingAnswer::NEED_REMOUNT };
        PingAnswer { view_version: 0, client_status }
    }

    /// Mounts segments of one client. The first unacceptable one ends it; those before it stay.
    pub fn mount(
        &self,
        segments: &[model::Segment],
        client: Uuid,
        remount: bool,
        now: Moment,
    ) -> (Vec<Mounted>, Outcome<()>) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut changes = Vec::new();
        let mut outcome = Self::seen(inner, client, now, remount).map(|_| ());
        for segment in segments {
            if outcome.is_err() {
                break;
            }
            match Self::mount_one(inner, segment, client, now) {
                Ok(Mounted::Same) => changes.push(Mounted::Same),
                Ok(change) => {
                    changes.extend(Self::displaced(inner, segment).into_iter().map(Mounted::Displaced));
                    changes.push(change);
                }
                Err(code) => outcome = Err(code),
            }
        }
        self.rebuild(inner);
        (changes, outcome)
    }

    fn mount_one(inner: &mut Inner, segment: &model::Segment, client: Uuid, now: Moment) -> Outcome<Mounted> {
        if segment.base == 0 || segment.size == 0 || segment.base.checked_add(segment.size).is_none() {
            return Err(ErrorCode::INVALID_PARAMS);
        }
        let fresh = || Arc::new(Segment::new(segment, client, SegmentStatus::Mounted, now));
        match inner.segments.get(&segment.id) {
            None if inner.segments.len() >= MAX_SEGMENTS => Err(ErrorCode::UNAVAILABLE_IN_CURRENT_STATUS),
            None => {
                let new = fresh();
                inner.segments.insert(segment.id, Arc::clone(&new));
                Ok(Mounted::New(new))
            }
            // The client says where the segment is served now; the bytes are the same if the memory is.
            Some(known) if known.status() == SegmentStatus::Awaiting => {
                let old = Arc::clone(known);
                if old.base == segment.base
                    && old.size == segment.size
                    && **old.names.endpoint() == *segment.te_endpoint
                {
                    old.set_mounted(now);
                    return Ok(Mounted::Returned(old));
                }
                old.set_status(SegmentStatus::Gone);
                let new = fresh();
                inner.segments.insert(segment.id, Arc::clone(&new));
                Ok(Mounted::Replaced { old, new })
            }
            Some(_) => Ok(Mounted::Same),
        }
    }

    /// Takes out what cannot be there any more: segments whose memory at the same engine overlaps a new one's. Their
    /// process has ended and another one has its port; a reader of theirs would get the new process's bytes.
    fn displaced(inner: &mut Inner, new: &model::Segment) -> Vec<Arc<Segment>> {
        let overlaps = |segment: &Segment| {
            segment.id != new.id
                && **segment.names.endpoint() == *new.te_endpoint
                && segment.base < new.base.saturating_add(new.size)
                && new.base < segment.base.saturating_add(segment.size)
        };
        let gone: Vec<_> = inner.segments.values().filter(|segment| overlaps(segment)).cloned().collect();
        for segment in &gone {
            segment.set_status(SegmentStatus::Gone);
            inner.segments.remove(&segment.id);
        }
        gone
    }

    /// Puts a segment of the journal in, to wait for its client.
    pub fn await_segment(&self, segment: Arc<Segment>) {
        self.inner.lock().segments.insert(segment.id, segment);
    }

    /// Takes a segment out; `None` if it is not known or lent by somebody else.
    pub fn unmount(&self, id: Uuid, client: Uuid) -> Option<Arc<Segment>> {
        let mut inner = self.inner.lock();
        let segment = inner.segments.get(&id).filter(|segment| segment.client == client).cloned()?;
        segment.set_status(SegmentStatus::Gone);
        inner.segments.remove(&id);
        self.rebuild(&inner);
        Some(segment)
    }

    /// Takes no more puts on a segment, and unmounts it at a later moment.
    pub fn leave(&self, id: Uuid, client: Uuid, at: Moment) -> Outcome<()> {
        let mut inner = self.inner.lock();
        let segment = inner.segments.get(&id).filter(|segment| segment.client == client && segment.serves());
        let Some(segment) = segment else {
            return Err(ErrorCode::INVALID_PARAMS);
        };
        segment.set_status(SegmentStatus::Leaving);
        inner.leaving.push((at, id));
        self.rebuild(&inner);
        Ok(())
    }

    /// Acts on the silence of clients, and on segments whose time of leaving or waiting is over.
    pub fn look(&self, now: Moment, suspect_ms: u64, ttl_ms: u64, restore_wait_ms: u64) -> Silence {
        let mut silence = Silence::default();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let lends = |client: &Uuid| inner.segments.values().any(|segment| segment.client == *client);
        inner.clients.retain(|id, client| {
            let silent_ms = now.since_ms(client.last_seen);
            if silent_ms > suspect_ms && !client.suspect {
                client.suspect = true;
                // One that lends nothing has nothing to lose: it left.
                silence.suspected.extend(Some(*id).filter(lends));
            }
            let expired = silent_ms > ttl_ms;
            if expired {
                silence.expired.extend(Some(*id).filter(lends));
            }
            !expired
        });
        let due: Vec<Uuid> = inner.leaving.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        for segment in inner.segments.values() {
            let over = match segment.status() {
                SegmentStatus::Awaiting => now.since_ms(segment.mounted_at()) > restore_wait_ms,
                _ => silence.expired.contains(&segment.client) || due.contains(&segment.id),
            };
            if over {
                segment.set_status(SegmentStatus::Gone);
                silence.lost.push(Arc::clone(segment));
            } else if matches!(segment.status(), SegmentStatus::Mounted | SegmentStatus::Doubtful)
                && silence.suspected.contains(&segment.client)
            {
                segment.set_status(SegmentStatus::Suspect);
            }
        }
        inner.segments.retain(|_, segment| segment.status() != SegmentStatus::Gone);
        if !silence.lost.is_empty() || !silence.suspected.is_empty() {
            self.rebuild(inner);
        }
        silence
    }

    /// Hosts of each client's segments.
    #[must_use]
    pub fn hosts(&self, clients: &[Uuid]) -> Vec<(Uuid, Vec<String>)> {
        let inner = self.inner.lock();
        let mut answer: Vec<(Uuid, Vec<String>)> = Vec::new();
        for client in clients {
            let mut hosts: Vec<String> = inner
                .segments
                .values()
                .filter(|segment| segment.client == *client && segment.serves())
                .map(|segment| endpoint_host(segment.names.endpoint()).to_owned())
                .collect();
            hosts.sort_unstable();
            hosts.dedup();
            if !hosts.is_empty() && answer.iter().all(|(known, _)| known != client) {
                answer.push((*client, hosts));
            }
        }
        answer
    }
}

/// Host part of an endpoint, loopback included.
fn endpoint_host(endpoint: &str) -> &str {
    if let Some(rest) = endpoint.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    endpoint.split_once(':').map_or(endpoint, |(host, _)| host)
}
