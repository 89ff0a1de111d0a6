//! What the cases work with: the loaded CANN, the NPUs to use, and the record of what was seen.

use std::ffi::{CStr, c_char, c_void};
use std::fmt::Display;
use std::path::PathBuf;
use std::ptr;

use cann_sys::{Cann, LoadOptions, aclrtEvent, aclrtStream};

use crate::case::{Answer, Line, Stop};
use crate::code;

/// Calls a function of the ACL runtime; the case ends if this CANN lacks it.
macro_rules! acl {
    ($probe:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = $probe.cann.acl.$name.ok_or_else(|| $crate::case::Stop::missing(stringify!($name)))?;
        // SAFETY: the prototype is the vendor's. Pointers are NULL where the case is about NULL, else to
        // values that outlive the call; handles come from CANN, or the case is about what it says to wrong
        // ones.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use acl;

/// Calls a function of HCCL; the case ends if this CANN lacks it.
macro_rules! hccl {
    ($probe:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = $probe.cann.hccl.$name.ok_or_else(|| $crate::case::Stop::missing(stringify!($name)))?;
        // SAFETY: as `acl!`; descriptor arrays are as long as the counts say, except that a refused count is
        // not read.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use hccl;

/// A step that is not what the case is about: a code other than 0 ends the case as undecided.
macro_rules! step {
    ($probe:expr, $kind:ident $name:ident($($argument:expr),* $(,)?)) => {
        $crate::probe::need(stringify!($name), $crate::probe::$kind!($probe, $name($($argument),*)))?
    };
}
pub(crate) use step;

/// Ends the case if a step of its preparation failed.
pub fn need(name: &str, code: i32) -> Answer {
    if code == 0 {
        return Ok(());
    }
    let code = if name.starts_with("Hccl") { code::hccl(code) } else { code::acl(code) };
    Err(Stop::Cannot(format!("a step of the preparation failed: {name} answered {code}")))
}

/// Bytes of device memory of an ordinary case: two huge pages.
pub const SIZE: usize = 4 << 20;
/// What a huge page has.
pub const HUGE_PAGE: usize = 2 << 20;

/// What the command line chose; every process of a run gets the same.
#[derive(Debug, Clone, clap::Args)]
pub struct Choice {
    /// Directory of CANN's libraries, instead of what the dynamic loader and ASCEND_HOME_PATH find
    #[arg(long, value_name = "DIRECTORY")]
    pub library: Option<PathBuf>,
    /// User ids of the two NPUs to use
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values_t = [0, 1])]
    pub devices: Vec<i32>,
    /// Addresses of the two NPUs' network ports, instead of /etc/hccn.conf and hccn_tool
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub addresses: Vec<String>,
}

impl Choice {
    /// The same choice as arguments for another process.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(library) = &self.library {
            arguments.push(format!("--library={}", library.display()));
        }
        let devices: Vec<String> = self.devices.iter().map(ToString::to_string).collect();
        arguments.push(format!("--devices={}", devices.join(",")));
        if !self.addresses.is_empty() {
            arguments.push(format!("--addresses={}", self.addresses.join(",")));
        }
        arguments
    }
}

/// The loaded CANN and the record.
pub struct Probe {
    /// The functions.
    pub cann: Cann,
    /// What the command line chose.
    pub choice: Choice,
    /// The case's name; part of the names it gives to communicators.
    pub case: &'static str,
}

impl Probe {
    /// Loads CANN: from the chosen directory, or as the dynamic loader and the vendor's installation paths
    /// have it.
    pub fn load(choice: Choice, case: &'static str) -> Result<Self, String> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let options = match &choice.library {
            Some(directory) => LoadOptions::only(directory),
            None => LoadOptions {
                ascend_home_path: path("ASCEND_HOME_PATH"),
                ascend_toolkit_home: path("ASCEND_TOOLKIT_HOME"),
                ..LoadOptions::default()
            },
        };
        let cann = Cann::load(&options).map_err(|error| error.to_string())?;
        Ok(Self { cann, choice, case })
    }

    /// Number of NPUs the process can see.
    pub fn device_count(&self) -> Answer<usize> {
        let mut count = 0;
        step!(self, acl aclrtGetDeviceCount(&raw mut count));
        usize::try_from(count).map_err(|_| Stop::Cannot(format!("{count} devices")))
    }

    /// The user id of the NPU with this index among those to use.
    pub fn device(&self, index: usize) -> Answer<i32> {
        let count = self.device_count()?;
        let device = self.choice.devices.get(index).copied();
        device.filter(|device| usize::try_from(*device).is_ok_and(|device| device < count)).ok_or_else(|| {
            Stop::Cannot(format!("this machine shows {count} NPUs, the case needs {}", index + 1))
        })
    }

    /// Makes an NPU current on this thread and answers its user id.
    pub fn on_device(&self, index: usize) -> Answer<i32> {
        let device = self.device(index)?;
        step!(self, acl aclrtSetDevice(device));
        Ok(device)
    }

    /// Device memory that may have huge pages.
    pub fn device_memory(&self, length: usize) -> Answer<usize> {
        let mut address = ptr::null_mut();
        step!(self, acl aclrtMalloc(&raw mut address, length, cann_sys::ACL_MEM_MALLOC_HUGE_FIRST));
        Ok(address as usize)
    }

    /// Pinned host memory.
    pub fn pinned_memory(&self, length: usize) -> Answer<usize> {
        let mut address = ptr::null_mut();
        step!(self, acl aclrtMallocHost(&raw mut address, length));
        // SAFETY: the block has `length` bytes of host memory.
        unsafe { ptr::write_bytes(address.cast::<u8>(), 0, length) };
        Ok(address as usize)
    }

    /// Copies bytes to device memory.
    pub fn write(&self, address: usize, bytes: &[u8]) -> Answer {
        let kind = cann_sys::ACL_MEMCPY_HOST_TO_DEVICE;
        step!(self, acl aclrtMemcpy(at(address), bytes.len(), bytes.as_ptr().cast(), bytes.len(), kind));
        Ok(())
    }

    /// Copies bytes from device memory.
    pub fn read(&self, address: usize, length: usize) -> Answer<Vec<u8>> {
        let mut bytes = vec![0_u8; length];
        let kind = cann_sys::ACL_MEMCPY_DEVICE_TO_HOST;
        step!(self, acl aclrtMemcpy(bytes.as_mut_ptr().cast(), length, at(address), length, kind));
        Ok(bytes)
    }

    /// A stream of the current context.
    pub fn stream(&self) -> Answer<aclrtStream> {
        let mut stream = ptr::null_mut();
        step!(self, acl aclrtCreateStream(&raw mut stream));
        Ok(stream)
    }

    /// An event that can be recorded many times.
    pub fn event(&self) -> Answer<aclrtEvent> {
        let mut event = ptr::null_mut();
        step!(self, acl aclrtCreateEventExWithFlag(&raw mut event, cann_sys::ACL_EVENT_SYNC));
        Ok(event)
    }

    /// Minor version of ACL (major is 1 in every known release).
    pub fn acl_version(&self) -> Answer<(i32, i32)> {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        step!(self, acl aclrtGetVersion(&raw mut major, &raw mut minor, &raw mut patch));
        Ok((major, minor))
    }

    /// Name of the chip.
    pub fn soc_name(&self) -> Answer<String> {
        let name: *const c_char = acl!(self, aclrtGetSocName());
        if name.is_null() {
            return Err(Stop::Cannot("aclrtGetSocName answered NULL".to_owned()));
        }
        // SAFETY: not NULL, so it is a C string of the library.
        Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    /// Whether the chip is one of the super pod generation.
    pub fn is_a3(&self) -> Answer<bool> {
        Ok(self.soc_name()?.starts_with("Ascend910_93"))
    }

    /// Compares codes of ACL.
    pub fn acl(&self, what: &str, expected: i32, seen: i32) {
        self.check(what, code::acl(expected), code::acl(seen));
    }

    /// Compares codes of HCCL.
    pub fn hccl(&self, what: &str, expected: i32, seen: i32) {
        self.check(what, code::hccl(expected), code::hccl(seen));
    }

    /// Compares two values.
    pub fn value<T: Display>(&self, what: &str, expected: T, seen: T) {
        self.check(what, expected.to_string(), seen.to_string());
    }

    /// Records that something holds or not.
    pub fn holds(&self, what: &str, seen: bool) {
        self.value(what, "yes", if seen { "yes" } else { "no" });
    }

    /// Records something without an expectation.
    pub fn measured(&self, what: &str, seen: impl Display) {
        Line::Measured { what: what.to_owned(), seen: seen.to_string() }.tell();
    }

    fn check(&self, what: &str, expected: String, seen: String) {
        Line::Check { what: what.to_owned(), expected, seen }.tell();
    }
}

/// An address as C has it.
pub fn at(address: usize) -> *mut c_void {
    address as *mut c_void
}
