//! Keys and segments.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mooncake_wire::ErrorCode;
use mooncake_wire::model::{Placement, Replica};
use serde_json::{Map, Value, json};

use super::{Shared, answer, failed, found, text};

type Parameters = Query<HashMap<String, String>>;

fn buffers(replicas: &[Replica]) -> Vec<Value> {
    replicas
        .iter()
        .filter_map(|replica| match &replica.placement {
            Placement::Memory(buffer) => Some(json!({
                "size_": buffer.size, "buffer_address_": buffer.address,
                "protocol_": &*buffer.protocol, "transport_endpoint_": &*buffer.endpoint,
            })),
            _ => None,
        })
        .collect()
}

pub(super) async fn key(State(admin): Shared, Query(parameters): Parameters) -> Response {
    // No key is the empty one, which nobody can put.
    let key = parameters.get("key").map(String::as_str).unwrap_or_default();
    match admin.state.inspect(key.as_bytes()) {
        Ok(replicas) => found(json!({"success": true, "data": buffers(&replicas)})),
        Err(code) => failed(StatusCode::NOT_FOUND, code),
    }
}

pub(super) async fn keys(State(admin): Shared, Query(parameters): Parameters) -> Response {
    let list = parameters.get("keys").map(String::as_str).unwrap_or_default();
    let mut data = Map::new();
    for key in list.split(',').filter(|key| !key.is_empty()) {
        let (ok, error, values) = match admin.state.inspect(key.as_bytes()) {
            Ok(replicas) => (true, Value::Null, json!(buffers(&replicas))),
            Err(code) => (false, json!(code.name()), Value::Null),
        };
        let entry = json!({
            "ok": ok, "error": error, "values": values,
            "disk_values": null, "local_disk_values": null, "nof_values": null,
        });
        data.insert(key.to_owned(), entry);
    }
    if data.is_empty() {
        let error = "No keys provided. Use ?keys=key1,key2,...";
        return answer(StatusCode::BAD_REQUEST, json!({"success": false, "error": error}));
    }
    found(json!({"success": true, "data": data}))
}

pub(super) async fn all_keys(State(admin): Shared) -> Response {
    let mut body = Vec::new();
    admin.state.for_each_key(|key| {
        body.extend_from_slice(key);
        body.push(b'\n');
    });
    let mut response = text(String::new());
    *response.body_mut() = body.into();
    response
}

pub(super) async fn all_segments(State(admin): Shared) -> Response {
    let mut names: Vec<_> = admin
        .state
        .segments()
        .iter()
        .filter(|segment| segment.serves())
        .map(|segment| segment.name.clone())
        .collect();
    names.dedup();
    text(names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// A number as C++ streams print it: six digits that count, no zeros after them.
fn six_digits(value: f64) -> String {
    // A segment is at least a byte and less than 2^64: 1e-9 to 2e10 GiB.
    let decimals = (0..=15usize).rev().find(|digits| {
        let shifted = value * 10f64.powi(i32::try_from(*digits).unwrap_or(0));
        shifted < 999_999.5
    });
    let text = format!("{value:.*}", decimals.unwrap_or(0));
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

pub(super) async fn segments_detail(State(admin): Shared) -> Response {
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    let detail = |segment: &std::sync::Arc<crate::state::segment::Segment>| {
        let used = segment.used_bytes();
        json!({
            "segment_name": &*segment.name,
            "segment_id": segment.id.to_string(),
            "client_id": segment.client.to_string(),
            "base_address": format!("{:#x}", segment.base),
            "size_bytes": segment.size,
            "size_human": format!("{} GiB", six_digits(segment.size as f64 / f64::from(1u32 << 30))),
            "te_endpoint": &**segment.names.endpoint(),
            "protocol": &**segment.names.protocol(),
            "status": segment.status().upstream().1,
            "suspect": segment.status().in_doubt(),
            "allocator_used_bytes": used,
            "allocator_capacity_bytes": segment.size,
            "allocator_usage_percent": used as f64 / segment.size as f64 * 100.0,
            "largest_free_bytes": segment.largest_free_bytes(),
        })
    };
    let segments: Vec<Value> =
        admin.state.segments().iter().filter(|segment| segment.serves()).map(detail).collect();
    found(json!({"total_segments": segments.len(), "segments": segments}))
}

pub(super) async fn segment(State(admin): Shared, Query(parameters): Parameters) -> Response {
    let name = parameters.get("segment").map(String::as_str).unwrap_or_default();
    let segments = admin.state.segments();
    let mut named = segments.iter().filter(|segment| segment.serves() && *segment.name == *name).peekable();
    if named.peek().is_none() {
        return (StatusCode::INTERNAL_SERVER_ERROR, text("Failed to query segment")).into_response();
    }
    let (used, capacity) = named
        .fold((0, 0), |(used, capacity), segment| (used + segment.used_bytes(), capacity + segment.size));
    text(format!("{name}\nUsed(bytes): {used}\nCapacity(bytes) : {capacity}\n"))
}

pub(super) async fn segment_status(State(admin): Shared, Query(parameters): Parameters) -> Response {
    let Some(name) = parameters.get("segment").filter(|name| !name.is_empty()) else {
        let message = "Missing segment query parameter";
        let code = ErrorCode::INVALID_PARAMS.0;
        let body = json!({"success": false, "error_code": code, "error_message": message});
        return answer(StatusCode::BAD_REQUEST, body);
    };
    match admin.state.segment_status(name) {
        Ok(status) => {
            let (status, status_name) = status.upstream();
            found(json!({
                "success": true, "segment": name, "status": status, "status_name": status_name,
                "error_code": 0, "error_message": "",
            }))
        }
        Err(code) => failed(StatusCode::NOT_FOUND, code),
    }
}

pub(super) async fn remove_all(State(admin): Shared, Query(parameters): Parameters) -> Response {
    let force = parameters.get("force").is_some_and(|force| matches!(force.as_str(), "true" | "1"));
    let removed = admin.state.remove_all(force, admin.clock.now());
    admin.state.flush();
    found(json!({"success": true, "removed_count": removed}))
}

#[cfg(test)]
mod tests {
    use super::six_digits;

    #[test]
    fn numbers_as_streams_print_them() {
        for (value, text) in [
            (0.0625, "0.0625"),
            (0.000_976_562_5, "0.000976562"),
            (28.0, "28"),
            (27.939_677_238, "27.9397"),
            (1024.0, "1024"),
            (123_456.78, "123457"),
        ] {
            assert_eq!(six_digits(value), text);
        }
    }
}
