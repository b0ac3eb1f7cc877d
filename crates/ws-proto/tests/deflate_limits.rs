//! Limits under permessage-deflate (RFC 7692 §8): what a few compressed bytes can make us hold and do,
//! measured by a counting allocator.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;
#[path = "support/deflated.rs"]
mod deflated;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use deflated::{agree, agreed, compress, endpoint, noise, receive_within, stored, stored_payload};
use support::{assert_fails, frame, from_peer};
use ws_proto::{Config, Deflate, Event, Role, State};

/// What a thread's decompressors and scratch space take, and a read buffer: chosen, several times
/// what they need.
const SHARED: usize = 512 << 10;

fn limited(bytes: usize) -> Config {
    Config::default().max_message_size(bytes as u64)
}

fn too_big(size: usize, limit: usize) -> String {
    format!("message with {size} bytes exceeds limit of {limit} bytes")
}

/// A payload in fragments of this size.
fn fragmented(payload: &[u8], size: usize) -> Vec<u8> {
    let mut frames = frame(0x42, "");
    frames.extend(payload.chunks(size).flat_map(|piece| frame(0x00, piece)));
    frames.extend(frame(0x80, ""));
    frames
}

/// The limit counts what comes out, to the byte; with the sizes of our buffers among the limits.
fn limits_what_comes_out(role: Role) {
    for limit in [0, 1, 2, 1000, 65_536, 65_537] {
        for data in [vec![0; limit + 1], noise(limit + 1, 7, 0..=255)] {
            for encode in [compress, stored_payload] {
                let (exact, beyond) = (encode(&data[..limit]), encode(&data));
                // More pieces where that costs nothing.
                let size = if limit < 5000 { 3 } else { 1000 };
                for cut in [false, true] {
                    let frames = |payload: &[u8]| {
                        if cut { fragmented(payload, size) } else { frame(0xC2, payload) }
                    };
                    let twice = frames(&exact).repeat(2);
                    let outcome = receive_within(role, &limited(limit), &agreed(true), &twice);
                    let message = Event::Message(data[..limit].to_vec().into());
                    assert!(outcome.events == [message.clone(), message], "{limit}, cut: {cut}");
                    assert_eq!(outcome.state, State::Open);
                    let frames = frames(&beyond);
                    let outcome = receive_within(role, &limited(limit), &agreed(false), &frames);
                    assert_fails(&outcome, role, &[], 1009, &too_big(limit + 1, limit));
                }
            }
        }
    }
}
both!(limits_what_comes_out:
    server_limits_what_comes_out_exactly, client_limits_what_comes_out_exactly);

/// 10 MiB in 10 KiB: stopped at the limit, not behind it; whole, in fragments, and in small reads.
fn stops_a_bomb(role: Role) {
    const LIMIT: usize = 1 << 20;
    let bomb = compress(&vec![0; 10 << 20]);
    assert!(bomb.len() < 11 << 10, "{} bytes", bomb.len());
    for frames in [frame(0xC2, &bomb), frame(0xC1, &bomb), fragmented(&bomb, 100)] {
        for takeover in [false, true] {
            let wire = from_peer(role, &frames);
            for read in [wire.len(), 1000, 1] {
                let (outcome, peak) = peak(|| {
                    let endpoint = endpoint(role, &Config::default(), &agreed(takeover));
                    deflated::in_pieces(endpoint, &wire, vec![read; wire.len() / read])
                });
                assert_fails(&outcome, role, &[], 1009, &too_big(LIMIT + 1, LIMIT));
                // What came out, and that once more while it grows.
                assert!(peak < 4 * LIMIT + SHARED, "{peak} bytes");
            }
        }
    }
}
both!(stops_a_bomb: server_stops_a_bomb, client_stops_a_bomb);

/// In chunks nothing limits the message, so the chunk has to be.
fn hands_a_bomb_out_in_bounded_chunks(role: Role) {
    const N: usize = 32 << 20;
    let bomb = compress(&vec![0; N]);
    for size in [bomb.len(), 1] {
        let frames = if size == bomb.len() { frame(0xC2, &bomb) } else { fragmented(&bomb, size) };
        let wire = from_peer(role, &frames);
        let mut endpoint = endpoint(role, &Config::default(), &agreed(false));
        endpoint.connection.set_streaming(true);
        endpoint.input.extend_from_slice(&wire);
        let (mut received, mut last) = (0, false);
        let ((), peak) = peak(|| {
            while let Some(event) = endpoint.connection.poll_event(&mut endpoint.input) {
                let Event::Chunk(chunk) = event else { panic!("{event:?}") };
                // The 16 KiB that make a chunk, and what 1 KiB of DEFLATE can become at most.
                assert!(chunk.data.len() <= (16 << 10) + (1100 << 10), "{}", chunk.data.len());
                received += chunk.data.len();
                last |= chunk.last;
            }
        });
        assert_eq!((received, last), (N, true));
        // A few chunks, for a buffer that grows by doubling.
        assert!(peak < N / 4, "{peak} bytes");
    }
}
both!(hands_a_bomb_out_in_bounded_chunks:
    server_hands_a_bomb_out_in_bounded_chunks, client_hands_a_bomb_out_in_bounded_chunks);

/// No payload has to be larger than its message by more than an eighth and a little, so the header
/// of one that is, over all of its fragments, is enough.
fn limits_the_payload(role: Role) {
    const LIMIT: usize = 800;
    const MOST: usize = LIMIT + LIMIT / 8 + 64;
    let header = |first: u8, len: usize| [&[first, 126][..], &(len as u16).to_be_bytes()].concat();
    for first in [0xC1, 0xC2, 0x41, 0x42] {
        let frames = header(first, MOST);
        let outcome = receive_within(role, &limited(LIMIT), &agreed(false), &frames);
        assert_eq!(outcome.state, State::Open);
        let frames = header(first, MOST + 1);
        let outcome = receive_within(role, &limited(LIMIT), &agreed(false), &frames);
        assert_fails(&outcome, role, &[], 1009, &too_big(MOST + 1, LIMIT));
    }
    // Without RSV1 the payload is the message.
    let frames = header(0x82, LIMIT + 1);
    let outcome = receive_within(role, &limited(LIMIT), &agreed(false), &frames);
    assert_fails(&outcome, role, &[], 1009, &too_big(LIMIT + 1, LIMIT));
    // A declared length costs nothing, and without a limit nothing overflows.
    let frames = [&[0xC2, 127][..], &i64::MAX.to_be_bytes()].concat();
    let frames = [frames, stored("abc")].concat();
    let config = Config::default().max_message_size(u64::MAX);
    let (outcome, peak) = peak(|| receive_within(role, &config, &agreed(false), &frames));
    assert_eq!((outcome.state, outcome.events), (State::Open, vec![]));
    assert!(peak < SHARED, "{peak} bytes");
}
both!(limits_the_payload: server_limits_the_payload, client_limits_the_payload);

/// Blocks without content make nothing that the limit could count: the payload's does.
fn bounds_endless_empty_blocks(role: Role) {
    const LIMIT: usize = 1 << 20;
    // Ten at a time, or the limit on fragments would come first.
    let block = stored("").repeat(10);
    let wire = from_peer(role, &frame(0x00, &block));
    let mut endpoint = endpoint(role, &Config::default(), &agreed(true));
    endpoint.feed(&from_peer(role, &frame(0x42, &block)));
    let mut payload = block.len();
    let ((), peak) = peak(|| {
        while endpoint.state() == State::Open {
            endpoint.feed(&wire);
            payload += block.len();
            assert!(payload < 2 * LIMIT, "the end does not come");
        }
    });
    let cause = endpoint.connection.closed().cause.unwrap();
    assert_eq!(cause.to_string(), too_big(payload, LIMIT));
    let most = LIMIT / 8 * 9 + 64 + 8 * (payload / block.len()) + block.len();
    assert!((LIMIT..=most).contains(&payload), "{payload} bytes");
    assert!(peak < SHARED, "{peak} bytes");
}
both!(bounds_endless_empty_blocks:
    server_bounds_endless_empty_blocks, client_bounds_endless_empty_blocks);

/// In chunks they may go on, but they make no chunks and cost no memory.
fn streams_endless_empty_blocks_in_no_memory(role: Role) {
    let mut endpoint = endpoint(role, &Config::default(), &agreed(false));
    endpoint.connection.set_streaming(true);
    let wire = from_peer(role, &frame(0x00, stored("").repeat(1000)));
    endpoint.feed(&from_peer(role, &frame(0x42, "")));
    let ((), peak) = peak(|| (0..1000).for_each(|_| endpoint.feed(&wire)));
    assert!(endpoint.events.is_empty(), "{} chunks", endpoint.events.len());
    assert!(peak < SHARED, "{peak} bytes");
    assert_eq!(endpoint.receive("80 01 00"), ["last binary "]);
}
both!(streams_endless_empty_blocks_in_no_memory:
    server_streams_endless_empty_blocks_in_no_memory,
    client_streams_endless_empty_blocks_in_no_memory);

/// The other two limits are about frames, and know of no compression.
fn limits_frames_and_fragments(role: Role) {
    let config = Config::default().max_frame_size(10);
    let payload = compress(&[0; 2500]);
    assert!((11..=20).contains(&payload.len()), "{} bytes", payload.len());
    let outcome = receive_within(role, &config, &agreed(false), &fragmented(&payload, 10));
    assert_eq!(outcome.events, [Event::Message(vec![0; 2500].into())]);
    let outcome = receive_within(role, &config, &agreed(false), &frame(0xC2, &payload));
    let reason = format!("frame with {} bytes exceeds limit of 10 bytes", payload.len());
    assert_fails(&outcome, role, &[], 1009, &reason);

    let config = Config::default().max_fragments(4);
    let outcome = receive_within(role, &config, &agreed(false), &fragmented(&[0], 1).repeat(3));
    assert_eq!(outcome.words(), ["binary "; 3]);
    let frames = [frame(0x42, ""), frame(0x00, "").repeat(4)].concat();
    let outcome = receive_within(role, &config, &agreed(false), &frames);
    assert_fails(&outcome, role, &[], 1009, "message in 5 fragments exceeds limit of 4");
}
both!(limits_frames_and_fragments:
    server_limits_frames_and_fragments, client_limits_frames_and_fragments);

/// B20: the allowance for the payload covers what our own compressor makes of the worst message of
/// the largest size, for a context must see each message compressed, smaller or not.
fn takes_the_worst_that_our_own_compressor_makes(sender: Role) {
    let all = [(1, 7, 15), (1, 1, 15), (1, 9, 15), (1, 7, 9), (1, 1, 9), (6, 1, 9), (9, 9, 15)];
    let sizes = [(1, &all[..]), (1000, &all), (1 << 20, &[(1, 7, 15), (1, 1, 9), (6, 1, 9)])];
    for (size, settings) in sizes {
        // Literals of 9 bits in a fixed block (RFC 1951 §3.2.6).
        let data = noise(size, 3, 144..=255);
        for &(level, mem_level, window_bits) in settings {
            let deflate = Deflate::default().level(level).mem_level(mem_level).threshold(0);
            let agreed = agree(&deflate, true, window_bits);
            let mut pair = deflated::pair(&limited(size), sender, &agreed);
            let (from, _) = pair.from(sender);
            from.connection.send(data.clone()).unwrap();
            pair.run();
            let (_, to) = pair.from(sender);
            assert!(
                to.events == [Event::Message(data.clone().into())],
                "{size} bytes, level {level}, mem_level {mem_level}, window_bits {window_bits}: {}",
                to.connection.closed()
            );
        }
    }
}
both!(takes_the_worst_that_our_own_compressor_makes:
    client_takes_the_worst_that_a_server_of_ours_makes,
    server_takes_the_worst_that_a_client_of_ours_makes);

// The measure, as in limits.rs.

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
