//! What a server watches and tells: how fast clients send, how long they stay, how many there are, and what
//! became of them.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use support::{Running, Web, echo, eventually, exposed, sender_from};
use ws_serve::{CloseCode, Rate, Route, Server, Socket};

everywhere! {
    a_client_that_sends_too_fast_is_read_later,
    bytes_have_a_rate_of_their_own,
    an_idle_client_is_closed_and_a_busy_one_is_not,
    a_connection_that_has_lived_its_time_is_closed,
    a_route_may_have_no_limits_at_all,
    everything_is_counted,
    connections_are_listed_and_can_be_closed,
}

/// The burst is free; what is beyond it delays the next read, not the answer to what was read.
async fn a_client_that_sends_too_fast_is_read_later(server: Server) {
    let server = server.message_rate(Rate::per_second(50).burst(5));
    let running = Running::start(server, echo);
    let mut client = running.client().await;
    for round in 0..2 {
        let began = Instant::now();
        for number in 0..15 {
            client.say(format!("{number}")).await;
        }
        for number in 0..15 {
            assert_eq!(client.hear().await, format!("{number}"));
        }
        client.say("one more").await;
        assert_eq!(client.hear().await, "one more");
        // Ten of fifteen beyond the burst, at fifty a second; a timer may be early by a tick.
        let least = Duration::from_millis(if round == 0 { 195 } else { 250 });
        assert!(began.elapsed() >= least, "{:?} in round {round}", began.elapsed());
    }
    drop(client);
    running.end().await;
}

async fn bytes_have_a_rate_of_their_own(server: Server) {
    let server = server.byte_rate(Rate::per_second(100_000)).message_rate(None);
    let running = Running::start(server, echo);
    let mut client = running.client().await;
    let began = Instant::now();
    client.say(vec![7; 120_000]).await;
    assert_eq!(client.hear_message().await.len(), 120_000);
    client.say("more").await;
    assert_eq!(client.hear().await, "more");
    assert!(began.elapsed() >= Duration::from_millis(195), "{:?}", began.elapsed());
    drop(client);
    running.end().await;
}

/// T5: an answer to a Ping is no message.
async fn an_idle_client_is_closed_and_a_busy_one_is_not(server: Server) {
    let limit = Duration::from_millis(400);
    let running = Running::start(server.idle_timeout(limit), echo);
    let began = Instant::now();
    let (mut idle, mut busy) = (running.client().await, running.client().await);
    let busy = async move {
        while began.elapsed() < 3 * limit {
            busy.say("here").await;
            assert_eq!(busy.hear().await, "here");
        }
    };
    let idle = async {
        assert_eq!(idle.hear_end().await, (1001, "idle for too long".into()));
        assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    };
    tokio::join!(busy, idle);
    running.end().await;
}

async fn a_connection_that_has_lived_its_time_is_closed(server: Server) {
    let limit = Duration::from_millis(200);
    let running = Running::start(server.max_lifetime(limit), echo);
    let began = Instant::now();
    let mut client = running.client().await;
    assert_eq!(client.hear_end().await, (1001, "time is up, please reconnect".into()));
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    running.end().await;
}

async fn a_route_may_have_no_limits_at_all(server: Server) {
    let free = Route::new(echo).message_rate(None).byte_rate(None);
    let free = free.idle_timeout(None).max_lifetime(None);
    let server = server
        .message_rate(Rate::per_second(1))
        .byte_rate(Rate::per_second(1))
        .idle_timeout(Duration::from_millis(50))
        .max_lifetime(Duration::from_millis(50))
        .fallback(free);
    let address = server.local_addr().expect("it is bound");
    let shutdown = server.shutdown_handle();
    let serving = tokio::spawn(server.run());
    let mut client = Web::open(address).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        for _ in 0..10 {
            client.say("hello").await;
        }
        for _ in 0..10 {
            assert_eq!(client.hear().await, "hello");
        }
    }
    drop(client);
    shutdown.start();
    serving.await.expect("no panic").expect("it ends well");
}

async fn everything_is_counted(server: Server) {
    async fn handler(mut socket: Socket) -> Result<(), String> {
        socket.join("news");
        while let Ok(Some(message)) = socket.receive().await {
            if message.as_text() == Some("fail") {
                return Err("as told".into());
            }
            socket.send(message).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
    let monitor = server.monitor();
    let running = Running::start(server, handler);
    assert_eq!(monitor.stats(), ws_serve::Stats::default());
    let mut clients = [running.client().await, running.client().await];
    for client in &mut clients {
        client.say("hello").await;
        assert_eq!(client.hear().await, "hello");
    }
    running.topics.get("news").publish("to both");
    for client in &mut clients {
        assert_eq!(client.hear().await, "to both");
    }
    // Two frames of 5 and two of 7 bytes, with two bytes of header each. A client may have them before
    // they are counted.
    eventually(|| monitor.stats().bytes_sent >= 2 * (2 + 5) + 2 * (2 + 7)).await;
    let stats = monitor.stats();
    assert_eq!(stats.bytes_sent, 2 * (2 + 5) + 2 * (2 + 7));
    assert_eq!((stats.connections, stats.open, stats.opened), (2, 2, 2));
    assert_eq!((stats.addresses, stats.refused, stats.not_opened), (1, 0, 0));
    assert_eq!((stats.messages_sent, stats.published.sent), (2, 2));
    assert_eq!((stats.published.delivered(), stats.published.dropped()), (2, 0));

    let [mut one, mut other] = clients;
    one.say("fail").await;
    assert_eq!(one.hear_end().await.0, 1011);
    other.0.close(CloseCode::NORMAL, "").await;
    eventually(|| monitor.stats().connections == 0).await;
    let stats = monitor.stats();
    assert_eq!((stats.open, stats.opened, stats.handlers_failed), (0, 2, 1));
    // With a mask, and Close frames of two bytes.
    assert_eq!(stats.messages_received, 3);
    assert_eq!(stats.bytes_received, 2 * (6 + 5) + (6 + 4) + (6 + 2) + (6 + 2));
    assert_eq!(stats.published.delivered(), 2);
    // The one echoed our code, the other said its own.
    assert_eq!(monitor.close_codes().into_iter().collect::<Vec<_>>(), [(1000, 1), (1011, 1)]);
    running.end().await;
}

async fn connections_are_listed_and_can_be_closed(server: Server) {
    let monitor = server.monitor();
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut client = running.client().await;
    let sender = sender_from(&mut told).await;
    let connections = monitor.connections();
    let [connection] = &connections[..] else { panic!("{connections:?}") };
    assert_eq!(connection.sender, sender);
    assert_eq!((&connection.path[..], &connection.route[..]), ("/", "*"));
    assert_eq!(connection.peer_addr, sender.peer_addr());
    assert_eq!((connection.queued, connection.counts.sent), (0, 0));
    connection.sender.close(CloseCode::POLICY_VIOLATION, "not you");
    assert_eq!(client.hear_end().await, (1008, "not you".into()));
    running.end().await;
}
