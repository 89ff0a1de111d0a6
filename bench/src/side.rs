//! What both sides of a transfer have: a library, a device, an engine and its registered buffers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::arena::Arena;
use crate::arguments::{Arguments, Form};
use crate::device::{Memory, Npu};
use crate::layout::QWEN;
use crate::library::{Engine, Library};
use crate::profile;
use crate::software_npu;
use crate::sweep;

/// Contents of a target's buffers start from this seed, plus the buffer's number in the upper half.
const TARGET_SEED: u64 = 0x7A26_E700;
/// And of an initiator's.
const INITIATOR_SEED: u64 = 0x1417_1A70;

/// The program's two roles, by which contents differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Owns what is read and written.
    Target,
    /// Reads and writes.
    Initiator,
}

/// One side. Fields are dropped in this order: the engine before the memory it has registered.
pub struct Side<'library> {
    /// The engine.
    pub engine: Engine<'library>,
    /// Its registered buffers.
    pub arenas: Vec<Arena>,
    /// The device, when NPU memory is used.
    pub npu: Option<Arc<Npu>>,
    /// How long a batch may take.
    pub limit: Duration,
}

impl<'library> Side<'library> {
    /// Opens the device, makes the engine, allocates and registers the buffers of the form.
    ///
    /// # Errors
    /// If any of that fails.
    pub fn new(library: &'library Library, arguments: &Arguments, role: Role) -> Result<Self> {
        ensure!(arguments.backend == "classic", "the backend {} does not exist here", arguments.backend);
        let protocol = match arguments.protocol.as_str() {
            "ascend_direct" | "hccl" => "ascend",
            other => other,
        };
        let npu = if protocol == "ascend" {
            Some(Npu::open(&software_npu::load_options(), arguments.device())?)
        } else {
            None
        };
        let engine = Engine::new(
            library,
            &arguments.metadata_server,
            &arguments.engine_name(),
            arguments.auto_discovery,
        )?;
        let matrix = arguments
            .nic_priority_matrix
            .as_ref()
            .map(|path| {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            })
            .transpose()?;
        engine.install(protocol, matrix.as_deref())?;
        let seed = match role {
            Role::Target => TARGET_SEED,
            Role::Initiator => INITIATOR_SEED,
        };
        let mut arenas = Vec::new();
        for (length, number) in buffers(arguments)?.into_iter().zip(0_u64..) {
            let memory = match &npu {
                Some(npu) if arguments.use_vram => Memory::device(npu, length)?,
                _ => Memory::host(length)?,
            };
            let arena = Arena::new(memory, seed + (number << 32))?;
            engine.register(arena.address(), arena.length_bytes(), &arena.location())?;
            arenas.push(arena);
        }
        Ok(Self { engine, arenas, npu, limit: Duration::from_millis(arguments.timeout_ms) })
    }

    /// Withdraws the buffers.
    ///
    /// # Errors
    /// If one is still in use.
    pub fn unregister(&self) -> Result<()> {
        self.arenas.iter().try_for_each(|arena| self.engine.unregister(arena.address()))
    }
}

/// The lengths of the buffers that a form needs, alike on both sides.
fn buffers(arguments: &Arguments) -> Result<Vec<u64>> {
    let product = |factors: &[u64]| {
        let product = factors.iter().try_fold(1_u64, |product, factor| product.checked_mul(*factor));
        product.filter(|bytes| *bytes > 0).context("block size, batch size and threads make no buffer")
    };
    let (block, batch) = blocks(arguments);
    match arguments.form() {
        Form::Timed => {
            let needed = product(&[block, batch, arguments.threads])?;
            if needed > arguments.buffer_size {
                crate::console::tell(format!("the buffer is raised to {needed} bytes: all blocks must fit"));
            }
            Ok(vec![needed.max(arguments.buffer_size)])
        }
        Form::Iterations => {
            let count = arguments.block_iteration.unwrap_or(10);
            if count > 32 {
                bail!("--block_iteration doubles the block that often; 32 is the most");
            }
            let first = std::iter::once(Ok(block));
            first.chain((0..count).map(|index| product(&[batch, block, 2, 1 << index]))).collect()
        }
        Form::Suite => Ok(std::iter::once(sweep::BUFFER_BYTES).chain(QWEN.buffers()).collect()),
        Form::Profile => Ok(profile::buffers(arguments)),
    }
}

/// The block size and batch size, with the defaults of the form.
#[must_use]
pub fn blocks(arguments: &Arguments) -> (u64, u64) {
    let (block, batch) = match arguments.form() {
        Form::Iterations => (32_768, 32),
        Form::Timed | Form::Suite | Form::Profile => (65_536, 128),
    };
    (arguments.block_size.unwrap_or(block), arguments.batch_size.unwrap_or(batch))
}
