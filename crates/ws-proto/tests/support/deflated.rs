//! What the tests of permessage-deflate (RFC 7692) share: agreements and endpoints under them,
//! payloads that our compressor had no part in, and a decompressor that heeds its window.
#![allow(dead_code, reason = "each test file uses a part of this")]

use ws_proto::{AgreedDeflate, Chunk, Config, Connection, Context, Deflate, Event, Message, Role};
use zlib_rs::{Deflate as Stream, DeflateFlush};

use crate::support::{Endpoint, Outcome, Pair, from_peer, split};

/// §7.2.1: what the sender takes off the end of each message, and the receiver puts back.
pub(crate) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The default settings under an agreement that is the same in both directions.
pub(crate) fn agreed(takeover: bool) -> AgreedDeflate {
    agree(&Deflate::default(), takeover, 15)
}

pub(crate) fn agree(settings: &Deflate, takeover: bool, window_bits: u8) -> AgreedDeflate {
    let context = Context { takeover, window_bits };
    settings.agree(context, context)
}

/// Puts the connection under the agreement, which must be done before it is used.
pub(crate) fn put_under(connection: &mut Connection, agreed: &AgreedDeflate) {
    let unused = Connection::server(&Config::default(), std::time::Instant::now());
    let plain = std::mem::replace(connection, unused);
    *connection = plain.with_deflate(Some(agreed));
}

pub(crate) fn endpoint(role: Role, config: &Config, agreed: &AgreedDeflate) -> Endpoint {
    let mut endpoint = Endpoint::with(role, config);
    put_under(&mut endpoint.connection, agreed);
    endpoint
}

/// A client and a server under an agreement, told from where `sender` stands.
pub(crate) fn pair(config: &Config, sender: Role, agreed: &AgreedDeflate) -> Pair {
    let mut pair = Pair::with(config);
    let mut mirrored = *agreed;
    std::mem::swap(&mut mirrored.send, &mut mirrored.receive);
    let (from, to) = pair.from(sender);
    put_under(&mut from.connection, agreed);
    put_under(&mut to.connection, &mirrored);
    pair
}

/// Feeds a new endpoint in pieces of these sizes, the rest at once.
pub(crate) fn in_pieces(
    mut endpoint: Endpoint,
    mut wire: &[u8],
    sizes: impl IntoIterator<Item = usize>,
) -> Outcome {
    for size in sizes {
        let (piece, rest) = wire.split_at(size.min(wire.len()));
        endpoint.feed(piece);
        wire = rest;
    }
    endpoint.feed(wire);
    let (sent, state, closed) = (endpoint.sent(), endpoint.state(), endpoint.connection.closed());
    Outcome { events: endpoint.events, sent, state, closed }
}

/// Feeds unmasked frames whole, one byte at a time and in uneven pieces, which must not make a
/// difference.
pub(crate) fn receive_within(
    role: Role,
    config: &Config,
    agreed: &AgreedDeflate,
    frames: &[u8],
) -> Outcome {
    let wire = from_peer(role, frames);
    let new = || endpoint(role, config, agreed);
    let whole = in_pieces(new(), &wire, []);
    assert_eq!(whole, in_pieces(new(), &wire, vec![1; wire.len()]), "byte by byte");
    let uneven = [1, 13, 2, 5, 29].into_iter().cycle().take(wire.len());
    assert_eq!(whole, in_pieces(new(), &wire, uneven), "in uneven pieces");
    whole
}

pub(crate) fn receive(role: Role, agreed: &AgreedDeflate, frames: &[u8]) -> Outcome {
    receive_within(role, &Config::default(), agreed, frames)
}

/// The first byte and the payload of each frame that was sent since the last look.
pub(crate) fn sent(endpoint: &mut Endpoint) -> Vec<(u8, Vec<u8>)> {
    endpoint.write(usize::MAX);
    let frames = split(endpoint.role, &std::mem::take(&mut endpoint.wire));
    let payload = |frame: &[u8]| match frame[1] {
        126 => frame[4..].to_vec(),
        127 => frame[10..].to_vec(),
        _ => frame[2..].to_vec(),
    };
    frames.iter().map(|frame| (frame[0], payload(frame))).collect()
}

/// With the default limits, for those who send.
pub(crate) fn sending(role: Role, agreed: &AgreedDeflate) -> Endpoint {
    endpoint(role, &Config::default(), agreed)
}

/// What arrives of what `send` sends.
pub(crate) fn carried(
    sender: Role,
    agreed: &AgreedDeflate,
    send: impl FnOnce(&mut Endpoint),
) -> Vec<Event> {
    let mut pair = pair(&Config::default(), sender, agreed);
    send(pair.from(sender).0);
    pair.run();
    std::mem::take(&mut pair.from(sender).1.events)
}

/// Checks that the events are these messages; tells which is not, as some are large.
#[track_caller]
pub(crate) fn assert_same(events: &[Event], messages: &[Message]) {
    assert_eq!(events.len(), messages.len());
    for (i, (event, message)) in events.iter().zip(messages).enumerate() {
        assert!(matches!(event, Event::Message(arrived) if arrived == message), "message {i}");
    }
}

/// The messages that chunks make; one that has no end is left out.
pub(crate) fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut begun = Vec::new();
    let whole = |event| {
        let Event::Chunk(Chunk { data, last }) = event else { return Some(event) };
        begun.extend_from_slice(data.as_bytes());
        if !last {
            return None;
        }
        let bytes = std::mem::take(&mut begun);
        Some(Event::Message(match data {
            Message::Text(_) => String::from_utf8(bytes).expect("chunks of text are text").into(),
            Message::Binary(_) => bytes.into(),
        }))
    };
    events.into_iter().filter_map(whole).collect()
}

/// A block without compression (RFC 1951 §3.2.4), of at most 65 535 bytes.
pub(crate) fn stored(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    let len = u16::try_from(data.len()).expect("it fits one block");
    [&[0x00][..], &len.to_le_bytes(), &(!len).to_le_bytes(), data].concat()
}

/// Blocks without compression that end as a payload must: in the first byte of an empty one.
pub(crate) fn stored_payload(data: &[u8]) -> Vec<u8> {
    let mut payload = data.chunks(0xffff).map(stored).collect::<Vec<_>>().concat();
    payload.push(0x00);
    payload
}

/// A payload as zlib makes it for a message by itself.
pub(crate) fn compress(data: &[u8]) -> Vec<u8> {
    let mut stream = Stream::new(6, false, 15);
    let mut payload = vec![0; data.len() + data.len() / 8 + 64];
    stream.compress(data, &mut payload, DeflateFlush::SyncFlush).expect("it takes anything");
    assert_eq!(stream.total_in(), data.len() as u64);
    payload.truncate(stream.total_out() as usize);
    payload.strip_suffix(&TAIL).expect("a flush ends in its tail").to_vec()
}

/// What a decompressor with this window makes of the payloads of successive messages, each with its
/// tail; `None` if one is broken, or looks back farther than the window. By RFC 1951 and not by zlib,
/// which takes what it has written for a window, too.
pub(crate) fn decompress(
    window_bits: u8,
    payloads: impl IntoIterator<Item = Vec<u8>>,
) -> Option<Vec<Vec<u8>>> {
    let mut history = Vec::new();
    let message = |mut payload: Vec<u8>| {
        payload.extend(TAIL);
        let before = history.len();
        let mut bits = Bits { bytes: &payload, at: 0 };
        while bits.at < payload.len() * 8 {
            bits.block(&mut history, 1 << window_bits)?;
        }
        Some(history[before..].to_vec())
    };
    payloads.into_iter().map(message).collect()
}

/// RFC 1951 §3.1.1: bits from the least significant one of each byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let bit = |at| Some(usize::from(self.bytes.get(at / 8)? >> (at % 8) & 1));
        let value = (0..count).try_fold(0, |sum, i| Some(sum | bit(self.at + i)? << i));
        self.at += count;
        value
    }

    /// RFC 1951 §3.2.3.
    fn block(&mut self, out: &mut Vec<u8>, window: usize) -> Option<()> {
        let [last, kind] = [self.take(1)?, self.take(2)?];
        let (literals, distances) = match kind {
            0 => {
                self.at = self.at.next_multiple_of(8);
                let [len, complement] = [self.take(16)?, self.take(16)?];
                for _ in 0..len {
                    out.push(self.take(8)? as u8);
                }
                return (len ^ complement == 0xffff).then_some(());
            }
            1 => {
                let lengths = [(8, 144), (9, 112), (7, 24), (8, 8)];
                let lengths = lengths.map(|(length, count)| vec![length; count]).concat();
                (Code::new(&lengths), Code::new(&[5; 30]))
            }
            2 => self.codes()?,
            _ => return None,
        };
        loop {
            match literals.read(self)? {
                literal @ 0..=255 => out.push(literal as u8),
                256 => break,
                symbol => {
                    let (base, extra) = LENGTHS[symbol - 257];
                    let length = base + self.take(extra)?;
                    let symbol = distances.read(self)?;
                    let extra = (symbol / 2).saturating_sub(1);
                    let base = if symbol < 4 { symbol } else { (2 + symbol % 2) << extra };
                    let distance = 1 + base + self.take(extra)?;
                    let from = out.len().checked_sub(distance).filter(|_| distance <= window)?;
                    (from..from + length).for_each(|at| out.push(out[at]));
                }
            }
        }
        if last == 1 {
            self.at = self.at.next_multiple_of(8);
        }
        Some(())
    }

    /// RFC 1951 §3.2.7.
    fn codes(&mut self) -> Option<(Code, Code)> {
        let [literals, distances, count] =
            [self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4];
        let mut lengths = [0; 19];
        for place in &ORDER[..count] {
            lengths[*place] = self.take(3)?;
        }
        let code = Code::new(&lengths);
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (length, count) = match code.read(self)? {
                16 => (*lengths.last()?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(length, count));
        }
        Some((Code::new(&lengths[..literals]), Code::new(&lengths[literals..])))
    }
}

/// The symbols of each length, in order (RFC 1951 §3.2.2).
struct Code(Vec<Vec<usize>>);

impl Code {
    fn new(lengths: &[usize]) -> Self {
        let of = |length| (0..lengths.len()).filter(|i| lengths[*i] == length).collect();
        Self((1..=15).map(of).collect())
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first) = (0, 0);
        for symbols in &self.0 {
            code = code << 1 | bits.take(1)?;
            first <<= 1;
            if let Some(symbol) = symbols.get(code - first) {
                return Some(*symbol);
            }
            first += symbols.len();
        }
        None
    }
}

/// RFC 1951 §3.2.7: the order in which the lengths of the code of codes come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// RFC 1951 §3.2.5: the least length for each symbol from 257 on, and its extra bits.
const LENGTHS: [(usize, usize); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// Bytes in which nothing repeats that a compressor could use, each of `values`.
pub(crate) fn noise(len: usize, seed: u64, values: std::ops::RangeInclusive<u8>) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let count = u64::from(values.end() - values.start()) + 1;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        values.start() + ((state >> 33) % count) as u8
    };
    (0..len).map(next).collect()
}

/// Random bytes, each stretch twice, so that there are matches from near to farther than the largest
/// window.
pub(crate) fn echoes() -> Vec<u8> {
    let stretches = [100, 400, 900, 1800, 3600, 7000, 14_000, 28_000, 40_000];
    let twice = |len: usize| noise(len, len as u64, 0..=255).repeat(2);
    stretches.into_iter().flat_map(twice).collect()
}
