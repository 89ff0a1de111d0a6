//! How to use the software NPU for a CANN program of one's own, what it is faithful in and what not.
//!
//! # Use
//!
//! ```text
//! cargo build --release -p cann-sim
//! LD_LIBRARY_PATH=target/release/cann-sim ./my_cann_program
//! ```
//!
//! Nothing else is needed: eight Ascend910B3 with 64 GiB each, as CANN 8.5. The program is built against the vendor's
//! headers or its own declarations, and linked against the libraries in that directory or the real ones, or loads
//! them by `dlopen`. Processes of one user see one set of NPUs and can build communicators with each other;
//! `CANN_SIM_NAMESPACE` separates sets. `cann-sim-control` starts programs in a place of a topology (`run`), disturbs
//! them while they run (`fault`), and says what they called (`calls`, `log`) and how much memory they hold
//! (`memory`). The variables stand in [`settings`](crate::settings), the topology file in
//! [`config_file`](crate::config_file), faults in [`fault`](crate::fault).
//!
//! | question | where to look |
//! |---|---|
//! | my call fails, why? | `aclGetRecentErrMsg` has a sentence after every failure, on the same thread |
//! | does my code touch device memory? | it dies of `SIGSEGV` at that line |
//! | does it survive a dead peer, a late copy, no memory? | `cann-sim-control fault` or `CANN_SIM_FAULTS` |
//! | does it run on an older CANN? | `CANN_SIM_RELEASE=8.2` (8.1 to 9.2): symbols and libraries of that release only |
//! | does it work on A3? | `CANN_SIM_SOC=Ascend910_9392` |
//! | does a debugger, valgrind, a sanitizer work? | yes, the libraries are ordinary ones; see Limits |
//!
//! # An example
//!
//! A program on the vendor's names alone, `examples/one_sided.cpp`; a test builds and runs it.
//!
#![doc = "```cpp"]
#![doc = include_str!("../examples/one_sided.cpp")]
#![doc = "```"]
//!
//! # What is faithful
//!
//! Rules and numbers, as far as the vendor's headers, open sources and released programs tell them; each has a test
//! that names its section of the project's fact sheet, and `tests/coverage.txt` lists them.
//!
//! - Contexts are thread-local, streams first in first out and asynchronous, events have the inverted status;
//!   timeouts leave work going, an abort drops it, failures stop a context where that was asked for.
//! - Device memory has the vendor's alignment, padding and pages, is accounted over all processes, and is out of
//!   reach of host code. Copies check addresses, kinds and limits; what cannot be asynchronous blocks.
//! - Registration, communicators and preparation check what HCCL checks, in its order. Memory is frozen at prepare.
//!   Puts and gets run in the initiator's process alone; an error leaves the descriptors before it on the stream.
//! - The link follows from rank table and environment; HCCS wants huge aligned device memory, RoCE takes host memory.
//! - Libraries and symbols are those of the release posed as; prototypes and layouts are compared with the vendor's
//!   own headers by a test.
//!
//! `cann-probe` asks an installed CANN the same questions and tells where it answers otherwise: on the software NPU
//! nothing differs, on hardware `cann-probe --markdown` prints a text for an issue.
//!
//! # What is not
//!
//! - **Time.** Copies take what this machine takes; a launch costs nothing. See [`cost`](crate::cost).
//! - **Kernels, collectives, graphs, notifications between devices.** The functions that programs want to exist do,
//!   and answer 207000 (ACL) or 5 (HCCL). There is no arithmetic on device memory.
//! - **What nobody outside knows.** How RoCE fails after its retries (here the stream waits until its timeout), what
//!   an imported address is to `aclrtPointerGetAttributes`, whether a communicator is good after an abort: the model
//!   takes one answer, the fact sheet says that it is inferred, and a case of `cann-probe` asks.
//! - **The text of errors.** Numbers are the vendor's, sentences are ours, except for phrases that programs search.
//! - **The order of bytes inside one copy**, atomicity, and caches: memory here is coherent.
//! - **Network.** Addresses of NPUs are compared, not used; both ends are on this machine. Several servers are places
//!   of one topology file on it.
//!
//! # Limits
//!
//! - 64-bit Linux with memfd seals (3.17 or later) on x86-64 or aarch64; a C compiler to build.
//! - Memory is committed when first written; the sum over all NPUs must fit this machine.
//! - A RoCE peer's ordinary host memory is reached by `process_vm_readv`: the kernel must permit that between the two
//!   processes (same user, `ptrace_scope`). Pinned memory needs no permission.
//! - 256 processes share one set of NPUs and 256 fault rules can count over all of them; `cann-sim-control log` has the
//!   latest 8192 calls of a process.
//! - CANN's state does not survive `fork`: fork before the first call, as on hardware.
//! - Under valgrind only small devices fit (`CANN_SIM_HBM_SIZE=64M`); AddressSanitizer is fine with the defaults, but a
//!   fault on device memory is then its report instead of a plain signal.
//! - At most 1984 streams and 65536 events a device, 256 descriptors a put or get, 4096 items a batch copy: the
//!   vendor's limits, kept.
