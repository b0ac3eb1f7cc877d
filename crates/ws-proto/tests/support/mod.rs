//! What the tests share: hex, an [`Endpoint`] to feed, a [`Pair`] of them, and virtual time.
//!
//! Frames are written unmasked, as a server sends them (RFC 6455 §5.1). For a server under test they
//! are masked on their way in, and what a client sends is unmasked on its way out: one table, two roles.
#![allow(dead_code, unused_macros, reason = "each test file uses a part of this")]

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use ws_proto::{
    ChaChaKeys, Closed, Config, Connection, Event, Message, Role, State, Transmit, apply_mask,
};

/// The masking key of the examples in §5.7.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A fact about both roles: one check, two tests with names of their own.
macro_rules! both {
    ($check:ident: $server:ident, $client:ident) => {
        #[test]
        fn $server() {
            $check(Role::Server);
        }
        #[test]
        fn $client() {
            $check(Role::Client);
        }
    };
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "half a byte in {text:?}");
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An unmasked frame with the shortest length.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(len as u8),
        len @ 126..=0xFFFF => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// An unmasked Close frame.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// The end of the header without the masking key, and the declared end of the frame.
fn ends(frame: &[u8], mask: usize) -> (usize, usize) {
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (header, length) = match frame[1] & 0x7F {
        126 => (4, number(&frame[2..4])),
        127 => (10, number(&frame[2..10])),
        short => (2, u64::from(short)),
    };
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(header + mask);
    (header, end.min(frame.len()))
}

/// Unmasked frames, of which the last may be cut short behind its header, as the peer of `receiver`
/// sends them.
pub(crate) fn from_peer(receiver: Role, mut frames: &[u8]) -> Vec<u8> {
    if receiver == Role::Client {
        return frames.to_vec();
    }
    let mut wire = Vec::with_capacity(frames.len() * 2);
    while !frames.is_empty() {
        let (header, end) = ends(frames, 0);
        wire.extend([frames[0], frames[1] | 0x80]);
        wire.extend(&frames[2..header]);
        wire.extend(KEY);
        let payload = wire.len();
        wire.extend(&frames[header..end]);
        apply_mask(&mut wire[payload..], KEY, 0);
        frames = &frames[end..];
    }
    wire
}

/// The frames that `sender` wrote, each unmasked.
pub(crate) fn split(sender: Role, mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !wire.is_empty() {
        let masked = wire[1] & 0x80 != 0;
        // §5.1: every frame of a client is masked, none of a server's.
        assert_eq!(masked, sender == Role::Client, "{sender:?} wrote {:02x?}", &wire[..2]);
        let mask = if masked { 4 } else { 0 };
        let (header, end) = ends(wire, mask);
        let mut frame = wire[..header].to_vec();
        frame[1] &= 0x7F;
        frame.extend(&wire[header + mask..end]);
        if masked {
            let key = [wire[header], wire[header + 1], wire[header + 2], wire[header + 3]];
            apply_mask(&mut frame[header..], key, 0);
        }
        frames.push(frame);
        wire = &wire[end..];
    }
    frames
}

/// An event in a few words.
pub(crate) fn words(event: &Event) -> String {
    let data = |message: &Message| match message {
        Message::Text(text) => format!("text {text:?}"),
        Message::Binary(data) => format!("binary {}", to_hex(data)),
    };
    match event {
        Event::Message(message) => data(message),
        Event::Chunk(chunk) if chunk.last => format!("last {}", data(&chunk.data)),
        Event::Chunk(chunk) => format!("chunk {}", data(&chunk.data)),
        Event::Ping(payload) => format!("ping {}", to_hex(payload)),
        Event::Pong(payload) => format!("pong {}", to_hex(payload)),
        Event::Closing(frame) => format!("closing {frame}"),
        Event::Closed(closed) => format!("closed: {closed}"),
        other => panic!("unknown event {other:?}"),
    }
}

/// A connection with a transport of two buffers, and all that it said.
pub(crate) struct Endpoint {
    pub(crate) connection: Connection,
    pub(crate) role: Role,
    pub(crate) start: Instant,
    pub(crate) input: BytesMut,
    pub(crate) events: Vec<Event>,
    /// What it wrote, and whether it asked for the transport's write side to be shut down.
    pub(crate) wire: Vec<u8>,
    pub(crate) shutdowns: usize,
}

impl Endpoint {
    pub(crate) fn new(role: Role) -> Self {
        Self::with(role, &Config::default())
    }

    pub(crate) fn with(role: Role, config: &Config) -> Self {
        let start = Instant::now();
        let connection = match role {
            Role::Server => Connection::server(config, start),
            Role::Client => Connection::client(config, ChaChaKeys::from_seed([7; 32]), start),
        };
        let (input, events, wire) = (BytesMut::new(), Vec::new(), Vec::new());
        Self { connection, role, start, input, events, wire, shutdowns: 0 }
    }

    /// Appends to the input and takes one event, if there is one. Pongs and Closes go out at once.
    fn step(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        let event = self.connection.poll_event(&mut self.input);
        self.write(usize::MAX);
        let more = event.is_some();
        self.events.extend(event);
        more
    }

    /// Takes bytes from the wire and every event that comes of them.
    pub(crate) fn feed(&mut self, wire: &[u8]) {
        let mut more = self.step(wire);
        while more {
            more = self.step(&[]);
        }
    }

    /// Takes unmasked frames in hex; answers with the events in words.
    pub(crate) fn receive(&mut self, frames: &str) -> Vec<String> {
        self.feed(&from_peer(self.role, &hex(frames)));
        self.heard()
    }

    pub(crate) fn eof(&mut self) -> Vec<String> {
        self.connection.handle_eof();
        self.feed(&[]);
        self.heard()
    }

    /// The events since the last look, in words.
    pub(crate) fn heard(&mut self) -> Vec<String> {
        self.events.drain(..).map(|event| words(&event)).collect()
    }

    /// Writes at most so many bytes of what is owed; tells how many it wrote.
    pub(crate) fn write(&mut self, most: usize) -> usize {
        let before = self.wire.len();
        while let Some(transmit) = self.connection.poll_transmit() {
            let Transmit::Data(queue) = transmit else {
                self.shutdowns += 1;
                continue;
            };
            let len = queue.chunk().len().min(most - (self.wire.len() - before));
            self.wire.extend_from_slice(&queue.chunk()[..len]);
            queue.advance(len);
            if len == 0 {
                break;
            }
        }
        self.wire.len() - before
    }

    /// What was written since the last look: unmasked frames in hex, separated by spaces, and the
    /// word "shutdown".
    pub(crate) fn sent(&mut self) -> String {
        self.write(usize::MAX);
        let mut sent: Vec<_> =
            split(self.role, &std::mem::take(&mut self.wire)).iter().map(|f| to_hex(f)).collect();
        sent.extend((0..std::mem::take(&mut self.shutdowns)).map(|_| "shutdown".to_owned()));
        sent.join(" ")
    }

    pub(crate) fn timeout(&mut self, seconds: u64) {
        self.connection.handle_timeout(self.start + Duration::from_secs(seconds));
    }

    pub(crate) fn state(&self) -> State {
        self.connection.state()
    }
}

/// All that can be seen of what a wire input did.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    pub(crate) sent: String,
    pub(crate) state: State,
    pub(crate) closed: Closed,
}

impl Outcome {
    pub(crate) fn words(&self) -> Vec<String> {
        self.events.iter().map(words).collect()
    }
}

/// Feeds a new endpoint in pieces of these sizes, the rest at once.
pub(crate) fn in_pieces(
    role: Role,
    config: &Config,
    mut wire: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Outcome {
    let mut endpoint = Endpoint::with(role, config);
    for size in sizes {
        let (piece, rest) = wire.split_at(size.min(wire.len()));
        endpoint.feed(piece);
        wire = rest;
    }
    endpoint.feed(wire);
    let (sent, state, closed) = (endpoint.sent(), endpoint.state(), endpoint.connection.closed());
    Outcome { events: endpoint.events, sent, state, closed }
}

/// Feeds the wire whole, one byte at a time and in random pieces, which must not make a difference.
pub(crate) fn receive_wire(role: Role, config: &Config, wire: &[u8]) -> Outcome {
    let whole = in_pieces(role, config, wire, []);
    assert_eq!(whole, in_pieces(role, config, wire, vec![1; wire.len()]), "byte by byte");
    for seed in 1..=3u64 {
        let mut random = seed;
        let sizes = (0..wire.len()).map(|_| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            1 + (random >> 33) as usize % (seed as usize * 16)
        });
        assert_eq!(whole, in_pieces(role, config, wire, sizes), "pieces of seed {seed}");
    }
    whole
}

/// The same for unmasked frames.
pub(crate) fn receive(role: Role, frames: &[u8]) -> Outcome {
    receive_wire(role, &Config::default(), &from_peer(role, frames))
}

/// What a violation looks like from outside: the events before it, one Close frame, and the end.
pub(crate) fn assert_fails(
    outcome: &Outcome,
    role: Role,
    events: &[&str],
    code: u16,
    reason: &str,
) {
    // §7.1.1: the server ends the TCP connection.
    let shutdown = if role == Role::Server { " shutdown" } else { "" };
    assert_eq!(outcome.words(), events, "{role:?}: {reason}");
    assert_eq!(outcome.sent, to_hex(&close(code, reason)) + shutdown, "{role:?}: {reason}");
    assert_eq!(outcome.state, State::Draining);
    let cause = outcome.closed.cause.as_ref().expect("a cause");
    assert_eq!((cause.close_code().value(), cause.to_string().as_str()), (code, reason));
    assert_eq!((outcome.closed.code(), outcome.closed.is_clean()), (1006, false));
}

/// A client and a server with nothing between them but the order of the bytes.
pub(crate) struct Pair {
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(&Config::default())
    }

    pub(crate) fn with(config: &Config) -> Self {
        let (client, mut server) =
            (Endpoint::with(Role::Client, config), Endpoint::with(Role::Server, config));
        server.start = client.start;
        server.connection = Connection::server(config, client.start);
        Self { client, server }
    }

    /// Who sends, and who gets it.
    pub(crate) fn from(&mut self, sender: Role) -> (&mut Endpoint, &mut Endpoint) {
        match sender {
            Role::Client => (&mut self.client, &mut self.server),
            Role::Server => (&mut self.server, &mut self.client),
        }
    }

    /// Moves at most so many bytes one way, and the end of the stream behind them; tells whether
    /// anything moved.
    pub(crate) fn carry(&mut self, sender: Role, most: usize) -> bool {
        let (from, to) = self.from(sender);
        from.write(most);
        let len = from.wire.len().min(most);
        let wire: Vec<_> = from.wire.drain(..len).collect();
        to.feed(&wire);
        // A client that has read to the end closes its socket.
        let ended = from.shutdowns > 0 || (sender == Role::Client && from.state() == State::Closed);
        let ends = ended && from.wire.is_empty() && to.state() != State::Closed;
        if ends {
            to.connection.handle_eof();
            to.feed(&[]);
        }
        len > 0 || ends
    }

    /// Moves everything until both are quiet.
    pub(crate) fn run(&mut self) {
        while self.carry(Role::Client, usize::MAX) | self.carry(Role::Server, usize::MAX) {}
    }

    /// Tells both the time, and lets them talk.
    pub(crate) fn at(&mut self, seconds: u64) {
        self.client.timeout(seconds);
        self.server.timeout(seconds);
        self.run();
    }
}
