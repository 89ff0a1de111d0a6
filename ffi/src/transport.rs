//! `transport_t`: what `installTransport` answers. No function takes one, so it is a value without a table.

use std::ffi::{c_char, c_int, c_void};

use std::sync::Once;

use mooncake::engine::TransportKind;
use mooncake::error::{Error, Result, Stage};

use crate::abi::Handle;
use crate::boundary::{null, text};
use crate::code;
use crate::engine::{EngineEntry, engine};
use crate::handle::encode_transport;

fn number(kind: TransportKind) -> u8 {
    match kind {
        TransportKind::Ascend => 1,
        TransportKind::Tcp => 2,
    }
}

/// Makes ready what the protocol of upstream's `initialize` names; see `mooncake_transfer_use_protocol`.
fn use_protocol(entry: &EngineEntry, protocol: &str) -> Result<()> {
    static NO_NPU: Once = Once::new();
    static NO_CARD: Once = Once::new();
    match protocol {
        "ascend" if !entry.force_tcp => match entry.engine.install_transport("ascend", None) {
            Err(error) if error.stage() == Stage::Load && !entry.require_npu => {
                warn_without_npu(&NO_NPU, &error)
            }
            outcome => outcome.map(drop)?,
        },
        "rdma" => NO_CARD.call_once(|| {
            log::warn!("no RDMA card is driven: host memory moves within the host or by TCP");
        }),
        _ => (),
    }
    Ok(())
}

fn warn_without_npu(once: &Once, error: &Error) {
    once.call_once(|| {
        log::warn!(
            "no NPU: host memory can be moved, device memory is refused \
             (MOONCAKE_TRANSFER_REQUIRE_NPU=1 makes this an error): {error}"
        );
    });
}

export! {
    /// Makes ready what a protocol needs.
    fn mooncake_transfer_use_protocol(engine: Handle, protocol: *const c_char) -> c_int,
    failure code::of, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        let protocol = unsafe { text(protocol, "protocol", Stage::Configure) }?;
        use_protocol(&entry, &protocol)?;
        Ok(0)
    }
}

export! {
    /// Installs a transport by name.
    fn installTransport(engine: Handle, proto: *const c_char, args: *mut *mut c_void) -> Handle,
    failure null, {
        let entry = self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        let protocol = unsafe { text(proto, "proto", Stage::Configure) }?;
        let matrix = if args.is_null() {
            None
        } else {
            // SAFETY: the header asks for NULL or an array of at least one pointer.
            let first = unsafe { args.read_unaligned() };
            // SAFETY: and that one for NULL or a text closed by NUL.
            let text = || unsafe { text(first.cast(), "args[0]", Stage::Configure) };
            (!first.is_null()).then(text).transpose()?
        };
        let kind = entry.engine.install_transport(&protocol, matrix.as_deref())?;
        encode_transport(engine, number(kind))
    }
}

export! {
    /// Does nothing, successfully: upstream does not uninstall either.
    fn uninstallTransport(engine: Handle, proto: *const c_char) -> c_int,
    failure crate::boundary::negative, {
        self::engine(engine)?;
        // SAFETY: the header asks for a text closed by NUL.
        unsafe { text(proto, "proto", Stage::Configure) }?;
        Ok(0)
    }
}
