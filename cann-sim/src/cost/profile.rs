//! The numbers of a profile, read from a data file in which each has its source.

use std::path::Path;

use toml::{Table, Value};

/// The data file of this crate.
const OWN_FILE: &str = include_str!("../../cost/profiles.toml");

/// What the chip itself costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chip {
    /// Launch of a copy inside a device.
    pub copy_launch_ns: u64,
    /// Rate of the copy engine.
    pub copy_mb_s: u64,
    /// Launch of a copy between host and device.
    pub host_copy_launch_ns: u64,
    /// Rate of one direction of the host link.
    pub host_mb_s: u64,
    /// Launch of a batch of host copies.
    pub batch_launch_ns: u64,
    /// Each item of it.
    pub batch_item_ns: u64,
    /// One way of a message between two hosts.
    pub message_ns: u64,
    /// Rate of messages.
    pub message_mb_s: u64,
}

/// One direction of one-sided calls on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Launch of a descriptor.
    pub launch_ns: u64,
    /// What a descriptor holds its stream up for, whatever its length.
    pub setup_ns: u64,
    /// The stream's rate.
    pub mb_s: u64,
}

/// What the bytes of a link share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Nothing but the pair's own way.
    Pair,
    /// The way out of the one device and the way into the other.
    Port,
}

/// A kind of link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCost {
    /// What is shared.
    pub wire: Wire,
    /// Its rate in one direction.
    pub wire_mb_s: u64,
    /// Puts.
    pub put: Way,
    /// Gets.
    pub get: Way,
    /// Setup and rate when the local end is host memory, where it is known to differ.
    pub host: Option<(u64, u64)>,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name, with the NUL that C callers need.
    pub name: std::ffi::CString,
    /// The chip.
    pub chip: Chip,
    /// Links over the chips' interconnect.
    pub hccs: LinkCost,
    /// Links over Ethernet.
    pub roce: LinkCost,
}

/// The names of the profiles of this crate.
pub fn names() -> Vec<String> {
    let root: Table = OWN_FILE.parse().unwrap_or_default();
    let profiles = root.get("profile").and_then(Value::as_table);
    profiles.map(|profiles| profiles.keys().cloned().collect()).unwrap_or_default()
}

/// Reads the profile `name` from `file`, or from the one of this crate.
pub fn load(name: &str, file: Option<&Path>) -> Result<Profile, String> {
    match file {
        None => parse(OWN_FILE, name),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| parse(&text, name))
            .map_err(|why| format!("{}: {why}", path.display())),
    }
}

fn parse(text: &str, name: &str) -> Result<Profile, String> {
    let root: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let section = |kind: &str, name: &str| -> Result<Section, String> {
        let table = root.get(kind).and_then(Value::as_table);
        let found = table.and_then(|table| table.get(name)).and_then(Value::as_table);
        let known = || {
            let names = table.map(|table| table.keys().cloned().collect::<Vec<_>>().join(", "));
            format!("there is no {kind} {name}; there are {}", names.unwrap_or_default())
        };
        Ok(Section { name: format!("{kind}.{name}"), table: found.cloned().ok_or_else(known)? })
    };
    let profile = section("profile", name)?;
    Ok(Profile {
        name: std::ffi::CString::new(name).map_err(|error| error.to_string())?,
        chip: chip(&section("chip", &profile.word("chip")?)?)?,
        hccs: link(&section("link", &profile.word("hccs")?)?)?,
        roce: link(&section("link", &profile.word("roce")?)?)?,
    })
}

/// One table of the file.
struct Section {
    name: String,
    table: Table,
}

impl Section {
    /// The value under `key`; the source beside it must say something.
    fn value(&self, key: &str) -> Result<&Value, String> {
        let missing = || format!("{}.{key} is missing, or has no value and source", self.name);
        let entry = self.table.get(key).and_then(Value::as_table).ok_or_else(missing)?;
        let source = entry.get("source").and_then(Value::as_str).unwrap_or_default();
        if source.trim().is_empty() {
            return Err(missing());
        }
        entry.get("value").ok_or_else(missing)
    }

    fn word(&self, key: &str) -> Result<String, String> {
        self.value(key)?.as_str().map(str::to_owned).ok_or_else(|| format!("{}.{key} is no text", self.name))
    }

    fn number(&self, key: &str) -> Result<u64, String> {
        let value = self.value(key)?.as_integer().and_then(|value| u64::try_from(value).ok());
        value.ok_or_else(|| format!("{}.{key} is no whole number from 0", self.name))
    }

    fn rate(&self, key: &str) -> Result<u64, String> {
        let rate = self.number(key)?;
        if rate == 0 { Err(format!("{}.{key} is a rate and cannot be 0", self.name)) } else { Ok(rate) }
    }
}

fn chip(section: &Section) -> Result<Chip, String> {
    Ok(Chip {
        copy_launch_ns: section.number("copy_launch_ns")?,
        copy_mb_s: section.rate("copy_mb_s")?,
        host_copy_launch_ns: section.number("host_copy_launch_ns")?,
        host_mb_s: section.rate("host_mb_s")?,
        batch_launch_ns: section.number("batch_launch_ns")?,
        batch_item_ns: section.number("batch_item_ns")?,
        message_ns: section.number("message_ns")?,
        message_mb_s: section.rate("message_mb_s")?,
    })
}

fn link(section: &Section) -> Result<LinkCost, String> {
    let way = |name: &str| -> Result<Way, String> {
        Ok(Way {
            launch_ns: section.number(&format!("{name}_launch_ns"))?,
            setup_ns: section.number(&format!("{name}_setup_ns"))?,
            mb_s: section.rate(&format!("{name}_mb_s"))?,
        })
    };
    let host = match section.table.contains_key("host_mb_s") {
        true => Some((section.number("host_setup_ns")?, section.rate("host_mb_s")?)),
        false => None,
    };
    Ok(LinkCost {
        wire: match section.word("wire")?.as_str() {
            "pair" => Wire::Pair,
            "port" => Wire::Port,
            other => return Err(format!("{}.wire is neither pair nor port but {other}", section.name)),
        },
        wire_mb_s: section.rate("wire_mb_s")?,
        put: way("put")?,
        get: way("get")?,
        host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts 6 and 7.1, cost model.
    #[test]
    fn every_profile_can_be_read() {
        let names = names();
        for name in ["a2-hccs", "a2-roce", "a3-hccs", "a3-hccs-2node", "a3-roce"] {
            assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
        }
        for name in names {
            load(&name, None).unwrap();
        }
    }

    #[test]
    fn every_number_of_the_file_has_a_source() {
        let root: Table = OWN_FILE.parse().unwrap();
        for (kind, sections) in &root {
            for (name, section) in sections.as_table().unwrap() {
                let section =
                    Section { name: format!("{kind}.{name}"), table: section.as_table().unwrap().clone() };
                for key in section.table.keys() {
                    section.value(key).unwrap();
                }
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(load("a4", None).unwrap_err().contains("a2-hccs"));
        let without = |from: &str, to: &str| parse(&OWN_FILE.replace(from, to), "a2-hccs").unwrap_err();
        assert!(without("copy_launch_ns", "copy_lunch_ns").contains("copy_launch_ns"));
        assert!(without("value = 181_000", "value = 0").contains("copy_mb_s"));
        assert!(without("value = 11_800", "value = \"11.8\"").contains("copy_launch_ns"));
        assert!(without("value = \"pair\"", "value = \"bus\"").contains("bus"));
        assert!(load("a2-hccs", Some(Path::new("/nowhere"))).unwrap_err().contains("/nowhere"));
    }
}
