//! Connections with permessage-deflate (RFC 7692): every way to send and to receive, over sockets
//! and in memory, with and without contexts; and what becomes of data that is none.
//!
//! Not its business: which agreement comes of which offer, which is ws-handshake's.
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use support::{
    Peer, Slow, Transport, endpoint, hex, poll_once, settle, websocket, within, within_a_minute,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use ws_conn::{
    Chunk, Client, CloseCode, Config, Deflate, Error, Message, PreparedMessage, Server, WebSocket,
    handshake::http::header,
    proto::{AgreedDeflate, Context, FrameHeader, Role},
};

/// What the two ends of a connection may want, beginning with the client.
fn pairs() -> [(Deflate, Deflate); 5] {
    let (lean, best) = (Deflate::default(), Deflate::best_ratio());
    [
        (lean, lean),
        (best, best),
        (best, lean),
        (lean, best),
        (best.window_bits(9).peer_window_bits(10), best.window_bits(12).peer_window_bits(11)),
    ]
}

/// A server that echoes on one connection, and a client of it.
async fn echoed(
    client: Deflate,
    server: Deflate,
) -> (WebSocket<TcpStream>, JoinHandle<Result<(), Error>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client comes");
        let mut ws = Server::new().deflate(server).accept(stream).await?;
        while let Some(message) = ws.receive().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    let client = Client::new(&url).expect("a valid URL").deflate(client);
    (client.connect().await.expect("an open connection"), serving)
}

/// Both settings of one side, agreed on as they are.
fn agreed(settings: Deflate) -> AgreedDeflate {
    settings.agree(settings.sending(), settings.receiving())
}

/// An endpoint that agreed, and the test as its peer.
fn deflating(role: Role, settings: Deflate) -> (WebSocket<Transport>, Peer) {
    let (ws, peer) = endpoint(role, &Config::default());
    (ws.with_deflate(Some(agreed(settings))), peer)
}

/// Two connections with each other that agreed on the same for both directions.
fn connected(
    settings: Deflate,
    config: &Config,
) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (near, far) = support::connected(1 << 10, config);
    (near.with_deflate(Some(agreed(settings))), far.with_deflate(Some(agreed(settings))))
}

/// A frame to an endpoint in this role, with a masking key of zeros where there must be one.
fn frame_to(role: Role, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let frame = support::frame(first, payload);
    if role == Role::Client {
        return frame;
    }
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    [&[first, frame[1] | 0x80], &frame[2..header], &[0; 4], &frame[header..]].concat()
}

/// The frames that came from an endpoint in this role: first bytes and payloads.
fn frames_from(role: Role, peer: &Peer) -> Vec<(u8, Vec<u8>)> {
    let wire = peer.received_raw();
    let receiver = if role == Role::Server { Role::Client } else { Role::Server };
    let mut rest = &wire[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (header, size) = FrameHeader::decode(rest, receiver, true).unwrap().expect("whole");
        let end = size + header.length as usize;
        assert_eq!(header.mask.unwrap_or_default(), [0; 4]);
        frames.push((rest[0], rest[size..end].to_vec()));
        rest = &rest[end..];
    }
    frames
}

/// Text in which much repeats.
fn text(size: usize) -> String {
    let mut text = String::with_capacity(size + 64);
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        text.push_str(&format!("{{\"id\":{number},\"naïve\":\"{}\"}},", number % 7));
    }
    while !text.is_char_boundary(size) {
        text.insert(0, '.');
    }
    text.truncate(size);
    text
}

/// Bytes in which nothing repeats.
fn noise(size: usize) -> Vec<u8> {
    let mut state = size as u64 | 1;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..size).map(next).collect()
}

/// On both sides of the thresholds, of the lengths of length fields, and of our buffers.
const SIZES: [usize; 18] = [
    0,
    1,
    2,
    31,
    32,
    125,
    126,
    255,
    256,
    512,
    4096,
    65_535,
    65_536,
    65_537,
    131_072,
    300_000,
    (1 << 20) - 1,
    1 << 20,
];

#[tokio::test]
async fn messages_of_all_sizes_come_back() {
    for (pair, (client, server)) in pairs().into_iter().enumerate() {
        let (mut ws, serving) = echoed(client, server).await;
        within_a_minute(async {
            // The large ones take their time without optimisation; for them, two pairs do.
            for size in SIZES.into_iter().filter(|size| pair < 2 || *size < 300_000) {
                let messages =
                    [Message::from(text(size)), text(size).into_bytes().into(), noise(size).into()];
                for message in messages {
                    assert_eq!(message.len(), size);
                    // Both at once, because no socket buffer takes so much.
                    let (mut sink, mut stream) = StreamExt::split(&mut ws);
                    let (sent, back) = tokio::join!(sink.send(message.clone()), stream.next());
                    sent.unwrap();
                    assert!(back.unwrap().unwrap() == message, "{size} bytes: {client:?}");
                }
            }
            let closed = ws.close(CloseCode::NORMAL, "").await;
            assert!(closed.is_clean(), "{closed}");
            serving.await.unwrap().unwrap();
        })
        .await;
    }
}

/// §6: which messages are compressed is the sender's choice, one by one.
#[tokio::test]
async fn messages_with_and_without_compression_mix() {
    for (client, server) in pairs() {
        let (mut ws, serving) = echoed(client, server).await;
        within_a_minute(async {
            for size in [0, 1, 40, 300, 5000, 70_000] {
                let message = Message::from(text(size));
                ws.send(message.clone().uncompressed()).await.unwrap();
                ws.send(message.clone()).await.unwrap();
                ws.send(message.clone().compressed()).await.unwrap();
                ws.send_prepared(&message.clone().into()).await.unwrap();
                ws.send_prepared(&PreparedMessage::new(message.clone().compressed()))
                    .await
                    .unwrap();
                ws.send_prepared(&PreparedMessage::new(message.clone().uncompressed()))
                    .await
                    .unwrap();
                let middle = (0..=size / 2).rfind(|at| text(size).is_char_boundary(*at)).unwrap();
                let whole = text(size);
                ws.send_chunk(&whole[..middle], false).await.unwrap();
                ws.send_chunk("", false).await.unwrap();
                ws.send_chunk(&whole[middle..], true).await.unwrap();
                for way in 0..7 {
                    let back = ws.receive().await.unwrap().expect("an echo");
                    assert!(back == message, "{size} bytes, {way}");
                }
            }
            ws.close(CloseCode::NORMAL, "").await;
            serving.await.unwrap().unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_thousand_pipelined_messages_come_back_in_order() {
    for (client, server) in pairs() {
        let (mut ws, serving) = echoed(client, server).await;
        within_a_minute(async {
            for i in 0..1000 {
                ws.feed(format!("{i} {}", text(i % 500))).await.unwrap();
            }
            ws.flush().await.unwrap();
            for i in 0..1000 {
                let expected = format!("{i} {}", text(i % 500));
                assert_eq!(ws.receive().await.unwrap(), Some(expected.into()));
            }
            ws.close(CloseCode::NORMAL, "").await;
            serving.await.unwrap().unwrap();
        })
        .await;
    }
}

/// The halves of a split connection, the sending one in two tasks: messages stay whole, each
/// compressed in the order in which it goes out.
#[tokio::test]
async fn split_halves_compress_too() {
    for (client, server) in pairs() {
        let (ws, serving) = echoed(client, server).await;
        within_a_minute(async {
            let (sender, mut receiver) = ws.split();
            let tasks = [0, 1].map(|task| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for i in 0..200 {
                        sender.send(format!("{task} {i} {}", text(i * 7))).await.unwrap();
                    }
                })
            });
            let mut next = [0; 2];
            for _ in 0..400 {
                let back = receiver.receive().await.unwrap().expect("an echo");
                let back = back.as_text().expect("text").to_owned();
                let task = usize::from(back.starts_with('1'));
                assert_eq!(back, format!("{task} {} {}", next[task], text(next[task] * 7)));
                next[task] += 1;
            }
            for task in tasks {
                task.await.unwrap();
            }
            sender.close(CloseCode::NORMAL, "").await.unwrap();
            assert_eq!(receiver.receive().await.unwrap(), None);
            serving.await.unwrap().unwrap();
        })
        .await;
    }
}

both! {
    a_message_in_chunks_arrives_whole,
    a_whole_message_arrives_in_chunks,
    a_large_message_in_chunks_needs_no_limit,
    small_pieces_and_dropped_receives_lose_nothing,
    messages_fed_before_a_close_arrive_before_it,
    the_rfcs_examples_are_understood,
    a_hello_is_the_rfcs_example,
    the_sender_chooses_what_is_compressed,
    the_threshold_is_exact,
    chunks_are_one_compressed_message,
    a_prepared_message_refers_to_nothing_before_it,
    pings_between_compressed_fragments_are_answered_at_once,
    corrupt_data_closes_with_1007,
    text_that_is_none_closes_with_1007,
    too_much_closes_with_1009,
    rsv1_where_it_may_not_be_closes_with_1002,
}

/// From an endpoint in this role to the other one.
fn from(
    role: Role,
    settings: Deflate,
    config: &Config,
) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (client, server) = connected(settings, config);
    if role == Role::Client { (client, server) } else { (server, client) }
}

async fn a_message_in_chunks_arrives_whole(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut sender, mut receiver) = from(role, settings, &Config::default());
        for size in [0, 1, 100, 5000, 200_000] {
            let data = [text(size / 2).into_bytes(), noise(size - size / 2)].concat();
            for step in [1000, 70_000] {
                let send = async {
                    for piece in data.chunks(step) {
                        sender.send_chunk(piece.to_vec(), false).await.unwrap();
                    }
                    sender.send_chunk(Vec::new(), true).await.unwrap();
                };
                let ((), received) = tokio::join!(send, receiver.receive());
                assert!(received.unwrap() == Some(data.clone().into()), "{size}, {step}");
            }
        }
    }
}

/// Receives chunks up to the last: their data, how many there were, and the largest.
async fn receive_chunks<S: AsyncRead + AsyncWrite + Unpin>(
    ws: &mut WebSocket<S>,
) -> (Vec<u8>, usize, usize) {
    let (mut data, mut count, mut largest) = (Vec::new(), 0, 0);
    loop {
        let Chunk { data: chunk, last } = ws.receive_chunk().await.unwrap().expect("a chunk");
        data.extend_from_slice(chunk.as_bytes());
        count += 1;
        largest = largest.max(chunk.len());
        if last {
            return (data, count, largest);
        }
    }
}

async fn a_whole_message_arrives_in_chunks(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut sender, mut receiver) = from(role, settings, &Config::default());
        for size in [0, 1, 100, 5000, 200_000, 1 << 20] {
            for message in [Message::from(text(size)), noise(size).into()] {
                for outgoing in [message.clone().compressed(), message.clone().uncompressed()] {
                    let (sent, (data, _, largest)) =
                        tokio::join!(sender.send(outgoing), receive_chunks(&mut receiver));
                    sent.unwrap();
                    assert!(data == message.as_bytes(), "{size} bytes");
                    // 16 KiB, and at most what 1 KiB can become on top.
                    assert!(largest < (16 << 10) + (1 << 10) * 1033, "{largest} in one chunk");
                }
                // Whole messages in between are as they were.
                sender.send(text(300)).await.unwrap();
                assert_eq!(receiver.receive().await.unwrap(), Some(text(300).into()));
            }
        }
    }
}

/// The limit is for what is in memory whole: chunks of a message of 16 MiB come to no harm.
async fn a_large_message_in_chunks_needs_no_limit(role: Role) {
    let config = Config::default().max_message_size(1000);
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut sender, mut receiver) = from(role, settings, &config);
        let data = vec![0; 16 << 20];
        let (sent, (received, count, largest)) =
            tokio::join!(sender.send(data.clone()), receive_chunks(&mut receiver));
        sent.unwrap();
        assert!(received == data);
        assert!(count > 10 && largest < (2 << 20), "{count} chunks, {largest} in one");
    }
}

/// B24: progress is the connection's, not the future's.
async fn small_pieces_and_dropped_receives_lose_nothing(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (near, far) = duplex(100);
        let (other, agreed) = match role {
            Role::Client => (Role::Server, agreed(settings)),
            Role::Server => (Role::Client, agreed(settings)),
        };
        let config = Config::default();
        let mut sender =
            websocket(role, Slow::stuttering(near), &config).with_deflate(Some(agreed));
        let mut receiver =
            websocket(other, Slow::byte_by_byte(far), &config).with_deflate(Some(agreed));
        let messages = [text(0), text(40), text(400), text(40_000), text(400)];
        let sending = async {
            for message in &messages {
                sender.send(message.clone()).await.unwrap();
                sender.send_chunk(message.clone(), false).await.unwrap();
                sender.send_chunk(message.clone(), true).await.unwrap();
            }
        };
        let receiving = async {
            for message in &messages {
                for expected in [message.clone(), message.repeat(2)] {
                    let received = loop {
                        match poll_once(receiver.receive()).await {
                            Some(received) => break received,
                            None => tokio::task::yield_now().await,
                        }
                    };
                    assert_eq!(received.unwrap(), Some(expected.into()));
                }
            }
        };
        tokio::join!(sending, receiving);
    }
}

async fn messages_fed_before_a_close_arrive_before_it(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut sender, mut receiver) = from(role, settings, &Config::default());
        for i in 0..20 {
            sender.feed(text(i * 30)).await.unwrap();
        }
        let receiving = async {
            for i in 0..20 {
                assert_eq!(receiver.receive().await.unwrap(), Some(text(i * 30).into()));
            }
            assert_eq!(receiver.receive().await.unwrap(), None);
        };
        let (closed, ()) = tokio::join!(sender.close(CloseCode::NORMAL, "done"), receiving);
        assert!(closed.is_clean(), "{closed}");
    }
}

/// Receives what is there; nothing of it waits for anything.
async fn receive_now(ws: &mut WebSocket<Transport>) -> Message {
    poll_once(ws.receive()).await.expect("it came whole").unwrap().expect("a message")
}

/// RFC 7692 §7.2.3, in its bytes.
async fn the_rfcs_examples_are_understood(role: Role) {
    let hello = Message::from("Hello");
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut ws, peer) = deflating(role, settings);
        for (what, frames) in [
            ("§7.2.3.1, one frame", &[(0xc1, "f2 48 cd c9 c9 07 00")][..]),
            ("§7.2.3.1, two frames", &[(0x41, "f2 48 cd"), (0x80, "c9 c9 07 00")]),
            ("§7.2.3.3, no compression", &[(0xc1, "00 05 00 fa ff 48 65 6c 6c 6f 00")]),
            ("§7.2.3.4, BFINAL", &[(0xc1, "f3 48 cd c9 c9 07 00 00")]),
            ("§7.2.3.5, two blocks", &[(0xc1, "f2 48 05 00 00 00 ff ff ca c9 c9 07 00")]),
            ("§6, not compressed", &[(0x81, "48 65 6c 6c 6f")]),
            ("§7.2.3.1, one frame, again", &[(0xc1, "f2 48 cd c9 c9 07 00")]),
        ] {
            for (first, payload) in frames {
                peer.send_raw(&frame_to(role, *first, hex(payload)));
            }
            assert_eq!(receive_now(&mut ws).await, hello, "{what}");
        }
        // §7.2.3.6: an empty message.
        peer.send_raw(&frame_to(role, 0xc1, [0x00]));
        assert_eq!(receive_now(&mut ws).await, Message::from(""));
    }
    // §7.2.3.2: sharing the window, which takes a context.
    let (mut ws, peer) = deflating(role, Deflate::best_ratio());
    for payload in ["f2 48 cd c9 c9 07 00", "f2 00 11 00 00"] {
        peer.send_raw(&frame_to(role, 0xc1, hex(payload)));
        assert_eq!(receive_now(&mut ws).await, hello);
    }
}

/// RFC 7692 §7.2.3.1 from the other side; §7.2.3.2 leaves it open how the window is used.
async fn a_hello_is_the_rfcs_example(role: Role) {
    let first = (0xc1, hex("f2 48 cd c9 c9 07 00"));
    let (mut ws, peer) = deflating(role, Deflate::best_ratio());
    for _ in 0..2 {
        ws.send(Message::from("Hello").compressed()).await.unwrap();
    }
    let frames = frames_from(role, &peer);
    assert_eq!(frames[0], first);
    assert!(frames[1].0 == 0xc1 && frames[1].1.len() < first.1.len(), "{frames:02x?}");

    // Without a context, each is as the first; but those five bytes are better left alone.
    let (mut ws, peer) = deflating(role, Deflate::default());
    for _ in 0..2 {
        ws.send(Message::from("Hello").compressed()).await.unwrap();
    }
    let plain = (0x81, b"Hello".to_vec());
    assert_eq!(frames_from(role, &peer), [plain.clone(), plain]);
}

async fn the_sender_chooses_what_is_compressed(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut ws, peer) = deflating(role, settings);
        for (first, message) in [
            (0xc1, Message::from(text(1000)).into()),
            (0x81, Message::from(text(1000)).uncompressed()),
            (0xc2, text(1000).into_bytes().into()),
            (0x82, Message::from(text(1000).into_bytes()).uncompressed()),
            (0x81, Message::from("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").into()),
            (0xc1, Message::from("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").compressed()),
        ] {
            ws.send(message.clone()).await.unwrap();
            let frames = frames_from(role, &peer);
            assert_eq!(frames.len(), 1);
            assert_eq!(frames[0].0, first, "{message:?}");
            let len = message.message.len();
            match first & 0x40 {
                0 => assert_eq!(frames[0].1, message.message.as_bytes()),
                _ => assert!(frames[0].1.len() < len / 2, "{} of {len}", frames[0].1.len()),
            }
            ws.send_prepared(&PreparedMessage::new(message)).await.unwrap();
            assert_eq!(frames_from(role, &peer)[0].0, first);
        }
    }
}

async fn the_threshold_is_exact(role: Role) {
    let all = [Deflate::default(), Deflate::best_ratio(), Deflate::default().threshold(1000)];
    for (settings, threshold) in all.into_iter().zip([256, 32, 1000]) {
        let (mut ws, peer) = deflating(role, settings);
        for (len, first) in [(threshold - 1, 0x81), (threshold, 0xc1), (threshold + 1, 0xc1)] {
            ws.send("x".repeat(len)).await.unwrap();
            assert_eq!(frames_from(role, &peer)[0].0, first, "{len} bytes: {settings:?}");
        }
    }
    let (mut ws, peer) = deflating(role, Deflate::default().threshold(usize::MAX));
    ws.send("x".repeat(100_000)).await.unwrap();
    assert_eq!(frames_from(role, &peer)[0].0, 0x81);
}

/// §6.1: the first fragment says that the message is compressed, the others do not.
async fn chunks_are_one_compressed_message(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut ws, peer) = deflating(role, settings);
        for _ in 0..2 {
            let mut firsts = Vec::new();
            for (chunk, last) in [("Hel", false), ("", false), ("lo", false), ("", true)] {
                ws.send_chunk(chunk, last).await.unwrap();
                let frames = frames_from(role, &peer);
                assert_eq!(frames.len(), 1, "each leaves at once");
                firsts.push(frames[0].0);
            }
            assert_eq!(firsts, [0x41, 0x00, 0x00, 0x80]);
        }
    }
}

/// The receiver's context must fit whatever is sent in between.
async fn a_prepared_message_refers_to_nothing_before_it(role: Role) {
    for settings in
        [Deflate::default(), Deflate::best_ratio(), Deflate::best_ratio().window_bits(9)]
    {
        let (mut sender, mut receiver) = from(role, settings, &Config::default());
        let prepared = PreparedMessage::new(text(5000));
        for round in 0..10 {
            let sending = async {
                sender.send(text(3000)).await.unwrap();
                if round % 3 > 0 {
                    sender.send_prepared(&prepared).await.unwrap();
                }
                sender.send(text(2000)).await.unwrap();
                sender.send(Message::from(text(100)).uncompressed()).await.unwrap();
                sender.send_prepared(&prepared).await.unwrap();
                sender.send_chunk(text(1000), false).await.unwrap();
                sender.send_chunk(text(1000), true).await.unwrap();
            };
            let receiving = async {
                let mut expected = vec![text(3000), text(2000), text(100), text(5000)];
                if round % 3 > 0 {
                    expected.insert(1, text(5000));
                }
                expected.push(text(1000).repeat(2));
                for expected in expected {
                    assert_eq!(receiver.receive().await.unwrap(), Some(expected.into()));
                }
            };
            tokio::join!(sending, receiving);
        }
        // A server frames and compresses it once, a client each time.
        let compressions = if role == Role::Server { 1 } else { 0 };
        assert_eq!(prepared.compressions(), compressions);
    }
}

/// RFC 6455 §5.4: control frames may be injected in the middle of a fragmented message, compressed
/// or not; RFC 7692 §6.1 leaves them alone.
async fn pings_between_compressed_fragments_are_answered_at_once(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut ws, peer) = deflating(role, settings);
        for round in 0..3 {
            let fragments = [(0x41, "f2 48"), (0x00, ""), (0x00, "cd c9"), (0x80, "c9 07 00")];
            for (place, (first, payload)) in fragments.into_iter().enumerate() {
                if place > 0 {
                    peer.send_raw(&frame_to(role, 0x89, [round, place as u8]));
                    assert!(poll_once(ws.receive()).await.is_none(), "the message is not whole");
                    assert_eq!(frames_from(role, &peer), [(0x8a, vec![round, place as u8])]);
                }
                peer.send_raw(&frame_to(role, first, hex(payload)));
            }
            assert_eq!(receive_now(&mut ws).await, Message::from("Hello"));
        }
        // And ours go out between ours.
        ws.send_chunk("a", false).await.unwrap();
        let _pong = ws.ping().await.unwrap();
        ws.send_chunk("b", true).await.unwrap();
        let firsts: Vec<u8> = frames_from(role, &peer).iter().map(|frame| frame.0).collect();
        assert_eq!(firsts, [0x41, 0x89, 0x80]);
    }
}

/// Sends these frames and asserts that the connection fails with this code, after the messages.
async fn assert_fails(
    role: Role,
    settings: Option<Deflate>,
    config: &Config,
    frames: &[(u8, Vec<u8>)],
    (code, reason): (u16, &str),
) {
    let (ws, peer) = endpoint(role, config);
    let mut ws = ws.with_deflate(settings.map(agreed));
    for (first, payload) in frames {
        peer.send_raw(&frame_to(role, *first, payload));
    }
    let mut receive = Box::pin(ws.receive());
    assert!(poll_once(receive.as_mut()).await.is_none(), "it waits for the peer's Close");
    let close = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    let sent = frames_from(role, &peer);
    assert_eq!(sent.len(), 1, "{frames:02x?}");
    assert_eq!(sent[0].0, 0x88);
    assert_eq!(String::from_utf8_lossy(&sent[0].1), String::from_utf8_lossy(&close), "{frames:?}");
    peer.send_raw(&frame_to(role, 0x88, &close));
    peer.fin();
    let Err(Error::Closed { closed, .. }) = receive.await else { panic!("closed cleanly") };
    assert_eq!(closed.cause.expect("a violation").close_code(), CloseCode::new(code).unwrap());
}

async fn corrupt_data_closes_with_1007(role: Role) {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        for frames in [
            // A block type that does not exist, at once and later.
            vec![(0xc1, "ff ff ff")],
            vec![(0xc2, "07")],
            vec![(0x42, "f2 48 cd"), (0x00, "ff ff"), (0x80, "00")],
            // A distance beyond the beginning of everything.
            vec![(0xc1, "f2 00 11 00 00")],
            // A stored block whose length and its complement do not match.
            vec![(0xc1, "00 05 00 fa fe 48 65 6c 6c 6f 00")],
            // Cut off: in the middle of a block, and without the first byte of the tail.
            vec![(0xc1, "f2 48 cd")],
            vec![(0x41, "f2 48 cd"), (0x80, "c9")],
            vec![(0xc1, "00 05 00 fa ff 48 65")],
        ] {
            let frames: Vec<_> =
                frames.into_iter().map(|(first, payload)| (first, hex(payload))).collect();
            let end = (1007, "invalid compressed data");
            assert_fails(role, Some(settings), &Config::default(), &frames, end).await;
        }
    }
}

/// RFC 6455 §8.1, of what was decompressed: "Hello" with a byte 0xff in a stored block, whole and cut.
async fn text_that_is_none_closes_with_1007(role: Role) {
    let whole = vec![(0xc1, hex("00 02 00 fd ff 48 ff 00"))];
    let cut = vec![(0x41, hex("00 02 00 fd")), (0x80, hex("ff 48 ff 00"))];
    let unfinished = vec![(0xc1, hex("00 02 00 fd ff 48 c3 00"))];
    for frames in [whole, cut, unfinished] {
        for settings in [Deflate::default(), Deflate::best_ratio()] {
            let (ws, peer) = deflating(role, settings);
            let mut ws = ws;
            for (first, payload) in &frames {
                peer.send_raw(&frame_to(role, *first, payload));
            }
            assert!(poll_once(ws.receive()).await.is_none());
            let sent = frames_from(role, &peer);
            assert_eq!((sent[0].0, &sent[0].1[..2]), (0x88, &1007_u16.to_be_bytes()[..]));
            // The same bytes are a fine binary message.
            let (mut ws, peer) = deflating(role, settings);
            for (first, payload) in &frames {
                let first = if first & 0x0f == 1 { first + 1 } else { *first };
                peer.send_raw(&frame_to(role, first, payload));
            }
            assert_eq!(receive_now(&mut ws).await.len(), 2);
        }
    }
}

/// §8: the limit is for what comes out, to the byte.
async fn too_much_closes_with_1009(role: Role) {
    let config = Config::default().max_message_size(10);
    // Stored blocks, so that the sizes are plain to see.
    let stored = |len: u8| [&[0, len, 0, !len, 0xff][..], &vec![b'x'; len.into()], &[0]].concat();
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let end = (1009, "message with 11 bytes exceeds limit of 10 bytes");
        let blocks = [&stored(5)[..10], &stored(6)].concat();
        for frames in [
            vec![(0xc1, stored(11))],
            vec![(0xc2, blocks.clone())],
            vec![(0x41, blocks[..10].to_vec()), (0x80, blocks[10..].to_vec())],
        ] {
            assert_fails(role, Some(settings), &config, &frames, end).await;
        }
        let (ws, peer) = endpoint(role, &config);
        let mut ws = ws.with_deflate(Some(agreed(settings)));
        peer.send_raw(&frame_to(role, 0xc1, stored(10)));
        assert_eq!(receive_now(&mut ws).await, Message::from("x".repeat(10)));
    }
}

/// §6: "A frame with the 'Per-Message Compressed' bit set" must begin a message, and RFC 6455 §5.2:
/// an extension that defines the bit must have been negotiated.
async fn rsv1_where_it_may_not_be_closes_with_1002(role: Role) {
    let best = Some(Deflate::best_ratio());
    let hello = hex("f2 48 cd c9 c9 07 00");
    for (settings, frames) in [
        (None, vec![(0xc1, hello.clone())]),
        (best, vec![(0x41, hello[..3].to_vec()), (0xc0, hello[3..].to_vec())]),
        (best, vec![(0xc9, vec![])]),
        (best, vec![(0xca, vec![])]),
        (best, vec![(0xc8, vec![])]),
    ] {
        let end = (1002, "reserved bits 0b100 must be 0");
        assert_fails(role, settings, &Config::default(), &frames, end).await;
    }
    // RSV2 and RSV3 mean nothing in any case.
    for first in [0xa1, 0x91, 0xe1, 0xf1] {
        let (mut ws, peer) = deflating(role, Deflate::best_ratio());
        peer.send_raw(&frame_to(role, first, &hello));
        assert!(poll_once(ws.receive()).await.is_none());
        assert_eq!(frames_from(role, &peer)[0].1[..2], 1002_u16.to_be_bytes());
    }
}

/// What each end reports is what went over the wire, told from where it stands.
#[tokio::test]
async fn both_ends_report_the_agreement() {
    let keep = |window_bits| Context { takeover: true, window_bits };
    let forget = |window_bits| Context { takeover: false, window_bits };
    let (lean, best) = (Deflate::default(), Deflate::best_ratio());
    for (client, server, header, contexts) in [
        (None, None, None, None),
        (Some(best), None, None, None),
        (None, Some(best), None, None),
        (
            Some(lean),
            Some(best),
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            Some((forget(15), forget(15))),
        ),
        (Some(best), Some(best), Some("permessage-deflate"), Some((keep(15), keep(15)))),
        (
            Some(best.window_bits(12)),
            Some(best.window_bits(9).peer_context_takeover(false)),
            Some(
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=9; \
                 client_max_window_bits=12",
            ),
            Some((forget(12), keep(9))),
        ),
    ] {
        within(async {
            let (near, far) = duplex(4096);
            let accepting = tokio::spawn(async move {
                let mut accepter = Server::new();
                if let Some(settings) = server {
                    accepter = accepter.deflate(settings);
                }
                accepter.accept(far).await.expect("a client that is let in")
            });
            let mut connector = Client::new("ws://example.com/").unwrap();
            if let Some(settings) = client {
                connector = connector.deflate(settings);
            }
            let (mut ws, response) = connector.connect_over(near).await.unwrap();
            let mut served = accepting.await.unwrap();

            let answer = response.headers().get(header::SEC_WEBSOCKET_EXTENSIONS);
            assert_eq!(answer.map(|value| value.to_str().unwrap()), header);
            assert_eq!(ws.deflate().map(|agreed| (agreed.send, agreed.receive)), contexts);
            assert_eq!(served.deflate().map(|agreed| (agreed.receive, agreed.send)), contexts);

            for size in [10, 1000] {
                ws.send(text(size)).await.unwrap();
                assert_eq!(served.receive().await.unwrap(), Some(text(size).into()));
                served.send(text(size)).await.unwrap();
                assert_eq!(ws.receive().await.unwrap(), Some(text(size).into()));
            }
            assert_eq!(ws.into_parts().deflate.is_some(), contexts.is_some());
        })
        .await;
    }
}

/// RFC 7692 §7.1.2: 8 bits are legal, and zlib has no such window; then we send as it is.
#[tokio::test(start_paused = true)]
async fn a_window_of_8_bits_is_sent_nothing_compressed() {
    let best = Deflate::best_ratio();
    let context = Context { takeover: true, window_bits: 8 };
    let (ws, peer) = endpoint(Role::Client, &Config::default());
    let mut ws = ws.with_deflate(Some(best.agree(context, best.receiving())));
    ws.send(text(1000)).await.unwrap();
    ws.send(Message::from(text(1000)).compressed()).await.unwrap();
    ws.send_prepared(&PreparedMessage::new(text(1000))).await.unwrap();
    ws.send_chunk(text(1000), true).await.unwrap();
    let plain = (0x81, text(1000).into_bytes());
    assert_eq!(frames_from(Role::Client, &peer), vec![plain; 4]);
    peer.send_raw(&frame_to(Role::Client, 0xc1, hex("f2 48 cd c9 c9 07 00")));
    assert_eq!(receive_now(&mut ws).await, Message::from("Hello"));
}

/// B32: the first compressed message may come in one segment with the answer.
#[tokio::test]
async fn a_compressed_message_right_behind_the_answer_is_received() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    within(async {
        let (near, mut far) = duplex(4096);
        let serving = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(far.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let key = request
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
                .expect("a key");
            let accept = ws_conn::handshake::accept_token(key.as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
            );
            let hello = support::frame(0xc1, hex("f2 48 cd c9 c9 07 00"));
            far.write_all(&[head.as_bytes(), &hello].concat()).await.unwrap();
            far
        });
        let client = Client::new("ws://h/").unwrap().deflate(Deflate::best_ratio());
        let (mut ws, _) = client.connect_over(near).await.unwrap();
        assert_eq!(ws.receive().await.unwrap(), Some("Hello".into()));
        drop(serving.await.unwrap());
    })
    .await;
}

/// Receiving in chunks and then whole, in the middle of a compressed message of which nobody has
/// seen any, as a `select!` does it.
#[tokio::test(start_paused = true)]
async fn a_change_of_mind_in_the_middle_of_a_message_loses_nothing() {
    for settings in [Deflate::default(), Deflate::best_ratio()] {
        let (mut ws, peer) = deflating(Role::Server, settings);
        // Two bytes decompress to nothing yet.
        peer.send_raw(&frame_to(Role::Server, 0x41, hex("f2")));
        assert!(poll_once(ws.receive_chunk()).await.is_none());
        peer.send_raw(&frame_to(Role::Server, 0x80, hex("48 cd c9 c9 07 00")));
        assert_eq!(receive_now(&mut ws).await, Message::from("Hello"));
        // And the other way round: it began as a whole one and stays one.
        peer.send_raw(&frame_to(Role::Server, 0x41, hex("f2 48 cd")));
        assert!(poll_once(ws.receive()).await.is_none());
        peer.send_raw(&frame_to(Role::Server, 0x80, hex("c9 c9 07 00")));
        let chunk = poll_once(ws.receive_chunk()).await.expect("it came").unwrap();
        assert_eq!(chunk, Some(Chunk { data: "Hello".into(), last: true }));
        settle().await;
    }
}

/// A keepalive's clock and a slow compressed message get along: fragments are signs of life.
#[tokio::test(start_paused = true)]
async fn fragments_of_a_compressed_message_are_signs_of_life() {
    let (mut ws, peer) = deflating(Role::Server, Deflate::default());
    let receiving = tokio::spawn(async move { ws.receive().await });
    peer.send_raw(&frame_to(Role::Server, 0x41, hex("f2 48")));
    for byte in hex("cd c9 c9 07") {
        tokio::time::sleep(Duration::from_secs(15)).await; // tidy: allow-sleep(the clock is stopped)
        peer.send_raw(&frame_to(Role::Server, 0x00, [byte]));
        settle().await;
    }
    peer.send_raw(&frame_to(Role::Server, 0x80, [0x00]));
    assert_eq!(receiving.await.unwrap().unwrap(), Some("Hello".into()));
}

/// An endpoint that somebody else's handshake made, with bytes that came early.
#[tokio::test(start_paused = true)]
async fn early_bytes_may_be_compressed() {
    let (transport, _peer) = support::transport(Role::Server);
    let early = BytesMut::from(&frame_to(Role::Server, 0xc1, hex("f2 48 cd c9 c9 07 00"))[..]);
    let ws = WebSocket::server_on(transport, early, &Config::default());
    let mut ws = ws.with_deflate(Some(agreed(Deflate::default())));
    assert_eq!(receive_now(&mut ws).await, Message::from("Hello"));
}
