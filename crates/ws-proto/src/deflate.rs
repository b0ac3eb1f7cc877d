//! [`Deflate`]: the settings of permessage-deflate (RFC 7692), and [`AgreedDeflate`], what two
//! endpoints made of them.
//!
//! Not its business: the extension's header, which is the handshake's, and the compression itself
//! (`compressor.rs`, `inflater.rs`).

/// How to compress, and what to allow the peer. Compression is off unless this is configured.
///
/// A *context* is what a compressor remembers of former messages, so that later ones can refer to
/// it. Contexts make small messages of one kind several times smaller, and cost memory for as long
/// as the connection lives:
///
/// - [`Deflate::default`] keeps none in either direction. Compressors and decompressors are shared by
///   all connections of a thread, so a connection costs nothing while nothing is on its way.
/// - [`Deflate::best_ratio`] keeps them in both directions: 323 KB for sending and 48 KB for
///   receiving, for each connection.
///
/// | setting | bytes per connection | size on the wire | send | receive |
/// |---|---|---|---|---|
/// | none | 352 | 100 % | 0.1 µs | 0.1 µs |
/// | `default()` | 352 | 48 % | 5.4 µs | 1.8 µs |
/// | `default().level(2)` | 352 | 39 % | 14.3 µs | 4.1 µs |
/// | `default().level(6)` | 352 | 38 % | 21.2 µs | 4.1 µs |
/// | `best_ratio()` | 370848 | 35 % | 3.2 µs | 1.8 µs |
/// | `best_ratio().level(2)` | 357497 | 28 % | 10.8 µs | 3.6 µs |
/// | `best_ratio().level(6)` | 357497 | 25 % | 18.9 µs | 3.4 µs |
/// | `best_ratio().window_bits(12).mem_level(5)` | 199801 | 37 % | 3.3 µs | 1.7 µs |
///
/// Measured on a server's messages of 1 KiB of JSON by `cargo bench -p benches --bench deflate_table`;
/// bytes are those of a server's [`Connection`](crate::Connection), times those of one machine.
///
/// What is agreed on also depends on the peer, which may forbid contexts or ask for smaller windows.
///
/// ```
/// use ws_proto::Deflate;
/// let settings = Deflate::default().level(3).threshold(1024);
/// # let _ = settings;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "PerMessageDeflate")]
#[doc(alias = "ServerPerMessageDeflateFactory")]
#[doc(alias = "ClientPerMessageDeflateFactory")]
#[doc(alias = "compression")]
pub struct Deflate {
    /// What we do.
    send: Context,
    /// What we ask the peer to do.
    receive: Context,
    encoding: Encoding,
}

/// One direction's sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Whether it is kept from one message to the next (RFC 7692 §7.1.1).
    pub takeover: bool,
    /// Its size as a power of two: 8 to 15 (§7.1.2).
    pub window_bits: u8,
}

/// What only the compressing side needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// `1 <= level <= 9`
    pub(crate) level: u8,
    /// `1 <= mem_level <= 9`
    pub(crate) mem_level: u8,
    /// In bytes.
    pub(crate) threshold: u32,
}

impl Deflate {
    /// Keeps contexts in both directions: the smallest messages, for memory. Messages of 32 bytes and
    /// more are compressed.
    #[must_use]
    pub fn best_ratio() -> Self {
        Self::default().context_takeover(true).peer_context_takeover(true).threshold(32)
    }

    /// How hard to try, from 1 (fastest) to 9 (smallest), as in zlib. Default: 1, which costs a
    /// third of the time of any other level.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.encoding.level = level.clamp(1, 9);
        self
    }

    /// How much memory a compressor uses for its working buffers, from 1 to 9, as in zlib. Default:
    /// 7, because 8 is slower on small messages and compresses no better.
    #[must_use]
    pub fn mem_level(mut self, mem_level: u8) -> Self {
        self.encoding.mem_level = mem_level.clamp(1, 9);
        self
    }

    /// Messages shorter than this go uncompressed, in bytes. Default: 256, because below that
    /// compressing without a context saves next to nothing.
    ///
    /// A single message can be [made an exception](crate::Message::uncompressed).
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.encoding.threshold = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Our window, as a power of two from 9 to 15: how far back a compressor looks, and what a
    /// receiver needs to remember. Default: 15, which is 32 KiB.
    #[must_use]
    #[doc(alias = "server_max_window_bits")]
    pub fn window_bits(mut self, bits: u8) -> Self {
        self.send.window_bits = bits.clamp(9, MAX_WINDOW_BITS);
        self
    }

    /// The window that we ask the peer to use, as a power of two from 9 to 15. Default: 15. It saves
    /// memory at the peer's only; our decompressors have the same size whatever the window.
    #[must_use]
    #[doc(alias = "client_max_window_bits")]
    pub fn peer_window_bits(mut self, bits: u8) -> Self {
        self.receive.window_bits = bits.clamp(9, MAX_WINDOW_BITS);
        self
    }

    /// Whether our compressor keeps its context, unless the peer forbids it. Default: no.
    #[must_use]
    #[doc(alias = "server_no_context_takeover")]
    pub fn context_takeover(mut self, keep: bool) -> Self {
        self.send.takeover = keep;
        self
    }

    /// Whether the peer may keep its context. Default: no.
    #[must_use]
    #[doc(alias = "client_no_context_takeover")]
    pub fn peer_context_takeover(mut self, keep: bool) -> Self {
        self.receive.takeover = keep;
        self
    }

    /// The window that we would like to send with.
    #[must_use]
    pub fn sending(&self) -> Context {
        self.send
    }

    /// The window that we would like to receive with.
    #[must_use]
    pub fn receiving(&self) -> Context {
        self.receive
    }

    /// These settings under an agreement.
    #[must_use]
    pub fn agree(&self, send: Context, receive: Context) -> AgreedDeflate {
        AgreedDeflate { send, receive, encoding: self.encoding }
    }
}

impl Default for Deflate {
    fn default() -> Self {
        let context = Context { takeover: false, window_bits: MAX_WINDOW_BITS };
        let encoding = Encoding { level: 1, mem_level: 7, threshold: 256 };
        Self { send: context, receive: context, encoding }
    }
}

/// What was agreed on in the opening handshake (RFC 7692 §5), by direction instead of by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgreedDeflate {
    /// What we must keep to.
    pub send: Context,
    /// What the peer keeps to.
    pub receive: Context,
    pub(crate) encoding: Encoding,
}

/// §7.1.2: "A value in the range between 8 to 15 inclusive".
pub(crate) const MAX_WINDOW_BITS: u8 = 15;

/// What the extension's compressed data ends in, and what is left out on the wire (RFC 7692 §7.2.1).
pub(crate) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
