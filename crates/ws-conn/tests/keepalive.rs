//! Keepalive on a stopped clock: when Pings leave, what counts as a sign of life, and when a silent peer
//! is given up (RFC 6455 §5.5.2; B29, T5, T27).
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{future::Future, time::Duration};

use support::{
    Peer, Slow, Transport, endpoint, frame, hex, masked, poll_once, poll_times, settle, websocket,
    within,
};
use tokio::{
    io::AsyncWriteExt,
    task::JoinHandle,
    time::{Instant, advance, sleep, sleep_until},
};
use ws_conn::{
    Config, Error, Keepalive, WebSocket,
    proto::{ProtocolError, Role},
};

const PING: &str = "89096b656570616c697665";

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Receives in a task until the end, and tells how and when that was and how many messages came.
fn receive_all(mut ws: WebSocket<Transport>) -> JoinHandle<(Result<(), Error>, Duration, usize)> {
    tokio::spawn(async move {
        let (start, mut messages) = (Instant::now(), 0);
        loop {
            match ws.receive().await {
                Ok(Some(_)) => messages += 1,
                ended => return (ended.map(drop), start.elapsed(), messages),
            }
        }
    })
}

/// What comes at this second, to the millisecond: nothing before.
async fn at(start: Instant, second: u64, peer: &Peer) -> Vec<String> {
    sleep_until(start + secs(second) - Duration::from_millis(1)).await;
    settle().await;
    assert_eq!(peer.received(), [""; 0], "before second {second}");
    sleep_until(start + secs(second)).await;
    settle().await;
    peer.received()
}

/// Is the reason that a silent peer is left for.
fn is_timeout(ended: Result<(), Error>) -> bool {
    let error = ended.expect_err("the peer was silent");
    let closed = error.closed().expect("it was open");
    let sent = closed.sent.as_ref().and_then(|sent| sent.code()).map(u16::from);
    (sent, closed.code(), &closed.cause)
        == (Some(1011), 1006, &Some(ProtocolError::KeepaliveTimeout))
}

/// T5: the Ping goes out by itself while receive waits, and so does the Close frame.
async fn a_silent_peer_is_pinged_after_20_s_and_left_after_40_s(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    let receiving = receive_all(ws);
    assert_eq!(at(start, 20, &peer).await, [PING]);
    let closed = at(start, 40, &peer).await;
    assert_eq!((closed.len(), &closed[0][4..]), (1, &close_1011()[..]));
    // It lets go of the transport when it is told; otherwise closing takes its own time.
    peer.fin();
    let (ended, elapsed, _) = receiving.await.unwrap();
    assert!(is_timeout(ended));
    assert_eq!(elapsed, secs(40));
}

/// The payload of a Close frame with 1011 and the reason.
fn close_1011() -> String {
    format!("03f3{}", "6b656570616c6976652070696e672074696d656f7574")
}

/// A peer that is not there at all is gone when closing has had its time, too.
async fn a_peer_that_vanished_is_gone_after_keepalive_and_close_timeout(role: Role) {
    for blocked in [false, true] {
        let config = Config::default()
            .keepalive(Keepalive::every(secs(5)).timeout(secs(3)))
            .close_timeout(secs(2));
        let (ws, peer) = endpoint(role, &config);
        if blocked {
            // B29: not even the Ping can be written.
            peer.take_only(1);
        }
        let (ended, elapsed, _) = receive_all(ws).await.unwrap();
        assert!(is_timeout(ended));
        assert_eq!(elapsed, secs(5 + 3 + 2), "blocked: {blocked}");
    }
}

async fn a_peer_that_answers_lives_for_hours(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    let receiving = receive_all(ws);
    for round in 1..=3 * 180 {
        assert_eq!(at(start, 20 * round, &peer).await, [PING]);
        peer.send("8a09 6b656570616c697665");
    }
    assert_eq!(start.elapsed(), secs(3 * 3600));
    assert!(!receiving.is_finished());
}

/// Any byte counts, of a message, of an unsolicited Pong, or of a frame that has not come whole.
async fn any_byte_is_a_sign_of_life(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default());
    let receiving = receive_all(ws);
    let mut wire = [frame(0x81, "a"), frame(0x8a, ""), frame(0x82, [7; 90])].concat();
    if role == Role::Server {
        wire = masked(&wire);
    }
    for byte in &wire {
        sleep(secs(19)).await; // tidy: allow-sleep(the clock is stopped)
        peer.send_raw(&[*byte]);
    }
    settle().await;
    assert!(!receiving.is_finished());
    assert!(peer.received().iter().all(|frame| frame == PING));
    let silent_since = Instant::now();
    let (ended, _, messages) = receiving.await.unwrap();
    assert!(is_timeout(ended));
    assert_eq!(messages, 2);
    // A Ping within 20 s, 20 s for its answer, and 10 s for closing.
    assert!(silent_since.elapsed() <= secs(50), "{:?}", silent_since.elapsed());
}

/// B29: a message does not move the timer, neither the Pings' nor the end's.
async fn messages_do_not_postpone_pings(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    let receiving = receive_all(ws);
    let mut pings = Vec::new();
    for _ in 0..1000 {
        sleep(Duration::from_millis(100)).await; // tidy: allow-sleep(the clock is stopped)
        peer.send("8101 61");
        settle().await;
        for frame in peer.received() {
            assert_eq!(frame, PING);
            pings.push(start.elapsed());
        }
    }
    assert_eq!(pings, [20, 40, 60, 80, 100].map(secs));
    receiving.abort();
}

/// B29: a message at the last moment buys one round and no more.
async fn a_message_just_before_the_deadline_buys_one_round(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default());
    let start = Instant::now();
    let receiving = receive_all(ws);
    assert_eq!(at(start, 20, &peer).await, [PING]);
    sleep_until(start + secs(40) - Duration::from_millis(1)).await;
    peer.send("8101 61");
    assert_eq!(at(start, 40, &peer).await, [PING]);
    assert_eq!(&at(start, 60, &peer).await[0][4..], close_1011());
    peer.fin();
    let (ended, elapsed, messages) = receiving.await.unwrap();
    assert!(is_timeout(ended));
    assert_eq!((elapsed, messages), (secs(60), 1));
}

async fn keepalive_can_be_off_or_patient(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default().keepalive(Keepalive::off()));
    let receiving = receive_all(ws);
    sleep(secs(36_000)).await; // tidy: allow-sleep(the clock is stopped)
    assert!(!receiving.is_finished() && peer.received().is_empty());

    let patient = Keepalive::every(secs(60)).without_timeout();
    let (ws, peer) = endpoint(role, &Config::default().keepalive(patient));
    let receiving = receive_all(ws);
    sleep(secs(36_000)).await; // tidy: allow-sleep(the clock is stopped)
    settle().await;
    assert!(!receiving.is_finished());
    assert_eq!(peer.received(), [PING; 600]);
}

/// What a peer is owed that sends and never reads does not grow with the hours.
async fn pings_do_not_pile_up(role: Role) {
    let (ws, peer) = endpoint(role, &Config::default());
    peer.take_only(0);
    let receiving = receive_all(ws);
    for _ in 0..1000 {
        sleep(secs(19)).await; // tidy: allow-sleep(the clock is stopped)
        peer.send("8a00");
    }
    peer.take_only(usize::MAX);
    settle().await;
    assert_eq!(peer.received(), [PING]);
    assert!(!receiving.is_finished());
}

/// T27: an application that was busy, or a process that was stopped, finds the Pong that waited and
/// asks once more before it judges.
async fn a_late_application_gives_the_peer_a_fresh_round(role: Role) {
    for answered in [true, false] {
        let (mut ws, peer) = endpoint(role, &Config::default());
        assert!(poll_once(ws.receive()).await.is_none());
        advance(secs(20)).await;
        assert!(poll_once(ws.receive()).await.is_none());
        assert_eq!(peer.received(), [PING]);
        if answered {
            peer.send("8a09 6b656570616c697665");
        }
        advance(secs(600)).await;
        let start = Instant::now();
        let receiving = receive_all(ws);
        settle().await;
        assert_eq!(peer.received(), [PING]);
        assert_eq!(&at(start, 20, &peer).await[0][4..], close_1011());
        peer.fin();
        assert!(is_timeout(receiving.await.unwrap().0));
    }
}

/// The timer wakes the task that receives now, not the one that did before.
async fn the_timer_follows_the_receiver_from_task_to_task(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    assert!(poll_times(1, ws.receive()).is_none());
    let start = Instant::now();
    let receiving = receive_all(ws);
    assert_eq!(at(start, 20, &peer).await, [PING]);
    receiving.abort();

    let (ws, peer) = endpoint(role, &Config::default());
    let (sender, mut receiver) = ws.split();
    assert!(poll_times(1, receiver.receive()).is_none());
    assert!(poll_times(1, sender.send("a")).is_some());
    assert_eq!(peer.received(), ["810161"]);
    let start = Instant::now();
    let receiving = tokio::spawn(async move { receiver.receive().await });
    assert_eq!(at(start, 20, &peer).await, [PING]);
    assert_eq!(&at(start, 40, &peer).await[0][4..], close_1011());
    peer.fin();
    assert!(is_timeout(receiving.await.unwrap().map(drop)));
}

both! {
    a_silent_peer_is_pinged_after_20_s_and_left_after_40_s,
    a_peer_that_vanished_is_gone_after_keepalive_and_close_timeout,
    a_peer_that_answers_lives_for_hours,
    any_byte_is_a_sign_of_life,
    messages_do_not_postpone_pings,
    a_message_just_before_the_deadline_buys_one_round,
    keepalive_can_be_off_or_patient,
    pings_do_not_pile_up,
    a_late_application_gives_the_peer_a_fresh_round,
    the_timer_follows_the_receiver_from_task_to_task,
}

/// A task whose budget is used up by reading must still be woken by the clock: tokio tells it to wait
/// without taking note of its waker.
#[tokio::test(start_paused = true)]
async fn a_flood_does_not_silence_the_clock() {
    let flood = frame(0x82, [7; 1000]);
    // The timer is made under the flood.
    let (near, mut far) = tokio::io::duplex(1 << 20);
    far.write_all(&flood).await.unwrap();
    let mut ws = websocket(Role::Client, Slow::byte_by_byte(near), &Config::default());
    let receiving = tokio::spawn(async move {
        ws.receive().await.unwrap();
        let start = Instant::now();
        (ws.receive().await.map(drop), start.elapsed())
    });
    let (ended, elapsed) = soon(receiving).await.unwrap();
    assert!(is_timeout(ended));
    assert_eq!(elapsed, secs(50));

    // The deadline passes, and moves, under the flood.
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut ws = websocket(Role::Client, Slow::byte_by_byte(near), &Config::default());
    assert!(poll_once(ws.receive()).await.is_none());
    advance(secs(20)).await;
    far.write_all(&flood).await.unwrap();
    let receiving = tokio::spawn(async move {
        ws.receive().await.unwrap();
        ws.receive().await.map(drop)
    });
    assert!(is_timeout(soon(receiving).await.unwrap()));

    // Closing begins under the flood.
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut ws = websocket(Role::Client, Slow::byte_by_byte(near), &Config::default());
    far.write_all(&[flood.clone(), hex("8101 61")].concat()).await.unwrap();
    let closing = tokio::spawn(async move {
        let start = Instant::now();
        for _ in 0..1000 {
            tokio::task::coop::consume_budget().await;
            if !tokio::task::coop::has_budget_remaining() {
                break;
            }
        }
        ws.close(ws_conn::CloseCode::NORMAL, "").await;
        start.elapsed()
    });
    assert_eq!(soon(closing).await.unwrap(), secs(10));

    /// A forgotten timer would let a day pass.
    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(secs(1000), within(future)).await.expect("the clock wakes it")
    }
}
