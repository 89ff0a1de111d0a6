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
    let Some(key) = parameters.get("key") else {
        return failed(StatusCode::BAD_REQUEST, ErrorCode::INVALID_PARAMS);
    };
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
        return failed(StatusCode::BAD_REQUEST, ErrorCode::INVALID_PARAMS);
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
            "size_human": format!("{:.4} GiB", segment.size as f64 / f64::from(1u32 << 30)),
            "te_endpoint": &*segment.endpoint,
            "protocol": &*segment.protocol,
            "status": segment.status().upstream().1,
            "suspect": segment.status() == crate::state::segment::SegmentStatus::Suspect,
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
        return failed(StatusCode::BAD_REQUEST, ErrorCode::INVALID_PARAMS);
    };
    let (status, outcome) = match admin.state.segment_status(name) {
        Ok(status) => (status.upstream(), Ok(())),
        Err(code) => ((0, "UNDEFINED"), Err(code)),
    };
    let code = outcome.err().unwrap_or(ErrorCode::OK);
    let message = if outcome.is_ok() { "" } else { code.name() };
    let http = if outcome.is_ok() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    answer(
        http,
        json!({
            "success": outcome.is_ok(), "segment": name, "status": status.0, "status_name": status.1,
            "error_code": code.0, "error_message": message,
        }),
    )
}

pub(super) async fn remove_all(State(admin): Shared, Query(parameters): Parameters) -> Response {
    let force = parameters.get("force").is_some_and(|force| matches!(force.as_str(), "true" | "1"));
    let removed = admin.state.remove_all(force, admin.clock.now());
    admin.state.flush();
    found(json!({"success": true, "removed_count": removed}))
}
