//! Descriptors straight from the peer that publishes them.

use super::{Metadata, Standing};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Incarnation};
use crate::error::Result;
use crate::handshake::fetch_descriptor;
use crate::segment::SegmentDescriptor;

/// Names are `host:port` of handshake listeners.
pub struct PeerToPeer {
    config: Config,
}

impl PeerToPeer {
    /// With the time limits and addresses of `config`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Metadata for PeerToPeer {
    /// Nothing to do: the publisher's own listener answers with the current descriptor.
    fn publish(&self, _: &SegmentDescriptor, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn published(&self, name: &str, deadline: Deadline) -> Result<Option<SegmentDescriptor>> {
        let peer: Endpoint = name.parse()?;
        let bytes = fetch_descriptor(&peer, &[], &self.config, deadline)?;
        SegmentDescriptor::decode(&bytes).map(Some).map_err(|error| error.peer(name))
    }

    /// Nothing to do: the listener's end is the descriptor's.
    fn withdraw(&self, _: &str, _: &Incarnation, _: Deadline) -> Result<()> {
        Ok(())
    }

    /// Nothing to do: the name is the place.
    fn announce(&self, _: &str, _: &str, _: u16, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn locate(&self, name: &str, _: Deadline) -> Result<Endpoint> {
        name.parse()
    }

    /// There is nobody who could forget.
    fn standing(&self, _: &str, _: Deadline) -> Result<Standing> {
        Ok(Standing::Known)
    }

    fn address(&self) -> Option<Endpoint> {
        None
    }

    fn is_peer_to_peer(&self) -> bool {
        true
    }
}
