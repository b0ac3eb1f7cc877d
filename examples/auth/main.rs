//! Who is there? A password (HTTP Basic, RFC 7617), a bearer token (RFC 6750), or a session cookie.
//!
//! `cargo run --release --example auth`, then open the address that it prints; or send a header:
//! `curl -i -u ada:lovelace http://127.0.0.1:9001/ws`. Without TLS, which see, all of it can be read
//! on its way, so this is for your own machine.
#![expect(clippy::print_stdout, reason = "a program that talks to its user")]

mod users;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use ws_serve::{
    Data, Error, Page, Server, Socket,
    conn::proto::bytes::Bytes,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};

use crate::users::{User, Users, new_secret};

/// An echo server that wants to know who you are.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// Who may come in, as NAME:PASSWORD; may be given several times.
    #[arg(long = "user", default_value = "ada:lovelace")]
    users: Vec<String>,
    /// What programs may show instead of a password; by default made up and printed.
    #[arg(long)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = Options::parse();
    let token = options.token.map_or_else(new_secret, Ok)?;
    let users = Arc::new(Users::new(&options.users, &token)?);
    let (for_login, for_headers, for_cookies) = (Arc::clone(&users), Arc::clone(&users), users);
    // `Server::origins` is left at its default, and here it matters. A browser sends the cookie along
    // whichever page opens the WebSocket, also one of another site that its user happens to visit, and
    // nothing keeps that page from reading the answers: cross-site WebSocket hijacking. What gives
    // such a page away is its `Origin`, which is refused with 403. `SameSite` alone is not enough:
    // other ports and subdomains of this host are the same site.
    let server = Server::bind(&options.address)?
        .on_request(move |request| log_in_or_out(&for_login, request))
        .on_request(move |request| check_header(&for_headers, request))
        .on_request_async(move |request| check_cookie(Arc::clone(&for_cookies), request))
        .page("/", Page::html(include_str!("page.html")))
        .route("/ws", greet)
        // Who has been shut out meanwhile is found out when the client comes back.
        .max_lifetime(Duration::from_secs(60 * 60));
    examples::stop_on_signals(server.shutdown_handle())?;
    let address = server.local_addr().expect("it listens on TCP");
    println!("open http://{address}, or connect to ws://{address}/ws with a password or");
    println!("Authorization: Bearer {token}");
    server.run().await?;
    Ok(())
}

async fn greet(mut socket: Socket, Data(user): Data<User>) -> Result<(), Error> {
    socket.send(format!("Hello {}, I know you by {}.", user.name, user.proof)).await?;
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// What the page POSTs, which is for a hook, since a `Page` is for GET.
fn log_in_or_out(users: &Users, request: &Request<()>) -> Option<Response<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/login") => Some(log_in(users, request.headers())),
        (&Method::POST, "/logout") => {
            if let Some(session) = session(request.headers()) {
                users.end_session(session);
            }
            Some(set_cookie("", "0"))
        }
        _ => None,
    }
}

/// Makes a session of a password. The page sends it in a header: a hook sees no body.
fn log_in(users: &Users, headers: &HeaderMap) -> Response<Bytes> {
    // Not 401, at which the browser would ask for the password by itself.
    let Some(user) = users.by_authorization(headers) else {
        return Page::text("Wrong name or password.\n").status(StatusCode::FORBIDDEN).into();
    };
    match users.open_session(&user.name) {
        Ok(session) => set_cookie(&session, "3600"),
        Err(_) => Page::text("Try later.\n").status(StatusCode::SERVICE_UNAVAILABLE).into(),
    }
}

/// Programs say who they are in a header, which pages cannot set. A wrong one is refused even if
/// there is a cookie, too.
fn check_header(users: &Users, request: &mut Request<()>) -> Option<Response<Bytes>> {
    if request.uri().path() != GUARDED || !request.headers().contains_key(header::AUTHORIZATION) {
        return None;
    }
    let Some(user) = users.by_authorization(request.headers()) else { return Some(unauthorized()) };
    request.extensions_mut().insert(user);
    None
}

/// Everybody who comes here must be known. Async, because sessions are mostly kept elsewhere.
async fn check_cookie(
    users: Arc<Users>,
    mut request: Request<()>,
) -> Result<Request<()>, Response<Bytes>> {
    if request.uri().path() != GUARDED || request.extensions().get::<User>().is_some() {
        return Ok(request);
    }
    let user = match session(request.headers()) {
        Some(session) => users.by_session(session).await,
        None => None,
    };
    request.extensions_mut().insert(user.ok_or_else(unauthorized)?);
    Ok(request)
}

/// `HttpOnly`: no script reads it. `SameSite=Strict`: other sites' pages do not send it. With TLS it
/// would also be `Secure`, and named `__Host-session`, which no subdomain can set.
fn set_cookie(session: &str, max_age: &str) -> Response<Bytes> {
    let cookie =
        format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age}");
    let mut response = Response::from(Page::text("").status(StatusCode::NO_CONTENT));
    let cookie = cookie.parse().expect("base64 and attributes are visible ASCII");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|one| one.split_once('='));
    cookies.find(|(name, _)| name.trim() == COOKIE).map(|(_, value)| value.trim())
}

fn unauthorized() -> Response<Bytes> {
    let page = Page::text("Who are you?\n").status(StatusCode::UNAUTHORIZED);
    let mut response = Response::from(page);
    let challenge = "Basic realm=\"ws\", charset=\"UTF-8\", Bearer realm=\"ws\"";
    let challenge = header::HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// The path that one must be known at. The pages are for everybody.
const GUARDED: &str = "/ws";
const COOKIE: &str = "session";
