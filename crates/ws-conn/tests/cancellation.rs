//! Every future may be dropped after any poll: nothing is lost, repeated or torn (B24).

mod support;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use support::{Trickle, frame, pair, read, write};
use tokio::io::duplex;
use ws_conn::{CloseCode, Config, Message, WebSocket, proto::bytes::BytesMut};

/// Polls a future at most so often, then drops it.
async fn at_most<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

#[tokio::test]
async fn dropping_receive_at_every_poll_point_loses_no_message() {
    let long = "x".repeat(300);
    for polls in 1..60 {
        let (ours, mut peer) = duplex(1 << 16);
        let mut ws = WebSocket::server_on(Trickle::new(ours), BytesMut::new(), &Config::default());
        for (first, payload) in [
            (0x81, &b"one"[..]),
            (0x01, b"tw"),
            (0x89, b"ping"),
            (0x80, b"o"),
            (0x82, b""),
            (0x81, long.as_bytes()),
            (0x88, b"\x03\xE8"),
        ] {
            write(&mut peer, &frame(first, payload)).await;
        }
        let conversation = async {
            let mut received = Vec::new();
            loop {
                match at_most(polls, ws.receive()).await {
                    None => {}
                    Some(Ok(Some(message))) => received.push(message),
                    Some(Ok(None)) => return received,
                    Some(Err(error)) => panic!("dropped after {polls} polls: {error}"),
                }
            }
        };
        let listen = async {
            let wire = read(&mut peer, 10).await;
            drop(peer);
            wire
        };
        let (received, wire) = tokio::join!(conversation, listen);
        let expected =
            [Message::text("one"), Message::text("two"), Message::binary(""), long.as_str().into()];
        assert_eq!(received, expected, "dropped after {polls} polls");
        assert_eq!(wire, b"\x8A\x04ping\x88\x02\x03\xE8", "dropped after {polls} polls");
    }
}

#[tokio::test]
async fn dropping_receive_chunk_at_every_poll_point_loses_no_byte() {
    for polls in 1..20 {
        let (ours, mut peer) = duplex(1 << 16);
        let mut ws = WebSocket::server_on(Trickle::new(ours), BytesMut::new(), &Config::default());
        write(&mut peer, &frame(0x01, "Grü".as_bytes())).await;
        write(&mut peer, &frame(0x80, "ße".as_bytes())).await;
        let mut text = String::new();
        loop {
            let Some(chunk) = at_most(polls, ws.receive_chunk()).await else { continue };
            let chunk = chunk.expect("open").expect("open");
            text.push_str(chunk.data.as_text().expect("text"));
            if chunk.last {
                break;
            }
        }
        assert_eq!(text, "Grüße", "dropped after {polls} polls");
    }
}

#[tokio::test]
async fn dropping_send_at_every_poll_point_tears_no_frame() {
    for polls in 0..40 {
        let (ours, mut peer) = duplex(1 << 16);
        let mut ws = WebSocket::server_on(Trickle::new(ours), BytesMut::new(), &Config::default());
        // What was polled at all is queued whole; what was not is not sent.
        let first = at_most(polls, ws.send("first")).await;
        ws.send("second").await.expect("open");
        let expected: &[u8] =
            if polls == 0 { b"\x81\x06second" } else { b"\x81\x05first\x81\x06second" };
        assert!(polls < 20 || first.is_some());
        assert_eq!(read(&mut peer, expected.len()).await, expected, "dropped after {polls} polls");
    }
}

#[tokio::test]
async fn dropping_flush_and_ping_at_every_poll_point_tears_no_frame() {
    for polls in 1..30 {
        let (ours, mut peer) = duplex(1 << 16);
        let mut ws = WebSocket::server_on(Trickle::new(ours), BytesMut::new(), &Config::default());
        ws.feed("data").await.expect("open");
        let _ = at_most(polls, ws.flush()).await;
        let _ = at_most(polls, ws.ping()).await;
        ws.flush().await.expect("open");
        // The Ping overtakes what has not been begun, at a frame boundary.
        let wire = read(&mut peer, 16).await;
        let data = b"\x81\x04data";
        let ping = b"\x89\x08\0\0\0\0\0\0\0\0";
        let legal = [[&data[..], ping].concat(), [&ping[..], data].concat()];
        assert!(legal.contains(&wire), "dropped after {polls} polls: {wire:02x?}");
    }
}

#[tokio::test]
async fn dropping_close_at_every_poll_point_completes_the_handshake_with_the_next_call() {
    for polls in 0..30 {
        let (mut server, mut client) = pair(&Config::default());
        let closing = async {
            let _ = at_most(polls, server.close(CloseCode::new(4000).expect("legal"), "bye")).await;
            server.close(CloseCode::new(4000).expect("legal"), "bye").await
        };
        let (server, client) = tokio::join!(closing, client.receive());
        assert_eq!((server.code(), server.is_clean()), (4000, true), "dropped after {polls} polls");
        let error = client.expect_err("4000 is a complaint");
        assert_eq!(
            error.to_string(),
            "received 4000 (private use) bye; then sent 4000 (private use) bye"
        );
    }
}
