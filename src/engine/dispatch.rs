//! From groups of blocks to jobs of a transport.
//!
//! A group whose peer is ready and whose remote memory is known is dispatched on the caller's thread. Whatever
//! needs a word from the peer first (connecting, refreshing its descriptor) goes to the peer's own thread, so
//! that it delays nobody else. Refreshing happens at most once a group: a range that a fresh descriptor does not
//! publish is an error of its tasks.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::remote::{Link, Remote, foreign, prove};
use super::{Shared, process};
use crate::batch::Submission;
use crate::control::Connection;
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Incarnation};
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;
use crate::peer::Peer;
use crate::plan::{Block, Direction, Groups, NoBorder, Regions, coalesce};
use crate::registry::{Pin, Registry};
use crate::segment::{LOCAL_SEGMENT, Ours, Segment, SegmentDescriptor};
use crate::transport::host::HostPeer;
use crate::transport::tcp::Target;
use crate::transport::{Job, Route};

/// Blocks of one submission with the same target, direction and local device.
pub(super) struct Group {
    /// The target.
    pub(super) segment: Arc<Segment>,
    /// Read or write.
    pub(super) direction: Direction,
    /// The device of the local memory; `None` for host memory.
    pub(super) local_device: Option<i32>,
    /// The local memory is a device's that nobody has registered: only slots reach it.
    pub(super) loose: bool,
    /// What to move; never empty.
    pub(super) blocks: Vec<Block>,
    /// The local regions.
    pub(super) pins: Vec<Pin>,
    /// Who is told.
    pub(super) submission: Arc<Submission>,
}

impl Group {
    fn fail(&self, error: &Error) {
        let error = error.clone().peer(&self.segment.name);
        for block in &self.blocks {
            self.submission.task_failed(block.task, &error);
        }
    }
}

impl Shared {
    /// Sends a group on its way; never blocks on the peer.
    pub(super) fn dispatch(self: &Arc<Self>, group: Group) {
        if group.segment.id == LOCAL_SEGMENT {
            if let Some(rest) = self.resolve(group, &Link::SameProcess(Arc::downgrade(self))) {
                self.refuse_unpublished(&rest);
            }
            return;
        }
        let peer = self.peer(&group.segment);
        let mut changed = false;
        let group = match peer.ready() {
            // Whatever is known has to be asked for again, on the peer's thread.
            Some(link) if link.is_usable() && self.config.no_metadata_cache => group,
            Some(link) if link.is_usable() => match self.resolve(group, &link) {
                Some(rest) => rest,
                None => return,
            },
            Some(link) => {
                // It was stopped, and perhaps started again as another process.
                let error = link.why_unusable();
                peer.lost(&error.peer(&group.segment.name), |current| current.is(&link));
                changed = true;
                group
            }
            None => group,
        };
        // The item is dropped unrun when the queue is full or closed: then the submission fails what is left.
        let submission = Arc::clone(&group.submission);
        let shared = Arc::clone(self);
        let on_peer = Arc::clone(&peer);
        let queued = peer.worker().push(Box::new(move || shared.dispatch_slowly(&on_peer, group, changed)));
        if let Err(error) = queued {
            submission.fail_rest(&error.peer(peer.name()));
        }
    }

    /// The peer's thread: connect, resolve, refresh once, resolve again.
    fn dispatch_slowly(self: &Arc<Self>, peer: &Arc<Peer<Link>>, group: Group, changed: bool) {
        let deadline = group.submission.deadline();
        if let Some(stop) = group.submission.must_stop() {
            group.fail(&Error::new(
                stop.code(),
                Stage::Connect,
                "the request was over before its turn at the peer came",
            ));
            return;
        }
        if changed
            && peer.ready().is_none()
            && let Err(error) = self.fetch(&group.segment, deadline)
        {
            return group.fail(&error);
        }
        let known = peer.ready().is_some();
        let link = match if known && self.config.no_metadata_cache {
            self.refresh(peer, &group.segment, deadline)
        } else {
            self.link(peer, &group.segment, deadline)
        } {
            Ok(link) => link,
            Err(error) => return group.fail(&error),
        };
        let Some(rest) = self.resolve(group, &link) else { return };
        let link = match self.refresh(peer, &rest.segment, deadline) {
            Ok(link) => link,
            Err(error) => return rest.fail(&error),
        };
        if let Some(rest) = self.resolve(rest, &link) {
            self.refuse_unpublished(&rest);
        }
    }

    /// The peer's state object, made at the first use of the segment. Of a segment that was removed meanwhile, and
    /// of an engine that is being closed, it takes no work and is not kept.
    pub(super) fn peer(&self, segment: &Segment) -> Arc<Peer<Link>> {
        if let Some(peer) = self.peers.read().get(&segment.id) {
            return Arc::clone(peer);
        }
        let mut peers = self.peers.write();
        // Under the lock that a removal and the end take after they have said so: what they do not find was not made.
        let is_gone = self.closed.load(Ordering::Acquire) || self.segments.get(segment.id).is_none();
        if is_gone && !peers.contains_key(&segment.id) {
            let peer = Peer::new(&segment.name);
            peer.worker().close(Deadline::after(Duration::ZERO));
            return Arc::new(peer);
        }
        Arc::clone(peers.entry(segment.id).or_insert_with(|| Arc::new(Peer::new(&segment.name))))
    }

    /// The link to a peer; connects when there is none.
    fn link(&self, peer: &Peer<Link>, segment: &Segment, deadline: Deadline) -> Result<Link> {
        let patience = self.config.ascend_connect_timeout;
        peer.link(deadline, patience, || self.connect(segment, deadline))
    }

    /// Makes a link from the cached descriptor, and once more from a fresh one when that names a process that
    /// is gone.
    fn connect(&self, segment: &Segment, deadline: Deadline) -> Result<Link> {
        let deadline = deadline.sooner(Deadline::after(self.config.ascend_connect_timeout));
        let cached = segment.descriptor();
        match self.connect_by(segment, &cached, deadline) {
            // Whatever answers there now may be anybody: ports are given out again.
            Err(error) if error.code() != Code::StaleHandle => {
                let fresh = self.fetch(segment, deadline).map_err(|_| error.clone())?;
                let same = if cached.ours.is_some() {
                    fresh.ours == cached.ours
                } else {
                    fresh.same_content(&cached)
                };
                if same {
                    return Err(error);
                }
                self.connect_by(segment, &fresh, deadline)
            }
            outcome => outcome,
        }
    }

    fn connect_by(
        &self,
        segment: &Segment,
        descriptor: &SegmentDescriptor,
        deadline: Deadline,
    ) -> Result<Link> {
        let tcp = self
            .tcp
            .get()
            .ok_or_else(|| Error::new(Code::Internal, Stage::Connect, "the data listener does not run"))?;
        let target = Target {
            name: segment.name.clone(),
            hosts: self.hosts_of(segment, descriptor, deadline)?,
            port: descriptor.tcp_data_port,
            version: descriptor.tcp_proto_version,
        };
        let Some(ours) = &descriptor.ours else {
            if descriptor.protocol != "tcp" {
                return Err(foreign(descriptor));
            }
            let peer = tcp.connect(&target, deadline)?;
            let remote = Remote::new(None, Some(peer), None);
            remote.refresh(descriptor);
            return Ok(Link::Remote(remote));
        };
        let Ours { incarnation, control_port, .. } = ours;
        if let Some(engine) = process::find(incarnation) {
            return Ok(Link::SameProcess(Arc::downgrade(&engine)));
        }
        let control = self
            .control
            .get()
            .ok_or_else(|| Error::new(Code::Internal, Stage::Connect, "the control listener does not run"))?;
        let mut connected = Err(Error::new(Code::Dns, Stage::Resolve, "the peer has no host"));
        for host in &target.hosts {
            connected = control.connect(host, *control_port, incarnation, deadline);
            // Another process at one of the peer's hosts is an answer; silence is none.
            if !connected.as_ref().is_err_and(|error| error.code() != Code::StaleIncarnation) {
                break;
            }
        }
        let connection = connected.map_err(|error| error.peer(&segment.name))?;
        let peer = (target.port != 0).then(|| tcp.peer(&target, deadline)).transpose()?;
        let host = self.same_host(incarnation, &connection, deadline);
        let remote = Remote::new(Some((incarnation.clone(), connection)), peer, host);
        // The peer tells only those it is connected with what it withdraws, so what it published before is looked
        // at again; and from here on this link hears of withdrawals, so that none falls between.
        self.remotes.lock().push(Arc::downgrade(&remote));
        let descriptor = self.fetch(segment, deadline)?;
        if descriptor.incarnation() != Some(incarnation) {
            let text = "another process has taken the peer's name";
            return Err(Error::new(Code::StaleIncarnation, Stage::Resolve, text).peer(&segment.name));
        }
        remote.refresh(&descriptor);
        Ok(Link::Remote(remote))
    }

    /// Where a peer's listeners are: on the host that it names, else on the one that it was opened by. A peer that
    /// names the loopback and was opened by another host is not on ours. Names in a metadata service are no hosts.
    fn hosts_of(
        &self,
        segment: &Segment,
        descriptor: &SegmentDescriptor,
        deadline: Deadline,
    ) -> Result<Vec<String>> {
        let named = descriptor.tcp_data_host.clone().filter(|host| !host.is_empty());
        if !self.metadata.is_peer_to_peer() {
            // Upstream before 0.3.13 names no host in the descriptor.
            let host = named.map_or_else(
                || self.metadata.locate(&descriptor.name, deadline).map(|place| place.host),
                Ok,
            )?;
            return Ok(vec![host]);
        }
        let host_of = |name: &str| name.parse::<Endpoint>().ok().map(|endpoint| endpoint.host);
        let opened = host_of(&segment.name);
        let distant = opened.as_deref().is_some_and(|host| !is_loopback(host));
        let named = named.filter(|host| !(distant && is_loopback(host)));
        let mut hosts: Vec<String> = Vec::new();
        for host in [named, opened, host_of(&descriptor.name)].into_iter().flatten() {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(hosts)
    }

    /// The peer's process, when its memory can be reached without sockets; one line says why it cannot.
    fn same_host(
        &self,
        peer: &Incarnation,
        connection: &Arc<Connection>,
        deadline: Deadline,
    ) -> Option<Arc<HostPeer>> {
        if !self.config.same_host || self.config.force_tcp {
            return None;
        }
        prove(&self.incarnation, peer, connection, deadline)
            .inspect(|host| {
                if let Some(why) = host.no_copies() {
                    let name = &connection.peer().segment;
                    log::info!("host memory of {name} goes by TCP unless it is shared memory: {why}");
                }
            })
            .inspect_err(|error| {
                log::info!("host memory of {} goes by TCP: {error}", connection.peer().segment);
            })
            .ok()
    }

    /// Fetches the peer's descriptor anew and brings the link up to date with it.
    fn refresh(&self, peer: &Peer<Link>, segment: &Segment, deadline: Deadline) -> Result<Link> {
        let descriptor = self.fetch(segment, deadline)?;
        self.update_link(peer, segment, &descriptor);
        self.link(peer, segment, deadline)
    }

    /// Takes a newer descriptor over into a ready link, or drops the link when it names another process.
    pub(super) fn update_link(&self, peer: &Peer<Link>, segment: &Segment, descriptor: &SegmentDescriptor) {
        let Some(link) = peer.ready() else { return };
        let incarnation = descriptor.ours.as_ref().map(|ours| &ours.incarnation);
        match &link {
            Link::Remote(remote) if incarnation == remote.incarnation.as_ref() => remote.refresh(descriptor),
            Link::SameProcess(engine)
                if engine.upgrade().is_some_and(|engine| incarnation == Some(&engine.incarnation)) => {}
            _ => {
                let error = Error::new(
                    Code::StaleIncarnation,
                    Stage::Resolve,
                    "another process has taken the peer's name",
                )
                .peer(&segment.name);
                peer.lost(&error, |current| current.is(&link));
            }
        }
    }

    /// Fetches a descriptor and caches it.
    pub(super) fn fetch(&self, segment: &Segment, deadline: Deadline) -> Result<Arc<SegmentDescriptor>> {
        let descriptor = Arc::new(self.metadata.fetch(&segment.name, deadline)?);
        self.segments.replace(segment.id, Arc::clone(&descriptor));
        Ok(descriptor)
    }

    /// Starts what the link lets us reach; gives back the blocks whose remote range is not published.
    fn resolve(self: &Arc<Self>, group: Group, link: &Link) -> Option<Group> {
        match link {
            Link::SameProcess(engine) => {
                let Some(engine) = engine.upgrade() else {
                    group.fail(&Error::new(Code::Endpoint, Stage::Submit, "the peer engine was destroyed"));
                    return None;
                };
                // Before anything is pinned, so that the end of that engine finds the batch or refuses the pin.
                if !std::ptr::eq(&*engine, &**self) {
                    engine.guests.add(group.submission.batch());
                }
                let registry = &engine.registry;
                // A refused job is finished as failed by the transport.
                self.start(group, registry, |job| drop(self.local.submit(job)))
            }
            Link::Remote(remote) => self.start(group, &remote.memory, |job| self.send(job, remote)),
        }
    }

    /// Splits a group by remote device, pins the remote memory and hands over one job a device.
    fn start(&self, group: Group, registry: &Registry, submit: impl Fn(Job)) -> Option<Group> {
        let Group { segment, direction, local_device, loose, blocks, pins, submission } = group;
        let expected = blocks.len();
        let mut groups: Groups<Option<i32>> = Groups::new();
        let mut unpublished = Vec::new();
        let mut borders: Vec<ByteRange> = Vec::new();
        let mut resolver = registry.resolver();
        for block in blocks {
            let range = ByteRange::checked(block.remote, block.length_bytes);
            match range.and_then(|range| resolver.resolve(range)) {
                Some(region) => {
                    if borders.last() != Some(&region.range()) {
                        borders.push(region.range());
                    }
                    groups.add(region.kind().device(), block, expected);
                }
                None => unpublished.push(block),
            }
        }
        let mut all_pins = resolver.into_pins();
        all_pins.extend(pins.iter().cloned());
        let peer: Arc<str> = Arc::from(segment.name.as_str());
        let mut jobs = Vec::with_capacity(groups.len());
        borders.sort_unstable();
        borders.dedup();
        for (remote_device, blocks) in groups {
            let mut extents = Vec::with_capacity(blocks.len());
            // A peer takes a request only when it lies in one of its buffers.
            if let Err(error) = coalesce(&blocks, &mut NoBorder, &mut Regions::new(&borders), &mut extents) {
                for block in &blocks {
                    submission.task_failed(block.task, &error);
                }
                continue;
            }
            self.observed.metrics.extents.add(u64::try_from(extents.len()).unwrap_or(u64::MAX));
            jobs.push(Job {
                direction,
                extents,
                submission: Arc::clone(&submission),
                pins: all_pins.clone(),
                deadline: submission.deadline(),
                local_device,
                remote_device,
                route: if loose { Route::Staged } else { Route::Any },
                peer: Arc::clone(&peer),
            });
        }
        let rest = (!unpublished.is_empty()).then(|| Group {
            segment,
            direction,
            local_device,
            loose,
            blocks: unpublished,
            pins: pins.clone(),
            submission,
        });
        // From here on the jobs alone hold the memory, so that it is free when their tasks are over.
        drop((pins, all_pins));
        jobs.into_iter().for_each(submit);
        rest
    }

    /// Moves a job between host memory of ours and of another process.
    pub(super) fn send_host(&self, job: Job, remote: &Arc<Remote>) {
        if let Some(host) = remote.host.as_ref().filter(|host| host.takes(&job.extents)) {
            self.observed.metrics.same_host_jobs.increment();
            // A refused job is finished as failed by the transport.
            return drop(self.host_memory.submit(job, host));
        }
        self.observed.metrics.tcp_jobs.increment();
        let peer = self.tcp.get().map(|tcp| remote.tcp(tcp).map(|peer| (tcp, peer)));
        match peer {
            Some(Ok((tcp, peer))) => tcp.submit(job, &peer),
            Some(Err(error)) => job.submission.extents_failed(&job.extents, &error.peer(&*job.peer)),
            None => {}
        }
    }

    /// Picks the transport for a job to another process.
    fn send(self: &Arc<Self>, mut job: Job, remote: &Arc<Remote>) {
        if job.local_device.is_none() && job.remote_device.is_none() {
            return self.send_host(job, remote);
        }
        if let (Some(device), None) = (job.local_device, job.remote_device) {
            // Host memory that a device of the peer's can bring to a link is relayed. On this very host a copy by way
            // of our own host memory is no longer, and takes no memory of a device.
            if remote.host.is_some() || !remote.relays() || self.config.staged_slots == 0 {
                return self.bounce(job, device, remote);
            }
        }
        if job.local_device.is_none() || job.remote_device.is_none() {
            job.route = Route::Staged;
        }
        let Some(connection) = &remote.connection else {
            let error = Error::new(
                Code::NotSupportedTransport,
                Stage::Submit,
                "the peer's memory belongs to a device, and the peer is no engine of this library",
            )
            .peer(&*job.peer)
            .advice("change both ends together");
            return job.submission.extents_failed(&job.extents, &error);
        };
        match self.npu() {
            // A refused job is finished as failed by the transport.
            Ok(ascend) => drop(ascend.submit(job, connection)),
            Err(error) => {
                let error = error.peer(&*job.peer);
                job.submission.extents_failed(&job.extents, &error);
            }
        }
    }

    fn refuse_unpublished(&self, group: &Group) {
        for block in &group.blocks {
            let error = Error::new(
                Code::AddressNotRegistered,
                Stage::Submit,
                "the remote range lies in no single buffer that the peer has registered",
            )
            .peer(&group.segment.name)
            .range(block.remote, block.length_bytes)
            .advice("register the buffer at the peer, and check the address and length");
            group.submission.task_failed(block.task, &error);
        }
    }
}

/// Whether a host is this one seen from itself.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::{Engine, EngineOptions};

    fn engine() -> Arc<Engine> {
        Engine::new(EngineOptions {
            metadata: "P2PHANDSHAKE".into(),
            local_name: "127.0.0.1".into(),
            device: None,
            auto_discover: false,
            config: Config::default(),
        })
        .unwrap()
    }

    /// Somebody who holds a segment comes to its peer only after the segment, or the engine, is gone.
    #[test]
    fn a_peer_that_comes_after_the_end_is_not_kept_and_takes_no_work() {
        let (here, there) = (engine(), engine());
        let open = || {
            let id = here.open_segment(there.name(), true).unwrap();
            here.shared.segment(id).unwrap()
        };
        let check = |segment: &Segment, when: &str| {
            let peer = here.shared.peer(segment);
            assert!(here.shared.peers.read().is_empty(), "{when}: an entry is left behind");
            let refused = peer.worker().push(Box::new(|| ())).unwrap_err();
            assert_eq!(refused.code(), Code::StaleHandle, "{when}");
        };
        let segment = open();
        drop(here.shared.peer(&segment));
        assert_eq!(here.shared.peers.read().len(), 1);
        here.remove_segment(there.name()).unwrap();
        check(&segment, "removed");
        let segment = open();
        here.close();
        check(&segment, "closed");
    }
}
