//! What serves a path, over real sockets: parameters, redirects, nesting, pages, what is set for a route
//! alone, and what a server that can never work says when it starts.
//!
//! Not its business: every kind of path (`routes.rs`), and limits for all of the server (`limits.rs`).

#[macro_use]
mod support;

use std::{
    convert::Infallible,
    io::ErrorKind,
    str::FromStr,
    sync::{Arc, Mutex},
};

use support::{
    Exposed, Raw, Running, Web, echo, eventually, exposed, plain, request, sender_from, server,
    within,
};
use ws_serve::{
    Config, Data, Deflate, Error, Handler, Origins, Page, Route, Router, Sender, Server,
    SlowConsumer, Socket, State,
    conn::HandshakeError,
    http::{HeaderValue, Response, StatusCode, header},
};

everywhere! {
    parameters_reach_the_handler_parsed_and_in_order,
    what_leads_nowhere_gets_404_and_no_upgrade,
    a_path_that_differs_in_a_slash_is_redirected_with_its_query,
    routers_nest,
    a_fallback_serves_what_no_route_matches,
    a_page_answers_get_and_head,
    a_page_refuses_other_methods_with_405,
    a_page_is_a_page_for_websockets_too,
    what_asks_for_no_websocket_is_told_to_upgrade,
    handlers_take_state_and_data,
    missing_data_is_answered_with_500,
    a_route_has_its_own_handshake,
    a_route_has_its_own_message_limit,
    a_route_has_its_own_compression,
    a_route_has_its_own_queue,
    a_route_has_its_own_policy_for_slow_consumers,
    a_full_route_refuses_with_503_until_somebody_leaves,
    a_panic_before_the_answer_ends_its_request_and_nothing_else,
}

/// A handler that says one thing.
async fn say(socket: Socket, what: String) -> Result<(), Error> {
    socket.send(what).await
}

async fn heard(running: &Running, path: &str) -> String {
    running.visit(path).await.hear().await
}

async fn parameters_reach_the_handler_parsed_and_in_order(server: Server) {
    let server = server
        .route("/", async |socket: Socket| socket.send("root").await)
        .route("/chat/{room}", say)
        .route("/chat/lobby", async |socket: Socket| socket.send("the lobby").await)
        .route("/files/{*rest}", say)
        .route("/add/{a}/{b}", async |socket: Socket, a: u8, b: i64| {
            socket.send((i64::from(a) + b).to_string()).await
        })
        .route(
            "/{a}/{b}/{c}/{d}/{e}",
            async |socket: Socket, a: char, b: bool, c: f32, d: String, e: std::net::IpAddr| {
                socket.send(format!("{a} {b} {c} {d} {e}")).await
            },
        )
        // A handler need not take all that there is.
        .route("/one/of/{a}/{b}", say);
    let running = Running::run(server);
    for (path, expected) in [
        ("/", "root"),
        ("/?x=/chat/y", "root"),
        ("/chat/attic", "attic"),
        ("/chat/lobby", "the lobby"),
        ("/chat/a%2Fb%20c?d=e", "a/b c"),
        ("/chat/%C3%BC", "ü"),
        ("/files/a/b//c/", "a/b//c/"),
        ("/add/255/-256", "-1"),
        ("/x/true/0.5/%20/::1", "x true 0.5   ::1"),
        ("/one/of/first/second", "first"),
    ] {
        assert_eq!(heard(&running, path).await, expected, "{path}");
    }
    running.end().await;
}

/// As if there were no such route: whether a path exists is no matter of who asks how.
async fn what_leads_nowhere_gets_404_and_no_upgrade(server: Server) {
    let monitor = server.monitor();
    let server = server
        .route("/add/{a}/{b}", async |socket: Socket, a: u8, b: u8| {
            socket.send((a ^ b).to_string()).await
        })
        .nest("/v1", Router::new().route("/{room}", say));
    let running = Running::run(server);
    for path in [
        "/",
        "/nowhere",
        "/ADD/1/2",
        "/add/1",
        "/add/1/2/3",
        "/add//2",
        "//add/1/2",
        "/v1",
        "/./add/1/2",
        "/v1/a/b", // unparsable:
        "/add/1/256",
        "/add/-1/2",
        "/add/one/2",
        "/add/1/2%00",
        "/add/1%2F2/3",
        "/v1/%FF",
    ] {
        let answer = running.ask(request(path, [])).await;
        assert_eq!((answer.status, &*answer.body), (404, "Not found.\n"), "{path}");
        assert_eq!(answer.header("Connection"), Some("close"), "{path}");
        assert_eq!(answer.header("Sec-WebSocket-Accept"), None, "{path}");
    }
    assert_eq!(running.ask(plain("GET", "/nowhere")).await.status, 404);
    match running.at("/add/1/x").connect().await {
        Err(Error::Handshake(HandshakeError::Rejected(response))) => {
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(heard(&running, "/add/1/2").await, "3");
    eventually(|| monitor.stats().connections == 0).await;
    running.end().await;
}

/// RFC 9110 §15.4.9: 308 keeps the method, and the query is part of the target.
async fn a_path_that_differs_in_a_slash_is_redirected_with_its_query(server: Server) {
    let server = server
        .route("/chat/{room}", say)
        .route("/feed/", async |socket: Socket| socket.send("news").await)
        .page("/page", Page::text("hello"));
    let running = Running::run(server);
    for (from, to) in [
        ("/chat/x/", "/chat/x"),
        ("/chat/x/?", "/chat/x?"),
        ("/chat/x/?a=1&b=/%20?", "/chat/x?a=1&b=/%20?"),
        ("/chat/%2F/", "/chat/%2F"),
        ("/feed?since=1", "/feed/?since=1"),
        ("/page/?q", "/page?q"),
    ] {
        for asked in [request(from, []), plain("GET", from), plain("POST", from)] {
            let answer = running.ask(asked).await;
            assert_eq!((answer.status, answer.header("Location")), (308, Some(to)), "{from}");
        }
    }
    assert_eq!(heard(&running, "/feed/?since=1").await, "news");
    // Nobody is sent to another host.
    for path in ["//example.org/", "//chat/x/", "/%2Fexample.org/", "/\\example.org/"] {
        let answer = running.ask(request(path, [])).await;
        assert!(matches!(answer.status, 400 | 404), "{answer:?}");
        assert_eq!(answer.header("Location"), None);
    }
    running.end().await;
}

async fn routers_nest(server: Server) {
    let rooms = Router::new()
        .route("/", async |socket: Socket| socket.send("all rooms").await)
        .route("/{room}", async |socket: Socket, version: u8, room: String| {
            socket.send(format!("{room} in {version}")).await
        })
        .page("/{room}/log", Page::text("a log\n"));
    let api = Router::new().nest("/rooms", rooms).page("/", Page::text("an index\n"));
    let running = Running::run(server.nest("/api/{version}/", api));
    assert_eq!(heard(&running, "/api/1/rooms").await, "all rooms");
    assert_eq!(heard(&running, "/api/2/rooms/attic").await, "attic in 2");
    assert_eq!(running.ask(plain("GET", "/api/2/rooms/attic/log")).await.body, "a log\n");
    assert_eq!(running.ask(plain("GET", "/api/2")).await.body, "an index\n");
    let answer = running.ask(request("/api/2/rooms/?x", [])).await;
    assert_eq!((answer.status, answer.header("Location")), (308, Some("/api/2/rooms?x")));
    for path in ["/rooms", "/rooms/attic", "/api/2/rooms/attic/x", "/api/256/rooms/attic"] {
        assert_eq!(running.ask(request(path, [])).await.status, 404, "{path}");
    }
    running.end().await;
}

async fn a_fallback_serves_what_no_route_matches(server: Server) {
    let server = server
        .fallback(async |socket: Socket| {
            let path = socket.request().uri().path().to_owned();
            socket.send(format!("fallback {path}")).await
        })
        .route("/add/{a}", async |socket: Socket, a: u8| socket.send(a.to_string()).await)
        .page("/page", Page::text("a page\n"));
    let running = Running::run(server);
    assert_eq!(heard(&running, "/add/1").await, "1");
    assert_eq!(running.ask(plain("GET", "/page")).await.body, "a page\n");
    for path in ["/", "/nowhere", "/add/1/", "/page/", "//", "/add/1/2"] {
        assert_eq!(heard(&running, path).await, format!("fallback {path}"));
    }
    // There is a route, and what it says holds.
    assert_eq!(running.ask(request("/add/x", [])).await.status, 404);
    running.end().await;
}

async fn a_page_answers_get_and_head(server: Server) {
    let gone = Page::html("<p>gone").status(StatusCode::GONE);
    let server = server
        .page("/", Page::text("hello\n"))
        .page("/gone", gone)
        .page("/empty", Page::new("text/css", ""))
        .page("/nothing", Page::text("unsaid").status(StatusCode::NO_CONTENT))
        .page_with("/echo/{x}", |request| {
            let mut response: Response<_> = Page::json(request.uri().to_string()).into();
            response.headers_mut().insert("x-made", HeaderValue::from_static("for you"));
            response
        });
    let running = Running::run(server);
    for (path, status, kind, body) in [
        ("/", 200, "text/plain; charset=utf-8", "hello\n"),
        ("/?query", 200, "text/plain; charset=utf-8", "hello\n"),
        ("/gone", 410, "text/html; charset=utf-8", "<p>gone"),
        ("/empty", 200, "text/css", ""),
        ("/nothing", 204, "text/plain; charset=utf-8", ""),
        ("/echo/a%20b?c=d", 200, "application/json", "/echo/a%20b?c=d"),
    ] {
        let answer = running.ask(plain("GET", path)).await;
        assert_eq!((answer.status, &*answer.body), (status, body), "{path}");
        assert_eq!(answer.header("Content-Type"), Some(kind), "{path}");
        assert_eq!(answer.header("Connection"), Some("close"), "{path}");
        // RFC 9110 §8.6: none with 204.
        let length = (status != 204).then(|| body.len().to_string());
        assert_eq!(answer.header("Content-Length"), length.as_deref(), "{path}");
        // RFC 9110 §9.3.2: the same head, no body.
        let head = running.ask(plain("HEAD", path)).await;
        assert_eq!((&head.head, &*head.body), (&answer.head, ""), "{path}");
    }
    let made = running.ask(plain("GET", "/echo/x")).await;
    assert_eq!(made.header("X-Made"), Some("for you"));
    running.end().await;
}

/// RFC 9110 §15.5.6: 405, and Allow says what would do. A page is never the answer to a POST, whose body
/// nobody has read.
async fn a_page_refuses_other_methods_with_405(server: Server) {
    let server =
        server.page("/static", Page::text("hello\n")).page_with("/made", |_| Page::text("hello\n"));
    let running = Running::run(server);
    for path in ["/static", "/made"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let body = "Content-Length: 5\r\n\r\nhello";
            let asked = plain(method, path).replace("\r\n\r\n", &format!("\r\n{body}"));
            let answer = running.ask(asked).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("Allow"), Some("GET, HEAD"), "{method} {path}");
            assert!(!answer.body.contains("hello"), "{answer:?}");
        }
    }
    running.end().await;
}

/// RFC 9110 §7.8: "A server MAY ignore a received Upgrade header field".
async fn a_page_is_a_page_for_websockets_too(server: Server) {
    let running = Running::run(server.page("/", Page::text("hello\n")));
    let answer = running.ask(request("/", [])).await;
    assert_eq!((answer.status, &*answer.body), (200, "hello\n"));
    assert_eq!(answer.header("Upgrade"), None);
    match running.at("/").connect().await {
        Err(Error::Handshake(HandshakeError::Rejected(response))) => {
            assert_eq!(
                (response.status(), &response.body()[..]),
                (StatusCode::OK, &b"hello\n"[..])
            );
        }
        other => panic!("{other:?}"),
    }
    running.end().await;
}

/// RFC 9110 §15.5.22: 426 names the protocol, and §7.8: who sends Upgrade says so in Connection.
async fn what_asks_for_no_websocket_is_told_to_upgrade(server: Server) {
    let running = Running::run(server.route("/chat", echo));
    let answer = running.ask(plain("GET", "/chat")).await;
    assert_eq!((answer.status, answer.header("Upgrade")), (426, Some("websocket")));
    assert_eq!(answer.header("Connection"), Some("Upgrade, close"));
    for method in ["POST", "HEAD"] {
        let answer = running.ask(plain(method, "/chat")).await;
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET")), "{method}");
    }
    running.end().await;
}

#[derive(Clone)]
struct User(String);

async fn handlers_take_state_and_data(server: Server) {
    let server = server
        .route(
            "/{a}/{b}",
            async |socket: Socket,
                   State(greeting): State<&'static str>,
                   a: u8,
                   Data(User(name)): Data<User>,
                   b: String| {
                socket.send(format!("{greeting} {name} {a} {b}")).await
            },
        )
        .route("/count", async |socket: Socket, State(count): State<Arc<Mutex<u32>>>| {
            let now = {
                let mut count = count.lock().expect("nobody panics");
                *count += 1;
                *count
            };
            socket.send(now.to_string()).await
        })
        .route("/perhaps", async |socket: Socket, Data(user): Data<Option<u8>>| {
            socket.send(format!("{user:?}")).await
        })
        .on_request(|request| {
            let name = request.uri().query().unwrap_or("nobody").to_owned();
            request.extensions_mut().insert(None::<u8>);
            request.extensions_mut().insert(User(name));
            None
        })
        .state(Arc::new(Mutex::new(0_u32)))
        .state("replaced")
        .state("hello");
    let running = Running::run(server);
    assert_eq!(heard(&running, "/7/x?alice").await, "hello alice 7 x");
    assert_eq!(heard(&running, "/8/y").await, "hello nobody 8 y");
    assert_eq!(heard(&running, "/perhaps").await, "None");
    for expected in 1..=3 {
        assert_eq!(heard(&running, "/count").await, expected.to_string());
    }
    running.end().await;
}

/// A stranger is not told what is missing.
async fn missing_data_is_answered_with_500(server: Server) {
    let server = server.route("/", async |_: Socket, _: Data<User>| {});
    let running = Running::run(server);
    let answer = running.ask(request("/", [])).await;
    assert_eq!((answer.status, &*answer.body), (500, "Internal server error.\n"));
    running.end().await;
}

/// Why a server does not start.
async fn reason(server: Server) -> String {
    let error = within(server.run()).await.expect_err("it can never work");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    error.to_string()
}

async fn reason_of<Args>(pattern: &str, handler: impl Handler<Args>) -> String {
    reason(server().route(pattern, handler)).await
}

#[track_caller]
fn assert_names(reason: &str, names: &[&str]) {
    for name in names {
        assert!(reason.contains(name), "no {name:?} in {reason:?}");
    }
    assert!(!reason.ends_with('.') && !reason.contains('\n'), "{reason:?} is no sentence");
}

/// It would answer 500 to everybody, and nobody would know why.
#[tokio::test]
async fn a_server_that_can_never_work_says_why_when_it_starts() {
    let none = reason(Server::new().route("/", echo)).await;
    assert_names(&none, &["no address", "`listen`"]);

    let wants = async |_: Socket, _: State<User>| {};
    let state = reason_of("/chat/{room}", wants).await;
    assert_names(&state, &["\"/chat/{room}\"", "routes::User", "`Server::state`"]);
    // The right type, wrapped.
    let state = reason(server().state(Arc::new(User(String::new()))).route("/", wants)).await;
    assert_names(&state, &["\"/\"", "routes::User"]);
    let nested = Router::new().route("/x", wants);
    assert_names(&reason(server().nest("/a", nested)).await, &["\"/a/x\"", "routes::User"]);
    assert_names(&reason(server().fallback(wants)).await, &["fallback", "routes::User"]);

    let many = async |_: Socket, _: String, _: u32| {};
    assert_names(&reason_of("/{a}", many).await, &["\"/{a}\"", "`u32` is number 2", "has 1"]);
    assert_names(&reason_of("/", many).await, &["`alloc::string::String` is number 1", "has 0"]);
    assert_names(&reason(server().fallback(many)).await, &["fallback", "has 0"]);

    let conflict = server().route("/chat/{room}", echo).page("/chat/{name}", Page::text(""));
    assert_names(&reason(conflict).await, &["\"/chat/{name}\"", "\"/chat/{room}\""]);
    let nested = Router::new().route("/x", echo).route("/x", echo);
    assert_names(&reason(server().nest("/a", nested)).await, &["\"/x\""]);
    let nested = Router::new().route("/x", echo);
    let conflict = server().route("/a/x", echo).nest("/a", nested);
    assert_names(&reason(conflict).await, &["\"/a/x\""]);

    for pattern in ["chat", "", "/{", "/a{b}", "/{a}/{a}", "/{*a}/b", "/a b", "/a?b", "/ü"] {
        assert_names(&reason_of(pattern, echo).await, &[&format!("{pattern:?}")]);
    }
    // The first of several, and not those after it that come of it.
    let several = server().route("chat", echo).route("/{", echo);
    assert_names(&reason(several).await, &["\"chat\""]);
}

/// T1, for a route.
async fn a_route_has_its_own_handshake(server: Server) {
    let name =
        async |socket: Socket| socket.send(socket.subprotocol().unwrap_or("none").to_owned()).await;
    let server = server
        .route("/own", Route::new(name).subprotocols(["v9"]))
        .route(
            "/chosen",
            Route::new(name).select_subprotocol(|offers| Ok(offers.last().map(|&s| s.to_owned()))),
        )
        .route("/other", name)
        .route("/list", Route::new(name).origins(Origins::list(["https://*.friend.example"])))
        .route("/any", Route::new(name).origins(Origins::Any))
        // After the routes, whose order does not matter.
        .subprotocols(["v2", "v1"]);
    let running = Running::run(server);
    for (path, offers, agreed) in [
        ("/own", &["v1", "v9"][..], Some("v9")),
        ("/own", &["v1"], None),
        ("/chosen", &["v1", "x"], Some("x")),
        ("/chosen", &[], Some("none")),
        ("/other", &["v1", "v9"], Some("v1")),
        ("/other", &["v9"], None),
    ] {
        let client = running.at(path).subprotocols(offers.iter().copied());
        match (client.connect().await, agreed) {
            (Ok(client), Some(agreed)) => assert_eq!(Web(client).hear().await, agreed, "{path}"),
            (Err(Error::Handshake(HandshakeError::Rejected(response))), None) => {
                assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
            }
            (other, _) => panic!("{other:?} at {path}"),
        }
    }
    let same = format!("http://{}", running.address);
    for (path, origin, allowed) in [
        ("/list", "https://a.friend.example", true),
        ("/list", "https://afriend.example", false),
        ("/list", &same, false),
        ("/any", "https://evil.example", true),
        ("/any", "null", true),
        ("/other", &same, true),
        ("/other", "https://a.friend.example", false),
        ("/nowhere", &same, false),
    ] {
        let origin = HeaderValue::from_str(origin).expect("an origin");
        let client = running.at(path).subprotocols(["v1"]).header(header::ORIGIN, origin.clone());
        match client.connect().await {
            Ok(_) => assert!(allowed, "{origin:?} at {path}"),
            Err(Error::Handshake(HandshakeError::Rejected(response))) => {
                let status = if path == "/nowhere" { 404 } else { 403 };
                assert!(!allowed && response.status() == status, "{origin:?} at {path}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    running.end().await;
}

async fn a_route_has_its_own_message_limit(server: Server) {
    let server = server
        .route("/small", Route::new(echo).config(Config::default().max_message_size(10)))
        .route("/other", echo)
        .config(Config::default().max_message_size(20));
    let running = Running::run(server);
    for (path, limit) in [("/small", 10), ("/other", 20)] {
        let mut client = running.visit(path).await;
        client.say("x".repeat(limit)).await;
        assert_eq!(client.hear().await.len(), limit);
        client.say("x".repeat(limit + 1)).await;
        assert_eq!(client.hear_end().await.0, 1009, "{path}");
    }
    running.end().await;
}

async fn a_route_has_its_own_compression(server: Server) {
    let server =
        server.route("/small", Route::new(echo).deflate(Deflate::default())).route("/other", echo);
    let running = Running::run(server);
    let text = "so much of the same ".repeat(100);
    for (path, compresses) in [("/small", true), ("/other", false)] {
        let client = running.at(path).deflate(Deflate::default());
        let mut client = Web(client.connect().await.expect("an open connection"));
        assert_eq!(client.0.deflate().is_some(), compresses, "{path}");
        client.say(&*text).await;
        assert_eq!(client.hear().await, text);
    }
    running.end().await;
}

/// A client at a path that never reads, and the server's end of it.
async fn stalled(
    running: &Running,
    told: &mut tokio::sync::mpsc::UnboundedReceiver<Exposed>,
    path: &str,
) -> (Raw, Sender) {
    let raw = Raw::open_narrow_at(running.address, path).await;
    (raw, sender_from(told).await)
}

async fn a_route_has_its_own_queue(server: Server) {
    const CHUNK: usize = 10_000;
    let (small, told_small) = exposed();
    let (other, told_other) = exposed();
    let server = server
        .route("/small", Route::new(small).max_queue(5 * CHUNK))
        .route("/other", other)
        .max_queue(50 * CHUNK);
    let running = Running::run(server);
    for (path, mut told, limit) in
        [("/small", told_small, 5 * CHUNK), ("/other", told_other, 50 * CHUNK)]
    {
        let (_raw, sender) = stalled(&running, &mut told, path).await;
        while sender.try_send(vec![0; CHUNK]).is_ok() {
            tokio::task::yield_now().await;
        }
        // T15: as much as may wait, and not one more.
        let queued = sender.queued();
        assert!((limit - CHUNK..=limit).contains(&queued), "{queued} of {limit} at {path}");
    }
}

async fn a_route_has_its_own_policy_for_slow_consumers(server: Server) {
    let (patient, told_patient) = exposed();
    let (other, told_other) = exposed();
    let patient = Route::new(patient).slow_consumer(SlowConsumer::DropNewest);
    let server = server.route("/patient", patient).route("/other", other);
    let running = Running::run(server.max_queue(100_000));
    let mut stalled_ones = Vec::new();
    for (path, mut told) in [("/patient", told_patient), ("/other", told_other)] {
        let (mut raw, sender) = stalled(&running, &mut told, path).await;
        raw.say(support::masked(support::TEXT, "+t")).await;
        raw.expect(support::frame(support::TEXT, "+t")).await;
        stalled_ones.push((raw, sender));
    }
    let [patient, other] = &stalled_ones[..] else { panic!("two") };
    let topic = running.topics.get("t");
    while other.1.is_open() || patient.1.counts().dropped_full == 0 {
        topic.publish(vec![0; 50_000]);
        tokio::task::yield_now().await;
    }
    assert!(patient.1.is_open());
}

/// T8, for a route.
async fn a_full_route_refuses_with_503_until_somebody_leaves(server: Server) {
    let monitor = server.monitor();
    let running = Running::run(
        server
            .route("/few/{x}", Route::new(echo_at).max_connections(2))
            .route("/many/{x}", echo_at),
    );
    let mut first = running.visit("/few/1").await;
    let second = running.visit("/few/2").await;
    for _ in 0..5 {
        let answer = running.ask(request("/few/3", [])).await;
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("10")));
        assert_eq!(answer.body, "Too many connections to this path.\n");
    }
    assert_eq!(monitor.stats().refused, 5);
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(running.visit("/many/1").await);
    }
    first.say("still here").await;
    assert_eq!(first.hear().await, "still here");

    drop(second);
    eventually(|| monitor.stats().connections == 6).await;
    let mut third = running.visit("/few/3").await;
    third.say("my turn").await;
    assert_eq!(third.hear().await, "my turn");
    assert_eq!(running.ask(request("/few/4", [])).await.status, 503);
}

async fn echo_at(socket: Socket, _: String) -> Result<(), Error> {
    echo(socket).await
}

#[derive(Clone)]
struct Mine;

impl FromStr for Mine {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        assert!(text != "panic", "on demand");
        Ok(Self)
    }
}

struct Uncloneable(bool);

impl Clone for Uncloneable {
    fn clone(&self) -> Self {
        assert!(!self.0, "on demand");
        Self(self.0)
    }
}

/// The request gets no 101, and everybody else all they want.
async fn a_panic_before_the_answer_ends_its_request_and_nothing_else(server: Server) {
    let monitor = server.monitor();
    let server = server
        .route("/", echo)
        .route("/parse/{mine}", Route::new(async |_: Socket, _: Mine| {}).max_connections(1))
        .route("/data", async |_: Socket, _: Data<Uncloneable>| {})
        .route("/select", Route::new(echo).select_subprotocol(|_| panic!("on demand")))
        .page_with("/page", |request| {
            assert!(request.uri().query().is_none(), "on demand");
            Page::text("a page\n")
        })
        .on_request(|request| {
            let panics = request.uri().query() == Some("data");
            request.extensions_mut().insert(Uncloneable(panics));
            assert!(request.uri().query() != Some("on_request"), "on demand");
            None
        })
        .on_request_async(async |request| {
            assert!(request.uri().query() != Some("on_request_async"), "on demand");
            Ok(request)
        })
        .on_response(|request, _| {
            assert!(request.uri().query() != Some("on_response"), "on demand");
        });
    let running = Running::run(server);
    let mut bystander = running.visit("/").await;
    for path in [
        "/parse/panic",
        "/data?data",
        "/select",
        "/page?x",
        "/?on_request",
        "/?on_request_async",
        "/?on_response",
        "/nowhere?on_response",
        "/page?on_request_async",
    ] {
        for _ in 0..3 {
            let answer = running.ask(request(path, [])).await;
            assert!(matches!(answer.status, 0 | 500), "{path}: {answer:?}");
        }
        bystander.say(path).await;
        assert_eq!(bystander.hear().await, path);
        // The places are given back.
        eventually(|| monitor.stats().connections == 1).await;
    }
    // What did not panic works, on the same routes and hooks.
    let mut client = running.visit("/parse/x").await;
    assert_eq!(client.hear_end().await.0, 1000);
    assert_eq!(running.ask(plain("GET", "/page")).await.body, "a page\n");
    drop(bystander);
    running.end().await;
}
