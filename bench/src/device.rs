//! Memory of an NPU, or of the host, for buffers that are transferred.
//!
//! One of the few modules of this crate with `unsafe`: a benchmark is an
//! application, and the application initialises ACL, binds the device and allocates. Contents go in and out
//! by copies that the vendor's runtime makes, never through the address.

#![expect(unsafe_code, reason = "the vendor's functions allocate and copy")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use cann_sys::{Cann, LoadOptions, bindings};

/// ACL answers this when somebody in the process has initialised it already.
const REPEATED_INITIALISATION: i32 = 100_002;
/// The NPU's links take regions that start at such a multiple.
const ALIGNMENT_BYTES: usize = 2 << 20;

thread_local! {
    /// The device this thread is bound to by [`Npu::bind`].
    static BOUND: Cell<Option<i32>> = const { Cell::new(None) };
}

/// A function of a table that may lack it.
macro_rules! vendor {
    ($npu:expr, $function:ident ( $($argument:expr),* )) => {
        match $npu.cann.acl.$function {
            None => Err(anyhow!("this CANN has no {}", stringify!($function))),
            // SAFETY: the function is the vendor's of that name with the header's signature; what the
            // arguments point to is said where they are made.
            Some(function) => match unsafe { function($($argument),*) } {
                0 => Ok(()),
                code => Err($npu.failure(stringify!($function), code)),
            },
        }
    };
}

/// One NPU, with ACL initialised and the device bound to the threads that use it.
pub struct Npu {
    cann: Cann,
    id: i32,
}

impl Npu {
    /// Opens CANN, initialises ACL and binds the device to the calling thread.
    ///
    /// # Errors
    /// If there is no CANN, or no such device.
    pub fn open(options: &LoadOptions, id: i32) -> Result<Arc<Self>> {
        let cann = Cann::load(options)?;
        let npu = Self { cann, id };
        let initialise = npu.cann.acl.aclInit.context("this CANN has no aclInit")?;
        // SAFETY: a null path means the defaults.
        let code = unsafe { initialise(std::ptr::null()) };
        if code != 0 && code != REPEATED_INITIALISATION {
            return Err(npu.failure("aclInit", code));
        }
        npu.bind()?;
        Ok(Arc::new(npu))
    }

    /// Binds the device to the calling thread, once.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn bind(&self) -> Result<()> {
        if BOUND.get() == Some(self.id) {
            return Ok(());
        }
        vendor!(self, aclrtSetDevice(self.id))?;
        BOUND.set(Some(self.id));
        Ok(())
    }

    /// The id that `aclrtSetDevice` takes.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The chip's name.
    #[must_use]
    pub fn chip(&self) -> String {
        let Some(function) = self.cann.acl.aclrtGetSocName else { return "unknown".to_owned() };
        // SAFETY: returns null or a static text.
        unsafe { text(function().cast()) }
    }

    /// The opened libraries and tables.
    #[must_use]
    pub fn cann(&self) -> &Cann {
        &self.cann
    }

    /// An error that names the function, its code and the vendor's words.
    #[must_use]
    pub fn failure(&self, function: &str, code: i32) -> anyhow::Error {
        let words = self.cann.acl.aclGetRecentErrMsg.map_or_else(String::new, |recent| {
            // SAFETY: returns null or a text that lives until this thread asks again.
            unsafe { text(recent().cast()) }
        });
        anyhow!("{function} answered {code} on device {}: {}", self.id, words.trim())
    }
}

/// # Safety
/// `pointer` must be null or a text closed by NUL.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// A piece of memory that others may write to by its address; it is freed when dropped.
pub struct Memory {
    /// Exposed, since engines take addresses as numbers.
    start: *mut u8,
    length_bytes: usize,
    npu: Option<Arc<Npu>>,
}

// SAFETY: the address is used by copies alone, which any thread may make.
unsafe impl Send for Memory {}
// SAFETY: as above; copies into and out of the same bytes at one time are the caller's to order.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of an NPU, in huge pages where there are any.
    ///
    /// # Errors
    /// If the device has not that much.
    pub fn device(npu: &Arc<Npu>, length_bytes: u64) -> Result<Self> {
        let length = usize::try_from(length_bytes)?;
        // Links that take huge pages only take whole ones.
        let rounded = length.max(1).next_multiple_of(ALIGNMENT_BYTES);
        npu.bind()?;
        let mut start: *mut c_void = std::ptr::null_mut();
        vendor!(npu, aclrtMalloc(&raw mut start, rounded, bindings::ACL_MEM_MALLOC_HUGE_FIRST))
            .with_context(|| format!("no {length_bytes} bytes of NPU memory"))?;
        start.expose_provenance();
        Ok(Self { start: start.cast(), length_bytes: length, npu: Some(Arc::clone(npu)) })
    }

    /// Memory of the host.
    ///
    /// # Errors
    /// If the length is not one of a buffer.
    pub fn host(length_bytes: u64) -> Result<Self> {
        let length = usize::try_from(length_bytes)?;
        let layout = Self::layout(length)?;
        // SAFETY: the layout is not of size zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        start.expose_provenance();
        Ok(Self { start, length_bytes: length, npu: None })
    }

    fn layout(length: usize) -> Result<Layout> {
        Ok(Layout::from_size_align(length.max(1), ALIGNMENT_BYTES)?)
    }

    /// Where it starts.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.addr() as u64
    }

    /// How long it is.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes as u64
    }

    /// The location to register it with.
    #[must_use]
    pub fn location(&self) -> String {
        self.npu.as_ref().map_or_else(|| "cpu:0".to_owned(), |npu| format!("npu:{}", npu.id))
    }

    /// Makes the calling thread able to copy.
    ///
    /// # Errors
    /// If the vendor refuses.
    pub fn bind(&self) -> Result<()> {
        self.npu.as_ref().map_or(Ok(()), |npu| npu.bind())
    }

    /// Copies `bytes` to `position`.
    ///
    /// # Errors
    /// If they do not fit, or the vendor refuses.
    pub fn upload(&self, position: u64, bytes: &[u8]) -> Result<()> {
        let target = self.at(position, bytes.len())?;
        match &self.npu {
            Some(npu) => vendor!(
                npu,
                aclrtMemcpy(
                    target.cast(),
                    bytes.len(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    bindings::ACL_MEMCPY_HOST_TO_DEVICE
                )
            ),
            None => {
                // SAFETY: `at` has checked the range, which none of Rust's references covers.
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
                Ok(())
            }
        }
    }

    /// Copies what lies at `position` to `bytes`.
    ///
    /// # Errors
    /// If there is not that much, or the vendor refuses.
    pub fn download(&self, position: u64, bytes: &mut [u8]) -> Result<()> {
        let source = self.at(position, bytes.len())?;
        match &self.npu {
            Some(npu) => vendor!(
                npu,
                aclrtMemcpy(
                    bytes.as_mut_ptr().cast(),
                    bytes.len(),
                    source.cast_const().cast(),
                    bytes.len(),
                    bindings::ACL_MEMCPY_DEVICE_TO_HOST
                )
            ),
            None => {
                // SAFETY: `at` has checked the range, which none of Rust's references covers.
                unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) };
                Ok(())
            }
        }
    }

    fn at(&self, position: u64, length: usize) -> Result<*mut u8> {
        let position = usize::try_from(position)?;
        let end = position.checked_add(length);
        ensure!(end.is_some_and(|end| end <= self.length_bytes), "outside of the buffer");
        Ok(self.start.wrapping_add(position))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.npu {
            Some(npu) => {
                let freed = npu.bind().and_then(|()| vendor!(npu, aclrtFree(self.start.cast())));
                if let Err(error) = freed {
                    crate::console::tell(format!("NPU memory was not freed: {error:#}"));
                }
            }
            None => {
                if let Ok(layout) = Self::layout(self.length_bytes) {
                    // SAFETY: allocated with this layout, freed once.
                    unsafe { dealloc(self.start, layout) };
                }
            }
        }
    }
}
