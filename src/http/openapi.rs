//! `GET /openapi.json`: the contract for machines, made once. What it says is checked against the running program by tests.

use bytes::Bytes;
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = include_str!("openapi.json").replacen("VERSION", env!("CARGO_PKG_VERSION"), 1);
    // Without its layout where it can be read, which a test sees to.
    let value = serde_json::from_str::<serde_json::Value>(&text);
    Bytes::from(value.map_or(text, |value| value.to_string()))
});

/// The document.
pub fn document() -> Bytes {
    DOCUMENT.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fault::Code;
    use crate::http::head::Refusal;
    use crate::http::route::find;
    use http::Method;
    use serde_json::Value;

    fn value() -> Value {
        serde_json::from_slice(&document()).unwrap()
    }

    #[test]
    fn every_operation_is_served_and_every_reference_is_there() {
        let value = value();
        assert_eq!(value["info"]["version"], env!("CARGO_PKG_VERSION"));
        for (path, operations) in value["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                assert!(find(&method, path).is_ok(), "{method} {path}");
            }
        }
        let text = value.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn every_path_of_the_program_is_named() {
        let value = value();
        for path in [
            "/",
            "/healthz",
            "/readyz",
            "/openapi.json",
            "/api/health",
            "/api/chat",
            "/api/initialize",
            "/api/context/mode",
            "/v1/chat/completions",
            "/v1/models",
            "/page/page.css",
            "/page/page.js",
            "/page/talk.js",
            "/page/text.js",
            "/page/icon.svg",
        ] {
            for method in [Method::GET, Method::POST] {
                let named = value["paths"][path].get(method.as_str().to_lowercase()).is_some();
                assert_eq!(named, find(&method, path).is_ok(), "{method} {path}");
            }
        }
    }

    #[test]
    fn every_code_of_an_error_is_named() {
        let value = value();
        let named = value.pointer("/components/schemas/Error/properties/error/enum").unwrap().as_array().unwrap();
        let own = [
            Code::InvalidJson,
            Code::InvalidRequest,
            Code::ContextLength,
            Code::Unauthorized,
            Code::Forbidden,
            Code::NotFound,
            Code::MethodNotAllowed,
            Code::PayloadTooLarge,
            Code::UnsupportedMediaType,
            Code::RateLimited,
            Code::Internal,
            Code::Upstream,
            Code::NotReady,
            Code::Overloaded,
            Code::Timeout,
        ];
        for code in own.into_iter().chain(Refusal::ALL.map(Code::Refused)) {
            assert!(named.iter().any(|name| name == code.as_str()), "{}", code.as_str());
        }
    }
}
