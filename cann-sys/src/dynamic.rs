//! The dynamic linker: the only place that opens libraries and looks up names.
//!
//! A library opened here is never closed. CANN starts threads, registers exit handlers and keeps
//! thread-local state in its libraries; unmapping them under those crashes, and function pointers that
//! were handed out would dangle. `RTLD_NODELETE` holds that even against another `dlclose` of the process.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::NonNull;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A library that stays loaded for the rest of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle(NonNull<c_void>);

/// The beginning of the linker's own `struct link_map`, as `<link.h>` publishes it.
#[repr(C)]
struct LinkMap {
    load_address: usize,
    name: *const c_char,
}

/// Opens `target`, a path or (without a slash) a name for the linker to search; the error is its text.
pub(crate) fn open(target: &Path) -> Result<Handle, String> {
    open_with(target, libc::RTLD_NOW | libc::RTLD_NODELETE)
}

/// The library of that file name which the process has loaded already, however it was loaded.
///
/// The linker knows a library by its SONAME. One without a SONAME that was opened by path is known by
/// that path only, so the list of loaded objects is searched for the file name as well.
pub(crate) fn already_loaded(file_name: &str) -> Option<Handle> {
    // RTLD_LAZY, because a library that was bound lazily must not be bound completely by our asking.
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    open_with(Path::new(file_name), flags).ok().or_else(|| {
        let path = loaded_paths().into_iter().find(|path| path.file_name() == Some(OsStr::new(file_name)))?;
        open_with(&path, flags).ok()
    })
}

fn open_with(target: &Path, flags: c_int) -> Result<Handle, String> {
    let name = CString::new(target.as_os_str().as_bytes()).map_err(|_| "contains a NUL byte".to_owned())?;
    // SAFETY: dlerror has no preconditions; this forgets an error that an earlier caller left behind.
    unsafe { libc::dlerror() };
    // SAFETY: the name is a C string that outlives the call. The constructors of the library run; that is
    // what opening a vendor's library means.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    NonNull::new(handle).map(Handle).ok_or_else(last_error)
}

fn last_error() -> String {
    // SAFETY: the text belongs to the calling thread and stays valid until its next call of the dl family;
    // it is copied before that.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "not loaded".to_owned();
    }
    // SAFETY: not null, so it is a C string (see above).
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The address of `name` in the library or in one it depends on; null if there is none.
pub(crate) fn address_of(handle: Handle, name: &str) -> *mut c_void {
    let Ok(name) = CString::new(name) else { return core::ptr::null_mut() };
    // SAFETY: the handle came from dlopen and is never closed; the name outlives the call.
    unsafe { libc::dlsym(handle.0.as_ptr(), name.as_ptr()) }
}

/// The file the library was mapped from, as the linker opened it.
pub(crate) fn mapped_path(handle: Handle) -> Option<PathBuf> {
    let mut map: *const LinkMap = core::ptr::null();
    // SAFETY: the handle is open; for RTLD_DI_LINKMAP the linker writes one pointer to the place given.
    let status =
        unsafe { libc::dlinfo(handle.0.as_ptr(), libc::RTLD_DI_LINKMAP, (&raw mut map).cast::<c_void>()) };
    if status != 0 || map.is_null() {
        return None;
    }
    // SAFETY: the linker's record of a library that is never unloaded, so it lives as long as the process.
    let name = unsafe { (*map).name };
    if name.is_null() {
        return None;
    }
    // SAFETY: not null, so it is the C string the linker keeps in that record.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes()))).filter(|path| !path.as_os_str().is_empty())
}

/// The file of the loaded object that contains `address`.
pub(crate) fn object_of(address: usize) -> Option<PathBuf> {
    let mut information = libc::Dl_info {
        dli_fname: core::ptr::null(),
        dli_fbase: core::ptr::null_mut(),
        dli_sname: core::ptr::null(),
        dli_saddr: core::ptr::null_mut(),
    };
    let address: *const c_void = core::ptr::without_provenance(address);
    // SAFETY: dladdr only compares the address with the ranges of loaded objects; it fills the struct.
    let status = unsafe { libc::dladdr(address, &raw mut information) };
    if status == 0 || information.dli_fname.is_null() {
        return None;
    }
    // SAFETY: on success the name is a C string that lives as long as the object, which for what this
    // crate asks about is never unloaded.
    let name = unsafe { CStr::from_ptr(information.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Whether two paths are one file. A path that cannot be examined is nobody's equal.
pub(crate) fn same_file(left: &Path, right: &Path) -> bool {
    match (std::fs::metadata(left), std::fs::metadata(right)) {
        (Ok(left), Ok(right)) => (left.dev(), left.ino()) == (right.dev(), right.ino()),
        _ => false,
    }
}

/// The paths of all objects in the process.
fn loaded_paths() -> Vec<PathBuf> {
    unsafe extern "C" fn collect(
        information: *mut libc::dl_phdr_info,
        _size: usize,
        paths: *mut c_void,
    ) -> c_int {
        // SAFETY: the linker passes a valid record and the pointer that loaded_paths gave it.
        let (name, paths) = unsafe { ((*information).dlpi_name, &mut *paths.cast::<Vec<PathBuf>>()) };
        if !name.is_null() {
            // SAFETY: not null, so it is a C string, and valid while the linker holds its lock.
            let name = unsafe { CStr::from_ptr(name) };
            paths.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        }
        0
    }
    let mut paths = Vec::<PathBuf>::new();
    // SAFETY: the callback has the signature asked for, does not unwind (a failed allocation aborts), and
    // its second argument is the vector above, which nothing else touches during the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut paths).cast::<c_void>()) };
    paths
}
