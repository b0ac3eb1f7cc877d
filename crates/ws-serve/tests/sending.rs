//! Sending from outside the handler: senders in other tasks and threads, limits, broadcasts, and messages
//! in chunks.

#[macro_use]
mod support;

use std::{
    collections::{HashMap, HashSet},
    future::ready,
    pin::pin,
    thread,
    time::Duration,
};

use support::{
    BINARY, CLOSE, Exposed, PING, PONG, Raw, Running, TEXT, close, exposed, frame, masked,
    poll_once, reset_on_drop, sender_from,
};
use tokio::{runtime::Handle, sync::mpsc::unbounded_channel};
use ws_serve::{
    Chunk, CloseCode, Config, Error, Message, PreparedMessage, Sender, Server, Skip, Socket,
    broadcast,
};

everywhere! {
    eight_senders_deliver_everything_whole_and_in_their_order,
    try_send_stops_at_the_limit_and_delivers_what_it_accepted,
    a_queue_takes_one_message_of_any_size,
    a_waiting_sender_resumes_when_the_client_reads,
    a_waiting_sender_is_told_that_the_client_is_gone,
    a_sender_outlives_its_connection,
    a_sender_does_not_keep_the_connection_open,
    a_broadcast_accounts_for_each_target,
    a_broadcast_is_the_same_bytes_everywhere,
    forty_broadcasts_to_a_client_that_never_reads_stay_bounded,
    chunks_go_out_as_they_are_sent,
    chunks_come_in_as_they_arrive,
}

/// Half of the senders live in tasks, half in threads.
async fn eight_senders_deliver_everything_whole_and_in_their_order(server: Server) {
    const EACH: usize = 1000;
    async fn send_all(sender: Sender, id: usize) {
        for number in 0..EACH {
            // Some are copied, some are shared, all must be whole.
            let filler = "x".repeat(if number % 50 == id { 20_000 } else { number % 100 });
            sender.send(format!("{id}:{number}:{filler}")).await.expect("an open connection");
        }
    }
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut client = running.client().await;
    let sender = sender_from(&mut told).await;
    for id in 0..8 {
        let sender = sender.clone();
        if id % 2 == 0 {
            tokio::spawn(send_all(sender, id));
        } else {
            let runtime = Handle::current();
            thread::spawn(move || runtime.block_on(send_all(sender, id)));
        }
    }
    let mut next = HashMap::new();
    for _ in 0..8 * EACH {
        let text = client.hear().await;
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
        let (id, sent) = (number().expect("an id"), number().expect("a number"));
        let filler = if sent % 50 == id { 20_000 } else { sent % 100 };
        assert_eq!(parts.next().map(str::len), Some(filler), "message {sent} of {id}");
        let expected = next.entry(id).or_insert(0);
        assert_eq!(sent, *expected, "order of sender {id}");
        *expected += 1;
    }
    assert!(next.len() == 8 && next.values().all(|count| *count == EACH), "{next:?}");
}

/// More than the system ever takes on behalf of a narrow client, so that what is full stays so.
const LIMIT: usize = 8 << 20;

/// Sends numbered messages until the queue is full. Answers with how many were accepted.
fn fill(sender: &Sender, size: usize) -> usize {
    for number in 0.. {
        let Err(refused) = sender.try_send(numbered(number, size)) else { continue };
        let Skip::QueueFull { queued } = refused.reason else { panic!("{refused}") };
        // T15, strict, and not before there is a reason.
        assert!(queued <= LIMIT.max(size + 10), "{queued} bytes are queued");
        assert!(queued + size + 10 > LIMIT, "refused with {queued} bytes queued");
        assert_eq!(refused.message, Message::from(numbered(number, size)));
        return number;
    }
    unreachable!("the queue is bounded")
}

fn numbered(number: usize, size: usize) -> Vec<u8> {
    let mut message = vec![number as u8; size];
    message[..8].copy_from_slice(&(number as u64).to_be_bytes());
    message
}

/// T15: sent = delivered + refused, exactly. T16: with the queue full a Ping is answered and the Close
/// goes out.
async fn try_send_stops_at_the_limit_and_delivers_what_it_accepted(server: Server) {
    const SIZE: usize = 10_000;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(LIMIT), handler);
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    let accepted = fill(&sender, SIZE);
    raw.say([masked(PING, "there?"), masked(TEXT, "marker")].concat()).await;
    // The handler has seen what came behind the Ping, and so the Ping.
    assert!(matches!(told.recv().await, Some(Exposed::Message(_))));
    sender.close(CloseCode::new(4001).expect("private use"), "enough");
    assert!(!sender.is_open());
    let mut ponged = false;
    let mut number = 0;
    loop {
        match raw.frame().await {
            (BINARY, payload) => {
                assert!(payload == numbered(number, SIZE), "message {number}");
                number += 1;
            }
            (PONG, payload) => {
                assert_eq!(payload, b"there?");
                assert!(!ponged && number < accepted, "overtakes what waits, once");
                ponged = true;
            }
            end => {
                assert_eq!(end, (CLOSE, close(4001, "enough")));
                break;
            }
        }
    }
    assert_eq!((number, ponged), (accepted, true));
}

async fn a_queue_takes_one_message_of_any_size(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(1), handler);
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    let large = vec![7; 12 << 20];
    sender.try_send(large.clone()).expect("the queue is empty");
    let refused = sender.try_send("one more").expect_err("the system's buffers are not that large");
    assert!(matches!(refused.reason, Skip::QueueFull { queued } if queued < 12 << 20));
    assert!(raw.frame().await == (BINARY, large));
    sender.try_send("one more").expect("the queue is empty again");
    raw.expect(frame(TEXT, "one more")).await;
}

async fn a_waiting_sender_resumes_when_the_client_reads(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    let mut number = 0;
    loop {
        // B24: a dropped send has queued its message whole or not at all; which, it does not tell.
        // So one that has to wait is kept.
        let mut send = pin!(sender.send(numbered(number, 5000)));
        number += 1;
        if poll_once(send.as_mut()).await.is_ready() {
            continue;
        }
        for expected in 0..number - 1 {
            assert!(raw.frame().await == (BINARY, numbered(expected, 5000)), "{expected}");
        }
        send.await.expect("there is room again");
        break;
    }
    assert!(raw.frame().await == (BINARY, numbered(number - 1, 5000)));
}

async fn a_waiting_sender_is_told_that_the_client_is_gone(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(LIMIT), handler);
    let raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    fill(&sender, 10_000);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send("never").await })
        })
        .collect();
    reset_on_drop(raw.0.get_ref());
    drop(raw);
    for send in waiting {
        let error = send.await.expect("no panic").expect_err("the client is gone");
        assert!(error.is_disconnect(), "{error}");
    }
}

async fn a_sender_outlives_its_connection(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut client = running.client().await;
    let sender = sender_from(&mut told).await;
    let twin = sender.clone();
    assert!(sender.is_open() && sender == twin);
    assert_eq!(HashSet::from([sender.clone(), twin]).len(), 1);
    assert_eq!(
        sender.peer_addr().socket_addr().expect("TCP"),
        client.0.get_ref().local_addr().expect("an address")
    );
    client.0.close(CloseCode::NORMAL, "").await;
    let Some(Exposed::Ended(_)) = told.recv().await else { panic!("the handler goes on") };
    assert!(!sender.is_open());
    let refused = sender.try_send("late").expect_err("closed");
    assert_eq!((refused.reason, refused.message), (Skip::Closed, Message::from("late")));
    assert!(matches!(sender.send("late").await, Err(Error::Closed { .. })));
    sender.close(CloseCode::NORMAL, "twice does no harm");
}

/// T7, T14: nor its file descriptor, when the client never answered our Close.
async fn a_sender_does_not_keep_the_connection_open(server: Server) {
    let (tell, mut told) = unbounded_channel();
    let config = Config::default().close_timeout(Duration::from_millis(50));
    let running = Running::start(server.config(config), move |socket: Socket| {
        let _ = tell.send(socket.sender());
        ready(())
    });
    let mut raw = running.raw().await;
    let sender = told.recv().await.expect("a sender");
    raw.expect(frame(CLOSE, close(1000, ""))).await;
    raw.hear_end().await;
    assert!(!sender.is_open());
}

async fn a_broadcast_accounts_for_each_target(server: Server) {
    let (told, mut senders) = unbounded_channel();
    let running = Running::start(server.max_queue(LIMIT), move |mut socket: Socket| {
        let told = told.clone();
        async move {
            // The second connection is in the middle of a message.
            let Some(order) = socket.receive().await? else { return Ok(()) };
            if order.as_text() == Some("chunks") {
                socket.send_chunk("begun", false).await?;
            }
            let _ = told.send(socket.sender());
            while socket.receive().await?.is_some() {}
            Ok::<_, Error>(())
        }
    });
    let mut targets = Vec::new();
    let mut clients = Vec::new();
    for order in ["", "chunks", "", "", ""] {
        let mut raw = Raw::open_narrow(running.address).await;
        raw.say(masked(TEXT, order)).await;
        targets.push(senders.recv().await.expect("a sender"));
        clients.push(raw);
    }
    targets[2].close(CloseCode::NORMAL, "");
    fill(&targets[3], 10_000);
    // Fits into no queue but an empty one.
    let news = "x".repeat(LIMIT);

    let delivery = broadcast(&targets, news.as_str());
    assert_eq!(delivery.accepted + delivery.skipped.len(), targets.len());
    let skipped: Vec<_> = delivery.skipped.iter().map(|(sender, skip)| (sender, *skip)).collect();
    let [mid_message, closed, full] = skipped[..] else { panic!("{skipped:?}") };
    assert_eq!(mid_message, (&targets[1], Skip::MidMessage));
    assert_eq!(closed, (&targets[2], Skip::Closed));
    assert!(full.0 == &targets[3] && matches!(full.1, Skip::QueueFull { .. }), "{full:?}");
    for accepted in [0, 4] {
        assert!(clients[accepted].frame().await == (TEXT, news.clone().into_bytes()));
    }
    // Who was skipped sees nothing of it.
    clients[1].expect(frame(0x01, "begun")).await;
    clients[2].expect(frame(CLOSE, close(1000, ""))).await;
}

/// T22: framed once; here, that nobody's differs.
async fn a_broadcast_is_the_same_bytes_everywhere(server: Server) {
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut clients = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..5 {
        clients.push(running.raw().await);
        senders.push(sender_from(&mut told).await);
    }
    for message in [Message::from("ä"), "x".repeat(126).into(), vec![0; 65_536].into()] {
        let prepared = PreparedMessage::new(message);
        let delivery = broadcast(senders.iter(), prepared.clone());
        assert_eq!((delivery.accepted, delivery.skipped.len()), (5, 0));
        for client in &mut clients {
            client.expect(prepared.as_frame()).await;
        }
    }
}

/// T15, B6.
async fn forty_broadcasts_to_a_client_that_never_reads_stay_bounded(server: Server) {
    const SIZE: usize = 1 << 20;
    let (handler, mut told) = exposed();
    let running = Running::start(server.max_queue(LIMIT), handler);
    let mut deaf = Raw::open_narrow(running.address).await;
    let sender = sender_from(&mut told).await;
    let mut accepted = 0;
    for _ in 0..40 {
        let delivery = broadcast([&sender], vec![0; SIZE]);
        accepted += delivery.accepted;
        if let Some((_, skip)) = delivery.skipped.first() {
            let Skip::QueueFull { queued } = *skip else { panic!("{skip}") };
            assert!(queued <= LIMIT.max(SIZE + 10), "{queued} bytes are queued");
        }
    }
    assert!((1..40).contains(&accepted), "{accepted}");
    for _ in 0..accepted {
        assert!(deaf.frame().await == (BINARY, vec![0; SIZE]));
    }
    // Nothing but what was accepted.
    sender.send("end").await.expect("an open connection");
    deaf.expect(frame(TEXT, "end")).await;
}

/// §5.4 of RFC 6455: other messages keep out, control frames may come between.
async fn chunks_go_out_as_they_are_sent(server: Server) {
    let running = Running::start(server, |mut socket: Socket| async move {
        socket.send("before").await?;
        socket.send_chunk("one", false).await?;
        assert!(matches!(socket.send("refused").await, Err(Error::Send(_))));
        assert!(matches!(socket.send_chunk(vec![0], true).await, Err(Error::Send(_))));
        // The client has read the first chunk when it says so.
        while socket.receive().await?.is_some_and(|message| message.as_text() != Some("last")) {
            socket.send_chunk("more", false).await?;
        }
        socket.send_chunk("", true).await?;
        socket.send("after").await
    });
    let mut raw = running.raw().await;
    raw.expect([frame(TEXT, "before"), frame(0x01, "one")].concat()).await;
    for round in 0..3 {
        raw.say(masked(PING, [round])).await;
        raw.expect(frame(PONG, [round])).await;
        raw.say(masked(TEXT, "next")).await;
        raw.expect(frame(0x00, "more")).await;
    }
    raw.say(masked(TEXT, "last")).await;
    raw.expect([frame(0x80, ""), frame(TEXT, "after")].concat()).await;
}

/// B11: text is cut between code points; a message in chunks may be larger than the limit.
async fn chunks_come_in_as_they_arrive(server: Server) {
    let (tell, mut told) = unbounded_channel();
    let config = Config::default().max_message_size(10);
    let running = Running::start(server.config(config), move |mut socket: Socket| {
        let tell = tell.clone();
        async move {
            while let Some(chunk) = socket.receive_chunk().await? {
                let _ = tell.send(chunk);
            }
            Ok::<_, Error>(())
        }
    });
    let mut raw = running.raw().await;
    let text = "aé€😀".repeat(10);
    let (first, rest) = text.as_bytes().split_at(7);
    raw.say(masked(0x01, first)).await;
    // One byte of "😀" is held back; the rest of the message does not exist yet.
    let mut heard = String::new();
    while heard != "aé€" {
        let Chunk { data, last } = told.recv().await.expect("a chunk");
        heard.push_str(data.as_text().expect("text"));
        assert!(!last);
    }
    raw.say(masked(0x80, rest)).await;
    loop {
        let Chunk { data, last } = told.recv().await.expect("a chunk");
        heard.push_str(data.as_text().expect("text"));
        if last {
            break;
        }
    }
    assert_eq!(heard, text);
}
