//! From the request to the end: refusals, what a handler learns of its connection, what its end means for
//! it, limits and keepalive.

#[macro_use]
mod support;

use std::{collections::HashSet, future::ready, sync::Arc, time::Duration};

use support::{
    CLOSE, PING, PONG, REQUEST, Raw, Running, TEXT, Web, close, echo, eventually, exposed, frame,
    masked, reset_on_drop, server, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc::unbounded_channel},
    task::yield_now,
    time::{pause, timeout},
};
use ws_serve::{
    Config, Error, Keepalive, Server, Socket,
    conn::Client,
    http::{Method, Response, StatusCode, header},
};

everywhere! {
    the_end_of_a_handler_is_the_end_of_its_connection,
    a_panic_before_the_first_await_is_a_panic_of_the_handler,
    a_vanished_client_ends_its_handler_and_nothing_else,
    a_handler_that_only_sends_ends_when_its_client_is_gone,
    requests_are_refused_with_the_fitting_status,
    a_page_is_served_beside_the_websocket,
    a_subprotocol_is_agreed_on,
    a_handler_knows_its_request_and_its_peer,
    frames_behind_the_request_are_received,
    a_message_over_the_limit_is_refused_with_1009,
    a_ping_is_answered_while_the_handler_receives,
    clients_that_reset_at_once_do_not_end_the_server,
}

async fn obey(mut socket: Socket) -> Result<(), String> {
    while let Ok(Some(order)) = socket.receive().await {
        match order.as_text() {
            Some("return") => return Ok(()),
            Some("fail") => return Err("the password is hunter2".to_owned()),
            Some("panic") => panic!("on demand"),
            _ => socket.send(order).await.map_err(|error| error.to_string())?,
        }
    }
    Ok(())
}

/// The error's text stays on our side.
async fn the_end_of_a_handler_is_the_end_of_its_connection(server: Server) {
    let running = Running::start(server, obey);
    let mut bystander = running.client().await;
    for (order, code) in [("return", 1000), ("fail", 1011), ("panic", 1011)] {
        let mut raw = running.raw().await;
        // What was sent in the same turn still arrives.
        raw.say([masked(TEXT, "echo"), masked(TEXT, order)].concat()).await;
        raw.expect(frame(TEXT, "echo")).await;
        raw.expect(frame(CLOSE, close(code, ""))).await;
        raw.say(masked(CLOSE, close(code, ""))).await;
        assert!(raw.hear_end().await, "ended by a reset");
        bystander.say(order.to_uppercase()).await;
        assert_eq!(bystander.hear().await, order.to_uppercase());
    }
}

/// [`ws_serve::Handler`]: "a panic does, too, and harms no other connection". B44: nor does it leave a ghost.
async fn a_panic_before_the_first_await_is_a_panic_of_the_handler(server: Server) {
    let running = Running::start(server, |socket: Socket| {
        socket.join("t");
        assert!(socket.request().uri().path() != "/chat", "on demand");
        ready(())
    });
    let mut raw = running.raw().await;
    raw.expect(frame(CLOSE, close(1011, ""))).await;
    raw.say(masked(CLOSE, close(1011, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    eventually(|| running.topics.is_empty()).await;
}

async fn a_vanished_client_ends_its_handler_and_nothing_else(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut bystander = Web::member(running.address, "t").await;
    support::sender_from(&mut told).await;
    for how in ["ended", "reset"] {
        let mut raw = running.raw().await;
        support::sender_from(&mut told).await;
        raw.say(&masked(TEXT, "half a frame")[..9]).await;
        if how == "reset" {
            reset_on_drop(raw.0.get_ref());
        }
        drop(raw);
        let Some(support::Exposed::Ended(closed)) = told.recv().await else { panic!("{how}") };
        // 1006 is what RFC 6455 §7.1.5 calls an end without a Close frame.
        assert_eq!((closed.code(), closed.is_clean()), (1006, false), "{how}");
        bystander.say("!t:still-here").await;
        assert_eq!(bystander.hear().await, "still-here");
    }
}

/// A clock, a ticker: it never receives, so only its sending can tell it.
async fn a_handler_that_only_sends_ends_when_its_client_is_gone(server: Server) {
    let (tell, mut told) = unbounded_channel();
    let running = Running::start(server, move |socket: Socket| {
        let tell = tell.clone();
        async move {
            let error = loop {
                if let Err(error) = socket.send("tick").await {
                    break error;
                }
                yield_now().await;
            };
            let _ = tell.send(error.is_disconnect());
            Err::<(), _>(error)
        }
    });
    let mut raw = running.raw().await;
    raw.expect(frame(TEXT, "tick")).await;
    reset_on_drop(raw.0.get_ref());
    drop(raw);
    assert_eq!(told.recv().await, Some(true));
}

/// What a server answers to these bytes before it ends the connection.
async fn answer(running: &Running, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(running.address).await.expect("the server listens");
    stream.write_all(request.as_ref()).await.expect("the server is there");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and no reset");
    answer
}

async fn requests_are_refused_with_the_fitting_status(server: Server) {
    let running = Running::start(server, echo);
    let without = |line: &str| {
        assert!(REQUEST.contains(line), "{line}");
        REQUEST.replace(line, "")
    };
    let with = |line: &str| REQUEST.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
    let plain = without("Upgrade: websocket\r\nConnection: Upgrade\r\n");
    let many: String = (0..200).map(|i| format!("X-{i}: x\r\n")).collect();
    for (request, status, line) in [
        (REQUEST.replace("GET", "POST"), 405, "allow: get"),
        (plain, 426, "upgrade: websocket"),
        (REQUEST.replace("Version: 13", "Version: 8"), 426, "sec-websocket-version: 13"),
        (with("Origin: https://evil.example"), 403, ""),
        (with("Content-Length: 5"), 400, ""),
        (without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400, ""),
        (without("Host: server.example.com\r\n"), 400, ""),
        (REQUEST.replace("/1.1", "/1.0"), 505, ""),
        (with(many.trim_end()), 431, ""),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000)), 414, ""),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400, ""),
    ] {
        let answer = answer(&running, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
        let answer = answer.to_lowercase();
        assert!(answer.contains(line), "no {line:?} in {answer}");
        assert!(answer.contains("close\r\n"), "the connection ends: {answer}");
    }
    // T1: and the page of the same host may.
    let answer = with("Origin: http://server.example.com");
    let mut stream = TcpStream::connect(running.address).await.expect("the server listens");
    stream.write_all(answer.as_bytes()).await.expect("the server is there");
    let mut status = [0; 13];
    stream.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 101 ");
}

async fn a_page_is_served_beside_the_websocket(server: Server) {
    let server = server.on_request(|request| match request.uri().path() {
        "/" if !request.headers().contains_key(header::UPGRADE) => {
            Some(Response::new("hello\n".into()))
        }
        "/private" if request.method() == Method::GET => {
            let mut refusal = Response::new("go away\n".into());
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            Some(refusal)
        }
        _ => None,
    });
    let running = Running::start(server, echo);
    let page = answer(&running, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = page.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 ") && body == "hello\n", "{page}");
    assert!(head.to_lowercase().contains("content-length: 6"), "{head}");
    // RFC 9110 §9.3.2: the same head, no body.
    let page = answer(&running, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(page.split_once("\r\n\r\n"), Some((head, "")));
    let refused = answer(&running, REQUEST.replace("/chat", "/private")).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let mut client = running.client().await;
    client.say("hello").await;
    assert_eq!(client.hear().await, "hello");
}

async fn a_subprotocol_is_agreed_on(server: Server) {
    let running = Running::start(server.subprotocols(["v2", "v1"]), |socket: Socket| async move {
        socket.send(socket.subprotocol().unwrap_or("none")).await
    });
    let url = format!("ws://{}/", running.address);
    for (offers, agreed) in [(vec!["v1"], "v1"), (vec!["v1", "v2"], "v2"), (vec!["v3", "v1"], "v1")]
    {
        let client = Client::new(&url).expect("a valid URL").subprotocols(offers);
        let mut client = Web(client.connect().await.expect("an open connection"));
        assert_eq!(client.0.subprotocol(), Some(agreed));
        assert_eq!(client.hear().await, agreed);
    }
    for request in
        [REQUEST.to_owned(), REQUEST.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: v3\r\n\r\n")]
    {
        let answer = answer(&running, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

async fn a_handler_knows_its_request_and_its_peer(server: Server) {
    let (tell, mut told) = unbounded_channel();
    let running = Running::start(server, move |mut socket: Socket| {
        let tell = tell.clone();
        async move {
            let sender = socket.sender();
            assert_eq!((sender.id(), sender.peer_addr()), (socket.id(), socket.peer_addr()));
            let _ = tell.send((socket.id(), socket.peer_addr(), socket.request()));
            socket.receive().await.map(drop)
        }
    });
    let mut ids = HashSet::new();
    for _ in 0..10 {
        let raw = running.raw().await;
        let (id, address, request) = told.recv().await.expect("a handler");
        assert!(ids.insert(id), "{id} comes again");
        assert_eq!(
            address.socket_addr().expect("TCP"),
            raw.0.get_ref().local_addr().expect("an address")
        );
        assert_eq!(request.uri(), "/chat?room=1");
        assert_eq!(request.headers()[header::HOST], "server.example.com");
    }
}

/// T7, B32.
async fn frames_behind_the_request_are_received(server: Server) {
    let running = Running::start(server, echo);
    let stream = TcpStream::connect(running.address).await.expect("the server listens");
    let mut raw = Raw(tokio::io::BufReader::new(stream));
    let large = "x".repeat(100_000);
    let early = [masked(TEXT, "one"), masked(PING, "p"), masked(TEXT, &large)].concat();
    raw.say([REQUEST.as_bytes(), &early].concat()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(raw.frame().await);
    }
    // The Pong may overtake.
    heard.sort();
    let text = |text: &str| (TEXT, text.as_bytes().to_vec());
    assert!(heard == [text("one"), text(&large), (PONG, b"p".to_vec())]);
}

async fn a_message_over_the_limit_is_refused_with_1009(server: Server) {
    let config = Config::default().max_message_size(100);
    let running = Running::start(server.config(config), echo);
    let mut client = running.client().await;
    client.say("x".repeat(100)).await;
    assert_eq!(client.hear().await.len(), 100);
    client.say("x".repeat(101)).await;
    let reason = "message with 101 bytes exceeds limit of 100 bytes".to_owned();
    assert_eq!(client.hear_end().await, (1009, reason));
    // B3: the sum of the fragments counts. T11: on the declared length, nothing of which has come.
    for start in [masked(0x01, "x".repeat(99)), Vec::new()] {
        let mut raw = running.raw().await;
        let kind = if start.is_empty() { 0x82 } else { 0x80 };
        raw.say([start, vec![kind, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()).await;
        let (first, payload) = raw.frame().await;
        assert_eq!((first, &payload[..2]), (CLOSE, &close(1009, "")[..]));
    }
}

async fn a_ping_is_answered_while_the_handler_receives(server: Server) {
    let (tell, mut told) = unbounded_channel();
    let running = Running::start(server, move |mut socket: Socket| {
        let tell = tell.clone();
        async move {
            let pongs = [socket.ping()?, socket.ping()?];
            tokio::spawn(async move {
                for pong in pongs {
                    let _ = tell.send(pong.await.is_some());
                }
            });
            while socket.receive().await?.is_some() {}
            Ok::<_, Error>(())
        }
    });
    let mut raw = running.raw().await;
    raw.frame().await;
    let (_, payload) = raw.frame().await;
    // §5.5.3 of RFC 6455: the answer to the second counts for the first, too.
    raw.say(masked(PONG, payload)).await;
    assert_eq!((told.recv().await, told.recv().await), (Some(true), Some(true)));
    // Nobody answers any more.
    let mut raw = running.raw().await;
    raw.frame().await;
    drop(raw);
    assert_eq!((told.recv().await, told.recv().await), (Some(false), Some(false)));
}

/// B40.
async fn clients_that_reset_at_once_do_not_end_the_server(server: Server) {
    let running = Running::start(server, echo);
    for _ in 0..300 {
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        reset_on_drop(&stream);
    }
    let mut client = running.client().await;
    client.say("still there?").await;
    assert_eq!(client.hear().await, "still there?");
    assert!(!running.serving.is_finished());
}

/// `tracing::debug!(?socket)` must not lock up, whenever it happens, nor tell of other clients.
#[tokio::test]
async fn a_socket_may_be_shown_in_a_log() {
    let (tell, mut told) = unbounded_channel();
    // On a thread of its own, because what locks up would lock up the watchdog, too.
    let running = Running::start(server().workers(2), move |mut socket: Socket| {
        let tell = tell.clone();
        async move {
            socket.join("t");
            if socket.receive().await?.is_some() {
                socket.publish("t", "dirty");
                let _ = tell.send(format!("{socket:?} {:?}", socket.sender()));
            }
            socket.receive().await.map(drop)
        }
    });
    within(async {
        let url = format!("ws://{}/", running.address);
        let mut strangers = Vec::new();
        // On each worker some.
        for _ in 0..10 {
            let stranger = Client::new(&url).expect("a valid URL");
            let stranger = stranger.header(header::COOKIE, "session=secret".parse().unwrap());
            strangers.push(stranger.connect().await.expect("an open connection"));
        }
        let mut client = running.client().await;
        client.say("show yourself").await;
        let shown = told.recv().await.expect("a handler");
        assert!(!shown.contains("secret"), "{shown}");
    })
    .await;
}

// Keepalive, with a clock that jumps to the next timer as soon as there is nothing else to do. It is
// stopped when the connection is open, and the watchdog's virtual patience is longer than any interval.

async fn within_a_day<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(24 * 3600), future).await.expect("done within a virtual day")
}

/// T5: by default after 20 s, and 20 s later the silent client is given up.
#[tokio::test]
async fn a_silent_client_is_pinged_and_given_up() {
    let running = Running::start(server(), echo);
    let mut raw = running.raw().await;
    pause();
    within_a_day(async {
        raw.expect(frame(PING, "keepalive")).await;
        raw.expect(frame(CLOSE, close(1011, "keepalive ping timeout"))).await;
        assert!(raw.hear_end().await, "ended by a reset");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_answers_pings_is_kept() {
    let running = Running::start(server(), echo);
    let mut raw = running.raw().await;
    pause();
    within_a_day(async {
        for _ in 0..10 {
            raw.expect(frame(PING, "keepalive")).await;
            raw.say(masked(PONG, "keepalive")).await;
        }
        raw.say(masked(TEXT, "still here")).await;
        raw.expect(frame(TEXT, "still here")).await;
    })
    .await;
}

#[tokio::test]
async fn without_keepalive_nothing_is_sent_and_nobody_given_up() {
    let server = server().config(Config::default().keepalive(Keepalive::off()));
    let running = Running::start(server, |mut socket: Socket| async move {
        let slept = tokio::time::sleep(Duration::from_secs(3600)); // tidy: allow-sleep(the clock is stopped)
        tokio::select! {
            _ = socket.receive() => Ok(()),
            () = slept => socket.send("an hour later").await,
        }
    });
    let mut raw = running.raw().await;
    pause();
    within_a_day(raw.expect(frame(TEXT, "an hour later"))).await;
}

/// What a handler does not read may be the Pong: "a busy handler is not a dead client".
#[tokio::test]
async fn a_client_is_not_given_up_while_the_handler_is_busy() {
    keeps_a_client_while_busy(false).await;
}

#[tokio::test]
async fn a_client_is_not_given_up_while_the_handler_is_busy_after_a_dropped_receive() {
    keeps_a_client_while_busy(true).await;
}

async fn keeps_a_client_while_busy(began_to_receive: bool) {
    let gate = Arc::new(Notify::new());
    let running = Running::start(server(), {
        let gate = Arc::clone(&gate);
        move |mut socket: Socket| {
            let gate = Arc::clone(&gate);
            async move {
                if began_to_receive {
                    tokio::select! {
                        biased;
                        message = socket.receive() => panic!("{message:?} comes later"),
                        () = ready(()) => {}
                    }
                }
                gate.notified().await;
                echo(socket).await
            }
        }
    });
    let mut raw = running.raw().await;
    pause();
    within_a_day(async {
        for _ in 0..5 {
            raw.expect(frame(PING, "keepalive")).await;
            raw.say(masked(PONG, "keepalive")).await;
        }
        gate.notify_one();
        raw.say(masked(TEXT, "still here")).await;
        raw.expect(frame(TEXT, "still here")).await;
    })
    .await;
}

/// B29: tokio makes a task yield after some work, and timers refuse then, too; the keepalive must be
/// armed all the same.
#[tokio::test]
async fn the_keepalive_runs_after_a_busy_start() {
    let running = Running::start(server(), |socket: Socket| async move {
        let (put, mut take) = unbounded_channel();
        (0..1000).for_each(|number| put.send(number).expect("we hold the other end"));
        while take.recv().await != Some(999) {}
        echo(socket).await
    });
    let mut raw = running.raw().await;
    pause();
    within_a_day(raw.expect(frame(PING, "keepalive"))).await;
}
