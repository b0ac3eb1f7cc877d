//! The end of a server: whom it tells, what still leaves, when it returns; and that its address is its own.

#[macro_use]
mod support;

use std::{
    future::{pending, poll_fn},
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Barrier, Mutex, mpsc},
    task::Poll,
    thread,
    time::Duration,
};

use support::{
    BINARY, CLOSE, Exposed, REQUEST, Raw, Running, TEXT, WATCHDOG, Web, close, echo, eventually,
    exposed, frame, masked, sender_from, server, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc::unbounded_channel,
    task::block_in_place,
};
use ws_serve::{CloseCode, Server, Socket};

everywhere! {
    clients_see_1001_and_the_server_returns,
    the_code_may_say_that_we_come_back,
    nobody_is_let_in_any_more,
    what_is_queued_leaves_before_the_close,
    what_was_published_leaves_before_the_close,
    a_closing_client_is_waited_for,
    a_handler_that_ignores_the_end_does_not_keep_the_server,
    a_handler_that_ignores_the_end_does_not_keep_the_connection,
    dropping_the_server_ends_its_connections,
    dropping_the_server_ends_connections_whose_handlers_do_not_look,
    the_port_is_free_again,
}

/// T28: a Close frame and no reset.
async fn clients_see_1001_and_the_server_returns(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut client = running.client().await;
    let mut raw = running.raw().await;
    for _ in 0..2 {
        sender_from(&mut told).await;
    }
    assert!(!running.shutdown.is_started());
    running.shutdown.start();
    running.shutdown.started().await;
    // The first call counts.
    running.shutdown.start_with(CloseCode::SERVICE_RESTART, "too late");
    assert_eq!(client.hear_end().await, (1001, "server is shutting down".to_owned()));
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    for _ in 0..2 {
        let Some(Exposed::Ended(closed)) = told.recv().await else { panic!("no end") };
        assert!(closed.is_clean(), "{closed}");
    }
    running.end().await;
}

async fn the_code_may_say_that_we_come_back(server: Server) {
    let running = Running::start(server, echo);
    let mut client = running.client().await;
    running.shutdown.start_with(CloseCode::SERVICE_RESTART, "back in a minute");
    assert_eq!(client.hear_end().await, (1012, "back in a minute".to_owned()));
    running.end().await;
}

async fn nobody_is_let_in_any_more(server: Server) {
    let running = Running::start(server, echo);
    // Keeps the server from returning.
    let mut lingering = running.raw().await;
    running.shutdown.start();
    lingering.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    for _ in 0..10 {
        // Another worker may be about to notice: then it answers, and not with 101.
        let Ok(mut stream) = TcpStream::connect(running.address).await else { continue };
        let _ = stream.write_all(REQUEST.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
    }
    assert!(!running.serving.is_finished());
    lingering.say(masked(CLOSE, close(1001, ""))).await;
    assert!(lingering.hear_end().await, "ended by a reset");
    running.end().await;
}

/// A listener accepts in order, so who connected before somebody who is served is in a handshake.
async fn handshakes_in_flight_get_503(server: Server) {
    let running = Running::start(server, echo);
    let (start, rest) = REQUEST.split_at(40);
    let mut waiting = Vec::new();
    for said in ["", start] {
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        let mut raw = Raw(BufReader::new(stream));
        raw.say(said).await;
        waiting.push(raw);
    }
    let client = running.client().await;
    running.shutdown.start();
    for mut raw in waiting {
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        let _ = raw.0.write_all(rest.as_bytes()).await;
        let mut body = String::new();
        raw.0.read_to_string(&mut body).await.expect("the body, and no reset");
        assert_eq!(body, "Server is shutting down.\n");
    }
    drop(client);
    running.end().await;
}

/// "At once" holds for those, too, who were not yet served.
async fn dropping_the_server_ends_handshakes_in_flight(server: Server) {
    let running = Running::start(server, ignore);
    let stream = TcpStream::connect(running.address).await.expect("the server listens");
    let mut waiting = Raw(BufReader::new(stream));
    let (start, rest) = REQUEST.split_at(40);
    waiting.say(start).await;
    // Accepted after the first, see above.
    let _client = running.client().await;
    running.serving.abort();
    assert!(running.serving.await.expect_err("aborted").is_cancelled());
    let _ = waiting.0.write_all(rest.as_bytes()).await;
    waiting.hear_end().await;
}

#[tokio::test]
async fn dropping_the_server_ends_handshakes_in_flight_on_a_single_threaded_runtime() {
    within(dropping_the_server_ends_handshakes_in_flight(server())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_server_ends_handshakes_in_flight_on_one_worker() {
    within(dropping_the_server_ends_handshakes_in_flight(server().workers(1))).await;
}

#[tokio::test]
async fn handshakes_in_flight_get_503_on_a_single_threaded_runtime() {
    within(handshakes_in_flight_get_503(server())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_in_flight_get_503_on_one_worker() {
    within(handshakes_in_flight_get_503(server().workers(1))).await;
}

async fn what_is_queued_leaves_before_the_close(server: Server) {
    const SIZE: usize = 100_000;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(8 << 20), handler);
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    let mut accepted = 0;
    while sender.try_send(vec![accepted as u8; SIZE]).is_ok() {
        accepted += 1;
    }
    running.shutdown.start();
    eventually(|| !sender.is_open()).await;
    for number in 0..accepted {
        assert!(raw.frame().await == (BINARY, vec![number as u8; SIZE]), "{number}");
    }
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    running.end().await;
}

/// A farewell by topic: published, then shut down, in one breath.
async fn what_was_published_leaves_before_the_close(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(Web::member(running.address, "t").await);
    }
    running.topics.get("t").publish("goodbye");
    running.shutdown.start();
    for mut member in members {
        assert_eq!(member.hear().await, "goodbye");
        assert_eq!(member.hear_end().await.0, 1001);
    }
    running.end().await;
}

/// T21: also if serving the members takes several turns and has begun.
#[tokio::test]
async fn what_is_half_way_out_to_a_crowd_leaves_before_the_close() {
    let (handler, _told) = exposed();
    let running = Running::start(server(), handler);
    within(async {
        let topic = running.topics.get("t");
        let mut crowd = Vec::new();
        // More than the flusher serves in one turn.
        for _ in 0..300 {
            let mut raw = running.raw().await;
            raw.say(masked(TEXT, "+t")).await;
            raw.expect(frame(TEXT, "+t")).await;
            crowd.push(raw);
        }
        let shutdown = running.shutdown.clone();
        let mut turn = 0;
        tokio::spawn(poll_fn(move |cx| {
            turn += 1;
            topic.publish(turn.to_string());
            if turn == 2 {
                shutdown.start();
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        for (number, raw) in crowd.iter_mut().enumerate() {
            let mut heard = Vec::new();
            loop {
                let (first, payload) = raw.frame().await;
                if first == CLOSE {
                    break;
                }
                heard.push(payload);
            }
            assert_eq!(heard, [b"1", b"2"], "member {number}");
        }
    })
    .await;
}

/// B31: the client's last words are heard after our Close.
async fn a_closing_client_is_waited_for(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut raw = running.raw().await;
    sender_from(&mut told).await;
    running.shutdown.start();
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.say(masked(TEXT, "last words")).await;
    let Some(Exposed::Message(message)) = told.recv().await else { panic!("not heard") };
    assert_eq!(message.as_text(), Some("last words"));
    assert!(!running.serving.is_finished());
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    running.end().await;
}

const SHORT: Duration = Duration::from_millis(200);

async fn ignore(socket: Socket) {
    pending::<()>().await;
    drop(socket);
}

async fn a_handler_that_ignores_the_end_does_not_keep_the_server(server: Server) {
    let running = Running::start(server.drain_timeout(SHORT), ignore);
    let _raw = running.raw().await;
    let _client = running.client().await;
    running.end().await;
}

/// T14, T28: "all gone" at the deadline, which the client sees.
async fn a_handler_that_ignores_the_end_does_not_keep_the_connection(server: Server) {
    let running = Running::start(server.drain_timeout(SHORT), ignore);
    let mut raw = running.raw().await;
    running.end().await;
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.hear_end().await;
}

/// [`Server::serve`]: "Dropping the future ends the server at once."
async fn dropping_the_server_ends_its_connections(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let raw = running.raw().await;
    drop(sender_from(&mut told).await);
    running.serving.abort();
    assert!(running.serving.await.expect_err("aborted").is_cancelled());
    raw.hear_end().await;
    let Some(Exposed::Ended(closed)) = told.recv().await else {
        // A worker's handlers go with its runtime.
        return;
    };
    assert!(!closed.is_clean());
}

async fn dropping_the_server_ends_connections_whose_handlers_do_not_look(server: Server) {
    let running = Running::start(server, ignore);
    let raw = running.raw().await;
    running.serving.abort();
    raw.hear_end().await;
}

async fn the_port_is_free_again(server: Server) {
    let running = Running::start(server, echo);
    let address = running.address;
    let mut client = running.client().await;
    running.shutdown.start();
    // We close first, so that the server's side is the one in TIME_WAIT.
    assert_eq!(client.hear_end().await.0, 1001);
    running.end().await;
    let again = Running::start(Server::bind(address).expect("free at once"), echo);
    assert_eq!(again.address, address);
    let mut client = again.client().await;
    client.say("hello").await;
    assert_eq!(client.hear().await, "hello");
}

#[tokio::test]
async fn two_servers_cannot_have_one_address() {
    let first = server();
    let address = first.local_addr().expect("it is bound");
    assert_eq!(Server::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
    let running = Running::start(first.workers(2), echo);
    let _client = within(running.client()).await;
    assert_eq!(Server::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
    // All of several addresses are wanted, and the error names the one that cannot be had.
    let any = "127.0.0.1:0".parse().unwrap();
    let error = Server::bind(&[any, address][..]).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let other = server().listen(any).unwrap();
    assert_eq!(other.local_addrs().count(), 2);
}

/// Not even if they try at the same time: with shared ports both would get a part of the clients.
#[test]
fn two_servers_cannot_have_one_address_at_the_same_time() {
    const CONTENDERS: usize = 8;
    let barrier = Barrier::new(CONTENDERS);
    let address: SocketAddr = server().local_addr().expect("it is bound");
    for round in 0..100 {
        let bound: usize = thread::scope(|scope| {
            let contenders: Vec<_> = (0..CONTENDERS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let server = Server::bind(address);
                        // Nobody lets go before all have tried.
                        barrier.wait();
                        usize::from(server.is_ok())
                    })
                })
                .collect();
            contenders.into_iter().map(|contender| contender.join().unwrap()).sum()
        });
        assert!(bound <= 1, "{bound} servers on {address} in round {round}");
    }
}

/// A connection that opens while the others are being closed is closed, too, not forgotten until the
/// drain deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_connection_that_opens_during_the_shutdown_is_closed() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let (tell, mut told) = unbounded_channel();
    let running = Running::start(server(), move |mut socket: Socket| {
        if socket.request().uri().path() == "/chat" {
            // Between the handshake and the session.
            let _ = tell.send(());
            let gone = gone.lock().expect("one user");
            block_in_place(|| gone.recv_timeout(WATCHDOG)).expect("the test goes on");
        }
        async move { socket.receive().await.map(drop) }
    });
    within(async {
        let mut first = running.client().await;
        let mut second = running.raw().await;
        told.recv().await.expect("a handler");
        running.shutdown.start();
        assert_eq!(first.hear_end().await.0, 1001);
        go.send(()).expect("the handler waits");
        second.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    })
    .await;
}
