//! What descriptors, copies and messages cost on one kind of link, as laws over numbers.
//!
//! The numbers stand in [`CostTable`](super::CostTable), each with its source; here is only what they mean. Times are
//! microseconds of the machine the table describes, rates bytes per microsecond.
//!
//! Invariants: every law is 0 or more and never falls when the length grows.

use crate::plan::Direction;

/// A kind of link, as far as costs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkClass {
    /// HCCS inside a server of A2. Also stands for chips that the table does not know.
    A2Hccs,
    /// RoCE between NPUs of A2.
    A2Roce,
    /// HCCS inside a server of A3.
    A3Hccs,
    /// HCCS between servers of one super pod.
    A3HccsTwoServers,
    /// RoCE between NPUs of A3.
    A3Roce,
}

impl LinkClass {
    /// Every class, in the order of the table.
    pub const ALL: [Self; 5] =
        [Self::A2Hccs, Self::A2Roce, Self::A3Hccs, Self::A3HccsTwoServers, Self::A3Roce];

    /// As written in the table; the software NPU's profiles have the same names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A2Hccs => "a2-hccs",
            Self::A2Roce => "a2-roce",
            Self::A3Hccs => "a3-hccs",
            Self::A3HccsTwoServers => "a3-hccs-2node",
            Self::A3Roce => "a3-roce",
        }
    }

    /// The link as printed.
    #[must_use]
    pub const fn link(self) -> &'static str {
        match self {
            Self::A2Hccs | Self::A3Hccs | Self::A3HccsTwoServers => "HCCS",
            Self::A2Roce | Self::A3Roce => "RoCE",
        }
    }

    /// Whether queue pairs carry it: what a peer puts ends when this side destroys its own.
    #[must_use]
    pub const fn is_roce(self) -> bool {
        matches!(self, Self::A2Roce | Self::A3Roce)
    }

    /// The class with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// Which memory one end of a transfer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Memory of an NPU.
    Device,
    /// Memory of a host.
    Host,
}

/// A put or get: the longest of its launch, what the device needs for it, and its bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DescriptorCost {
    /// On the thread that calls, whatever its length.
    pub launch_us: f64,
    /// On the device, whatever its length.
    pub setup_us: f64,
    /// Rate of the device behind the setup.
    pub bytes_per_us: f64,
    /// Rate of the wire.
    pub wire_bytes_per_us: f64,
}

impl DescriptorCost {
    /// Time for one of many descriptors of this length.
    #[must_use]
    pub fn time_us(&self, length_bytes: f64) -> f64 {
        self.launch_us.max(self.moving_us(length_bytes))
    }

    /// The same without its launch.
    #[must_use]
    pub fn moving_us(&self, length_bytes: f64) -> f64 {
        (self.setup_us + length_bytes / self.bytes_per_us).max(length_bytes / self.wire_bytes_per_us)
    }

    /// Rate of very long descriptors.
    #[must_use]
    pub fn limit_bytes_per_us(&self) -> f64 {
        self.bytes_per_us.min(self.wire_bytes_per_us)
    }
}

/// A copy between a slot and memory of the same server: the longer of its launch and its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyCost {
    /// Once per group of copies.
    pub call_us: f64,
    /// For each copy.
    pub launch_us: f64,
    /// Rate of long copies.
    pub bytes_per_us: f64,
}

impl CopyCost {
    /// Time for one copy of a group, without the call.
    #[must_use]
    pub fn time_us(&self, length_bytes: f64) -> f64 {
        self.launch_us.max(length_bytes / self.bytes_per_us)
    }
}

/// The costs of one kind of link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkCosts {
    /// Which kind.
    pub class: LinkClass,
    /// A put.
    pub write: DescriptorCost,
    /// A get.
    pub read: DescriptorCost,
    /// A copy on the device, gather or scatter.
    pub device_copy: CopyCost,
    /// A copy between device and host, gather or scatter.
    pub host_copy: CopyCost,
    /// A message to the peer, until somebody there acts on it.
    pub message_us: f64,
    /// Whether all threads of a device launch one after another; else several threads launch at once.
    pub launches_per_device: bool,
    /// What a modelled microsecond of a direct transfer counts against one of a staged one: more than 1 where direct
    /// ones are known to be slower than modelled.
    pub direct_weight: f64,
}

impl LinkCosts {
    /// The cost of a descriptor.
    #[must_use]
    pub const fn descriptor(&self, direction: Direction) -> DescriptorCost {
        match direction {
            Direction::Write => self.write,
            Direction::Read => self.read,
        }
    }

    /// The cost of a copy between a slot and this side's memory.
    #[must_use]
    pub const fn copy(&self, side: Side) -> CopyCost {
        match side {
            Side::Device => self.device_copy,
            Side::Host => self.host_copy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for class in LinkClass::ALL {
            assert_eq!(LinkClass::named(class.name()), Some(class));
        }
        assert_eq!(LinkClass::named("null"), None);
    }

    #[test]
    fn a_descriptor_takes_its_launch_or_its_setup_and_bytes_or_the_wire() {
        let cost = DescriptorCost {
            launch_us: 10.0,
            setup_us: 4.0,
            bytes_per_us: 2000.0,
            wire_bytes_per_us: 1500.0,
        };
        let near = |length_bytes: f64, expected: f64| {
            let time = cost.time_us(length_bytes);
            assert!((time - expected).abs() < 1e-9, "{length_bytes}: {time}");
        };
        near(1.0, 10.0);
        near(16_000.0, 12.0);
        near(60_000.0, 40.0);
        assert!((cost.moving_us(2000.0) - 5.0).abs() < 1e-9);
        assert!((cost.limit_bytes_per_us() - 1500.0).abs() < 1e-9);
    }
}
