//! Two ranks: this process and a peer process that the case starts, talks to over pipes, and may kill.

use std::ffi::{CString, c_void};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr;

use cann_sys::{
    COMM_MEM_TYPE_DEVICE, COMM_MEM_TYPE_HOST, CommMem, CommMemType, HCCL_DATA_TYPE_UINT8, HcclComm,
    HcclCommConfig, HcclOneSideOpDesc, HcclPrepareConfig, aclrtStream,
};

use crate::case::{Answer, Stop};
use crate::probe::{Probe, SIZE, acl, at, hccl, step};
use crate::table::{self, Reach};

/// Seconds that a preparation is given; the peer's start is part of it.
pub const PREPARE_SECONDS: i32 = 60;
/// How long a case waits for a transfer that should be quick.
pub const TRANSFER_LIMIT_MS: i32 = 10_000;

/// The byte a rank's memory has at an offset before anything is moved.
pub fn pattern(offset: usize, salt: usize) -> u8 {
    (offset.wrapping_mul(31).wrapping_add(offset >> 8).wrapping_add(salt.wrapping_mul(101)) & 0xff)
        .to_le_bytes()
        .first()
        .copied()
        .unwrap_or(0)
}

/// `length` bytes of the pattern from `offset` on.
pub fn patterned(offset: usize, length: usize, salt: usize) -> Vec<u8> {
    (offset..offset + length).map(|offset| pattern(offset, salt)).collect()
}

/// A communicator of version-5 configuration; the code and, on success, the handle.
pub fn make_communicator(probe: &Probe, table: &str, rank: u32, name: &str) -> Answer<(i32, HcclComm)> {
    let table = CString::new(table).map_err(|_| Stop::Cannot("the rank table has a NUL byte".to_owned()))?;
    let mut config = HcclCommConfig::named(name).unwrap_or_else(|_| HcclCommConfig::unnamed());
    let mut communicator = ptr::null_mut();
    let code = hccl!(
        probe,
        HcclCommInitClusterInfoMemConfig(table.as_ptr(), rank, &raw mut config, &raw mut communicator)
    );
    Ok((code, communicator))
}

/// Registers a range for one-sided transfers; the code and, on success, the handle.
pub fn register(probe: &Probe, kind: CommMemType, address: usize, size: u64) -> Answer<(i32, *mut c_void)> {
    let memory = CommMem { type_: kind, addr: at(address), size };
    let mut handle = ptr::null_mut();
    let code = hccl!(probe, HcclRegisterGlobalMem(&raw const memory, &raw mut handle));
    Ok((code, handle))
}

/// Prepares a communicator; answers the code.
pub fn prepare(probe: &Probe, communicator: HcclComm, seconds: i32) -> Answer<i32> {
    let config = HcclPrepareConfig::full_mesh();
    Ok(hccl!(probe, HcclCommPrepare(communicator, &raw const config, seconds)))
}

/// A descriptor of bytes.
pub fn bytes(local: usize, remote: usize, length: usize) -> HcclOneSideOpDesc {
    HcclOneSideOpDesc {
        localAddr: at(local),
        remoteAddr: at(remote),
        count: u64::try_from(length).unwrap_or(u64::MAX),
        dataType: HCCL_DATA_TYPE_UINT8,
    }
}

/// One rank of a pair, in whatever process.
pub struct Side {
    /// The communicator.
    pub communicator: HcclComm,
    /// Its device memory of [`SIZE`] bytes.
    pub memory: usize,
    /// Its pinned host memory of [`SIZE`] bytes, where the case has it.
    pub host: Option<usize>,
    /// What is registered and bound.
    pub handles: Vec<*mut c_void>,
    rank: u32,
}

impl Side {
    /// Sets the device, allocates, fills, registers, makes the communicator and binds.
    pub fn open(probe: &Probe, rank: u32, table: &str, name: &str, with_host: bool) -> Answer<Self> {
        let index = usize::try_from(rank).unwrap_or(0);
        probe.on_device(index)?;
        let memory = probe.device_memory(SIZE)?;
        let contents = patterned(0, SIZE, index);
        probe.write(memory, &contents)?;
        let mut handles = vec![registered(probe, COMM_MEM_TYPE_DEVICE, memory)?];
        let host = if with_host { Some(probe.pinned_memory(SIZE)?) } else { None };
        if let Some(host) = host {
            // SAFETY: the block has SIZE bytes of host memory, as `contents` has.
            unsafe { ptr::copy_nonoverlapping(contents.as_ptr(), host as *mut u8, SIZE) };
            handles.push(registered(probe, COMM_MEM_TYPE_HOST, host)?);
        }
        let (code, communicator) = make_communicator(probe, table, rank, name)?;
        crate::probe::need("HcclCommInitClusterInfoMemConfig", code)?;
        for handle in &handles {
            step!(probe, hccl HcclCommBindMem(communicator, *handle));
        }
        Ok(Self { communicator, memory, host, handles, rank })
    }

    /// The other rank.
    pub fn other(&self) -> u32 {
        1 - self.rank
    }

    /// Puts; answers the call's code.
    pub fn put(
        &self,
        probe: &Probe,
        descriptors: &mut [HcclOneSideOpDesc],
        stream: aclrtStream,
    ) -> Answer<i32> {
        let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        Ok(hccl!(
            probe,
            HcclBatchPut(self.communicator, self.other(), descriptors.as_mut_ptr(), count, stream)
        ))
    }

    /// Gets; answers the call's code.
    pub fn get(
        &self,
        probe: &Probe,
        descriptors: &mut [HcclOneSideOpDesc],
        stream: aclrtStream,
    ) -> Answer<i32> {
        let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        Ok(hccl!(
            probe,
            HcclBatchGet(self.communicator, self.other(), descriptors.as_mut_ptr(), count, stream)
        ))
    }

    /// Unbinds, destroys, deregisters; the codes in that order, which should all be 0.
    pub fn close(&mut self, probe: &Probe) -> Answer<Vec<i32>> {
        let mut codes = Vec::new();
        for handle in &self.handles {
            codes.push(hccl!(probe, HcclCommUnbindMem(self.communicator, *handle)));
        }
        codes.push(hccl!(probe, HcclCommDestroy(self.communicator)));
        for handle in self.handles.drain(..) {
            codes.push(hccl!(probe, HcclDeregisterGlobalMem(handle)));
        }
        Ok(codes)
    }
}

fn registered(probe: &Probe, kind: CommMemType, address: usize) -> Answer<*mut c_void> {
    let (code, handle) = register(probe, kind, address, u64::try_from(SIZE).unwrap_or(0))?;
    crate::probe::need("HcclRegisterGlobalMem", code)?;
    Ok(handle)
}

/// Waits for a stream with the limit of a transfer; answers the code.
pub fn wait(probe: &Probe, stream: aclrtStream) -> Answer<i32> {
    Ok(acl!(probe, aclrtSynchronizeStreamWithTimeout(stream, TRANSFER_LIMIT_MS)))
}

/// The peer process: rank 1 of a pair. It is killed when this value goes.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Its device memory, in its own addresses.
    pub memory: usize,
    /// Its host memory, in its own addresses.
    pub host: usize,
}

impl Peer {
    /// Starts this program in another role.
    pub fn start(probe: &Probe, role: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Answer<Self> {
        let failed = |error: std::io::Error| Stop::Cannot(format!("cannot start a peer process: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(probe.choice.arguments());
        command.arg("--role").arg(role).arg("--case").arg(probe.case);
        for argument in arguments {
            command.arg("--argument").arg(argument);
        }
        command.envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        match (input, output) {
            (Some(input), Some(output)) => {
                Ok(Self { child, input, output: BufReader::new(output), memory: 0, host: 0 })
            }
            _ => Err(Stop::Cannot("the peer process has no pipes".to_owned())),
        }
    }

    /// The next answer of the peer's; what CANN logs on the way is passed over.
    pub fn answer(&mut self) -> Answer<String> {
        let mut line = String::new();
        loop {
            line.clear();
            match self.output.read_line(&mut line) {
                Ok(0) | Err(_) => return Err(Stop::Cannot("the peer process ended early".to_owned())),
                Ok(_) => {}
            }
            if let Some(text) = line.trim_end().strip_prefix("@peer ") {
                return match text.strip_prefix("cannot ") {
                    Some(reason) => Err(Stop::Cannot(format!("the peer: {reason}"))),
                    None => Ok(text.to_owned()),
                };
            }
        }
    }

    /// Sends a line.
    pub fn tell(&mut self, text: &str) -> Answer {
        writeln!(self.input, "{text}")
            .and_then(|()| self.input.flush())
            .map_err(|error| Stop::Cannot(format!("the peer process does not listen: {error}")))
    }

    /// Sends a line and reads the answer.
    pub fn ask(&mut self, text: &str) -> Answer<String> {
        self.tell(text)?;
        self.answer()
    }

    /// Bytes of the peer's device memory (or host memory), as the peer itself sees them.
    pub fn bytes(&mut self, place: &str, offset: usize, length: usize) -> Answer<Vec<u8>> {
        let text = self.ask(&format!("read {place} {offset} {length}"))?;
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .filter_map(|digit| u8::try_from(digit).ok())
            .collect();
        Ok(digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit))
            .collect())
    }

    /// Ends the peer without a word.
    pub fn kill(&mut self) {
        // A process that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A prepared pair: our rank 0 and the peer's rank 1.
pub struct Pair {
    /// Ours.
    pub side: Side,
    /// Theirs.
    pub peer: Peer,
}

impl Pair {
    /// Starts the peer and builds the communicator on both sides.
    pub fn connect(probe: &Probe, reach: Reach, with_host: bool) -> Answer<Self> {
        let table = table::of_two(probe, reach)?;
        let name = communicator_name(probe);
        let host = if with_host { "host" } else { "" };
        let mut peer = Peer::start(probe, "peer", &[&table, &name, host], &[])?;
        let side = Side::open(probe, 0, &table, &name, with_host)?;
        let code = prepare(probe, side.communicator, PREPARE_SECONDS)?;
        crate::probe::need("HcclCommPrepare", code)?;
        let ready = peer.answer()?;
        let mut numbers = ready.split(' ').filter_map(|word| word.parse::<usize>().ok());
        peer.memory = numbers.next().unwrap_or(0);
        peer.host = numbers.next().unwrap_or(0);
        Ok(Self { side, peer })
    }

    /// Takes both sides down in order; every step must succeed.
    pub fn close(mut self, probe: &Probe) -> Answer {
        let ours = self.side.close(probe)?;
        probe.value("unbind, destroy, deregister", join(&vec![0; ours.len()]), join(&ours));
        let theirs = self.peer.ask("close")?;
        probe.holds("the same at the peer", theirs.split(' ').all(|code| code == "0"));
        Ok(())
    }
}

/// A name no other run has.
pub fn communicator_name(probe: &Probe) -> String {
    format!("cann-probe-{}-{}", std::process::id(), probe.case)
}

fn join(codes: &[i32]) -> String {
    codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
