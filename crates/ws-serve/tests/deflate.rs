//! A server with permessage-deflate (RFC 7692) over real sockets: one compression for all receivers of
//! a kind, contexts that stay in step whatever goes past them, and bombs.
//!
//! Not its business: which agreement comes of which offer, and the compressed bytes.

#[macro_use]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    task::Poll,
    thread,
};

use support::{
    CLOSE, PING, PONG, REQUEST, Raw, Running, WATCHDOG, Web, close, echo, exposed, masked,
    sender_from, server, within,
};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::{block_in_place, yield_now},
};
use ws_serve::{
    CloseCode, Config, Deflate, Error, Message, PreparedMessage, Sender, Server, Skip, Socket,
    broadcast,
    conn::{
        WebSocket,
        proto::{AgreedDeflate, Context, bytes::BytesMut},
    },
};

everywhere! {
    messages_of_all_sizes_come_back,
    a_handler_is_told_the_agreement,
    a_burst_leaves_in_order_and_before_its_close,
    broadcasts_between_messages_leave_contexts_in_step,
    messages_from_many_tasks_stay_in_step,
    sends_and_broadcasts_stay_in_step_when_the_queue_is_full,
    nothing_before_joining_or_after_leaving_reaches_a_member,
    publishing_to_others_leaves_out_exactly_the_publisher,
    members_with_one_agreement_receive_identical_bytes,
    chunks_and_messages_of_a_topic_do_not_mix,
    compressed_fragments_nest_as_any,
}

/// What clients may want; `None` is one that offers nothing.
fn clients() -> Vec<Option<Deflate>> {
    let best = Deflate::best_ratio();
    let mut all = vec![None, Some(Deflate::default()), Some(best)];
    for bits in 9..=15 {
        all.push(Some(best.peer_window_bits(bits)));
        all.push(Some(Deflate::default().peer_window_bits(bits)));
    }
    all
}

/// Text in which much repeats, different for each `tag`.
fn text(tag: usize, size: usize) -> String {
    let mut text = String::with_capacity(size + 64);
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        text.push_str(&format!("{{\"tag\":{tag},\"id\":{number},\"odd\":{}}},", number % 2));
    }
    text.truncate(size);
    text
}

async fn messages_of_all_sizes_come_back(server: Server) {
    let running = Running::start(server.deflate(Deflate::best_ratio()), echo);
    let lean = Running::start(support::server().deflate(Deflate::default()), echo);
    for (running, large) in [(&running, 1 << 20), (&lean, 200_000)] {
        for (tag, settings) in clients().into_iter().enumerate().take(6) {
            let mut client = Web::open_deflating(running.address, settings).await;
            for size in [0, 1, 31, 32, 255, 256, 5000, 70_000] {
                let text = text(tag, size);
                client.say(text.clone()).await;
                client.say(Message::from(text.clone().into_bytes())).await;
                client.say(text.clone()).await;
                assert_eq!(client.hear().await, text);
                assert_eq!(client.hear_message().await, text.clone().into_bytes().into());
                assert_eq!(client.hear().await, text);
            }
            if tag == 2 {
                let text = text(tag, large);
                client.say(text.clone()).await;
                assert!(client.hear().await == text);
            }
            assert!(client.0.close(CloseCode::NORMAL, "").await.is_clean());
        }
    }
}

async fn a_handler_is_told_the_agreement(server: Server) {
    let server = server.deflate(Deflate::best_ratio().window_bits(12));
    let running = Running::start(server, |socket: Socket| async move {
        let agreed = socket.deflate().map(|agreed| (agreed.send, agreed.receive));
        socket.send(format!("{agreed:?}")).await
    });
    let keep = |window_bits| Context { takeover: true, window_bits };
    let forget = |window_bits| Context { takeover: false, window_bits };
    for (settings, agreed) in [
        (None, None),
        (Some(Deflate::default()), Some((forget(12), forget(15)))),
        (Some(Deflate::best_ratio()), Some((keep(12), keep(15)))),
        (
            Some(Deflate::best_ratio().peer_window_bits(10).window_bits(9)),
            Some((keep(10), keep(9))),
        ),
    ] {
        let mut client = Web::open_deflating(running.address, settings).await;
        assert_eq!(client.hear().await, format!("{agreed:?}"));
        let mirrored = client.0.deflate().map(|agreed| (agreed.receive, agreed.send));
        assert_eq!(mirrored, agreed);
    }
}

/// What a handler sends without a pause, in the cork or past it, precedes the Close that follows.
async fn a_burst_leaves_in_order_and_before_its_close(server: Server) {
    let server = server.deflate(Deflate::best_ratio());
    let running = Running::start(server, |socket: Socket| async move {
        let sender = socket.sender();
        for number in 0..120 {
            // Past what the cork takes, now and then.
            let size = if number % 60 == 50 { 200_000 } else { number * 3 };
            let text = format!("{number} {}", text(number, size));
            match number % 5 {
                0 | 1 => socket.send(text).await?,
                2 => socket.send(Message::from(text).uncompressed()).await?,
                3 => sender.send(Message::from(text).compressed()).await?,
                _ => {
                    let delivery = broadcast([&sender], text);
                    assert_eq!(delivery.accepted, 1, "{:?}", delivery.skipped);
                }
            }
        }
        socket.close(CloseCode::new(4000).expect("private use"), "done");
        assert!(socket.send("late").await.is_err());
        Ok::<_, Error>(())
    });
    for settings in clients() {
        let mut client = Web::open_deflating(running.address, settings).await;
        for number in 0..120 {
            let size = if number % 60 == 50 { 200_000 } else { number * 3 };
            let heard = client.hear().await;
            assert!(heard == format!("{number} {}", text(number, size)), "{number}: {settings:?}");
        }
        assert_eq!(client.hear_end().await, (4000, "done".to_owned()));
    }
}

/// As in `corking.rs`, where contexts are kept: messages are compressed as they are sent, without the
/// cork, and still nothing leaves before the poll ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_in_the_middle_of_a_poll() {
    for settings in [Deflate::best_ratio(), Deflate::default()] {
        let (told, sent) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let released = Arc::new(std::sync::Mutex::new(released));
        let running = Running::start(server().deflate(settings), move |socket: Socket| {
            let (told, released) = (told.clone(), Arc::clone(&released));
            async move {
                for tag in 0..16 {
                    socket.send(text(tag, 500)).await?;
                }
                told.send(()).expect("the test waits");
                // Blocks the thread on purpose: the poll must not end.
                block_in_place(|| released.lock().expect("one user").recv_timeout(WATCHDOG))
                    .expect("the test goes on");
                std::future::pending::<()>().await;
                Ok::<_, Error>(())
            }
        });
        let mut stream = open_plainly(running.address, "permessage-deflate");
        sent.recv_timeout(WATCHDOG).unwrap();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        release.send(()).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let ws = WebSocket::client_on(stream, BytesMut::new(), &Config::default()).unwrap();
        let agreed = settings.agree(settings.receiving(), settings.sending());
        let mut client = Web(ws.with_deflate(Some(agreed)));
        within(async {
            for tag in 0..16 {
                assert_eq!(client.hear().await, text(tag, 500));
            }
        })
        .await;
    }
}

/// A blocking client behind its opening handshake.
fn open_plainly(address: SocketAddr, offer: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("not zero");
    let request = REQUEST.strip_suffix("\r\n").expect("the request ends");
    let request = format!("{request}Sec-WebSocket-Extensions: {offer}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server is there");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a whole head");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    stream
}

type Told = UnboundedReceiver<support::Exposed>;

/// A client of an [`exposed`] handler and its sender.
async fn known(running: &Running, told: &mut Told, settings: Option<Deflate>) -> (Web, Sender) {
    let client = Web::open_deflating(running.address, settings).await;
    (client, sender_from(told).await)
}

/// A member of a topic of an [`exposed`] handler.
async fn member(address: SocketAddr, topic: &str, settings: Option<Deflate>) -> Web {
    let mut client = Web::open_deflating(address, settings).await;
    client.say(format!("+{topic}")).await;
    assert_eq!(client.hear().await, format!("+{topic}"));
    client
}

/// T23: a message for all is compressed once; and again only for windows that are smaller than it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_receivers_take_one_compression() {
    within(shout_at_a_thousand()).await;
}

async fn shout_at_a_thousand() {
    const RECEIVERS: usize = 1000;
    let (handler, mut told) = exposed();
    let server = server().workers(2).deflate(Deflate::best_ratio());
    let running = Running::start(server, handler);
    let topic = running.topics.get("t");
    let kinds = clients();
    let mut receivers = Vec::new();
    for place in 0..RECEIVERS {
        let settings = kinds[place % kinds.len()];
        let (mut client, sender) = known(&running, &mut told, settings).await;
        client.say("+t").await;
        assert_eq!(client.hear().await, "+t");
        receivers.push((client, sender, settings));
    }
    assert_eq!(topic.len(), RECEIVERS);
    // 9 to 12 bits are smaller than 5000 bytes; larger windows share what is made for 15.
    for (size, compressions) in [(400, 1), (5000, 5), (31, 0), (600, 2), (40_000, 7)] {
        let shout = PreparedMessage::new(text(size, size));
        let delivery = broadcast(receivers.iter().map(|(_, sender, _)| sender), shout.clone());
        assert_eq!(delivery.accepted, receivers.len(), "{:?}", delivery.skipped);
        assert_eq!(shout.compressions(), compressions, "{size} bytes, broadcast");
        let news = PreparedMessage::new(text(size + 1, size));
        topic.publish(news.clone());
        for (client, _, settings) in &mut receivers {
            let mut heard = [client.hear().await, client.hear().await];
            // They may come from two threads.
            heard.sort();
            let mut expected = [text(size, size), text(size + 1, size)];
            expected.sort();
            assert!(heard == expected, "{size} bytes: {settings:?}");
        }
        assert_eq!(news.compressions(), compressions, "{size} bytes, published");
        // The first ones made it for all.
        let again = broadcast(receivers.iter().map(|(_, sender, _)| sender), news.clone());
        assert_eq!(again.accepted, receivers.len(), "{:?}", again.skipped);
        assert_eq!(news.compressions(), compressions);
        // And what is for one alone is still understood.
        for (place, (client, sender, settings)) in receivers.iter_mut().enumerate() {
            sender.send(text(place, size)).await.expect("an open connection");
            assert!(client.hear().await == text(size + 1, size), "{settings:?}");
            assert!(client.hear().await == text(place, size), "{settings:?}");
        }
        if size == 5000 {
            // A hundred have all kinds among them, and are quicker.
            receivers.truncate(100);
        }
    }
    // Where all want the same, once it is, whatever the size.
    let (same, _): (Vec<_>, Vec<_>) =
        receivers.into_iter().partition(|(_, _, settings)| *settings == kinds[2]);
    let shout = PreparedMessage::new(text(1, 100_000));
    let delivery = broadcast(same.iter().map(|(_, sender, _)| sender), shout.clone());
    assert_eq!((delivery.accepted, shout.compressions()), (same.len(), 1));
}

async fn broadcasts_between_messages_leave_contexts_in_step(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.deflate(Deflate::best_ratio()), handler);
    let topic = running.topics.get("t");
    let mut receivers = Vec::new();
    for settings in clients() {
        let (mut client, sender) = known(&running, &mut told, settings).await;
        client.say("+t").await;
        assert_eq!(client.hear().await, "+t");
        receivers.push((client, sender));
    }
    for round in 0..8 {
        // Some are too short to be compressed, which must not matter.
        let sizes = [20, 300, 700, 3000, 40_000].map(|size| size + round);
        let size = |place: usize| sizes[(round + place) % sizes.len()];
        for (_, sender) in &receivers {
            sender.send(text(1, size(0))).await.expect("an open connection");
        }
        let _ = broadcast(receivers.iter().map(|(_, sender)| sender), text(2, size(1)));
        for (_, sender) in &receivers {
            let secret = Message::from(text(3, size(2))).uncompressed();
            sender.send(secret).await.expect("an open connection");
            sender.try_send(text(4, size(3))).expect("there is room");
            sender.send(text(5, size(0))).await.expect("an open connection");
        }
        topic.publish(text(6, size(4)));
        topic.publish(text(7, size(1)));
        for (client, _) in &mut receivers {
            for (tag, place) in [(1, 0), (2, 1), (3, 2), (4, 3), (5, 0), (6, 4), (7, 1)] {
                assert!(client.hear().await == text(tag, size(place)), "{round}: {tag}");
            }
        }
    }
}

async fn messages_from_many_tasks_stay_in_step(server: Server) {
    const EACH: usize = 200;
    let (handler, mut told) = exposed();
    let running = Running::start(server.deflate(Deflate::best_ratio()), handler);
    let mut receivers = Vec::new();
    for settings in [None, Some(Deflate::default()), Some(Deflate::best_ratio())] {
        receivers.push(known(&running, &mut told, settings).await);
    }
    for (mut client, sender) in receivers {
        for id in 0..4 {
            let sender = sender.clone();
            let send_all = async move {
                for number in 0..EACH {
                    let message = format!("{id} {number} {}", text(number, number * 5));
                    match number % 4 {
                        3 => drop(broadcast([&sender], message)),
                        _ => sender.send(message).await.expect("an open connection"),
                    }
                }
            };
            if id % 2 == 0 {
                tokio::spawn(send_all);
            } else {
                let runtime = tokio::runtime::Handle::current();
                thread::spawn(move || runtime.block_on(send_all));
            }
        }
        let mut next = [0; 4];
        for _ in 0..4 * EACH {
            let heard = client.hear().await;
            let id: usize = heard[..1].parse().expect("an id");
            let number = next[id];
            assert_eq!(heard, format!("{id} {number} {}", text(number, number * 5)));
            next[id] += 1;
        }
    }
}

/// Whether a prepared message goes past the queue or through it, in part or whole.
async fn sends_and_broadcasts_stay_in_step_when_the_queue_is_full(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.deflate(Deflate::best_ratio()).max_queue(8 << 20);
    let running = Running::start(server, handler);
    let (mut client, sender) =
        known(&running, &mut told, Some(Deflate::best_ratio().peer_window_bits(12))).await;
    // Noise in front, so that compression does not keep the queue empty.
    let noisy = |number: usize| {
        let mut state = number as u64 | 1;
        let next = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            char::from(b'0' + (state >> 33) as u8 % 64)
        };
        format!("{number} {}{}", (0..30_000).map(next).collect::<String>(), text(number, 2000))
    };
    let sending = tokio::spawn(async move {
        for number in 0..100 {
            if number % 2 == 0 {
                sender.send(noisy(number)).await.expect("an open connection");
                continue;
            }
            let message = PreparedMessage::new(noisy(number));
            while let Err(reason) = sender.try_send_prepared(&message) {
                assert!(matches!(reason, Skip::QueueFull { .. }), "{reason}");
                yield_now().await;
            }
        }
    });
    for number in 0..100 {
        assert!(client.hear().await == noisy(number), "{number}");
        // Slower than the sender, so that its queue is filled.
        for _ in 0..20 {
            yield_now().await;
        }
    }
    sending.await.expect("no panic");
}

/// T21 with compression: a slice of a turn begins at a message, in each form.
async fn nothing_before_joining_or_after_leaving_reaches_a_member(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server.deflate(Deflate::best_ratio()), handler);
    // Somebody of each kind has to be in, so that all forms are there.
    let mut bystanders = Vec::new();
    for settings in clients() {
        bystanders.push(member(running.address, "t", settings).await);
    }
    let (out, inside, end) = ("out".repeat(500), "in".repeat(700), "end".repeat(300));
    for settings in clients() {
        let mut late = Web::open_deflating(running.address, settings).await;
        for _ in 0..3 {
            late.say(format!(
                "!t:{out} +t !t:{inside} -t !t:{out} +t -t !t:{out} !t:{out} +t !t:{inside} -t \
                 !t:{out} +t !t:{inside} !t:{end}"
            ))
            .await;
            let mut heard = Vec::new();
            while heard.last() != Some(&end) {
                heard.push(late.hear().await);
            }
            let insides = heard.iter().filter(|text| **text == inside).count();
            assert_eq!(insides, 3, "{settings:?}");
            assert_eq!(heard.len(), insides + 1, "{settings:?}");
            late.say("-t").await;
            assert_eq!(late.hear().await, "-t");
        }
    }
    let rounds = clients().len() * 3;
    let outs = [&out, &inside, &out, &out, &out, &inside, &out, &inside, &end];
    for bystander in &mut bystanders {
        for _ in 0..rounds {
            for expected in outs {
                assert!(bystander.hear().await == *expected);
            }
        }
    }
}

/// T21: who joins while a former turn is being served gets what is published until it leaves; there is
/// no gap in front of it. A turn of so many members is served in two goes.
#[tokio::test]
async fn joining_and_leaving_while_a_former_turn_is_served_misses_nothing() {
    let server = server().deflate(Deflate::default());
    let running = Running::start(server, |mut socket: Socket| async move {
        while let Some(message) = socket.receive().await? {
            if message.as_text() == Some("join") {
                socket.join("t");
                socket.send("joined").await?;
                continue;
            }
            socket.publish("t", "before".repeat(100));
            // Behind the flusher, which was woken first.
            let mut woken = false;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            socket.join("t");
            socket.publish("t", "inside".repeat(100));
            socket.leave("t");
            socket.send("end").await?;
        }
        Ok::<_, Error>(())
    });
    within(async {
        let mut members = Vec::new();
        for _ in 0..300 {
            let mut member = Web::open_deflating(running.address, Some(Deflate::default())).await;
            member.say("join").await;
            assert_eq!(member.hear().await, "joined");
            members.push(member);
        }
        let mut late = Web::open_deflating(running.address, Some(Deflate::default())).await;
        late.say("go").await;
        assert_eq!(late.hear().await, "inside".repeat(100));
        assert_eq!(late.hear().await, "end");
    })
    .await;
}

async fn publishing_to_others_leaves_out_exactly_the_publisher(server: Server) {
    let (handler, _told) = exposed();
    let running = Running::start(server.deflate(Deflate::best_ratio()), handler);
    let mut members = Vec::new();
    for settings in clients() {
        members.push(member(running.address, "t", settings).await);
    }
    let word = |publisher: usize, place: usize| format!("{publisher}-{place}-").repeat(100);
    for publisher in 0..members.len() {
        // At the beginning, in the middle and at the end of a turn.
        members[publisher]
            .say(format!(
                "^t:{} !t:{} ^t:{} ^t:{} !t:{} ^t:{}",
                word(publisher, 0),
                word(publisher, 1),
                word(publisher, 2),
                word(publisher, 3),
                word(publisher, 4),
                word(publisher, 5)
            ))
            .await;
        for (place, member) in members.iter_mut().enumerate() {
            let for_it: &[usize] = if place == publisher { &[1, 4] } else { &[0, 1, 2, 3, 4, 5] };
            for number in for_it {
                assert!(member.hear().await == word(publisher, *number), "{place}: {number}");
            }
        }
    }
}

/// T23: with a context or without, the same bytes; they refer to nothing before them.
async fn members_with_one_agreement_receive_identical_bytes(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.deflate(Deflate::best_ratio()), handler);
    let mut raws = Vec::new();
    for (offer, answer) in [
        ("permessage-deflate", "permessage-deflate"),
        (
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; \
             server_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=13",
        ),
    ] {
        let raw = Raw::open_offering(running.address, offer, answer).await;
        raws.push((raw, sender_from(&mut told).await));
    }
    // One context remembers something, the others do not.
    raws[0].1.send(text(1, 2000)).await.expect("an open connection");
    assert_eq!(raws[0].0.frame().await.0, 0xc1);
    let message = PreparedMessage::new(text(1, 2000));
    let _ = broadcast(raws.iter().map(|(_, sender)| sender), message.clone());
    assert_eq!(message.compressions(), 1);
    let mut all = Vec::new();
    for (raw, _) in &mut raws {
        all.push(raw.frame().await);
    }
    assert!(all.iter().all(|frame| frame.0 == 0xc1 && frame.1.len() < 1000), "{all:02x?}");
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    // For who has been told to forget, nothing gets smaller the second time.
    for _ in 0..2 {
        raws[1].1.send(text(1, 2000)).await.expect("an open connection");
        let frame = raws[1].0.frame().await;
        assert_eq!(frame.0, 0xc1);
        // With the context it would be a few bytes.
        assert!(frame.1.len() + 8 > all[1].1.len(), "{} bytes", frame.1.len());
    }
}

/// A message in chunks is one compressed message: what is published meanwhile must not get into it,
/// nor disturb what follows.
async fn chunks_and_messages_of_a_topic_do_not_mix(server: Server) {
    let server = server.deflate(Deflate::best_ratio());
    let running = Running::start(server, |mut socket: Socket| async move {
        for round in 0..10 {
            socket.send(text(round, 400)).await?;
            socket.send_chunk(text(round, 1000), false).await?;
            let sender = socket.sender();
            let delivery = broadcast([&sender], text(99, 400));
            assert_eq!(delivery.skipped.len(), 1);
            assert_eq!(delivery.skipped[0].1, Skip::MidMessage);
            let _pong = socket.ping()?;
            socket.send_chunk(text(round, 1000), true).await?;
            socket.send(text(round, 500)).await?;
            assert_eq!(broadcast([&sender], text(round, 600)).accepted, 1);
        }
        socket.receive().await.map(drop)
    });
    for settings in clients() {
        let mut client = Web::open_deflating(running.address, settings).await;
        for round in 0..10 {
            assert_eq!(client.hear().await, text(round, 400));
            assert_eq!(client.hear().await, text(round, 1000).repeat(2));
            assert_eq!(client.hear().await, text(round, 500));
            assert_eq!(client.hear().await, text(round, 600));
        }
    }
}

/// RFC 7692 §6.1 leaves the rules of RFC 6455 §5.4 as they are: control frames may come between
/// fragments, other messages not.
async fn compressed_fragments_nest_as_any(server: Server) {
    let running = Running::start(server.deflate(Deflate::default()), echo);
    let offer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let open = || Raw::open_offering(running.address, offer, offer);
    // §7.2.3.1: "Hello". It is too short to come back compressed.
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let mut raw = open().await;
    for _ in 0..2 {
        raw.say(masked(0x41, &hello[..3])).await;
        raw.say(masked(PING, "1")).await;
        raw.expect(support::frame(PONG, "1")).await;
        raw.say([masked(0x00, &hello[3..5]), masked(PING, "2"), masked(0x00, [])].concat()).await;
        raw.expect(support::frame(PONG, "2")).await;
        raw.say(masked(0x80, &hello[5..])).await;
        raw.expect(support::frame(0x81, "Hello")).await;
    }
    for (second, reason) in [
        (0xc1, "expected a continuation frame"),
        (0x81, "expected a continuation frame"),
        (0x41, "expected a continuation frame"),
        (0xc0, "reserved bits 0b100 must be 0"),
        (0xc9, "reserved bits 0b100 must be 0"),
    ] {
        let mut raw = open().await;
        raw.say([masked(0x41, &hello[..3]), masked(second, &hello[3..])].concat()).await;
        raw.expect(support::frame(CLOSE, close(1002, reason))).await;
        assert!(raw.hear_end().await, "ended by a reset");
    }
}

/// Compressed zeros: a message's payload and its frame's opcode are for who sends it.
fn zeros(size: usize) -> Vec<u8> {
    let settings = Deflate::default().level(9);
    let context = Context { takeover: false, window_bits: 15 };
    let agreed: AgreedDeflate = settings.agree(context, context);
    let prepared = PreparedMessage::new(vec![0; size]);
    let frame = prepared.frame_for(Some(&agreed));
    assert_eq!(frame[0], 0xc2, "compressed");
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    frame[header..].to_vec()
}

/// T12: what many bombers at once make a server hold is bounded by its limit for each, all the time.
/// The server has a thread of its own, whose memory is counted.
#[tokio::test]
async fn many_bombs_at_once_are_refused_within_the_limit() {
    const BOMBERS: usize = 200;
    const LIMIT: usize = 64 << 10;
    let (bomb, almost) = (zeros(12 << 20), zeros(LIMIT - 100));
    assert!(bomb.len() * 900 < 12 << 20, "{} bytes", bomb.len());

    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let config = Config::default().max_message_size(LIMIT as u64);
        let running = Running::start(server().config(config).deflate(settings), echo);
        // The pools of this thread.
        let mut first = Web::open_deflating(running.address, Some(settings)).await;
        first.say(text(1, 1000)).await;
        first.hear().await;
        drop(first);

        let before = live();
        forget_peak();
        let (armed, all_armed) = oneshot::channel();
        let (fire, fired) = mpsc::channel();
        let address = running.address;
        let (bomb, almost) = (bomb.clone(), almost.clone());
        let bombers = thread::spawn(move || {
            let open = |_| open_plainly(address, "permessage-deflate");
            let mut bombers: Vec<TcpStream> = (0..BOMBERS).map(open).collect();
            // First a fragment that is just allowed; the Pong says that it was taken in.
            for stream in &mut bombers {
                let wire = [masked(0x42, &almost), masked(PING, "")].concat();
                stream.write_all(&wire).expect("the server is there");
            }
            for stream in &mut bombers {
                assert_eq!(read_frame(stream), (PONG, vec![]));
            }
            armed.send(()).expect("the test waits");
            fired.recv_timeout(WATCHDOG).expect("the test goes on");
            for stream in &mut bombers {
                // The rest begins where a block may begin: behind the tail that a message leaves out.
                let rest = [&[0x00, 0x00, 0xff, 0xff][..], &bomb].concat();
                stream.write_all(&masked(0x80, rest)).expect("the server is there");
            }
            let end = |stream: &mut TcpStream| read_frame(stream);
            bombers.iter_mut().map(end).collect::<Vec<_>>()
        });
        within(all_armed).await.expect("the bombers are armed");
        let each = grown(before) / BOMBERS;
        assert!(each <= LIMIT + (256 << 10), "{each} bytes each while they wait");
        fire.send(()).expect("the bombers wait");
        let ends = within(tokio::task::spawn_blocking(move || bombers.join())).await;
        let ends = ends.expect("no panic").expect("no panic");
        for (first, payload) in ends {
            assert_eq!((first, &payload[..2]), (CLOSE, &1009_u16.to_be_bytes()[..]));
        }
        let most = PEAK.get() - before;
        let most = usize::try_from(most).unwrap_or(0) / BOMBERS;
        assert!(most <= LIMIT + (256 << 10), "{most} bytes each at most");
        running.end().await;
        // Some decompressors stay with the thread, and nothing with those that are gone.
        let left = grown(before);
        assert!(left < 2 << 20, "{left} bytes left");
    }
}

/// A message at once, at a limit of which it is a multiple, from many and in every form.
#[tokio::test]
async fn bombs_of_all_kinds_are_refused() {
    let bomb = zeros(12 << 20);
    let config = || Config::default().max_message_size(64 << 10);
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let running = Running::start(server().config(config()).deflate(settings), echo);
        let answer = match settings == Deflate::best_ratio() {
            true => "permessage-deflate",
            false => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        };
        let fragments: Vec<u8> = [masked(0x42, [])]
            .into_iter()
            .chain(bomb.chunks(50).map(|piece| masked(0x00, piece)))
            .flatten()
            .collect();
        let forms = [masked(0xc2, &bomb), masked(0xc1, &bomb), fragments];
        within(async {
            for wire in forms {
                let mut raw =
                    Raw::open_offering(running.address, "permessage-deflate", answer).await;
                // The server may have closed before all of it is written.
                let (stream, rest) = (raw.0.get_mut(), wire);
                let _ = tokio::io::AsyncWriteExt::write_all(stream, &rest).await;
                let (first, payload) = raw.frame().await;
                assert_eq!((first, &payload[..2]), (CLOSE, &1009_u16.to_be_bytes()[..]));
            }
            // The server is none the worse for it.
            let mut client = Web::open_deflating(running.address, Some(settings)).await;
            client.say(text(1, 60_000)).await;
            assert_eq!(client.hear().await, text(1, 60_000));
        })
        .await;
    }
}

/// A frame of a server: first byte and payload.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a whole frame");
    assert!(header[1] < 126, "a short frame");
    let mut payload = vec![0; header[1].into()];
    stream.read_exact(&mut payload).expect("a whole frame");
    (header[0], payload)
}

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// What this thread has allocated and not given back.
fn live() -> isize {
    LIVE.get()
}

/// How much more that is than before.
fn grown(before: isize) -> usize {
    usize::try_from(live() - before).unwrap_or(0)
}

/// Starts to look for the peak anew, from what is there now.
fn forget_peak() {
    PEAK.set(LIVE.get());
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator has no other interface")]
// SAFETY: all is left to the system's allocator; the thread-locals neither allocate nor need a drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: the caller's promises are the system's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
