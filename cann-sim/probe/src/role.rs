//! What this program does when a case starts it as a second process.

use std::ffi::CString;
use std::io::{BufRead as _, Write as _};
use std::ptr;

use cann_sys::{
    ACL_RT_IPC_MEM_IMPORT_FLAG_DEFAULT, ACL_RT_IPC_MEM_IMPORT_FLAG_ENABLE_PEER_ACCESS, aclrtPtrAttributes,
};

use crate::case::{Answer, Stop};
use crate::pair::{PREPARE_SECONDS, Side, prepare};
use crate::probe::{Probe, SIZE, acl, at, step};

/// Runs a role to its end; a failure is told to the case.
pub fn run(probe: &Probe, role: &str, arguments: &[String]) {
    // The case's process may be ended from outside; then nobody would end this one.
    // SAFETY: prctl with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
    let outcome = match role {
        "peer" => peer(probe, argument(0), argument(1), argument(2) == "host"),
        "late" => late(probe, argument(0), argument(1)),
        "importer" => importer(probe, argument(0)),
        "touch" => touch(probe),
        other => Err(Stop::Cannot(format!("there is no role {other}"))),
    };
    if let Err(stop) = outcome {
        say(&format!("cannot {stop}"));
    }
}

fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "@peer {text}").and_then(|()| output.flush()).is_err() {
        std::process::exit(1); // the case is gone
    }
}

/// Rank 1 of a prepared pair; answers what it sees in its own memory until it is told to close or is killed.
fn peer(probe: &Probe, table: &str, name: &str, with_host: bool) -> Answer {
    let mut side = Side::open(probe, 1, table, name, with_host)?;
    let code = prepare(probe, side.communicator, PREPARE_SECONDS)?;
    crate::probe::need("HcclCommPrepare", code)?;
    say(&format!("{} {}", side.memory, side.host.unwrap_or(0)));
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return Ok(()) };
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["read", place, offset, length] => {
                let number = |word: &str| word.parse::<usize>().unwrap_or(0);
                let (offset, length) = (number(offset), number(length).min(SIZE));
                let bytes = match (*place, side.host) {
                    ("host", Some(host)) => {
                        // SAFETY: our own pinned block of SIZE bytes; the case asks for ranges inside.
                        unsafe { std::slice::from_raw_parts((host + offset) as *const u8, length) }.to_vec()
                    }
                    _ => probe.read(side.memory + offset, length)?,
                };
                say(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            }
            ["close"] => {
                let codes = side.close(probe)?;
                say(&codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            }
            _ => return Err(Stop::Cannot(format!("the peer does not understand {line}"))),
        }
    }
    Ok(())
}

/// Rank 1 that prepares and tells the code: for two seconds where the variable of another link choice is set
/// (nobody will come), else for ten.
fn late(probe: &Probe, table: &str, name: &str) -> Answer {
    let side = Side::open(probe, 1, table, name, false)?;
    say("opened");
    let seconds = if std::env::var_os("HCCL_INTRA_ROCE_ENABLE").is_some() { 2 } else { 10 };
    let code = prepare(probe, side.communicator, seconds)?;
    say(&code.to_string());
    Ok(())
}

/// Imports a memory key on the second NPU and tells: the code, location and page size, whether the bytes come
/// over.
fn importer(probe: &Probe, contents: &str) -> Answer {
    let device = probe.on_device(1)?;
    let mut bare = 0;
    let code = acl!(probe, aclrtDeviceGetBareTgid(&raw mut bare));
    say(&format!("{code} {bare}"));
    let mut key = String::new();
    if std::io::stdin().lock().read_line(&mut key).is_err() {
        return Ok(());
    }
    let key = CString::new(key.trim_end()).map_err(|_| Stop::Cannot("the key has a NUL byte".to_owned()))?;
    // The flag came with 8.3 (ACL 1.15); before, the importer enables the access to the exporter's NPU
    // itself.
    let flags = if probe.acl_version()? >= (1, 15) {
        ACL_RT_IPC_MEM_IMPORT_FLAG_ENABLE_PEER_ACCESS
    } else {
        step!(probe, acl aclrtDeviceEnablePeerAccess(probe.device(0)?, 0));
        ACL_RT_IPC_MEM_IMPORT_FLAG_DEFAULT
    };
    let mut address = ptr::null_mut();
    let code = acl!(probe, aclrtIpcMemImportByKey(&raw mut address, key.as_ptr(), flags));
    say(&code.to_string());
    if code != 0 {
        return Ok(());
    }
    let mut attributes = aclrtPtrAttributes::default();
    let code = acl!(probe, aclrtPointerGetAttributes(address, &raw mut attributes));
    let (kind, id) = (attributes.location.type_, attributes.location.id);
    say(&format!("{code} {kind} {} {}", i64::from(id) - i64::from(device), attributes.pageSize));
    let target = probe.device_memory(SIZE)?;
    let stream = probe.stream()?;
    let kind = cann_sys::ACL_MEMCPY_DEVICE_TO_DEVICE;
    let code = acl!(probe, aclrtMemcpyAsync(at(target), 64, address, 64, kind, stream));
    let done = crate::pair::wait(probe, stream)?;
    let same = probe.read(target, 64)?.iter().all(|byte| byte.to_string() == contents);
    say(&format!("{code} {done} {same}"));
    let code = acl!(probe, aclrtIpcMemClose(key.as_ptr()));
    say(&code.to_string());
    Ok(())
}

/// Reads a byte of device memory as host code would.
fn touch(probe: &Probe) -> Answer {
    probe.on_device(0)?;
    let address = probe.device_memory(SIZE)?;
    say("allocated");
    // SAFETY: none. The read is what the case is about; the process is expected to end here.
    let byte = unsafe { ptr::read_volatile(address as *const u8) };
    say(&format!("read {byte}"));
    Ok(())
}
