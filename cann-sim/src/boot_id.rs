//! Another boot id for a program, as a container on another kernel would see it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where programs read it.
const PLACE: &CStr = c"/proc/sys/kernel/random/boot_id";

/// Makes this process, and the program it becomes, see `boot_id`. Needs the right to mount.
pub fn show(boot_id: &str) -> io::Result<()> {
    // SAFETY: a call with plain numbers; only this thread's view of the mounts is separated.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // What is mounted from here on is not to reach the others.
    // SAFETY: C strings that live through the call, and NULL where the kernel wants nothing.
    done(unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    })?;
    let file = std::env::temp_dir().join(format!("cann-sim-boot-id-{}", std::process::id()));
    std::fs::write(&file, format!("{boot_id}\n"))?;
    let mounted = bind(&file);
    // The mount keeps the file alive.
    std::fs::remove_file(&file)?;
    mounted
}

fn bind(file: &Path) -> io::Result<()> {
    let file = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: C strings that live through the call, and NULL where the kernel wants nothing.
    done(unsafe {
        libc::mount(file.as_ptr(), PLACE.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
    })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
