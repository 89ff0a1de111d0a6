//! The rows of a run, and what they say of the budgets: ratios of rows of the same cell, over the cells of a budget.

use super::Cell;

/// One contender in one cell: medians over the rounds.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who.
    pub contender: &'static str,
    /// Where.
    pub cell: Cell,
    /// 1e9 bytes per second.
    pub gigabytes_per_second: f64,
    /// Median time of a call.
    pub p50_us: f64,
    /// 99th percentile of the time of a call.
    pub p99_us: f64,
    /// Processor seconds of both processes for 1e9 bytes.
    pub processor_per_gigabyte: f64,
}

/// The names of the columns.
pub const HEADER: &str = "contender,direction,block_bytes,batch,threads,gb_per_s,p50_us,p99_us,cpu_s_per_gb";

impl Row {
    /// A line of the record.
    #[must_use]
    pub fn line(&self) -> String {
        let Cell { write, block_bytes, batch, threads } = self.cell;
        format!(
            "{},{},{block_bytes},{batch},{threads},{:.4},{:.1},{:.1},{:.4}",
            self.contender,
            if write { "write" } else { "read" },
            self.gigabytes_per_second,
            self.p50_us,
            self.p99_us,
            self.processor_per_gigabyte,
        )
    }
}

/// Ratios over cells: the median, the geometric mean and the least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Number of cells.
    pub cells: usize,
    /// Median.
    pub median: f64,
    /// Geometric mean.
    pub mean: f64,
    /// Least.
    pub least: f64,
    /// Greatest.
    pub greatest: f64,
}

impl Ratios {
    /// Of some values; `None` of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite() && *value > 0.0);
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let mean = (values.iter().map(|value| value.ln()).sum::<f64>() / count as f64).exp();
        Some(Self {
            cells: count,
            median: *values.get(count / 2)?,
            mean,
            least: *values.first()?,
            greatest: *values.last()?,
        })
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Bandwidth: more is better.
    Bandwidth,
    /// Processor time: less is better.
    Processor,
}

/// One line of the budgets.
struct Budget {
    text: &'static str,
    ours: &'static str,
    /// The best of these, figure by figure.
    theirs: &'static [&'static str],
    quantity: Quantity,
    least_block_bytes: u64,
}

const BUDGETS: [Budget; 12] = [
    budget("mapped, of a plain copy (>= 0.9)", "ours_mapped", &["memcpy"], Quantity::Bandwidth, 64 << 10),
    budget(
        "process_vm, of bare calls (>= 0.9)",
        "ours_same_host",
        &["process_vm"],
        Quantity::Bandwidth,
        64 << 10,
    ),
    budget("mapped, of upstream (>= 6)", "ours_mapped", &["upstream"], Quantity::Bandwidth, 64 << 10),
    budget(
        "process_vm, of upstream (>= 3.5)",
        "ours_same_host",
        &["upstream"],
        Quantity::Bandwidth,
        64 << 10,
    ),
    budget(
        "process_vm, of NIXL (mean >= 1.2, none < 0.8)",
        "ours_same_host",
        &["nixl"],
        Quantity::Bandwidth,
        64 << 10,
    ),
    budget("mapped, of NIXL", "ours_mapped", &["nixl"], Quantity::Bandwidth, 64 << 10),
    budget("tcp, of plain sockets (>= 0.8)", "ours_tcp", &["sockets_1", "sockets_4"], Quantity::Bandwidth, 0),
    budget("tcp, of upstream (>= 2)", "ours_tcp", &["upstream"], Quantity::Bandwidth, 0),
    budget("processor: mapped, of upstream (<= 0.167)", "ours_mapped", &["upstream"], Quantity::Processor, 0),
    budget(
        "processor: process_vm, of upstream (<= 0.25)",
        "ours_same_host",
        &["upstream"],
        Quantity::Processor,
        0,
    ),
    budget("processor: process_vm, of NIXL", "ours_same_host", &["nixl"], Quantity::Processor, 0),
    budget(
        "processor: tcp, of plain sockets (<= 1.2)",
        "ours_tcp",
        &["sockets_1", "sockets_4"],
        Quantity::Processor,
        0,
    ),
];

const fn budget(
    text: &'static str,
    ours: &'static str,
    theirs: &'static [&'static str],
    quantity: Quantity,
    least_block_bytes: u64,
) -> Budget {
    Budget { text, ours, theirs, quantity, least_block_bytes }
}

/// The budgets and what the rows say, a line each.
#[must_use]
pub fn judge(rows: &[Row]) -> Vec<String> {
    BUDGETS.iter().filter_map(|budget| Some(line(budget, Ratios::of(ratios(budget, rows))?))).collect()
}

fn line(budget: &Budget, ratios: Ratios) -> String {
    let Ratios { cells, median, mean, least, greatest } = ratios;
    format!(
        "{}: median {median:.2}, mean {mean:.2}, {least:.2} to {greatest:.2} ({cells} cells)",
        budget.text
    )
}

fn ratios(budget: &Budget, rows: &[Row]) -> Vec<f64> {
    let value = |row: &Row| match budget.quantity {
        Quantity::Bandwidth => row.gigabytes_per_second,
        Quantity::Processor => row.processor_per_gigabyte,
    };
    let ours = rows
        .iter()
        .filter(|row| row.contender == budget.ours && row.cell.block_bytes >= budget.least_block_bytes);
    ours.filter_map(|own| {
        let theirs = rows
            .iter()
            .filter(|row| row.cell == own.cell && budget.theirs.contains(&row.contender))
            .map(value);
        let best = match budget.quantity {
            Quantity::Bandwidth => theirs.max_by(f64::total_cmp),
            Quantity::Processor => theirs.min_by(f64::total_cmp),
        };
        Some(value(own) / best?)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(contender: &'static str, block_bytes: u64, speed: f64, processor: f64) -> Row {
        Row {
            contender,
            cell: Cell { write: true, block_bytes, batch: 1, threads: 1 },
            gigabytes_per_second: speed,
            p50_us: 1.0,
            p99_us: 2.0,
            processor_per_gigabyte: processor,
        }
    }

    #[test]
    fn a_cell_is_judged_by_the_best_of_the_others() {
        let rows = [
            row("ours_tcp", 4096, 8.0, 3.0),
            row("sockets_1", 4096, 4.0, 2.0),
            row("sockets_4", 4096, 2.0, 6.0),
            row("ours_tcp", 65536, 2.0, 1.0),
            row("sockets_4", 65536, 4.0, 2.0),
        ];
        let lines = judge(&rows);
        assert_eq!(
            lines,
            [
                "tcp, of plain sockets (>= 0.8): median 2.00, mean 1.00, 0.50 to 2.00 (2 cells)",
                "processor: tcp, of plain sockets (<= 1.2): median 1.50, mean 0.87, 0.50 to 1.50 (2 cells)",
            ]
        );
    }

    #[test]
    fn small_blocks_do_not_count_where_the_budget_says_so() {
        let rows = [row("ours_mapped", 4096, 1.0, 1.0), row("memcpy", 4096, 4.0, 1.0)];
        assert!(judge(&rows).is_empty());
    }
}
