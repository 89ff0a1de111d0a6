//! What the vendor's status codes mean and what to do about them.
//!
//! One table; a code that is not in it is printed as a number beside the path of the vendor's own log. Meanings
//! and causes come from the vendor's headers and from reports of users.

use crate::error::Code;

/// Where the vendor writes its log unless told otherwise.
pub const PLOG: &str = "~/ascend/log/debug/plog";

/// Whose numbering a code belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Acl,
    Hccl,
}

/// One line of the table.
#[derive(Debug)]
pub struct Known {
    family: Family,
    code: i32,
    /// Only for this function, when the code means something else there.
    function: Option<&'static str>,
    /// What it means, in words.
    pub meaning: &'static str,
    /// What to do, in one line.
    pub advice: &'static str,
}

const fn acl(code: i32, meaning: &'static str, advice: &'static str) -> Known {
    Known { family: Family::Acl, code, function: None, meaning, advice }
}

const fn hccl(code: i32, meaning: &'static str, advice: &'static str) -> Known {
    Known { family: Family::Hccl, code, function: None, meaning, advice }
}

const fn of(function: &'static str, code: i32, meaning: &'static str, advice: &'static str) -> Known {
    Known { family: Family::Hccl, code, function: Some(function), meaning, advice }
}

const PREPARE: &str = "HcclCommPrepare";
/// What older releases have in its place: the exchange, and the registration with card or chip before it.
const EXCHANGE: &str = "HcclExchangeMemDesc";
const REGISTER: &str = "HcclRegisterMem";
const PUT: &str = "HcclBatchPut";
const GET: &str = "HcclBatchGet";
const CONTAINMENT: &str = "register the whole range in one call on both sides; memory registered after the channel was made needs a new one";

const DEFECT: &str =
    "report it with the vendor's log: the transfer engine passed something that this CANN does not take";
const AGAIN: &str =
    "the next transfer makes a new channel; if this stays, see the vendor's log of both sides";
const SLOW: &str = "the device or the peer is busy or stuck: look at both with npu-smi info, and raise the time limit if they are just slow";
const LOG: &str = "see the vendor's log for the lines of this call";

/// What to do about a code that is not in the table.
pub const UNKNOWN: &str =
    "look the code up in the vendor's manual of the installed CANN, and see the vendor's log";

/// The table. Entries for one function stand before the general ones of the same code.
static TABLE: &[Known] = &[
    acl(100_000, "a pointer was NULL or a size zero", DEFECT),
    acl(100_001, "aclInit was not called", "the application has to call aclInit, or import torch_npu"),
    acl(
        107_000,
        "the runtime refused a value",
        "check that the device id is one of ASCEND_RT_VISIBLE_DEVICES and that addresses belong to that device",
    ),
    acl(
        107_001,
        "no such device",
        "count the devices with npu-smi info; ids start at 0 after ASCEND_RT_VISIBLE_DEVICES",
    ),
    acl(
        107_002,
        "the calling thread has no device context",
        "set the device on this thread first (torch.npu.set_device), or name it as host:port:npu_N",
    ),
    acl(107_003, "a stream of another context was used", DEFECT),
    acl(107_019, "a wait ran out", SLOW),
    acl(107_020, "a task of the device ran out of time", "see the vendor's log for the task that timed out"),
    acl(107_022, "the device's tasks were aborted", AGAIN),
    acl(107_023, "the stream was aborted", AGAIN),
    acl(107_035, "an earlier task of the stream failed", AGAIN),
    acl(
        200_000,
        "out of host memory in the vendor's library",
        "free memory on the host; see what the process uses",
    ),
    acl(
        207_000,
        "this chip, driver or CANN does not have the feature",
        "compare the driver (npu-smi info) with the release notes of the installed CANN",
    ),
    acl(
        207_001,
        "out of device memory",
        "each channel takes about 2 MiB of HBM; leave some to the transfer engine",
    ),
    acl(207_004, "no device", "check that /dev/davinci* is visible in this container"),
    acl(
        207_005,
        "a resource of the device could not be had",
        "fewer peers per process, or close channels that are idle",
    ),
    acl(207_006, "no permission", "the process needs to be in the group that owns /dev/davinci*"),
    acl(207_007, "out of events", "fewer peers per process, or close channels that are idle"),
    acl(207_008, "out of streams", "fewer peers per process, or close channels that are idle"),
    acl(
        207_018,
        "the device ran out of memory",
        "each channel takes about 2 MiB of HBM; leave some to the transfer engine",
    ),
    acl(
        207_021,
        "the two devices have no link of this type",
        "the two NPUs may have neither an HCCS nor a RoCE link",
    ),
    acl(500_000, "internal error of the vendor's library", LOG),
    acl(507_000, "internal error of the runtime", LOG),
    acl(507_010, "the device's heartbeat is lost", "check the device with npu-smi info; it may need a reset"),
    acl(
        507_013,
        "the device's copy engine failed",
        "the device could not reach the memory of a copy: check that it was not freed while transfers run",
    ),
    acl(507_046, "waiting for the stream ran out", SLOW),
    acl(507_047, "waiting for the event ran out", SLOW),
    acl(
        507_052,
        "a copy failed",
        "the device could not reach the memory of a copy: check that it was not freed while transfers run",
    ),
    acl(507_053, "device memory failed", "check for ECC errors with npu-smi info -t ecc"),
    acl(507_054, "uncorrectable ECC error in HBM", "take the device out of service"),
    acl(507_055, "device memory is suspect", "check for ECC errors with npu-smi info -t ecc"),
    acl(
        507_056,
        "the link between the devices failed",
        "check the link with hccn_tool -i N -link -g on both sides",
    ),
    acl(
        507_057,
        "the remote device or its process is suspect",
        "look whether the peer's process is still alive",
    ),
    acl(507_899, "internal error of the driver", "see dmesg and the driver's log under /var/log/npu"),
    acl(507_901, "a connection of the device was closed", AGAIN),
    acl(
        507_904,
        "a communication task failed after all retries",
        "check the link with hccn_tool -i N -link -g",
    ),
    acl(
        507_910,
        "the host memory is registered with the device already",
        "undo aclrtHostRegister on this memory first; the transfer engine registers it itself",
    ),
    acl(507_911, "the host memory is not registered with the device", DEFECT),
    of(
        "HcclCommInitClusterInfoMemConfig",
        1,
        "the rank table or the communicator's name was refused",
        "the rank table names the physical device id; compare npu-smi info with ASCEND_RT_VISIBLE_DEVICES",
    ),
    of(
        "HcclRegisterGlobalMem",
        1,
        "the region was refused",
        "the range overlaps another registration of this process on the same device",
    ),
    of(PUT, 4, "a range lies in no single registered region", CONTAINMENT),
    of(GET, 4, "a range lies in no single registered region", CONTAINMENT),
    of(
        PUT,
        6,
        "the channel is not connected",
        "the channel to this peer is gone; the next transfer makes a new one",
    ),
    of(
        GET,
        6,
        "the channel is not connected",
        "the channel to this peer is gone; the next transfer makes a new one",
    ),
    of(
        PREPARE,
        9,
        "the peer did not come to the connection in time",
        "set HCCL_INTRA_ROCE_ENABLE alike on both sides, compare `hccn_tool -i N -tls -g`, and see that the NPUs reach each other (hccn_tool -i N -ping -g)",
    ),
    of(
        EXCHANGE,
        9,
        "the peer did not come to the connection in time",
        "set HCCL_INTRA_ROCE_ENABLE alike on both sides, compare `hccn_tool -i N -tls -g`, and see that the NPUs reach each other (hccn_tool -i N -ping -g)",
    ),
    of(EXCHANGE, 13, "the peer could not answer", "the peer's device may be out of HBM"),
    of(
        EXCHANGE,
        19,
        "the port is taken",
        "another communicator uses the port of this NPU: set MOONCAKE_TRANSFER_CHANNEL_DEVICE_PORT or HCCL_NPU_SOCKET_PORT_RANGE",
    ),
    of(
        REGISTER,
        1,
        "the region was refused",
        "the range overlaps another of the same channel, or is longer than this CANN takes in one piece",
    ),
    of(
        REGISTER,
        15,
        "a region could not be shared with the peer",
        "HCCS takes device memory in whole 2 MiB pages only: allocate with huge pages, or set HCCL_INTRA_ROCE_ENABLE=1",
    ),
    of(
        REGISTER,
        19,
        "the network card refused a region",
        "register less host memory: old drivers take 20 GB of it",
    ),
    of(PREPARE, 13, "the peer could not answer", "the peer's device may be out of HBM"),
    of(
        PREPARE,
        15,
        "a region could not be shared with the peer",
        "HCCS takes device memory in whole 2 MiB pages only: allocate with huge pages, or set HCCL_INTRA_ROCE_ENABLE=1",
    ),
    of(
        PREPARE,
        19,
        "the network card refused a region or the port is taken",
        "another communicator uses the port of this NPU: set MOONCAKE_TRANSFER_CHANNEL_DEVICE_PORT or HCCL_NPU_SOCKET_PORT_RANGE; or register less host memory",
    ),
    hccl(1, "a parameter was refused", DEFECT),
    hccl(2, "a pointer was NULL", DEFECT),
    hccl(
        3,
        "out of memory",
        "free memory of the host and the device, or register less; see the vendor's log for which ran out",
    ),
    hccl(4, "internal error", LOG),
    hccl(5, "not supported on this machine", "the two NPUs may have neither an HCCS nor a RoCE link"),
    hccl(6, "not found", AGAIN),
    hccl(
        7,
        "unavailable for the moment",
        "several processes of the node connect at once; trying again helps",
    ),
    hccl(
        8,
        "a system call failed",
        "see the vendor's log for the system call; limits (ulimit -a) are the usual cause",
    ),
    hccl(9, "timed out", SLOW),
    hccl(
        11,
        "a TCP connection between the NPUs failed",
        "check the NPU's address in /etc/hccn.conf and hccn_tool -i N -ping -g",
    ),
    hccl(12, "a RoCE connection failed", "check hccn_tool -i N -link -g and the PFC settings of the switch"),
    hccl(
        13,
        "a transfer over TCP between the NPUs failed",
        "check the NPU's address in /etc/hccn.conf and hccn_tool -i N -ping -g",
    ),
    hccl(14, "a RoCE transfer failed", "check hccn_tool -i N -link -g and the PFC settings of the switch"),
    hccl(15, "the runtime failed", LOG),
    hccl(16, "the driver failed", "see dmesg and the driver's log under /var/log/npu"),
    hccl(19, "the network failed", "check hccn_tool -i N -link -g"),
    hccl(20, "try again", AGAIN),
    hccl(21, "the remote side failed", "look whether the peer's process is still alive"),
    hccl(22, "the communicator is suspended", AGAIN),
    hccl(23, "an operation failed after all retries", "check hccn_tool -i N -link -g on both sides"),
    hccl(
        24,
        "out of device memory",
        "each channel takes about 2 MiB of HBM; leave some to the transfer engine",
    ),
];

fn family(function: &str) -> Family {
    if function.starts_with("Hccl") { Family::Hccl } else { Family::Acl }
}

/// What is known of `code` as answered by `function`.
#[must_use]
pub fn lookup(function: &str, code: i32) -> Option<&'static Known> {
    let family = family(function);
    TABLE.iter().find(|known| {
        known.family == family && known.code == code && known.function.is_none_or(|only| only == function)
    })
}

/// The class of failure a vendor code stands for.
#[must_use]
pub fn code_of(function: &str, code: i32) -> Code {
    match (family(function), code) {
        (Family::Acl, 107_002) => Code::Context,
        (Family::Acl, 107_001 | 200_002 | 207_004) => Code::DeviceNotFound,
        (Family::Acl, 200_000 | 207_001 | 207_018) | (Family::Hccl, 3 | 24) => Code::Memory,
        (Family::Acl, 200_001 | 200_006 | 207_000 | 207_021) | (Family::Hccl, 5) => Code::Unsupported,
        (Family::Acl, 507_056 | 507_057 | 507_901 | 507_904) | (Family::Hccl, 21) => Code::Endpoint,
        _ => Code::Vendor,
    }
}

/// A failure of an init that is worth another try: several processes of the node did it at once.
pub const INIT_UNAVAILABLE: i32 = 7;

/// The calls in which the two sides of a channel meet, by family.
pub const CONNECTING: [&str; 2] = [PREPARE, EXCHANGE];

/// A failure of one of [`CONNECTING`] that another device port may cure.
pub const PREPARE_NETWORK: i32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_its_own_meaning_of_a_code() {
        let prepare = lookup("HcclCommPrepare", 15).unwrap();
        assert!(prepare.advice.contains("2 MiB"));
        let other = lookup("HcclCommBindMem", 15).unwrap();
        assert_eq!(other.meaning, "the runtime failed");
    }

    #[test]
    fn families_do_not_mix() {
        assert!(lookup("aclrtMalloc", 9).is_none());
        assert!(lookup("HcclCommPrepare", 507_046).is_none());
        assert!(lookup("aclrtSynchronizeStreamWithTimeout", 507_046).is_some());
    }

    #[test]
    fn no_line_is_hidden_by_an_earlier_one() {
        for known in TABLE {
            let function = known.function.unwrap_or(match known.family {
                Family::Acl => "aclrtX",
                Family::Hccl => "HcclX",
            });
            let found = lookup(function, known.code).unwrap();
            assert!(std::ptr::eq(found, known), "{function} {} is shadowed", known.code);
        }
    }

    #[test]
    fn texts_can_be_joined() {
        for known in TABLE {
            for text in [known.meaning, known.advice] {
                assert!(!text.ends_with('.') && !text.is_empty() && !text.contains('\n'), "{text}");
            }
        }
    }
}
