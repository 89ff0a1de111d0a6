//! `aclrtMemcpyBatch` and its relatives: many host-device copies in one call, each with declared locations that must
//! be true (facts 1.6).

use std::sync::Arc;

use crate::abi::{MemcpyBatchAttribute, MemoryLocation};
use crate::block::Owner;
use crate::context;
use crate::copy::{self, End};
use crate::copy_rules;
use crate::cost::{self, clock};
use crate::status::{Fail, Outcome, acl};
use crate::stream::Stream;

/// Copies one synchronous call takes (the driver's limit).
pub const BATCH_LIMIT: usize = 4096;

const HOST: i32 = 0;
const DEVICE: i32 = 1;
const HOST_NUMA: i32 = 4;

/// The arrays of one call.
pub struct Batch<'a> {
    /// Targets.
    pub targets: &'a [usize],
    /// Room at each target.
    pub target_limits: &'a [usize],
    /// Sources.
    pub sources: &'a [usize],
    /// Bytes of each copy.
    pub lengths: &'a [usize],
    /// Declared locations.
    pub attributes: &'a [MemcpyBatchAttribute],
    /// First copy of each attribute.
    pub attribute_starts: &'a [usize],
}

/// A failure with the index of the copy that caused it, if one did.
pub type BatchFail = (Fail, Option<usize>);

fn param(text: impl Into<String>) -> BatchFail {
    (Fail::new(acl::INVALID_PARAM, text), None)
}

fn at(index: usize, fail: Fail) -> BatchFail {
    (Fail::new(fail.code, format!("copy {index}: {}", fail.text)), Some(index))
}

impl Batch<'_> {
    fn check_arrays(&self) -> Result<(), BatchFail> {
        let count = self.lengths.len();
        if count == 0 {
            return Err(param("the batch has no copies"));
        }
        if self.attributes.is_empty() || self.attributes.len() > count {
            return Err(param(format!("{} attributes for {count} copies", self.attributes.len())));
        }
        if self.attribute_starts.first() != Some(&0)
            || self.attribute_starts.iter().any(|start| *start >= count)
            || !self.attribute_starts.is_sorted_by(|one, other| one < other)
        {
            return Err(param(
                "attribute indexes must begin with 0, ascend, and stay below the number of copies",
            ));
        }
        if self.attributes.iter().any(|attribute| attribute.reserved.iter().any(|byte| *byte != 0)) {
            return Err(param("the reserved bytes of an attribute are not zero"));
        }
        if let Some(index) =
            self.lengths.iter().zip(self.target_limits).position(|(length, limit)| length > limit)
        {
            return Err((
                Fail::new(acl::INVALID_PARAM, format!("copy {index} has more bytes than room")),
                Some(index),
            ));
        }
        Ok(())
    }

    /// The checked ends of every copy with bytes.
    fn resolve(&self, empty_is_wrong: bool) -> Result<Vec<(End, End, usize, usize)>, BatchFail> {
        let mut copies = Vec::with_capacity(self.lengths.len());
        let mut attribute_index = 0;
        for (index, ((target, source), length)) in
            self.targets.iter().zip(self.sources).zip(self.lengths).enumerate()
        {
            while self.attribute_starts.get(attribute_index + 1).is_some_and(|start| *start <= index) {
                attribute_index += 1;
            }
            if *length == 0 {
                if empty_is_wrong {
                    return Err(at(index, Fail::new(acl::PARAM_INVALID, "the size is 0")));
                }
                continue;
            }
            if *target == 0 || *source == 0 {
                return Err((
                    Fail::new(acl::INVALID_PARAM, format!("copy {index} has a NULL address")),
                    Some(index),
                ));
            }
            let Some(attribute) = self.attributes.get(attribute_index) else { continue };
            let ends = End::locate(*target, *length).and_then(|target| {
                let source = End::locate(*source, *length)?;
                check_location("target", &target, attribute.target)?;
                check_location("source", &source, attribute.source)?;
                if target.device().is_some() == source.device().is_some() {
                    return Err(Fail::new(acl::PARAM_INVALID, "one side must be host, the other device"));
                }
                Ok((target, source))
            });
            let (target, source) = ends.map_err(|fail| at(index, fail))?;
            copies.push((target, source, *length, index));
        }
        Ok(copies)
    }

    /// `aclrtMemcpyBatch`: blocks until all is done.
    pub fn run_now(&self) -> Result<(), BatchFail> {
        self.check_arrays()?;
        let device = context::current().map_err(|fail| (fail, None))?.device;
        if self.lengths.len() > BATCH_LIMIT {
            let text = format!("{} copies are more than {BATCH_LIMIT}", self.lengths.len());
            return Err((Fail::new(acl::PARAM_INVALID, text), None));
        }
        let copies = self.resolve(false)?;
        let charge = cost::costs().map(|costs| {
            let began_ns = clock::launching_ns();
            (costs, began_ns, costs.launch_batch(device, copies.len()))
        });
        let mut end_ns = 0;
        for (target, source, length, index) in copies {
            let (to, from) = (address(self.targets, index), address(self.sources, index));
            if let Some((costs, _, launched_ns)) = charge {
                end_ns = costs.copy(device, &target, &source, length, launched_ns).max(end_ns);
            }
            copy::copy_now(&target, &source, length, to, from).map_err(|fail| at(index, fail))?;
        }
        if let Some((_, began_ns, launched_ns)) = charge {
            clock::pass(began_ns, end_ns.max(launched_ns), 0);
            clock::saw_end();
        }
        Ok(())
    }

    /// `aclrtMemcpyBatchAsync`: one asynchronous copy after the other; unpinned host memory makes it block.
    pub fn submit(&self, stream: &Arc<Stream>) -> Result<(), BatchFail> {
        self.check_arrays()?;
        for (target, source, length, index) in self.resolve(true)? {
            let done = if target.is_known() && source.is_known() {
                copy_rules::submit_copy(stream, target, source, length)
            } else {
                let (to, from) = (address(self.targets, index), address(self.sources, index));
                stream.synchronize(None).and_then(|()| {
                    copy_rules::charged_now(stream.device, &target, &source, length, || {
                        copy::copy_now(&target, &source, length, to, from)
                    })
                })
            };
            done.map_err(|fail| at(index, fail))?;
        }
        Ok(())
    }
}

fn address(addresses: &[usize], index: usize) -> usize {
    addresses.get(index).copied().unwrap_or(0)
}

/// A declared location must be the true one; unregistered memory counts as host. Memory imported by key has no
/// copies to or from the host, which is all that a batch does.
fn check_location(side: &str, end: &End, declared: MemoryLocation) -> Outcome {
    if end.block().is_some_and(|block| matches!(block.owner, Owner::Foreign { .. })) {
        return Err(Fail::new(acl::PARAM_INVALID, format!("the {side} is memory imported by key")));
    }
    let fits = match end.device() {
        Some(user_id) => declared.kind == DEVICE && declared.id == user_id,
        None => declared.kind == HOST || declared.kind == HOST_NUMA,
    };
    if fits {
        return Ok(());
    }
    Err(Fail::new(
        acl::PARAM_INVALID,
        format!(
            "the {side} is declared as location type {} id {}, but it is {:?}",
            declared.kind,
            declared.id,
            end.device()
        ),
    ))
}
