//! The numbers behind [`LinkCosts`], each with its source: a text that is read, printed, and changed by a file.
//!
//! The file named by `MOONCAKE_TRANSFER_COST_TABLE` has lines of the same form, and changes the numbers that it
//! names: what the table prints can be kept, edited and given back.
//!
//! Invariants: every link has every number; a number is finite and within the bounds of its kind; a file that is not
//! right in every line changes nothing.

use std::fmt;
use std::path::Path;

use super::cost::{CopyCost, DescriptorCost, LinkClass, LinkCosts};
use crate::error::{Code, Error, Result, Stage};

/// The numbers this library comes with.
const BUILT_IN: &str = include_str!("cost_table.txt");

/// Longest file that is read.
pub const MAX_TABLE_BYTES: u64 = 1 << 20;

/// Largest usable time.
const MAX_TIME_US: f64 = 1e9;
/// Least and largest usable rate.
const RATES_GB_PER_S: (f64, f64) = (1e-6, 1e6);

/// Least and largest usable weight.
const WEIGHTS: (f64, f64) = (1e-6, 1e6);

/// What kind of number one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Microseconds, 0 or more.
    Time,
    /// GB/s, more than 0.
    Rate,
    /// 0 or 1.
    Switch,
    /// A factor, more than 0.
    Weight,
}

/// Every number of a link: name and kind. The order is that of [`Row::values`].
const NUMBERS: [(&str, Kind); 15] = [
    ("write.launch_us", Kind::Time),
    ("write.setup_us", Kind::Time),
    ("write.rate_gb_per_s", Kind::Rate),
    ("read.launch_us", Kind::Time),
    ("read.setup_us", Kind::Time),
    ("read.rate_gb_per_s", Kind::Rate),
    ("wire_gb_per_s", Kind::Rate),
    ("device_copy_us", Kind::Time),
    ("device_copy_gb_per_s", Kind::Rate),
    ("host_copy_us", Kind::Time),
    ("host_copy_gb_per_s", Kind::Rate),
    ("host_call_us", Kind::Time),
    ("message_us", Kind::Time),
    ("launch_per_device", Kind::Switch),
    ("direct_weight", Kind::Weight),
];

/// One number with where it is from.
#[derive(Clone, Debug, PartialEq)]
struct Value {
    number: f64,
    source: String,
}

/// The numbers of one link.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    class: LinkClass,
    values: [Value; NUMBERS.len()],
}

impl Row {
    fn costs(&self) -> LinkCosts {
        let [
            write_launch,
            write_setup,
            write_rate,
            read_launch,
            read_setup,
            read_rate,
            wire,
            device_us,
            device_rate,
            host_us,
            host_rate,
            host_call,
            message_us,
            per_device,
            direct_weight,
        ] = self.values.each_ref().map(|value| value.number);
        let rate = |gb_per_s: f64| gb_per_s * 1e3;
        let descriptor = |launch_us, setup_us, gb_per_s| DescriptorCost {
            launch_us,
            setup_us,
            bytes_per_us: rate(gb_per_s),
            wire_bytes_per_us: rate(wire),
        };
        LinkCosts {
            class: self.class,
            write: descriptor(write_launch, write_setup, write_rate),
            read: descriptor(read_launch, read_setup, read_rate),
            device_copy: CopyCost { call_us: 0.0, launch_us: device_us, bytes_per_us: rate(device_rate) },
            host_copy: CopyCost { call_us: host_call, launch_us: host_us, bytes_per_us: rate(host_rate) },
            message_us,
            launches_per_device: per_device != 0.0,
            direct_weight,
        }
    }
}

/// Costs of every kind of link.
#[derive(Clone, Debug, PartialEq)]
pub struct CostTable {
    rows: Vec<Row>,
}

impl CostTable {
    /// The numbers this library comes with.
    #[must_use]
    pub fn built_in() -> Self {
        let empty = || Value { number: 0.0, source: String::new() };
        let row = |class| Row { class, values: std::array::from_fn(|_| empty()) };
        let mut table = Self { rows: LinkClass::ALL.map(row).into() };
        // A test reads it line by line and finds every number, so that this cannot fail.
        if let Err(error) = table.change(BUILT_IN) {
            log::error!("the built-in table of costs: {error}");
        }
        table
    }

    /// The built-in numbers, changed by the lines of a file.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when the file cannot be read or a line is not right, naming it.
    pub fn with_file(path: &Path) -> Result<Self> {
        let unreadable = |what: String| {
            Error::new(
                Code::InvalidArgument,
                Stage::Configure,
                format!("the table of costs {}: {what}", path.display()),
            )
            .advice("correct the file that MOONCAKE_TRANSFER_COST_TABLE names, or unset it")
        };
        let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if length > MAX_TABLE_BYTES {
            return Err(unreadable(format!("longer than {MAX_TABLE_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let mut table = Self::built_in();
        table.change(&text).map_err(unreadable)?;
        Ok(table)
    }

    /// The costs of a link.
    #[must_use]
    pub fn costs(&self, class: LinkClass) -> LinkCosts {
        // A table has a row for each class; the first stands in for what cannot be missing.
        let row = self.rows.iter().find(|row| row.class == class).or_else(|| self.rows.first());
        row.map_or_else(|| Self::built_in().costs(class), Row::costs)
    }

    /// Takes over the numbers of `text`; on failure nothing has changed.
    fn change(&mut self, text: &str) -> std::result::Result<(), String> {
        let mut changed = self.clone();
        for (line, number) in text.lines().zip(1_u32..) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                changed.change_one(line).map_err(|what| format!("line {number}: {what}"))?;
            }
        }
        *self = changed;
        Ok(())
    }

    fn change_one(&mut self, line: &str) -> std::result::Result<(), String> {
        let mut words = line.split_whitespace();
        let (Some(link), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
            return Err("a line has a link, the name of a number, a value, and where it is from".into());
        };
        let source = words.collect::<Vec<_>>().join(" ");
        let class = LinkClass::named(link).ok_or_else(|| {
            let known: Vec<_> = LinkClass::ALL.iter().map(|class| class.name()).collect();
            format!("no link {link:?}; there are {}", known.join(", "))
        })?;
        let index = NUMBERS.iter().position(|(known, _)| *known == name).ok_or_else(|| {
            let known: Vec<_> = NUMBERS.iter().map(|(known, _)| *known).collect();
            format!("no number {name:?}; there are {}", known.join(", "))
        })?;
        let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
        let (least, largest) = match NUMBERS.get(index).map(|(_, kind)| *kind) {
            Some(Kind::Rate) => RATES_GB_PER_S,
            Some(Kind::Weight) => WEIGHTS,
            Some(Kind::Switch) => (0.0, 1.0),
            Some(Kind::Time) | None => (0.0, MAX_TIME_US),
        };
        if !number.is_finite() || !(least..=largest).contains(&number) {
            return Err(format!("{name} is {text}, and has to be {least} to {largest}"));
        }
        let row = self.rows.iter_mut().find(|row| row.class == class);
        if let Some(value) = row.and_then(|row| row.values.get_mut(index)) {
            *value = Value { number, source };
        }
        Ok(())
    }
}

impl Default for CostTable {
    fn default() -> Self {
        Self::built_in()
    }
}

impl fmt::Display for CostTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            for ((name, _), value) in NUMBERS.iter().zip(&row.values) {
                writeln!(formatter, "{} {name} {} {}", row.class.name(), value.number, value.source)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Direction;

    fn changed(text: &str) -> std::result::Result<CostTable, String> {
        let mut table = CostTable::built_in();
        table.change(text).map(|()| table)
    }

    #[test]
    fn the_built_in_table_is_whole_and_every_number_has_a_source() {
        let mut table = CostTable::built_in();
        table.change(BUILT_IN).unwrap();
        for row in &table.rows {
            for ((name, _), value) in NUMBERS.iter().zip(&row.values) {
                assert!(!value.source.is_empty(), "{} {name}", row.class.name());
            }
        }
        let lines = BUILT_IN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(lines, NUMBERS.len() * LinkClass::ALL.len(), "a line stands twice");
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let table = changed("a3-roce message_us 7.5 measured here").unwrap();
        let printed = table.to_string();
        assert!(printed.contains("a3-roce message_us 7.5 measured here"), "{printed}");
        assert_eq!(changed(&printed).unwrap(), table);
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("costs");
        std::fs::write(&path, "# ours\n\na2-roce write.launch_us 99 measured\n").unwrap();
        let table = CostTable::with_file(&path).unwrap();
        let direct = |table: &CostTable, class| table.costs(class).descriptor(Direction::Write).launch_us;
        assert!((direct(&table, LinkClass::A2Roce) - 99.0).abs() < 1e-9);
        assert_eq!(table.costs(LinkClass::A2Hccs), CostTable::built_in().costs(LinkClass::A2Hccs));
        assert_eq!(table.costs(LinkClass::A2Roce).read, CostTable::built_in().costs(LinkClass::A2Roce).read);
        let missing = CostTable::with_file(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }

    #[test]
    fn a_wrong_line_is_named_and_changes_nothing() {
        for (text, word) in [
            ("a9-hccs message_us 1", "a9-hccs"),
            ("a2-hccs massage_us 1", "massage_us"),
            ("a2-hccs message_us", "a line has"),
            ("a2-hccs message_us ten", "ten"),
            ("a2-hccs message_us -1", "has to be 0"),
            ("a2-hccs message_us inf", "has to be"),
            ("a2-hccs message_us NaN", "has to be"),
            ("a2-hccs write.rate_gb_per_s 0", "has to be"),
            ("a2-hccs launch_per_device 2", "has to be"),
        ] {
            let mut table = CostTable::built_in();
            let error = table.change(&format!("a2-hccs host_copy_us 3\n{text}")).unwrap_err();
            assert!(error.contains(word) && error.contains("line 2"), "{text}: {error}");
            assert_eq!(table, CostTable::built_in(), "{text}");
        }
    }

    /// The laws give what the vendor published, where the table claims to.
    #[test]
    fn published_rates_are_met() {
        let table = CostTable::built_in();
        let gb_per_s = |class, direction, length_bytes: f64| {
            length_bytes / table.costs(class).descriptor(direction).time_us(length_bytes) / 1e3
        };
        let kib = 1024.0;
        for (class, direction, length_bytes, published) in [
            (LinkClass::A2Hccs, Direction::Write, 16.0 * kib, 1.47),
            (LinkClass::A2Hccs, Direction::Read, 256.0 * kib, 22.0),
            (LinkClass::A2Roce, Direction::Write, 64.0 * kib, 2.84),
            (LinkClass::A2Roce, Direction::Read, 2048.0 * kib, 24.0),
            (LinkClass::A3Hccs, Direction::Write, 16.0 * kib, 16.0),
            (LinkClass::A3Hccs, Direction::Read, 2048.0 * kib, 158.0),
            (LinkClass::A3HccsTwoServers, Direction::Write, 64.0 * kib, 13.0),
            (LinkClass::A3HccsTwoServers, Direction::Read, 1024.0 * kib, 98.6),
            (LinkClass::A3Roce, Direction::Write, 64.0 * kib, 10.8),
        ] {
            let modelled = gb_per_s(class, direction, length_bytes);
            let error = (modelled / published - 1.0).abs();
            assert!(error < 0.15, "{} {direction:?}: {modelled} for {published}", class.name());
        }
    }
}
