//! `mooncake stats`, `keys` and `segments`: a look at a pool, over the admin HTTP server of its master.
//!
//! The master is asked once, within a time limit; a look takes no lease and touches no hit counter.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};
use ureq::Agent;

use crate::console::{result, tell};

/// Longest answer that is read: the keys of some ten million objects.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// Rows of the statistics: our name, and the master's metric.
const STATISTICS: [(&str, &str); 15] = [
    ("used_bytes", "master_allocated_bytes"),
    ("capacity_bytes", "master_total_capacity_bytes"),
    ("keys", "master_key_count"),
    ("soft_pinned_keys", "master_soft_pin_key_count"),
    ("clients", "master_active_clients"),
    ("suspect_clients_so_far", "master_clients_suspected_total"),
    ("expired_clients_so_far", "master_clients_expired_total"),
    ("reads", "total_get_nums_"),
    ("hits", "valid_get_nums_"),
    ("hit_bytes", "mem_cache_hit_bytes_total"),
    ("evicted_keys", "master_evicted_key_count"),
    ("evicted_bytes", "master_evicted_size_bytes"),
    ("puts_without_space", "master_put_start_alloc_failures_total"),
    ("metadata_bytes", "master_metadata_bytes"),
    ("release_mismatches", "master_release_mismatches_total"),
];

/// The master that is asked, and the form of the answer.
#[derive(Args)]
pub(crate) struct Master {
    /// Host and port of the master's admin HTTP server, its flag --metrics_port.
    #[arg(long, default_value = "127.0.0.1:9003")]
    admin: String,
    /// How long the master may take, in seconds.
    #[arg(long, default_value_t = 10)]
    timeout_seconds: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What is asked.
pub(crate) enum Question {
    Stats,
    Keys { part: String },
    Segments,
}

/// Asks, and prints the answer; 1 when there is none.
pub(crate) fn run(master: &Master, question: &Question) -> ExitCode {
    match answer(master, question) {
        Ok(text) => {
            if !text.is_empty() {
                result(text);
            }
            ExitCode::SUCCESS
        }
        Err(reason) => {
            tell(format!(
                "error: the master's admin server at {}: {reason}; --admin takes its host and port, which \
                 mooncake_master tells at its start",
                master.admin
            ));
            ExitCode::FAILURE
        }
    }
}

fn answer(master: &Master, question: &Question) -> Result<String, String> {
    match question {
        Question::Stats => {
            let rows = statistics(&get(master, "/metrics")?);
            if master.json {
                let rows: Map<String, Value> =
                    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
                return Ok(Value::Object(rows).to_string());
            }
            let lines: Vec<String> = rows
                .iter()
                .map(|(name, value)| {
                    format!("{name:24} {}", value.map_or("unknown".to_owned(), |value| value.to_string()))
                })
                .collect();
            Ok(lines.join("\n"))
        }
        Question::Keys { part } => {
            let body = get(master, "/get_all_keys")?;
            let keys: Vec<&str> = body.lines().filter(|key| key.contains(part.as_str())).collect();
            Ok(if master.json { Value::from(keys).to_string() } else { keys.join("\n") })
        }
        Question::Segments => {
            let body = get(master, "/get_segments_detail")?;
            if master.json {
                return Ok(body);
            }
            let detail: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            Ok(segments(&detail))
        }
    }
}

/// One exchange; any status but 200 is an error.
fn get(master: &Master, path: &str) -> Result<String, String> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        // A proxy for web pages is no way to a service of the cluster.
        .proxy(None)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(master.timeout_seconds.max(1))))
        .build()
        .into();
    let mut response =
        agent.get(format!("http://{}{path}", master.admin)).call().map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!(
            "{path} has status {}: it is no master's admin server",
            response.status().as_u16()
        ));
    }
    let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).lossy_utf8(true).read_to_string();
    body.map_err(|error| error.to_string())
}

/// The rows with what the metrics page says; `None` for what another master's page lacks.
fn statistics(page: &str) -> Vec<(&'static str, Option<u64>)> {
    let value = |metric: &str| {
        let text = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '))?;
        text.trim().parse::<u64>().ok()
    };
    STATISTICS.iter().map(|(name, metric)| (*name, value(metric))).collect()
}

fn segments(detail: &Value) -> String {
    let mut lines = vec![format!(
        "{:32} {:24} {:>16} {:>16} {:>7}  status",
        "name", "endpoint", "used_bytes", "size_bytes", "used"
    )];
    for segment in detail.get("segments").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| segment.get(name).and_then(Value::as_str).unwrap_or("?");
        let number = |name: &str| segment.get(name).and_then(Value::as_u64).unwrap_or(0);
        let percent = segment.get("allocator_usage_percent").and_then(Value::as_f64).unwrap_or(0.0);
        let suspect = segment.get("suspect").and_then(Value::as_bool).unwrap_or(false);
        lines.push(format!(
            "{:32} {:24} {:>16} {:>16} {percent:>6.1}%  {}{}",
            text("segment_name"),
            text("te_endpoint"),
            number("allocator_used_bytes"),
            number("size_bytes"),
            text("status"),
            if suspect { " (suspect)" } else { "" }
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# TYPE master_key_count gauge\nmaster_key_count_other 9\nmaster_key_count 4\n";
        let rows = statistics(page);
        assert!(rows.contains(&("keys", Some(4))), "{rows:?}");
        assert!(rows.contains(&("clients", None)), "what the page lacks is unknown, not 0");
    }

    #[test]
    fn a_suspect_segment_is_marked() {
        let table = segments(&json!({"segments": [
            {"segment_name": "a", "te_endpoint": "h:1", "allocator_used_bytes": 5, "size_bytes": 10,
             "allocator_usage_percent": 50.0, "status": "OK", "suspect": true},
        ]}));
        let line = table.lines().nth(1).unwrap();
        assert!(line.starts_with("a ") && line.ends_with("50.0%  OK (suspect)"), "{line}");
    }
}
