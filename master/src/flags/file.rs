//! The configuration file: YAML or JSON, keys are flag names.

use serde_json::Value;

use super::FlagError;
use super::parse::{Flags, find};

/// Upstream's other name for a flag in its file.
const CLIENT_TTL_KEY: &str = "client_live_ttl_sec";

/// Reads a file into flags.
///
/// # Errors
/// It cannot be read, has another ending, is not of its format, or a value is not of its flag's kind.
pub(super) fn read(path: &str) -> Result<Flags, FlagError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| FlagError::abort(format!("{path}: bad file: {error}")));
    let value: Value = if path.ends_with(".json") {
        serde_json::from_str(&text?).map_err(|error| FlagError::abort(format!("{path}: {error}")))?
    } else if path.ends_with(".yaml") || path.ends_with(".yml") {
        serde_yaml_ng::from_str(&text?).map_err(|error| FlagError::abort(format!("{path}: {error}")))?
    } else {
        return Err(FlagError::abort(format!("{path}: Unsupported config file format")));
    };
    let mut flags = Flags::default();
    let entries = match value {
        Value::Object(entries) => entries,
        Value::Null => return Ok(flags),
        _ => return Err(FlagError::abort(format!("{path}: the file is not a list of settings"))),
    };
    for (key, value) in entries {
        let name = if key == CLIENT_TTL_KEY { "client_ttl" } else { key.as_str() };
        let Some(flag) = find(name) else {
            log::warn!("{path}: unknown setting '{key}' has no effect");
            continue;
        };
        let text = match value {
            Value::Null => continue,
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => value.to_string(),
            Value::String(value) => value,
            Value::Array(_) | Value::Object(_) => {
                return Err(FlagError::abort(format!("{path}: '{key}' is not a single value")));
            }
        };
        flags.set(flag, &text).map_err(|error| FlagError::abort(format!("{path}: {}", error.text)))?;
    }
    Ok(flags)
}
