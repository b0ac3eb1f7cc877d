//! When messages leave: at the end of each poll of the handler, in order, and not later; and what a
//! handler may do with its socket besides a plain loop.

#[macro_use]
mod support;

use std::{
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::Poll,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, Stream};
use support::{
    BINARY, CLOSE, PING, PONG, REQUEST, Running, TEXT, WATCHDOG, close, echo, eventually, frame,
    masked, poll_once, server, within,
};
use tokio::{
    sync::{Notify, mpsc::unbounded_channel},
    task::{block_in_place, yield_now},
};
use ws_serve::{CloseCode, Config, Error, Keepalive, Sender, Server, Skip, Socket};

everywhere! {
    an_answer_leaves_before_the_handler_sleeps,
    a_burst_in_one_segment_is_answered_in_order,
    messages_arrive_before_the_close_that_followed_them,
    messages_before_a_violation_are_answered_before_1002,
    a_socket_works_in_another_task,
    a_socket_in_another_task_answers_pings,
    a_socket_in_another_task_answers_a_close_before_it_is_dropped,
    a_socket_in_another_task_answers_a_violation,
    a_socket_in_another_task_sees_the_end_of_patience,
    a_receive_in_a_set_of_futures_sees_the_end_of_patience,
    a_handler_may_join_receiving_and_sending,
    a_dropped_receive_loses_nothing,
    a_flooding_handler_waits_for_its_client_and_resumes,
}

/// No timer holds an answer back, and none is needed: the handler sleeps until the client has read it.
async fn an_answer_leaves_before_the_handler_sleeps(server: Server) {
    let gate = Arc::new(Notify::new());
    let running = Running::start(server, {
        let gate = Arc::clone(&gate);
        move |mut socket: Socket| {
            let gate = Arc::clone(&gate);
            async move {
                while let Some(message) = socket.receive().await? {
                    socket.send(message).await?;
                    gate.notified().await;
                }
                Ok::<_, Error>(())
            }
        }
    });
    let mut client = running.client().await;
    for round in 0..10 {
        client.say(round.to_string()).await;
        assert_eq!(client.hear().await, round.to_string());
        gate.notify_one();
    }
}

async fn a_burst_in_one_segment_is_answered_in_order(server: Server) {
    let running = Running::start(server, echo);
    let mut raw = running.raw().await;
    // B32: the first burst could as well come behind the request, see `lifecycle.rs`.
    for _ in 0..3 {
        let burst: Vec<u8> = (0..16).flat_map(|i| masked(TEXT, [b'a' + i])).collect();
        let answer: Vec<u8> = (0..16).flat_map(|i| frame(TEXT, [b'a' + i])).collect();
        raw.say(burst).await;
        raw.expect(answer).await;
    }
}

/// While the handler is being polled nothing leaves; what it sent meanwhile leaves together. Sending
/// over the loopback device delivers before it returns, so what has not arrived was not sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_in_the_middle_of_a_poll() {
    let (told, sent) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Arc::new(std::sync::Mutex::new(released));
    let running = Running::start(server(), move |socket: Socket| {
        let (told, released) = (told.clone(), Arc::clone(&released));
        async move {
            for i in 0..16 {
                socket.send(i.to_string()).await?;
            }
            told.send(()).expect("the test waits");
            // Blocks the thread on purpose: the poll must not end.
            block_in_place(|| released.lock().expect("one user").recv_timeout(WATCHDOG))
                .expect("the test goes on");
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        }
    });
    let mut stream = TcpStream::connect(running.address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.write_all(REQUEST.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    sent.recv_timeout(WATCHDOG).unwrap();
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    release.send(()).unwrap();
    let expected: Vec<u8> = (0..16).flat_map(|i| frame(TEXT, i.to_string())).collect();
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, expected);
}

async fn messages_arrive_before_the_close_that_followed_them(server: Server) {
    let running = Running::start(server, |mut socket: Socket| async move {
        for size in [1, 200, 70_000] {
            socket.send("x".repeat(size)).await?;
        }
        socket.close(CloseCode::new(4000).expect("private use"), "done");
        assert!(socket.send("late").await.is_err());
        // B31: what the client sent before it saw this is still received.
        assert_eq!(socket.receive().await?.expect("a message").as_text(), Some("crossing"));
        socket.receive().await.map(drop)
    });
    let mut raw = running.raw().await;
    for size in [1, 200, 70_000] {
        raw.expect(frame(TEXT, "x".repeat(size))).await;
    }
    raw.expect(frame(CLOSE, close(4000, "done"))).await;
    raw.say([masked(TEXT, "crossing"), masked(CLOSE, close(4000, ""))].concat()).await;
    assert!(raw.hear_end().await, "ended by a reset");
}

/// B16.
async fn messages_before_a_violation_are_answered_before_1002(server: Server) {
    let (told, mut heard) = unbounded_channel();
    let running = Running::start(server, move |mut socket: Socket| {
        let told = told.clone();
        async move {
            let mut count = 0;
            let end = loop {
                match socket.receive().await {
                    Ok(Some(message)) => socket.send(message).await?,
                    end => break end,
                }
                count += 1;
            };
            let _ = told.send((count, socket.closed()));
            end.map(drop)
        }
    });
    let violations = [
        (vec![0x83, 0x80, 0, 0, 0, 0], "invalid opcode 0x3"),
        (frame(TEXT, "unmasked"), "incorrect masking: unmasked frame from client"),
    ];
    for (violation, reason) in violations {
        let mut raw = running.raw().await;
        let valid: Vec<u8> = ["a", "b", "c"].iter().flat_map(|text| masked(TEXT, text)).collect();
        raw.say([valid, violation].concat()).await;
        for text in ["a", "b", "c"] {
            raw.expect(frame(TEXT, text)).await;
        }
        raw.expect(frame(CLOSE, close(1002, reason))).await;
        assert!(raw.hear_end().await, "ended by a reset");
        let (count, closed) = heard.recv().await.expect("the handler ended");
        assert_eq!(count, 3);
        assert_eq!(closed.cause.expect("a violation").to_string(), reason);
    }
}

/// The handler spawns a task for its socket and waits for it. `task` gets the socket.
fn elsewhere<F, Fut>(task: F) -> impl ws_serve::Handler<()>
where
    F: Fn(Socket) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    move |socket: Socket| {
        let task = tokio::spawn(task(socket));
        async move { task.await.expect("no panic") }
    }
}

/// Without the keepalive's timer, which would hide that nothing else makes the session write.
fn quiet(server: Server) -> Server {
    server.config(Config::default().keepalive(Keepalive::off()))
}

async fn a_socket_works_in_another_task(server: Server) {
    let running = Running::start(server, elsewhere(echo));
    let mut client = running.client().await;
    for size in [0, 1, 100, 10_000, 1_000_000] {
        let text = "x".repeat(size);
        client.say(text.clone()).await;
        assert_eq!(client.hear().await, text);
    }
    let closed = client.0.close(CloseCode::NORMAL, "").await;
    assert!(closed.is_clean(), "{closed}");
}

/// B27: a Pong must not wait for the handler to send something.
async fn a_socket_in_another_task_answers_pings(server: Server) {
    let running = Running::start(quiet(server), elsewhere(echo));
    let mut raw = running.raw().await;
    raw.say(masked(PING, "there?")).await;
    raw.expect(frame(PONG, "there?")).await;
}

/// §5.5.1 of RFC 6455: the answer to a Close goes out "as soon as practical".
async fn a_socket_in_another_task_answers_a_close_before_it_is_dropped(server: Server) {
    let answered = Arc::new(Notify::new());
    let running = Running::start(quiet(server), {
        let answered = Arc::clone(&answered);
        elsewhere(move |mut socket: Socket| {
            let answered = Arc::clone(&answered);
            async move {
                let end = socket.receive().await.map(drop);
                answered.notified().await;
                drop(socket);
                end
            }
        })
    });
    let mut raw = running.raw().await;
    raw.say(masked(CLOSE, close(1000, ""))).await;
    raw.expect(frame(CLOSE, close(1000, ""))).await;
    answered.notify_one();
}

async fn a_socket_in_another_task_answers_a_violation(server: Server) {
    let running = Running::start(quiet(server), elsewhere(echo));
    let mut raw = running.raw().await;
    raw.say([0x83, 0x80, 0, 0, 0, 0]).await;
    raw.expect(frame(CLOSE, close(1002, "invalid opcode 0x3"))).await;
}

/// T14: a client that does not answer our Close is given up, and whoever receives hears of it, in
/// whatever task.
async fn a_socket_in_another_task_sees_the_end_of_patience(server: Server) {
    let (told, mut ended) = unbounded_channel();
    let config = Config::default().close_timeout(Duration::from_millis(50));
    let running = Running::start(
        server.config(config),
        elsewhere(move |mut socket: Socket| {
            let told = told.clone();
            async move {
                socket.close(CloseCode::NORMAL, "");
                let end = socket.receive().await;
                let _ = told.send(end.is_err());
                end.map(drop)
            }
        }),
    );
    let _deaf = running.raw().await;
    assert_eq!(ended.recv().await, Some(true));
}

/// B25: such a set polls a future only when its own waker was woken; that the task was is not enough.
async fn a_receive_in_a_set_of_futures_sees_the_end_of_patience(server: Server) {
    let (told, mut ended) = unbounded_channel();
    let config = Config::default().close_timeout(Duration::from_millis(50));
    let running = Running::start(server.config(config), move |mut socket: Socket| {
        let told = told.clone();
        async move {
            socket.close(CloseCode::NORMAL, "");
            let mut set = FuturesUnordered::from_iter([socket.receive()]);
            let end = poll_fn(|cx| pin!(&mut set).poll_next(cx)).await.expect("one future");
            let _ = told.send(end.is_err());
        }
    });
    let _deaf = running.raw().await;
    assert_eq!(ended.recv().await, Some(true));
}

async fn a_handler_may_join_receiving_and_sending(server: Server) {
    let running = Running::start(server, |mut socket: Socket| async move {
        let sender = socket.sender();
        let (forward, mut forwarded) = unbounded_channel();
        let receiving = async move {
            while let Some(message) = socket.receive().await? {
                let _ = forward.send(message);
            }
            Ok::<_, Error>(())
        };
        let sending = async move {
            while let Some(message) = forwarded.recv().await {
                sender.send(message).await?;
            }
            Ok(())
        };
        tokio::try_join!(receiving, sending).map(drop)
    });
    let mut client = running.client().await;
    for round in 0..100 {
        client.say(round.to_string()).await;
        if round % 3 == 2 {
            for expected in round - 2..=round {
                assert_eq!(client.hear().await, expected.to_string());
            }
        }
    }
    client.0.close(CloseCode::NORMAL, "").await;
}

/// B24: the other branch of the `select!` wins all the time, in the middle of frames, too.
async fn a_dropped_receive_loses_nothing(server: Server) {
    let running = Running::start(server, |mut socket: Socket| async move {
        loop {
            tokio::select! {
                biased;
                message = socket.receive() => match message? {
                    Some(message) => socket.send(message).await?,
                    None => return Ok::<_, Error>(()),
                },
                () = yield_now() => {}
            }
        }
    });
    let mut raw = running.raw().await;
    let messages = ["one", "", &"two".repeat(50), "three"];
    for byte in messages.iter().flat_map(|text| masked(TEXT, text)) {
        raw.say([byte]).await;
        yield_now().await;
    }
    for text in messages {
        raw.expect(frame(TEXT, text)).await;
    }
}

/// B26, T15: what a handler has sent and the client has not taken stays bounded, whatever the sizes.
async fn a_flooding_handler_waits_for_its_client_and_resumes(server: Server) {
    const MESSAGES: usize = 20_000;
    let (told, mut senders) = unbounded_channel();
    let waits = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let running = Running::start(server.max_queue(0), {
        let (waits, sent) = (Arc::clone(&waits), Arc::clone(&sent));
        move |socket: Socket| {
            let (told, waits, sent) = (told.clone(), Arc::clone(&waits), Arc::clone(&sent));
            async move {
                let _ = told.send(socket.sender());
                for number in 0..MESSAGES {
                    let mut send = pin!(socket.send(message(number)));
                    if let Poll::Ready(result) = poll_once(send.as_mut()).await {
                        result?;
                    } else {
                        waits.store(true, Ordering::SeqCst);
                        send.await?;
                    }
                    sent.store(number + 1, Ordering::SeqCst);
                }
                Ok::<_, Error>(())
            }
        }
    });
    fn message(number: usize) -> Vec<u8> {
        // On both sides of what is copied and what is shared.
        let mut message = vec![0; if number.is_multiple_of(100) { 20_000 } else { 1000 }];
        message[..8].copy_from_slice(&(number as u64).to_be_bytes());
        message
    }
    let mut raw = support::Raw::open_narrow(running.address).await;
    let sender: Sender = senders.recv().await.expect("a handler");
    eventually(|| waits.load(Ordering::SeqCst)).await;
    assert!(sent.load(Ordering::SeqCst) < MESSAGES, "the system's buffers took everything");
    let Err(Skip::QueueFull { queued }) = sender.try_send("more").map_err(|error| error.reason)
    else {
        panic!("the queue is not full");
    };
    // The write limit and the cork, both of 64 KiB, and the message that filled it.
    assert!(queued < (64 << 10) + (64 << 10) + 20_000 + 20, "{queued} bytes are queued");

    for number in 0..MESSAGES {
        assert_eq!(raw.frame().await, (BINARY, message(number)));
    }
    assert_eq!(raw.frame().await, (CLOSE, close(1000, "")));
}

/// What the cork holds is not lost when another thread begins a message in chunks meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_message_survives_a_chunk_from_another_thread() {
    let running = Running::start(server(), |socket: Socket| async move {
        let sender = socket.sender();
        sender.send("whole").await?;
        let runtime = tokio::runtime::Handle::current();
        let other = std::thread::spawn(move || {
            runtime.block_on(socket.send_chunk("in ", false)).map(|()| socket)
        });
        // Blocks the thread on purpose: both must happen during this poll.
        let mut socket = block_in_place(|| other.join()).expect("no panic")?;
        socket.receive().await?;
        socket.send_chunk("chunks", true).await?;
        socket.receive().await.map(drop)
    });
    within(async {
        let mut client = running.client().await;
        client.say("go on").await;
        let mut heard = [client.hear().await, client.hear().await];
        heard.sort();
        assert_eq!(heard, ["in chunks", "whole"]);
    })
    .await;
}
