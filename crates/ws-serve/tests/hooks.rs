//! What sees a request before its route does, and its answer before the client does: hooks, probes, and
//! the check of origins through the whole server.
//!
//! Not its business: which origins match which patterns (`origin.rs` of ws-handshake).

#[macro_use]
mod support;

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use support::{Answer, REQUEST, Raw, Running, echo, eventually, plain, request, server, within};
use tokio::{net::TcpStream, sync::Notify, time::Instant};
use ws_serve::{
    Data, Error, Origins, Page, Route, Server, Socket,
    conn::HandshakeError,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header},
};

everywhere! {
    a_hook_answers_instead_of_the_route,
    an_async_hook_answers_instead_of_the_route,
    hooks_attach_data_for_the_handler,
    hooks_run_in_order_and_stop_at_the_first_answer,
    an_answer_to_head_has_no_body_whoever_gave_it,
    on_response_sees_the_request_whoever_answered_it,
    on_response_adds_to_every_answer,
    on_response_cannot_break_the_handshake,
    a_hook_may_rewrite_the_path,
    a_slow_hook_counts_against_the_handshake_timeout,
    a_client_that_leaves_a_slow_hook_is_forgotten,
    probes_come_before_everything_else,
    readiness_ends_with_the_grace_period_and_health_does_not,
    pages_of_other_hosts_may_not_connect,
    listed_origins_may_connect_and_no_others,
}

fn refusal(status: StatusCode, body: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response
}

async fn a_hook_answers_instead_of_the_route(server: Server) {
    let server =
        server.route("/chat", echo).page("/page", Page::text("a page\n")).on_request(|request| {
            match request.uri().path() {
                "/teapot" => Some(refusal(StatusCode::IM_A_TEAPOT, "short and stout\n")),
                "/chat" if !request.headers().contains_key(header::COOKIE) => {
                    Some(refusal(StatusCode::UNAUTHORIZED, ""))
                }
                _ => None,
            }
        });
    let running = Running::run(server);
    for asked in [plain("GET", "/teapot"), plain("POST", "/teapot"), request("/teapot", [])] {
        let answer = running.ask(asked).await;
        assert_eq!((answer.status, &*answer.body), (418, "short and stout\n"));
        assert_eq!(answer.header("Connection"), Some("close"));
    }
    assert_eq!(running.ask(request("/chat", [])).await.status, 401);
    assert_eq!(running.ask(plain("GET", "/page")).await.body, "a page\n");
    let client = running.at("/chat").header(header::COOKIE, HeaderValue::from_static("a=b"));
    client.connect().await.expect("an open connection");
    running.end().await;
}

async fn an_async_hook_answers_instead_of_the_route(server: Server) {
    // Whoever is asked answers from another task, and not at once.
    let (ask, mut asked) =
        tokio::sync::mpsc::unbounded_channel::<tokio::sync::oneshot::Sender<_>>();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(asked) = asked.recv().await {
            number += 1;
            let _ = asked.send(number);
        }
    });
    let server = server.route("/chat", echo).on_request_async(move |request| {
        let ask = ask.clone();
        async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            let _ = ask.send(tell);
            match told.await {
                Ok(number) if number % 2 == 0 => Ok(request),
                _ => Err(refusal(StatusCode::UNAUTHORIZED, "who are you?\n")),
            }
        }
    });
    let running = Running::run(server);
    for _ in 0..3 {
        let answer = running.ask(request("/chat", [])).await;
        assert_eq!((answer.status, &*answer.body), (401, "who are you?\n"));
        let mut client = running.visit("/chat").await;
        client.say("I am").await;
        assert_eq!(client.hear().await, "I am");
    }
    running.end().await;
}

#[derive(Clone)]
struct User(String);

#[derive(Clone)]
struct Rank(usize);

async fn hooks_attach_data_for_the_handler(server: Server) {
    let server = server
        .route("/", async |socket: Socket, Data(user): Data<User>, Data(rank): Data<Rank>| {
            socket.send(format!("{} {}", user.0, rank.0)).await
        })
        .on_request(|request| {
            let name = request.headers().get("x-user").and_then(|name| name.to_str().ok());
            let user = User(name.unwrap_or("nobody").to_owned());
            request.extensions_mut().insert(user);
            None
        })
        .on_request_async(async |mut request| {
            // What the first hook left is here.
            let length = request.extensions().get::<User>().map_or(0, |user| user.0.len());
            request.extensions_mut().insert(Rank(length));
            Ok(request)
        });
    let running = Running::run(server);
    for (name, heard) in [("alice", "alice 5"), ("bob", "bob 3")] {
        let client = running
            .at("/")
            .header(HeaderName::from_static("x-user"), HeaderValue::from_static(name));
        let client = client.connect().await.expect("an open connection");
        assert_eq!(support::Web(client).hear().await, heard);
    }
    assert_eq!(running.visit("/").await.hear().await, "nobody 6");
    running.end().await;
}

async fn hooks_run_in_order_and_stop_at_the_first_answer(server: Server) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().expect("nobody panics").push(what)
    };
    let (first, second, page, last) =
        (note("sync"), note("async"), note("route"), note("response"));
    let asked_for = |request: &Request<()>, what| request.uri().query() == Some(what);
    let server = server
        .on_response(move |_, _| last())
        // Of whatever kind, in the order in which they are set.
        .on_request(move |request| {
            first();
            asked_for(request, "sync").then(|| refusal(StatusCode::GONE, ""))
        })
        .on_request_async(move |request| {
            second();
            let stop = asked_for(&request, "async");
            async move { if stop { Err(refusal(StatusCode::GONE, "")) } else { Ok(request) } }
        })
        .page_with("/", move |_| {
            page();
            Page::text("")
        });
    let running = Running::run(server);
    for (path, order) in [
        ("/?sync", &["sync", "response"][..]),
        ("/?async", &["sync", "async", "response"]),
        ("/", &["sync", "async", "route", "response"]),
        ("/nowhere", &["sync", "async", "response"]),
    ] {
        running.ask(plain("GET", path)).await;
        assert_eq!(std::mem::take(&mut *log.lock().expect("nobody panics")), order, "{path}");
    }
    running.end().await;
}

/// RFC 9110 §9.3.2: "The server MUST NOT send content in the response" to HEAD.
async fn an_answer_to_head_has_no_body_whoever_gave_it(server: Server) {
    let server = server
        .page("/page", Page::text("hello\n"))
        .on_request(|request| {
            (request.uri().path() == "/sync").then(|| refusal(StatusCode::OK, "hello\n"))
        })
        .on_request_async(async |request| match request.uri().path() {
            "/async" => Err(refusal(StatusCode::OK, "hello\n")),
            _ => Ok(request),
        });
    let running = Running::run(server.health("/health"));
    for path in ["/page", "/sync", "/async", "/health", "/nowhere"] {
        let get = running.ask(plain("GET", path)).await;
        let head = running.ask(plain("HEAD", path)).await;
        assert_ne!(get.body, "");
        assert_eq!((&head.head, &*head.body), (&get.head, ""), "{path}");
    }
    running.end().await;
}

/// Also when the request has been through the hands of an async hook, which kept it.
async fn on_response_sees_the_request_whoever_answered_it(server: Server) {
    let server = server
        .page("/page", Page::text(""))
        .on_request(|request| {
            (request.uri().path() == "/sync").then(|| refusal(StatusCode::OK, ""))
        })
        .on_request_async(async |request| match request.uri().path() {
            "/async" => Err(refusal(StatusCode::OK, "")),
            _ => Ok(request),
        })
        .on_response(|request, response| {
            let seen = format!("{} {}", request.method(), request.uri());
            let seen = HeaderValue::from_str(&seen).expect("ASCII");
            response.headers_mut().insert("x-seen", seen);
            let agent = request.headers().get(header::HOST).cloned();
            agent.map(|agent| response.headers_mut().insert("x-host", agent));
        });
    let running = Running::run(server);
    for path in ["/page?q", "/sync?q", "/async?q", "/nowhere?q"] {
        let answer = running.ask(plain("GET", path)).await;
        assert_eq!(answer.header("X-Seen"), Some(&*format!("GET {path}")), "{answer:?}");
        assert_eq!(answer.header("X-Host"), Some("server.example.com"), "{answer:?}");
    }
    running.end().await;
}

/// The head of what is answered, 101 or not.
async fn head(running: &Running, request: impl AsRef<[u8]>) -> String {
    let stream = TcpStream::connect(running.address).await.expect("the server listens");
    let mut raw = Raw(tokio::io::BufReader::new(stream));
    raw.say(request).await;
    raw.head().await
}

async fn on_response_adds_to_every_answer(server: Server) {
    let server = server
        .route("/chat", echo)
        .route("/feed/", echo)
        .route("/number/{n}", async |_: Socket, _: u8| {})
        .route("/full", Route::new(echo).max_connections(0))
        .page("/page", Page::text(""))
        .on_response(|request, response| {
            let headers = response.headers_mut();
            headers.append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
            headers.append(header::SET_COOKIE, HeaderValue::from_static("b=2; Secure"));
            if request.uri().query() == Some("change") {
                *response.status_mut() = StatusCode::GONE;
                *response.body_mut() = Bytes::from("changed\n");
            }
        });
    let running = Running::run(server);
    let origin = ["Origin: https://evil.example"];
    for (asked, status) in [
        (request("/chat", []), 101),
        (request("/chat", origin), 403),
        (request("/nowhere", []), 404),
        (request("/number/x", []), 404),
        (request("/full", []), 503),
        (request("/feed", []), 308),
        (request("/page", []), 200),
        (plain("GET", "/page"), 200),
        (plain("GET", "/chat"), 426),
        (plain("POST", "/page"), 405),
        (REQUEST.replace("Version: 13", "Version: 8").replace("?room=1", ""), 426),
    ] {
        let head = head(&running, &asked).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}\n{head}");
        assert!(head.contains("\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Secure\r\n"), "{head}");
    }
    let changed = running.ask(request("/nowhere?change", [])).await;
    assert_eq!((changed.status, &*changed.body), (410, "changed\n"));
    assert_eq!(changed.header("Content-Length"), Some("8"));
    running.end().await;
}

/// RFC 6455 §4.2.2: a client goes by these.
async fn on_response_cannot_break_the_handshake(server: Server) {
    let server = server.subprotocols(["v1"]).deflate(ws_serve::Deflate::default()).on_response(
        |_, response| {
            *response.status_mut() = StatusCode::OK;
            *response.body_mut() = Bytes::from("not a frame");
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("connection", "close"),
                ("upgrade", "h2c"),
                ("sec-websocket-accept", "wrong"),
                ("sec-websocket-protocol", "v2"),
                ("sec-websocket-extensions", "x-unheard-of"),
                ("content-length", "11"),
                ("transfer-encoding", "chunked"),
                ("x-mine", "stays"),
            ] {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            *response.headers_mut() = headers;
        },
    );
    let running = Running::start(server, echo);
    for offer in [true, false] {
        let mut lines = vec!["Sec-WebSocket-Protocol: v1"];
        if offer {
            lines.push("Sec-WebSocket-Extensions: permessage-deflate");
        }
        let head = head(&running, request("/", lines)).await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        let mut own: Vec<_> = head.lines().filter(|line| line.contains(": ")).collect();
        own.sort_unstable();
        let mut expected = vec![
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "Sec-WebSocket-Protocol: v1",
            "Upgrade: websocket",
            "X-Mine: stays",
            "X-Mine: stays",
        ];
        if offer {
            own.retain(|line| !line.starts_with("Sec-WebSocket-Extensions: permessage-deflate"));
        }
        expected.sort_unstable();
        assert_eq!(own, expected);
    }
    // And the first frame is where it belongs.
    let client = running.at("/").subprotocols(["v1"]).deflate(ws_serve::Deflate::default());
    let mut client = support::Web(client.connect().await.expect("an open connection"));
    client.say("hello").await;
    assert_eq!(client.hear().await, "hello");
    drop(client);
    running.end().await;
}

async fn a_hook_may_rewrite_the_path(server: Server) {
    let server = server
        .route("/chat/{room}", async |socket: Socket, room: String| {
            socket.send(format!("{room} by {}", socket.request().uri())).await
        })
        .on_request(|request| {
            let query = request.uri().query().map(ToOwned::to_owned);
            if let Some(room) = query {
                *request.uri_mut() = format!("/chat/{room}").parse().expect("a path");
            }
            None
        });
    let running = Running::run(server);
    assert_eq!(running.visit("/old?attic").await.hear().await, "attic by /old?attic");
    assert_eq!(running.ask(request("/old", [])).await.status, 404);
    running.end().await;
}

const SHORT: Duration = Duration::from_millis(300);

/// T4: the deadline is for all of the opening. Nobody keeps a place by being looked up for ever.
async fn a_slow_hook_counts_against_the_handshake_timeout(server: Server) {
    let monitor = server.monitor();
    let server = server.handshake_timeout(SHORT).on_request_async(async |request| {
        if request.uri().path() == "/slow" {
            pending::<()>().await;
        }
        Ok(request)
    });
    let running = Running::start(server, echo);
    let start = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..10 {
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        slow.push(tokio::spawn(support::ask(stream, request("/slow", []))));
    }
    let mut client = running.client().await;
    client.say("hello").await;
    assert_eq!(client.hear().await, "hello");
    for slow in slow {
        let Answer { status, .. } = slow.await.expect("no panic");
        assert!(matches!(status, 0 | 503), "{status}");
    }
    assert!(start.elapsed() >= SHORT);
    eventually(|| monitor.stats().connections == 1).await;
}

/// Not before the deadline: who has sent a whole request is not read from meanwhile.
async fn a_client_that_leaves_a_slow_hook_is_forgotten(server: Server) {
    let monitor = server.monitor();
    let asked = Arc::new(Notify::new());
    let server = server.handshake_timeout(SHORT).on_request_async({
        let asked = Arc::clone(&asked);
        move |request| {
            asked.notify_one();
            async {
                pending::<()>().await;
                Ok(request)
            }
        }
    });
    let running = Running::start(server, echo);
    for reset in [true, false] {
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        let mut raw = Raw(tokio::io::BufReader::new(stream));
        raw.say(REQUEST).await;
        asked.notified().await;
        if reset {
            support::reset_on_drop(raw.0.get_ref());
        }
        drop(raw);
        eventually(|| monitor.stats().connections == 0).await;
    }
    running.end().await;
}

async fn probes_come_before_everything_else(server: Server) {
    let server = server
        .health("/health")
        .readiness("/ready")
        .fallback(echo)
        .route("/health", echo)
        .on_request(|_| Some(refusal(StatusCode::UNAUTHORIZED, "")));
    let running = Running::run(server);
    for path in ["/health", "/ready", "/health?verbose"] {
        for asked in [plain("GET", path), request(path, [])] {
            let answer = running.ask(asked).await;
            assert_eq!((answer.status, &*answer.body), (200, "ok\n"), "{path}");
        }
        assert_eq!(running.ask(plain("HEAD", path)).await.status, 200);
    }
    for path in ["/health/", "/Health", "/"] {
        assert_eq!(running.ask(plain("GET", path)).await.status, 401, "{path}");
    }
    running.end().await;
}

/// T28, T31: a load balancer hears of the end before connections are refused.
async fn readiness_ends_with_the_grace_period_and_health_does_not(server: Server) {
    const LONG: Duration = Duration::from_secs(3600);
    let server = server
        .health("/health")
        .readiness("/ready")
        .page("/page", Page::text("a page\n"))
        .on_response(|_, response| {
            response.headers_mut().insert("x-mine", HeaderValue::from_static("yes"));
        })
        .grace_period(LONG);
    let running = Running::start(server, echo);
    let mut client = running.client().await;
    for path in ["/health", "/ready"] {
        assert_eq!(running.ask(plain("GET", path)).await.status, 200);
    }
    running.shutdown.start();
    for _ in 0..3 {
        let health = running.ask(plain("GET", "/health")).await;
        assert_eq!((health.status, &*health.body), (200, "ok\n"));
        let ready = running.ask(plain("GET", "/ready")).await;
        assert_eq!((ready.status, &*ready.body), (503, "shutting down\n"));
        for asked in [request("/", []), plain("GET", "/page"), request("/nowhere", [])] {
            let refused = running.ask(asked).await;
            assert_eq!((refused.status, &*refused.body), (503, "Server is shutting down.\n"));
            assert_eq!(refused.header("X-Mine"), Some("yes"));
        }
        // Who is in notices nothing.
        client.say("still here").await;
        assert_eq!(client.hear().await, "still here");
    }
    assert!(!running.serving.is_finished());
    running.shutdown.hurry();
    running.end().await;
}

/// The grace period ends by itself, and then everybody is closed as in any shutdown.
#[tokio::test]
async fn the_grace_period_ends() {
    let running = Running::start(server().grace_period(SHORT), echo);
    within(async {
        let mut client = running.client().await;
        let start = Instant::now();
        running.shutdown.start();
        assert_eq!(client.hear_end().await.0, 1001);
        assert!(start.elapsed() >= SHORT);
        running.end().await;
    })
    .await;
}

/// What the server says to a page of this origin.
async fn status(running: &Running, host: &str, origins: &[&str]) -> u16 {
    let lines: Vec<_> = origins.iter().map(|origin| format!("Origin: {origin}")).collect();
    let request = request("/", lines.iter().map(|line| &**line));
    let head = head(running, request.replace("server.example.com", host)).await;
    head.get(9..12).and_then(|status| status.parse().ok()).expect("a status")
}

/// T1: the default.
async fn pages_of_other_hosts_may_not_connect(server: Server) {
    let running = Running::start(server, echo);
    for (host, origins, expected) in [
        ("example.com", &[][..], 101),
        ("example.com", &["https://example.com"], 101),
        ("example.com", &["http://example.com:80"], 101),
        ("example.com:9001", &["http://example.com:9001"], 101),
        ("Example.COM", &["HTTPS://EXAMPLE.com"], 101),
        ("[::1]:9001", &["http://[::1]:9001"], 101),
        ("example.com", &["https://other.com"], 403),
        ("example.com", &["null"], 403),
        ("example.com", &[""], 403),
        ("example.com", &["http://example.com:8080"], 403),
        ("example.com:9001", &["http://example.com"], 403),
        ("example.com", &["https://evil-example.com"], 403),
        ("example.com", &["https://example.com.evil.com"], 403),
        ("example.com", &["https://example.com@evil.com"], 403),
        ("example.com", &["https://evil.com/example.com"], 403),
        ("example.com", &["https://sub.example.com"], 403),
        ("[::1]:9001", &["http://[::2]:9001"], 403),
        ("example.com", &["https://example.com", "https://example.com"], 403),
        ("example.com", &["https://example.com, https://evil.com"], 403),
    ] {
        let got = status(&running, host, origins).await;
        assert_eq!(got, expected, "{origins:?} at {host}");
    }
    running.end().await;
}

/// T1; CVE-2022-42975: a wildcard stands for subdomains and nothing else.
async fn listed_origins_may_connect_and_no_others(server: Server) {
    let origins =
        Origins::list(["https://example.com", "https://*.other.com", "http://localhost:*"]);
    let running = Running::start(server.origins(origins), echo);
    for (origin, expected) in [
        ("https://example.com", 101),
        ("https://EXAMPLE.com:443", 101),
        ("https://a.b.other.com", 101),
        ("http://localhost:3000", 101),
        ("http://example.com", 403),
        ("https://www.example.com", 403),
        ("https://other.com", 403),
        ("https://any-other.com", 403),
        ("https://xother.com", 403),
        ("https://a.other.com.evil.org", 403),
        ("https://a.other.com@evil.org", 403),
        // Its own host is not on the list.
        ("https://server.example.com", 403),
        ("null", 403),
    ] {
        assert_eq!(status(&running, "server.example.com", &[origin]).await, expected, "{origin}");
    }
    assert_eq!(status(&running, "server.example.com", &[]).await, 101);
    let evil = running.at("/").header(header::ORIGIN, HeaderValue::from_static("https://evil.com"));
    match evil.connect().await {
        Err(Error::Handshake(HandshakeError::Rejected(response))) => {
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
        }
        other => panic!("{other:?}"),
    }
    running.end().await;
}
