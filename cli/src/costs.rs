//! `mooncake costs`: what the engine takes transfers between NPUs to cost, and how it would send a group of blocks.
//!
//! The table is printed in the form in which `MOONCAKE_TRANSFER_COST_TABLE` is read, so that it can be kept, changed and
//! given back. With blocks, the choice is printed that the engine makes for them in this environment: small blocks are
//! gathered, or launched by both ends, only with `ASCEND_AGGREGATE_ENABLE=1`.

use std::process::ExitCode;

use mooncake::config::Config;
use mooncake::error::{Error, Result};
use mooncake::plan::{CostTable, Direction, Extent, Group, LinkClass, Side, choose};
use mooncake::transport::ascend::staged;

use crate::console::{result, tell};

/// Address of the first block at either end; where blocks lie costs nothing.
const FIRST_ADDRESS: u64 = 1 << 40;

/// Most blocks of a group: as many requests as a batch may have.
const MAX_BLOCKS: u64 = 1 << 24;

/// What to print.
#[derive(clap::Args)]
pub(crate) struct Question {
    /// Blocks that go together, as COUNTxBYTES: 4368x16384, or several for a group of mixed lengths. Without any the
    /// table is printed.
    #[arg(value_parser = blocks)]
    groups: Vec<(u64, u64)>,
    /// Only this link: a2-hccs, a2-roce, a3-hccs, a3-hccs-2node or a3-roce.
    #[arg(long, value_parser = link)]
    link: Option<LinkClass>,
    /// The initiator's end is host memory.
    #[arg(long)]
    local_host: bool,
    /// The peer's end is host memory.
    #[arg(long)]
    remote_host: bool,
}

fn link(name: &str) -> std::result::Result<LinkClass, String> {
    let known = || LinkClass::ALL.map(LinkClass::name).join(", ");
    LinkClass::named(name).ok_or_else(|| format!("there are {}", known()))
}

fn blocks(text: &str) -> std::result::Result<(u64, u64), String> {
    let (count, bytes) = text.split_once('x').ok_or("blocks are COUNTxBYTES, such as 256x65536")?;
    let number = |text: &str, limit: u64| match text.parse() {
        Ok(number) if (1..=limit).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is no number from 1 to {limit}")),
    };
    Ok((number(count, MAX_BLOCKS)?, number(bytes, mooncake::plan::MAX_EXTENT_BYTES)?))
}

/// Prints it; 1 when the file of costs is not right.
pub(crate) fn run(question: &Question) -> ExitCode {
    match print(question) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn print(question: &Question) -> Result<()> {
    let (config, warnings) = Config::from_lookup(&|name| std::env::var(name).ok());
    for warning in warnings {
        tell(format!("unusable: {warning}"));
    }
    let table = match &config.cost_table {
        Some(path) => CostTable::with_file(path)?,
        None => CostTable::built_in(),
    };
    let links = LinkClass::ALL.into_iter().filter(|class| question.link.is_none_or(|link| link == *class));
    if question.groups.is_empty() {
        let printed = table.to_string();
        for class in links {
            let of_class = |line: &&str| line.split(' ').next() == Some(class.name());
            printed.lines().filter(of_class).for_each(result);
        }
        return Ok(());
    }
    let extents = extents(&question.groups)?;
    if !config.ascend_aggregate {
        tell(
            "ASCEND_AGGREGATE_ENABLE is not 1: blocks are not gathered for speed, nor launched by both ends",
        );
    }
    let side = |is_host| if is_host { Side::Host } else { Side::Device };
    let takes_memory = !(question.local_host || question.remote_host);
    for class in links {
        for direction in [Direction::Write, Direction::Read] {
            let group = Group {
                extents: &extents,
                direction,
                local: side(question.local_host),
                remote: side(question.remote_host),
            };
            let allowed = staged::allowed(&config, class, direction, takes_memory);
            let choice = choose(&table.costs(class), &staged::slots_of(&config), &group, allowed);
            result(format!("{} {choice}", direction.name()));
        }
    }
    Ok(())
}

/// Blocks that lie apart from each other, those of all lengths in turn.
fn extents(groups: &[(u64, u64)]) -> Result<Vec<Extent>> {
    let total = groups.iter().fold(0_u64, |sum, (count, _)| sum.saturating_add(*count));
    if total > MAX_BLOCKS {
        return Err(Error::new(
            mooncake::error::Code::InvalidArgument,
            mooncake::error::Stage::Configure,
            format!("{total} blocks are more than a batch may have, which is {MAX_BLOCKS}"),
        ));
    }
    let mut at = FIRST_ADDRESS;
    let lengths = groups.iter().flat_map(|(count, bytes)| (0..*count).map(|_| *bytes));
    Ok(lengths
        .zip(0_u32..)
        .map(|(length_bytes, first_task)| {
            let address = at;
            at = at.saturating_add(length_bytes).saturating_add(1);
            Extent { local: address, remote: address, length_bytes, first_task, task_count: 1, skip_bytes: 0 }
        })
        .collect())
}
