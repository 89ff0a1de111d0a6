//! What was measured, as a table, as a record, and in a few sentences.

use std::fmt::Write as _;

use super::SeenCell;
use super::scope::is_long;
use crate::report;

/// One of the measurements that stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The vendor's calls alone.
    Bare,
    /// A descriptor for each block.
    Direct,
    /// Through slots.
    Staged,
    /// As the engine chooses.
    Chosen,
}

impl Way {
    /// As printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Direct => "direct",
            Self::Staged => "staged",
            Self::Chosen => "auto",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Bare => 0,
            Self::Direct => 1,
            Self::Staged => 2,
            Self::Chosen => 3,
        }
    }
}

/// Which blocks a row is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// write, read, or a model's name.
    pub what: String,
    /// Length of a block.
    pub block_bytes: u64,
    /// How many.
    pub blocks: u64,
    /// Whether it is a model's layout.
    pub is_layout: bool,
}

/// The key of a cell.
pub fn key(cell: &SeenCell, layout: Option<&str>) -> Key {
    Key {
        what: layout.map_or_else(|| cell.operation.clone(), str::to_owned),
        block_bytes: cell.block_bytes,
        blocks: cell.batch,
        is_layout: layout.is_some(),
    }
}

impl Key {
    /// Whether the batch is a long one.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        is_long(self.block_bytes.saturating_mul(self.blocks))
    }
}

/// The rates of one kind of blocks, in GB/s of model time.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which blocks.
    pub key: Key,
    rates: [Option<f64>; 4],
    /// How much faster than direct staging can be at best, by the engine's table of costs.
    pub limit: Option<f64>,
}

impl Row {
    /// Without rates yet.
    pub fn new(key: Key, limit: Option<f64>) -> Self {
        Self { key, rates: [None; 4], limit }
    }

    /// What a way gave.
    pub fn set(&mut self, way: Way, rate: f64) {
        if let Some(place) = self.rates.get_mut(way.index()) {
            *place = Some(rate);
        }
    }

    /// The same.
    pub fn rate(&self, way: Way) -> Option<f64> {
        self.rates.get(way.index()).copied().flatten()
    }

    /// How much faster one way is than another.
    pub fn ratio(&self, of: Way, to: Way) -> Option<f64> {
        Some(self.rate(of)? / self.rate(to)?)
    }

    /// How much faster the engine's choice is than the better of the two routes.
    pub fn choice(&self) -> Option<f64> {
        Some(self.rate(Way::Chosen)? / self.rate(Way::Direct)?.max(self.rate(Way::Staged)?))
    }
}

/// The rows of a profile.
pub struct Outcome {
    /// Its name.
    pub profile: &'static str,
    /// Whose launches are in a row.
    pub launch: &'static str,
    /// How many times slower than hardware.
    pub slowdown: u32,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl Outcome {
    /// The least ratios, by which budgets are judged.
    pub fn summary(&self, ways: &[Way]) -> Vec<String> {
        let least = |ratio: &dyn Fn(&Row) -> Option<f64>| {
            let row = self.rows.iter().filter_map(|row| Some((ratio(row)?, row)));
            row.min_by(|(one, _), (other, _)| one.total_cmp(other))
        };
        let median = |ratio: &dyn Fn(&Row) -> Option<f64>| {
            let mut ratios: Vec<f64> = self.rows.iter().filter_map(ratio).collect();
            ratios.sort_by(f64::total_cmp);
            ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let mut lines = Vec::new();
        let mut tell = |what: &str, ratio_of: &dyn Fn(&Row) -> Option<f64>| {
            let found = least(ratio_of);
            if let Some((ratio, row)) = found {
                let block = report::size(row.key.block_bytes);
                let median = median(ratio_of);
                lines.push(format!(
                    "{what}: median {median:.3}, least {ratio:.3} ({} of {block})",
                    row.key.what
                ));
            }
        };
        if ways.contains(&Way::Direct) {
            tell("direct against the bare loop", &|row| row.ratio(Way::Direct, Way::Bare));
        }
        tell("auto against the better route", &Row::choice);
        for (is_long, what) in [(false, "short batches"), (true, "long batches")] {
            let small = |row: &Row| {
                let is_small = !row.key.is_layout && (16 << 10..=128 << 10).contains(&row.key.block_bytes);
                let is_meant = is_small && row.key.is_long() == is_long;
                row.ratio(Way::Staged, Way::Direct).filter(|_| is_meant)
            };
            tell(&format!("staged against direct, 16 KiB to 128 KiB, {what}"), &small);
        }
        lines
    }
}

/// Column heads.
pub fn head(ways: &[Way]) -> String {
    let mut text = format!("{:<12} {:>9} {:>6}", "operation", "block", "blocks");
    for way in ways {
        let _always = write!(text, " {:>9}", way.name());
    }
    let _always = write!(
        text,
        "  {:>11} {:>13} {:>8} {:>11}   (GB/s)",
        "direct/bare", "staged/direct", "at best", "auto/better"
    );
    text
}

/// A line of the table.
pub fn line(row: &Row, ways: &[Way]) -> String {
    let mut text =
        format!("{:<12} {:>9} {:>6}", row.key.what, report::size(row.key.block_bytes), row.key.blocks);
    for way in ways {
        let _always = write!(text, " {:>9}", number(row.rate(*way), 2));
    }
    let _always = write!(
        text,
        "  {:>11} {:>13} {:>8} {:>11}",
        number(row.ratio(Way::Direct, Way::Bare), 3),
        number(row.ratio(Way::Staged, Way::Direct), 3),
        number(row.limit, 2),
        number(row.choice(), 3)
    );
    text
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The record of a run.
pub fn csv(outcomes: &[Outcome], ways: &[Way], command: &str) -> String {
    let mut text =
        format!("# transfer_engine_bench {command}\n# GB/s of model time, GB = 1e9 bytes; medians\n");
    text.push_str("profile,launch,slowdown,operation,block_bytes,blocks");
    for way in ways {
        let _always = write!(text, ",{}", way.name());
    }
    text.push_str(",direct_of_bare,staged_of_direct,at_best,auto_of_better\n");
    for outcome in outcomes {
        for row in &outcome.rows {
            let _always = write!(
                text,
                "{},{},{},{},{},{}",
                outcome.profile,
                outcome.launch,
                outcome.slowdown,
                row.key.what,
                row.key.block_bytes,
                row.key.blocks
            );
            for way in ways {
                let _always = write!(text, ",{}", number(row.rate(*way), 3));
            }
            let ratios = [
                row.ratio(Way::Direct, Way::Bare),
                row.ratio(Way::Staged, Way::Direct),
                row.limit,
                row.choice(),
            ];
            for ratio in ratios {
                let _always = write!(text, ",{}", number(ratio, 3));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str, block_bytes: u64, rates: [f64; 4]) -> Row {
        let key = Key { what: what.into(), block_bytes, blocks: 4, is_layout: false };
        Row { key, rates: rates.map(Some), limit: Some(1.97) }
    }

    #[test]
    fn the_least_ratios_are_told() {
        let outcome = Outcome {
            profile: "a2-roce",
            launch: "device",
            slowdown: 40,
            rows: vec![
                row("write", 16 << 10, [1.0, 0.99, 1.9, 1.88]),
                row("write", 2 << 20, [20.0, 19.0, 18.0, 18.9]),
            ],
        };
        let all = [Way::Bare, Way::Direct, Way::Staged, Way::Chosen];
        let lines = outcome.summary(&all).join("\n");
        assert!(lines.contains("bare loop: median 0.990, least 0.950 (write of 2 MiB)"), "{lines}");
        assert!(lines.contains("better route: median 0.995, least 0.989 (write of 16 KiB)"), "{lines}");
        assert!(
            lines.contains("128 KiB, short batches: median 1.919, least 1.919 (write of 16 KiB)"),
            "{lines}"
        );
        let record = csv(&[outcome], &all, "--profile a2-roce");
        assert!(
            record.contains(
                "\na2-roce,device,40,write,16384,4,1.000,0.990,1.900,1.880,0.990,1.919,1.970,0.989\n"
            )
        );
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut row =
            Row::new(Key { what: "read".into(), block_bytes: 1, blocks: 1, is_layout: false }, None);
        row.set(Way::Bare, 2.0);
        let text = line(&row, &[Way::Bare, Way::Chosen]);
        assert!(text.contains("2.00") && text.ends_with('-'), "{text}");
        assert_eq!(row.choice(), None);
    }
}
