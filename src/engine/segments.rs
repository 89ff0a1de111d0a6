//! Segments by name: opening, refreshing, probing, and notes.

use std::sync::Arc;

use super::{Engine, Shared};
use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};
use crate::handshake;
use crate::memory::{MemoryKind, SharedMemory};
use crate::notify::Note;
use crate::segment::{
    BufferDescriptor, DeviceMemory, LOCAL_SEGMENT, OURS_VERSION, Ours, Segment, SegmentDescriptor,
};
use crate::transport::tcp::{Tcp, wire::CONFIRMED_VERSION};

impl Engine {
    /// The id of the segment with that name; asks the peer for its descriptor the first time, or each time when
    /// `use_cache` is false (then a failed refresh is no error, as upstream has it). The own name gives 0.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for an empty name; what fetching the descriptor says.
    pub fn open_segment(&self, name: &str, use_cache: bool) -> Result<i32> {
        let shared = &self.shared;
        shared.check_usable()?;
        let name = name.strip_prefix('/').unwrap_or(name);
        if name.is_empty() {
            return Err(Error::new(Code::InvalidArgument, Stage::Resolve, "a segment needs a name"));
        }
        let deadline = shared.metadata_deadline();
        let id = match shared.segments.by_name(name) {
            Some(segment) => {
                let use_cache = use_cache && !shared.config.no_metadata_cache;
                if !use_cache && segment.id != LOCAL_SEGMENT {
                    shared.refresh_quietly(&segment, deadline);
                }
                segment.id
            }
            None => {
                let descriptor = shared.metadata.fetch(name, deadline).map_err(|error| error.peer(name))?;
                shared.segments.insert(name, Arc::new(descriptor))?
            }
        };
        Ok(id)
    }

    /// Forgets a segment; opening it again gives a new id. What is queued for it is still served, but a note that
    /// waits for a transfer which is under way is lost.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for an empty name.
    pub fn remove_segment(&self, name: &str) -> Result<()> {
        self.shared.check_usable()?;
        let name = name.strip_prefix('/').unwrap_or(name);
        if name.is_empty() {
            return Err(Error::new(Code::InvalidArgument, Stage::Resolve, "a segment needs a name"));
        }
        if let Some(segment) = self.shared.segments.remove(name) {
            let peer = self.shared.peers.write().remove(&segment.id);
            if let Some(peer) = peer {
                // Nothing new can come.
                peer.worker().close(Deadline::after(std::time::Duration::ZERO));
            }
        }
        Ok(())
    }

    /// Fetches all cached descriptors anew; a peer that does not answer is logged and keeps its old one.
    ///
    /// # Errors
    /// [`Code::StaleHandle`] after close.
    pub fn sync_segments(&self) -> Result<()> {
        self.shared.check_usable()?;
        self.shared.refresh_all();
        Ok(())
    }

    /// Asks the engine of that name whether it is there.
    ///
    /// # Errors
    /// [`Code::Dns`], [`Code::Socket`], [`Code::Timeout`].
    pub fn probe(&self, name: &str) -> Result<()> {
        self.shared.check_usable()?;
        let deadline = self.shared.metadata_deadline();
        let peer = self.shared.metadata.locate(name, deadline)?;
        handshake::probe(&peer, &self.shared.config, deadline)
    }

    /// The lowest address that the engine of that name has published, or `None` when it has published none; its
    /// descriptor is fetched anew if it was known.
    ///
    /// # Errors
    /// As [`Engine::open_segment`].
    pub fn first_buffer_address(&self, name: &str) -> Result<Option<u64>> {
        let id = self.open_segment(name, false)?;
        let Some(segment) = self.shared.segment(id) else { return Ok(None) };
        let own = || Arc::new(self.shared.descriptor());
        let descriptor = if id == LOCAL_SEGMENT { own() } else { segment.descriptor() };
        // Upstream answers what was registered first; the order of registration is not published, so that the
        // lowest host address, or else the lowest device address, stands for it.
        let host = descriptor.buffers.iter().map(|buffer| buffer.address).min();
        let device = || descriptor.ours.as_ref()?.memory.iter().map(|memory| memory.address).min();
        Ok(host.or_else(device))
    }

    /// Takes the notes that have come in.
    #[must_use]
    pub fn take_notes(&self) -> Vec<Note> {
        self.shared.notes.drain()
    }

    /// Sends a note to the engine of a segment and waits until it has it.
    ///
    /// # Errors
    /// [`Code::Metadata`] for an unknown segment; [`Code::Dns`], [`Code::Socket`], [`Code::MalformedJson`].
    pub fn send_note(&self, segment: i32, note: Note) -> Result<()> {
        self.shared.check_usable()?;
        let segment = self.shared.segment(segment).ok_or_else(|| {
            Error::new(Code::Metadata, Stage::Resolve, format!("no segment {segment} is open"))
        })?;
        self.shared.send_note(&segment, &note)
    }
}

impl Shared {
    /// A segment by the id callers hold.
    pub(super) fn segment(&self, id: i32) -> Option<Arc<Segment>> {
        self.segments.get(id)
    }

    pub(super) fn send_note(&self, segment: &Segment, note: &Note) -> Result<()> {
        // Upstream dials the name inside the descriptor, not the one that was opened.
        let deadline = self.metadata_deadline();
        let peer = self.metadata.locate(&segment.descriptor().name, deadline)?;
        handshake::send_notify(&peer, note, &self.config, deadline)?;
        self.observed.metrics.notes_sent.increment();
        Ok(())
    }

    /// Fetches all cached descriptors anew.
    pub(super) fn refresh_all(&self) {
        for id in self.segments.ids() {
            if self.check_usable().is_err() {
                return;
            }
            if let Some(segment) = self.segments.get(id).filter(|segment| segment.id != LOCAL_SEGMENT) {
                self.refresh_quietly(&segment, self.metadata_deadline());
            }
        }
    }

    fn refresh_quietly(&self, segment: &Segment, deadline: Deadline) {
        match self.fetch(segment, deadline) {
            Ok(descriptor) => self.take_over(segment, &descriptor),
            Err(error) => log::warn!("{}", error.peer(&segment.name)),
        }
    }

    /// Tells a ready peer's link about a newer descriptor.
    fn take_over(&self, segment: &Segment, descriptor: &SegmentDescriptor) {
        let peer = self.peers.read().get(&segment.id).cloned();
        if let Some(peer) = peer {
            self.update_link(&peer, segment, descriptor);
        }
    }

    /// What we publish about ourselves now.
    pub(super) fn descriptor(&self) -> SegmentDescriptor {
        let (epoch, regions) = self.registry.snapshot();
        let memory: Vec<DeviceMemory> = regions
            .iter()
            .filter_map(|region| {
                let (range, device) = (region.range(), region.kind().device()?);
                Some(DeviceMemory { address: range.start(), length_bytes: range.length_bytes(), device })
            })
            .collect();
        let mut shared: Vec<_> = self.shared_memory.lock().values().map(SharedMemory::place).collect();
        shared.sort_unstable();
        shared.dedup();
        let mut devices: Vec<i32> = memory.iter().map(|range| range.device).collect();
        if self.config.staged_slots > 0
            && let Some(ascend) = self.npu.opened()
        {
            // Memory of the host is reached through the slots of any device.
            devices.extend(ascend.devices());
        }
        devices.sort_unstable();
        devices.dedup();
        SegmentDescriptor {
            name: self.name.clone(),
            protocol: "tcp".to_owned(),
            buffers: regions
                .iter()
                .filter(|region| region.kind() == MemoryKind::Host)
                .map(|region| BufferDescriptor {
                    name: self.name.clone(),
                    address: region.range().start(),
                    length_bytes: region.range().length_bytes(),
                    device_id: None,
                })
                .collect(),
            tcp_data_port: self.tcp.get().map_or(0, Tcp::port),
            tcp_proto_version: CONFIRMED_VERSION,
            tcp_data_host: Some(self.host.clone()),
            rdma_server_name: Some(String::new()),
            timestamp: Some(crate::segment::timestamp_now()),
            ours: Some(Ours {
                version: OURS_VERSION,
                incarnation: self.incarnation.clone(),
                control_port: self.control_port(),
                epoch,
                devices,
                memory,
                shared,
            }),
            ..SegmentDescriptor::default()
        }
    }
}
