//! Word of lag ([`Server::on_lag`]): when it comes, what it says, and what may be done there.
//!
//! A member is *held* in the middle of a message that is sent in chunks; all that is published meanwhile
//! waits, to the byte.

#[macro_use]
mod support;

use std::{
    mem::take,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use support::{
    BINARY, CLOSE, Running, TEXT, WATCHDOG, Web, close, eventually, exposed, frame, hold, masked,
    narrow_member, release, reset_on_drop, sender_from, serve, server, within,
};
use tokio::sync::{Notify, mpsc::unbounded_channel};
use ws_serve::{CloseCode, Error, Lag, Sender, Server, SlowConsumer, Socket};

everywhere! {
    it_starts_at_half_of_the_queue_and_stops_when_nothing_waits,
    it_starts_when_a_message_is_dropped,
    it_comes_once_for_a_client_that_does_not_read,
    members_that_keep_up_never_lag,
    it_stops_when_nothing_could_wait_at_all,
    it_stops_when_the_member_is_disconnected_for_it,
    it_stops_when_a_member_without_a_queue_is_disconnected_for_it,
    it_stops_when_the_client_vanishes,
    it_stops_when_the_connection_closes_gracefully,
    a_callback_that_panics_harms_nothing,
    a_callback_may_publish,
    a_callback_may_close_the_connection,
    a_callback_may_join_and_leave,
    a_callback_may_send_and_shut_down,
}

/// What may wait, and what ten messages take with the 40 bytes that each costs to remember.
const MAX_QUEUE: usize = 10 * (SIZE + 4 + 40);
const SIZE: usize = 1000;

async fn it_starts_at_half_of_the_queue_and_stops_when_nothing_waits(server: Server) {
    let (server, lags) = observed(server);
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    for round in 0..3 {
        hold(&mut raw, &sender, &mut told).await;
        for waiting in 1..=10 {
            serve(&topic, |topic| topic.publish(vec![waiting; SIZE])).await;
            let lags = take(&mut *lags.lock().expect("no panic"));
            if waiting != 6 {
                assert!(lags.is_empty(), "{lags:?} with {waiting} of 10 messages");
                continue;
            }
            let [lag] = &lags[..] else { panic!("{lags:?}") };
            assert_eq!((lag.connection, lag.peer_addr), (sender.id(), sender.peer_addr()));
            assert_eq!((lag.lagging, lag.queued), (true, MAX_QUEUE / 10 * 6));
            assert_eq!(lag.counts, sender.counts());
            assert_eq!((lag.counts.sent, lag.counts.waiting), (10 * round + 6, 6));
        }
        release(&mut raw, &mut told).await;
        for waiting in 1..=10 {
            assert!(raw.frame().await == (BINARY, vec![waiting; SIZE]));
        }
        eventually(|| !lags.lock().expect("no panic").is_empty()).await;
        let lags = take(&mut *lags.lock().expect("no panic"));
        let [lag] = &lags[..] else { panic!("{lags:?}") };
        assert_eq!((lag.connection, lag.lagging), (sender.id(), false));
        assert!(lag.queued < MAX_QUEUE, "{lag:?}");
        assert_eq!((lag.counts.delivered(), lag.counts.waiting), (10 * (round + 1), 0));
    }
}

/// Also if the queue is almost empty, because the message is so large.
async fn it_starts_when_a_message_is_dropped(server: Server) {
    let (server, lags) = observed(server.slow_consumer(SlowConsumer::DropNewest));
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    hold(&mut raw, &sender, &mut told).await;
    serve(&topic, |topic| topic.publish("small")).await;
    assert!(lags.lock().expect("no panic").is_empty());
    serve(&topic, |topic| topic.publish(vec![0; MAX_QUEUE])).await;
    {
        let lags = lags.lock().expect("no panic");
        let [lag] = &lags[..] else { panic!("{lags:?}") };
        assert!(lag.lagging && lag.counts.dropped_full == 1, "{lag:?}");
    }
    release(&mut raw, &mut told).await;
    raw.expect(frame(TEXT, "small")).await;
    starts_and_stops(&lags, &sender, 1).await;
}

/// However many messages are dropped, by either policy that drops them one by one.
async fn it_comes_once_for_a_client_that_does_not_read(server: Server) {
    let (server, lags) = observed(server);
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let mut heard = 0;
    for (round, policy) in [SlowConsumer::DropNewest, SlowConsumer::DropOldest].iter().enumerate() {
        topic.set_slow_consumer(*policy);
        let before = sender.counts().dropped_full;
        while sender.counts().dropped_full < before + 50 {
            serve(&topic, |topic| topic.publish(vec![0; 4 * SIZE])).await;
        }
        assert_eq!(lags.lock().expect("no panic").len(), 2 * round + 1);
        let counts = sender.counts();
        while heard < counts.sent - counts.dropped() {
            assert!(raw.frame().await == (BINARY, vec![0; 4 * SIZE]));
            heard += 1;
        }
        starts_and_stops(&lags, &sender, round + 1).await;
    }
}

async fn members_that_keep_up_never_lag(server: Server) {
    let (server, lags) = observed(server.max_queue(1 << 20));
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(Web::member(running.address, "t").await);
    }
    for number in 0..200 {
        topic.publish(vec![number; SIZE]);
        for member in &mut members {
            assert_eq!(member.hear_message().await.as_bytes(), vec![number; SIZE]);
        }
    }
    assert!(lags.lock().expect("no panic").is_empty());
}

/// The word that starts it is about a message that was dropped, with nothing in the queue.
async fn it_stops_when_nothing_could_wait_at_all(server: Server) {
    let (server, lags) = observed(server.slow_consumer(SlowConsumer::DropOldest));
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(0), handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    for round in 1..=2 {
        hold(&mut raw, &sender, &mut told).await;
        serve(&topic, |topic| topic.publish("lost")).await;
        assert_eq!(sender.counts().dropped_full, round as u64);
        release(&mut raw, &mut told).await;
        serve(&topic, |topic| topic.publish("heard")).await;
        raw.expect(frame(TEXT, "heard")).await;
        starts_and_stops(&lags, &sender, round).await;
    }
}

async fn it_stops_when_the_member_is_disconnected_for_it(server: Server) {
    let (server, lags) = observed(server);
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    hold(&mut raw, &sender, &mut told).await;
    for number in 0..11 {
        serve(&topic, |topic| topic.publish(vec![number; SIZE])).await;
    }
    raw.expect(frame(CLOSE, close(1013, "too slow"))).await;
    starts_and_stops(&lags, &sender, 1).await;
}

async fn it_stops_when_a_member_without_a_queue_is_disconnected_for_it(server: Server) {
    let (server, lags) = observed(server);
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(0), handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    hold(&mut raw, &sender, &mut told).await;
    serve(&topic, |topic| topic.publish("lost")).await;
    raw.expect(frame(CLOSE, close(1013, "too slow"))).await;
    drop(raw);
    eventually(|| topic.is_empty()).await;
    // A word that never came is as good as one that was taken back.
    if !lags.lock().expect("no panic").is_empty() {
        starts_and_stops(&lags, &sender, 1).await;
    }
}

async fn it_stops_when_the_client_vanishes(server: Server) {
    let (server, lags) = observed(server);
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    hold(&mut raw, &sender, &mut told).await;
    for number in 0..8 {
        serve(&topic, |topic| topic.publish(vec![number; SIZE])).await;
    }
    assert_eq!(lags.lock().expect("no panic").len(), 1);
    reset_on_drop(raw.0.get_ref());
    drop(raw);
    eventually(|| topic.is_empty()).await;
    starts_and_stops(&lags, &sender, 1).await;
    assert_eq!(sender.counts().dropped_closed, 8);
}

async fn it_stops_when_the_connection_closes_gracefully(server: Server) {
    let (server, lags) = observed(server.slow_consumer(SlowConsumer::DropOldest));
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(100 * SIZE), handler);
    let topic = running.topics.get("t");
    let (_raw, sender) = narrow_member(&running, &mut told, "t").await;
    while lags.lock().expect("no panic").is_empty() {
        serve(&topic, |topic| topic.publish(vec![0; 4 * SIZE])).await;
    }
    sender.close(CloseCode::NORMAL, "");
    starts_and_stops(&lags, &sender, 1).await;
}

/// It must not end the flusher, nor keep the connection's lock.
async fn a_callback_that_panics_harms_nothing(server: Server) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let server = server.max_queue(MAX_QUEUE).on_lag(move |lag| {
        counter.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose: {}", lag.lagging);
    });
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let (mut other, _) = narrow_member(&running, &mut told, "t").await;
    for round in 1..=2 {
        hold(&mut raw, &sender, &mut told).await;
        for number in 0..8 {
            serve(&topic, |topic| topic.publish(vec![number; SIZE])).await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2 * round - 1);
        release(&mut raw, &mut told).await;
        for number in 0..8 {
            assert!(raw.frame().await == (BINARY, vec![number; SIZE]));
            assert!(other.frame().await == (BINARY, vec![number; SIZE]));
        }
        eventually(|| calls.load(Ordering::SeqCst) == 2 * round).await;
    }
}

/// T19: to the topic that is being served, to the member that lags, and to another topic.
async fn a_callback_may_publish(server: Server) {
    let topics = server.topics();
    let server = server.max_queue(MAX_QUEUE).on_lag(move |lag| {
        let word = if lag.lagging { "starts" } else { "stops" };
        topics.get("t").publish(word);
        topics.get("alarms").publish(format!("{} {word}", lag.connection));
    });
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let mut watcher = Web::member(running.address, "alarms").await;
    let _ = sender_from(&mut told).await;
    hold(&mut raw, &sender, &mut told).await;
    for _ in 0..6 {
        topic.publish(vec![0; SIZE]);
    }
    assert_eq!(watcher.hear().await, format!("{} starts", sender.id()));
    eventually(|| sender.counts().waiting == 7).await;
    release(&mut raw, &mut told).await;
    for _ in 0..6 {
        assert!(raw.frame().await == (BINARY, vec![0; SIZE]));
    }
    raw.expect([frame(TEXT, "starts"), frame(TEXT, "stops")].concat()).await;
    assert_eq!(watcher.hear().await, format!("{} stops", sender.id()));
}

/// T19: within a turn that has more for it. The end of the lag is told from within its beginning.
async fn a_callback_may_close_the_connection(server: Server) {
    let known = Arc::new(OnceLock::<Sender>::new());
    let lags = Arc::new(Mutex::new(Vec::new()));
    let (sender, log) = (Arc::clone(&known), Arc::clone(&lags));
    let server = server.max_queue(MAX_QUEUE).on_lag(move |lag| {
        log.lock().expect("no panic").push(lag);
        let code = CloseCode::new(4005).expect("private use");
        sender.get().expect("known before it lags").close(code, "lags");
    });
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let (mut other, _) = narrow_member(&running, &mut told, "t").await;
    known.set(sender.clone()).expect("set once");
    hold(&mut raw, &sender, &mut told).await;
    for number in 0..9 {
        topic.publish(vec![number; SIZE]);
    }
    raw.expect(frame(CLOSE, close(4005, "lags"))).await;
    for number in 0..9 {
        assert!(other.frame().await == (BINARY, vec![number; SIZE]));
    }
    raw.say(masked(CLOSE, close(4005, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    eventually(|| topic.len() == 1).await;
    starts_and_stops(&lags, &sender, 1).await;
    let counts = sender.counts();
    assert_eq!((counts.sent, counts.dropped_closed), (9, 9));
}

/// T19: the topic that is being served, and another one.
async fn a_callback_may_join_and_leave(server: Server) {
    let known = Arc::new(OnceLock::<Arc<Socket>>::new());
    let release = Arc::new(Notify::new());
    let (tell, mut told) = unbounded_channel();
    let socket = Arc::clone(&known);
    let server = server.max_queue(MAX_QUEUE).on_lag(move |lag| {
        let socket = socket.get().expect("known before it lags");
        let (from, to) = if lag.lagging { ("t", "other") } else { ("other", "t") };
        socket.leave(from);
        socket.join(to);
    });
    let (sockets, released) = (Arc::clone(&known), Arc::clone(&release));
    let running = Running::start(server, move |socket: Socket| {
        let socket = Arc::new(socket);
        let (tell, released) = (tell.clone(), Arc::clone(&released));
        sockets.set(Arc::clone(&socket)).expect("one connection");
        async move {
            socket.join("t");
            socket.send_chunk("begun", false).await?;
            let _ = tell.send(socket.sender());
            released.notified().await;
            socket.send_chunk("ended", true).await?;
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        }
    });
    let (topic, other) = (running.topics.get("t"), running.topics.get("other"));
    let mut raw = running.raw().await;
    let sender = told.recv().await.expect("a sender");
    for number in 0..6 {
        serve(&topic, |topic| topic.publish(vec![number; SIZE])).await;
    }
    assert_eq!((topic.len(), other.len()), (0, 1));
    topic.publish("not any more");
    serve(&other, |topic| topic.publish("other")).await;
    raw.expect(frame(0x01, "begun")).await;
    release.notify_one();
    raw.expect(frame(0x80, "ended")).await;
    let mut others = 0;
    for _ in 0..7 {
        match raw.frame().await {
            (BINARY, message) => assert_eq!(message.len(), SIZE),
            end => {
                assert_eq!(end, (TEXT, b"other".to_vec()));
                others += 1;
            }
        }
    }
    assert_eq!(others, 1);
    eventually(|| topic.len() == 1).await;
    assert!(other.is_empty());
    other.publish("not any more");
    topic.publish("end");
    raw.expect(frame(TEXT, "end")).await;
    assert_eq!(sender.counts().delivered(), 8);
}

/// T19: what a callback might call besides.
async fn a_callback_may_send_and_shut_down(server: Server) {
    let known = Arc::new(OnceLock::<Sender>::new());
    let (sender, topics, shutdown) =
        (Arc::clone(&known), server.topics(), server.shutdown_handle());
    let server = server.max_queue(MAX_QUEUE).on_lag(move |lag| {
        let sender = sender.get().expect("known before it lags");
        let _ = sender.try_send("refused in the middle of a message");
        assert!(sender.counts().sent >= lag.counts.sent && sender.queued() > 0 || !lag.lagging);
        topics.get("t").set_slow_consumer(SlowConsumer::DropNewest);
        let _ = (topics.get("t").counts(), topics.len());
        shutdown.start();
    });
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    known.set(sender.clone()).expect("set once");
    hold(&mut raw, &sender, &mut told).await;
    for number in 0..8 {
        topic.publish(vec![number; SIZE]);
    }
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    running.end().await;
}

/// On several threads, a connection may catch up while its lag is still being told.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_end_of_a_lag_is_told_after_its_beginning() {
    let known = Arc::new(OnceLock::<Sender>::new());
    let (tell, said) = mpsc::channel();
    let sender = Arc::clone(&known);
    let server = server().max_queue(MAX_QUEUE).on_lag(move |lag| {
        let _ = tell.send(if lag.lagging { "starts" } else { "stops" });
        if lag.lagging {
            let sender = sender.get().expect("known before it lags");
            let barks = Instant::now() + WATCHDOG;
            while sender.counts().waiting > 0 && Instant::now() < barks {
                thread::yield_now();
            }
            // Whoever let the messages go is about to call, if at all.
            (0..10_000).for_each(|_| thread::yield_now());
            let _ = tell.send("has started");
        }
    });
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    within(async {
        let topic = running.topics.get("t");
        let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
        known.set(sender.clone()).expect("set once");
        hold(&mut raw, &sender, &mut told).await;
        for number in 0..6 {
            topic.publish(vec![number; SIZE]);
        }
        eventually(|| sender.counts().waiting == 6).await;
        release(&mut raw, &mut told).await;
        for number in 0..6 {
            assert!(raw.frame().await == (BINARY, vec![number; SIZE]));
        }
    })
    .await;
    let words = [(); 3].map(|()| said.recv_timeout(WATCHDOG).unwrap());
    assert_eq!(words, ["starts", "has started", "stops"]);
}

/// A server that writes the words down.
fn observed(server: Server) -> (Server, Arc<Mutex<Vec<Lag>>>) {
    let lags = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lags);
    let server = server.max_queue(MAX_QUEUE);
    (server.on_lag(move |lag| log.lock().expect("no panic").push(lag)), lags)
}

/// So many times it has started and stopped, and nothing else.
async fn starts_and_stops(lags: &Mutex<Vec<Lag>>, sender: &Sender, times: usize) {
    eventually(|| lags.lock().expect("no panic").len() >= 2 * times).await;
    let lags = lags.lock().expect("no panic");
    let words: Vec<_> = lags.iter().map(|lag| (lag.connection, lag.lagging)).collect();
    assert_eq!(words, [(sender.id(), true), (sender.id(), false)].repeat(times));
    assert!(lags.iter().all(|lag| lag.lagging || lag.counts.waiting == 0), "{lags:?}");
}
