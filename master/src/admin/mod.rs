//! The admin HTTP server: health, metrics, and a look at keys and segments. Looking grants no lease.

mod metadata;
mod prometheus;
mod query;
mod summary;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

pub use metadata::router as metadata_router;
pub use summary::{Rates, line as summary_line};

use crate::moment::Clock;
use crate::rpc::Server;
use crate::state::State;

/// What the handlers see.
#[derive(Debug)]
pub struct Admin {
    /// The state.
    pub state: Arc<State>,
    /// The RPC server, for its numbers.
    pub server: Arc<Server>,
    /// The clock.
    pub clock: Clock,
    /// What the last summary said.
    pub rates: Rates,
}

type Shared = axum::extract::State<Arc<Admin>>;

/// All paths.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(prometheus::metrics))
        .route("/metrics/summary", get(summary::summary))
        .route("/health", get(health))
        .route("/role", get(async || text("leader")))
        .route("/ha_status", get(async || text("serving")))
        .route(
            "/leader",
            get(async || found(json!({"present": false, "leader_address": null, "view_version": null}))),
        )
        .route("/kv_events/status", get(kv_events))
        .route("/query_key", get(query::key))
        .route("/batch_query_keys", get(query::keys))
        .route("/get_all_keys", get(query::all_keys))
        .route("/get_all_segments", get(query::all_segments))
        .route("/get_segments_detail", get(query::segments_detail))
        .route("/query_segment", get(query::segment))
        .route("/api/v1/segments/status", get(query::segment_status))
        .route("/api/v1/remove_all", post(query::remove_all))
        .route("/api/v1/drain_jobs", post(not_offered))
        .route("/api/v1/drain_jobs/query", get(not_offered))
        .route("/api/v1/drain_jobs/cancel", post(not_offered))
        .route("/api/v1/tenant_quotas", get(not_offered).put(not_offered).delete(not_offered))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .with_state(admin)
}

fn text(body: impl Into<String>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    (headers, body.into()).into_response()
}

fn found(body: Value) -> Response {
    answer(StatusCode::OK, body)
}

fn answer(status: StatusCode, body: Value) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (status, headers, body.to_string()).into_response()
}

fn failed(status: StatusCode, code: mooncake_wire::ErrorCode) -> Response {
    answer(status, json!({"success": false, "error_code": code.0, "error_message": code.name()}))
}

async fn nothing() -> (StatusCode, Response) {
    (StatusCode::NOT_FOUND, text("404 Not Found"))
}

async fn health() -> Response {
    found(json!({
        "status": "ok", "role": "leader", "ha_state": "serving", "service_ready": true,
        "leader_address": null, "view_version": null,
    }))
}

async fn kv_events() -> Response {
    found(json!({
        "enabled": false, "published_batches": 0, "published_events": 0, "dropped_events": 0,
        "skipped_unparsed_keys": 0,
    }))
}

/// Drain jobs and tenants: upstream answers this code where the feature is off.
async fn not_offered() -> Response {
    failed(StatusCode::CONFLICT, mooncake_wire::ErrorCode::UNAVAILABLE_IN_CURRENT_MODE)
}
