//! Sizes and offsets of the vendor's structs, asserted at compile time.
//!
//! bindgen's own assertions compare the bindings with *our* header; these compare them with the numbers
//! that compiling the vendor's headers gave (LP64, 8.1.RC1 to 9.2). A slip in our header fails the build.

use crate::bindings::*;
use core::mem::{align_of, offset_of, size_of};

/// Asserts the size of a type and the offset of each of its fields.
macro_rules! layout {
    ($type:ident: $size:literal bytes, aligned to $alignment:literal { $($field:ident: $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $alignment);
            $(assert!(offset_of!($type, $field) == $offset);)*
        };
    };
}

layout!(aclrtMemLocation: 8 bytes, aligned to 4 { id: 0, type_: 4 });
layout!(aclrtPtrAttributes: 28 bytes, aligned to 4 { location: 0, pageSize: 8, rsv: 12 });
layout!(aclrtMemcpyBatchAttr: 32 bytes, aligned to 4 { dstLoc: 0, srcLoc: 8, rsv: 16 });
layout!(aclrtPhysicalMemProp: 32 bytes, aligned to 8 {
    handleType: 0,
    allocationType: 4,
    memAttr: 8,
    location: 12,
    reserve: 24,
});
layout!(aclrtMemAccessDesc: 24 bytes, aligned to 4 { flags: 0, location: 4, rsv: 12 });
layout!(aclrtMemFabricHandle: 128 bytes, aligned to 1 { data: 0 });

layout!(CommMem: 24 bytes, aligned to 8 { type_: 0, addr: 8, size: 16 });
layout!(HcclOneSideOpDesc: 32 bytes, aligned to 8 { localAddr: 0, remoteAddr: 8, count: 16, dataType: 24 });
layout!(HcclMemDesc: 512 bytes, aligned to 1 { desc: 0 });
layout!(HcclMemDescs: 16 bytes, aligned to 8 { array: 0, arrayLength: 8 });
layout!(HcclPrepareConfig: 32 bytes, aligned to 8 { topoType: 0, rsvd0: 8, rsvd1: 16, rsvd2: 24 });
layout!(HcclCommConfig: 300 bytes, aligned to 4 {
    size: 0,
    magic: 8,
    version: 12,
    reserved: 16,
    bufferSize: 24,
    deterministic: 28,
    commName: 32,
    udi: 160,
    opExpansionMode: 288,
    rdmaTrafficClass: 292,
    rdmaServiceLevel: 296,
});

// All enumerations and codes are 32 bit wide, all handles are pointers.
const _: () = {
    assert!(size_of::<aclError>() == 4);
    assert!(size_of::<HcclResult>() == 4);
    assert!(size_of::<aclrtMemcpyKind>() == 4);
    assert!(size_of::<aclrtMemMallocPolicy>() == 4);
    assert!(size_of::<aclrtDevAttr>() == 4);
    assert!(size_of::<CommMemType>() == 4);
    assert!(size_of::<HcclDataType>() == 4);
    assert!(size_of::<aclrtStream>() == size_of::<usize>());
    assert!(size_of::<HcclComm>() == size_of::<usize>());
    assert!(size_of::<aclrtMalloc>() == size_of::<usize>());
};
