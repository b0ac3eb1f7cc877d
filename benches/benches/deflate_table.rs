//! The table in the documentation of `Deflate`: what each setting costs and saves.
//!
//! `cargo bench -p benches --bench deflate_table` prints it. Not a criterion bench, because it counts
//! bytes as well as time. Times depend on the machine; read them as ratios.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]
#![expect(unsafe_code, reason = "an allocator that counts is unsafe to implement")]

mod corpus;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use ws_proto::{
    AgreedDeflate, ChaChaKeys, Config, Connection, Deflate, Event, Keepalive, Transmit,
};

fn main() {
    let settings = [
        ("none", None),
        ("`default()`", Some(Deflate::default())),
        ("`default().level(2)`", Some(Deflate::default().level(2))),
        ("`default().level(6)`", Some(Deflate::default().level(6))),
        ("`best_ratio()`", Some(Deflate::best_ratio())),
        ("`best_ratio().level(2)`", Some(Deflate::best_ratio().level(2))),
        ("`best_ratio().level(6)`", Some(Deflate::best_ratio().level(6))),
        (
            "`best_ratio().window_bits(12).mem_level(5)`",
            Some(Deflate::best_ratio().window_bits(12).mem_level(5)),
        ),
    ];
    println!("| setting | bytes per connection | size on the wire | send | receive |");
    println!("|---|---|---|---|---|");
    for (name, settings) in settings {
        let agreed = settings.map(|s| s.agree(s.sending(), s.receiving()));
        let Measured { memory, ratio, send, receive } = measure(agreed.as_ref());
        println!(
            "| {name} | {memory} | {:.0} % | {:.1} µs | {:.1} µs |",
            ratio * 100.0,
            micros(send),
            micros(receive),
        );
    }
}

struct Measured {
    /// What a connection holds after a message each way, both queues empty.
    memory: usize,
    /// Bytes on the wire, frame headers included, to bytes of payload.
    ratio: f64,
    send: Duration,
    receive: Duration,
}

fn measure(agreed: Option<&AgreedDeflate>) -> Measured {
    let messages = corpus::json(MESSAGES, SIZE);
    let mut best = Measured {
        memory: memory(agreed, &messages[0]),
        ratio: 0.0,
        send: Duration::MAX,
        receive: Duration::MAX,
    };
    // The fastest of some rounds: what disturbs a round makes it slower, never faster.
    for _ in 0..ROUNDS {
        let (mut server, mut client) = pair(agreed);
        let (mut send, mut receive) = (Duration::ZERO, Duration::ZERO);
        let (mut raw, mut wire) = (0, 0);
        for message in &messages {
            let begin = Instant::now();
            server.send(message.as_str()).expect("the connection is open");
            send += begin.elapsed();
            let mut input = transmit(&mut server);
            raw += message.len();
            wire += input.len();
            let begin = Instant::now();
            let event = client.poll_event(&mut input);
            receive += begin.elapsed();
            assert!(matches!(event, Some(Event::Message(_))), "{event:?}");
            black_box(event);
        }
        best.ratio = wire as f64 / raw as f64;
        best.send = best.send.min(send / MESSAGES as u32);
        best.receive = best.receive.min(receive / MESSAGES as u32);
    }
    best
}

/// The memory of one server's connection, on average over some.
fn memory(agreed: Option<&AgreedDeflate>, message: &str) -> usize {
    // What all connections share exists before.
    let (mut server, mut client) = pair(agreed);
    exchange(&mut server, &mut client, message);
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| pair(agreed).1).collect();
    let mut servers = Vec::with_capacity(CONNECTIONS);
    let before = LIVE.load(Ordering::Relaxed);
    let mut of_clients = 0;
    for client in &mut clients {
        let mut server = pair(agreed).0;
        let own = LIVE.load(Ordering::Relaxed);
        // The client's contexts are not the server's memory.
        let mut wire = BytesMut::new();
        client.send(message).expect("the connection is open");
        wire.extend_from_slice(&transmit(client));
        of_clients += LIVE.load(Ordering::Relaxed) - own - wire.capacity();
        while server.poll_event(&mut wire).is_some() {}
        server.send(message).expect("the connection is open");
        transmit(&mut server);
        servers.push(server);
    }
    let after = LIVE.load(Ordering::Relaxed);
    (after - before - of_clients) / CONNECTIONS + size_of::<Connection>()
}

fn exchange(server: &mut Connection, client: &mut Connection, message: &str) {
    client.send(message).expect("the connection is open");
    let mut wire = transmit(client);
    while server.poll_event(&mut wire).is_some() {}
    server.send(message).expect("the connection is open");
    let mut wire = transmit(server);
    while client.poll_event(&mut wire).is_some() {}
}

/// Takes what is owed, and the queue's memory, as an I/O layer does when a connection is idle.
fn transmit(connection: &mut Connection) -> BytesMut {
    let mut wire = BytesMut::new();
    while let Some(Transmit::Data(queue)) = connection.poll_transmit() {
        while queue.has_remaining() {
            let count = queue.chunk().len();
            wire.extend_from_slice(queue.chunk());
            queue.advance(count);
        }
        queue.release();
    }
    wire
}

fn pair(agreed: Option<&AgreedDeflate>) -> (Connection, Connection) {
    let (config, now) = (Config::default().keepalive(Keepalive::off()), Instant::now());
    let client = Connection::client(&config, ChaChaKeys::from_seed([7; 32]), now);
    (Connection::server(&config, now).with_deflate(agreed), client.with_deflate(agreed))
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// Counts live bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A typical JSON message.
const SIZE: usize = 1 << 10;
const MESSAGES: usize = 1000;
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 50;
