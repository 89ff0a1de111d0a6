//! The numbers in Prometheus' text format, under upstream's names where upstream has them.

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::response::Response;
use mooncake_wire::Function;

use super::{Admin, Shared, text};
use crate::metrics::VALUE_SIZE_BOUNDS;
use crate::state::object::Object;
use crate::state::segment::Segment;

pub(super) async fn metrics(State(admin): Shared) -> Response {
    text(render(&admin))
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.value(name, value);
    }
}

/// `PutStart` is `put_start`; `ReMountSegment` is `remount_segment`, as upstream spells it.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for character in name.replace("ReMount", "Remount").chars() {
        if character.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}

fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page.
fn render(admin: &Admin) -> String {
    let (state, metrics) = (&admin.state, admin.state.metrics());
    let totals = state.totals(admin.clock.now());
    let mut page = Page(String::with_capacity(32 << 10));
    for (name, help, value) in [
        ("master_allocated_bytes", "Bytes allocated in mounted segments", totals.used_bytes),
        ("master_total_capacity_bytes", "Bytes of mounted segments", totals.capacity_bytes),
        ("master_key_count", "Objects", totals.objects as u64),
        ("master_soft_pin_key_count", "Objects that are soft-pinned", totals.soft_pinned as u64),
        ("master_active_clients", "Clients that have mounted what they lend", state.active_clients() as u64),
        ("master_allocated_file_size_bytes", "Bytes in files; always 0 here", 0),
        ("master_total_file_capacity_bytes", "Bytes files may take; always 0 here", 0),
        ("master_metadata_bytes", "Bytes of metadata of all objects", totals.metadata_bytes),
        (
            "master_metadata_budget_bytes",
            "Bytes metadata may take; 0 is unlimited",
            state.policy().metadata_budget_bytes,
        ),
        (
            "master_metadata_bytes_per_object",
            "Bytes of metadata of an object, its key apart",
            Object::cost_bytes(0),
        ),
        (
            "master_put_start_discarded_staging_size",
            "Bytes that nobody may use yet, since somebody may still write or read them",
            state.quarantined_bytes(),
        ),
        ("master_open_connections", "RPC connections", admin.server.open_connections() as u64),
    ] {
        page.one(name, "gauge", help, value);
    }
    segments(&mut page, admin);
    value_sizes(&mut page, admin);
    calls(&mut page, admin);
    for (name, help, counter) in [
        (
            "master_put_start_alloc_failures_total",
            "Puts for which no space was found",
            &metrics.put_alloc_failures,
        ),
        (
            "master_put_start_partial_allocations_total",
            "Puts with fewer replicas than asked for",
            &metrics.put_partial_allocations,
        ),
        ("master_successful_evictions_total", "Evictions that took something", &metrics.evictions_succeeded),
        ("master_successful_evictions_total_mem", "The same, in memory", &metrics.evictions_succeeded),
        ("master_attempted_evictions_total", "Evictions", &metrics.evictions_attempted),
        ("master_attempted_evictions_total_mem", "The same, in memory", &metrics.evictions_attempted),
        ("master_evicted_key_count", "Objects that were evicted", &metrics.evicted_objects),
        ("master_evicted_key_count_mem", "The same, in memory", &metrics.evicted_objects),
        ("master_evicted_size_bytes", "Bytes that were evicted", &metrics.evicted_bytes),
        ("master_evicted_size_bytes_mem", "The same, in memory", &metrics.evicted_bytes),
        (
            "master_evictions_in_put_total",
            "Evictions that a put ran to find space",
            &metrics.evictions_in_put,
        ),
        ("master_put_start_discard_cnt", "Unfinished puts that were replaced", &metrics.puts_discarded),
        (
            "master_put_start_release_cnt",
            "Unfinished puts whose space was taken back",
            &metrics.puts_released,
        ),
        ("mem_cache_hit_nums_", "Reads that found the object in memory", &metrics.hits),
        (
            "file_cache_hit_nums_",
            "Reads that found the object in a file; always 0 here",
            &crate::metrics::Counter::default(),
        ),
        (
            "file_cache_hit_bytes_total",
            "Bytes of objects that reads found in files; always 0 here",
            &crate::metrics::Counter::default(),
        ),
        ("valid_get_nums_", "Reads that found the object", &metrics.hits),
        ("total_get_nums_", "Reads", &metrics.reads),
        ("mem_cache_hit_bytes_total", "Bytes of the objects that reads found", &metrics.hit_bytes),
        (
            "master_clients_doubted_total",
            "Times a client closed its last connection and lent something still",
            &metrics.clients_doubted,
        ),
        ("master_clients_suspected_total", "Times a client became suspect", &metrics.clients_suspected),
        ("master_clients_expired_total", "Clients that expired", &metrics.clients_expired),
        (
            "master_connections_accepted_total",
            "RPC connections that were accepted",
            &metrics.connections_accepted,
        ),
        (
            "master_connections_refused_total",
            "RPC connections that were closed for what they sent",
            &metrics.connections_refused,
        ),
        (
            "master_release_mismatches_total",
            "Calls with arguments of another release",
            &metrics.release_mismatches,
        ),
        ("master_objects_restored_total", "Objects that the journal brought back", &metrics.objects_restored),
    ] {
        page.one(name, "counter", help, counter.get());
    }
    for (name, help) in [
        ("mem_cache_nums_", "Objects in memory that are complete"),
        ("file_cache_nums_", "Objects in files; always 0 here"),
    ] {
        page.one(
            name,
            "gauge",
            help,
            if name.starts_with("mem") { totals.objects - totals.unfinished } else { 0 },
        );
    }
    if let Some(journal) = state.journal() {
        page.one(
            "master_journal_bytes",
            "gauge",
            "Bytes of the newest journal file",
            journal.written_bytes(),
        );
        page.one(
            "master_journal_failed",
            "gauge",
            "1 while the journal cannot be written",
            u8::from(journal.failed()),
        );
    }
    page.0
}

fn segments(page: &mut Page, admin: &Admin) {
    let segments = admin.state.segments();
    let mounted = || segments.iter().filter(|segment| segment.serves());
    let labels = |name: &str, segment: &Segment| {
        format!("{name}{{segment=\"{}\",id=\"{}\"}}", label(&segment.name), segment.id)
    };
    let name = "segment_allocated_bytes";
    page.head(name, "gauge", "Bytes allocated in a segment");
    for segment in mounted() {
        page.value(&labels(name, segment), segment.used_bytes());
    }
    let name = "segment_total_capacity_bytes";
    page.head(name, "gauge", "Bytes of a segment");
    for segment in mounted() {
        page.value(&labels(name, segment), segment.size);
    }
}

fn value_sizes(page: &mut Page, admin: &Admin) {
    let metrics = admin.state.metrics();
    let name = "master_value_size_bytes";
    page.head(name, "histogram", "Sizes of objects");
    // The label is text: spelled as upstream does.
    let bounds = VALUE_SIZE_BOUNDS.iter().map(|bound| format!("{bound}.000000")).chain(["+Inf".to_owned()]);
    let mut count = 0;
    for (bound, counter) in bounds.zip(&metrics.value_sizes) {
        count += counter.get();
        page.value(&format!("{name}_bucket{{le=\"{bound}\"}}"), count);
    }
    page.value(&format!("{name}_sum"), metrics.value_bytes.get());
    page.value(&format!("{name}_count"), count);
}

fn calls(page: &mut Page, admin: &Admin) {
    for function in Function::ALL {
        let Some(calls) = admin.state.metrics().calls(*function) else {
            continue;
        };
        let (name, called) = (snake(function.name()), function.name());
        let mut counts = vec![
            ("requests_total", "Calls", calls.requests.get()),
            ("failures_total", "Calls that failed as a whole", calls.failures.get()),
        ];
        if name.starts_with("batch_") {
            counts.push((
                "partial_successes_total",
                "Calls that failed in part",
                calls.partial_successes.get(),
            ));
            counts.push(("items_total", "Keys", calls.items.get()));
            counts.push(("failed_items_total", "Keys that failed", calls.failed_items.get()));
        }
        for (what, help, value) in counts {
            page.one(&format!("master_{name}_{what}"), "counter", &format!("{help}: {called}"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{label, snake};

    #[test]
    fn names_as_upstream_spells_them() {
        assert_eq!(snake("GetReplicaListByRegex"), "get_replica_list_by_regex");
        assert_eq!(snake("ReMountSegment"), "remount_segment");
        assert_eq!(snake("Ping"), "ping");
        assert_eq!(label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
