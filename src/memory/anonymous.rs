//! Memory of our own that nobody else maps: address space now, pages when they are touched.

use crate::error::{Code, Error, Result, Stage};

/// Zeroed memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct AnonymousMemory {
    address: u64,
    length_bytes: u64,
}

impl AnonymousMemory {
    /// Reserves `length_bytes`, more than 0; the kernel commits each page at its first use.
    ///
    /// # Errors
    /// [`Code::Memory`] when the kernel refuses.
    pub(crate) fn reserve(length_bytes: u64) -> Result<Self> {
        let refused = |why: String| {
            Error::new(
                Code::Memory,
                Stage::Register,
                format!("{length_bytes} bytes of memory cannot be had: {why}"),
            )
            .advice("lend less memory, or raise the limit of this process's address space")
        };
        let length = usize::try_from(length_bytes).map_err(|error| refused(error.to_string()))?;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory of anybody.
        let pointer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if pointer == libc::MAP_FAILED {
            return Err(refused(std::io::Error::last_os_error().to_string()));
        }
        let address = u64::try_from(pointer.expose_provenance()).unwrap_or(0);
        Ok(Self { address, length_bytes })
    }

    /// First address.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Number of bytes.
    pub(crate) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        let (Ok(address), Ok(length)) = (usize::try_from(self.address), usize::try_from(self.length_bytes))
        else {
            return;
        };
        // SAFETY: the range is the mapping that `reserve` made; whoever got its address had it from this object's
        // owner, who drops it only when nobody uses the range any more.
        let outcome = unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(address), length) };
        if outcome != 0 {
            log::warn!("memory at {address:#x} is not given back: {}", std::io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::copy::copy_host;

    #[test]
    fn more_than_the_host_has_can_be_reserved_and_used() {
        let memory = AnonymousMemory::reserve(30_000_000_000).unwrap();
        let source = [7_u8; 16];
        let last = memory.address() + memory.length_bytes() - 16;
        copy_host(last, source.as_ptr().expose_provenance() as u64, 16).unwrap();
        let mut back = [0_u8; 16];
        copy_host(back.as_mut_ptr().expose_provenance() as u64, last, 16).unwrap();
        assert_eq!(back, source);
        assert_eq!(AnonymousMemory::reserve(u64::MAX).unwrap_err().code(), Code::Memory);
    }
}
