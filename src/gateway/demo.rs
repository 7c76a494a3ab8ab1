//! The demo page: one file, no dependency, served only where it is switched on.

use http::Response;
use http::header::{self, HeaderValue};

use crate::server::{Body, full};

const PAGE: &str = include_str!("../../demo/page.html");

/// `GET <prefix>/demo`.
pub fn page() -> Response<Body> {
    let mut response = Response::new(full(PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
