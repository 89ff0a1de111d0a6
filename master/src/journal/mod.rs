//! The journal: what a restarted master must know to serve the warm cache, and never a byte that was overwritten.
//!
//! # Rules
//!
//! 1. A record is appended at the moment the state changes, under the lock of what changes; the file gets the records
//!    in that order. Nothing is answered before the records of the call, and all before them, were written (`flush`).
//!    So space that was freed is told to a writer only after the record that freed it is in the file; and what was
//!    lost with a crash was never answered, so the bytes it would have changed are as the file says.
//! 2. The start of a put is a record, not only its end: after a restart the space of an unfinished put is still taken,
//!    since its writer may still write.
//! 3. An object counts only when the segment it lies in is mounted again under the same id, address and length. A
//!    client that restarted has another id, and another memory.
//! 4. The file ends in a torn record when the process was killed inside a write: the record was not answered, and is
//!    dropped. A record that is wrong anywhere else means that later records may be missing, and then nothing of the
//!    journal is used: an empty cache is right, a wrong byte is not.
//! 5. After a crash of the host (another boot id) the file may lack what the kernel had not written; it is used only
//!    if each flush was synced.
//! 6. A file that cannot be written (full disk) is marked as not to be used, in place, and journalling stops until a
//!    compaction succeeds.
//! 7. A directory belongs to one pool. If another master served the same clients meanwhile without it, it has given
//!    space away that this journal holds to be taken; remove the directory then.
//!
//! Files: `journal.<n>` and `snapshot.<n>`. Compaction begins `journal.<n+1>`, writes the objects shard by shard to
//! `snapshot.<n+1>` while the state goes on, renames it into place, and deletes what is older. A snapshot may hold
//! objects whose records come again in the journal after it; ids are unique, so replaying them twice changes nothing.

mod file;
mod record;
mod replay;

pub use file::{Journal, JournalError, Options};
pub use record::{ObjectRecord, Record, ReplicaRecord};
pub use replay::{Replayed, Verdict};
