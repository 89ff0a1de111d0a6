//! What the processes of one server contend for: the port that a card listens at, and the initialisation of HCCL.
//!
//! - A rank with higher ranks behind RoCE listens at its `device_ip` and port (16666 unless the rank table has one).
//!   The communicators of one process share the port; a second process on the same NPU is refused with 19, unless
//!   `HCCL_NPU_SOCKET_PORT_RANGE` lets the card choose (facts 2.4 point 4, 2.5).
//! - Initialisations that meet can transiently answer 7 (facts 2.4 point 1). Here they do when
//!   `CANN_SIM_INIT_EXCLUSIVE_MS` says how long one takes; unset, they take no time and never meet.
//!
//! Both are abstract sockets, so a process that dies gives them back.

use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::rank_table::Rank;
use crate::settings::settings;
use crate::status::{Fail, Outcome, hccl};

/// The port of a card whose rank table names none (facts 2.5).
const DEFAULT_PORT: u16 = 16_666;

/// A port, as long as a communicator needs it.
#[derive(Debug)]
pub struct HeldPort {
    _listener: UnixListener,
}

static HELD: LazyLock<Mutex<HashMap<String, Weak<HeldPort>>>> = LazyLock::new(Mutex::default);

fn take(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Holds the port of our own entry of the rank table; None when the card chooses one itself.
pub fn hold(own: &Rank) -> Outcome<Option<Arc<HeldPort>>> {
    let settings = settings();
    let Some(address) = own.device_ips.first().filter(|_| !settings.card_chooses_port) else {
        return Ok(None);
    };
    let port = own.device_port.unwrap_or(DEFAULT_PORT);
    let name = format!("cann-sim-port/{}/{address}/{port}", settings.namespace);
    let mut held = HELD.lock();
    if let Some(port) = held.get(&name).and_then(Weak::upgrade) {
        return Ok(Some(port));
    }
    let listener = take(&name).map_err(|error| {
        Fail::new(
            hccl::E_NETWORK,
            format!(
                "EI0019: the card cannot listen at {address}:{port} ({error}); another process on this NPU does, \
                 see HCCL_NPU_SOCKET_PORT_RANGE"
            ),
        )
    })?;
    let port = Arc::new(HeldPort { _listener: listener });
    held.retain(|_, port| port.strong_count() > 0);
    held.insert(name, Arc::downgrade(&port));
    Ok(Some(port))
}

/// An initialisation under way.
pub struct Initialising {
    _others: MutexGuard<'static, ()>,
    _server: UnixListener,
}

/// Begins an initialisation, which takes as long as the settings say; 7 while another process is at it.
pub fn initialise() -> Outcome<Option<Initialising>> {
    static OWN: Mutex<()> = Mutex::new(());
    let settings = settings();
    if settings.init_exclusive_ms == 0 {
        return Ok(None);
    }
    let others = OWN.lock();
    let server =
        take(&format!("cann-sim-init/{}/{}", settings.namespace, settings.server_index)).map_err(|_| {
            Fail::new(hccl::E_UNAVAIL, "another process of this server is initialising HCCL; try again")
        })?;
    std::thread::sleep(Duration::from_millis(u64::from(settings.init_exclusive_ms)));
    Ok(Some(Initialising { _others: others, _server: server }))
}
