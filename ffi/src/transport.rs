//! `transport_t`: what `installTransport` answers. No function takes one, so it is a value without a table.

use std::ffi::{c_char, c_int, c_void};

use mooncake::engine::TransportKind;
use mooncake::error::Stage;

use crate::abi::Handle;
use crate::boundary::{null, text};
use crate::engine::engine;
use crate::handle::encode_transport;

fn number(kind: TransportKind) -> u8 {
    match kind {
        TransportKind::Ascend => 1,
        TransportKind::Tcp => 2,
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
