//! Every limit of the decoders, in one place. Upstream has none; these are far above what its clients send.

/// Longest request body a server reads: a batch of 100,000 keys of 200 bytes is 20 MB.
pub const MAX_REQUEST_BODY_BYTES: u32 = 64 << 20;
/// Longest response body a client reads: a regex listing of two million objects is about 300 MB.
pub const MAX_RESPONSE_BODY_BYTES: u32 = 512 << 20;
/// Longest attachment either side skips. The master's calls carry none.
pub const MAX_ATTACHMENT_BYTES: u32 = 1 << 20;
/// Longest string: key, name, endpoint, path, tenant, message.
pub const MAX_STRING_BYTES: usize = 1 << 20;
/// Most elements of one vector or map.
pub const MAX_ELEMENTS: usize = 4 << 20;
/// A container grows from at most this many reserved elements, whatever its length prefix says.
pub const MAX_RESERVED_ELEMENTS: usize = 4096;
