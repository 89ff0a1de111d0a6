//! A communicator whose memory is shown to the peer by the older family: register, exchange, enable.
//!
//! Invariants: what was registered is deregistered and what was enabled disabled before the communicator is destroyed,
//! also when the exchange failed half-way; every region that the peer named in its offer, and that the link takes, is
//! enabled, else there is no channel.

use super::raw::{Communicator, Description, EnabledRegion, Runtime};
use super::registration::VendorRegion;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// What one communicator has registered and enabled.
#[derive(Default)]
pub struct Described {
    own: Vec<Description>,
    theirs: Vec<Description>,
}

impl Described {
    /// Registers this side's regions with a communicator.
    ///
    /// # Errors
    /// What the vendor says; [`end`](Self::end) undoes what was done by then.
    pub fn register(
        &mut self,
        runtime: &Runtime,
        communicator: Communicator,
        remote_rank: u32,
        regions: &[VendorRegion],
    ) -> Result<()> {
        for region in regions {
            let (start, length_bytes) = (region.range.start(), region.range.length_bytes());
            self.own.push(runtime.describe_region(
                communicator,
                remote_rank,
                start,
                length_bytes,
                region.host,
            )?);
        }
        Ok(())
    }

    /// Meets the peer, and enables its regions. `expected` are those it has named on the control connection.
    ///
    /// # Errors
    /// What the vendor says; [`Code::Endpoint`] when the peer shows other memory than it named.
    pub fn exchange(
        &mut self,
        runtime: &Runtime,
        communicator: Communicator,
        remote_rank: u32,
        expected: &[ByteRange],
        timeout_seconds: i32,
    ) -> Result<()> {
        let theirs = runtime.exchange_descriptions(
            communicator,
            remote_rank,
            &mut self.own,
            expected.len(),
            timeout_seconds,
        )?;
        let mut enabled = Vec::with_capacity(theirs.len());
        for mut description in theirs {
            enabled.push(runtime.enable_region(communicator, &mut description)?);
            self.theirs.push(description);
        }
        missing(expected, &enabled).map_or(Ok(()), |range| {
            Err(Error::new(
                Code::Endpoint,
                Stage::Connect,
                "the peer's CANN does not show memory that the peer has named",
            )
            .range(range.start(), range.length_bytes()))
        })
    }

    /// Takes everything back, before the communicator is destroyed.
    pub fn end(&mut self, runtime: &Runtime, communicator: Communicator) {
        for mut description in self.theirs.drain(..) {
            if let Err(error) = runtime.disable_region(communicator, &mut description) {
                log::debug!("{error}");
            }
        }
        for mut description in self.own.drain(..) {
            if let Err(error) = runtime.forget_region(communicator, &mut description) {
                log::warn!("{error}");
            }
        }
    }
}

/// The first expected range that was not enabled.
fn missing(expected: &[ByteRange], enabled: &[EnabledRegion]) -> Option<ByteRange> {
    let mut enabled: Vec<(u64, u64)> =
        enabled.iter().map(|region| (region.start, region.length_bytes)).collect();
    enabled.sort_unstable();
    expected
        .iter()
        .copied()
        .find(|range| enabled.binary_search(&(range.start(), range.length_bytes())).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_was_not_enabled_is_found() {
        let range = |start| ByteRange::new(start, 10).unwrap();
        let region = |start| EnabledRegion { start, length_bytes: 10 };
        assert_eq!(missing(&[range(20), range(40)], &[region(40), region(20), region(60)]), None);
        assert_eq!(missing(&[range(20), range(40)], &[region(20)]), Some(range(40)));
        assert_eq!(missing(&[range(20)], &[EnabledRegion { start: 20, length_bytes: 9 }]), Some(range(20)));
        assert_eq!(missing(&[], &[]), None);
    }
}
