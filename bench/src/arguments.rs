//! The command line: upstream's flags in upstream's spelling, those of its Ascend programs, and ours.
//!
//! Upstream's programs read flags in the gflags manner: one dash or two, `--flag=value` or `--flag value`,
//! booleans as `--flag` and `--noflag`. `normalise` turns that into what `clap` reads.

use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, Parser, ValueEnum};

/// Which side of a transfer this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Submits transfers and measures them.
    Initiator,
    /// Calls the vendor's functions in a loop, with nothing around them.
    Bare,
    /// Registers memory and lets others transfer.
    Target,
}

/// What an initiator does to the target's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operation {
    /// Reads it.
    Read,
    /// Writes it.
    Write,
}

/// Which way transfers of a profile go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Aggregate {
    /// A descriptor for each block.
    #[value(name = "0")]
    Never,
    /// Through slots.
    #[value(name = "1")]
    Always,
    /// Whichever the engine finds faster.
    Auto,
}

/// Whose launches are in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Launch {
    /// Those of a device.
    Device,
    /// Those of a thread.
    Thread,
    /// One after the other.
    Both,
}

/// Measures transfers between two processes through the C interface, and verifies every byte.
///
/// Without any flag: starts a target and an initiator process on two software NPUs, runs a sweep of block
/// sizes and batches, then the KV blocks of Qwen2.5-7B. With --mode it is one side, as upstream's program:
/// the target prints `listening on HOST:PORT`, which is the initiator's --segment_id.
#[derive(Clone, Debug, Parser)]
#[command(name = "transfer_engine_bench", version, rename_all = "snake_case", args_override_self = true)]
#[command(color = clap::ColorChoice::Never)]
pub struct Arguments {
    /// Which side this process is
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Where names are looked up: P2PHANDSHAKE, or the address of a metadata service
    #[arg(long, default_value = "P2PHANDSHAKE")]
    pub metadata_server: String,
    /// Name of this engine, host or host:port (with P2PHANDSHAKE the engine chooses the port)
    #[arg(long, default_value_t = default_host())]
    pub local_server_name: String,
    /// The target's name, as it printed it
    #[arg(long, default_value = "")]
    pub segment_id: String,
    /// Transport: ascend (or ascend_direct, as upstream's program has it), or tcp between host memories
    #[arg(long, default_value = "ascend")]
    pub protocol: String,
    /// read or write [default: read; write in the iteration form]
    #[arg(long, value_enum)]
    pub operation: Option<Operation>,
    /// Accepted for upstream's scripts; names RDMA cards, which are not used here
    #[arg(long, default_value = "")]
    pub device_name: String,
    /// File with a NIC priority matrix, handed to the transport
    #[arg(long)]
    pub nic_priority_matrix: Option<PathBuf>,
    /// Bytes of the buffer of the timed form
    #[arg(long, default_value_t = 1 << 30)]
    pub buffer_size: u64,
    /// Bytes of a block [default: 65536; 32768 in the iteration form]
    #[arg(long)]
    pub block_size: Option<u64>,
    /// Blocks of a batch [default: 128; 32 in the iteration form]
    #[arg(long)]
    pub batch_size: Option<u64>,
    /// Submitting threads of the timed form
    #[arg(long, default_value_t = 12)]
    pub threads: u64,
    /// Seconds of the timed form
    #[arg(long, default_value_t = 10)]
    pub duration: u64,
    /// Let the engine look for devices and install what fits
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean())]
    pub auto_discovery: bool,
    /// GB, GiB, Gb, MB, MiB, Mb, KB, KiB or Kb, a second
    #[arg(long, default_value = "GB")]
    pub report_unit: String,
    /// Digits after the point of a throughput
    #[arg(long, default_value_t = 2)]
    pub report_precision: usize,
    /// Accepted for upstream's scripts; only "classic" exists here
    #[arg(long, default_value = "classic")]
    pub backend: String,
    /// Use NPU memory (otherwise host memory)
    #[arg(long, action = ArgAction::Set, default_value_t = true, value_parser = boolean())]
    pub use_vram: bool,
    /// Accepted for upstream's scripts; memory is always given its contents
    #[arg(long, action = ArgAction::Set, default_value_t = true, value_parser = boolean())]
    pub init_mem: bool,
    /// The NPU to use, as --device_logicid
    #[arg(long)]
    pub gpu_id: Option<i32>,
    /// Iteration form: block sizes block_size, twice that, four times that, this many of them [default: 10]
    #[arg(long)]
    pub block_iteration: Option<u32>,
    /// The NPU to use, the id that aclrtSetDevice takes [default: 0]
    #[arg(long)]
    pub device_logicid: Option<i32>,
    /// As --device_logicid and --device_phyid in one; 65536 means not given
    #[arg(long, default_value_t = 65536)]
    pub device_id: i32,
    /// Physical id of the NPU; appended to the name as ":npu_N"
    #[arg(long)]
    pub device_phyid: Option<i32>,

    /// Run the sweep and the real layout, as without flags, against a target started with --suite
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean())]
    pub suite: bool,
    /// Write the results as JSON to standard output, instead of the table
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean())]
    pub json: bool,
    /// The library to measure [default: libmooncake_transfer.so beside this program, in ../lib, or on the
    /// loader's path]
    #[arg(long)]
    pub library: Option<PathBuf>,
    /// Milliseconds after which a batch counts as lost
    #[arg(long, default_value_t = 30_000)]
    pub timeout_ms: u64,
    /// Use the software NPU beside this program although a CANN is configured
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean())]
    pub software_npu: bool,
    /// Measures what transfers take on hardware by a cost profile of the software NPU, in model time: a2-hccs, a2-roce,
    /// a3-hccs, a3-hccs-2node, a3-roce, several joined by commas, or all; direct, staged and what the engine chooses
    /// beside a bare loop of vendor calls. With --block_size that size alone
    #[arg(long)]
    pub profile: Option<String>,
    /// With --profile, one way only: 0 (direct), 1 (all that can be is staged), or auto (the engine chooses)
    #[arg(long, value_enum)]
    pub aggregate: Option<Aggregate>,
    /// With --profile: how many bytes a batch moves [default: 32 MiB, 64 MiB from blocks of 256 KiB on; of blocks up
    /// to 128 KiB besides 224 MiB, a request of 4,096 tokens of Qwen2.5-7B, unless --block_size is given]
    #[arg(long)]
    pub batch_bytes: Option<u64>,
    /// With --profile: how many times slower than hardware [default: 20 to 100, by the link]
    #[arg(long)]
    pub slowdown: Option<u32>,
    /// With --profile: threads launch in a row for each device, or each for itself, or one after the other
    #[arg(long, value_enum, default_value_t = Launch::Device)]
    pub launch: Launch,
    /// With --profile: write PREFIX.csv and PREFIX.svg, or PREFIX-a2.svg and PREFIX-a3.svg for both chips
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// One side of --profile
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean(), hide = true)]
    pub profile_cells: bool,
    /// With --profile: leave the long batches out
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean())]
    pub short: bool,
    /// Target: end when standard input ends
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean(), hide = true)]
    pub end_with_input: bool,
    /// Target: answer no questions, as a target that is not of this program
    #[arg(long, action = ArgAction::Set, default_value_t = false, value_parser = boolean(), hide = true)]
    pub silent: bool,
}

/// The forms of upstream's two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `transfer_engine_bench`: some threads, for some seconds.
    Timed,
    /// `transfer_engine_ascend_direct_perf`: one batch of each of several block sizes.
    Iterations,
    /// Ours: the sweep and the real layout.
    Suite,
    /// Ours: the cells of a cost profile.
    Profile,
}

impl Arguments {
    /// Reads a command line, the program's name included; ends the process for a wrong one, and for --help.
    #[must_use]
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Self {
        Self::parse_from(normalise(arguments))
    }

    /// Which of upstream's programs is meant. A flag that only its Ascend program has tells it; so does the
    /// protocol that only that one knows.
    #[must_use]
    pub fn form(&self) -> Form {
        if self.profile_cells {
            Form::Profile
        } else if self.suite {
            Form::Suite
        } else if self.block_iteration.is_some()
            || self.device_logicid.is_some()
            || self.device_phyid.is_some()
            || self.device_id != 65536
            || self.protocol == "ascend_direct"
        {
            Form::Iterations
        } else {
            Form::Timed
        }
    }

    /// The NPU to use.
    #[must_use]
    pub fn device(&self) -> i32 {
        let combined = (self.device_id != 65536).then_some(self.device_id);
        self.device_logicid.or(combined).or(self.gpu_id).unwrap_or(0)
    }

    /// The name to give the engine.
    #[must_use]
    pub fn engine_name(&self) -> String {
        let combined = (self.device_id != 65536).then_some(self.device_id);
        match self.device_phyid.or(combined) {
            Some(id) if self.local_server_name.contains(':') => {
                format!("{}:npu_{id}", self.local_server_name)
            }
            Some(id) => format!("{}:0:npu_{id}", self.local_server_name),
            None => self.local_server_name.clone(),
        }
    }
}

/// How a boolean's value may be written.
fn boolean() -> impl clap::builder::TypedValueParser<Value = bool> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(["true", "t", "yes", "y", "1", "false", "f", "no", "n", "0"])
        .map(|text| matches!(text.as_str(), "true" | "t" | "yes" | "y" | "1"))
}

/// This machine's name, as upstream's default.
fn default_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Turns the gflags manner into clap's: two dashes, underscores, booleans with their value attached.
fn normalise(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let command = Arguments::command();
    let is_boolean = |name: &str| {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(name));
        argument.is_some_and(|argument| {
            argument.get_possible_values().first().is_some_and(|value| value.matches("true", false))
        })
    };
    let mut rest = false;
    let mut value_next = false;
    let mut normal: Vec<String> = Vec::new();
    for (position, argument) in arguments.into_iter().enumerate() {
        let is_flag = argument.len() > 2
            && argument.starts_with('-')
            && argument.trim_start_matches('-').starts_with(|first: char| first.is_ascii_alphabetic());
        if std::mem::take(&mut value_next)
            && let Some(flag) = normal.last_mut()
        {
            // Attached, so that a value may begin with a dash.
            *flag = format!("{flag}={argument}");
            continue;
        }
        if position == 0 || rest || !is_flag {
            rest |= argument == "--";
            normal.push(argument);
            continue;
        }
        let text = argument.trim_start_matches('-');
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let name = name.replace('-', "_");
        let negated = name.strip_prefix("no").filter(|positive| is_boolean(positive));
        normal.push(match (negated, value) {
            (Some(positive), None) => format!("--{positive}=false"),
            (_, Some(value)) => format!("--{name}={value}"),
            (None, None) if is_boolean(&name) => format!("--{name}=true"),
            (_, None) => {
                value_next = !matches!(name.as_str(), "help" | "version");
                format!("--{name}")
            }
        });
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Arguments {
        let words = std::iter::once("bench").chain(line.split_whitespace()).map(str::to_owned);
        Arguments::try_parse_from(normalise(words)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_command_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_are_read_in_every_manner_of_gflags() {
        for line in ["--block_size=4096", "--block_size 4096", "-block_size=4096", "-block_size 4096"] {
            assert_eq!(read(line).block_size, Some(4096), "{line}");
        }
        assert_eq!(read("--block-size=4096").block_size, Some(4096));
        assert_eq!(read("--segment_id -odd --threads 3").segment_id, "-odd");
    }

    #[test]
    fn booleans_are_read_in_every_manner_of_gflags() {
        for line in ["--auto_discovery", "-auto_discovery", "--auto_discovery=true", "--auto_discovery=1"] {
            assert!(read(line).auto_discovery, "{line}");
        }
        for line in
            ["", "--noauto_discovery", "--auto_discovery=false", "--auto_discovery --noauto_discovery"]
        {
            assert!(!read(line).auto_discovery, "{line}");
        }
        assert!(read("--use_vram").use_vram);
        assert!(!read("--nouse_vram").use_vram);
        assert!(!read("-use_vram=false").use_vram);
    }

    #[test]
    fn a_boolean_takes_no_separate_value() {
        let words = ["bench", "--auto_discovery", "true"].map(str::to_owned);
        assert!(Arguments::try_parse_from(normalise(words)).is_err());
    }

    #[test]
    fn the_form_follows_the_flags_of_upstreams_programs() {
        assert_eq!(read("--mode=initiator --segment_id=h:1").form(), Form::Timed);
        assert_eq!(read("--mode=initiator --block_iteration=10").form(), Form::Iterations);
        assert_eq!(read("--device_logicid=1").form(), Form::Iterations);
        assert_eq!(read("--protocol=ascend_direct").form(), Form::Iterations);
        assert_eq!(read("--suite --device_logicid=1").form(), Form::Suite);
    }

    #[test]
    fn a_physical_device_becomes_part_of_the_name() {
        assert_eq!(read("--local_server_name=a:1").engine_name(), "a:1");
        assert_eq!(read("--local_server_name=a:1 --device_id=3").engine_name(), "a:1:npu_3");
        assert_eq!(read("--local_server_name=a --device_phyid=3").engine_name(), "a:0:npu_3");
        assert_eq!(read("--device_id=3").device(), 3);
        assert_eq!(read("--device_id=3 --device_logicid=1 --device_phyid=7").device(), 1);
        assert_eq!(read("").device(), 0);
    }
}
