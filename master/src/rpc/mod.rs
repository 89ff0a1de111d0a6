//! The RPC server: upstream's coro_rpc on TCP, one task per connection, on threads that share nothing but the state.
//!
//! A connection's calls are answered in order, and everything a call changed is in the journal before its answer is
//! sent. What a connection sends is bounded: a frame that is not ours, or too long, or that does not come to its end
//! in time, ends it; the others go on.

mod connection;
mod dispatch;
mod tally;
mod unavailable;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mooncake_wire::Profile;
use tokio::net::{TcpListener, TcpStream};

use crate::moment::Clock;
use crate::state::State;
pub use workers::Workers;

/// Most connections at a time. Each idle one takes about a kilobyte here and as much in the kernel.
pub const MAX_CONNECTIONS: usize = 65_536;
/// How long a short frame may take from its first byte to its last, and a short answer to be taken.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// A frame or an answer that is longer gets one second more for each of these.
const BYTES_PER_SECOND: usize = 1 << 20;
/// Bytes of frames that are not whole and of answers that are not taken, over all connections. Above it, a connection
/// that holds much of it is closed.
const MAX_HELD_BYTES: usize = 1 << 30;
/// What every connection may hold.
const FREE_HELD_BYTES: usize = 1 << 20;
/// Pause after an accept that failed for want of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The release that is spoken; none: each call tells.
    pub profile: Option<Profile>,
    /// Idle connections are closed after this time; none: never.
    pub idle_timeout: Option<Duration>,
    /// Whether small answers are sent at once.
    pub no_delay: bool,
    /// How long a short frame may take, and a short answer to be taken.
    pub frame_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { profile: None, idle_timeout: None, no_delay: true, frame_timeout: FRAME_TIMEOUT }
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    clock: Clock,
    settings: Settings,
    open: AtomicUsize,
    held: AtomicUsize,
    next_connection: AtomicU64,
}

impl Server {
    /// A server of this state.
    #[must_use]
    pub const fn new(state: Arc<State>, clock: Clock, settings: Settings) -> Self {
        Self {
            state,
            clock,
            settings,
            open: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            next_connection: AtomicU64::new(0),
        }
    }

    /// Connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Accepts connections for ever and gives them to the threads.
    pub async fn run(self: Arc<Self>, listener: TcpListener, workers: Workers) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(self.settings.no_delay) {
                        log::debug!("{peer}: {error}");
                    }
                    if let Err(error) = Arc::clone(&self).spawn(stream, peer, &workers) {
                        log::warn!("{peer}: {error}");
                    }
                }
                Err(error) => {
                    log::warn!("accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, workers: &Workers) -> std::io::Result<()> {
        let metrics = self.state.metrics();
        metrics.connections_accepted.increment();
        let open = Open::new(Arc::clone(&self));
        let Some((worker, place)) = workers.place().filter(|_| self.open_connections() <= MAX_CONNECTIONS)
        else {
            metrics.connections_refused.increment();
            return Ok(());
        };
        // It leaves the event loop that accepted it for that of its thread.
        let stream = stream.into_std()?;
        worker.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => connection::serve(&self, stream, peer, &place).await,
                Err(error) => log::warn!("{peer}: {error}"),
            }
            drop((open, place));
        });
        Ok(())
    }
}

/// One open connection, as long as it lives: also if what serves it panics.
struct Open(Arc<Server>);

impl Open {
    fn new(server: Arc<Server>) -> Self {
        server.open.fetch_add(1, Ordering::Relaxed);
        Self(server)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
