//! The master: the metadata service of the pool, on upstream's wire.
//!
//! It knows who lends memory, which object lies where and who may read it; the bytes themselves go from client to
//! client and never come here.
//!
//! ```text
//!   upstream's and our clients          people, Prometheus, SGLang
//!             | coro_rpc (wire)                  | HTTP
//!            rpc                               admin
//!              \                                 /
//!               +----------- state -------------+        time is an argument: nothing in there sleeps
//!                    |               |
//!                 metrics         journal ---- files
//! ```
//!
//! - `flags`: the command line and configuration file in upstream's syntax.
//! - `rpc`: one task per connection; frames in, frames out; what changed is journalled before it is answered.
//! - `state`: every rule about clients, segments, objects, leases and eviction. Its lock order stands there.
//! - `journal`: what survives a restart, and why no byte that was overwritten is ever served.
//! - `admin`: the HTTP server and, if wanted, the embedded metadata server of the transfer engine.
//! - `service`: binds the ports and starts the upkeep.
//! - `stripe`: counters and names that all threads touch in every call, without their waiting for each other.
//!
//! Threads: `mm-rpc-N` (connections, each with the thread it was given to), `mm-long` (calls that look at every object,
//! and waiting for the disk), `mm-http` (HTTP, accepting), `mm-upkeep` (eviction, liveness, every 10 ms), `mm-compaction`.

pub mod admin;
pub mod flags;
pub mod journal;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod moment;
pub mod policy;
pub mod rpc;
pub mod service;
pub mod state;
mod stripe;
