//! Topics: who gets what, in which order, and what becomes of those who fall behind or vanish.

#[macro_use]
mod support;

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::Poll,
    thread,
};

use support::{
    BINARY, CLOSE, Raw, Running, TEXT, WATCHDOG, Web, close, eventually, exposed, frame, masked,
    reset_on_drop, sender_from, server, within,
};
use tokio::{
    sync::mpsc::unbounded_channel,
    task::{JoinSet, block_in_place, yield_now},
};
use ws_serve::{CloseCode, Error, Message, PreparedMessage, Server, Skip, Socket};

everywhere! {
    fifty_members_hear_one_publisher_in_order,
    a_publisher_in_a_thread_of_its_own_is_heard_in_order,
    nothing_before_joining_or_after_leaving_reaches_a_member,
    what_is_published_before_leaving_reaches_the_member,
    joining_twice_is_once_and_leaving_twice_is_harmless,
    publishing_to_others_leaves_out_exactly_the_publisher,
    members_of_several_topics_hear_each,
    publishing_to_nobody_is_harmless,
    a_large_message_reaches_twenty_members,
    members_receive_identical_bytes,
    members_who_publish_what_they_hear_do_not_disturb_each_other,
    members_may_come_and_go_while_others_publish,
    a_member_that_never_reads_is_disconnected_and_nobody_else_notices,
    one_turn_is_bounded_for_a_member_that_never_reads,
    a_member_that_vanishes_is_no_member,
    a_topic_lives_as_long_as_somebody_needs_it,
}

/// T21.
async fn fifty_members_hear_one_publisher_in_order(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("news");
    let mut members = Vec::new();
    for _ in 0..50 {
        members.push(Web::member(running.address, "news").await);
    }
    assert_eq!(topic.len(), 50);
    for number in 0..500 {
        topic.publish(number.to_string());
        if number % 7 == 0 {
            yield_now().await;
        }
    }
    for member in &mut members {
        for number in 0..500 {
            assert_eq!(member.hear().await, number.to_string());
        }
    }
}

/// T21, with workers: the members live on both.
async fn a_publisher_in_a_thread_of_its_own_is_heard_in_order(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let mut members = JoinSet::new();
    for _ in 0..20 {
        let mut member = Web::member(running.address, "news").await;
        members.spawn(async move {
            for number in 0..2000 {
                assert_eq!(member.hear().await, number.to_string());
            }
        });
    }
    let topic = running.topics.get("news");
    let publisher = thread::spawn(move || {
        for number in 0..2000 {
            topic.publish(number.to_string());
        }
    });
    members.join_all().await;
    publisher.join().expect("no panic");
}

/// T21. Publishing "end" comes last, and so does hearing it.
async fn nothing_before_joining_or_after_leaving_reaches_a_member(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    // Somebody has to be in, or nothing is published at all.
    let _bystander = Web::member(running.address, "t").await;
    let mut member = running.client().await;
    for _ in 0..100 {
        member
            .say("!t:out +t !t:in -t !t:out +t -t !t:out +t !t:in -t -t !t:out +t !t:in !t:end")
            .await;
        let heard = hear_until(&mut member, "end").await;
        assert!(!heard.contains(&"out".to_owned()), "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("in"));
        member.say("-t").await;
        assert_eq!(member.hear().await, "-t");
    }
}

/// [`Socket::join`]: what is published "from now on is sent to this connection, until it leaves".
async fn what_is_published_before_leaving_reaches_the_member(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let mut member = running.client().await;
    member.say("+t !t:1 -t !t:2 +t !t:3 -t +t !t:4").await;
    for expected in ["1", "3", "4"] {
        assert_eq!(member.hear().await, expected);
    }
}

async fn joining_twice_is_once_and_leaving_twice_is_harmless(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let mut member = Web::member(running.address, "t").await;
    let mut other = Web::member(running.address, "t").await;
    for (say, members) in [("+t", 2), ("-t", 1), ("-t", 1), ("-nowhere", 1), ("+t", 2), ("+t", 2)] {
        member.say(say).await;
        assert_eq!(member.hear().await, say);
        assert_eq!(topic.len(), members, "after {say}");
    }
    topic.publish("once");
    topic.publish("end");
    for client in [&mut member, &mut other] {
        assert_eq!((client.hear().await, client.hear().await), ("once".into(), "end".into()));
    }
    // With nobody in but a name that is held.
    for client in [&mut member, &mut other] {
        client.say("-t").await;
        client.hear().await;
    }
    assert!(topic.is_empty());
}

/// T20, with several exceptions in one turn, and a member that joins between them.
async fn publishing_to_others_leaves_out_exactly_the_publisher(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let mut publisher = running.client().await;
    let mut others =
        [Web::member(running.address, "t").await, Web::member(running.address, "t").await];
    publisher.say("^t:0 !t:1 +t ^t:2 !t:3 ^t:4 ^t:5 !t:6 ^t:7 -nowhere !t:end").await;
    for expected in ["3", "6", "end"] {
        assert_eq!(publisher.hear().await, expected);
    }
    for other in &mut others {
        for number in 0..8 {
            assert_eq!(other.hear().await, number.to_string());
        }
        assert_eq!(other.hear().await, "end");
    }
}

async fn members_of_several_topics_hear_each(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let mut client = running.client().await;
    client.say("+a +b +c !a:1 !b:1 !c:1 !nobody:1 -b !a:2 !b:2 !c:2").await;
    let mut heard = HashMap::new();
    for _ in 0..100 {
        client.say("!a:3 !b:3 !c:3").await;
    }
    while heard.get("3").is_none_or(|count| *count < 200) {
        *heard.entry(client.hear().await).or_insert(0) += 1;
    }
    assert_eq!(heard["2"], 2);
}

async fn publishing_to_nobody_is_harmless(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("nobody");
    topic.publish("before anybody came");
    let mut client = running.client().await;
    client.say("!nobody:x ^nobody:x !never-heard-of:x").await;
    client.say("+nobody").await;
    assert_eq!(client.hear().await, "+nobody");
    client.say("-nobody").await;
    assert_eq!(client.hear().await, "-nobody");
    topic.publish("after everybody left");
    client.say("+nobody !nobody:end").await;
    assert_eq!(client.hear().await, "end");
}

async fn a_large_message_reaches_twenty_members(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let mut members = Vec::new();
    for _ in 0..20 {
        members.push(Web::member(running.address, "t").await);
    }
    for round in 0..3 {
        let message = Message::from(vec![round; 1 << 20]);
        topic.publish(message.clone());
        for member in &mut members {
            assert!(member.hear_message().await == message);
        }
    }
}

/// T22, T23: framed once, so the same for all.
async fn members_receive_identical_bytes(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let mut members = Vec::new();
    for _ in 0..5 {
        let mut raw = running.raw().await;
        raw.say(masked(TEXT, "+t")).await;
        raw.expect(frame(TEXT, "+t")).await;
        members.push(raw);
    }
    let mut wire = Vec::new();
    for size in [0, 1, 125, 126, 8192, 8193, 65_535, 65_536] {
        let text = Message::text("ä".repeat(size / 2));
        for message in [Message::from(vec![size as u8; size]), text] {
            wire.extend_from_slice(PreparedMessage::new(message.clone()).as_frame());
            topic.publish(message);
        }
    }
    for member in &mut members {
        member.expect(&wire).await;
    }
}

/// T19: publishing in reaction to what is published, on a multi-threaded runtime during the flush.
async fn members_who_publish_what_they_hear_do_not_disturb_each_other(server: Server) {
    const MEMBERS: usize = 8;
    const EACH: usize = 50;
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Web::member(running.address, "t").await);
    }
    let mut tasks = JoinSet::new();
    for (id, mut member) in members.into_iter().enumerate() {
        tasks.spawn(async move {
            member.say(format!("!t:{id}.0")).await;
            let mut next = [0; MEMBERS];
            for _ in 0..MEMBERS * EACH {
                let heard = member.hear().await;
                let (of, number) = heard.split_once('.').expect("two numbers");
                let (of, number) = (of.parse::<usize>(), number.parse::<usize>());
                let (of, number) = (of.expect("an id"), number.expect("a number"));
                assert_eq!(number, next[of], "order of {of}");
                next[of] += 1;
                if of == id && number + 1 < EACH {
                    member.say(format!("!t:{id}.{}", number + 1)).await;
                }
            }
        });
    }
    tasks.join_all().await;
}

/// T19, T21, B44: membership changes in the middle of flushes that take several turns each.
async fn members_may_come_and_go_while_others_publish(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let _few_at_a_time = CROWD.lock().await;
    let _crowd = crowd(&running, "t").await;
    let mut members = JoinSet::new();
    for _ in 0..4 {
        let mut member = running.client().await;
        members.spawn(async move {
            let mut last = None;
            for _ in 0..20 {
                member.say("+t").await;
                let mut run = hear_until(&mut member, "+t").await;
                while run.len() < 5 {
                    run.push(member.hear().await);
                }
                member.say("-t").await;
                run.extend(hear_until(&mut member, "-t").await);
                // After it left there is nothing but this.
                member.say("-t").await;
                assert_eq!(member.hear().await, "-t");
                let run: Vec<u64> = run.iter().map(|n| n.parse().expect("a number")).collect();
                assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{run:?}");
                assert!(last < run.first().copied(), "{last:?} comes again in {run:?}");
                last = run.last().copied();
            }
        });
    }
    let done = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let (done, topic) = (Arc::clone(&done), topic.clone());
        async move {
            let mut number = 0u64;
            while !done.load(Ordering::SeqCst) {
                topic.publish(number.to_string());
                number += 1;
                yield_now().await;
            }
        }
    });
    members.join_all().await;
    done.store(true, Ordering::SeqCst);
    publishing.await.expect("no panic");
    assert_eq!(topic.len(), CROWD_SIZE);
}

async fn hear_until(client: &mut Web, end: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let message = client.hear().await;
        if message == end {
            return heard;
        }
        heard.push(message);
    }
}

/// B6, T15, T17: 1013 for the one that does not keep up, everything for the others.
async fn a_member_that_never_reads_is_disconnected_and_nobody_else_notices(server: Server) {
    const SIZE: usize = 60_000;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(SIZE), handler);
    let topic = running.topics.get("t");
    let mut deaf = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    deaf.say(masked(TEXT, "+t")).await;
    let mut members =
        [Web::member(running.address, "t").await, Web::member(running.address, "t").await];
    eventually(|| topic.len() == 3).await;

    let mut published = 0;
    while sender.is_open() {
        // The system's buffers on both sides have less than this.
        assert!(published < 1000, "a member that never reads is still there");
        topic.publish(vec![published as u8; SIZE]);
        for member in &mut members {
            assert!(member.hear_message().await.as_bytes() == vec![published as u8; SIZE]);
        }
        published += 1;
    }
    deaf.expect(frame(TEXT, "+t")).await;
    let mut number = 0;
    loop {
        let (first, payload) = deaf.frame().await;
        if first == CLOSE {
            assert_eq!(payload, close(1013, "too slow"));
            break;
        }
        assert!((first, payload) == (BINARY, vec![number as u8; SIZE]), "message {number}");
        number += 1;
    }
    assert!(number < published, "{number} of {published}");
    drop(deaf);
    eventually(|| topic.len() == 2).await;
    topic.publish("end");
    for member in &mut members {
        assert_eq!(member.hear().await, "end");
    }
}

/// T15 strict, [`Server::max_queue`]: "one message is taken even if it is larger", not a whole turn.
async fn one_turn_is_bounded_for_a_member_that_never_reads(server: Server) {
    const SIZE: usize = 1 << 20;
    let (tell, mut told) = unbounded_channel();
    let running = Running::start(server.max_queue(SIZE), move |mut socket: Socket| {
        let tell = tell.clone();
        async move {
            socket.join("t");
            let _ = tell.send(socket.sender());
            while socket.receive().await?.is_some() {
                for _ in 0..40 {
                    socket.publish("t", vec![0; SIZE]);
                }
            }
            Ok::<_, Error>(())
        }
    });
    let mut deaf = Raw::open_narrow(running.address).await;
    let sender = told.recv().await.expect("a sender");
    deaf.say(masked(TEXT, "go")).await;
    let refused = loop {
        match sender.try_send("probe") {
            Ok(()) => yield_now().await,
            Err(refused) => break refused.reason,
        }
    };
    match refused {
        Skip::QueueFull { queued } => {
            assert!(queued <= 2 * SIZE + 100, "{queued} bytes are queued")
        }
        refused => assert_eq!(refused, Skip::Closed),
    }
}

/// B44.
async fn a_member_that_vanishes_is_no_member(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topic = running.topics.get("a");
    for round in 0..20 {
        let mut client = Web::member(running.address, "a").await;
        client.say("+b +c -b !a:x !c:x").await;
        match round % 4 {
            0 => drop(client),
            1 => drop(client.0.close(CloseCode::NORMAL, "").await),
            2 => reset_on_drop(client.0.get_ref()),
            // In the middle of a frame.
            _ => {
                let mut raw = running.raw().await;
                raw.say(masked(TEXT, "+a")).await;
                raw.say([0x81, 0xFE, 0x01]).await;
            }
        }
    }
    eventually(|| topic.is_empty()).await;
    drop(topic);
    eventually(|| running.topics.is_empty()).await;
}

async fn a_topic_lives_as_long_as_somebody_needs_it(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server, handler);
    let topics = running.topics.clone();
    let held = topics.get("held");
    assert_eq!((held.name(), held.len(), topics.len()), ("held", 0, 1));
    let mut member = Web::member(running.address, "joined").await;
    assert_eq!(topics.len(), 2);
    drop(held);
    assert_eq!(topics.len(), 1);
    assert_eq!(topics.get("joined").len(), 1);
    member.say("-joined").await;
    assert_eq!(member.hear().await, "-joined");
    assert!(topics.is_empty());
}

/// "No message before the subscribe ack" (T21), also when another thread flushes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_was_sent_before_joining_arrives_before_what_is_published() {
    let (go, gone) = mpsc::channel();
    let gone = Arc::new(Mutex::new(gone));
    let running = Running::start(server(), move |mut socket: Socket| {
        let gone = Arc::clone(&gone);
        async move {
            if socket.receive().await?.is_some_and(|order| order.as_text() == Some("slow")) {
                socket.send("welcome").await?;
                socket.join("t");
                // Blocks the thread on purpose: the turn must not end.
                let gone = gone.lock().expect("one user");
                block_in_place(|| gone.recv_timeout(WATCHDOG)).expect("the test goes on");
            } else {
                socket.join("t");
                socket.send("welcome").await?;
            }
            socket.receive().await.map(drop)
        }
    });
    within(async {
        let topic = running.topics.get("t");
        let mut slow = running.client().await;
        slow.say("slow").await;
        eventually(|| topic.len() == 1).await;
        // The flusher serves in the order of joining, so what the second has heard, the first was sent.
        let mut second = running.client().await;
        second.say("").await;
        assert_eq!(second.hear().await, "welcome");
        topic.publish("news");
        assert_eq!(second.hear().await, "news");
        go.send(()).expect("the handler waits");
        assert_eq!((slow.hear().await, slow.hear().await), ("welcome".into(), "news".into()));
    })
    .await;
}

/// T17: a topic that is published to in each turn, and needs more than a turn to be served, does not keep
/// another one waiting.
#[tokio::test]
async fn a_busy_topic_does_not_starve_another_one() {
    let (handler, _told) = exposed();
    let running = Running::start(server(), handler);
    within(async {
        let _few_at_a_time = CROWD.lock().await;
        let mut member = Web::member(running.address, "busy").await;
        member.say("+quiet").await;
        assert_eq!(member.hear().await, "+quiet");
        let _crowd = crowd(&running, "busy").await;
        let (quiet, busy) = (running.topics.get("quiet"), running.topics.get("busy"));
        let mut turn = 0;
        // Not `yield_now`, which lets the flusher have many turns.
        let publishing = tokio::spawn(poll_fn(move |cx| {
            if turn == 0 {
                quiet.publish("news");
            }
            busy.publish("");
            turn += 1;
            cx.waker().wake_by_ref();
            if turn < 200 { Poll::Pending } else { Poll::Ready(()) }
        }));
        let before = hear_until(&mut member, "news").await.len();
        assert!(before < 10, "{before} messages of another topic came first");
        publishing.await.expect("no panic");
    })
    .await;
}

/// So many members that no flush is done in one turn. They do not read; their systems take the few bytes.
async fn crowd(running: &Running, topic: &str) -> Vec<Raw> {
    let before = running.topics.get(topic).len();
    let mut crowd = Vec::new();
    for _ in 0..CROWD_SIZE {
        let mut raw = running.raw().await;
        raw.say(masked(TEXT, format!("+{topic}"))).await;
        crowd.push(raw);
    }
    eventually(|| running.topics.get(topic).len() == before + CROWD_SIZE).await;
    crowd
}

const CROWD_SIZE: usize = 270;

/// One crowd at a time, so that the usual 1024 descriptors of a process are enough.
static CROWD: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// B44: a socket in another task may outlive its session; what it joins then nobody would clean up.
#[tokio::test]
async fn a_socket_that_outlives_its_session_joins_nothing() {
    let (tell, mut told) = unbounded_channel();
    let config = ws_serve::Config::default().close_timeout(std::time::Duration::from_millis(50));
    let running = Running::start(server().config(config), move |mut socket: Socket| {
        let tell = tell.clone();
        tokio::spawn(async move {
            socket.join("before");
            let _ = socket.receive().await;
            let before = socket.topic("before");
            eventually(|| before.is_empty()).await;
            socket.join("after");
            let _ = tell.send(socket);
        });
        // Returning closes the connection.
        std::future::ready(())
    });
    within(async {
        let mut client = running.client().await;
        assert_eq!(client.hear_end().await.0, 1000);
        let socket = told.recv().await.expect("the socket");
        let after = running.topics.get("after");
        assert!(after.is_empty());
        drop(socket);
        assert!(after.is_empty());
    })
    .await;
}
