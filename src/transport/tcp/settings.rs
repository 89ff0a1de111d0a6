//! What can be set about the TCP transport.

use std::time::Duration;

use crate::config::Config;

/// The settings that the transport uses, taken from [`Config`] once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Range of the data listener's port.
    pub ports: (u16, u16),
    /// Connections the kernel holds for the listener.
    pub backlog: i32,
    /// Connections to one peer.
    pub lanes: usize,
    /// Jobs that wait at one peer at most.
    pub max_jobs: usize,
    /// Time for one connection to come up.
    pub connect_timeout: Duration,
    /// Time without a byte after which a connection with requests on it is given up.
    pub progress_timeout: Duration,
    /// Speak version 1 even to peers that know version 2.
    pub force_first_version: bool,
    /// Keep connections for the next request.
    pub keep: bool,
    /// Clients served at once; one more is turned away.
    pub max_sessions: usize,
}

impl Settings {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            ports: (config.rpc_port_min, config.rpc_port_max),
            backlog: config.listen_backlog,
            lanes: config.tcp_lanes,
            max_jobs: config.tcp_max_jobs,
            connect_timeout: config.handshake_connect_timeout,
            progress_timeout: config.tcp_progress_timeout,
            force_first_version: config.tcp_first_version,
            keep: config.tcp_keep,
            max_sessions: config.tcp_max_sessions,
        }
    }
}
