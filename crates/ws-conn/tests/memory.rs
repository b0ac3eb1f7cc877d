//! What a connection holds, counted by the allocator: next to nothing while it is idle, whatever went
//! over it before, and never what a peer merely announces (RFC 6455 §5.2).
//!
//! Not its business: the thread's pools as such, which `pool.rs` documents.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use support::{Peer, Transport, endpoint, frame, hex, masked, poll_once};
use ws_conn::{
    Config, Deflate, Message, WebSocket,
    proto::{AgreedDeflate, Context, Role},
};

both! {
    an_idle_connection_holds_less_than_3_kib,
    a_large_message_leaves_nothing_with_its_connection,
    a_message_that_is_kept_is_all_that_is_kept,
    a_large_message_that_was_sent_leaves_nothing,
    an_announced_length_reserves_nothing,
    what_is_reserved_is_a_multiple_of_what_came,
    a_few_bytes_behind_a_large_message_do_not_keep_its_memory,
    a_few_kibibytes_behind_a_large_message_do_not_keep_its_memory,
    an_unfinished_small_frame_holds_little,
    lean_compression_costs_an_idle_connection_nothing,
    contexts_cost_what_is_documented,
    an_unfinished_compressed_message_holds_a_decompressor,
    a_refused_bomb_leaves_nothing,
}

/// What a thread keeps for all of its connections; see `pool.rs`: four buffers of messages of 1 MiB,
/// and four for reading.
const POOLS: usize = 4 * ((1 << 20) + (64 << 10)) + 4 * (64 << 10);

/// B8: what a connection may hold on to, at most.
const HELD: usize = 64 << 10;

const MIB: usize = 1 << 20;

fn roomy() -> Config {
    Config::default().max_message_size(u64::MAX)
}

/// Under a heading that is counted: connections are boxed.
type Connection = Box<WebSocket<Transport>>;

fn open(role: Role, config: &Config, deflate: Option<AgreedDeflate>) -> (Connection, Peer) {
    let (ws, peer) = endpoint(role, config);
    (Box::new(ws.with_deflate(deflate)), peer)
}

/// A frame to an endpoint in this role.
fn frame_to(role: Role, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let frame = frame(first & !0x40, payload);
    let mut wire = if role == Role::Server { masked(&frame) } else { frame };
    wire[0] = first;
    wire
}

/// The header of a frame of so many bytes, of which none follows.
fn header_to(role: Role, first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first, if role == Role::Server { 0xff } else { 0x7f }];
    header.extend(length.to_be_bytes());
    if role == Role::Server {
        header.extend([0; 4]);
    }
    header
}

/// Receives a message that is there.
async fn receive_now(ws: &mut WebSocket<Transport>) -> Message {
    poll_once(ws.receive()).await.expect("it came whole").unwrap().expect("a message")
}

/// Lets a connection wait for a message, as it does when it is idle.
async fn idle(ws: &mut WebSocket<Transport>) {
    assert!(poll_once(ws.receive()).await.is_none(), "there is nothing to receive");
}

/// Receives a message of this size, sends it back, and waits.
async fn echo(role: Role, ws: &mut WebSocket<Transport>, peer: &Peer, first: u8, payload: &[u8]) {
    peer.send_raw(&frame_to(role, first, payload));
    let message = receive_now(ws).await;
    ws.send(message).await.unwrap();
    drop(peer.received_raw());
    idle(ws).await;
}

/// Fills the pools and whatever else a thread makes once.
async fn warm_up(role: Role) {
    for deflate in [None, Some(agreed(Deflate::default()))] {
        let (mut ws, peer) = open(role, &roomy(), deflate);
        idle(&mut ws).await;
        for size in [10, 1000, 70_000, 1000] {
            echo(role, &mut ws, &peer, 0x82, &vec![0; size]).await;
        }
        if deflate.is_some() {
            echo(role, &mut ws, &peer, 0xc1, &hex("f2 48 cd c9 c9 07 00")).await;
        }
    }
}

fn agreed(settings: Deflate) -> AgreedDeflate {
    settings.agree(settings.sending(), settings.receiving())
}

/// B7: its struct, the keepalive's timer, and nothing else.
async fn an_idle_connection_holds_less_than_3_kib(role: Role) {
    const COUNT: usize = 50;
    warm_up(role).await;
    for used in [false, true] {
        let before = live();
        let mut connections = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let (mut ws, peer) = open(role, &Config::default(), None);
            idle(&mut ws).await;
            if used {
                for size in [0, 100, 1000, 5000, 70_000] {
                    echo(role, &mut ws, &peer, 0x82, &vec![0; size]).await;
                }
            }
            connections.push((ws, peer));
        }
        let each = grown(before) / COUNT;
        assert!(each < 3 << 10, "{each} bytes each");
        drop(connections);
        let left = grown(before);
        assert!(left < 3 << 10, "{left} bytes left by {COUNT} connections");
    }
}

/// B8. Messages of the usual limit may leave their memory with the thread, not with each connection.
async fn a_large_message_leaves_nothing_with_its_connection(role: Role) {
    warm_up(role).await;
    for (size, first, count) in
        [(16 * MIB, 0x82, 2), (2 * MIB, 0x81, 6), (MIB, 0x82, 8), (5 * MIB / 4, 0x82, 8)]
    {
        let before = live();
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let (mut ws, peer) = open(role, &roomy(), None);
            peer.send_raw(&frame_to(role, first, vec![b'x'; size]));
            assert_eq!(receive_now(&mut ws).await.len(), size);
            idle(&mut ws).await;
            connections.push((ws, peer));
        }
        let kept = grown(before);
        assert!(kept <= POOLS + count * HELD, "{kept} bytes after {count} messages of {size}");
    }
    // And of one connection that gets many, in fragments, too.
    let (mut ws, peer) = open(role, &roomy(), None);
    let before = live();
    for _ in 0..4 {
        peer.send_raw(&frame_to(role, 0x02, vec![1; 3 * MIB]));
        peer.send_raw(&frame_to(role, 0x00, vec![2; 3 * MIB]));
        peer.send_raw(&frame_to(role, 0x80, vec![3; 3 * MIB]));
        assert_eq!(receive_now(&mut ws).await.len(), 9 * MIB);
        idle(&mut ws).await;
        let kept = grown(before);
        assert!(kept <= POOLS + HELD, "{kept} bytes");
    }
}

/// A message that the application keeps costs its size, and not what it was read into.
async fn a_message_that_is_kept_is_all_that_is_kept(role: Role) {
    warm_up(role).await;
    let (mut ws, peer) = open(role, &roomy(), None);
    for (size, count) in [(100, 1000), (5000, 200), (100_000, 30), (4 * MIB, 3)] {
        let before = live();
        let mut kept = Vec::with_capacity(count);
        for _ in 0..count {
            peer.send_raw(&frame_to(role, 0x82, vec![0; size]));
            kept.push(receive_now(&mut ws).await);
            idle(&mut ws).await;
        }
        let (live, sizes) = (grown(before), size * count);
        // What is read in one go with small ones is shared; 64 KiB for 4 KiB is the worst of it.
        let allowed = if size < 64 << 10 { 17 * sizes } else { 2 * sizes };
        assert!(live <= POOLS + HELD + allowed, "{live} bytes for {count} messages of {size}");
        drop(kept);
        idle(&mut ws).await;
        assert!(grown(before) <= POOLS + HELD, "{} bytes", grown(before));
    }
}

async fn a_large_message_that_was_sent_leaves_nothing(role: Role) {
    warm_up(role).await;
    for deflate in [None, Some(agreed(Deflate::default()))] {
        let (mut ws, peer) = open(role, &roomy(), deflate);
        idle(&mut ws).await;
        let before = live();
        for size in [1000, MIB, 4 * MIB] {
            let noise = (0..size as u32).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8);
            let noise: Vec<u8> = noise.collect();
            ws.feed(noise.clone()).await.unwrap();
            ws.feed(vec![0; size]).await.unwrap();
            ws.send(noise).await.unwrap();
            drop(peer.received_raw());
            idle(&mut ws).await;
            let kept = grown(before);
            assert!(kept < 1 << 10, "{kept} bytes after {size}");
        }
    }
}

/// T11: a length is a claim, however large the limit is.
async fn an_announced_length_reserves_nothing(role: Role) {
    warm_up(role).await;
    for deflate in [None, Some(agreed(Deflate::default()))] {
        for (config, refused) in [(roomy(), false), (Config::default(), true)] {
            for length in [(1 << 63) - 1, 1 << 40, 1 << 32, 17 << 20] {
                for first in [0x81, 0x82, 0x02, 0xc2] {
                    if first & 0x40 != 0 && deflate.is_none() {
                        continue;
                    }
                    let (mut ws, peer) = open(role, &config, deflate);
                    idle(&mut ws).await;
                    let wire = [header_to(role, first, length), vec![b'x'; 100]].concat();
                    peer.send_raw(&wire);
                    let (before, peak) = (live(), forget_peak());
                    idle(&mut ws).await;
                    let (kept, most) = (grown(before), grown_to_peak(peak));
                    // 64 KiB to read into, and a decompressor where one is needed.
                    let decompressor = if first & 0x40 == 0 || refused { 0 } else { 256 << 10 };
                    let slack = 16 << 10;
                    assert!(most < (64 << 10) + decompressor + slack, "{most} at most: {length}");
                    assert!(kept < (8 << 10) + decompressor, "{kept} bytes for {length}");
                    if refused {
                        let close = peer.received_raw();
                        let code = close.len() - 4 > 2
                            && close.windows(2).any(|pair| pair == 1009_u16.to_be_bytes());
                        assert!(code, "{}", close.escape_ascii());
                    }
                }
            }
        }
    }
    // In chunks, neither.
    let (mut ws, peer) = open(role, &Config::default(), None);
    idle(&mut ws).await;
    peer.send_raw(&[header_to(role, 0x82, 1 << 62), vec![0; 100]].concat());
    let (before, peak) = (live(), forget_peak());
    let chunk = poll_once(ws.receive_chunk()).await.expect("it came").unwrap().unwrap();
    assert_eq!(chunk.data.len(), 100);
    assert!(poll_once(ws.receive_chunk()).await.is_none());
    assert!(grown(before) < 1 << 10 && grown_to_peak(peak) < 80 << 10);
}

/// As it comes, memory may grow ahead of it, by a factor.
async fn what_is_reserved_is_a_multiple_of_what_came(role: Role) {
    warm_up(role).await;
    let (mut ws, peer) = open(role, &roomy(), None);
    idle(&mut ws).await;
    let before = live();
    peer.send_raw(&header_to(role, 0x82, 1 << 40));
    let mut came = 0;
    for piece in [1, 100, 3000, 1000, 5000, 20_000, 100_000, 1_000_000, 1_000_000, 4_000_000] {
        peer.send_raw(&vec![0; piece]);
        came += piece;
        idle(&mut ws).await;
        let held = grown(before);
        assert!(held <= 17 * came + (8 << 10), "{held} bytes for {came}");
    }
}

/// After each large message comes the beginning of a small frame, in the same read. The message has
/// been dropped, and its memory must go, too.
async fn leftovers_keep_no_memory(role: Role, leftover: &[u8]) {
    const COUNT: usize = 8;
    warm_up(role).await;
    for size in [4 * MIB, MIB, 5 * MIB / 4, 3 * MIB / 2, 70_000] {
        let before = live();
        let mut connections = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let (mut ws, peer) = open(role, &roomy(), None);
            peer.send_raw(&[&frame_to(role, 0x82, vec![0; size]), leftover].concat());
            assert_eq!(receive_now(&mut ws).await.len(), size);
            idle(&mut ws).await;
            connections.push((ws, peer));
        }
        let kept = grown(before);
        // Ahead of an unfinished frame, up to sixteen times of what came may be reserved.
        let allowed = COUNT * (HELD + 17 * leftover.len());
        assert!(kept <= POOLS + allowed, "{kept} bytes kept by {COUNT} connections after {size}");
    }
}

async fn a_few_bytes_behind_a_large_message_do_not_keep_its_memory(role: Role) {
    let whole = frame_to(role, 0x81, "Hello");
    for cut in [1, 2, whole.len() - 1] {
        leftovers_keep_no_memory(role, &whole[..cut]).await;
    }
}

/// As above, of a frame of 6 KiB of which a byte is missing.
async fn a_few_kibibytes_behind_a_large_message_do_not_keep_its_memory(role: Role) {
    let whole = frame_to(role, 0x82, vec![0; 6 << 10]);
    leftovers_keep_no_memory(role, &whole[..whole.len() - 1]).await;
}

async fn an_unfinished_small_frame_holds_little(role: Role) {
    const COUNT: usize = 50;
    warm_up(role).await;
    let whole = frame_to(role, 0x81, "x".repeat(1000));
    let before = live();
    let mut connections = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        let (mut ws, peer) = open(role, &Config::default(), None);
        for piece in [&whole[..1], &whole[1..2], &whole[2..10], &whole[10..999]] {
            peer.send_raw(piece);
            idle(&mut ws).await;
        }
        connections.push((ws, peer));
    }
    let each = grown(before) / COUNT;
    assert!(each < 8 << 10, "{each} bytes each");
    for (ws, peer) in &mut connections {
        peer.send_raw(&whole[999..]);
        assert_eq!(receive_now(ws).await.len(), 1000);
        idle(ws).await;
    }
    let each = grown(before) / COUNT;
    assert!(each < 3 << 10, "{each} bytes each when idle again");
}

/// RFC 7692 without contexts: compressors and decompressors are the thread's.
async fn lean_compression_costs_an_idle_connection_nothing(role: Role) {
    const COUNT: usize = 20;
    warm_up(role).await;
    let text = "{\"id\":12345}".repeat(1024 / 12);
    // Stored, so that it needs no compressor here, and comes back compressed.
    let len = u16::try_from(text.len()).unwrap();
    let stored = [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), text.as_bytes(), &[0]];
    let stored = stored.concat();
    let mut costs = Vec::new();
    for deflate in [None, Some(agreed(Deflate::default()))] {
        let before = live();
        let mut connections = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            let (mut ws, peer) = open(role, &Config::default(), deflate);
            let (first, payload) = match deflate {
                Some(_) => (0xc1, &stored[..]),
                None => (0x81, text.as_bytes()),
            };
            peer.send_raw(&frame_to(role, first, payload));
            let message = receive_now(&mut ws).await;
            assert_eq!(message.as_text(), Some(&*text));
            ws.send(message).await.unwrap();
            let answer = peer.received_raw();
            assert_eq!((answer[0], answer.len() < 200), (first, deflate.is_some()));
            drop(answer);
            idle(&mut ws).await;
            connections.push((ws, peer));
        }
        costs.push(grown(before) / COUNT);
    }
    let (without, with) = (costs[0], costs[1]);
    assert!(with < 3 << 10, "{with} bytes");
    assert!(with <= without + 300, "{with} bytes with compression, {without} without");
}

/// The table of `Deflate`: 323 KB for sending and 48 KB for receiving, and nothing before there is
/// something to remember.
async fn contexts_cost_what_is_documented(role: Role) {
    warm_up(role).await;
    let before = live();
    let (mut ws, peer) = open(role, &Config::default(), Some(agreed(Deflate::best_ratio())));
    idle(&mut ws).await;
    assert!(grown(before) < 3 << 10, "{} bytes before the first message", grown(before));
    echo(role, &mut ws, &peer, 0xc1, &hex("f2 48 cd c9 c9 07 00")).await;
    let received = grown(before);
    assert!(received < (3 << 10) + 50_000, "{received} bytes for receiving");
    ws.send("x".repeat(1000)).await.unwrap();
    drop(peer.received_raw());
    idle(&mut ws).await;
    let both = grown(before);
    assert!(both < 375_000, "{both} bytes for both");
    drop((ws, peer));
    // A decompressor may stay with the thread.
    assert!(grown(before) < 60_000, "{} bytes afterwards", grown(before));
}

/// Without contexts, a decompressor is taken for the time of a message, however that ends.
async fn an_unfinished_compressed_message_holds_a_decompressor(role: Role) {
    const COUNT: usize = 30;
    // As many as a thread keeps for the next messages.
    const POOLED: usize = 16;
    warm_up(role).await;
    let before = live();
    let mut connections = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        let deflate = Some(agreed(Deflate::default()));
        let (mut ws, peer) = open(role, &Config::default(), deflate);
        peer.send_raw(&frame_to(role, 0x41, hex("f2 48 cd")));
        idle(&mut ws).await;
        connections.push((ws, peer));
    }
    let each = grown(before) / COUNT;
    assert!(each < 60_000, "{each} bytes each");
    for (place, (mut ws, peer)) in connections.into_iter().enumerate() {
        if place % 2 == 0 {
            peer.send_raw(&frame_to(role, 0x80, hex("c9 c9 07 00")));
            assert_eq!(receive_now(&mut ws).await.as_text(), Some("Hello"));
            idle(&mut ws).await;
        }
    }
    let kept = grown(before);
    assert!(kept < (POOLED + 1) * 60_000, "{kept} bytes in the pool");
}

/// RFC 7692 §8: neither the attempt nor what remains of it is larger than the limit.
async fn a_refused_bomb_leaves_nothing(role: Role) {
    warm_up(role).await;
    let limit = 64 << 10;
    // A block of fixed codes (RFC 1951 §3.2.6): a zero byte, and then 258 of them per 13 bits.
    let bomb = bomb(10 << 20);
    for deflate in [Deflate::default(), Deflate::best_ratio()] {
        for _ in 0..3 {
            let config = Config::default().max_message_size(limit);
            let context = Context { takeover: deflate.sending().takeover, window_bits: 15 };
            let (mut ws, peer) = open(role, &config, Some(deflate.agree(context, context)));
            idle(&mut ws).await;
            peer.send_raw(&frame_to(role, 0xc2, &bomb));
            let (before, peak) = (live(), forget_peak());
            idle(&mut ws).await;
            let (kept, most) = (grown(before), grown_to_peak(peak));
            assert!(most < (64 << 10) + (256 << 10), "{most} bytes at most");
            // It waits for the peer's Close now, and there is nothing more to decompress.
            assert!(kept < 60_000 + 2 * limit as usize, "{kept} bytes kept");
        }
    }
}

/// So many zeros, in as few bytes as DEFLATE needs with fixed codes: about 1 : 158.
fn bomb(size: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // BFINAL 0, BTYPE 01, least significant bit first.
    bits.push(0b010, 3);
    // Huffman codes go most significant bit first: literal 0 is 0011_0000.
    bits.push(0b0000_1100, 8);
    for _ in 0..size / 258 {
        // Length 258 is code 285, 1100_0101; distance 1 is code 0 in five bits.
        bits.push(0b1010_0011, 8);
        bits.push(0, 5);
    }
    // The end of the block, 256, is 000_0000; then the header of the empty stored block, cut.
    bits.push(0, 7);
    bits.push(0, 3);
    bits.bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, bits: u32, count: usize) {
        for place in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("there is one");
            *last |= ((bits >> place & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
    }
}

#[test]
fn the_bomb_is_one() {
    let bomb = bomb(10 << 20);
    assert!(bomb.len() * 150 < 10 << 20, "{} bytes", bomb.len());
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
fn forget_peak() -> isize {
    PEAK.set(LIVE.get());
    LIVE.get()
}

fn grown_to_peak(before: isize) -> usize {
    usize::try_from(PEAK.get() - before).unwrap_or(0)
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
