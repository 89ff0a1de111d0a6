//! Where the pages of our own memory lie, and having them at once instead of at their first use.

use std::str::FromStr;

use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// Where Linux lists the nodes that have memory.
const NODES_WITH_MEMORY: &str = "/sys/devices/system/node/has_memory";
/// Highest number of a memory node.
const MAX_NODE: u32 = 1023;
/// Bytes that are had in one call, so that a machine which runs out says so early.
const POPULATED_BYTES: usize = 1 << 30;
/// Numbers of the kernel's interface (`linux/mempolicy.h`).
const MPOL_BIND: libc::c_int = 2;
const MPOL_INTERLEAVE: libc::c_int = 3;

/// On which memory nodes of the machine pages are to lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nodes {
    /// On that of the processor that touches them first.
    #[default]
    FirstUse,
    /// On all in turn.
    All,
    /// On this one.
    One(u32),
}

impl FromStr for Nodes {
    type Err = ();

    /// Empty, `all` or a number.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim() {
            "" => Ok(Self::FirstUse),
            "all" => Ok(Self::All),
            digits => digits.parse().ok().filter(|node| *node <= MAX_NODE).map(Self::One).ok_or(()),
        }
    }
}

/// Has the pages of a range, all of whole pages and none of them touched, lie on these nodes.
///
/// # Errors
/// [`Code::Memory`] for a node that the machine does not have, or where the kernel refuses.
pub(crate) fn place(range: ByteRange, nodes: Nodes) -> Result<()> {
    let (mode, list) = match nodes {
        Nodes::FirstUse => return Ok(()),
        Nodes::One(node) => (MPOL_BIND, vec![node]),
        Nodes::All => (MPOL_INTERLEAVE, nodes_with_memory()),
    };
    let refused = |why: String| {
        Error::new(Code::Memory, Stage::Register, format!("memory cannot be placed on nodes {list:?}: {why}"))
            .range(range.start(), range.length_bytes())
            .advice("see which nodes there are with numactl --hardware")
    };
    let (address, length) = native(range).ok_or_else(|| refused("the range does not fit".into()))?;
    let mut mask = [0_u64; (MAX_NODE as usize + 1) / 64];
    for node in &list {
        if let Some(word) = mask.get_mut(*node as usize / 64) {
            *word |= 1 << (node % 64);
        }
    }
    // SAFETY: the range is memory of ours that the caller has mapped; a policy changes no contents. The mask is read
    // during the call only, and is one bit longer than the number of bits given, as the kernel wants it.
    let outcome = unsafe {
        libc::syscall(libc::SYS_mbind, address, length, mode, mask.as_ptr(), MAX_NODE as usize + 1, 0)
    };
    if outcome == 0 { Ok(()) } else { Err(refused(std::io::Error::last_os_error().to_string())) }
}

/// Has all pages of a range now.
///
/// # Errors
/// [`Code::Memory`] when there are too few.
pub(crate) fn populate(range: ByteRange) -> Result<()> {
    let refused = |why: String| {
        Error::new(Code::Memory, Stage::Register, format!("memory cannot be had at once: {why}"))
            .range(range.start(), range.length_bytes())
            .advice("lend less, or let memory be taken as it is used")
    };
    let (start, length) = native(range).ok_or_else(|| refused("the range does not fit".into()))?;
    let mut offset = 0;
    while offset < length {
        let part = POPULATED_BYTES.min(length - offset);
        let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start + offset);
        // SAFETY: the part lies in memory of ours that is mapped writable; populating changes no contents.
        if unsafe { libc::madvise(address, part, libc::MADV_POPULATE_WRITE) } != 0 {
            let error = std::io::Error::last_os_error();
            // Kernels before 5.14 do not know it.
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(refused(error.to_string()));
            }
            touch(start + offset, part);
        }
        offset += part;
    }
    Ok(())
}

/// Writes the first byte of each page of memory that holds nothing but zeros yet.
fn touch(start: usize, length: usize) {
    for offset in (0..length).step_by(4096) {
        let byte = std::ptr::with_exposed_provenance_mut::<u8>(start + offset);
        // SAFETY: the byte lies in memory of ours that is mapped writable and that nobody uses yet.
        unsafe { byte.write_volatile(0) };
    }
}

fn native(range: ByteRange) -> Option<(usize, usize)> {
    Some((usize::try_from(range.start()).ok()?, usize::try_from(range.length_bytes()).ok()?))
}

/// The nodes that have memory; the first one where the kernel does not say.
fn nodes_with_memory() -> Vec<u32> {
    let text = std::fs::read_to_string(NODES_WITH_MEMORY).unwrap_or_default();
    let mut nodes = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            nodes.extend(first..=last.min(MAX_NODE));
        }
    }
    if nodes.is_empty() {
        nodes.push(0);
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, SharedMemory};

    #[test]
    fn a_choice_is_read() {
        assert_eq!("".parse(), Ok(Nodes::FirstUse));
        assert_eq!("all".parse(), Ok(Nodes::All));
        assert_eq!(" 1 ".parse(), Ok(Nodes::One(1)));
        assert!("node1".parse::<Nodes>().is_err() && "1024".parse::<Nodes>().is_err());
    }

    #[test]
    fn memory_is_placed_and_had() {
        let memory = SharedMemory::allocate(8 << 20, HugePages::No).unwrap();
        let node = nodes_with_memory().first().copied().unwrap();
        if let Err(error) = place(memory.range(), Nodes::One(node)) {
            // Containers often forbid the call.
            return mooncake_test_support::skip(&error.to_string());
        }
        place(memory.range(), Nodes::All).unwrap();
        let error = place(memory.range(), Nodes::One(1000)).unwrap_err();
        assert!(error.to_string().contains("1000"), "{error}");
        let before = resident();
        populate(memory.range()).unwrap();
        assert!(resident() >= before + (8 << 20) - (64 << 10), "{before}");
        let mut bytes = [1; 8];
        memory.read(4 << 20, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 8]);
        touch(usize::try_from(memory.address()).unwrap(), 8 << 20);
    }

    /// Shared memory that this process has in its page tables.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }
}
