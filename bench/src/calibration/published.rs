//! The published sweep, from the software NPU's data.

use anyhow::{Context, Result, bail};

use crate::bare::Way;

const PUBLISHED: &str = include_str!("../../../cann-sim/cost/published.csv");

/// One published number.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Profile that should meet it.
    pub profile: String,
    /// The two NPUs are on two servers.
    pub is_far: bool,
    /// The initiator's memory is the host's.
    pub local_is_host: bool,
    /// Direction.
    pub way: Way,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Published rate, 1e9 bytes a second.
    pub gb_s: f64,
    /// Why the model does not claim it; empty when it does.
    pub remark: String,
}

/// All published cells, in the order of the data.
///
/// # Errors
/// If the data cannot be read.
pub fn cells() -> Result<Vec<Cell>> {
    let mut found = Vec::new();
    for line in PUBLISHED.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let [profile, link, local, block, put, get, put_remark, get_remark] =
            line.split(',').collect::<Vec<_>>()[..]
        else {
            bail!("the published sweep has the line {line:?}");
        };
        for (way, rate, remark) in [(Way::Put, put, put_remark), (Way::Get, get, get_remark)] {
            if rate.is_empty() {
                continue; // nothing was published
            }
            found.push(Cell {
                profile: profile.to_owned(),
                is_far: link == "roce",
                local_is_host: local == "host",
                way,
                block_bytes: block.parse().with_context(|| line.to_owned())?,
                gb_s: rate.parse().with_context(|| line.to_owned())?,
                remark: remark.to_owned(),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_sweep_is_there() {
        let cells = cells().unwrap();
        assert_eq!(cells.len(), 86);
        assert_eq!(cells.iter().filter(|cell| !cell.remark.is_empty()).count(), 4);
        let first = cells.first().unwrap();
        assert_eq!((first.profile.as_str(), first.way, first.block_bytes), ("a2-hccs", Way::Put, 16_384));
        assert!(cells.iter().all(|cell| cell.gb_s > 0.0 && cell.is_far == cell.profile.ends_with("roce")));
    }
}
