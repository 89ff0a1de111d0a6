//! The table, the JSON, and the lines that upstream's programs print.

use serde::Serialize;

use crate::arena::Verdict;
use crate::library::Operation;
use crate::statistics::Rate;

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// read or write.
    pub operation: &'static str,
    /// The size of a block.
    pub block_bytes: u64,
    /// Blocks of a batch.
    pub batch: u64,
    /// Bytes of a batch.
    pub batch_bytes: u64,
    /// Times and throughput of a batch.
    #[serde(flatten)]
    pub rate: Rate,
    /// Processor seconds of the initiator for 1e9 bytes.
    pub cpu_seconds_per_gigabyte: f64,
    /// Bytes compared.
    pub verified_bytes: u64,
    /// Bytes that differed.
    pub mismatched_bytes: u64,
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the library that was measured.
    pub library_version: String,
    /// Where it was found.
    pub library: String,
    /// One thread copying 64 MiB in host memory, in 1e9 bytes per second.
    pub host_memcpy_gigabytes_per_second: f64,
    /// The sweep, or what was asked for.
    pub cells: Vec<Cell>,
    /// The KV blocks of a real model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutReport>,
    /// Those of several.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub layouts: Vec<LayoutReport>,
    /// Bytes compared, in all.
    pub verified_bytes: u64,
    /// Bytes that differed, in all.
    pub mismatched_bytes: u64,
}

/// The result of a real layout.
#[derive(Clone, Debug, Serialize)]
pub struct LayoutReport {
    /// Its name.
    pub name: String,
    /// Tensors, blocks of each, and tokens of a request.
    pub tensors: u64,
    /// Blocks of each tensor that a request reads.
    pub blocks_per_tensor: u64,
    /// Tokens of a request.
    pub tokens: u64,
    /// The cell of it.
    #[serde(flatten)]
    pub cell: Cell,
}

/// Column heads, as wide as the lines of [`line()`].
#[must_use]
pub fn head() -> String {
    format!(
        "{:<9} {:>9} {:>6} {:>10} {:>7} {:>12} {:>9} {:>8} {:>10} {:>13}",
        "operation",
        "block",
        "batch",
        "total",
        "rounds",
        "median us",
        "GB/s",
        "spread",
        "cpu s/GB",
        "verified"
    )
}

/// A line of the table.
#[must_use]
pub fn line(cell: &Cell) -> String {
    format!(
        "{:<9} {:>9} {:>6} {:>10} {:>7} {:>12.1} {:>9.2} {:>7.1}% {:>10.3} {:>13}",
        cell.operation,
        size(cell.block_bytes),
        cell.batch,
        size(cell.batch_bytes),
        cell.rate.rounds,
        cell.rate.median_us,
        cell.rate.gigabytes_per_second,
        cell.rate.spread_per_cent(),
        cell.cpu_seconds_per_gigabyte,
        if cell.mismatched_bytes == 0 { size(cell.verified_bytes) } else { "MISMATCH".to_owned() },
    )
}

/// The line that ends a run.
#[must_use]
pub fn closing(verdict: &Verdict) -> String {
    format!("verified {} bytes, {} mismatches", verdict.verified_bytes, verdict.mismatched_bytes)
}

/// A number of bytes in the largest binary unit that divides it, or that shows it with one digit.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if bytes >= unit {
            let tenths = bytes / (unit / 10).max(1);
            return if bytes.is_multiple_of(unit) {
                format!("{} {name}", bytes / unit)
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

/// A throughput in one of upstream's units, with its name; `None` for an unknown unit.
#[must_use]
pub fn throughput(bytes_per_second: f64, unit: &str, digits: usize) -> Option<String> {
    let divisor = match unit {
        "GB" => 1e9,
        "GiB" => 1_073_741_824.0,
        "Gb" => 1e9 / 8.0,
        "MB" => 1e6,
        "MiB" => 1_048_576.0,
        "Mb" => 1e6 / 8.0,
        "KB" => 1e3,
        "KiB" => 1024.0,
        "Kb" => 1e3 / 8.0,
        _ => return None,
    };
    Some(format!("{:.digits$} {unit}/s", bytes_per_second / divisor))
}

/// Upstream's line at the end of the timed form.
#[must_use]
pub fn timed_line(seconds: f64, batches: u64, throughput: &str) -> String {
    format!("Test completed: duration {seconds:.2}, batch count {batches}, throughput {throughput}")
}

/// Upstream's line for each block size of the iteration form.
#[must_use]
pub fn iteration_line(duration_us: f64, block_bytes: u64, total_bytes: u64, throughput: &str) -> String {
    format!(
        "Test completed: duration {duration_us:.0}us, block size {}KB, total size {}KB , throughput {throughput}",
        block_bytes / 1024,
        total_bytes / 1024
    )
}

/// A cell of these measurements.
#[must_use]
pub fn cell(
    operation: Operation,
    block_bytes: u64,
    batch: u64,
    rate: Rate,
    cpu_seconds_per_gigabyte: f64,
    verdict: &Verdict,
) -> Cell {
    Cell {
        operation: operation.name(),
        block_bytes,
        batch,
        batch_bytes: block_bytes * batch,
        rate,
        cpu_seconds_per_gigabyte,
        verified_bytes: verdict.verified_bytes,
        mismatched_bytes: verdict.mismatched_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(1 << 30), "1 GiB");
        assert_eq!(size(1000), "1000 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(234_881_024), "224 MiB");
    }

    #[test]
    fn throughputs_are_in_upstreams_units() {
        assert_eq!(throughput(1.43e9, "GB", 2).as_deref(), Some("1.43 GB/s"));
        assert_eq!(throughput(1e9, "Gb", 1).as_deref(), Some("8.0 Gb/s"));
        assert_eq!(throughput(1024.0, "KiB", 0).as_deref(), Some("1 KiB/s"));
        assert_eq!(throughput(1.0, "TB", 2), None);
    }

    #[test]
    fn lines_for_scripts_have_upstreams_shape() {
        assert_eq!(
            timed_line(3.0, 8210, "1.43 GB/s"),
            "Test completed: duration 3.00, batch count 8210, throughput 1.43 GB/s"
        );
        assert_eq!(
            iteration_line(215.4, 32768, 32 * 32768, "4.87 GB/s"),
            "Test completed: duration 215us, block size 32KB, total size 1024KB , throughput 4.87 GB/s"
        );
    }
}
