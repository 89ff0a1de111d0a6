//! `mooncake env`: the table of variables, made from the library's own.

use std::process::ExitCode;

use mooncake::config::table::{APPLIED, SILENT};
use mooncake::config::{Config, REFUSED, Variable, refused};
use serde_json::{Value, json};

use crate::console::{result, tell};

fn lookup(name: &str) -> Option<String> {
    std::env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

/// The name under which a variable is set, and its text.
fn set_as(variable: &Variable) -> Option<(&'static str, String)> {
    std::iter::once(&variable.name)
        .chain(variable.aliases)
        .find_map(|name| lookup(name).map(|text| (*name, text)))
}

/// Prints the table; 1 when a value is unusable.
pub(crate) fn run(json: bool, all: bool) -> ExitCode {
    let (_, warnings) = Config::from_lookup(&lookup);
    if json {
        let rows: Vec<Value> = APPLIED.iter().map(row).collect();
        let unusable: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let mut document = json!({ "variables": rows, "unusable": unusable });
        if all && let Some(object) = document.as_object_mut() {
            let silent: Vec<&str> = SILENT.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            object.insert("without_effect".to_owned(), json!(silent));
            let refused: Vec<Value> = REFUSED
                .iter()
                .map(|refused| json!({ "names": refused.names, "reason": refused.reason }))
                .collect();
            object.insert("refused".to_owned(), json!(refused));
        }
        result(document.to_string());
    } else {
        for variable in APPLIED {
            text(variable);
        }
        if all {
            for (group, names) in SILENT {
                result(format!("accepted without effect ({group}): {}", names.join(" ")));
            }
            for refused in REFUSED {
                result(format!("refused: {}: {}", refused.names.join(" "), refused.reason));
            }
        }
        for warning in &warnings {
            tell(format!("unusable: {warning}"));
        }
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        for warning in refused(&variables) {
            tell(format!("refused: {warning}"));
        }
    }
    if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the table as the README has it.
pub(crate) fn markdown() -> ExitCode {
    result(mooncake::config::markdown().trim_end());
    ExitCode::SUCCESS
}

fn row(variable: &Variable) -> Value {
    json!({
        "name": variable.name,
        "aliases": variable.aliases,
        "unit": variable.unit(),
        "default": variable.default_text(),
        "range": variable.range_text(),
        "set": set_as(variable).map(|(name, text)| json!({ "name": name, "value": text })),
        "meaning": variable.meaning,
    })
}

fn text(variable: &Variable) {
    let default = variable.default_text();
    let default = if default.is_empty() { "none".to_owned() } else { default };
    let range = variable.range_text();
    let range = if range.is_empty() { String::new() } else { format!(", {range}") };
    result(format!("{} ({}, default {default}{range})", variable.name, variable.unit()));
    if let Some((name, text)) = set_as(variable) {
        result(format!("    set: {name}={text}"));
    }
    if !variable.aliases.is_empty() {
        result(format!("    also: {}", variable.aliases.join(", ")));
    }
    result(format!("    {}", variable.meaning));
}
