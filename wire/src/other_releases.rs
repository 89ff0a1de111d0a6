//! Argument hashes of the releases whose profile we do not offer, so that a refusal can say who called.
//!
//! Generated from the recorded vectors of eight releases; hashes that one of our profiles has are left out.

use crate::function::Function::{self, *};

/// Function, argument hash, releases that send it.
const KNOWN: &[(Function, u32, &str)] = &[
    (MountSegment, 0x70fc_b3da, "0.3.7 to 0.3.8"),
    (ReMountSegment, 0xc3dd_cd16, "0.3.7 to 0.3.8"),
    (PutStart, 0x2eb4_0706, "0.3.7"),
    (PutStart, 0x786e_5846, "0.3.8 to 0.3.10"),
    (PutStart, 0x66ce_6bf6, "0.3.10.post2"),
    (PutStart, 0x6920_ea5c, "0.3.12"),
    (PutEnd, 0x081b_904a, "0.3.7"),
    (PutEnd, 0x1b7a_228a, "0.3.12"),
    (PutRevoke, 0x081b_904a, "0.3.7"),
    (BatchPutStart, 0x82e0_1884, "0.3.7"),
    (BatchPutStart, 0x9905_68ce, "0.3.8 to 0.3.10"),
    (BatchPutStart, 0xa2f1_f15c, "0.3.10.post2"),
    (BatchPutStart, 0x8048_5c74, "0.3.12"),
    (BatchPutEnd, 0x8a86_e11a, "0.3.7"),
    (BatchPutEnd, 0x581e_61a4, "0.3.8 to 0.3.10.post2"),
    (BatchPutEnd, 0x94ee_5d44, "0.3.12"),
    (BatchPutRevoke, 0x8a86_e11a, "0.3.7"),
    (BatchPutRevoke, 0x581e_61a4, "0.3.8 to 0.3.10.post2"),
    (Remove, 0x9dcf_fa76, "0.3.7 to 0.3.8"),
    (RemoveByRegex, 0x9dcf_fa76, "0.3.7 to 0.3.8"),
    (UpsertStart, 0x66ce_6bf6, "0.3.10.post2"),
    (UpsertStart, 0x6920_ea5c, "0.3.12"),
    (UpsertEnd, 0x1b7a_228a, "0.3.12"),
    (BatchUpsertStart, 0xa2f1_f15c, "0.3.10.post2"),
    (BatchUpsertStart, 0x8048_5c74, "0.3.12"),
    (BatchUpsertEnd, 0xd609_1496, "0.3.12"),
];

/// The releases that call `function` with arguments of this hash, if they are known and not one of our profiles.
#[must_use]
pub fn release_of(function: Function, hash: u32) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|(known, value, _)| *known == function && *value == hash)
        .map(|(_, _, release)| *release)
}
