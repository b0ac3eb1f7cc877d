//! What a server holds and does, counted: memory and allocations of its thread, file descriptors, tasks,
//! places; and how it takes up its work after it was suspended.
//!
//! Each check has a process for itself, because descriptors are counted for a whole process, and the
//! server a thread for itself, so that nothing of its clients is counted. Not its business: what a
//! connection costs by itself, which ws-conn checks, and the clients of `vanishing.rs`.
#![cfg(target_os = "linux")]

#[macro_use]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env, fs,
    future::Future,
    io::{BufRead, BufReader, Write, stdout},
    net::SocketAddr,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicIsize, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    BINARY, CLOSE, PING, PONG, REQUEST, Raw, TEXT, Web, close, echo, eventually, frame, masked,
    reset_on_drop, server, within,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::{Notify, mpsc::unbounded_channel},
    time::sleep,
};
use ws_serve::{
    CloseCode, Config, Deflate, Error, Handler, Keepalive, Limits, Monitor, Sender, Server, Socket,
};

macro_rules! alone {
    ($($check:ident,)*) => {$(
        mod $check {
            #[test]
            fn alone() {
                super::in_a_process_of_its_own(concat!(stringify!($check), "::alone"), || {
                    Box::pin(super::$check())
                });
            }
        }
    )*};
}

alone! {
    idle_connections_give_the_memory_of_their_messages_back,
    publishing_costs_the_same_for_ten_members_and_a_thousand,
    clients_that_vanish_during_the_handoff_leave_nothing,
    a_hook_that_never_answers_runs_into_the_handshake_deadline,
    a_sender_that_is_kept_keeps_no_place,
    connections_that_come_and_go_leave_nothing,
    compressed_connections_that_come_and_go_leave_nothing,
    connections_with_contexts_that_come_and_go_leave_nothing,
}

/// A test starts itself once more, with nothing else in the process, and room for its descriptors.
fn in_a_process_of_its_own(name: &str, check: fn() -> Pin<Box<dyn Future<Output = ()>>>) {
    if env::var_os(IS_ALONE).is_some() {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(within(check()));
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 4096 || true; exec \"$@\"", "sh"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(IS_ALONE, "")
        .output()
        .expect("this program starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

const IS_ALONE: &str = "WS_SERVE_TEST_IS_ALONE";

/// A server on a thread of its own, which is counted.
struct Counted {
    address: SocketAddr,
    monitor: Monitor,
    runtime: Handle,
    /// A connection that tells when the server has done all that came before.
    fence: Raw,
}

impl Counted {
    async fn start(handler: impl Handler<()>, set: impl FnOnce(Server) -> Server) -> Self {
        let server = set(server()).config(Config::default().keepalive(Keepalive::off()));
        let address = server.local_addr().expect("it is bound");
        let monitor = server.monitor();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            IS_COUNTED.set(true);
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            tell.send(runtime.handle().clone()).expect("the test waits");
            runtime.block_on(server.fallback(handler).run()).expect("it serves");
        });
        let runtime = told.recv().expect("the server starts");
        Self { address, monitor, runtime, fence: Raw::open(address).await }
    }

    /// What the server holds when it has done all that was to do. It has one thread, and serves in turn.
    async fn settled(&mut self) -> Held {
        for _ in 0..5 {
            self.fence.say(masked(TEXT, "?")).await;
            self.fence.expect(frame(TEXT, "?")).await;
        }
        self.held()
    }

    fn held(&self) -> Held {
        Held {
            bytes: LIVE.load(Ordering::Relaxed),
            connections: self.monitor.stats().connections,
            tasks: self.runtime.metrics().num_alive_tasks(),
            descriptors: fs::read_dir("/proc/self/fd").expect("Linux").count(),
        }
    }

    /// Waits until it holds no more than before, but for some bytes.
    async fn falls_back_to(&mut self, before: Held, slack: isize) {
        let limit = Held { bytes: before.bytes + slack, ..before };
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.settled().await;
            let counts = |held: Held| (held.connections, held.tasks, held.descriptors);
            if now.bytes <= limit.bytes && counts(now) == counts(limit) {
                return;
            }
            assert!(Instant::now() < patience, "{now:?} does not fall back to {limit:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: isize,
    connections: u64,
    tasks: usize,
    descriptors: usize,
}

/// T24, in small: 500 connections.
async fn idle_connections_give_the_memory_of_their_messages_back() {
    const COUNT: isize = 500;
    const SIZE: usize = 64 << 10;
    let mut server = Counted::start(echo, |server| server).await;
    let exchange = async |raw: &mut Raw| {
        raw.say(masked(BINARY, vec![7; SIZE])).await;
        assert!(raw.frame().await == (BINARY, vec![7; SIZE]));
    };
    // What the thread keeps for all of its connections is not theirs.
    for _ in 0..10 {
        exchange(&mut Raw::open(server.address).await).await;
    }
    let before = server.settled().await;
    let mut raws = Vec::new();
    for _ in 0..COUNT {
        raws.push(Raw::open(server.address).await);
    }
    let idle = server.settled().await.bytes - before.bytes;
    assert!(idle > 0 && idle < COUNT * 5000, "{} bytes each", idle / COUNT);
    for raw in &mut raws {
        exchange(raw).await;
    }
    let after = server.settled().await.bytes - before.bytes;
    assert!(after * 5 <= idle * 6, "{} bytes each, and {} afterwards", idle / COUNT, after / COUNT);
    drop(raws);
    server.falls_back_to(before, 64 << 10).await;
}

/// T22. The order "publish" is answered with what publishing by itself has cost: nothing that depends on
/// the members, and nothing is sent before the turn ends.
async fn member(mut socket: Socket) -> Result<(), Error> {
    let topic = socket.topic("t");
    while let Some(order) = socket.receive().await? {
        match order.as_text() {
            Some("join") => topic.join(&socket),
            Some("publish") => {
                let (allocated, sent) = (ALLOCATIONS.load(Ordering::Relaxed), topic.counts().sent);
                for number in 0..PUBLISHED {
                    topic.publish([number; 100].as_slice());
                }
                let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
                let counts = topic.counts();
                assert_eq!((counts.sent, counts.waiting), (sent, 0), "sent before the turn ended");
                socket.send(allocated.to_string()).await?;
                continue;
            }
            _ => {}
        }
        socket.send(order).await?;
    }
    Ok(())
}

const PUBLISHED: u8 = 10;

/// T22: by itself, and with all that follows from it on the server's side.
async fn publishing_costs_the_same_for_ten_members_and_a_thousand() {
    let mut server = Counted::start(member, |server| server).await;
    let mut publisher = Web::open(server.address).await;
    let mut members: Vec<Raw> = Vec::new();
    let expected: Vec<u8> = (0..PUBLISHED).flat_map(|n| frame(BINARY, [n; 100])).collect();
    let mut costs = Vec::new();
    for count in [10, 1000] {
        while members.len() < count {
            let mut raw = Raw::open(server.address).await;
            raw.say(masked(TEXT, "join")).await;
            raw.expect(frame(TEXT, "join")).await;
            members.push(raw);
        }
        // The first rounds make what is made once.
        for round in 0..3 {
            server.settled().await;
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            publisher.say("publish").await;
            let published: usize = publisher.hear().await.parse().expect("a number");
            for raw in &mut members {
                raw.expect(&expected).await;
            }
            server.settled().await;
            let all = ALLOCATIONS.load(Ordering::Relaxed) - before;
            if round == 2 {
                assert!(published >= PUBLISHED.into(), "{published} allocations");
                costs.push((published, all));
            }
        }
    }
    assert_eq!(costs[0], costs[1], "(in publish, in all) for 10 and for 1,000 members");
}

/// T7: 3,000 rounds in which the peer vanishes between its request and the 101: while the server decides,
/// and at a time that nobody chose.
async fn clients_that_vanish_during_the_handoff_leave_nothing() {
    let (asked, mut hears) = unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let decide = Arc::clone(&go_on);
    let mut server = Counted::start(echo, move |server| {
        server.on_request_async(move |request| {
            let waits = request.uri().query() == Some("wait");
            let (asked, decide) = (asked.clone(), Arc::clone(&decide));
            async move {
                if waits {
                    let _ = asked.send(());
                    decide.notified().await;
                }
                Ok(request)
            }
        })
    })
    .await;
    let waiting = REQUEST.replace("room=1", "wait");
    let mut before = server.settled().await;
    for round in 0..3100 {
        if round == 100 {
            // What is made once, on first use, is not a leak.
            server.falls_back_to(before, 256 << 10).await;
            before = server.settled().await;
        }
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        if round % 2 == 0 {
            reset_on_drop(&stream);
        }
        let waits = round % 3 == 0;
        let request = if waits { waiting.as_bytes() } else { REQUEST.as_bytes() };
        // With bytes behind it, and without.
        let early = if round % 5 == 0 { masked(TEXT, "early") } else { Vec::new() };
        let said = [request, &early].concat();
        stream.write_all(&said).await.expect("the server is there");
        if waits {
            hears.recv().await.expect("it asks");
        }
        drop(stream);
        if waits {
            go_on.notify_one();
        }
    }
    server.falls_back_to(before, 16 << 10).await;
}

/// [`Server::on_request_async`]: it "counts as part of the handshake". T4, T7: or else a client that is
/// long gone has its place for ever.
async fn a_hook_that_never_answers_runs_into_the_handshake_deadline() {
    const DEADLINE: Duration = Duration::from_millis(1500);
    let mut server = Counted::start(echo, |server| {
        server.handshake_timeout(DEADLINE).on_request_async(|request| async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            Ok(request)
        })
    })
    .await;
    let before = server.settled().await;
    let never = REQUEST.replace("/chat", "/never");
    for stays in [true, false] {
        let start = Instant::now();
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        stream.write_all(never.as_bytes()).await.expect("the server is there");
        if stays {
            let mut raw = Raw(tokio::io::BufReader::new(stream));
            let head = raw.head().await;
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            assert!(start.elapsed() >= DEADLINE, "{:?}", start.elapsed());
        } else {
            drop(stream);
        }
        server.falls_back_to(before, 16 << 10).await;
    }
}

/// An application that looks up senders later than a connection ends does not lock clients out.
async fn a_sender_that_is_kept_keeps_no_place() {
    static KEPT: Mutex<Vec<Sender>> = Mutex::new(Vec::new());
    let handler = |mut socket: Socket| async move {
        KEPT.lock().expect("no panic").push(socket.sender());
        while let Some(message) = socket.receive().await? {
            socket.send(message).await?;
        }
        Ok::<_, Error>(())
    };
    // One is the fence.
    let limits = Limits::none().connections(2);
    let server = Counted::start(handler, |server| server.limits(limits)).await;
    for round in 0..3 {
        let mut raw = Raw::open(server.address).await;
        raw.say(masked(CLOSE, close(1000, ""))).await;
        raw.expect(frame(CLOSE, close(1000, ""))).await;
        assert!(raw.hear_end().await, "ended by a reset");
        eventually(|| server.monitor.stats().connections == 1).await;
        let (len, open) = {
            let kept = KEPT.lock().expect("no panic");
            (kept.len(), kept[round + 1].is_open())
        };
        assert_eq!((len, open), (round + 2, false));
    }
}

/// T25, in small.
async fn connections_that_come_and_go_leave_nothing() {
    come_and_go(None).await;
}

/// T25, in small: with what the thread lends, and no contexts.
async fn compressed_connections_that_come_and_go_leave_nothing() {
    come_and_go(Some(Deflate::default())).await;
}

/// T25, in small: each connection has a compressor and a decompressor.
async fn connections_with_contexts_that_come_and_go_leave_nothing() {
    come_and_go(Some(Deflate::best_ratio())).await;
}

/// 2,000 connections, twenty at a time, which end in three ways.
async fn come_and_go(deflate: Option<Deflate>) {
    const AT_A_TIME: usize = 20;
    let mut server = Counted::start(joining_echo, |server| match deflate {
        Some(settings) => server.deflate(settings),
        None => server,
    })
    .await;
    let message = "to be or not to be ".repeat(100);
    let mut before = server.settled().await;
    for round in 0..110 {
        if round == 10 {
            // What is made once, on first use, is not a leak.
            server.falls_back_to(before, 2 << 20).await;
            before = server.settled().await;
        }
        let mut clients = Vec::new();
        for _ in 0..AT_A_TIME {
            clients.push(Web::open_deflating(server.address, deflate).await);
        }
        for client in &mut clients {
            client.say(message.as_str()).await;
        }
        for (place, mut client) in clients.into_iter().enumerate() {
            assert_eq!(client.hear().await, message);
            match place % 3 {
                0 => drop(client.0.close(CloseCode::NORMAL, "").await),
                1 => reset_on_drop(client.0.get_ref()),
                _ => {}
            }
        }
    }
    server.falls_back_to(before, 16 << 10).await;
}

/// Comes and goes in a topic, too.
async fn joining_echo(socket: Socket) -> Result<(), Error> {
    socket.join("lobby");
    socket.join(&format!("own-{}", socket.id()));
    echo(socket).await
}

/// T27: for longer than the interval, the timeout, and what a busy machine may be late.
#[test]
fn a_suspended_server_grants_a_fresh_round() {
    if env::var_os(IS_SUSPENDED).is_some() {
        return serve_until_killed();
    }
    let child = Suspendable::start("a_suspended_server_grants_a_fresh_round");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(within(async {
        let (mut silent, mut answering) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            silent.push(Raw::open(child.address).await);
            answering.push(Raw::open(child.address).await);
        }
        for raw in silent.iter_mut().chain(&mut answering) {
            raw.expect(frame(PING, "keepalive")).await;
        }
        child.signal("-STOP");
        for raw in &mut answering {
            raw.say(masked(PONG, "keepalive")).await;
        }
        sleep(PERIOD + Duration::from_millis(1500)).await; // tidy: allow-sleep(nothing can happen meanwhile)
        child.signal("-CONT");
        // Nobody is given up before that.
        for raw in silent.iter_mut().chain(&mut answering) {
            raw.expect(frame(PING, "keepalive")).await;
        }
        for raw in &mut answering {
            raw.say([masked(PONG, "keepalive"), masked(TEXT, "still here")].concat()).await;
            // On a slow machine the next round has begun.
            let mut heard = raw.frame().await;
            while heard.0 == PING {
                heard = raw.frame().await;
            }
            assert_eq!(heard, (TEXT, b"still here".to_vec()));
        }
        // And then those who are gone indeed.
        for raw in &mut silent {
            raw.expect(frame(CLOSE, close(1011, "keepalive ping timeout"))).await;
        }
    }));
}

const IS_SUSPENDED: &str = "WS_SERVE_TEST_IS_SUSPENDED";
const PERIOD: Duration = Duration::from_secs(3);

/// A process that serves until it is killed.
struct Suspendable {
    child: Child,
    address: SocketAddr,
}

impl Suspendable {
    fn start(name: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .env(IS_SUSPENDED, "")
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let output = child.stdout.take().expect("it is piped");
        let address = BufReader::new(output).lines().find_map(|line| {
            line.expect("text").split_once("address=").map(|(_, address)| address.to_owned())
        });
        let address = address.expect("it says").parse().expect("an address");
        Self { child, address }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("there is `kill`");
        assert!(status.success());
    }
}

impl Drop for Suspendable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve_until_killed() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let keepalive = Keepalive::every(PERIOD).timeout(PERIOD);
        let server = server().config(Config::default().keepalive(keepalive));
        let address = server.local_addr().expect("it is bound");
        writeln!(stdout(), "address={address}").expect("the test reads");
        server.serve(echo).await.expect("it serves");
    });
}

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// What the counted thread has allocated and not given back.
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// How often it has allocated.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator has no other interface")]
// SAFETY: all is left to the system's allocator; the thread-local neither allocates nor needs a drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_COUNTED.get() {
            LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are the system's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if IS_COUNTED.get() {
            LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
