//! What the tests share: transports that misbehave at will, a peer that is made of bytes, and futures
//! polled by hand.
#![allow(dead_code, unused_macros, reason = "each test file uses a part of this")]

use std::{
    collections::VecDeque,
    fmt::Write as _,
    future::{Future, poll_fn},
    io,
    io::IoSlice,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::yield_now,
    time::timeout,
};
use ws_conn::{
    Config, WebSocket,
    proto::{FrameHeader, MaskingKeys, Role},
};

/// A fact about either role: one check, two tests.
macro_rules! both {
    ($($check:ident,)*) => {$(
        mod $check {
            #[tokio::test(start_paused = true)]
            async fn as_a_server() {
                crate::support::within(super::$check(ws_conn::proto::Role::Server)).await;
            }
            #[tokio::test(start_paused = true)]
            async fn as_a_client() {
                crate::support::within(super::$check(ws_conn::proto::Role::Client)).await;
            }
        }
    )*};
}

/// Fails instead of hanging. Where time is paused it barks as soon as nothing else can happen.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(WATCHDOG, future).await.expect("done before the watchdog barks")
}

/// Longer than all that the tests with paused time live through, which is a day.
const WATCHDOG: Duration = Duration::from_secs(100_000);

/// As [`within`], where time is real.
pub(crate) async fn within_a_minute<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("done within a minute")
}

/// Waits until the other tasks have done what they can without time going by.
pub(crate) async fn settle() {
    // More turns than any chain of wake-ups here is long.
    for _ in 0..1000 {
        yield_now().await;
    }
}

/// Polls a future at most so often and drops it.
pub(crate) fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..times).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// Polls a future once on behalf of this task and drops it.
pub(crate) async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// A waker that counts.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Polls as the task that this waker stands for.
    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An unmasked frame, encoded by hand.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = match payload.len() {
        len @ 0..=125 => vec![len as u8],
        len @ 126..=0xffff => [&[126][..], &(len as u16).to_be_bytes()].concat(),
        len => [&[127][..], &(len as u64).to_be_bytes()].concat(),
    };
    [&[first][..], &length, payload].concat()
}

/// The same frames with masking keys of zeros, as from a client.
pub(crate) fn masked(mut frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !frames.is_empty() {
        let (header, size) = decode(frames, Role::Client).expect("whole frames");
        let end = size + header.length as usize;
        out.extend([frames[0], frames[1] | 0x80]);
        out.extend_from_slice(&frames[2..size]);
        out.extend([0; 4]);
        out.extend_from_slice(&frames[size..end]);
        frames = &frames[end..];
    }
    out
}

fn decode(bytes: &[u8], receiver: Role) -> Option<(FrameHeader, usize)> {
    FrameHeader::decode(bytes, receiver, false).expect("a legal frame")
}

/// Masking keys of zeros, which make a client's frames readable.
#[derive(Debug)]
pub(crate) struct ZeroKeys;

impl MaskingKeys for ZeroKeys {
    fn next_key(&mut self) -> [u8; 4] {
        [0; 4]
    }
}

/// A connection in this role, and the test as its peer.
pub(crate) fn endpoint(role: Role, config: &Config) -> (WebSocket<Transport>, Peer) {
    let (transport, peer) = transport(role);
    (websocket(role, transport, config), peer)
}

/// A connection in this role on any stream.
pub(crate) fn websocket<S>(role: Role, stream: S, config: &Config) -> WebSocket<S> {
    match role {
        Role::Server => WebSocket::server_on(stream, BytesMut::new(), config),
        Role::Client => WebSocket::client_with_keys(stream, BytesMut::new(), config, ZeroKeys),
    }
}

/// Two connections with each other over a pipe of this size.
pub(crate) fn connected(
    size: usize,
    config: &Config,
) -> (WebSocket<tokio::io::DuplexStream>, WebSocket<tokio::io::DuplexStream>) {
    let (near, far) = tokio::io::duplex(size);
    (websocket(Role::Client, near, config), websocket(Role::Server, far, config))
}

/// A transport for an endpoint in this role, and the other end of it.
pub(crate) fn transport(role: Role) -> (Transport, Peer) {
    let shared = Arc::new(Mutex::new(Shared { room: usize::MAX, ..Shared::default() }));
    (Transport(Arc::clone(&shared)), Peer { role, shared })
}

/// A stream that does what the test says, and nothing else: it holds one waker for each direction,
/// as sockets do, and knows no budget.
#[derive(Debug)]
pub(crate) struct Transport(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    input: VecDeque<u8>,
    /// What follows the input: nothing yet, the end, or an error.
    end: Option<Result<(), io::ErrorKind>>,
    output: Vec<u8>,
    /// How many more bytes are taken before writing blocks.
    room: usize,
    /// Writes that were tried and not blocked.
    writes: usize,
    write_error: Option<io::ErrorKind>,
    lie: Option<Lie>,
    /// The bytes after which the peer hangs up.
    last_words: Option<Vec<u8>>,
    shut_down: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a transport can claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// To have written a byte more than it was given.
    OneTooMany,
    /// To have written nothing, when there is something and room.
    Nothing,
    /// The same, of many slices at once.
    NothingVectored,
    /// It is out.
    Told,
}

/// The other end of a [`Transport`]: bytes in, bytes out. Frames are written without masks for either
/// role; what a client sends is masked, and unmasked, on the way.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Of the endpoint under test.
    role: Role,
    shared: Arc<Mutex<Shared>>,
}

impl Peer {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no test panics with the lock")
    }

    /// Sends whole frames, given in hex.
    pub(crate) fn send(&self, frames: &str) {
        self.send_frames(&hex(frames));
    }

    /// Sends whole frames.
    pub(crate) fn send_frames(&self, frames: &[u8]) {
        match self.role {
            Role::Server => self.send_raw(&masked(frames)),
            Role::Client => self.send_raw(frames),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        self.change_input(|shared| shared.input.extend(bytes));
    }

    /// Ends the sending, as TCP's FIN does.
    pub(crate) fn fin(&self) {
        self.change_input(|shared| shared.end = Some(Ok(())));
    }

    /// Ends everything, as TCP's RST does.
    pub(crate) fn reset(&self) {
        self.change_input(|shared| shared.end = Some(Err(io::ErrorKind::ConnectionReset)));
        self.fail_writes();
    }

    /// Makes writing fail from now on.
    pub(crate) fn fail_writes(&self) {
        self.change_output(|shared| shared.write_error = Some(io::ErrorKind::BrokenPipe));
    }

    /// Takes so many more bytes, and no more.
    pub(crate) fn take_only(&self, room: usize) {
        self.change_output(|shared| shared.room = room);
    }

    /// Makes the transport lie once.
    pub(crate) fn lie(&self, lie: Lie) {
        self.lock().lie = Some(lie);
    }

    /// How many writes it took so far.
    pub(crate) fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Whether the endpoint has shut its sending down.
    pub(crate) fn sees_the_end(&self) -> bool {
        self.lock().shut_down
    }

    /// Bytes that wait to be read by the endpoint.
    pub(crate) fn unread(&self) -> usize {
        self.lock().input.len()
    }

    /// Takes the frames that came, each in hex and unmasked.
    pub(crate) fn received(&self) -> Vec<String> {
        let wire = std::mem::take(&mut self.lock().output);
        let mut rest = &wire[..];
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let sender = self.role;
            let receiver = if sender == Role::Server { Role::Client } else { Role::Server };
            let (header, size) = decode(rest, receiver).expect("whole frames came");
            let end = size + header.length as usize;
            assert!(end <= rest.len(), "a torn frame: {}", to_hex(rest));
            assert_eq!(header.mask, (sender == Role::Client).then_some([0; 4]));
            let mask = if sender == Role::Client { 4 } else { 0 };
            let head = [&[rest[0], rest[1] & 0x7f][..], &rest[2..size - mask]].concat();
            frames.push(to_hex(&[&head, &rest[size..end]].concat()));
            rest = &rest[end..];
        }
        frames
    }

    /// Takes the bytes that came, as they are.
    pub(crate) fn received_raw(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().output)
    }

    /// Ends the sending as soon as a Close frame with this payload has come.
    pub(crate) fn hang_up_after_close(&self, payload: &str) {
        let close = frame(0x88, hex(payload));
        let close = if self.role == Role::Client { masked(&close) } else { close };
        self.lock().last_words = Some(close);
    }

    fn change_input(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = self.lock();
        change(&mut shared);
        let waker = shared.reader.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }

    fn change_output(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = self.lock();
        change(&mut shared);
        let waker = shared.writer.take();
        drop(shared);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Transport {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("no test panics with the lock")
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        if shared.input.is_empty() {
            return match shared.end {
                Some(end) => Poll::Ready(end.map_err(Into::into)),
                None => {
                    shared.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = buf.remaining().min(shared.input.len());
        let bytes: Vec<u8> = shared.input.drain(..count).collect();
        buf.put_slice(&bytes);
        if shared.input.is_empty() {
            // Memory is counted in some tests, and this is not the library's.
            shared.input = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        if let Some(error) = shared.write_error {
            return Poll::Ready(Err(error.into()));
        }
        assert!(!shared.shut_down, "nothing is written after a shutdown");
        match shared.lie {
            Some(Lie::OneTooMany) => {
                shared.lie = Some(Lie::Told);
                return Poll::Ready(Ok(buf.len() + 1));
            }
            Some(Lie::Nothing) => {
                shared.lie = None;
                return Poll::Ready(Ok(0));
            }
            _ => {}
        }
        let count = buf.len().min(shared.room);
        if count == 0 && !buf.is_empty() {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if shared.room != usize::MAX {
            shared.room -= count;
        }
        shared.output.extend_from_slice(&buf[..count]);
        shared.writes += 1;
        if shared.last_words.as_ref().is_some_and(|close| shared.output.ends_with(close)) {
            shared.end = Some(Ok(()));
            shared.reader.take().into_iter().for_each(Waker::wake);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.lock().lie.take_if(|lie| *lie == Lie::NothingVectored).is_some() {
            return Poll::Ready(Ok(0));
        }
        self.poll_write(cx, &slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>())
    }

    fn is_write_vectored(&self) -> bool {
        // Pieces that are offered one by one let it claim a byte of the next.
        !matches!(self.lock().lie, Some(Lie::OneTooMany | Lie::Told))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().shut_down = true;
        Poll::Ready(Ok(()))
    }
}

/// Reads and writes one byte at a time.
#[derive(Debug)]
pub(crate) struct Slow<S> {
    inner: S,
    /// Whether each operation is pending once before it is done.
    stutters: bool,
    /// Whether each was: reading, writing, flushing, shutting down.
    was_pending: [bool; 4],
}

impl<S> Slow<S> {
    pub(crate) fn byte_by_byte(inner: S) -> Self {
        Self { inner, stutters: false, was_pending: [false; 4] }
    }

    pub(crate) fn stuttering(inner: S) -> Self {
        Self { stutters: true, ..Self::byte_by_byte(inner) }
    }

    fn poll_turn(&mut self, operation: usize, cx: &Context<'_>) -> Poll<()> {
        let was_pending = &mut self.was_pending[operation];
        *was_pending = self.stutters && !*was_pending;
        if !*was_pending {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Slow<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(0, cx));
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slow<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(1, cx));
        Pin::new(&mut self.inner).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(2, cx));
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(3, cx));
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
