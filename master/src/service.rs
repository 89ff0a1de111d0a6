//! The running master: listeners, upkeep, and the way down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use crate::admin::{self, Admin, Rates};
use crate::flags::Settings;
use crate::journal::{Journal, JournalError, Options, Verdict};
use crate::memory::Returner;
use crate::metrics::Metrics;
use crate::moment::Clock;
use crate::rpc::{self, Server, Workers};
use crate::state::State;

/// Connections that wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: u32 = 65_535;
const TICK: Duration = Duration::from_millis(10);
const COMPACTION_CHECK: Duration = Duration::from_secs(1);
const REPORT: Duration = Duration::from_secs(10);

/// Why the master does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A port cannot be bound.
    #[error("cannot listen on {address} ({purpose}): {source}; another master may run here")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The journal cannot be used.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// A thread cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A running master; it ends with `stop`.
#[derive(Debug)]
pub struct Service {
    /// The state.
    pub state: Arc<State>,
    /// Where the RPC server listens.
    pub rpc_address: SocketAddr,
    /// Where the admin server listens.
    pub admin_address: SocketAddr,
    /// Where the metadata server listens, if there is one.
    pub metadata_address: Option<SocketAddr>,
    stopping: Arc<AtomicBool>,
    upkeep: JoinHandle<()>,
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, purpose, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    // A port that is left behind by a master that just ended is free; one that is listened on is not.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn serve_http(listener: TcpListener, router: axum::Router, purpose: &'static str) {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            log::error!("{purpose}: {error}");
        }
    });
}

impl Service {
    /// Binds every port, reads the journal and begins to serve. To be called inside a runtime.
    ///
    /// # Errors
    /// A port is taken, or the journal cannot be read or written.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let (admin_listener, admin_address) = listen(settings.admin_address, "admin and metrics HTTP")?;
        let metadata = match settings.metadata_address {
            Some(address) => Some(listen(address, "metadata HTTP")?),
            None => None,
        };
        let (rpc_listener, rpc_address) = listen(settings.rpc_address, "RPC")?;
        let clock = Clock::default();
        let state = Arc::new(Self::state(settings, clock)?);
        let server = Arc::new(Server::new(
            Arc::clone(&state),
            clock,
            rpc::Settings {
                profile: settings.profile,
                idle_timeout: settings.idle_timeout,
                no_delay: settings.no_delay,
                ..rpc::Settings::default()
            },
        ));
        let admin = Arc::new(Admin {
            state: Arc::clone(&state),
            server: Arc::clone(&server),
            clock,
            rates: Rates::default(),
        });
        serve_http(admin_listener, admin::router(Arc::clone(&admin)), "admin and metrics HTTP");
        let metadata_address = metadata.map(|(listener, address)| {
            serve_http(listener, admin::metadata_router(), "metadata HTTP");
            address
        });
        if settings.report {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(REPORT).await;
                    log::info!("Master Metrics: {}", admin::summary_line(&admin));
                }
            });
        }
        let workers = Workers::start(settings.threads).map_err(StartError::Thread)?;
        tokio::spawn(server.run(rpc_listener, workers));
        let stopping = Arc::new(AtomicBool::new(false));
        let upkeep = periodic("upkeep", TICK, &stopping, {
            let state = Arc::clone(&state);
            let mut returner = Returner::default();
            move || {
                let now = clock.now();
                state.tick(now);
                returner.look(now, || state.removed_objects());
            }
        })?;
        periodic("compaction", COMPACTION_CHECK, &stopping, {
            let state = Arc::clone(&state);
            move || state.compact_journal_if_wanted()
        })?;
        Ok(Self { state, rpc_address, admin_address, metadata_address, stopping, upkeep })
    }

    fn state(settings: &Settings, clock: Clock) -> Result<State, StartError> {
        let metrics = Arc::new(Metrics::default());
        if settings.journal_directory.is_empty() {
            return Ok(State::new(settings.policy.clone(), None, metrics));
        }
        let options = Options::new(PathBuf::from(&settings.journal_directory), settings.journal_sync);
        let (journal, replayed) = Journal::open(options)?;
        match &replayed.verdict {
            Verdict::Empty | Verdict::Used => {}
            reason => log::error!("journal: not used, the cache starts empty: {reason:?}"),
        }
        let (records, segments) = (replayed.records, replayed.segments.len());
        let state = State::new(settings.policy.clone(), Some(journal), metrics);
        let objects = state.restore(replayed, clock.now());
        if segments > 0 {
            log::info!(
                "journal: {objects} objects of {segments} segments wait for their clients ({records} records)"
            );
        }
        Ok(state)
    }

    /// Ends the upkeep and writes what is left of the journal. A compaction is not waited for: half a snapshot has
    /// no name, and the journal before it is whole.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.upkeep.thread().unpark();
        if self.upkeep.join().is_err() {
            log::error!("the upkeep ended by a panic");
        }
        self.state.flush();
    }
}

/// A thread that does something again and again until it is told to stop.
fn periodic(
    name: &'static str,
    every: Duration,
    stopping: &Arc<AtomicBool>,
    mut work: impl FnMut() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let stopping = Arc::clone(stopping);
    let body = move || {
        while !stopping.load(Ordering::Acquire) {
            work();
            std::thread::park_timeout(every);
        }
    };
    std::thread::Builder::new().name(format!("mm-{name}")).spawn(body).map_err(StartError::Thread)
}
