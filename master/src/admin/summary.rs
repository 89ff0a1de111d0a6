//! One line for people: the pool, and what happened since the last line.

use std::fmt::Write;

use axum::extract::State;
use axum::response::Response;
use mooncake_wire::Function;
use parking_lot::Mutex;

use super::{Admin, Shared, text};
use crate::moment::Moment;

/// The numbers of the last summary.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Option<(Moment, Vec<u64>)>>);

const SHOWN: [(Function, &str); 8] = [
    (Function::PutStart, "PutStart"),
    (Function::BatchPutStart, "BatchPutStart"),
    (Function::GetReplicaList, "Get"),
    (Function::BatchGetReplicaList, "BatchGet"),
    (Function::ExistKey, "Exist"),
    (Function::BatchExistKey, "BatchExist"),
    (Function::Remove, "Remove"),
    (Function::Ping, "Ping"),
];

/// Bytes with a unit.
#[must_use]
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.2} {name}") }
}

/// The line.
#[must_use]
pub fn line(admin: &Admin) -> String {
    let now = admin.clock.now();
    let totals = admin.state.totals(now);
    let metrics = admin.state.metrics();
    let mut counts: Vec<u64> = SHOWN
        .iter()
        .map(|(function, _)| metrics.calls(*function).map_or(0, |calls| calls.requests.get()))
        .collect();
    counts.push(metrics.evicted_objects.get());
    let previous = admin.rates.0.lock().replace((now, counts.clone()));
    let seconds = previous.as_ref().map_or(1.0, |(then, _)| {
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let seconds = now.since_ms(*then).max(1) as f64 / 1000.0;
        seconds
    });
    let mut line = format!(
        "Mem Storage: {} / {} | Keys: {} (soft-pinned: {}) | Clients: {} | Metadata: {}",
        human(totals.used_bytes),
        human(totals.capacity_bytes),
        totals.objects,
        totals.soft_pinned,
        admin.state.active_clients(),
        human(totals.metadata_bytes),
    );
    let names = SHOWN.iter().map(|(_, name)| *name).chain(["Evicted"]);
    for (index, (name, count)) in names.zip(&counts).enumerate() {
        let before = previous.as_ref().and_then(|(_, counts)| counts.get(index)).copied().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let rate = count.saturating_sub(before) as f64 / seconds;
        // Writing to a string does not fail.
        let _ = write!(line, " | {name}: {count} ({rate:.1}/s)");
    }
    line
}

pub(super) async fn summary(State(admin): Shared) -> Response {
    text(format!("role=leader, state=serving, service_ready=true, master={{{}}}", line(&admin)))
}
