//! Makers of the structs that go into HCCL calls by pointer.

use crate::bindings::{
    CANN_COMM_CONFIG_MAGIC, CANN_COMM_CONFIG_UNSET, CANN_COMM_CONFIG_VERSION, HCCL_TOPO_FULLMESH,
    HcclCommConfig, HcclPrepareConfig,
};
use core::ffi::c_char;

/// The name does not fit into a communicator's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommNameError {
    /// HCCL refuses a communicator without a name.
    #[error("the communicator's name is empty")]
    Empty,
    /// 127 bytes and a NUL is what the field holds.
    #[error("the communicator's name has {length_bytes} bytes, more than {limit_bytes}")]
    TooLong {
        /// Bytes of the name.
        length_bytes: usize,
        /// Bytes that fit.
        limit_bytes: usize,
    },
    /// A NUL inside would cut the name, so that two different names could become one.
    #[error("the communicator's name contains a NUL byte")]
    InteriorNul,
}

impl HcclCommConfig {
    /// Longest name in bytes, without its NUL.
    pub const NAME_LIMIT_BYTES: usize = 127;

    /// A version 5 configuration that leaves every choice to the library, without a name yet.
    ///
    /// Version 5 and its 300 bytes are accepted by every release from 8.1 to 9.2: the library reads
    /// only fields that the version has, and warns about nothing we pass.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self {
            size: 300,
            magic: CANN_COMM_CONFIG_MAGIC,
            version: CANN_COMM_CONFIG_VERSION,
            reserved: 0,
            bufferSize: CANN_COMM_CONFIG_UNSET,
            deterministic: CANN_COMM_CONFIG_UNSET,
            commName: [0; 128],
            udi: [0; 128],
            opExpansionMode: 0,
            rdmaTrafficClass: CANN_COMM_CONFIG_UNSET,
            rdmaServiceLevel: CANN_COMM_CONFIG_UNSET,
        }
    }

    /// [`HcclCommConfig::unnamed`] with a name, which both ends of a communicator must share.
    ///
    /// # Errors
    /// [`CommNameError`] if the name is empty, longer than 127 bytes or contains a NUL.
    pub fn named(name: &str) -> Result<Self, CommNameError> {
        if name.is_empty() {
            return Err(CommNameError::Empty);
        }
        if name.len() > Self::NAME_LIMIT_BYTES {
            return Err(CommNameError::TooLong {
                length_bytes: name.len(),
                limit_bytes: Self::NAME_LIMIT_BYTES,
            });
        }
        if name.bytes().any(|byte| byte == 0) {
            return Err(CommNameError::InteriorNul);
        }
        let mut config = Self::unnamed();
        // A local copy, because a reference into a packed struct is not allowed.
        let mut field = config.commName;
        for (target, byte) in field.iter_mut().zip(name.bytes()) {
            *target = c_char::from_ne_bytes([byte]);
        }
        config.commName = field;
        Ok(config)
    }
}

const _: () = assert!(core::mem::size_of::<HcclCommConfig>() == 300);

impl HcclPrepareConfig {
    /// Every rank connects to every other: the only topology there is.
    #[must_use]
    pub const fn full_mesh() -> Self {
        Self { topoType: HCCL_TOPO_FULLMESH, rsvd0: 0, rsvd1: 0, rsvd2: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_what_the_parser_reads() {
        let config = HcclCommConfig::named("pair").unwrap();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&{ config.size }.to_ne_bytes());
        bytes.extend_from_slice(&{ config.magic }.to_ne_bytes());
        bytes.extend_from_slice(&{ config.version }.to_ne_bytes());
        bytes.extend_from_slice(&{ config.reserved }.to_ne_bytes());
        let mut expected = Vec::new();
        expected.extend_from_slice(&300_u64.to_ne_bytes());
        expected.extend_from_slice(&0xF0F0_F0F0_u32.to_ne_bytes());
        expected.extend_from_slice(&5_u32.to_ne_bytes());
        expected.extend_from_slice(&0_u64.to_ne_bytes());
        assert_eq!(bytes, expected);
        let name: Vec<u8> = { config.commName }.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
        assert_eq!(&name[..5], b"pair\0");
        assert!(name[4..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn names_at_and_past_the_limits() {
        assert_eq!(HcclCommConfig::named("").unwrap_err(), CommNameError::Empty);
        assert_eq!(HcclCommConfig::named("a\0b").unwrap_err(), CommNameError::InteriorNul);
        let longest = "n".repeat(127);
        let config = HcclCommConfig::named(&longest).unwrap();
        assert_eq!({ config.commName }[127], 0);
        assert_eq!(
            HcclCommConfig::named(&"n".repeat(128)).unwrap_err(),
            CommNameError::TooLong { length_bytes: 128, limit_bytes: 127 }
        );
    }
}
