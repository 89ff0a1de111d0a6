//! The table of variables as the README shows it.

use super::table::{APPLIED, SILENT};
use super::variable::Variable;

/// The section of the README: a table of what has an effect, and the names that are taken without one.
#[must_use]
pub fn markdown() -> String {
    let mut lines = vec![
        "| variable | unit | default | range | meaning |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(APPLIED.iter().map(row));
    lines.push(String::new());
    lines.push(
        "Taken without effect, so that an environment written for upstream raises no warning:".to_owned(),
    );
    lines.push(String::new());
    lines.extend(SILENT.iter().map(|(group, names)| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        format!("- {group}: {}", names.join(", "))
    }));
    lines.push(String::new());
    lines.join("\n")
}

fn row(variable: &Variable) -> String {
    let names: Vec<String> =
        std::iter::once(&variable.name).chain(variable.aliases).map(|name| format!("`{name}`")).collect();
    let default = variable.default_text();
    format!(
        "| {} | {} | {} | {} | {} |",
        names.join(", "),
        variable.unit(),
        if default.is_empty() { "none".to_owned() } else { default },
        variable.range_text(),
        variable.meaning
    )
}
