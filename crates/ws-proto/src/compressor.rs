//! [`Compressor`]: messages → compressed payloads (RFC 7692 §7.2.1).
//!
//! Without a context, all connections of a thread share a few compressors, so that none costs memory
//! while it is idle. Not its business: frames.

use std::{borrow::Cow, cell::RefCell, fmt};

use zlib_rs::{Deflate as Stream, DeflateConfig, DeflateFlush};

use crate::{
    AgreedDeflate, Compression,
    deflate::{Encoding, MAX_WINDOW_BITS, TAIL},
};

/// The compressing half of one connection.
pub(crate) struct Compressor {
    agreed: AgreedDeflate,
    /// The compressor, while it remembers anything: across messages if contexts are kept, otherwise
    /// across the chunks of one.
    stream: Option<Box<Stream>>,
    /// Something was sent that `stream` has not seen, so what it remembers is not what the peer's
    /// decompressor looks back on.
    foreign: bool,
}

impl Compressor {
    pub(crate) fn new(agreed: &AgreedDeflate) -> Self {
        Self { agreed: *agreed, stream: None, foreign: false }
    }

    /// Whether a message of this length should be compressed.
    pub(crate) fn wants(&self, len: usize, compression: Compression) -> bool {
        self.agreed.wants(len, compression)
    }

    /// See [`AgreedDeflate::is_able`].
    pub(crate) fn is_able(&self) -> bool {
        self.agreed.is_able()
    }

    pub(crate) fn agreed(&self) -> &AgreedDeflate {
        &self.agreed
    }

    /// Takes note that a message goes out which others compressed.
    pub(crate) fn handle_foreign(&mut self) {
        self.foreign = true;
    }

    /// Compresses a message and hands the payload on; `None` if it is better sent as it is.
    pub(crate) fn compress<R>(
        &mut self,
        payload: &[u8],
        then: impl FnOnce(Option<Cow<'_, [u8]>>) -> R,
    ) -> R {
        if !self.agreed.send.takeover {
            return compress_alone(payload, &self.agreed, then);
        }
        let stream = self.stream();
        with_scratch(|scratch| {
            let mut compressed = run(stream, payload, DeflateFlush::SyncFlush, scratch);
            cut_tail(&mut compressed);
            // Larger or not: the context holds it now, so the peer must see it compressed.
            then(Some(compressed))
        })
    }

    /// Compresses a piece of a message and hands it on.
    pub(crate) fn compress_chunk<R>(
        &mut self,
        payload: &[u8],
        last: bool,
        then: impl FnOnce(Cow<'_, [u8]>) -> R,
    ) -> R {
        let stream = self.stream();
        let result = with_scratch(|scratch| {
            let mut compressed = run(stream, payload, DeflateFlush::SyncFlush, scratch);
            if last {
                cut_tail(&mut compressed);
            }
            then(compressed)
        });
        if last && !self.agreed.send.takeover {
            self.stream = None;
        }
        result
    }

    fn stream(&mut self) -> &mut Stream {
        let foreign = std::mem::take(&mut self.foreign);
        let (encoding, window_bits) = (self.agreed.encoding, self.agreed.send.window_bits);
        let fresh = self.stream.is_none();
        let stream = self.stream.get_or_insert_with(|| encoding.stream(window_bits));
        if foreign && !fresh {
            stream.reset();
        }
        stream
    }
}

impl AgreedDeflate {
    /// Whether a message of this length should be compressed.
    pub(crate) fn wants(&self, len: usize, compression: Compression) -> bool {
        let wanted = match compression {
            Compression::Auto => len as u64 >= u64::from(self.encoding.threshold),
            Compression::Always => true,
            Compression::Never => false,
        };
        wanted && self.is_able()
    }

    /// Whether we can compress at all: a window of 8 bits is legal (RFC 7692 §7.1.2), and zlib and its
    /// descendants have none.
    pub(crate) fn is_able(&self) -> bool {
        self.send.window_bits > 8
    }
}

impl AgreedDeflate {
    /// The window with which to compress a message of this length by itself. One that is shorter than
    /// the window never looks back beyond it, so the largest window does for all receivers.
    pub(crate) fn window_for(&self, len: usize) -> u8 {
        let fits = len <= 1 << self.send.window_bits;
        if fits { MAX_WINDOW_BITS } else { self.send.window_bits }
    }
}

impl Encoding {
    fn stream(&self, window_bits: u8) -> Box<Stream> {
        Box::new(Stream::new_with_config(DeflateConfig {
            level: i32::from(self.level),
            // Negative: no zlib header.
            window_bits: -i32::from(window_bits),
            mem_level: i32::from(self.mem_level),
            ..DeflateConfig::default()
        }))
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

/// Compresses a message by itself, with a compressor of this thread; `None` if that makes it larger.
pub(crate) fn compress_alone<R>(
    payload: &[u8],
    agreed: &AgreedDeflate,
    then: impl FnOnce(Option<Cow<'_, [u8]>>) -> R,
) -> R {
    let (encoding, window_bits) = (agreed.encoding, agreed.window_for(payload.len()));
    SHARED.with_borrow_mut(|shared| {
        let found = shared.iter().position(|entry| {
            let e = &entry.encoding;
            (e.level, e.mem_level) == (encoding.level, encoding.mem_level)
                && entry.window_bits == window_bits
        });
        let place = found.unwrap_or_else(|| {
            shared.truncate(MAX_SHARED - 1);
            shared
                .insert(0, Shared { encoding, window_bits, stream: encoding.stream(window_bits) });
            0
        });
        let stream = &mut *shared[place].stream;
        with_scratch(|scratch| {
            // A full flush makes it forget, which costs less than a reset (measured: 1 µs of 6).
            let mut compressed = run(stream, payload, DeflateFlush::FullFlush, scratch);
            cut_tail(&mut compressed);
            then((compressed.len() < payload.len()).then_some(compressed))
        })
    })
}

struct Shared {
    encoding: Encoding,
    window_bits: u8,
    stream: Box<Stream>,
}

thread_local! {
    /// Compressors that remember nothing.
    static SHARED: RefCell<Vec<Shared>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn with_scratch<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SCRATCH_SIZE, 0);
        f(scratch)
    })
}

/// Compresses all of `payload` and ends on a byte. The result borrows `scratch` if it fits.
fn run<'a>(
    stream: &mut Stream,
    mut payload: &[u8],
    flush: DeflateFlush,
    scratch: &'a mut [u8],
) -> Cow<'a, [u8]> {
    let mut spilled = Vec::new();
    loop {
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let result = stream.compress(payload, scratch, flush);
        debug_assert!(result.is_ok(), "a compressor takes anything: {result:?}");
        payload = &payload[(stream.total_in() - before_in) as usize..];
        let made = (stream.total_out() - before_out) as usize;
        if payload.is_empty() && made < scratch.len() {
            if spilled.is_empty() {
                return Cow::Borrowed(&scratch[..made]);
            }
            spilled.extend_from_slice(&scratch[..made]);
            return Cow::Owned(spilled);
        }
        spilled.extend_from_slice(&scratch[..made]);
    }
}

/// §7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
fn cut_tail(compressed: &mut Cow<'_, [u8]>) {
    let Some(kept) = compressed.strip_suffix(&TAIL).map(<[u8]>::len) else {
        // Nothing to flush since the last one: §7.2.3.6 says what an empty message is.
        debug_assert!(compressed.is_empty(), "a flush ends in its tail");
        *compressed = Cow::Borrowed(&[0x00]);
        return;
    };
    match compressed {
        Cow::Borrowed(bytes) => *bytes = &bytes[..kept],
        Cow::Owned(bytes) => bytes.truncate(kept),
    }
}

/// Compressed messages up to this size are not copied on their way to the queue.
const SCRATCH_SIZE: usize = 64 << 10;

/// A server has one set of settings, and its clients a few windows.
const MAX_SHARED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Deflate;

    fn compressed(compressor: &mut Compressor, payload: &[u8]) -> Vec<u8> {
        compressor.compress(payload, |compressed| compressed.expect("it gets smaller").into_owned())
    }

    /// RFC 7692 §7.2.3.1 and §7.2.3.2, with the RFC's bytes.
    #[test]
    fn hello_twice_with_a_context_is_the_rfcs_example() {
        let settings = Deflate::best_ratio();
        let agreed = settings.agree(settings.sending(), settings.receiving());
        let mut compressor = Compressor::new(&agreed);
        let first = compressed(&mut compressor, b"Hello");
        assert_eq!(first, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        let second = compressed(&mut compressor, b"Hello");
        assert!(second.len() < first.len(), "{second:02x?}");
    }

    #[test]
    fn an_empty_message_is_one_zero_byte() {
        for settings in [Deflate::default(), Deflate::best_ratio()] {
            let agreed = settings.agree(settings.sending(), settings.receiving());
            let mut compressor = Compressor::new(&agreed);
            for _ in 0..3 {
                let chunk = compressor.compress_chunk(b"", true, |chunk| chunk.into_owned());
                assert_eq!(chunk, [0x00]);
            }
        }
    }

    #[test]
    fn a_message_that_would_grow_is_left_alone() {
        let settings = Deflate::default();
        let mut compressor =
            Compressor::new(&settings.agree(settings.sending(), settings.receiving()));
        assert!(compressor.compress(b"abc", |compressed| compressed.is_none()));
    }
}
