//! The topology file: servers and containers in one TOML file, of which a process takes one place.
//!
//! ```toml
//! soc = "Ascend910B3"            # a variable of the table without its prefix, for every place
//! hbm_size = "1G"
//!
//! [[server]]
//! name = "left"                  # server_index is the position in the file unless it is given
//! hccn_conf = "left.hccn.conf"   # beside this file
//!
//! [[server.container]]
//! name = "a"
//! physical_ids = [4, 5]
//! boot_id = "11111111-0000-4000-8000-000000000001"
//! environment = { ASCEND_RT_VISIBLE_DEVICES = "1" }   # other variables of the process
//!
//! [[server]]
//! name = "right"
//! ```
//!
//! `CANN_SIM_CONFIG` names the file and `CANN_SIM_PLACE` the place, `left/a` or `right`; without it the first
//! server is meant. What stands nearer to the place wins, and the environment wins over the file.
//! `environment` reaches the whole program when `cann-sim-control run` starts it; else only the software NPU
//! knows it.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// What the file says for a place.
pub fn load(path: &Path, place: Option<&str>) -> Result<Variables, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&text, place, directory).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse(text: &str, place: Option<&str>, directory: &Path) -> Result<Variables, String> {
    let root: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut variables = Variables::new();
    apply(&root, "server", directory, &mut variables)?;
    let servers = tables(&root, "server")?;
    let (server_name, container_name) = match place {
        None => (None, None),
        Some(place) => match place.split_once('/') {
            None => (Some(place), None),
            Some((server, container)) => (Some(server), Some(container)),
        },
    };
    let index = match server_name {
        Some(name) => Some(find(&servers, name).ok_or_else(|| format!("no server is named {name}"))?),
        None if servers.is_empty() => None,
        None => Some(0),
    };
    if let Some((index, server)) = index.and_then(|index| Some((index, *servers.get(index)?))) {
        variables.insert("CANN_SIM_SERVER_INDEX".to_owned(), index.to_string());
        apply(server, "container", directory, &mut variables)?;
        if let Some(name) = container_name {
            let containers = tables(server, "container")?;
            let container = find(&containers, name).and_then(|index| containers.get(index));
            let container = container.ok_or_else(|| format!("the server has no container named {name}"))?;
            apply(container, "", directory, &mut variables)?;
        }
    }
    Ok(variables)
}

fn tables<'a>(parent: &'a Table, key: &str) -> Result<Vec<&'a Table>, String> {
    match parent.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_table().ok_or_else(|| format!("{key} must be written as [[{key}]]")))
            .collect(),
        Some(_) => Err(format!("{key} must be written as [[{key}]]")),
    }
}

fn find(tables: &[&Table], name: &str) -> Option<usize> {
    tables.iter().position(|table| table.get("name").and_then(Value::as_str) == Some(name))
}

/// Takes the variables of one level; `below` is the key of the next one.
fn apply(table: &Table, below: &str, directory: &Path, variables: &mut Variables) -> Result<(), String> {
    for (key, value) in table.iter().filter(|(key, _)| !["name", below].contains(&key.as_str())) {
        if key == "environment" {
            let others = value.as_table().ok_or("environment must be a table")?;
            for (name, value) in others {
                variables.insert(name.clone(), word(name, value, ",")?);
            }
            continue;
        }
        let separator = if key == "faults" { ";" } else { "," };
        let mut text = word(key, value, separator)?;
        if key == "hccn_conf" {
            text = directory.join(text).display().to_string();
        }
        variables.insert(format!("CANN_SIM_{}", key.to_ascii_uppercase()), text);
    }
    Ok(())
}

fn word(key: &str, value: &Value, separator: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(u8::from(*truth).to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Array(items) => {
            let words: Result<Vec<_>, _> = items.iter().map(|item| word(key, item, separator)).collect();
            Ok(words?.join(separator))
        }
        Value::Datetime(_) | Value::Table(_) => Err(format!("{key} must be a text, a number or a list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        hbm_size = "1G"
        release = 8.5
        faults = ["A=fail:1", "B=fail:2@3"]
        [[server]]
        name = "left"
        hccn_conf = "left.conf"
        [[server.container]]
        name = "a"
        physical_ids = [4, 5]
        hbm_size = "2G"
        environment = { ASCEND_RT_VISIBLE_DEVICES = "1" }
        [[server]]
        name = "right"
        device_count = 4
    "#;

    fn at(place: Option<&str>) -> Variables {
        parse(FILE, place, Path::new("/topology")).unwrap()
    }

    #[test]
    fn the_nearest_level_wins() {
        let left = at(Some("left"));
        assert_eq!(left["CANN_SIM_HBM_SIZE"], "1G");
        assert_eq!(left["CANN_SIM_SERVER_INDEX"], "0");
        assert_eq!(left["CANN_SIM_HCCN_CONF"], "/topology/left.conf");
        assert_eq!(left["CANN_SIM_RELEASE"], "8.5");
        assert_eq!(left["CANN_SIM_FAULTS"], "A=fail:1;B=fail:2@3");
        assert!(!left.contains_key("CANN_SIM_PHYSICAL_IDS"));
        let container = at(Some("left/a"));
        assert_eq!(container["CANN_SIM_HBM_SIZE"], "2G");
        assert_eq!(container["CANN_SIM_PHYSICAL_IDS"], "4,5");
        assert_eq!(container["ASCEND_RT_VISIBLE_DEVICES"], "1");
        let right = at(Some("right"));
        assert_eq!(right["CANN_SIM_SERVER_INDEX"], "1");
        assert_eq!(right["CANN_SIM_DEVICE_COUNT"], "4");
        assert!(!right.contains_key("CANN_SIM_HCCN_CONF"));
        assert_eq!(at(None), left);
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |text, place| parse(text, place, Path::new("")).unwrap_err();
        assert!(wrong(FILE, Some("middle")).contains("middle"));
        assert!(wrong(FILE, Some("right/b")).contains("named b"));
        assert!(wrong("server = 3", None).contains("[[server]]"));
        assert!(wrong("soc = { a = 1 }", None).contains("soc"));
        assert!(!wrong("soc = ", None).is_empty());
    }
}
