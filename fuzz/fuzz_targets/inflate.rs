//! Any payload that claims to be compressed (RFC 7692 §6.2), to either role and in any fragments: no
//! panic, nothing beyond the limit, and the pieces in which it comes make no difference.

#![no_main]

use std::time::Instant;

use arbitrary::Arbitrary;
use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use ws_proto::{
    ChaChaKeys, Closed, Config, Connection, Context, Deflate, Event, FrameHeader, Opcode, Role,
    State, Transmit, apply_mask,
};

#[derive(Arbitrary, Debug)]
struct Input {
    client: bool,
    takeover: bool,
    limit: u16,
    sizes: Vec<u8>,
    messages: Vec<Sent>,
}

#[derive(Arbitrary, Debug)]
struct Sent {
    text: bool,
    compressed: bool,
    fragments: Vec<Vec<u8>>,
}

/// All that can be seen from outside. Which of two violations in the same message is told may depend
/// on how much came at once, so of a cause it is only that there is one.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    state: State,
    failed: bool,
}

fuzz_target!(|input: Input| {
    let wire = wire(&input);
    let whole = receive(&input, &wire, &[], false);
    for event in &whole.events {
        let Event::Message(message) = event else { panic!("{event:?}") };
        assert!(message.len() <= usize::from(input.limit), "{} bytes", message.len());
    }
    assert_eq!(receive(&input, &wire, &[0], false), whole);
    assert_eq!(receive(&input, &wire, &input.sizes, false), whole);

    // In chunks nothing limits the message, so there may be more of it, and the same before.
    let mut chunks = receive(&input, &wire, &input.sizes, true).events.into_iter();
    for event in whole.events {
        let Event::Message(message) = event else { continue };
        let mut joined = Vec::new();
        loop {
            let Some(Event::Chunk(chunk)) = chunks.next() else { panic!("a message ends early") };
            assert!(chunk.data.len() <= MAX_CHUNK, "{} bytes", chunk.data.len());
            assert_eq!(chunk.data.is_text(), message.is_text());
            joined.extend_from_slice(chunk.data.as_bytes());
            if chunk.last {
                break;
            }
        }
        assert_eq!(joined, message.as_bytes());
    }
});

/// The frames, as the role's peer sends them.
fn wire(input: &Input) -> Vec<u8> {
    let mut wire = Vec::new();
    for Sent { text, compressed, fragments } in &input.messages {
        for (i, fragment) in fragments.iter().enumerate() {
            let opcode = match i {
                0 if *text => Opcode::Text,
                0 => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            let header = FrameHeader {
                fin: i + 1 == fragments.len(),
                rsv1: *compressed && i == 0,
                opcode,
                mask: (!input.client).then_some(KEY),
                length: fragment.len() as u64,
            };
            wire.extend_from_slice(&header.encode());
            let payload = wire.len();
            wire.extend_from_slice(fragment);
            if !input.client {
                apply_mask(&mut wire[payload..], KEY, 0);
            }
        }
    }
    wire
}

/// What a connection makes of the wire in pieces of one byte more than these sizes.
fn receive(input: &Input, mut wire: &[u8], sizes: &[u8], streaming: bool) -> Outcome {
    let context = Context { takeover: input.takeover, window_bits: 15 };
    let agreed = Deflate::default().agree(context, context);
    let config = Config::default().max_message_size(input.limit.into());
    let now = Instant::now();
    let (connection, role) = if input.client {
        (Connection::client(&config, ChaChaKeys::from_seed([0; 32]), now), Role::Client)
    } else {
        (Connection::server(&config, now), Role::Server)
    };
    let mut connection = connection.with_deflate(Some(&agreed));
    connection.set_streaming(streaming);
    let (mut events, mut buffer) = (Vec::new(), BytesMut::new());
    let mut sizes = sizes.iter().cycle();
    while !wire.is_empty() {
        let size = sizes.next().map_or(wire.len(), |size| 1 + usize::from(*size));
        let (piece, rest) = wire.split_at(size.min(wire.len()));
        wire = rest;
        buffer.extend_from_slice(piece);
        while let Some(event) = connection.poll_event(&mut buffer) {
            events.push(event);
        }
        while let Some(Transmit::Data(queue)) = connection.poll_transmit() {
            queue.advance(queue.len());
        }
    }
    let Closed { cause, .. } = connection.closed();
    if let Some(cause) = &cause {
        assert!(matches!(cause.close_code().value(), 1002 | 1007 | 1009), "{role:?}: {cause}");
    }
    Outcome { events, state: connection.state(), failed: cause.is_some() }
}

const KEY: [u8; 4] = [1, 2, 3, 4];

/// The 16 KiB that make a chunk, and what 1 KiB of DEFLATE can become at most.
const MAX_CHUNK: usize = (16 << 10) + (1100 << 10);
