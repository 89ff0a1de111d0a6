//! Segments: what engines publish about their memory, and the table of those an engine knows.

pub mod codec;
pub mod descriptor;
pub(crate) mod json;
pub mod table;

pub use descriptor::{
    BufferDescriptor, DeviceMemory, OURS_VERSION, Ours, RankInfo, SegmentDescriptor, timestamp_now,
};
pub use table::{LOCAL_SEGMENT, Segment, SegmentId, SegmentTable, View};
