//! [`Page`]: a small answer in plain HTTP, for health checks and pages on the WebSockets' port.
//!
//! Not its business: anything larger, which is a web framework's.

use bytes::Bytes;

use crate::http::{Response, StatusCode, header};

/// An HTTP response with a body. A [`Response<Bytes>`] with more headers can be made of it.
///
/// ```
/// use ws_serve::{Page, Server};
/// Server::new().page("/", Page::html("<h1>Hello</h1>")).page("/robots.txt", Page::text("Disallow: /\n"));
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    response: Response<Bytes>,
}

impl Page {
    /// HTML in UTF-8.
    #[must_use]
    pub fn html(body: impl Into<Bytes>) -> Self {
        Self::new("text/html; charset=utf-8", body)
    }

    /// Plain text in UTF-8.
    #[must_use]
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new("text/plain; charset=utf-8", body)
    }

    /// JSON.
    #[must_use]
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new("application/json", body)
    }

    /// A body of any kind.
    #[must_use]
    pub fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(body.into());
        let content_type = header::HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        Self { response }
    }

    /// With another status than 200.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        *self.response.status_mut() = status;
        self
    }
}

impl From<Page> for Response<Bytes> {
    fn from(page: Page) -> Self {
        page.response
    }
}
