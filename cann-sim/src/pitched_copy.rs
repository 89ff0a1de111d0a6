//! `aclrtMemcpy2d`: rows of equal width, each side with its own distance between rows.

use std::sync::Arc;

use crate::context;
use crate::copy::{self, End};
use crate::copy_rules;
use crate::device::Device;
use crate::status::{Fail, Outcome, acl};
use crate::stream::Stream;
use crate::task::{self, Task, Work};

/// One requested copy, pointers checked for NULL.
#[derive(Debug, Clone, Copy)]
pub struct PitchedRequest {
    /// First target row.
    pub target: usize,
    /// Bytes between target rows.
    pub target_pitch: usize,
    /// First source row.
    pub source: usize,
    /// Bytes between source rows.
    pub source_pitch: usize,
    /// Bytes of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `aclrtMemcpyKind`.
    pub kind: i32,
}

/// The checked rows.
struct Rows {
    request: PitchedRequest,
    target: End,
    source: End,
}

fn row(end: &End, offset: usize) -> End {
    let mut end = end.clone();
    match &mut end {
        End::Block { address, .. } | End::Plain { address } => *address += offset,
    }
    end
}

/// Bytes from the first to the last byte that a side touches.
fn span(pitch: usize, width: usize, height: usize) -> Outcome<usize> {
    if width > pitch {
        return Err(Fail::new(acl::PARAM_INVALID, format!("a row of {width} bytes is wider than {pitch}")));
    }
    pitch
        .checked_mul(height.saturating_sub(1))
        .and_then(|length| length.checked_add(width))
        .ok_or_else(|| Fail::new(acl::PARAM_INVALID, "the rows pass the end of memory"))
}

impl PitchedRequest {
    fn resolve(self, is_synchronous: bool) -> Outcome<Rows> {
        let context = context::current()?;
        if !(1..=4).contains(&self.kind) {
            return Err(Fail::new(acl::PARAM_INVALID, format!("copies of rows have no kind {}", self.kind)));
        }
        let target = End::locate(self.target, span(self.target_pitch, self.width, self.height)?)?;
        let source = End::locate(self.source, span(self.source_pitch, self.width, self.height)?)?;
        if target.device().is_none() && source.device().is_none() {
            return Err(Fail::new(acl::FEATURE_NOT_SUPPORT, "copies of rows from host to host do not exist"));
        }
        copy_rules::check_peer_access(&context, &target, &source, is_synchronous)?;
        Ok(Rows { request: self, target, source })
    }

    /// `aclrtMemcpy2d`.
    pub fn run_now(self) -> Outcome {
        self.resolve(true)?.copy_now(context::current()?.device)
    }

    /// `aclrtMemcpy2dAsync`; with host memory that is not pinned it blocks.
    pub fn submit(self, stream: &Arc<Stream>) -> Outcome {
        let rows = self.resolve(false)?;
        if rows.target.is_known() && rows.source.is_known() {
            let launch = copy_rules::launch(stream.device, &rows.target, &rows.source);
            return launch.submit(stream, Task::Work(Box::new(rows)));
        }
        stream.synchronize(None)?;
        rows.copy_now(stream.device)
    }
}

impl Rows {
    fn ends(&self) -> impl Iterator<Item = (End, End)> {
        let PitchedRequest { target_pitch, source_pitch, height, .. } = self.request;
        (0..height).map(move |index| {
            (row(&self.target, index * target_pitch), row(&self.source, index * source_pitch))
        })
    }

    fn copy_now(&self, device: &Device) -> Outcome {
        let PitchedRequest { target, source, width, height, .. } = self.request;
        copy_rules::charged_now(device, &self.target, &self.source, width.saturating_mul(height), || {
            self.ends().try_for_each(|(to, from)| copy::copy_now(&to, &from, width, target, source))
        })
    }
}

impl Work for Rows {
    fn run(&mut self, stream: &Stream) -> Outcome {
        let PitchedRequest { width, height, .. } = self.request;
        task::charge_copy(stream, &self.target, &self.source, width.saturating_mul(height));
        self.ends().try_for_each(|(to, from)| {
            task::finish(copy::transfer(&to, &from, width, &|| stream.is_aborting()))
        })?;
        stream.settle();
        Ok(())
    }
}
