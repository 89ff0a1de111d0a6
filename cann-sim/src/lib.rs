//! The software NPU: the C ABI of Huawei's CANN (ACL runtime and one-sided HCCL) over host memory, across processes.
//!
//! `libcann_sim.so` (this crate) holds all state and exports private names only. Small libraries under the vendor's
//! names (`libascendcl.so`, `libacl_rt.so`, `libhccl.so`, `libhcomm.so`, `libruntime.so`) jump into it; the build
//! puts them into `<target>/<profile>/cann-sim/`. A program that is linked against CANN, or loads it, runs on the
//! software NPU when that directory is on its `LD_LIBRARY_PATH`:
//!
//! ```text
//! cargo build --release -p cann-sim
//! LD_LIBRARY_PATH=target/release/cann-sim ./my_cann_program
//! ```
//!
//! # How it is cut
//!
//! | module | what it is |
//! |---|---|
//! | [`settings`], [`config_file`] | the `CANN_SIM_*` variables, in one table; the same from a topology file |
//! | [`card`], [`boot_id`] | what else a place in the topology has: addresses of the network cards, a boot id |
//! | [`status`] | the vendor's error numbers, the text of the last failure per thread |
//! | [`abi`] | layouts of the structs that cross the C boundary |
//! | [`device`], [`context`], [`stream`], [`task`], [`event`], [`clock`] | the runtime's objects |
//! | [`arena`], [`span`], [`block`], [`heap`] | device and pinned memory: sealed memfds, free ranges, addresses, rounding |
//! | [`reservation`], [`virtual_memory`], [`share`], [`ipc_memory`] | reserved addresses, physical handles, memory shared with other processes |
//! | [`host_registration`], [`callback`] | the program's memory and threads in the runtime's service |
//! | [`copy`], [`copy_rules`], [`batch_copy`], [`pitched_copy`] | how bytes move, and which copies are allowed |
//! | [`rank_table`], [`region`], [`rendezvous`], [`fd_channel`], [`life`], [`link`], [`communicator`], [`one_sided`] | one-sided HCCL |
//! | [`description`], [`server_port`] | the older family of one-sided HCCL; what processes of one server contend for |
//! | [`cost`] | profiles: what hardware would take, charged on resources that all processes share |
//! | [`board`] | what all processes of a namespace know together: memory in use, counters of rules |
//! | [`fault`] | scripted faults, by environment or while running, and a record of calls |
//! | [`export`] | the C functions: checks of pointers, then the rules above |
//!
//! # What is faithful
//!
//! Rules and error numbers: thread-local contexts, FIFO streams with asynchronous return, device memory
//! that host code cannot touch, registration frozen at prepare, collective prepare, one-sided put and get without any
//! work by the owner. Time too, where a profile is chosen: [`cost`] says what it claims. [`guide`] has the whole list, what is *not* faithful, the
//! limits, and a C++ program as an example.
//!
//! # Locks
//!
//! Tables of handles and blocks are leaves, and so is the board, which a heap's lock may be held over. A stream's
//! state lock may be held while an event's is taken, and no other pair is nested, except `communicator.preparing`,
//! which is held over the whole meeting. No lock is held while bytes are copied or a function of the program runs.

pub mod abi;
pub mod arena;
pub mod batch_copy;
pub mod block;
pub mod board;
pub mod boot_id;
pub mod callback;
pub mod card;
pub mod clock;
pub mod communicator;
pub mod config_file;
pub mod context;
pub mod copy;
pub mod copy_rules;
pub mod cost;
pub mod description;
pub mod device;
pub mod event;
pub mod export;
pub mod fault;
pub mod fd_channel;
pub mod guide;
pub mod handle;
pub mod heap;
pub mod host_registration;
pub mod ipc_memory;
pub mod life;
pub mod link;
pub mod one_sided;
pub mod pitched_copy;
pub mod rank_table;
pub mod region;
pub mod rendezvous;
pub mod reservation;
pub mod server_port;
pub mod settings;
pub mod share;
pub mod span;
pub mod status;
pub mod stream;
pub mod task;
pub mod virtual_memory;
