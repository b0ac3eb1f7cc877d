//! Cancel safety (B24): whatever future is dropped, and after however many polls, nothing is lost,
//! repeated or torn. All I/O is one byte at a time and pending in between (RFC 6455 §5.4, §5.5).
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use proptest::prelude::*;
use support::{Peer, Slow, Transport, frame, hex, poll_times, transport, websocket};
use tokio::{runtime::Builder, task::unconstrained};
use ws_conn::{CloseCode, Config, Error, Message, WebSocket, proto::Role};

/// What the peer says: every kind of frame, Pings between and inside messages, a length of 16 bits.
fn dialogue() -> Vec<u8> {
    [
        &hex("8103 6f6e65 8901 70")[..],
        &hex("0103 74c3a4 8901 71 0000 8003 e282ac"),
        &hex("8200"),
        &frame(0x82, [7; 300]),
        &hex("8a01 00 8103 656e64 8802 03e8"),
    ]
    .concat()
}

fn messages() -> Vec<Message> {
    vec!["one".into(), "tä€".into(), vec![].into(), vec![7; 300].into(), "end".into()]
}

/// Two Pongs and the echoed Close.
const ANSWERS: [&str; 3] = ["8a0170", "8a0171", "880203e8"];

/// More polls than any run here takes.
const ENOUGH: usize = 1000;

/// When futures are dropped.
#[derive(Clone, Copy, Debug)]
struct Drops {
    /// After so many polls of each.
    each: usize,
    /// After so many polls of all of them, once.
    at: usize,
}

impl Drops {
    /// Every short life, and every point of a run.
    fn all() -> impl Iterator<Item = Self> {
        let often = (1..20).map(|each| Self { each, at: ENOUGH });
        often.chain((1..ENOUGH).map(|at| Self { each: ENOUGH, at }))
    }

    /// Polls a future until it is ready or to be dropped.
    fn poll<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..self.each {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            self.at = self.at.wrapping_sub(1);
            if self.at == 0 {
                break;
            }
        }
        None
    }

    /// Runs an operation to its end through any number of drops.
    fn insist<T>(&mut self, mut operation: impl FnMut(&mut Self) -> Option<T>) -> T {
        let outputs = std::iter::repeat_with(|| operation(self)).take(ENOUGH);
        outputs.flatten().next().expect("it ends")
    }
}

fn stuttering(role: Role, config: &Config) -> (WebSocket<Slow<Transport>>, Peer) {
    let (transport, peer) = transport(role);
    peer.hang_up_after_close("03e8");
    (websocket(role, Slow::stuttering(transport), config), peer)
}

async fn a_dropped_receive_loses_nothing(role: Role) {
    for mut drops in Drops::all() {
        let (mut ws, peer) = stuttering(role, &Config::default());
        peer.send_frames(&dialogue());
        let mut received = Vec::new();
        while let Some(message) = drops.insist(|drops| drops.poll(ws.receive())).unwrap() {
            received.push(message);
        }
        assert!(received == messages(), "{drops:?}: {received:?}");
        assert_eq!(peer.received(), ANSWERS, "{drops:?}");
        assert!(peer.sees_the_end() || role == Role::Client);
    }
}

async fn a_dropped_receive_of_a_chunk_loses_nothing(role: Role) {
    for mut drops in Drops::all() {
        let (mut ws, peer) = stuttering(role, &Config::default());
        peer.send_frames(&dialogue());
        let mut received = Vec::new();
        let mut message = BytesMut::new();
        while let Some(chunk) = drops.insist(|drops| drops.poll(ws.receive_chunk())).unwrap() {
            message.extend_from_slice(chunk.data.as_bytes());
            if chunk.last {
                received.push((chunk.data.is_text(), message.split().freeze()));
            }
        }
        let expected = messages().into_iter().map(|sent| (sent.is_text(), sent.into_bytes()));
        assert!(received == expected.collect::<Vec<_>>(), "{drops:?}: {received:?}");
        assert_eq!(peer.received(), ANSWERS, "{drops:?}");
    }
}

/// As it is with halves, where senders of the same connection come in between.
async fn a_dropped_receive_of_a_half_loses_nothing(role: Role) {
    for mut drops in Drops::all().step_by(7) {
        let (ws, peer) = stuttering(role, &Config::default());
        let (sender, mut receiver) = ws.split();
        peer.send_frames(&dialogue());
        let mut received = Vec::new();
        while let Some(message) = drops.insist(|drops| drops.poll(receiver.receive())).unwrap() {
            received.push(message);
            assert!(poll_times(1, sender.send("x")).is_none());
        }
        assert!(received == messages(), "{drops:?}: {received:?}");
        let (own, answers): (Vec<_>, Vec<_>) =
            peer.received().into_iter().partition(|frame| frame == "810178");
        assert_eq!((own.len(), &answers[..]), (5, &ANSWERS.map(String::from)[..]), "{drops:?}");
    }
}

/// Queued at the first poll or not at all; what is queued leaves whole, in order, once.
async fn dropped_sends_and_flushes_tear_nothing(role: Role) {
    for mut drops in Drops::all() {
        let (mut ws, peer) = stuttering(role, &Config::default());
        let _ = drops.poll(ws.send("one"));
        let _ = drops.poll(ws.flush());
        let _ = drops.poll(ws.ping());
        let _ = drops.poll(ws.send_chunk("tw", false));
        drops.insist(|drops| drops.poll(ws.flush())).unwrap();
        let _ = drops.poll(ws.send_chunk("o", true));
        let _ = drops.poll(ws.receive());
        let _ = drops.poll(ws.send(vec![7; 300]));
        peer.send("8802 03e8");
        let closed = drops.insist(|drops| drops.poll(ws.close(CloseCode::NORMAL, "")));
        assert!(closed.is_clean(), "{drops:?}: {closed}");

        let mut frames = peer.received();
        // Control frames go between any two others (§5.4), and where depends on the drops.
        let ping = frames.iter().position(|frame| frame == "89080000000000000000").unwrap();
        frames.remove(ping);
        let big = format!("827e012c{}", "07".repeat(300));
        assert_eq!(frames, ["81036f6e65", "01027477", "80016f", &big, "880203e8"], "{drops:?}");
    }
}

/// A `feed` that waits has queued nothing, so it can be called again.
async fn a_dropped_feed_has_queued_nothing(role: Role) {
    for mut drops in Drops::all().step_by(3) {
        let (mut ws, peer) = stuttering(role, &Config::default().write_limit(0));
        for i in 0..10 {
            let message = format!("{i}");
            drops.insist(|drops| drops.poll(ws.feed(message.clone()))).unwrap();
        }
        drops.insist(|drops| drops.poll(ws.flush())).unwrap();
        let expected: Vec<_> = (0..10).map(|i| format!("81013{i}")).collect();
        assert_eq!(peer.received(), expected, "{drops:?}");
    }
}

async fn a_dropped_close_closes_once(role: Role) {
    for mut drops in Drops::all().step_by(3) {
        let (ws, peer) = stuttering(role, &Config::default());
        let (sender, mut receiver) = ws.split();
        let _ = drops.poll(sender.send("a"));
        let _ = drops.poll(sender.close(CloseCode::NORMAL, ""));
        assert!(matches!(
            poll_times(1, sender.close(CloseCode::GOING_AWAY, "again")),
            Some(Err(Error::Closed { .. }))
        ));
        peer.send("8802 03e8");
        let ended = drops.insist(|drops| drops.poll(receiver.receive()));
        assert_eq!(ended.unwrap(), None);
        assert_eq!(peer.received(), ["810161", "880203e8"], "{drops:?}");
    }
}

/// Nobody has seen a byte of the message, so whoever asks next gets all of it.
async fn a_message_that_began_under_a_dropped_receive_of_a_chunk_is_whole(role: Role) {
    let (mut ws, peer) = stuttering(role, &Config::default());
    let wire = hex(if role == Role::Server { "8183 00000000 616263" } else { "8103 616263" });
    let head = wire.len() - 3;
    peer.send_raw(&wire[..head]);
    assert!(poll_times(100, ws.receive_chunk()).is_none());
    assert_eq!(peer.unread(), 0);
    peer.send_raw(&wire[head..]);
    assert_eq!(poll_times(100, ws.receive()).map(Result::unwrap), Some(Some("abc".into())));
}

/// The other way round: chunks are asked for while a message is coming whole.
async fn a_message_that_began_under_a_dropped_receive_is_the_next_chunk(role: Role) {
    let (mut ws, peer) = stuttering(role, &Config::default());
    peer.send("0101 61");
    assert!(poll_times(100, ws.receive()).is_none());
    peer.send("8001 62");
    let chunk = poll_times(100, ws.receive_chunk()).unwrap().unwrap().unwrap();
    assert_eq!((chunk.data, chunk.last), ("ab".into(), true));
}

both! {
    a_dropped_receive_loses_nothing,
    a_dropped_receive_of_a_chunk_loses_nothing,
    a_dropped_receive_of_a_half_loses_nothing,
    dropped_sends_and_flushes_tear_nothing,
    a_dropped_feed_has_queued_nothing,
    a_dropped_close_closes_once,
    a_message_that_began_under_a_dropped_receive_of_a_chunk_is_whole,
    a_message_that_began_under_a_dropped_receive_is_the_next_chunk,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two connections, a narrow pipe, and futures that live for any number of polls, in any order.
    #[test]
    fn connections_agree_whatever_is_dropped(
        steps in prop::collection::vec((0..2usize, 0..6u8, 0..300usize, 1..60usize), 1..60),
        pipe in 1..40usize,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(unconstrained(async {
            let (near, far) = tokio::io::duplex(pipe);
            let config = Config::default();
            let mut sides = [
                websocket(Role::Client, Slow::stuttering(near), &config),
                websocket(Role::Server, Slow::stuttering(far), &config),
            ];
            let (mut sent, mut received) = ([vec![], vec![]], [vec![], vec![]]);
            for (side, operation, len, polls) in steps {
                let ws = &mut sides[side];
                let message = Message::from("x".repeat(len));
                match operation {
                    // Queued with the first poll, as little is queued.
                    0 => {
                        let _ = poll_times(polls, ws.send(message.clone()));
                        sent[side].push(message);
                    }
                    1 => {
                        poll_times(1, ws.feed(message.clone())).unwrap().unwrap();
                        sent[side].push(message);
                    }
                    2 => drop(poll_times(polls, ws.flush())),
                    3 => drop(poll_times(polls, ws.ping())),
                    _ => {
                        let message = poll_times(polls, ws.receive());
                        received[side].extend(message.map(|message| message.unwrap().unwrap()));
                    }
                }
            }
            for side in [0, 1].into_iter().cycle().take(100_000) {
                if [received[1].len(), received[0].len()] == [sent[0].len(), sent[1].len()] {
                    break;
                }
                let message = poll_times(1, sides[side].receive());
                received[side].extend(message.map(|message| message.unwrap().unwrap()));
            }
            assert!(received[0] == sent[1] && received[1] == sent[0]);
            let [mut one, mut other] = sides;
            let closing = |_| {
                let _ = poll_times(5, other.receive());
                poll_times(3, one.close(CloseCode::NORMAL, ""))
            };
            let closed = (0..100_000).find_map(closing).unwrap();
            // The client ends its half of the transport by going.
            drop(one);
            assert!(closed.is_clean() && other.receive().await.unwrap().is_none());
        }));
    }
}
