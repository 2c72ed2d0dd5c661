//! What the server says of itself.

use super::Plan;
use crate::chat::{Chat, Health};
use bytes::Bytes;
use serde_json::json;

/// `GET /api/health`: prepared, for it is asked most.
pub fn health(chat: &Chat) -> Bytes {
    Bytes::from_static(match chat.health() {
        Health::Healthy => br#"{"status":"healthy","orchestrator_ready":true}"#,
        Health::Initializing => br#"{"status":"initializing","orchestrator_ready":false}"#,
        Health::Degraded => br#"{"status":"degraded","orchestrator_ready":false}"#,
    })
}

/// `GET /`
pub fn root(chat: &Chat, plan: &Plan, rate_limit: bool) -> Bytes {
    let ready = chat.health() == Health::Healthy;
    let body = json!({
        "name": "chatcorn",
        "version": env!("CARGO_PKG_VERSION"),
        "status": if ready { "running" } else { "starting" },
        "orchestrator_ready": ready,
        "features": {
            "local_models": plan.local_model,
            "upstream": !plan.local_model,
            "streaming": true,
            "max_workers": plan.workers,
            "rate_limit": rate_limit,
        },
        "endpoints": {
            "health": "/api/health",
            "chat": "/api/chat",
            "initialize": "/api/initialize",
            "context_mode_get": "/api/context/mode",
            "context_mode_set": "/api/context/mode",
            "openai_chat": "/v1/chat/completions",
            "openai_models": "/v1/models",
        },
    });
    Bytes::from(body.to_string())
}

/// `GET /readyz`: whether to send requests here, and why not.
pub fn ready(chat: &Chat, store_works: bool, leaving: bool) -> (bool, Bytes) {
    let mut reasons = Vec::new();
    match chat.health() {
        Health::Healthy => {}
        Health::Initializing => reasons.push("model: loading"),
        Health::Degraded => reasons.push("model: cannot be reached"),
    }
    if !store_works {
        reasons.push("session store: does not answer");
    }
    if leaving {
        reasons.push("draining");
    }
    let ready = reasons.is_empty();
    let body = json!({"status": if ready { "ready" } else { "not_ready" }, "reasons": reasons});
    (ready, Bytes::from(body.to_string()))
}
