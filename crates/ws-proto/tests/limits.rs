//! Limits (the 1009 of RFC 6455 §7.4.1) and memory: what a hostile peer can make us hold, measured
//! by a counting allocator.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::BytesMut;
use support::{Endpoint, assert_fails, frame, from_peer, hex, receive_wire, split, to_hex};
use ws_proto::{Config, Event, Keepalive, Message, Role, State, Transmit, bytes::Buf};

/// What a connection may hold for the asking: chosen, one read buffer.
const NOTHING_MUCH: usize = 64 << 10;

/// Frames that are the peer's only in part: the header alone, with a declared length.
fn declares(first: u8, length: u64) -> Vec<u8> {
    [&[first, 127][..], &length.to_be_bytes()].concat()
}

/// Feeds one reading after the other, as from a socket.
fn feed_in(endpoint: &mut Endpoint, wire: &[u8], size: usize) {
    wire.chunks(size).for_each(|piece| endpoint.feed(piece));
}

/// T11, B2: a declared length costs nothing, and is judged before anything follows the header.
fn judges_declared_lengths(role: Role) {
    const LIMIT: u64 = 1 << 20;
    for (length, code) in [
        (LIMIT + 1, 1009),
        ((1 << 32) + 5, 1009), // 5 for who counts in 32 bits
        (i64::MAX as u64, 1009),
        (1 << 63, 1002),
        (u64::MAX, 1002),
        (5, 1002),
    ] {
        let reason = match code {
            1009 => format!("message with {length} bytes exceeds limit of {LIMIT} bytes"),
            _ if length == 5 => "length 5 is not minimally encoded".to_owned(),
            _ => format!("length {length} has its most significant bit set"),
        };
        for first in [0x01, 0x81, 0x02, 0x82] {
            let wire = from_peer(role, &declares(first, length));
            let (outcome, peak) = peak(|| receive_wire(role, &Config::default(), &wire));
            assert_fails(&outcome, role, &[], code, &reason);
            assert!(peak < NOTHING_MUCH, "{peak} bytes for a declared {length}");
        }
    }
    // Without a limit the connection waits for the bytes; it does not make room for them.
    let config = Config::default().max_message_size(u64::MAX);
    let wire = from_peer(role, &[declares(0x82, i64::MAX as u64), vec![0; 1000]].concat());
    let (outcome, peak) = peak(|| receive_wire(role, &config, &wire));
    assert_eq!((outcome.state, outcome.events), (State::Open, vec![]));
    assert!(peak < NOTHING_MUCH, "{peak} bytes");
}
both!(judges_declared_lengths:
    server_judges_declared_lengths_at_once, client_judges_declared_lengths_at_once);

/// B3: the limit is exact, over one frame and over the sum of many; the header of the frame that
/// goes beyond is enough.
fn limits_the_sum_of_fragments(role: Role) {
    const N: usize = 1000;
    let config = Config::default().max_message_size(N as u64);
    for size in [1, 3, 250, 999, 1000] {
        let mut frames = Vec::new();
        for (i, piece) in [b'x'; N].chunks(size).enumerate() {
            let first = if i == 0 { 0x01 } else { 0x00 };
            frames.extend(frame(first, piece));
        }
        let exact = [&frames[..], &frame(0x80, "")].concat();
        let outcome = receive_wire(role, &config, &from_peer(role, &exact));
        assert_eq!(outcome.events, [Event::Message("x".repeat(N).into())]);
        // The byte that is one too many has not come.
        let beyond = [&frames[..], &[0x80, 1]].concat();
        let outcome = receive_wire(role, &config, &from_peer(role, &beyond));
        let reason = "message with 1001 bytes exceeds limit of 1000 bytes";
        assert_fails(&outcome, role, &[], 1009, reason);
    }
    let outcome = receive_wire(role, &config, &from_peer(role, &frame(0x82, [0; N])));
    assert_eq!(outcome.events, [Event::Message(vec![0; N].into())]);
    let outcome = receive_wire(role, &config, &from_peer(role, &hex("82 7e 03e9")));
    assert_fails(&outcome, role, &[], 1009, "message with 1001 bytes exceeds limit of 1000 bytes");
    // The next message starts from zero.
    let twice = [frame(0x82, [0; N]), frame(0x82, [0; N])].concat();
    assert_eq!(receive_wire(role, &config, &from_peer(role, &twice)).events.len(), 2);
}
both!(limits_the_sum_of_fragments:
    server_limits_the_sum_of_fragments_exactly, client_limits_the_sum_of_fragments_exactly);

fn limits_the_frame(role: Role) {
    let config = Config::default().max_frame_size(200);
    let frames = [frame(0x01, [b'a'; 200]), frame(0x80, [b'b'; 200])].concat();
    let outcome = receive_wire(role, &config, &from_peer(role, &frames));
    assert_eq!(outcome.events, [Event::Message(("a".repeat(200) + &"b".repeat(200)).into())]);
    for before in [vec![], frame(0x01, "a")] {
        let first = if before.is_empty() { 0x81 } else { 0x80 };
        let beyond = [&before[..], &[first, 126, 0, 201]].concat();
        let outcome = receive_wire(role, &config, &from_peer(role, &beyond));
        assert_fails(&outcome, role, &[], 1009, "frame with 201 bytes exceeds limit of 200 bytes");
    }
    // The frame limit says nothing about control frames.
    let config = Config::default().max_frame_size(0).max_message_size(0);
    let outcome = receive_wire(role, &config, &from_peer(role, &hex("890170 8a0170 8100")));
    assert_eq!(outcome.words(), ["ping 70", "pong 70", "text \"\""]);
}
both!(limits_the_frame: server_limits_the_frame_exactly, client_limits_the_frame_exactly);

/// In chunks a message may be larger than memory, so its size is not limited; a frame's is.
fn streams_beyond_the_message_limit(role: Role) {
    let config = Config::default().max_message_size(10).max_frame_size(5000);
    let mut endpoint = Endpoint::with(role, &config);
    endpoint.connection.set_streaming(true);
    let mut received = 0;
    let (_, peak) = peak(|| {
        for i in 0..2000 {
            let first = if i == 0 { 0x02 } else { 0x00 };
            endpoint.feed(&from_peer(role, &frame(first, [0; 5000])));
            for event in endpoint.events.drain(..) {
                let Event::Chunk(chunk) = event else { panic!("{event:?}") };
                received += chunk.data.len();
            }
        }
    });
    assert_eq!(received, 10_000_000);
    assert!(peak < NOTHING_MUCH, "{peak} bytes");
    endpoint.receive("00 7e 1389");
    let cause = endpoint.connection.closed().cause.unwrap();
    assert_eq!(cause.to_string(), "frame with 5001 bytes exceeds limit of 5000 bytes");
}
both!(streams_beyond_the_message_limit:
    server_streams_beyond_the_message_limit, client_streams_beyond_the_message_limit);

/// T10: 1,000,000 fragments of one byte or of none end at the cap.
fn caps_tiny_fragments(role: Role) {
    for payload in ["", "x"] {
        let mut wire = from_peer(role, &frame(0x02, payload));
        wire.extend(from_peer(role, &frame(0x00, payload)).repeat(1_000_000));
        let mut endpoint = Endpoint::new(role);
        let (_, peak) = peak(|| feed_in(&mut endpoint, &wire, 16 << 10));
        assert_eq!(
            endpoint.connection.closed().to_string(),
            "sent 1009 (message too big) message in 131073 fragments exceeds limit of 131072; \
             no close frame received"
        );
        // The fragments, once more while they grow, and the read buffer.
        assert!(peak < 2 * payload.len() * 131_072 + NOTHING_MUCH, "{peak} bytes");
        assert!(endpoint.input.is_empty(), "what follows is discarded");
    }
}
both!(caps_tiny_fragments: server_caps_tiny_fragments, client_caps_tiny_fragments);

/// T10, B10: with the cap lifted, memory is linear in what came, and so is the work: 4 MiB of text in
/// frames of one byte would take hours if it were not.
fn joins_tiny_fragments_in_linear_memory(role: Role) {
    const N: usize = 4 << 20;
    let config = Config::default().max_message_size(N as u64).max_fragments(u32::MAX);
    let mut endpoint = Endpoint::with(role, &config);
    let mut wire = from_peer(role, &frame(0x01, "x"));
    wire.extend(from_peer(role, &frame(0x00, "x")).repeat(N - 2));
    wire.extend(from_peer(role, &frame(0x80, "x")));
    let (_, peak) = peak(|| feed_in(&mut endpoint, &wire, 16 << 10));
    assert_eq!(endpoint.events, [Event::Message("x".repeat(N).into())]);
    assert!(peak < 2 * N + NOTHING_MUCH, "{peak} bytes");
}
both!(joins_tiny_fragments_in_linear_memory:
    server_joins_tiny_fragments_in_linear_memory, client_joins_tiny_fragments_in_linear_memory);

/// B9: a message of many reads is looked at once, and held once: in the caller's buffer.
fn takes_a_large_message_in_small_reads(role: Role) {
    const N: usize = 8 << 20;
    let config = Config::default().max_message_size(N as u64);
    let mut endpoint = Endpoint::with(role, &config);
    let wire = from_peer(role, &frame(0x81, vec![b'x'; N]));
    let (_, peak) = peak(|| feed_in(&mut endpoint, &wire, 4 << 10));
    // The buffer, and the one before it while it grows by doubling.
    assert!(peak < 3 * N + NOTHING_MUCH, "{peak} bytes");
    let Some(Event::Message(Message::Text(text))) = endpoint.events.pop() else { panic!() };
    assert_eq!(text.len(), N);
}
both!(takes_a_large_message_in_small_reads:
    server_takes_a_large_message_in_small_reads, client_takes_a_large_message_in_small_reads);

/// B5, T13: a peer that pings without reading. §5.5.3 lets us leave Pings unanswered, but never the
/// newest.
fn bounds_the_answers_to_a_ping_flood(role: Role) {
    let Endpoint { mut connection, .. } = Endpoint::new(role);
    let mut input = BytesMut::new();
    let mut wire = Vec::new();
    let (_, peak) = peak(|| {
        for i in 0..100_000u32 {
            let payload = [&[0; 121][..], &i.to_be_bytes()].concat();
            input.extend_from_slice(&from_peer(role, &frame(0x89, payload)));
            assert!(matches!(connection.poll_event(&mut input), Some(Event::Ping(_))));
            let Some(Transmit::Data(queue)) = connection.poll_transmit() else { panic!() };
            // A KiB, and the Pong that went beyond it.
            assert!(queue.len() <= 1024 + 131, "{} bytes are queued", queue.len());
            if i == 10 {
                // The transport took a byte and then no more.
                wire.push(queue.get_u8());
            }
        }
    });
    assert!(peak < NOTHING_MUCH, "{peak} bytes");
    while let Some(Transmit::Data(queue)) = connection.poll_transmit() {
        wire.extend(queue.copy_to_bytes(queue.len()));
    }
    let pong = |i: u32| frame(0x8a, [&[0; 121][..], &i.to_be_bytes()].concat());
    let pongs = split(role, &wire);
    assert!(pongs.len() <= 10, "{} Pongs", pongs.len());
    assert!(pongs.is_sorted(), "out of order");
    assert_eq!((&pongs[0], &pongs[pongs.len() - 1]), (&pong(0), &pong(99_999)));
}
both!(bounds_the_answers_to_a_ping_flood:
    server_bounds_the_answers_to_a_ping_flood, client_bounds_the_answers_to_a_ping_flood);

/// When the flood has been answered as far as there was room, and then the peer reads and pings again:
/// the Pongs keep the order of the Pings.
fn answers_pings_in_order_after_a_flood(role: Role) {
    let Endpoint { mut connection, .. } = Endpoint::new(role);
    let mut input = BytesMut::new();
    let mut wire = Vec::new();
    for i in 0..40u8 {
        input.extend_from_slice(&from_peer(role, &frame(0x89, [i; 100])));
        assert!(connection.poll_event(&mut input).is_some());
        if i % 20 == 18 {
            // One write, and the next Ping before another.
            let Some(Transmit::Data(queue)) = connection.poll_transmit() else { panic!() };
            wire.extend(queue.copy_to_bytes(queue.len()));
        }
    }
    while let Some(Transmit::Data(queue)) = connection.poll_transmit() {
        wire.extend(queue.copy_to_bytes(queue.len()));
    }
    let pongs: Vec<_> = split(role, &wire).iter().map(|pong| pong[2]).collect();
    assert!(pongs.is_sorted(), "{pongs:?}");
    assert_eq!(pongs.last(), Some(&39));
}
both!(answers_pings_in_order_after_a_flood:
    server_answers_pings_in_order_after_a_flood, client_answers_pings_in_order_after_a_flood);

/// The same peer, while it is pinged by the keepalive that never gives up: a year of it.
fn bounds_the_pings_to_a_peer_that_never_reads(role: Role) {
    let keepalive = Keepalive::default().without_timeout();
    let mut endpoint = Endpoint::with(role, &Config::default().keepalive(keepalive));
    let mut queued = 0;
    for beat in 1..=1_576_800 {
        endpoint.timeout(20 * beat);
        if let Some(Transmit::Data(queue)) = endpoint.connection.poll_transmit() {
            queued = queue.len();
        }
    }
    assert!(queued < 1024, "{queued} bytes are queued");
}
both!(bounds_the_pings_to_a_peer_that_never_reads:
    server_bounds_the_pings_to_a_peer_that_never_reads,
    client_bounds_the_pings_to_a_peer_that_never_reads);

/// B16: what stands in front of a malformed frame in the same read is delivered first, and answered.
fn delivers_what_stands_before_a_violation(role: Role) {
    let wire = from_peer(role, &hex("810161 890170 010162 800163 8300 810164"));
    let outcome = receive_wire(role, &Config::default(), &wire);
    assert_eq!(outcome.words(), ["text \"a\"", "ping 70", "text \"bc\""]);
    let violation = to_hex(&support::close(1002, "invalid opcode 0x3"));
    let shutdown = if role == Role::Server { " shutdown" } else { "" };
    assert_eq!(outcome.sent, format!("8a0170 {violation}{shutdown}"));
}
both!(delivers_what_stands_before_a_violation:
    server_delivers_what_stands_before_a_violation,
    client_delivers_what_stands_before_a_violation);

// The measure.

/// What `work` answers, and how many bytes this thread held at most during it, beyond those before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let answer = work();
    (answer, usize::try_from(PEAK.get() - before).unwrap())
}

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
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
