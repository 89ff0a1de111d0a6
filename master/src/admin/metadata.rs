//! The embedded metadata server of the transfer engine: keys and bodies, nothing more.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;

/// Most keys, and the longest key and body: a bound on what a stranger can store.
const MAX_ENTRIES: usize = 65_536;
const MAX_KEY_BYTES: usize = 4096;
const MAX_BODY_BYTES: usize = 1 << 20;
/// A key of this kind names one process; another process must not take it over.
const EXCLUSIVE: &str = "rpc_meta";

type Entries = Arc<Mutex<HashMap<String, Bytes>>>;
type Parameters = Query<HashMap<String, String>>;

/// All paths.
pub fn router() -> Router {
    Router::new()
        .route("/metadata", get(read).put(write).delete(remove))
        .route("/health", get(async || "OK"))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Entries::default())
}

fn key(parameters: &HashMap<String, String>) -> Option<String> {
    parameters.get("key").filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES).cloned()
}

fn no_key() -> Response {
    (StatusCode::BAD_REQUEST, "Missing key parameter").into_response()
}

async fn read(State(entries): State<Entries>, Query(parameters): Parameters) -> Response {
    let Some(key) = key(&parameters) else {
        return no_key();
    };
    match entries.lock().get(&key).cloned() {
        Some(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        None => (StatusCode::NOT_FOUND, "metadata not found").into_response(),
    }
}

async fn write(State(entries): State<Entries>, Query(parameters): Parameters, body: Bytes) -> Response {
    let Some(key) = key(&parameters) else {
        return no_key();
    };
    let mut entries = entries.lock();
    match entries.get(&key) {
        Some(known) if key.contains(EXCLUSIVE) && *known == body => "metadata unchanged".into_response(),
        Some(_) if key.contains(EXCLUSIVE) => {
            (StatusCode::BAD_REQUEST, "Duplicate rpc_meta key not allowed").into_response()
        }
        None if entries.len() >= MAX_ENTRIES => {
            (StatusCode::INSUFFICIENT_STORAGE, "too many metadata keys").into_response()
        }
        _ => {
            entries.insert(key, body);
            "metadata updated".into_response()
        }
    }
}

async fn remove(State(entries): State<Entries>, Query(parameters): Parameters) -> Response {
    let Some(key) = key(&parameters) else {
        return no_key();
    };
    match entries.lock().remove(&key) {
        Some(_) => "metadata deleted".into_response(),
        None => (StatusCode::NOT_FOUND, "metadata not found").into_response(),
    }
}
