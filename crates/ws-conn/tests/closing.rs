//! The end of a connection as the application sees it (RFC 6455 §7): the closing handshake from either
//! side, its one time limit, and transports that fail instead (B30, B31, T14).
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{error::Error as _, io, sync::Arc, time::Duration};

use futures_util::SinkExt;
use support::{Lie, Wakes, connected, endpoint, frame, hex, poll_once, settle, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, advance, sleep},
};
use ws_conn::{
    Client, CloseCode, Config, Error, Keepalive, Message, Server,
    proto::{ProtocolError, Role},
};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

fn code(code: u16) -> CloseCode {
    CloseCode::new(code).expect("it may be sent")
}

/// What the peer closes with is what it gets back, and what we close with is ours.
async fn closes_from_either_side(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.send("8101 61 880a 0fa1 676f6f64627965 21");
    peer.hang_up_after_close("0fa1 676f6f64627965 21");
    assert_eq!(ws.receive().await.unwrap(), Some("a".into()));
    let error = ws.receive().await.unwrap_err();
    let closed = error.closed().unwrap();
    assert_eq!((closed.code(), closed.reason(), closed.received_first), (4001, "goodbye!", true));
    assert_eq!(peer.received(), ["880a0fa1676f6f6462796521"]);
    assert!(peer.sees_the_end());

    let (mut ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    let closing = async { ws.close(code(4001), "bye").await };
    let answering = async {
        settle().await;
        assert_eq!(peer.received(), ["88050fa1627965"]);
        peer.send("8802 0fa1");
        settle().await;
        // §7.1.1: the server is the first to end TCP.
        assert_eq!(peer.sees_the_end(), role == Role::Server);
        peer.fin();
    };
    let (closed, ()) = tokio::join!(closing, answering);
    assert_eq!((closed.code(), closed.received_first, closed.is_clean()), (4001, false, true));
    assert_eq!(closed.to_string(), "sent 4001 (private use) bye; then received 4001 (private use)");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!ws.is_open());
}

/// Codes that do not complain are no error; an empty Close frame is 1005 and clean.
async fn a_clean_end_is_no_error(role: Role) {
    for (frame, payload, code) in
        [("8802 03e8", "03e8", 1000), ("8802 03e9", "03e9", 1001), ("8800", "", 1005)]
    {
        let (mut ws, peer) = endpoint(role, &Config::default());
        peer.send(frame);
        peer.hang_up_after_close(payload);
        assert_eq!(ws.receive().await.unwrap(), None);
        assert_eq!(ws.closed().code(), code);
        assert_eq!(peer.received(), [frame.replace(' ', "")]);
    }
}

/// T14: what must not be in a Close frame is a violation like others.
async fn a_bad_close_frame_fails_the_connection(role: Role) {
    for (frame, answer) in [
        ("8801 03", "03ea"), // one byte
        ("8802 03e7", "03ea"),
        ("8802 03ec", "03ea"),
        ("8802 03ed", "03ea"),
        ("8802 03ee", "03ea"),
        ("8802 03f7", "03ea"),
        ("8803 03e8 ff", "03ef"),
    ] {
        let (mut ws, peer) = endpoint(role, &Config::default());
        peer.send(frame);
        let ended = async {
            settle().await;
            let sent = peer.received();
            assert_eq!((sent.len(), &sent[0][4..8]), (1, answer), "{frame}");
            peer.fin();
        };
        let (error, ()) = tokio::join!(ws.receive(), ended);
        let error = error.unwrap_err();
        assert_eq!(error.closed().unwrap().code(), 1006);
        assert!(error.closed().unwrap().cause.is_some() && !error.is_disconnect());
    }
}

/// T14, B30: one limit, from the Close frame to the end of TCP.
async fn a_peer_that_never_answers_is_left_after_the_close_timeout(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    let closed = ws.close(CloseCode::NORMAL, "").await;
    assert_eq!(start.elapsed(), CLOSE_TIMEOUT);
    assert_eq!(closed.to_string(), "sent 1000 (OK); no close frame received");
    assert_eq!((closed.code(), closed.is_clean()), (1006, false));
    assert_eq!(peer.received(), ["880203e8"]);

    // It answered, and does not let go of the transport.
    let (mut ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    peer.send("8802 03e8");
    assert_eq!(ws.receive().await.unwrap(), None);
    assert_eq!(start.elapsed(), CLOSE_TIMEOUT);
    assert_eq!(peer.received(), ["880203e8"]);
}

/// B30: neither data nor Pings nor half a Close frame buy time.
async fn a_peer_that_trickles_does_not_stretch_the_close_timeout(role: Role) {
    for (answered, trickle) in
        [(false, "8101 61"), (false, "8900"), (false, "0100 8000"), (true, "8101 61")]
    {
        let config = Config::default().close_timeout(Duration::from_millis(2500));
        let (mut ws, peer) = endpoint(role, &config);
        if answered {
            peer.send("8802 03e8");
        }
        let trickling = tokio::spawn(async move {
            loop {
                peer.send(trickle);
                sleep(Duration::from_millis(10)).await; // tidy: allow-sleep(the clock is stopped)
            }
        });
        let start = Instant::now();
        let closed = ws.close(CloseCode::NORMAL, "").await;
        assert_eq!(closed.received.is_some(), answered);
        assert_eq!(start.elapsed(), Duration::from_millis(2500));
        trickling.abort();
    }
}

/// The same for an application that goes on receiving: each message is handed over, and then it ends.
async fn receiving_does_not_stretch_the_close_timeout(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    let trickling = tokio::spawn(async move {
        loop {
            peer.send("8101 61");
            sleep(Duration::from_millis(100)).await; // tidy: allow-sleep(the clock is stopped)
        }
    });
    let start = Instant::now();
    ws.start_close(CloseCode::NORMAL, "");
    let mut messages = 0;
    while let Ok(message) = ws.receive().await {
        assert_eq!(message, Some("a".into()));
        messages += 1;
    }
    assert_eq!(start.elapsed(), CLOSE_TIMEOUT);
    assert!((100..=101).contains(&messages), "{messages}");
    trickling.abort();
}

/// Halves, with a peer that takes nothing: the half that sends cannot even write its Close frame.
async fn a_half_that_closes_starts_the_clock_although_nothing_can_be_written(role: Role) {
    for queued in [0, 100_000] {
        let config = Config::default().keepalive(Keepalive::off());
        let (ws, peer) = endpoint(role, &config);
        peer.take_only(0);
        let (sender, mut receiver) = ws.split();
        let receiving = tokio::spawn(async move {
            let start = Instant::now();
            receiver.receive().await.unwrap_err();
            start.elapsed()
        });
        settle().await;
        if queued > 0 {
            // Dropped with its message in the queue, which is more than the write limit.
            assert!(poll_once(sender.send(vec![0; queued])).await.is_none());
        }
        let closing = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
        let elapsed = tokio::time::timeout(Duration::from_secs(1000), receiving).await;
        assert_eq!(elapsed.map(Result::unwrap), Ok(CLOSE_TIMEOUT), "{queued} bytes queued");
        assert!(closing.await.unwrap().is_err());
    }
}

/// B31: the peer's messages count until its Close frame comes; ours are over.
async fn messages_behind_our_close_are_received(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.hang_up_after_close("03e8");
    ws.feed("before").await.unwrap();
    ws.start_close(CloseCode::NORMAL, "");
    assert!(matches!(ws.send("after").await, Err(Error::Closed { .. })));
    assert!(matches!(ws.ping().await, Err(Error::Closed { .. })));
    // A Ping is not answered any more (§5.5.1), and after the peer's Close nothing counts.
    peer.send("8101 61 8901 70 8201 01 8802 03e8 8101 78");
    assert_eq!(ws.receive().await.unwrap(), Some("a".into()));
    assert_eq!(ws.receive().await.unwrap(), Some(vec![1].into()));
    assert_eq!(ws.receive().await.unwrap(), None);
    assert_eq!(peer.received(), ["81066265666f7265", "880203e8"]);
}

/// §5.5.1: an endpoint that got a Close frame "MUST send a Close frame in response", also to a peer
/// that has ended its own sending with it.
async fn a_close_is_answered_although_the_peer_ended_its_sending(role: Role) {
    for (frames, answer) in [("8802 03e8", "880203e8"), ("8902 7071 8802 03e8", "8a027071")] {
        let (mut ws, peer) = endpoint(role, &Config::default());
        peer.send(frames);
        peer.fin();
        assert_eq!(ws.receive().await.unwrap(), None);
        assert_eq!(peer.received().first().map_or("nothing", String::as_str), answer);
    }
}

/// §7.1.7: who broke a rule is told which.
async fn a_violation_is_answered_although_the_peer_ended_its_sending(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.send("8102 c328");
    peer.fin();
    let error = ws.receive().await.unwrap_err();
    assert!(matches!(error.closed().unwrap().cause, Some(ProtocolError::InvalidUtf8(_))));
    assert_eq!(peer.received().first().map_or("nothing", |sent| &sent[4..8]), "03ef");
}

async fn closing_twice_does_no_harm(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    ws.start_close(code(4001), "first");
    ws.start_close(code(4002), "second");
    peer.send("8802 0fa1");
    peer.hang_up_after_close("0fa1 6669727374");
    let closed = ws.close(code(4003), "third").await;
    assert_eq!(ws.close(code(4004), "fourth").await, closed);
    assert_eq!(closed.sent.unwrap().reason(), "first");
    assert_eq!(peer.received(), ["88070fa16669727374"]);
}

/// What ended in one way ended in this way however often one asks.
async fn the_end_is_reported_again(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.fin();
    let first = ws.receive().await.unwrap_err();
    for _ in 0..3 {
        let again = ws.receive().await.unwrap_err();
        assert_eq!((again.closed(), again.to_string()), (first.closed(), first.to_string()));
        assert!(matches!(ws.send("x").await, Err(Error::Closed { .. })));
        assert!(ws.receive_chunk().await.is_err());
    }
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.send("8800");
    peer.hang_up_after_close("");
    for _ in 0..3 {
        assert_eq!(ws.receive().await.unwrap(), None);
    }
    assert_eq!(peer.received().len(), 1);
}

/// FIN without a Close frame is 1006 in words, and so is a FIN in the middle of a frame.
async fn a_transport_that_ends_without_close_is_1006(role: Role) {
    for missing in [9, 8, 3] {
        let (mut ws, peer) = endpoint(role, &Config::default());
        let hello =
            if role == Role::Server { "8183 00000000 616263" } else { "8107 61626364656667" };
        peer.send_raw(&hex(hello)[..9 - missing]);
        peer.fin();
        let error = ws.receive().await.unwrap_err();
        assert_eq!(error.to_string(), "no close frame received or sent");
        assert_eq!(error.closed().unwrap().code(), 1006);
        assert!(error.is_disconnect() && !ws.is_open());
    }
}

async fn a_reset_says_what_the_transport_said(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.send("8101 61");
    peer.reset();
    assert_eq!(ws.receive().await.unwrap(), Some("a".into()));
    let error = ws.receive().await.unwrap_err();
    assert_eq!(error.to_string(), "no close frame received or sent: connection reset");
    let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
}

/// The peer went with a reason, and our writing noticed first that it went.
async fn a_failed_write_does_not_hide_the_peers_reason(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.send("8101 61 8802 0fa1");
    peer.fin();
    peer.fail_writes();
    let error = ws.send("x").await.unwrap_err();
    assert_eq!(error.to_string(), "no close frame received or sent: broken pipe");
    assert!(ws.send("y").await.is_err());
    assert_eq!(ws.receive().await.unwrap(), Some("a".into()));
    assert_eq!(ws.receive().await.unwrap_err().closed().unwrap().code(), 4001);
    assert_eq!(peer.received(), [""; 0]);
}

/// A connection that cannot write can be of no use for long, even if reading never says so.
async fn a_failed_write_ends_the_connection_in_the_end(role: Role) {
    for closes in [true, false] {
        let (mut ws, peer) = endpoint(role, &Config::default());
        peer.fail_writes();
        assert!(ws.send("x").await.is_err());
        let ending = async {
            if closes {
                ws.close(CloseCode::NORMAL, "").await;
            } else {
                ws.receive().await.unwrap_err();
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(1000), ending).await;
        assert!(ended.is_ok(), "it hangs, closes: {closes}");
    }
}

async fn a_connection_that_cannot_write_is_not_open(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.fail_writes();
    assert!(ws.is_open() && ws.send("x").await.is_err());
    assert!(!ws.is_open());
}

/// B30: as in tokio-websockets 0.11.3, where `poll_close` after an error did not return.
async fn a_sink_closes_after_an_error(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    peer.reset();
    assert!(ws.send("x").await.is_err());
    SinkExt::close(&mut ws).await.unwrap();
    assert_eq!(ws.closed().code(), 1006);
}

/// B41: what lies about writing is not trusted again, and nothing panics.
async fn a_transport_that_lies_is_broken(role: Role) {
    for (lie, kind) in [
        (Lie::OneTooMany, io::ErrorKind::InvalidData),
        (Lie::Nothing, io::ErrorKind::WriteZero),
        (Lie::NothingVectored, io::ErrorKind::WriteZero),
    ] {
        // In one piece, and in several; it lies once and is honest afterwards.
        for sizes in [&[1][..], &[1, 20_000, 1], &[20_000, 20_000]] {
            let (mut ws, peer) = endpoint(role, &Config::default());
            peer.lie(lie);
            for size in sizes {
                ws.feed(vec![0; *size]).await.unwrap();
            }
            match ws.flush().await {
                Err(Error::Closed { cause: Some(cause), .. }) => assert_eq!(cause.kind(), kind),
                Ok(()) if lie == Lie::NothingVectored && sizes.len() == 1 => {}
                other => panic!("{lie:?}, {sizes:?}: {other:?}"),
            }
        }
    }
}

both! {
    closes_from_either_side,
    a_clean_end_is_no_error,
    a_bad_close_frame_fails_the_connection,
    a_peer_that_never_answers_is_left_after_the_close_timeout,
    a_peer_that_trickles_does_not_stretch_the_close_timeout,
    receiving_does_not_stretch_the_close_timeout,
    a_half_that_closes_starts_the_clock_although_nothing_can_be_written,
    messages_behind_our_close_are_received,
    a_close_is_answered_although_the_peer_ended_its_sending,
    a_violation_is_answered_although_the_peer_ended_its_sending,
    closing_twice_does_no_harm,
    the_end_is_reported_again,
    a_transport_that_ends_without_close_is_1006,
    a_reset_says_what_the_transport_said,
    a_failed_write_does_not_hide_the_peers_reason,
    a_failed_write_ends_the_connection_in_the_end,
    a_connection_that_cannot_write_is_not_open,
    a_sink_closes_after_an_error,
    a_transport_that_lies_is_broken,
}

/// Both sides at once: each takes the other's Close frame for the answer, and nobody waits.
#[tokio::test(start_paused = true)]
async fn closing_from_both_sides_at_once_is_clean() {
    let (mut client, mut server) = connected(64, &Config::default());
    let start = Instant::now();
    client.start_close(code(4001), "client");
    server.start_close(code(4002), "server");
    let (client, server) =
        tokio::join!(async move { client.close(CloseCode::NORMAL, "").await }, async move {
            server.close(CloseCode::NORMAL, "").await
        },);
    for (closed, received) in [(client, 4002), (server, 4001)] {
        assert_eq!((closed.code(), closed.received_first), (received, false));
        assert_eq!(closed.sent.map(|sent| sent.code()), Some(Some(code(8003 - received))));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// A Close frame waits its turn behind what was sent; the half that receives completes the handshake.
#[tokio::test(start_paused = true)]
async fn a_half_closes_behind_its_messages() {
    let (client, mut server) = connected(16, &Config::default());
    let (sender, mut receiver) = client.split();
    let closing = tokio::spawn(async move {
        sender.send("x".repeat(1000)).await.unwrap();
        sender.close(code(4000), "done").await.unwrap();
        let error = sender.close(CloseCode::NORMAL, "again").await.unwrap_err();
        assert!(matches!(error, Error::Closed { .. }));
    });
    let serving = async {
        assert_eq!(server.receive().await.unwrap(), Some(Message::from("x".repeat(1000))));
        server.receive().await.unwrap_err()
    };
    let receiving = async {
        let ended = receiver.receive().await.unwrap();
        drop(receiver);
        ended
    };
    let (error, ended) = within(async { tokio::join!(serving, receiving) }).await;
    assert_eq!(error.closed().unwrap().code(), 4000);
    // The echo of our own code is no complaint.
    assert_eq!(ended, None);
    closing.await.unwrap();
}

/// A receiver that waits without a timer learns that its other half has begun to close.
#[tokio::test(start_paused = true)]
async fn a_waiting_receiver_is_woken_to_watch_the_close() {
    let (ws, _peer) = endpoint(Role::Client, &Config::default().keepalive(Keepalive::off()));
    let (sender, mut receiver) = ws.split();
    let wakes = Arc::<Wakes>::default();
    let start = {
        let mut receive = std::pin::pin!(receiver.receive());
        assert!(wakes.poll(receive.as_mut()).is_pending());
        let start = Instant::now();
        sender.close(CloseCode::NORMAL, "").await.unwrap();
        assert_eq!(wakes.count(), 1);
        assert!(wakes.poll(receive.as_mut()).is_pending());
        advance(CLOSE_TIMEOUT).await;
        settle().await;
        assert!(wakes.count() >= 2);
        start
    };
    within(receiver.receive()).await.unwrap_err();
    assert_eq!(start.elapsed(), CLOSE_TIMEOUT);
}

/// §7.1.1 over a real socket: the server ends TCP after the closing handshake, so the client reads
/// the end and no reset.
#[tokio::test]
async fn the_server_ends_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut ws = Server::new().accept(listener.accept().await.unwrap().0).await.unwrap();
        let ended = ws.receive().await;
        (ended, ws)
    });
    let client = Client::new(&url).unwrap();
    support::within_a_minute(async {
        let mut stream = tokio::net::TcpStream::connect(&url[5..url.len() - 1]).await.unwrap();
        {
            let (ws, _) = client.connect_over(&mut stream).await.unwrap();
            drop(ws);
        }
        stream.write_all(&support::masked(&frame(0x88, [0x03, 0xe8]))).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, frame(0x88, [0x03, 0xe8]));
        drop(stream);
        let (ended, ws) = serving.await.unwrap();
        assert_eq!(ended.unwrap(), None);
        assert!(!ws.is_open());
    })
    .await;
}
