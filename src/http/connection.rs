//! One connection's life: requests one after the other until it is idle for too long, broken, or the worker leaves.

use super::App;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use std::net::IpAddr;
use std::sync::Arc;

/// Serves one connection to its end. `client` is the peer's address.
pub async fn serve<S: Read + Write + Unpin + Send>(app: Arc<App>, client: IpAddr, stream: S) {
    let service = service_fn(|request| {
        let app = app.clone();
        async move { app.serve(client, request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.plan.head_time)
        .max_buf_size(app.plan.head_bytes_max)
        .max_headers(app.plan.fields_max)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    // An error here is the peer's doing (it left, or sent what is no HTTP) and has its access line where there was
    // a request.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = app.leaving.until_shut() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
