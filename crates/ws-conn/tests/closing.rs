//! The end of connections: in order, in disorder, and in time (RFC 6455 §7; B30, B31, T14).

mod support;

use std::{io, time::Duration};

use support::{Liar, frame, pair, read, server_and_peer, write};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use ws_conn::{CloseCode, Config, Error, Keepalive, Message, WebSocket, proto::bytes::BytesMut};

fn quiet() -> Config {
    Config::default().keepalive(Keepalive::off())
}

#[tokio::test]
async fn either_side_may_close_and_both_may_at_once() {
    let (mut server, mut client) = pair(&quiet());
    let (server_end, client_end) =
        tokio::join!(server.receive(), client.close(CloseCode::NORMAL, "bye"));
    assert!(server_end.expect("clean").is_none());
    assert_eq!((client_end.code(), client_end.reason()), (1000, "bye"));

    let (mut server, mut client) = pair(&quiet());
    let (server_end, client_end) =
        tokio::join!(server.close(CloseCode::GOING_AWAY, ""), client.receive());
    assert_eq!(server_end.to_string(), "sent 1001 (going away); then received 1001 (going away)");
    assert!(client_end.expect("clean").is_none());

    let (mut server, mut client) = pair(&quiet());
    let (server_end, client_end) =
        tokio::join!(server.close(CloseCode::GOING_AWAY, ""), client.close(CloseCode::NORMAL, ""));
    assert!(server_end.is_clean() && client_end.is_clean());
    // Closing and receiving after the end say the same again.
    assert_eq!(server.close(CloseCode::NORMAL, "again").await, server_end);
    assert!(server.receive().await.expect("clean").is_none());
    assert!(matches!(server.send("late").await, Err(Error::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_has_the_close_timeout_and_no_more() {
    let (mut ws, mut peer) = server_and_peer(&quiet().close_timeout(Duration::from_secs(7)));
    let start = Instant::now();
    let closed = ws.close(CloseCode::NORMAL, "").await;
    assert_eq!(start.elapsed().as_secs(), 7);
    assert_eq!(closed.to_string(), "sent 1000 (OK); no close frame received");
    assert_eq!(read(&mut peer, 4).await, b"\x88\x02\x03\xE8");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_trickles_gets_no_more_time() {
    let (mut ws, mut peer) = server_and_peer(&quiet());
    let start = Instant::now();
    let trickle = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await; // tidy: allow-sleep(the clock is stopped)
            if peer.write_all(&frame(0x82, b"more")).await.is_err() {
                return;
            }
        }
    };
    let closed = tokio::select! {
        closed = ws.close(CloseCode::NORMAL, "") => closed,
        () = trickle => panic!("closed by the peer"),
    };
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(closed.code(), 1006);
}

#[tokio::test]
async fn the_end_of_tcp_without_a_close_frame_is_1006() {
    let (mut ws, peer) = server_and_peer(&quiet());
    drop(peer);
    for _ in 0..2 {
        let error = ws.receive().await.expect_err("not clean");
        assert_eq!(error.closed().map(|closed| closed.code()), Some(1006));
        assert_eq!(error.to_string(), "no close frame received or sent");
        assert!(error.is_disconnect());
    }
}

#[tokio::test]
async fn data_after_our_close_is_still_received_until_the_peers() {
    let (mut ws, mut peer) = server_and_peer(&quiet());
    ws.start_close(CloseCode::NORMAL, "");
    for bytes in [frame(0x81, b"late"), frame(0x88, b"\x03\xE8"), frame(0x81, b"too late")] {
        write(&mut peer, &bytes).await;
    }
    assert_eq!(ws.receive().await.expect("open"), Some(Message::text("late")));
    let (end, ()) = tokio::join!(ws.receive(), async {
        assert_eq!(read(&mut peer, 4).await, b"\x88\x02\x03\xE8");
        // §7.1.1: the server ends TCP first, and nothing came behind its Close.
        assert_eq!(peer.read_u8().await.map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
        drop(peer);
    });
    assert!(end.expect("clean").is_none());
}

#[tokio::test]
async fn a_violation_behind_good_messages_comes_after_them() {
    let (mut ws, mut peer) = server_and_peer(&quiet());
    let wire = [frame(0x81, b"good"), frame(0x83, b"")].concat();
    write(&mut peer, &wire).await;
    assert_eq!(ws.receive().await.expect("open"), Some(Message::text("good")));
    let (end, close) = tokio::join!(ws.receive(), async {
        let close = read(&mut peer, 22).await;
        drop(peer);
        close
    });
    assert_eq!(close, b"\x88\x14\x03\xEAinvalid opcode 0x3");
    let error = end.expect_err("a violation");
    assert_eq!(
        error.to_string(),
        "sent 1002 (protocol error) invalid opcode 0x3; no close frame received"
    );
    assert!(!error.is_disconnect());
}

/// B41, P7: what cannot be believed ends the connection; nothing panics, nothing spins.
#[tokio::test]
async fn a_transport_that_lies_about_writing_is_an_error() {
    let lies: [fn(usize) -> io::Result<usize>; 3] =
        [|_| Ok(0), |len| Ok(len + 1), |_| Err(io::ErrorKind::BrokenPipe.into())];
    for lie in lies {
        let mut ws = WebSocket::server_on(Liar(lie), BytesMut::new(), &quiet());
        assert!(matches!(ws.send("x").await, Err(Error::Closed { .. })));
        assert!(matches!(ws.send("y").await, Err(Error::Closed { .. })));
    }
}

/// B30: what the peer said before it went counts, even if our answer cannot leave.
#[tokio::test]
async fn the_peers_reason_survives_a_failing_write() {
    let (mut ws, mut peer) = server_and_peer(&quiet());
    write(&mut peer, &frame(0x88, b"\x0F\xA1kicked")).await;
    drop(peer);
    let _ = ws.send("into the void").await;
    let error = ws.receive().await.expect_err("a complaint");
    assert_eq!(
        error.closed().map(|closed| (closed.code(), closed.reason().to_owned())),
        Some((4001, "kicked".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn keepalive_ends_a_silent_connection_and_keeps_a_living_one() {
    let (mut ws, mut peer) = server_and_peer(&Config::default());
    let start = Instant::now();
    let error = ws.receive().await.expect_err("silence");
    // 20 s to the Ping, 20 s of silence, 10 s for a Close that nobody answers.
    assert_eq!(start.elapsed().as_secs(), 50);
    assert!(error.to_string().starts_with("sent 1011 (internal error) keepalive ping timeout"));
    assert_eq!(read(&mut peer, 11).await, b"\x89\x09keepalive");

    let (mut server, mut client) = pair(&Config::default());
    let hours = tokio::time::timeout(Duration::from_secs(7200), async {
        tokio::join!(server.receive(), client.receive())
    });
    assert!(hours.await.is_err(), "both answer, so both live");
    assert!(server.is_open() && client.is_open());
}

/// B29: what comes in between does not put the Ping off for ever.
#[tokio::test(start_paused = true)]
async fn activity_does_not_postpone_the_ping() {
    let (mut ws, mut peer) = server_and_peer(&Config::default());
    let start = Instant::now();
    let chatter = async {
        let mut wire = vec![0; 11];
        loop {
            tokio::select! {
                read = peer.read_exact(&mut wire) => { read.expect("open"); return wire; }
                () = tokio::time::sleep(Duration::from_secs(3)) => {} // tidy: allow-sleep(the clock is stopped)
            }
            peer.write_all(&frame(0x82, b"busy")).await.expect("open");
        }
    };
    let listen = async { while ws.receive().await.expect("open").is_some() {} };
    let wire = tokio::select! { wire = chatter => wire, () = listen => panic!("closed") };
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(wire, b"\x89\x09keepalive");
}
