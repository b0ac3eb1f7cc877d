//! [`PreparedMessage`]: framed once, and compressed at most once for each window; sent to many.
//!
//! Not its business: to whom.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};

use crate::{
    AgreedDeflate, Compression, FrameHeader, Message, Opcode, Outgoing, compressor::compress_alone,
    deflate::MAX_WINDOW_BITS,
};

/// A message that is framed already, for sending to many clients. Cloning is cheap.
///
/// Framing is done once, however many receivers there are, and so is compressing, if any of them
/// wants that: receivers with and without contexts get the same bytes, which refer to nothing before
/// them. Only a receiver whose window is smaller than the message needs bytes of its own kind.
///
/// A client that sends one must mask it afresh each time (RFC 6455 §5.3), so there it saves nothing.
///
/// ```
/// let news = ws_proto::PreparedMessage::new("hello, everybody");
/// assert_eq!(&news.as_frame()[..2], [0x81, 16]);
/// ```
#[derive(Clone)]
pub struct PreparedMessage {
    variants: Arc<Variants>,
}

struct Variants {
    opcode: Opcode,
    compression: Compression,
    /// Header and payload, contiguous, unmasked, uncompressed.
    plain: Bytes,
    /// `header_len <= plain.len()`
    header_len: usize,
    /// The compressed frames, made when first asked for.
    deflated: OnceLock<Box<Deflated>>,
    compressions: AtomicUsize,
}

/// The compressed frame for each window from 9 bits on; `None` if the plain one is smaller.
type Deflated = [OnceLock<Option<Bytes>>; WINDOWS];

impl PreparedMessage {
    /// Frames the message. Copies the payload once.
    #[must_use]
    pub fn new(message: impl Into<Outgoing>) -> Self {
        let Outgoing { message, compression } = message.into();
        let opcode = message.opcode();
        let header = FrameHeader::whole(opcode, message.len());
        let plain = frame(header, message.as_bytes());
        let header_len = plain.len() - message.len();
        Self {
            variants: Arc::new(Variants {
                opcode,
                compression,
                plain,
                header_len,
                deflated: OnceLock::new(),
                compressions: AtomicUsize::new(0),
            }),
        }
    }

    /// The message again, sharing the payload.
    #[must_use]
    pub fn message(&self) -> Message {
        let Variants { opcode, plain, header_len, .. } = &*self.variants;
        Message::from_checked(*opcode, plain.slice(*header_len..))
    }

    /// The message again, with the wish it was made with.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        Outgoing { message: self.message(), compression: self.variants.compression }
    }

    /// The bytes that a server puts on the wire where compression was not agreed on.
    #[must_use]
    pub fn as_frame(&self) -> &Bytes {
        &self.variants.plain
    }

    /// The bytes that a server puts on the wire under an agreement. The first one to ask for a
    /// compressed variant makes it, with its settings; the others share it.
    #[must_use]
    pub fn frame_for(&self, agreed: Option<&AgreedDeflate>) -> &Bytes {
        let Variants { plain, header_len, .. } = &*self.variants;
        let len = plain.len() - header_len;
        match agreed {
            Some(agreed) if agreed.wants(len, self.variants.compression) => {
                let all = self.variants.deflated.get_or_init(Box::default);
                let place = usize::from(MAX_WINDOW_BITS - agreed.window_for(len));
                let variant = all[place].get_or_init(|| self.variants.deflate(agreed));
                variant.as_ref().unwrap_or(plain)
            }
            _ => plain,
        }
    }

    /// How often the message has been compressed: at most once for each window in use, whatever the
    /// number of receivers.
    #[must_use]
    pub fn compressions(&self) -> usize {
        self.variants.compressions.load(Ordering::Relaxed)
    }
}

impl Variants {
    fn deflate(&self, agreed: &AgreedDeflate) -> Option<Bytes> {
        self.compressions.fetch_add(1, Ordering::Relaxed);
        compress_alone(&self.plain[self.header_len..], agreed, |compressed: Option<Cow<'_, _>>| {
            compressed.map(|payload| {
                let mut header = FrameHeader::whole(self.opcode, payload.len());
                header.rsv1 = true;
                frame(header, &payload)
            })
        })
    }
}

fn frame(header: FrameHeader, payload: &[u8]) -> Bytes {
    let header = header.encode();
    let mut frame = BytesMut::with_capacity(header.len() + payload.len());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(payload);
    frame.freeze()
}

impl<M: Into<Outgoing>> From<M> for PreparedMessage {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}

impl fmt::Debug for PreparedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedMessage")
            .field("opcode", &self.variants.opcode)
            .field("len", &(self.variants.plain.len() - self.variants.header_len))
            .finish_non_exhaustive()
    }
}

/// Of 9 to 15 bits.
const WINDOWS: usize = 7;
