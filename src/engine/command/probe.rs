//! Whether an engine answers: its health endpoint, else its list of models.

use crate::chat::upstream::Target;
use crate::chat::upstream::connector::Connector;
use bytes::Bytes;
use http::StatusCode;
use http::header::{AUTHORIZATION, HOST};
use http_body_util::Empty;
use std::time::Duration;
use tokio::time::timeout;

/// An engine that is asked for its health has so long to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a look at an engine found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Good,
    /// It answers, and says that it does not serve yet.
    Loading,
    /// It does not answer.
    Silent,
}

/// Asks once. A server without a health endpoint is well when it lists its models.
pub async fn look(target: &Target) -> Health {
    let asking = async {
        match status(target, "/health").await? {
            StatusCode::NOT_FOUND => status(target, &format!("{}/models", target.base_path)).await,
            status => Some(status),
        }
    };
    match timeout(ANSWER_MAX, asking).await.ok().flatten() {
        Some(status) if status.is_success() => Health::Good,
        Some(_) => Health::Loading,
        None => Health::Silent,
    }
}

async fn status(target: &Target, path: &str) -> Option<StatusCode> {
    let socket = Connector::new(target.place.clone(), ANSWER_MAX).connect().await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.ok()?;
    let mut request = http::Request::get(path).header(HOST, &target.authority);
    if let Some(bearer) = &target.bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    tokio::select! {
        answer = sender.send_request(request) => answer.ok().map(|answer| answer.status()),
        _ = connection => None,
    }
}
