//! Any bytes from the peer, in any pieces, to either role: no panic, and the pieces make no difference
//! (RFC 6455 §5).

#![no_main]

use std::time::Instant;

use arbitrary::Arbitrary;
use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use ws_proto::{
    ChaChaKeys, Closed, Config, Connection, Event, FrameHeader, Message, Role, State, Transmit,
};

#[derive(Arbitrary, Debug)]
struct Input {
    client: bool,
    limited: bool,
    sizes: Vec<u8>,
    wire: Vec<u8>,
}

/// All that can be seen from outside.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    written: Vec<u8>,
    state: State,
    closed: Closed,
}

fuzz_target!(|input: Input| {
    let whole = receive(&input, false, &[]);
    let cut = receive(&input, false, &input.sizes);
    assert_eq!(whole, cut);
    // What is written in answer obeys the rules, and a Close is its end (§5.5.1).
    let receiver = if input.client { Role::Server } else { Role::Client };
    let mut written = &whole.written[..];
    let mut closed = false;
    while !written.is_empty() {
        assert!(!closed, "a frame behind our Close");
        let (header, size) = FrameHeader::decode(written, receiver, false).unwrap().unwrap();
        closed = written[0] == 0x88;
        written = &written[size + header.length as usize..];
    }
    assert_eq!(closed, whole.state == State::Draining);

    // In chunks: the same, up to the message that broke off.
    let streamed = receive(&input, true, &input.sizes);
    assert_eq!(joined(streamed.events), whole.events);
    assert_eq!(streamed.closed, whole.closed);
});

/// Feeds a new endpoint in pieces of these sizes, over and over; none: whole.
fn receive(input: &Input, streaming: bool, sizes: &[u8]) -> Outcome {
    let now = Instant::now();
    // The message limit does not bind streams, so it stays out of reach.
    let config = Config::default().max_message_size(u64::MAX);
    let config = if input.limited { config.max_frame_size(64).max_fragments(4) } else { config };
    let mut connection = if input.client {
        Connection::client(&config, ChaChaKeys::from_seed([0; 32]), now)
    } else {
        Connection::server(&config, now)
    };
    connection.set_streaming(streaming);
    let (mut events, mut written, mut buffer) = (Vec::new(), Vec::new(), BytesMut::new());
    let mut rest = &input.wire[..];
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| 1 + usize::from(*size));
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        rest = tail;
        buffer.extend_from_slice(piece);
        loop {
            let event = connection.poll_event(&mut buffer);
            while let Some(Transmit::Data(queue)) = connection.poll_transmit() {
                let len = queue.len();
                written.extend_from_slice(&queue.copy_to_bytes(len));
            }
            let Some(event) = event else { break };
            events.push(event);
        }
    }
    Outcome { events, written, state: connection.state(), closed: connection.closed() }
}

/// The messages that the chunks make; one that has no end is left out.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut begun = Vec::new();
    let whole = |event| {
        let Event::Chunk(chunk) = event else { return Some(event) };
        begun.extend_from_slice(chunk.data.as_bytes());
        if !chunk.last {
            return None;
        }
        let data = std::mem::take(&mut begun);
        Some(Event::Message(match chunk.data {
            Message::Text(_) => String::from_utf8(data).expect("chunks of text are text").into(),
            Message::Binary(_) => data.into(),
        }))
    };
    events.into_iter().filter_map(whole).collect()
}
