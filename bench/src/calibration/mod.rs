//! Measured against published: the sweep that the cost profiles were made from, replayed by bare vendor calls.
//!
//! Each cell moves 128 MiB in equal blocks over one stream with one wait at the end, as the published runs did. It is
//! timed in model time (the software NPU's clock of the calling thread, which leaves out what this machine adds) and,
//! for comparison, on the machine's clock divided by the slow-down.

mod published;
mod replay;

pub use published::{Cell, cells};
pub use replay::{Measured, replay};

use crate::bare::Way;

/// How far a cell that the model claims may be off.
pub const LIMIT_PERCENT: f64 = 15.0;

/// Columns of a record.
pub const COLUMNS: &str = "profile,local,direction,block_bytes,published_gb_s,model_gb_s,low,high,machine_gb_s,\
                           error_percent,claimed,remark";

/// By how much a rate is above the published one, in percent.
#[must_use]
pub fn error_percent(cell: &Cell, measured: &Measured) -> f64 {
    (measured.model_gb_s / cell.gb_s - 1.0) * 100.0
}

/// A line of a record.
#[must_use]
pub fn line(cell: &Cell, measured: &Measured) -> String {
    format!(
        "{},{},{},{},{},{:.3},{:.3},{:.3},{:.3},{:+.1},{},{}",
        cell.profile,
        if cell.local_is_host { "host" } else { "device" },
        match cell.way {
            Way::Put => "put",
            Way::Get => "get",
        },
        cell.block_bytes,
        cell.gb_s,
        measured.model_gb_s,
        measured.low_gb_s,
        measured.high_gb_s,
        measured.machine_gb_s,
        error_percent(cell, measured),
        if cell.remark.is_empty() { "yes" } else { "no" },
        cell.remark
    )
}

/// Whether a line of a record is of a claimed cell that is too far off.
#[must_use]
pub fn is_off(line: &str) -> bool {
    let mut words = line.split(',').skip(9);
    let error = words.next().and_then(|word| word.parse::<f64>().ok());
    words.next() == Some("yes") && error.is_none_or(|error| error.abs() > LIMIT_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_cell_may_be_off_by_the_limit_and_no_more() {
        let cell = |remark: &str| Cell {
            profile: "a2-roce".to_owned(),
            is_far: true,
            local_is_host: false,
            way: Way::Get,
            block_bytes: 16_384,
            gb_s: 10.0,
            remark: remark.to_owned(),
        };
        let measured =
            |rate: f64| Measured { model_gb_s: rate, low_gb_s: rate, high_gb_s: rate, machine_gb_s: rate };
        assert!(!is_off(&line(&cell(""), &measured(11.4))));
        assert!(is_off(&line(&cell(""), &measured(11.6))));
        assert!(is_off(&line(&cell(""), &measured(8.4))));
        assert!(!is_off(&line(&cell("not claimed"), &measured(30.0))));
        assert!(line(&cell(""), &measured(9.0)).contains(",-10.0,yes,"));
        assert_eq!(COLUMNS.split(',').count(), line(&cell(""), &measured(9.0)).split(',').count());
    }
}
