//! What an operator asks of a worker, by way of the master.

use super::link::{self, ToMaster};
use crate::http::App;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Says how a client stands in its limits, after they were reset where that was asked for.
pub async fn limits(app: Option<Arc<App>>, link: OwnedFd, call: u64, reset: bool, client: String) {
    let Some(app) = app else { return };
    let told = app.limits_of(&client, reset).await.to_string();
    // A master that does not read asks somebody else, or nobody.
    let _ = link::say(&link, &ToMaster::Limits { call, told }.encode());
}
