//! Which family of one-sided calls a channel uses.
//!
//! From CANN 8.5 on, and probably from 8.3, memory is registered once per process and device, bound to communicators,
//! and shown to the peer by a prepare. Before, memory is registered with each communicator, described, and the
//! descriptions are exchanged. The two sides of a channel must use the same one, so each names what it has, and the
//! newest that both have is taken.
//!
//! Which releases have the older family alone is inferred: no library of CANN 8.2 was at hand.

use cann_sys::Capability;

use super::raw::Runtime;
use crate::error::{Code, Error, Result, Stage};

/// A family of one-sided calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Memory is registered per device and bound to communicators.
    PerDevice,
    /// Memory is registered per communicator and described to the peer.
    PerCommunicator,
}

impl Family {
    /// Every family, the one to prefer first.
    pub const ALL: [Self; 2] = [Self::PerDevice, Self::PerCommunicator];

    /// As it stands in an offer of a channel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerDevice => "device",
            Self::PerCommunicator => "communicator",
        }
    }

    const fn capability(self) -> Capability {
        match self {
            Self::PerDevice => Capability::OneSided,
            Self::PerCommunicator => Capability::OneSidedPerCommunicator,
        }
    }

    /// Whether the loaded CANN has it.
    #[must_use]
    pub fn is_in(self, runtime: &Runtime) -> bool {
        runtime.cann().has(self.capability())
    }

    /// The names of those that the loaded CANN has.
    #[must_use]
    pub fn names(runtime: &Runtime) -> Vec<String> {
        Self::ALL
            .into_iter()
            .filter(|family| family.is_in(runtime))
            .map(|family| family.name().into())
            .collect()
    }
}

/// The family both sides take. A side that names none is an engine from before families were told apart, which has
/// the newer one only.
///
/// # Errors
/// [`Code::Unsupported`] when they have none in common.
pub fn agree(own: &[String], peer: &[String]) -> Result<Family> {
    let has = |names: &[String], family: Family| match names {
        [] => family == Family::PerDevice,
        names => names.iter().any(|name| name == family.name()),
    };
    let both = Family::ALL.into_iter().find(|family| has(own, *family) && has(peer, *family));
    both.ok_or_else(|| {
        let list = |names: &[String]| if names.is_empty() { "device".to_owned() } else { names.join(", ") };
        Error::new(
            Code::Unsupported,
            Stage::Connect,
            format!(
                "the two sides' CANN have no way in common to show memory to each other: here it is registered \
                 per {}, there per {}",
                list(own),
                list(peer)
            ),
        )
        .advice("install the same release of CANN on both sides")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_have_is_taken() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let agree = |own: &[&str], peer: &[&str]| agree(&names(own), &names(peer));
        let (old, both) = (["communicator"].as_slice(), ["device", "communicator"].as_slice());
        assert_eq!(agree(both, both).unwrap(), Family::PerDevice);
        assert_eq!(agree(both, old).unwrap(), Family::PerCommunicator);
        assert_eq!(agree(old, both).unwrap(), Family::PerCommunicator);
        assert_eq!(agree(both, &[]).unwrap(), Family::PerDevice);
        assert_eq!(agree(both, &["later", "device"]).unwrap(), Family::PerDevice);
        for (own, peer) in [(old, [].as_slice()), ([].as_slice(), old), (both, ["later"].as_slice())] {
            let error = agree(own, peer).unwrap_err();
            assert_eq!(error.code(), Code::Unsupported);
            assert!(error.to_string().contains("same release"), "{error}");
        }
    }
}
