//! Wake-ups (B25–B28): halves in different tasks on one transport that remembers one waker for each
//! direction, answers that wait for room, and floods that meet (RFC 6455 §5.5.2).
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use support::{
    Slow, Wakes, connected, endpoint, frame, hex, poll_once, settle, websocket, within,
    within_a_minute,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::Barrier,
};
use ws_conn::{CloseCode, Config, Error, Keepalive, Message, WebSocket, proto::Role};

/// Without a keepalive whose timer would wake those who were forgotten.
fn config() -> Config {
    Config::default().keepalive(Keepalive::off())
}

/// Whoever polls the transport last must not silence those who wait for it, too.
async fn room_wakes_a_sender_although_the_receiver_came_later(role: Role) {
    let (ws, peer) = endpoint(role, &config());
    let (sender, mut receiver) = ws.split();
    peer.take_only(0);
    let (sending, receiving) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut send = pin!(sender.send("a"));
    assert!(sending.poll(send.as_mut()).is_pending());
    let mut receive = pin!(receiver.receive());
    assert!(receiving.poll(receive.as_mut()).is_pending());
    peer.take_only(usize::MAX);
    assert_eq!(sending.count(), 1);
    assert!(matches!(sending.poll(send), Poll::Ready(Ok(()))));
    assert_eq!(peer.received(), ["810161"]);
}

async fn input_wakes_a_receiver_although_a_sender_came_later(role: Role) {
    let (ws, peer) = endpoint(role, &config());
    let (sender, mut receiver) = ws.split();
    let (sending, receiving) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut receive = pin!(receiver.receive());
    assert!(receiving.poll(receive.as_mut()).is_pending());
    peer.take_only(1);
    let mut send = pin!(sender.send("a"));
    assert!(sending.poll(send.as_mut()).is_pending());
    let before = receiving.count();
    peer.send("8101 62");
    assert!(receiving.count() > before);
    assert_eq!(receiving.poll(receive).map(Result::unwrap), Poll::Ready(Some("b".into())));
    peer.take_only(100);
    assert!(sending.poll(send).is_ready());
}

/// All of many, whoever of them moves the bytes.
async fn room_wakes_all_senders_and_one_of_them_is_enough_to_send_all(role: Role) {
    let (ws, peer) = endpoint(role, &config());
    let (sender, mut receiver) = ws.split();
    peer.take_only(0);
    let wakes: Vec<Arc<Wakes>> = (0..10).map(|_| Arc::default()).collect();
    let senders: Vec<_> = wakes.iter().map(|_| sender.clone()).collect();
    let mut sends: Vec<_> = senders.iter().map(|sender| Box::pin(sender.send("a"))).collect();
    for (wakes, send) in wakes.iter().zip(&mut sends) {
        assert!(wakes.poll(send.as_mut()).is_pending());
    }
    peer.take_only(usize::MAX);
    assert!(poll_once(receiver.receive()).await.is_none());
    assert_eq!(peer.received().len(), 10);
    for (wakes, send) in wakes.iter().zip(&mut sends) {
        assert_eq!(wakes.count(), 1);
        assert!(matches!(wakes.poll(send.as_mut()), Poll::Ready(Ok(()))));
    }
}

/// A future that is gone takes nobody's wake-up with it.
async fn a_dropped_sender_takes_no_wake_up_with_it(role: Role) {
    let (ws, peer) = endpoint(role, &config());
    let (sender, _receiver) = ws.split();
    peer.take_only(0);
    let (first, second) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let mut stays = pin!(sender.send("a"));
    assert!(first.poll(stays.as_mut()).is_pending());
    {
        let goes = pin!(sender.send("b"));
        assert!(second.poll(goes).is_pending());
    }
    peer.take_only(usize::MAX);
    assert_eq!(first.count(), 1);
    assert!(first.poll(stays).is_ready());
    assert_eq!(peer.received(), ["810161", "810162"]);
}

/// B27: the answer to a Ping waits for room, not for the next thing to read.
async fn a_pong_that_found_no_room_leaves_without_another_read(role: Role) {
    for split in [false, true] {
        let (mut ws, peer) = endpoint(role, &config());
        peer.take_only(2);
        peer.send("8901 70");
        if split {
            // The sender holds the other half of the connection and does nothing.
            let (_sender, mut receiver) = ws.split();
            let (receive, wakes) = (pin!(receiver.receive()), Arc::<Wakes>::default());
            expect_pong(receive, &wakes, &peer);
        } else {
            let (receive, wakes) = (pin!(ws.receive()), Arc::<Wakes>::default());
            expect_pong(receive, &wakes, &peer);
        }
    }

    fn expect_pong<F: Future>(
        mut receive: std::pin::Pin<&mut F>,
        wakes: &Arc<Wakes>,
        peer: &support::Peer,
    ) {
        assert!(wakes.poll(receive.as_mut()).is_pending());
        let before = wakes.count();
        peer.take_only(usize::MAX);
        assert!(wakes.count() > before);
        assert!(wakes.poll(receive).is_pending());
        assert_eq!(peer.received(), ["8a0170"]);
    }
}

/// B28: what the RFC wants answered overtakes what the application has queued, between frames.
async fn a_pong_overtakes_queued_messages(role: Role) {
    let (mut ws, peer) = endpoint(role, &config());
    peer.take_only(1);
    for payload in ["a", "b", "c"] {
        ws.feed(payload).await.unwrap();
    }
    assert!(poll_once(ws.flush()).await.is_none());
    peer.send("8901 70");
    assert!(poll_once(ws.receive()).await.is_none());
    peer.take_only(usize::MAX);
    ws.flush().await.unwrap();
    assert_eq!(peer.received(), ["810161", "8a0170", "810162", "810163"]);
}

/// B5: a peer that pings and does not read gets the answers that found room, and the newest.
async fn a_ping_flood_costs_a_bounded_number_of_pongs(role: Role) {
    let (mut ws, peer) = endpoint(role, &config());
    peer.take_only(0);
    for i in 0..10_000_u32 {
        peer.send_frames(&frame(0x89, i.to_be_bytes()));
    }
    assert!(poll_once(ws.receive()).await.is_none());
    assert_eq!(peer.unread(), 0);
    peer.take_only(usize::MAX);
    assert!(poll_once(ws.receive()).await.is_none());
    let pongs = peer.received();
    assert_eq!((&pongs[0][..], &pongs[1][..]), ("8a0400000000", "8a0400000001"));
    assert_eq!(pongs.last().unwrap(), "8a040000270f");
    assert!(pongs.len() < 1000, "{}", pongs.len());
}

/// The end of the connection wakes those who wait for room, and tells them that their message is lost.
async fn a_waiting_sender_is_told_that_the_connection_ended(role: Role) {
    for reset in [false, true] {
        let (ws, peer) = endpoint(role, &config());
        let (sender, mut receiver) = ws.split();
        peer.take_only(0);
        let sending = tokio::spawn(async move { sender.send("lost").await });
        settle().await;
        if reset {
            peer.reset();
        } else {
            peer.fin();
        }
        assert_eq!(receiver.receive().await.unwrap_err().closed().unwrap().code(), 1006);
        let sent = sending.await.unwrap();
        assert!(matches!(sent, Err(Error::Closed { .. })), "reset: {reset}, {sent:?}");
    }
}

both! {
    room_wakes_a_sender_although_the_receiver_came_later,
    input_wakes_a_receiver_although_a_sender_came_later,
    room_wakes_all_senders_and_one_of_them_is_enough_to_send_all,
    a_dropped_sender_takes_no_wake_up_with_it,
    a_pong_that_found_no_room_leaves_without_another_read,
    a_pong_overtakes_queued_messages,
    a_ping_flood_costs_a_bounded_number_of_pongs,
    a_waiting_sender_is_told_that_the_connection_ended,
}

/// Sends so many messages from a task of its own while this one receives as many.
async fn exchange<S>(ws: WebSocket<S>, count: usize)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut receiver) = ws.split();
    let sending = tokio::spawn(async move {
        for i in 0..count {
            sender.send(vec![i as u8; i * 37 % 500]).await.expect("the peer receives");
        }
        // Dropped only when both have all, as the last one to go ends the transport.
        sender
    });
    for i in 0..count {
        let message = receiver.receive().await.expect("the peer sends");
        assert!(message == Some(vec![i as u8; i * 37 % 500].into()), "message {i}");
    }
    let _sender = sending.await.expect("no panic");
}

/// B25: with paused time the watchdog barks the moment that everybody sleeps.
#[tokio::test(start_paused = true)]
async fn halves_in_four_tasks_never_all_sleep() {
    for size in [1, 2, 7, 64, 1000] {
        let (client, server) = connected(size, &config());
        let other = tokio::spawn(exchange(server, 300));
        within(exchange(client, 300)).await;
        within(other).await.unwrap();
    }
    let (near, far) = tokio::io::duplex(16);
    let client = websocket(Role::Client, Slow::stuttering(near), &config());
    let server = websocket(Role::Server, Slow::byte_by_byte(far), &config());
    let other = tokio::spawn(exchange(server, 100));
    within(exchange(client, 100)).await;
    within(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_on_two_threads_never_all_sleep() {
    let (client, server) = connected(300, &config());
    let other = tokio::spawn(exchange(server, 3000));
    within_a_minute(exchange(client, 3000)).await;
    within_a_minute(other).await.unwrap();
}

/// B26: both pipes are full most of the time; who echoes stops reading then, who floods does not.
#[tokio::test(start_paused = true)]
async fn a_flood_that_is_echoed_does_not_lock_up() {
    let (flooder, mut echoer) = connected(4 << 10, &config());
    let echoing = tokio::spawn(async move {
        while let Some(message) = echoer.receive().await? {
            echoer.send(message).await?;
        }
        Ok::<_, Error>(())
    });
    let (sender, mut receiver) = flooder.split();
    let flooding = tokio::spawn(async move {
        for _ in 0..500 {
            sender.send(vec![7; 10_000]).await.unwrap();
        }
        sender.close(CloseCode::NORMAL, "").await.unwrap();
    });
    within(async {
        for _ in 0..500 {
            assert_eq!(receiver.receive().await.unwrap().unwrap().len(), 10_000);
        }
        assert_eq!(receiver.receive().await.unwrap(), None);
        flooding.await.unwrap();
        drop(receiver);
        echoing.await.unwrap().unwrap();
    })
    .await;
}

/// Two that answer Pings and each other's messages while both write more than fits.
#[tokio::test(start_paused = true)]
async fn pings_into_full_pipes_are_all_answered() {
    let (client, server) = connected(10, &config());
    let all_answered = Arc::new(Barrier::new(2));
    let both = [client, server].map(|ws| {
        let all_answered = Arc::clone(&all_answered);
        tokio::spawn(async move {
            let (sender, mut receiver) = ws.split();
            let receiving =
                tokio::spawn(async move { while let Ok(Some(_)) = receiver.receive().await {} });
            let mut pongs = Vec::new();
            for _ in 0..50 {
                sender.send("x".repeat(100)).await.unwrap();
                pongs.push(sender.ping().await.unwrap());
            }
            for pong in pongs {
                assert!(pong.await.is_some());
            }
            all_answered.wait().await;
            // Only one of the two is early enough.
            let _ = sender.close(CloseCode::NORMAL, "").await;
            drop(sender);
            receiving.await.unwrap();
        })
    });
    for side in both {
        within(side).await.unwrap();
    }
}

/// A transport that is always ready makes way for other tasks by its budget; what is left is read
/// without anything new that wakes.
#[tokio::test(start_paused = true)]
async fn more_input_than_a_tasks_budget_is_read_to_its_end() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    far.write_all(&frame(0x82, vec![7; 1000])).await.unwrap();
    far.write_all(&hex("8101 61")).await.unwrap();
    let mut ws = websocket(Role::Client, Slow::byte_by_byte(near), &config());
    assert_eq!(within(ws.receive()).await.unwrap(), Some(Message::from(vec![7; 1000])));
    assert_eq!(within(ws.receive()).await.unwrap(), Some("a".into()));
}
