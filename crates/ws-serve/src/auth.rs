//! HTTP Basic authentication (RFC 7617) as a hook.
//!
//! Browsers send it with a WebSocket's request only if they know it from a page of the same origin; for
//! them a cookie or a token in the first message is better. Not its business: where passwords are kept.

use std::{future::Future, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use subtle::ConstantTimeEq;

use crate::{
    Page,
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header},
    settings::Asked,
};

/// The name that a client authenticated with; a handler takes it as
/// [`Data<Username>`](crate::Data).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(pub String);

/// Lets in who has a name and a password that `check` approves, for
/// [`Server::on_request`](crate::Server::on_request); everybody else is answered with 401. Compare passwords
/// with [`is_same`], which takes as long for a wrong one as for the right one.
///
/// ```
/// use ws_serve::{Data, Server, Socket, Username, basic_auth, is_same};
///
/// async fn handler(socket: Socket, Data(user): Data<Username>) {}
///
/// Server::new()
///     .on_request(basic_auth("demo", |name, password| name == "guest" && is_same(password, "secret")))
///     .route("/", handler);
/// ```
#[doc(alias = "basic_auth_protocol_factory")]
pub fn basic_auth(
    realm: &str,
    check: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
) -> impl Fn(&mut Request<()>) -> Option<Response<Bytes>> + Send + Sync + 'static {
    let challenge = challenge(realm);
    move |request| match basic_credentials(request.headers()) {
        Some((name, password)) if check(&name, &password) => {
            request.extensions_mut().insert(Username(name));
            None
        }
        _ => Some(unauthorized(&challenge)),
    }
}

/// As [`basic_auth`], with a check that takes its time, for
/// [`Server::on_request_async`](crate::Server::on_request_async).
pub fn basic_auth_async<Fut>(
    realm: &str,
    check: impl Fn(String, String) -> Fut + Send + Sync + 'static,
) -> impl Fn(Request<()>) -> Asked + Send + Sync + 'static
where
    Fut: Future<Output = bool> + Send + 'static,
{
    let (challenge, check) = (challenge(realm), Arc::new(check));
    move |mut request| {
        let (challenge, check) = (challenge.clone(), Arc::clone(&check));
        let credentials = basic_credentials(request.headers());
        Box::pin(async move {
            if let Some((name, password)) = credentials
                && check(name.clone(), password).await
            {
                request.extensions_mut().insert(Username(name));
                return Ok(request);
            }
            Err(unauthorized(&challenge))
        })
    }
}

/// Whether two secrets are the same, found out in a time that tells nothing about where they differ.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The name and the password of a request, for hooks that take other proofs, too. RFC 7617 §2: `Basic`, and
/// the name, a colon and the password in base64 of UTF-8.
#[must_use]
pub fn basic_credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn challenge(realm: &str) -> HeaderValue {
    let realm = realm.replace(['\\', '"'], "'");
    let value = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"");
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("Basic realm=\"\""))
}

fn unauthorized(challenge: &HeaderValue) -> Response<Bytes> {
    let page = Page::text("Not without a name and a password.\n").status(StatusCode::UNAUTHORIZED);
    let mut response = Response::from(page);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authorization: &[&str]) -> Request<()> {
        let mut request = Request::new(());
        for value in authorization {
            let value = HeaderValue::try_from(*value).expect("it is a value");
            request.headers_mut().append(header::AUTHORIZATION, value);
        }
        request
    }

    #[test]
    fn only_the_right_name_and_password_come_in() {
        let hook = basic_auth("the \"realm\"", |name, password| {
            name == "Aladdin" && is_same(password, "open:sesame")
        });
        let good = format!("Basic {}", STANDARD.encode("Aladdin:open:sesame"));
        for authorization in [&good[..], &good.replace("Basic", "bASIC")] {
            let mut request = request(&[authorization]);
            assert!(hook(&mut request).is_none(), "{authorization}");
            let name = request.extensions().get::<Username>();
            assert_eq!(name, Some(&Username("Aladdin".into())));
        }
        let bad = [
            "Basic QWxhZGRpbjpvcGVu".to_owned(),
            "Basic !!!".into(),
            "Basic".into(),
            format!("Basic {}", STANDARD.encode("Aladdin")),
            format!("Basic {}", STANDARD.encode(b"\xff:\xff")),
            good.replace("Basic", "Bearer"),
        ];
        let two = vec![vec![&good[..], &good]];
        let lists = bad.iter().map(|value| vec![&value[..]]).chain(two).chain([vec![]]);
        for list in lists {
            let mut request = request(&list);
            let answer = hook(&mut request).unwrap_or_else(|| panic!("{list:?} came in"));
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            let challenge = &answer.headers()[header::WWW_AUTHENTICATE];
            assert_eq!(challenge, "Basic realm=\"the 'realm'\", charset=\"UTF-8\"");
            assert!(request.extensions().get::<Username>().is_none());
        }
    }
}
