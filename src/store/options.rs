//! What a store is made from.

use std::sync::Arc;

use crate::config::Config;
use crate::engine::Engine;

/// The arguments of [`super::Store::setup`]; the names are those of upstream's `setup`.
#[derive(Clone)]
pub struct StoreOptions {
    /// `host`, `host:port` or `host:port:npu_N`. It is the name of this client's segments as it stands here. Without
    /// a port, one of `MC_STORE_CLIENT_MIN_PORT` to `MC_STORE_CLIENT_MAX_PORT` is taken.
    pub local_hostname: String,
    /// `P2PHANDSHAKE`, or the address of a metadata service; of no effect with a given engine.
    pub metadata_server: String,
    /// Bytes this client lends to the pool, any number; 0 lends nothing.
    pub global_segment_size_bytes: u64,
    /// Bytes of the staging area that [`super::Store::put`] and [`super::Store::get`] may use; 0 switches these off, as upstream has
    /// it. No memory is taken for it: values are moved straight from and to where they are.
    pub local_buffer_size_bytes: u64,
    /// `tcp` or `ascend`; others are refused.
    pub protocol: String,
    /// Devices of other transports; of no effect here.
    pub device_names: String,
    /// `host:port`, or several of them separated by `,` or `;`, tried in turn.
    pub master_server_address: String,
    /// The engine to move data with, shared with its other users; one of its own when `None`.
    pub engine: Option<Arc<Engine>>,
    /// The tenant that keys belong to.
    pub tenant: String,
    /// All settings.
    pub config: Config,
}

impl Default for StoreOptions {
    /// Upstream's defaults, and an environment without settings.
    fn default() -> Self {
        Self {
            local_hostname: "localhost".into(),
            metadata_server: "P2PHANDSHAKE".into(),
            global_segment_size_bytes: 16 << 20,
            local_buffer_size_bytes: 16 << 20,
            protocol: "tcp".into(),
            device_names: String::new(),
            master_server_address: "127.0.0.1:50051".into(),
            engine: None,
            tenant: "default".into(),
            config: Config::default(),
        }
    }
}
