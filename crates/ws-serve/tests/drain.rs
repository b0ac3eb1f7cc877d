//! How a server empties: at what pace, what still leaves, who may hold it up and for how long (T28).
//!
//! Not its business: what a shutdown is, which `shutdown.rs` checks.

#[macro_use]
mod support;

#[cfg(unix)]
#[path = "../src/directory.rs"]
mod directory;

use std::{
    future::pending,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use support::{
    BINARY, CLOSE, Raw, Running, TEXT, Web, close, echo, eventually, exposed, frame, masked,
    sender_from, server, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{mpsc::unbounded_channel, oneshot},
    task::{JoinSet, yield_now},
    time::{self, pause, sleep_until},
};
use ws_serve::{CloseCode, Config, Keepalive, Sender, Server, SlowConsumer, Socket};

everywhere! {
    connections_are_closed_no_faster_than_the_pace,
    who_has_not_been_told_is_served_as_before,
    a_drain_timeout_makes_a_slow_pace_hurry,
    nobody_is_reset_whatever_it_does_meanwhile,
    a_client_that_does_not_answer_is_gone_at_the_deadline,
    a_hurry_ends_everything_at_once,
    a_hurry_is_a_shutdown_too,
    what_a_handler_sent_leaves_before_the_close,
    the_backlog_of_a_lagging_member_leaves_before_the_close,
    in_the_grace_period_all_goes_on_but_new_clients,
    connections_are_closed_after_the_grace_period,
    a_server_runs_until_a_future_is_ready,
}

#[cfg(unix)]
everywhere! {
    the_file_of_a_unix_socket_is_gone_when_nobody_is_accepted,
}

const HOUR: Duration = Duration::from_secs(3600);

/// What closes connections at a shutdown, in the steps of which a pace is made.
const TICK: Duration = Duration::from_millis(100);

/// The largest number of runtimes in `everywhere!`; each has the pace for itself.
const RUNTIMES: usize = 2;

/// Reads until the Close frame, answers it, and reads until the end; answers when the Close came,
/// with what code, and whether the end was none by a reset.
async fn leave(raw: Raw) -> (Instant, u16, bool) {
    leave_saying(raw, Vec::new()).await
}

/// As [`leave`], of a client that has something to finish before it answers.
async fn leave_saying(mut raw: Raw, rest: Vec<u8>) -> (Instant, u16, bool) {
    let (closed, code) = loop {
        let (first, payload) = raw.frame().await;
        if first == CLOSE {
            break (Instant::now(), u16::from_be_bytes([payload[0], payload[1]]));
        }
    };
    raw.say([rest, masked(CLOSE, code.to_be_bytes())].concat()).await;
    (closed, code, raw.hear_end().await)
}

/// T28: in batches. Only so much can be said by a clock on this side: a Close does not come before its time.
async fn connections_are_closed_no_faster_than_the_pace(server: Server) {
    const BATCH: usize = 2;
    let running = Running::start(server.drain_pace(BATCH, TICK), echo);
    let mut leaving = JoinSet::new();
    for _ in 0..16 {
        let mut raw = running.raw().await;
        // Who is just opening is closed at once.
        raw.say(masked(TEXT, "open?")).await;
        raw.expect(frame(TEXT, "open?")).await;
        leaving.spawn(leave(raw));
    }
    let start = Instant::now();
    running.shutdown.start_with(CloseCode::SERVICE_RESTART, "back soon");
    let left = leaving.join_all().await;
    assert!(left.iter().all(|(_, code, unbroken)| (*code, *unbroken) == (1012, true)), "{left:?}");
    let mut times: Vec<_> = left.iter().map(|(time, ..)| time.duration_since(start)).collect();
    times.sort();
    for (place, time) in times.iter().enumerate() {
        let tick = (place / (BATCH * RUNTIMES)) as u32;
        assert!(*time >= TICK * tick, "number {place} of {times:?}");
    }
    running.end().await;
}

async fn who_has_not_been_told_is_served_as_before(server: Server) {
    let (handler, mut told) = exposed();
    let server = server.drain_pace(1, HOUR).drain_timeout(100 * HOUR);
    let running = Running::start(server, handler);
    let (mut clients, mut senders) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        clients.push(Member { raw: running.raw().await, told: false });
        senders.push(sender_from(&mut told).await);
    }
    running.shutdown.start();
    eventually(|| senders.iter().any(|sender| !sender.is_open())).await;
    let mut closed = 0;
    // A few ticks, in which a runtime closes one connection for the hour, and no more.
    let patience = Instant::now() + 3 * TICK;
    while Instant::now() < patience {
        closed = 0;
        for client in &mut clients {
            if client.hears_the_close().await {
                closed += 1;
            }
        }
    }
    assert!((1..=RUNTIMES).contains(&closed), "{closed} were told");
    assert!(!running.serving.is_finished());
    running.shutdown.hurry();
    running.end().await;
}

/// A member of a topic of an [`exposed`] handler.
struct Member {
    raw: Raw,
    told: bool,
}

impl Member {
    /// Whether it has heard the Close; otherwise its words are echoed.
    async fn hears_the_close(&mut self) -> bool {
        if !self.told {
            self.raw.say(masked(TEXT, "+t")).await;
            self.told = self.raw.frame().await.0 == CLOSE;
        }
        self.told
    }
}

/// The pace is a wish, the deadline a promise: that they all have gone by then, and know why.
async fn a_drain_timeout_makes_a_slow_pace_hurry(server: Server) {
    let server = server.drain_pace(1, HOUR).drain_timeout(Duration::from_secs(2));
    let running = Running::start(server, echo);
    let mut leaving = JoinSet::new();
    for _ in 0..25 {
        leaving.spawn(leave(running.raw().await));
    }
    running.end().await;
    for (_, code, unbroken) in leaving.join_all().await {
        assert_eq!((code, unbroken), (1001, true));
    }
}

/// T28: "0 RST". A server that closes on unread bytes makes TCP reset the connection.
async fn nobody_is_reset_whatever_it_does_meanwhile(server: Server) {
    // Whoever has much to say may take longer on a slow machine.
    let config = Config::default().close_timeout(HOUR);
    let running = Running::start(server.config(config).drain_pace(10, TICK), echo);
    let mut leaving = JoinSet::new();
    for _ in 0..20 {
        leaving.spawn(leave(running.raw().await));
        // In the middle of a message.
        let mut raw = running.raw().await;
        let mut message = masked(BINARY, vec![0; 1000]);
        let rest = message.split_off(500);
        raw.say(message).await;
        leaving.spawn(leave_saying(raw, rest));
    }
    for _ in 0..5 {
        leaving.spawn(talk(Raw::open_narrow(running.address).await));
    }
    running.shutdown.start();
    let left = leaving.join_all().await;
    let resets = left.iter().filter(|(_, _, unbroken)| !unbroken).count();
    assert_eq!((left.len(), resets), (45, 0));
    assert!(left.iter().all(|(_, code, _)| *code == 1001));
    running.end().await;
}

/// As [`leave`], of a client that sends and sends until the Close comes, and listens beside.
async fn talk(raw: Raw) -> (Instant, u16, bool) {
    let (reading, mut writing) = raw.0.into_inner().into_split();
    let mut reading = BufReader::new(reading);
    let told = Arc::new(AtomicBool::new(false));
    let talking = tokio::spawn({
        let told = Arc::clone(&told);
        async move {
            let message = masked(BINARY, vec![7; 2000]);
            while !told.load(Ordering::Relaxed) {
                writing.write_all(&message).await?;
            }
            writing.write_all(&masked(CLOSE, close(1001, ""))).await?;
            Ok::<_, std::io::Error>(writing)
        }
    });
    let mut closed = (Instant::now(), 0);
    let unbroken = loop {
        let mut head = [0; 2];
        if let Err(error) = reading.read_exact(&mut head).await {
            break error.kind() == ErrorKind::UnexpectedEof;
        }
        let length = match head[1] {
            126 => reading.read_u16().await.expect("a whole frame").into(),
            length => length.into(),
        };
        let mut payload = vec![0; length];
        reading.read_exact(&mut payload).await.expect("a whole frame");
        if head[0] == CLOSE {
            closed = (Instant::now(), u16::from_be_bytes([payload[0], payload[1]]));
            told.store(true, Ordering::Relaxed);
        }
    };
    let written = talking.await.expect("no panic");
    (closed.0, closed.1, unbroken && written.is_ok())
}

/// T14, T28: no Close timeout is needed for that.
async fn a_client_that_does_not_answer_is_gone_at_the_deadline(server: Server) {
    const DEADLINE: Duration = Duration::from_millis(300);
    let config = Config::default().close_timeout(HOUR);
    let server = server.config(config).drain_timeout(DEADLINE);
    let monitor = server.monitor();
    let (handler, mut told) = exposed();
    let running = Running::start(server, handler);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(running.raw().await);
        drop(sender_from(&mut told).await);
    }
    assert_eq!(monitor.stats().connections, 4);
    let start = Instant::now();
    running.end().await;
    assert!(start.elapsed() >= DEADLINE, "{:?}", start.elapsed());
    for mut raw in silent {
        raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
        raw.hear_end().await;
    }
    eventually(|| monitor.stats().connections == 0).await;
}

async fn ignore(socket: Socket) {
    pending::<()>().await;
    drop(socket);
}

/// Neither clients nor handlers, nor handshakes, nor hooks are asked.
async fn a_hurry_ends_everything_at_once(server: Server) {
    let config = Config::default().close_timeout(HOUR);
    let server = server.config(config).drain_timeout(HOUR).handshake_timeout(HOUR);
    let (tell, mut told) = unbounded_channel();
    let server = server.on_request_async(move |request| {
        let tell = tell.clone();
        async move {
            if request.uri().path() == "/hook" {
                let _ = tell.send(());
                pending::<()>().await;
            }
            Ok(request)
        }
    });
    let running = Running::start(server, ignore);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(running.raw().await);
    }
    let connect = || async {
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        Raw(BufReader::new(stream))
    };
    let handshaking = connect().await;
    let mut hooked = connect().await;
    hooked.say("GET /hook HTTP/1.1\r\nHost: x\r\n\r\n").await;
    told.recv().await.expect("it is asked");
    running.shutdown.start();
    for raw in &mut silent {
        raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    }
    assert!(!running.serving.is_finished());
    running.shutdown.hurry();
    running.end().await;
    for raw in silent {
        raw.hear_end().await;
    }
    hooked.hear_end().await;
    // It was told at the beginning, or was on a worker that had not looked yet.
    let mut rest = Vec::new();
    let _ = handshaking.0.into_inner().read_to_end(&mut rest).await;
}

async fn a_hurry_is_a_shutdown_too(server: Server) {
    let server = server.drain_timeout(HOUR).grace_period(HOUR);
    let running = Running::start(server, ignore);
    let raw = running.raw().await;
    running.shutdown.hurry();
    assert!(running.shutdown.is_started());
    running.end().await;
    drop(raw);
}

/// What `send` took is sent, however far behind the client is.
async fn what_a_handler_sent_leaves_before_the_close(server: Server) {
    const SIZE: usize = 10_000;
    let (tell, mut told) = unbounded_channel();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let running = Running::start(server, move |socket: Socket| {
        let (tell, count) = (tell.clone(), Arc::clone(&count));
        async move {
            let _ = tell.send(socket.sender());
            loop {
                let number = count.load(Ordering::Relaxed) as u8;
                if socket.send(vec![number; SIZE]).await.is_err() {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            let _ = tell.send(socket.sender());
            drop(socket);
        }
    });
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = told.recv().await.expect("a handler");
    // Until the handler waits for room, and nothing moves any more.
    let (mut seen, mut still) = (0, 0);
    while still < 1000 || sender.queued() == 0 {
        yield_now().await;
        let now = accepted.load(Ordering::Relaxed);
        still = if now == seen { still + 1 } else { 0 };
        seen = now;
    }
    running.shutdown.start();
    told.recv().await.expect("the handler is told");
    for number in 0..accepted.load(Ordering::Relaxed) {
        assert!(raw.frame().await == (BINARY, vec![number as u8; SIZE]), "{number}");
    }
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    running.end().await;
}

/// T28, T15: what waits for it was not dropped, and counts as delivered.
async fn the_backlog_of_a_lagging_member_leaves_before_the_close(server: Server) {
    const SIZE: usize = 20_000;
    let (handler, _told) = exposed();
    let running = Running::start(server.max_queue(2 << 20), handler);
    let mut members = Vec::new();
    for policy in [
        SlowConsumer::default(),
        SlowConsumer::DropNewest,
        SlowConsumer::DropOldest,
        SlowConsumer::Conflate,
    ] {
        let name = format!("t{}", members.len());
        let topic = running.topics.get(&name);
        topic.set_slow_consumer(policy);
        let mut raw = Raw::open_narrow(running.address).await;
        raw.say(masked(TEXT, format!("+{name}"))).await;
        raw.expect(frame(TEXT, format!("+{name}"))).await;
        let mut published = 0_u32;
        while topic.counts().waiting < 20 {
            let mut message = vec![0; SIZE];
            message[..4].copy_from_slice(&published.to_be_bytes());
            topic.publish_keyed(&published.to_string(), message);
            published += 1;
            eventually(|| topic.counts().sent == published.into()).await;
        }
        members.push((topic, raw, published));
    }
    running.shutdown.start();
    for (topic, mut raw, published) in members {
        for number in 0..published {
            let (first, payload) = raw.frame().await;
            assert_eq!((first, &payload[..4]), (BINARY, &number.to_be_bytes()[..]), "{topic:?}");
        }
        raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
        raw.say(masked(CLOSE, close(1001, ""))).await;
        assert!(raw.hear_end().await, "ended by a reset");
        let counts = topic.counts();
        assert_eq!((counts.sent, counts.delivered()), (published.into(), published.into()));
    }
    running.end().await;
}

/// What a server answers to a request, until it ends the connection.
async fn answer(running: &Running, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(running.address).await.expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("the server is there");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and no reset");
    answer
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// T28, T31: not ready, and still alive.
async fn in_the_grace_period_all_goes_on_but_new_clients(server: Server) {
    let server = server.health("/health").readiness("/ready").grace_period(HOUR);
    let running = Running::start(server, echo);
    let mut client = running.client().await;
    for path in ["/health", "/ready"] {
        let answer = answer(&running, path, "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    running.shutdown.start();
    for (path, headers, status) in [
        ("/health", "", 200),
        ("/ready", "", 503),
        ("/chat", UPGRADE, 503),
        ("/ready", UPGRADE, 503),
    ] {
        let answer = answer(&running, path, headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    client.say("still here").await;
    assert_eq!(client.hear().await, "still here");
    assert!(!running.serving.is_finished());
    running.shutdown.hurry();
    assert_eq!(client.hear_end().await.0, 1001);
    running.end().await;
}

async fn connections_are_closed_after_the_grace_period(server: Server) {
    const GRACE: Duration = Duration::from_millis(300);
    let running = Running::start(server.grace_period(GRACE), echo);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(running.client().await);
    }
    let start = Instant::now();
    running.shutdown.start_with(CloseCode::SERVICE_RESTART, "back soon");
    for mut client in clients {
        assert_eq!(client.hear_end().await, (1012, "back soon".to_owned()));
        assert!(start.elapsed() >= GRACE, "{:?}", start.elapsed());
    }
    running.end().await;
}

async fn a_server_runs_until_a_future_is_ready(server: Server) {
    let address = server.local_addr().expect("it is bound");
    let (end, ended) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.fallback(echo).run_until(async {
        let _ = ended.await;
    }));
    let mut client = Web::open(address).await;
    client.say("hello").await;
    assert_eq!(client.hear().await, "hello");
    assert!(!serving.is_finished());
    end.send(()).expect("it runs");
    assert_eq!(client.hear_end().await.0, 1001);
    serving.await.expect("no panic").expect("nothing that a client does ends it");
}

/// An error at the start is not kept until then.
#[tokio::test]
async fn a_server_that_cannot_start_does_not_wait_for_the_future() {
    let error = within(Server::new().run_until(pending())).await.expect_err("it has no address");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// So that the next server can have it while this one still drains.
#[cfg(unix)]
async fn the_file_of_a_unix_socket_is_gone_when_nobody_is_accepted(server: Server) {
    let directory = directory::Directory::new();
    let path = directory.path("socket");
    let running = Running::start(server.listen_unix(&path, Some(0o600)).expect("bound"), echo);
    let connect = || async {
        let stream = tokio::net::UnixStream::connect(&path).await.expect("the server listens");
        Raw::upgrade(stream).await
    };
    let mut raw = connect().await;
    raw.say(masked(TEXT, "hello")).await;
    raw.expect(frame(TEXT, "hello")).await;
    assert!(path.exists());
    running.shutdown.start();
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    eventually(|| !path.exists()).await;
    assert!(!running.serving.is_finished());
    let next = support::server().listen_unix(&path, None).expect("the path is free");
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(raw.hear_end().await, "ended by a reset");
    running.end().await;
    assert!(path.exists(), "the old server removed the file of the new one");
    drop(next);
}

// With a clock that jumps to the next timer as soon as there is nothing else to do, the steps are exact.
// What clients see is not: it comes a jump late.

/// A server with so many connections, and how many of them have been closed by when.
struct Drain {
    senders: Vec<Sender>,
    clients: Vec<Raw>,
    start: time::Instant,
    running: Running,
}

impl Drain {
    async fn start(server: Server, count: usize) -> Self {
        let (handler, mut told) = exposed();
        // Those who say nothing for a virtual hour are not to be missed.
        let config = Config::default().keepalive(Keepalive::off()).close_timeout(100 * HOUR);
        let running = Running::start(server.config(config), handler);
        let (mut clients, mut senders) = (Vec::new(), Vec::new());
        for _ in 0..count {
            clients.push(running.raw().await);
            senders.push(sender_from(&mut told).await);
        }
        pause();
        running.shutdown.start();
        yield_now().await;
        Self { senders, clients, start: time::Instant::now(), running }
    }

    /// How many have been closed so long after the start, and a moment.
    async fn closed_after(&self, passed: Duration) -> usize {
        let moment = TICK / 10;
        sleep_until(self.start + passed + moment).await;
        self.senders.iter().filter(|sender| !sender.is_open()).count()
    }

    async fn end(self) {
        self.running.shutdown.hurry();
        self.running.end().await;
        drop(self.clients);
    }
}

#[tokio::test]
async fn connections_are_closed_in_batches() {
    let server = server().drain_pace(300, 100 * TICK);
    let drain = Drain::start(server, 10).await;
    let mut closed = Vec::new();
    for tick in 0..5 {
        closed.push(drain.closed_after(TICK * tick).await);
    }
    assert_eq!(closed, [3, 6, 9, 10, 10]);
    drain.end().await;
}

/// Also where it comes to no whole number in a step, or to less than one.
#[tokio::test]
async fn the_pace_is_kept_however_slow_it_is() {
    for (count, per, expected) in [
        (15, 10 * TICK, [2, 3, 5, 6, 8, 9, 10, 10]),
        (1, 3 * TICK, [1, 1, 1, 2, 2, 2, 3, 3]),
        (1, HOUR, [1, 1, 1, 1, 1, 1, 1, 1]),
        (usize::MAX, Duration::from_secs(1), [10; 8]),
        (1, Duration::ZERO, [10; 8]),
    ] {
        let server = server().drain_pace(count, per).drain_timeout(100 * HOUR);
        let drain = Drain::start(server, 10).await;
        let mut closed = Vec::new();
        for tick in 0..8 {
            closed.push(drain.closed_after(TICK * tick).await);
        }
        assert_eq!(closed, expected, "{count} in {per:?}");
        if per == HOUR {
            assert_eq!(drain.closed_after(HOUR - TICK).await, 1);
            assert_eq!(drain.closed_after(HOUR).await, 2);
        }
        drain.end().await;
        time::resume();
    }
}

/// All are told in the first half of the time, so that the last ones have the other half to answer.
#[tokio::test]
async fn half_of_the_drain_timeout_is_for_the_last_ones() {
    for count in [19, 20, 21, 39, 40, 41, 100] {
        let server = server().drain_pace(1, HOUR).drain_timeout(40 * TICK);
        let drain = Drain::start(server, count).await;
        assert!(drain.closed_after(Duration::ZERO).await <= count.div_ceil(20));
        assert!(drain.closed_after(8 * TICK).await <= count / 2, "{count}: all at once");
        assert_eq!(drain.closed_after(20 * TICK).await, count);
        drain.end().await;
        time::resume();
    }
}

/// T28: to the moment.
#[tokio::test]
async fn nobody_stays_longer_than_the_drain_timeout() {
    let server = server().drain_timeout(HOUR);
    let Drain { clients, start, running, .. } = Drain::start(server, 5).await;
    running.end().await;
    let late = start.elapsed().checked_sub(HOUR).expect("not before the deadline");
    assert!(late < TICK, "{late:?}");
    drop(clients);
}
