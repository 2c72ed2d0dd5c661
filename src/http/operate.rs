//! What the operators' own address serves, and nothing else does.

use super::body::Body;
use super::fault::Fault;
use super::headers::Base;
use super::page::{self, File};
use super::{Answer, App, Context, metrics};
use crate::limit::Limiter;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE, HeaderValue};
use http::{Method, Response};

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl App {
    pub(super) fn operate(&self, head: &http::request::Parts, context: &Context<'_>) -> Answer {
        let counts = || self.limiter.as_ref().map(Limiter::counts);
        let path = head.uri.path();
        let mut response = match path {
            "/metrics" => self.told(METRICS, metrics::text(self.board, counts()), context),
            "/status" if page::wanted(context.headers) => self.file(File::Status, context),
            "/status" => self.told("application/json", metrics::status(self.board, counts()).to_string(), context),
            _ => self.file(File::at_status(path).ok_or_else(Fault::not_found)?, context),
        };
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(Fault::method_not_allowed("GET, HEAD"));
        }
        let headers = response.headers_mut();
        // Not for the scripts of whatever site the operator looks at besides.
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        if path == "/status" {
            page::vary_by_accept(headers);
        }
        Ok(response)
    }

    fn told(&self, kind: &'static str, text: String, context: &Context<'_>) -> Response<Body> {
        let mut response = self.ok(Base::Api, context, text.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn file(&self, file: File, context: &Context<'_>) -> Response<Body> {
        file.response(self.base(Base::Empty, context), context.headers)
    }
}
