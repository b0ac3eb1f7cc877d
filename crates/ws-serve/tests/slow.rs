//! Members that read too slowly: what waits for them, what is dropped instead, that each message is
//! accounted for, and that nobody else notices.
//!
//! A member falls behind in one of two ways: its client does not read, so that the transport takes
//! nothing; or it is in the middle of a message that is sent in chunks, so that nothing may be sent. The
//! second is *held*: all that is published waits, to the byte.

#[macro_use]
mod support;

use std::sync::Arc;

use support::{
    BINARY, CLOSE, Exposed, PING, PONG, Raw, Running, TEXT, Web, close, done_by, eventually,
    exposed, frame, hold, masked, narrow_member, order, release, reset_on_drop, sender_from, serve,
};
use tokio::{
    sync::{Notify, mpsc::unbounded_channel},
    task::{JoinSet, yield_now},
};
use ws_serve::{CloseCode, Counts, Deflate, Sender, Server, SlowConsumer, Socket, Topic};

everywhere! {
    disconnecting_ends_with_the_close_code_behind_what_was_delivered,
    dropping_the_newest_keeps_what_found_room,
    dropping_the_oldest_keeps_the_newest_in_order,
    conflating_keeps_the_latest_of_each_key,
    keys_are_in_the_order_of_their_latest_updates,
    a_value_that_nothing_outdates_is_not_lost,
    a_policy_drops_only_its_own_topics_messages,
    a_busy_topic_does_not_keep_a_quiet_one_waiting,
    an_idle_connection_takes_a_message_of_any_size,
    a_message_that_does_not_fit_is_for_the_policy,
    a_message_that_can_never_fit_drops_no_other,
    without_a_queue_nothing_waits_but_what_was_begun,
    a_ping_is_answered_and_a_close_goes_out_when_the_queue_is_full,
    one_stalled_member_of_fifty_is_nobody_elses_business,
    a_publisher_that_excepts_itself_does_not_hear_itself_later,
    each_publisher_is_heard_in_order_by_members_that_stop_and_go,
    leaving_ends_what_is_due_and_not_what_waits,
    closing_by_a_sender_flushes_what_waits,
    closing_by_the_end_of_the_handler_flushes_what_waits,
    shutting_down_flushes_what_waits,
    what_waits_for_a_client_that_closes_is_counted,
    what_waits_for_a_client_that_vanishes_is_counted,
    a_handlers_messages_are_not_dropped,
    chunks_hold_back_what_is_published_until_their_end,
    a_member_can_be_disconnected_between_chunks,
    lagging_members_decode_the_same_whatever_they_agreed_on,
}

/// What may wait.
const MAX_QUEUE: usize = 128 << 10;
/// A message.
const SIZE: usize = 1 << 10;
/// A message on the wire, behind the header of §5.2 of RFC 6455.
const FRAME: usize = SIZE + 4;
/// What [`Server::max_queue`] says that it costs to remember a message.
const ENTRY: usize = 40;

/// T15, with the default code and another one. Nothing follows the Close frame.
async fn disconnecting_ends_with_the_close_code_behind_what_was_delivered(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(MAX_QUEUE), handler);
    let private = CloseCode::new(4008).expect("private use");
    for (policy, code) in [(None, 1013), (Some(SlowConsumer::Disconnect(private)), 4008)] {
        let topic = running.topics.get("t");
        if let Some(policy) = policy {
            topic.set_slow_consumer(policy);
        }
        let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
        let flood = Flood::run(&topic, &sender, |_| !sender.is_open()).await;

        let counts = sender.counts();
        assert_eq!((counts.waiting, counts.dropped_full, counts.dropped_conflated), (0, 1, 0));
        assert!(counts.dropped_closed > 0, "{counts:?}");
        let mut heard = Vec::new();
        let end = loop {
            match raw.frame().await {
                (BINARY, message) => heard.push(number_of(&message)),
                end => break end,
            }
        };
        assert_eq!(end, (CLOSE, close(code, "too slow")));
        assert_eq!(heard, upto(counts.delivered()));
        raw.say(masked(CLOSE, close(code, ""))).await;
        assert!(raw.hear_end().await, "ended by a reset");

        eventually(|| topic.is_empty()).await;
        assert_eq!(topic.counts().sent, flood.published);
        assert_eq!(topic.counts(), sender.counts());
        drop(topic);
        eventually(|| running.topics.is_empty()).await;
    }
}

/// T15: a prefix, and what was published when there was room again.
async fn dropping_the_newest_keeps_what_found_room(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropNewest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let flood = Flood::run(&topic, &sender, |counts| counts.dropped_full >= 50).await;
    assert!(sender.is_open());

    let mut kept = flood.kept;
    assert_eq!(kept.len() as u64, sender.counts().delivered() + sender.counts().waiting);
    // With room for some.
    let (first, rest) = kept.split_at(kept.len() - 60);
    assert_eq!(hear_numbers(&mut raw, first.len()).await, first);
    assert_eq!(hear_numbers(&mut raw, rest.len()).await, rest);
    kept.clear();
    for number in flood.published..flood.published + 20 {
        serve(&topic, |topic| topic.publish(numbered(number))).await;
        kept.push(number);
    }
    assert_eq!(hear_numbers(&mut raw, kept.len()).await, kept);
    hear_nothing_more(&mut raw, &topic, &sender).await;
    assert!(sender.counts().dropped_full >= 50);
}

/// T15: a prefix, which was on its way already, and the end.
async fn dropping_the_oldest_keeps_the_newest_in_order(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropOldest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let flood = Flood::run(&topic, &sender, |counts| counts.dropped_full >= 50).await;
    assert!(sender.is_open());

    let counts = sender.counts();
    assert!(counts.waiting as usize > MAX_QUEUE / (FRAME + ENTRY) * 3 / 4, "{counts:?}");
    let due = counts.sent - counts.dropped_full;
    let heard = hear_numbers(&mut raw, due as usize).await;
    assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    assert!(heard.starts_with(&upto(flood.delivered_before_loss)), "{heard:?}");
    let newest: Vec<_> = (flood.published - counts.waiting..flood.published).collect();
    assert!(heard.ends_with(&newest), "{heard:?}");
    hear_nothing_more(&mut raw, &topic, &sender).await;
}

/// T15, T18: by key, a client that does not read costs no more than one message for each.
async fn conflating_keeps_the_latest_of_each_key(server: Server) {
    const KEYS: u64 = 7;
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::Conflate);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let publish = |topic: &Topic, number: u64| {
        topic.publish_keyed(&format!("key {}", number % KEYS), numbered(number));
    };
    let enough = |counts: Counts| counts.dropped_conflated >= 500;
    let flood = Flood::run_with(&topic, &sender, publish, enough).await;

    let counts = sender.counts();
    assert!(counts.waiting <= KEYS && counts.dropped_full == 0, "{counts:?}");
    assert!(sender.queued() < 32 << 10, "{} bytes for {KEYS} keys", sender.queued());
    let due = counts.sent - counts.dropped_conflated;
    let heard = hear_numbers(&mut raw, due as usize).await;
    assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    assert!(heard.starts_with(&upto(flood.delivered_before_loss)), "{heard:?}");
    let newest: Vec<_> = (flood.published - KEYS..flood.published).collect();
    assert!(heard.ends_with(&newest), "{heard:?}");
    hear_nothing_more(&mut raw, &topic, &sender).await;
}

/// T18. Messages without a key are outdated by each other and by nothing else.
async fn keys_are_in_the_order_of_their_latest_updates(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::Conflate);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    // While nothing waits, nothing is outdated.
    for value in ["a0", "a0", "b0"] {
        serve(&topic, |topic| topic.publish_keyed(&value[..1], value)).await;
        raw.expect(frame(TEXT, value)).await;
    }
    hold(&mut raw, &sender, &mut told).await;
    for value in ["a1", "b1", "-1", "c1", "a2", "-2", "b2", "d1", "b3", "a3", "-3"] {
        serve(&topic, |topic| match &value[..1] {
            "-" => topic.publish(value),
            key => topic.publish_keyed(key, value),
        })
        .await;
    }
    let counts = sender.counts();
    assert_eq!((counts.sent, counts.waiting, counts.dropped_conflated), (14, 5, 6));
    assert_eq!(sender.queued(), 5 * (2 + 2 + ENTRY));
    release(&mut raw, &mut told).await;
    for value in ["c1", "d1", "b3", "a3", "-3"] {
        raw.expect(frame(TEXT, value)).await;
    }
    hear_nothing_more(&mut raw, &topic, &sender).await;
}

/// T18: "first value never lost if alone".
async fn a_value_that_nothing_outdates_is_not_lost(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(MAX_QUEUE), handler);
    let topic = running.topics.get("t");
    topic.set_slow_consumer(SlowConsumer::Conflate);
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    for round in 0..10 {
        hold(&mut raw, &sender, &mut told).await;
        for key in 0..3 {
            serve(&topic, |topic| topic.publish_keyed(&key.to_string(), numbered(round + key)))
                .await;
        }
        release(&mut raw, &mut told).await;
        assert_eq!(hear_numbers(&mut raw, 3).await, [round, round + 1, round + 2]);
    }
    hear_nothing_more(&mut raw, &topic, &sender).await;
    assert_eq!(sender.counts().dropped(), 0);
}

/// T18: four topics share a queue. Who fills it is who loses; a topic that has nothing in the queue
/// loses what does not fit, too, whatever its policy.
async fn a_policy_drops_only_its_own_topics_messages(server: Server) {
    const ROOM: usize = 16;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(ROOM * (FRAME + ENTRY)), handler);
    let topics = ["newest", "oldest", "latest", "strict"].map(|name| running.topics.get(name));
    let [newest, oldest, latest, strict] = &topics;
    newest.set_slow_consumer(SlowConsumer::DropNewest);
    oldest.set_slow_consumer(SlowConsumer::DropOldest);
    latest.set_slow_consumer(SlowConsumer::Conflate);
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    order(&mut raw, &mut told, "+newest +oldest +latest +strict").await;
    hold(&mut raw, &sender, &mut told).await;

    for (topic, numbers) in [(newest, 100..104), (oldest, 200..204), (strict, 400..404)] {
        for number in numbers {
            serve(topic, |topic| topic.publish(numbered(number))).await;
        }
    }
    for number in 300..312 {
        let key = (number % 4).to_string();
        serve(latest, |topic| topic.publish_keyed(&key, numbered(number))).await;
    }
    assert_eq!(sender.queued(), ROOM * (FRAME + ENTRY), "there is no room left");
    for number in 204..214 {
        serve(oldest, |topic| topic.publish(numbered(number))).await;
        serve(newest, |topic| topic.publish(numbered(number))).await;
    }
    // A new key, so the oldest of the other ones goes.
    serve(latest, |topic| topic.publish_keyed("new", numbered(312))).await;
    let lost = topics.each_ref().map(|topic| {
        let Counts { waiting, dropped_full, dropped_conflated, dropped_closed, .. } =
            topic.counts();
        (waiting, dropped_full, dropped_conflated, dropped_closed)
    });
    assert_eq!(lost, [(4, 10, 0, 0), (4, 10, 0, 0), (4, 1, 8, 0), (4, 0, 0, 0)]);

    release(&mut raw, &mut told).await;
    let mut heard = hear_numbers(&mut raw, 16).await;
    // Each topic's are in order.
    heard.sort_by_key(|number| number / 100);
    assert_eq!(
        heard,
        [100, 101, 102, 103, 210, 211, 212, 213, 309, 310, 311, 312, 400, 401, 402, 403]
    );
    hear_nothing_more(&mut raw, strict, &sender).await;
}

/// T17, among the topics of one connection.
async fn a_busy_topic_does_not_keep_a_quiet_one_waiting(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let (busy, quiet) = (running.topics.get("t"), running.topics.get("quiet"));
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    order(&mut raw, &mut told, "+quiet").await;
    hold(&mut raw, &sender, &mut told).await;
    for number in 0..100 {
        serve(&busy, |topic| topic.publish(numbered(number))).await;
    }
    for number in 1000..1003 {
        serve(&quiet, |topic| topic.publish(numbered(number))).await;
    }
    release(&mut raw, &mut told).await;
    assert_eq!(hear_numbers(&mut raw, 6).await, [0, 1000, 1, 1001, 2, 1002]);
    assert_eq!(hear_numbers(&mut raw, 97).await, (3..100).collect::<Vec<_>>());
    hear_nothing_more(&mut raw, &busy, &sender).await;
}

/// [`Server::max_queue`]: "one message is taken even if it is larger, when nothing else waits".
async fn an_idle_connection_takes_a_message_of_any_size(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(SIZE), handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let large = vec![7; STALLS];
    for _ in 0..2 {
        serve(&topic, |topic| topic.publish(large.clone())).await;
        assert!(sender.queued() > SIZE && sender.queued() <= STALLS + 10, "{}", sender.queued());
        assert!(raw.frame().await == (BINARY, large.clone()));
        eventually(|| sender.queued() == 0).await;
    }
    hear_nothing_more(&mut raw, &topic, &sender).await;
    assert_eq!(sender.counts().dropped(), 0);
}

/// T15: behind a message that is on its way, nothing has to be taken.
async fn a_message_that_does_not_fit_is_for_the_policy(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(SIZE), handler);
    for policy in POLICIES {
        let topic = running.topics.get("t");
        topic.set_slow_consumer(policy);
        let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
        let large = vec![7; STALLS];
        for _ in 0..3 {
            serve(&topic, |topic| topic.publish(large.clone())).await;
            assert!(sender.queued() <= STALLS + 10, "{}", sender.queued());
        }
        let counts = sender.counts();
        assert_eq!((counts.sent, counts.delivered(), counts.dropped()), (3, 1, 2), "{policy:?}");
        assert!(raw.frame().await == (BINARY, large));
        if let SlowConsumer::Disconnect(code) = policy {
            raw.expect(frame(CLOSE, close(code.into(), "too slow"))).await;
            assert_eq!((counts.dropped_full, counts.dropped_closed), (1, 1));
        } else {
            assert_eq!(counts.dropped_full, 2, "{policy:?}");
            hear_nothing_more(&mut raw, &topic, &sender).await;
        }
        drop((raw, topic));
        eventually(|| running.topics.is_empty()).await;
    }
}

/// Room that would not be enough is not made at others' expense.
async fn a_message_that_can_never_fit_drops_no_other(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(10 * (FRAME + ENTRY)), handler);
    for policy in [SlowConsumer::DropNewest, SlowConsumer::DropOldest, SlowConsumer::Conflate] {
        let topic = running.topics.get("t");
        topic.set_slow_consumer(policy);
        let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
        hold(&mut raw, &sender, &mut told).await;
        for number in 0..5 {
            let key = number.to_string();
            serve(&topic, |topic| topic.publish_keyed(&key, numbered(number))).await;
        }
        serve(&topic, |topic| topic.publish_keyed("large", vec![0; 11 * SIZE])).await;
        let counts = sender.counts();
        assert_eq!((counts.waiting, counts.dropped_full), (5, 1), "{policy:?}");
        release(&mut raw, &mut told).await;
        assert_eq!(hear_numbers(&mut raw, 5).await, upto(5), "{policy:?}");
        hear_nothing_more(&mut raw, &topic, &sender).await;
        drop((raw, topic));
        eventually(|| running.topics.is_empty()).await;
    }
}

/// `max_queue(0)`: the message that was begun has to go on, everything else is for the policy.
async fn without_a_queue_nothing_waits_but_what_was_begun(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(0), handler);
    for policy in POLICIES {
        let topic = running.topics.get("t");
        topic.set_slow_consumer(policy);
        let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
        for number in 0..10 {
            serve(&topic, |topic| topic.publish(numbered(number))).await;
            assert_eq!(hear_numbers(&mut raw, 1).await, [number]);
        }
        hold(&mut raw, &sender, &mut told).await;
        serve(&topic, |topic| topic.publish("")).await;
        assert_eq!((sender.queued(), sender.counts().waiting), (0, 0));
        assert_eq!((sender.counts().delivered(), sender.counts().dropped_full), (10, 1));
        if let SlowConsumer::Disconnect(code) = policy {
            raw.expect(frame(CLOSE, close(code.into(), "too slow"))).await;
        } else {
            release(&mut raw, &mut told).await;
            hear_nothing_more(&mut raw, &topic, &sender).await;
        }
        drop((raw, topic));
        eventually(|| running.topics.is_empty()).await;
    }
}

/// T16: control frames wait for what the transport has begun to take, not for the whole queue.
async fn a_ping_is_answered_and_a_close_goes_out_when_the_queue_is_full(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropNewest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let flood = Flood::run(&topic, &sender, |counts| counts.dropped_full >= 5).await;
    raw.say(masked(PING, "there?")).await;
    // The handler has seen what came behind the Ping, and so the Ping.
    order(&mut raw, &mut told, ".").await;
    let waiting = sender.counts().waiting;
    assert!(waiting > 80, "{waiting}");
    sender.close(CloseCode::new(4001).expect("private use"), "enough");
    assert!(!sender.is_open());
    assert_eq!(sender.counts().waiting, 0);

    let (mut heard, mut before_pong) = (Vec::new(), None);
    loop {
        match raw.frame().await {
            (BINARY, message) => heard.push(number_of(&message)),
            (PONG, payload) => {
                assert_eq!(payload, b"there?");
                assert!(before_pong.replace(heard.len()).is_none(), "answered once");
            }
            end => {
                assert_eq!(end, (CLOSE, close(4001, "enough")));
                break;
            }
        }
    }
    assert_eq!(heard, flood.kept);
    let before_pong = before_pong.expect("a Pong");
    assert!(before_pong + waiting as usize <= heard.len(), "{before_pong} of {}", heard.len());
}

/// T17, in small: the others hear everything while one is stalled, and no publisher waits: publishing
/// is not even asynchronous.
async fn one_stalled_member_of_fifty_is_nobody_elses_business(server: Server) {
    const LARGE: usize = 60_000;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(MAX_QUEUE), handler);
    let topic = running.topics.get("t");
    topic.set_slow_consumer(SlowConsumer::DropOldest);
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let mut others = Vec::new();
    for _ in 1..50 {
        others.push(Web::member(running.address, "t").await);
    }
    let mut published = 0;
    while sender.counts().dropped_full < 10 {
        // The system's buffers on both sides have less than this.
        assert!(published < 1000, "a client that does not read takes everything");
        for _ in 0..4 {
            topic.publish(vec![published as u8; LARGE]);
            published += 1;
        }
        let fresh = published - 4..published;
        for other in &mut others {
            for number in fresh.clone() {
                let heard = other.hear_message().await;
                assert!(heard.as_bytes() == vec![number as u8; LARGE], "{number}");
            }
        }
        assert!(sender.queued() <= MAX_QUEUE + LARGE + 10, "{}", sender.queued());
    }
    eventually(|| topic.counts().sent == 50 * published as u64).await;
    // Every loss is the stalled one's.
    assert_eq!(topic.counts().dropped(), sender.counts().dropped());
    let due = published as u64 - sender.counts().dropped();
    for _ in 0..due {
        assert_eq!(raw.frame().await.1.len(), LARGE);
    }
    eventually(|| topic.counts().waiting == 0).await;
}

/// T20: what a lagging member publishes to others is not kept for it, and shifts nothing else.
async fn a_publisher_that_excepts_itself_does_not_hear_itself_later(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut publisher, sender) = narrow_member(&running, &mut told, "t").await;
    let (mut other, others) = narrow_member(&running, &mut told, "t").await;
    hold(&mut publisher, &sender, &mut told).await;
    hold(&mut other, &others, &mut told).await;
    order(&mut publisher, &mut told, "^t:0 !t:1 ^t:2 ^t:3 !t:4 !t:5 ^t:6").await;
    order(&mut other, &mut told, "!t:7 ^t:8 !t:9").await;
    eventually(|| topic.counts().sent == 20 - 5).await;
    assert_eq!((sender.counts().waiting, others.counts().waiting), (6, 9));
    release(&mut publisher, &mut told).await;
    release(&mut other, &mut told).await;
    for number in [1, 4, 5, 7, 8, 9] {
        publisher.expect(frame(TEXT, number.to_string())).await;
    }
    for number in [0, 1, 2, 3, 4, 5, 6, 7, 9] {
        other.expect(frame(TEXT, number.to_string())).await;
    }
    assert_eq!((sender.counts().sent, others.counts().sent), (6, 9));
    topic.publish("end");
    publisher.expect(frame(TEXT, "end")).await;
    other.expect(frame(TEXT, "end")).await;
}

/// T21: three publishers; messages of all sizes, so that writes are partial; members that read in bursts,
/// so that they lag and catch up. Nothing may be lost, because all of it may wait.
async fn each_publisher_is_heard_in_order_by_members_that_stop_and_go(server: Server) {
    const EACH: u64 = 150;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(64 << 20), handler);
    let topic = running.topics.get("t");
    let (mut members, mut senders) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (raw, sender) = narrow_member(&running, &mut told, "t").await;
        members.push(raw);
        senders.push(sender);
    }
    let mut tasks = JoinSet::new();
    for publisher in 0..3 {
        let topic = topic.clone();
        tasks.spawn(async move {
            for number in 0..EACH {
                let size = 16 + (number * (publisher + 13) * 2741 % 70_000) as usize;
                let mut message = vec![publisher as u8; size];
                message[1..9].copy_from_slice(&number.to_be_bytes());
                topic.publish(message);
                if number % (publisher + 2) == 0 {
                    yield_now().await;
                }
            }
        });
    }
    for (id, mut raw) in members.into_iter().enumerate() {
        let topic = topic.clone();
        tasks.spawn(async move {
            let mut next = [0; 3];
            for burst in 0.. {
                // Each one stops at other places, until something waits or all is published.
                let stopped = topic.counts().sent;
                eventually(|| topic.counts().sent >= (stopped + 60).min(9 * EACH)).await;
                for _ in 0..20 * (id + 1) + burst % 7 {
                    if next == [EACH; 3] {
                        return;
                    }
                    let (_, message) = raw.frame().await;
                    let publisher = usize::from(message[0]);
                    assert_eq!(number_of(&message[1..]), next[publisher], "of {publisher}");
                    next[publisher] += 1;
                }
            }
        });
    }
    tasks.join_all().await;
    for sender in senders {
        let counts = sender.counts();
        assert_eq!((counts.sent, counts.delivered()), (3 * EACH, 3 * EACH), "{counts:?}");
    }
    assert_eq!((topic.counts().sent, topic.counts().delivered()), (9 * EACH, 9 * EACH));
}

/// T21: "none after the unsubscribe"; what was published before is still due.
async fn leaving_ends_what_is_due_and_not_what_waits(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let _bystander = Web::member(running.address, "t").await;
    assert!(matches!(told.recv().await, Some(Exposed::Sender(_))));
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    hold(&mut raw, &sender, &mut told).await;
    let mut number = 0;
    for script in ["-t", "+t", "-t", "+t"] {
        for _ in 0..3 {
            serve(&topic, |topic| topic.publish(numbered(number))).await;
            number += 1;
        }
        order(&mut raw, &mut told, script).await;
    }
    serve(&topic, |topic| topic.publish(numbered(number))).await;
    assert_eq!((sender.counts().sent, sender.counts().waiting), (7, 7));
    release(&mut raw, &mut told).await;
    assert_eq!(hear_numbers(&mut raw, 7).await, [0, 1, 2, 6, 7, 8, 12]);
    topic.publish("end");
    raw.expect(frame(TEXT, "end")).await;
}

async fn closing_by_a_sender_flushes_what_waits(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropNewest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (raw, sender) = narrow_member(&running, &mut told, "t").await;
    let flood = Flood::run(&topic, &sender, |counts| counts.waiting >= 50).await;
    sender.close(CloseCode::new(4001).expect("private use"), "enough");
    topic.publish("late");
    hear_flushed(raw, &topic, &sender, &flood, close(4001, "enough")).await;
    // What was published afterwards was due, and is lost.
    assert_eq!(topic.counts().dropped_closed, 1);
}

async fn closing_by_the_end_of_the_handler_flushes_what_waits(server: Server) {
    let end = Arc::new(Notify::new());
    let (tell, mut told) = unbounded_channel();
    let ends = Arc::clone(&end);
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropNewest);
    let running = Running::start(server, move |socket: Socket| {
        let (tell, end) = (tell.clone(), Arc::clone(&ends));
        async move {
            socket.join("t");
            let _ = tell.send(socket.sender());
            end.notified().await;
        }
    });
    let topic = running.topics.get("t");
    let raw = Raw::open_narrow(running.address).await;
    let sender = told.recv().await.expect("a sender");
    let flood = Flood::run(&topic, &sender, |counts| counts.waiting >= 50).await;
    end.notify_one();
    hear_flushed(raw, &topic, &sender, &flood, close(1000, "")).await;
    assert_eq!(topic.counts().dropped(), 0);
}

/// T28.
async fn shutting_down_flushes_what_waits(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropNewest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (raw, sender) = narrow_member(&running, &mut told, "t").await;
    let mut flood = Flood::run(&topic, &sender, |counts| counts.waiting >= 50).await;
    // Nobody has had the time to serve this.
    topic.publish(numbered(flood.published));
    flood.kept.push(flood.published);
    running.shutdown.start();
    let end = close(1001, "server is shutting down");
    hear_flushed(raw, &topic, &sender, &flood, end).await;
    assert_eq!(topic.counts().dropped(), 0);
    running.end().await;
}

/// All that was kept, the Close frame, and nothing else.
async fn hear_flushed(mut raw: Raw, topic: &Topic, sender: &Sender, flood: &Flood, end: Vec<u8>) {
    assert_eq!(hear_numbers(&mut raw, flood.kept.len()).await, flood.kept);
    raw.expect(frame(CLOSE, end)).await;
    raw.say(masked(CLOSE, close(1000, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    eventually(|| topic.is_empty()).await;
    assert_eq!(topic.counts(), sender.counts());
    assert_eq!((sender.counts().waiting, sender.queued()), (0, 0));
    assert_eq!(sender.counts().delivered(), flood.kept.len() as u64);
}

/// §5.5.1 of RFC 6455: the answer to a Close comes "as soon as practical", so behind nothing that waits.
async fn what_waits_for_a_client_that_closes_is_counted(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropNewest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    let flood = Flood::run(&topic, &sender, |counts| counts.waiting >= 80).await;
    let waiting = sender.counts().waiting;
    raw.say(masked(CLOSE, close(4002, ""))).await;
    eventually(|| !sender.is_open() && sender.counts().waiting == 0).await;
    let counts = sender.counts();
    assert_eq!((counts.dropped_closed, counts.sent), (waiting, flood.published));
    assert_eq!(hear_numbers(&mut raw, counts.delivered() as usize).await, upto(counts.delivered()));
    raw.expect(frame(CLOSE, close(4002, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    eventually(|| topic.is_empty()).await;
    assert_eq!((topic.counts(), sender.queued()), (counts, 0));
}

async fn what_waits_for_a_client_that_vanishes_is_counted(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropOldest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (raw, sender) = narrow_member(&running, &mut told, "t").await;
    let flood = Flood::run(&topic, &sender, |counts| counts.dropped_full >= 10).await;
    let before = sender.counts();
    reset_on_drop(raw.0.get_ref());
    drop(raw);
    eventually(|| topic.is_empty()).await;
    let counts = sender.counts();
    assert_eq!((counts.sent, counts.waiting, sender.queued()), (flood.published, 0, 0));
    assert_eq!((counts.dropped_closed, counts.dropped_full), (before.waiting, before.dropped_full));
    assert_eq!(topic.counts(), counts);
}

/// The connection's own messages are neither dropped nor counted, and may overtake what waits.
async fn a_handlers_messages_are_not_dropped(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.max_queue(MAX_QUEUE).slow_consumer(SlowConsumer::DropOldest);
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    Flood::run(&topic, &sender, |counts| counts.dropped_full >= 10).await;
    for number in 0..20 {
        let before = sender.counts();
        order(&mut raw, &mut told, &format!("=own{number} !t:{number} =more{number}")).await;
        eventually(|| sender.counts().sent == before.sent + 1).await;
    }
    let counts = sender.counts();
    let mut own = Vec::new();
    let (mut last, mut heard, mut shared) = (None, 0, Vec::new());
    while heard < counts.sent - counts.dropped() || own.len() < 40 {
        match raw.frame().await {
            (BINARY, message) => {
                let number = Some(number_of(&message));
                assert!(last < number, "{number:?} behind {last:?}");
                last = number;
                heard += 1;
            }
            (_, text) if text[0].is_ascii_digit() => {
                shared.push(String::from_utf8(text).expect("digits"));
                heard += 1;
            }
            (_, text) => own.push(String::from_utf8(text).expect("ASCII")),
        }
    }
    let expected = (0..20).flat_map(|number| [format!("own{number}"), format!("more{number}")]);
    assert_eq!(own, expected.collect::<Vec<_>>());
    assert_eq!(shared, upto(20).iter().map(u64::to_string).collect::<Vec<_>>());
    hear_nothing_more(&mut raw, &topic, &sender).await;
}

/// §5.4 of RFC 6455: frames of messages are not interleaved. They wait, they are not lost.
async fn chunks_hold_back_what_is_published_until_their_end(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    for round in 0..3 {
        serve(&topic, |topic| topic.publish("before")).await;
        raw.expect(frame(TEXT, "before")).await;
        order(&mut raw, &mut told, "(one").await;
        raw.expect(frame(0x01, "one")).await;
        for number in 0..5 {
            serve(&topic, |topic| topic.publish(numbered(number))).await;
        }
        assert_eq!(sender.counts().waiting, 5);
        order(&mut raw, &mut told, "(two (three").await;
        raw.say(masked(PING, "p")).await;
        raw.expect([frame(0x00, "two"), frame(0x00, "three"), frame(PONG, "p")].concat()).await;
        serve(&topic, |topic| topic.publish(numbered(5))).await;
        order(&mut raw, &mut told, ")four").await;
        raw.expect(frame(0x80, "four")).await;
        assert_eq!(hear_numbers(&mut raw, 6).await, upto(6));
        let counts = sender.counts();
        assert_eq!((counts.delivered(), counts.dropped()), (7 * (round + 1), 0));
    }
    hear_nothing_more(&mut raw, &topic, &sender).await;
}

/// §5.4 of RFC 6455: "control frames MAY be injected in the middle of a fragmented message".
async fn a_member_can_be_disconnected_between_chunks(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(10 * (FRAME + ENTRY)), handler);
    let topic = running.topics.get("t");
    let (mut raw, sender) = narrow_member(&running, &mut told, "t").await;
    hold(&mut raw, &sender, &mut told).await;
    for number in 0..10 {
        serve(&topic, |topic| topic.publish(numbered(number))).await;
        assert!(sender.is_open());
    }
    serve(&topic, |topic| topic.publish("")).await;
    assert!(!sender.is_open());
    let counts = sender.counts();
    assert_eq!((counts.sent, counts.dropped_full, counts.dropped_closed), (11, 1, 10));
    raw.expect(frame(CLOSE, close(1013, "too slow"))).await;
    raw.say(masked(CLOSE, close(1013, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    eventually(|| topic.is_empty()).await;
    assert_eq!(topic.counts(), counts);
}

/// T23: what waited, what was replaced and what went past the queue, for members with and without
/// contexts, which stay in step with what their handlers send in between.
async fn lagging_members_decode_the_same_whatever_they_agreed_on(server: Server) {
    let best = Deflate::best_ratio();
    let all = [None, Some(Deflate::default()), Some(best), Some(best.peer_window_bits(9))];
    let (handler, mut told) = exposed();
    let running = Running::start(server.deflate(best), handler);
    let (news, prices) = (running.topics.get("news"), running.topics.get("prices"));
    prices.set_slow_consumer(SlowConsumer::Conflate);
    let mut members = Vec::new();
    for settings in all {
        let mut web = Web::open_deflating(running.address, settings).await;
        let sender = sender_from(&mut told).await;
        web.say("+news +prices .").await;
        done_by(&mut told).await;
        members.push((web, sender));
    }
    let text = |tag: u64| format!("{tag} {}", "the same again and again; ".repeat(20));
    for round in 0..4 {
        let first = 1000 * round;
        for (web, _) in &mut members {
            web.say(format!("=hello{round} (begun .")).await;
            done_by(&mut told).await;
        }
        for number in first..first + 10 {
            serve(&news, |topic| topic.publish(text(number))).await;
            let key = (number % 3).to_string();
            serve(&prices, |topic| topic.publish_keyed(&key, text(100 + number))).await;
        }
        for (web, sender) in &mut members {
            assert_eq!(sender.counts().waiting, 13);
            web.say(format!(")ended =bye{round} .")).await;
            done_by(&mut told).await;
            assert_eq!(web.hear().await, format!("hello{round}"));
            assert_eq!(web.hear().await, "begunended");
            let mut heard = Vec::new();
            for _ in 0..14 {
                heard.push(web.hear().await);
            }
            // Held with the end of the chunks, or behind it: it is in no topic.
            heard.retain(|message| *message != format!("bye{round}"));
            let is_price = |message: &&String| {
                let number = message.split(' ').next().and_then(|number| number.parse().ok());
                number.is_some_and(|number: u64| number % 1000 >= 100)
            };
            let (heard_prices, heard_news): (Vec<_>, Vec<_>) = heard.iter().partition(is_price);
            assert!(heard_news.into_iter().eq(&Vec::from_iter((first..first + 10).map(text))));
            assert!(heard_prices.into_iter().eq(&[107, 108, 109].map(|tag| text(first + tag))));
        }
        // Past the queue.
        serve(&news, |topic| topic.publish(text(first))).await;
        for (web, _) in &mut members {
            assert_eq!(web.hear().await, text(first));
        }
    }
    for (_, sender) in &members {
        let counts = sender.counts();
        assert_eq!((counts.sent, counts.delivered(), counts.dropped_conflated), (84, 56, 28));
    }
    let [news, prices] = [news, prices].map(|topic| topic.counts());
    assert_eq!((news.sent, news.delivered()), (4 * 44, 4 * 44));
    assert_eq!((prices.sent, prices.delivered(), prices.dropped_conflated), (160, 48, 112));
}

/// Numbered messages to a client that does not read.
struct Flood {
    published: u64,
    /// The numbers of those that were not dropped at once.
    kept: Vec<u64>,
    /// How many were delivered when the first one was lost.
    delivered_before_loss: u64,
}

impl Flood {
    async fn run(topic: &Topic, sender: &Sender, enough: impl Fn(Counts) -> bool) -> Self {
        Self::run_with(topic, sender, |topic, number| topic.publish(numbered(number)), enough).await
    }

    /// Publishes until it is enough, and each time checks the limit and the counts.
    async fn run_with(
        topic: &Topic,
        sender: &Sender,
        publish: impl Fn(&Topic, u64),
        enough: impl Fn(Counts) -> bool,
    ) -> Self {
        let mut flood = Self { published: 0, kept: Vec::new(), delivered_before_loss: 0 };
        let mut before = sender.counts();
        while !enough(before) {
            // The system's buffers on both sides have less than this.
            assert!(flood.published < 20_000, "a client that does not read takes everything");
            serve(topic, |topic| publish(topic, flood.published)).await;
            let queued = sender.queued();
            assert!(queued <= MAX_QUEUE + FRAME, "{queued} bytes are queued");
            let counts = sender.counts();
            assert_eq!(counts.sent, before.sent + 1);
            if counts.dropped_full == before.dropped_full {
                flood.kept.push(flood.published);
            }
            if counts.dropped() == 0 {
                flood.delivered_before_loss = counts.delivered();
            }
            flood.published += 1;
            before = counts;
        }
        flood
    }
}

/// Nothing of what was published is on its way any more, and all of it is accounted for.
async fn hear_nothing_more(raw: &mut Raw, topic: &Topic, sender: &Sender) {
    serve(topic, |topic| topic.publish("end")).await;
    raw.expect(frame(TEXT, "end")).await;
    let counts = sender.counts();
    assert_eq!((counts.waiting, sender.queued()), (0, 0));
    assert_eq!(counts.sent, counts.delivered() + counts.dropped());
    if topic.counts().sent == counts.sent {
        assert_eq!(topic.counts(), counts, "the only member's are the topic's");
    }
}

fn numbered(number: u64) -> Vec<u8> {
    let mut message = vec![number as u8; SIZE];
    message[..8].copy_from_slice(&number.to_be_bytes());
    message
}

fn number_of(message: &[u8]) -> u64 {
    let number = message.first_chunk().expect("a numbered message");
    u64::from_be_bytes(*number)
}

async fn hear_numbers(raw: &mut Raw, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let (first, message) = raw.frame().await;
        assert_eq!(first, BINARY, "{:?}", String::from_utf8_lossy(&message));
        numbers.push(number_of(&message));
    }
    numbers
}

fn upto(end: u64) -> Vec<u64> {
    (0..end).collect()
}

const POLICIES: [SlowConsumer; 4] = [
    SlowConsumer::Disconnect(CloseCode::TRY_AGAIN_LATER),
    SlowConsumer::DropNewest,
    SlowConsumer::DropOldest,
    SlowConsumer::Conflate,
];

/// More than the system ever takes on behalf of a narrow client, so that what is stalled stays so.
const STALLS: usize = 8 << 20;
