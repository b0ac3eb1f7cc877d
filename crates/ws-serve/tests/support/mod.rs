//! What the tests share: a server on a port of its own, in each place where it may run, and two clients,
//! one that knows the protocol and one that is made of bytes.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test file uses a part of this")]

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinHandle, yield_now},
    time::timeout,
};
use ws_serve::{
    Deflate, Error, Handler, Message, Sender, Server, Shutdown, Socket, Topic, Topics,
    conn::{Client, Closed, WebSocket},
};

/// A fact about the server wherever it runs: one check, three tests.
macro_rules! everywhere {
    ($($check:ident,)*) => {$(
        mod $check {
            #[tokio::test]
            async fn on_a_single_threaded_runtime() {
                crate::support::within(super::$check(crate::support::server())).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_a_multi_threaded_runtime() {
                crate::support::within(super::$check(crate::support::server())).await;
            }
            #[tokio::test]
            async fn on_workers() {
                crate::support::within(super::$check(crate::support::server().workers(2))).await;
            }
        }
    )*};
}

/// Fails instead of hanging. No test is about how long this is.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(WATCHDOG, future).await.expect("done before the watchdog barks")
}

/// Waits for a fact that some other task brings about.
pub(crate) async fn eventually(fact: impl Fn() -> bool) {
    while !fact() {
        yield_now().await;
    }
}

/// Polls a future once and keeps it.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A server on a port of its own, with the defaults.
pub(crate) fn server() -> Server {
    Server::bind("127.0.0.1:0").expect("there is a free port")
}

/// A server that serves.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) topics: Topics,
    pub(crate) shutdown: Shutdown,
    pub(crate) serving: JoinHandle<io::Result<()>>,
}

impl Running {
    pub(crate) fn start<Args>(server: Server, handler: impl Handler<Args>) -> Self {
        Self::run(server.fallback(handler))
    }

    /// A server that serves its routes, and nothing else.
    pub(crate) fn run(server: Server) -> Self {
        let address = server.local_addr().expect("it is bound");
        let topics = server.topics();
        let shutdown = server.shutdown_handle();
        Self { address, topics, shutdown, serving: tokio::spawn(server.run()) }
    }

    /// Shuts down and waits for the end.
    pub(crate) async fn end(self) {
        self.shutdown.start();
        self.serving.await.expect("no panic").expect("nothing that a client does ends it");
    }

    pub(crate) async fn client(&self) -> Web {
        Web::open(self.address).await
    }

    pub(crate) async fn raw(&self) -> Raw {
        Raw::open(self.address).await
    }

    /// A client at a path.
    pub(crate) async fn visit(&self, path: &str) -> Web {
        Web(self.at(path).connect().await.expect("an open connection"))
    }

    /// What a client at a path is made with.
    pub(crate) fn at(&self, path: &str) -> Client {
        Client::new(&format!("ws://{}{path}", self.address)).expect("a valid URL")
    }

    /// What is answered to these bytes before the connection ends.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        ask(TcpStream::connect(self.address).await.expect("the server listens"), request).await
    }
}

/// What is answered to these bytes before the connection ends, which it must without a reset.
pub(crate) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: impl AsRef<[u8]>,
) -> Answer {
    stream.write_all(request.as_ref()).await.expect("the server is there");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and no reset");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// An answer in plain HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 0 if there was none.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header that must not be there twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value));
        let value = values.next();
        assert_eq!(values.next(), None, "{self:?}");
        value
    }
}

/// A handler that echoes.
pub(crate) async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// A handler that hands its sender out, then receives and tells what. Text that begins with one of
/// `+-!^=().` is a script, which it goes through in one turn: `+topic`, `-topic` to join and leave,
/// `!topic:message`, `^topic:message` to publish to all and to others, `=message` to send, `(chunk` and
/// `)chunk` to begin and to end a message, `.` to tell that it has come so far. A script of one `+` or
/// `-` is echoed.
pub(crate) fn exposed() -> (impl Handler<()>, UnboundedReceiver<Exposed>) {
    let (tell, told) = unbounded_channel();
    let handler = move |mut socket: Socket| {
        let tell: UnboundedSender<Exposed> = tell.clone();
        async move {
            let _ = tell.send(Exposed::Sender(socket.sender()));
            let ended = loop {
                let message = match socket.receive().await {
                    Ok(Some(message)) => message,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                match message.as_text().filter(|text| text.starts_with(VERBS)) {
                    Some(script) => {
                        for step in script.split(' ') {
                            take_step(&socket, &tell, step).await?;
                        }
                        if script.starts_with(['+', '-']) && !script.contains([' ', ':']) {
                            socket.send(message).await?;
                        }
                    }
                    None => drop(tell.send(Exposed::Message(message))),
                }
            };
            let _ = tell.send(Exposed::Ended(socket.closed()));
            ended
        }
    };
    (handler, told)
}

async fn take_step(
    socket: &Socket,
    tell: &UnboundedSender<Exposed>,
    step: &str,
) -> Result<(), Error> {
    let (verb, rest) = step.split_at(1);
    let (topic, message) = rest.split_once(':').unwrap_or((rest, ""));
    match verb {
        "+" => socket.join(topic),
        "-" => socket.leave(topic),
        "!" => socket.publish(topic, message),
        "^" => socket.publish_to_others(topic, message),
        "=" => socket.send(rest).await?,
        "(" => socket.send_chunk(rest, false).await?,
        ")" => socket.send_chunk(rest, true).await?,
        _ => drop(tell.send(Exposed::Done)),
    }
    Ok(())
}

const VERBS: [char; 8] = ['+', '-', '!', '^', '=', '(', ')', '.'];

/// What an [`exposed`] handler tells.
#[derive(Debug)]
pub(crate) enum Exposed {
    Sender(Sender),
    Done,
    Message(Message),
    Ended(Closed),
}

/// Handlers of other connections may end meanwhile.
pub(crate) async fn sender_from(told: &mut UnboundedReceiver<Exposed>) -> Sender {
    loop {
        match told.recv().await {
            Some(Exposed::Sender(sender)) => return sender,
            Some(Exposed::Ended(_)) => {}
            other => panic!("{other:?} instead of a sender"),
        }
    }
}

/// Waits until a script is done; handlers of other connections may end meanwhile.
pub(crate) async fn done_by(told: &mut UnboundedReceiver<Exposed>) {
    loop {
        match told.recv().await {
            Some(Exposed::Done) => return,
            Some(Exposed::Ended(_)) => {}
            other => panic!("{other:?} instead of the end of a script"),
        }
    }
}

/// Publishes as `publish` says, and waits until the turn has been served to all members.
pub(crate) async fn serve(topic: &Topic, publish: impl FnOnce(&Topic)) {
    let due = topic.counts().sent + topic.len() as u64;
    publish(topic);
    eventually(|| topic.counts().sent == due).await;
}

/// A client of an [`exposed`] handler, a member of a topic, that reads when it is told to, and then slowly.
pub(crate) async fn narrow_member(
    running: &Running,
    told: &mut UnboundedReceiver<Exposed>,
    topic: &str,
) -> (Raw, Sender) {
    let mut raw = Raw::open_narrow(running.address).await;
    let sender = sender_from(told).await;
    order(&mut raw, told, &format!("+{topic}")).await;
    (raw, sender)
}

/// Has an [`exposed`] handler go through a script.
pub(crate) async fn order(raw: &mut Raw, told: &mut UnboundedReceiver<Exposed>, script: &str) {
    raw.say(masked(TEXT, format!("{script} ."))).await;
    done_by(told).await;
}

/// Begins a message, so that all others have to wait.
pub(crate) async fn hold(raw: &mut Raw, sender: &Sender, told: &mut UnboundedReceiver<Exposed>) {
    order(raw, told, "(begun").await;
    raw.expect(frame(0x01, "begun")).await;
    eventually(|| sender.queued() == 0).await;
}

/// Ends that message.
pub(crate) async fn release(raw: &mut Raw, told: &mut UnboundedReceiver<Exposed>) {
    order(raw, told, ")ended").await;
    raw.expect(frame(0x80, "ended")).await;
}

/// A client that knows the protocol.
pub(crate) struct Web<S = TcpStream>(pub(crate) WebSocket<S>);

impl Web {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let client = Client::new(&format!("ws://{address}/")).expect("a valid URL");
        let config = ws_serve::Config::default().max_message_size(16 << 20);
        Self(client.config(config).connect().await.expect("an open connection"))
    }

    /// A client that offers to compress, or not.
    pub(crate) async fn open_deflating(address: SocketAddr, settings: Option<Deflate>) -> Self {
        let mut client = Client::new(&format!("ws://{address}/")).expect("a valid URL");
        if let Some(settings) = settings {
            client = client.deflate(settings);
        }
        let config = ws_serve::Config::default().max_message_size(16 << 20);
        Self(client.config(config).connect().await.expect("an open connection"))
    }

    /// A member of a topic of an [`exposed`] handler.
    pub(crate) async fn member(address: SocketAddr, topic: &str) -> Self {
        let mut client = Self::open(address).await;
        client.say(format!("+{topic}")).await;
        assert_eq!(client.hear().await, format!("+{topic}"));
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Web<S> {
    /// A client on a stream of its own kind.
    pub(crate) async fn open_over(stream: S) -> Self {
        let client = Client::new("ws://localhost/").expect("a valid URL");
        let config = ws_serve::Config::default().max_message_size(16 << 20);
        let opened = client.config(config).connect_over(stream).await;
        Self(opened.expect("an open connection").0)
    }

    pub(crate) async fn say(&mut self, message: impl Into<Message>) {
        self.0.send(message).await.expect("the connection is open");
    }

    pub(crate) async fn hear_message(&mut self) -> Message {
        match self.0.receive().await {
            Ok(Some(message)) => message,
            end => panic!("{end:?} instead of a message; {}", self.0.closed()),
        }
    }

    pub(crate) async fn hear(&mut self) -> String {
        match self.hear_message().await {
            Message::Text(text) => text.to_string(),
            binary @ Message::Binary(_) => panic!("{binary:?} instead of text"),
        }
    }

    /// The code and the reason of the server's Close frame, which must come next; 1006 without one.
    pub(crate) async fn hear_end(&mut self) -> (u16, String) {
        if let Ok(Some(message)) = self.0.receive().await {
            panic!("{message:?} instead of the end");
        }
        match self.0.closed().received {
            Some(frame) => (frame.code().map_or(1005, u16::from), frame.reason().to_owned()),
            None => (1006, String::new()),
        }
    }
}

/// A client that is made of bytes.
pub(crate) struct Raw<S = TcpStream>(pub(crate) BufReader<S>);

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP stream");
        Self::upgrade(stream).await
    }

    /// A client with an address of its own; all of 127.0.0.0/8 is this machine.
    pub(crate) async fn open_from(source: [u8; 4], address: SocketAddr) -> Self {
        Self::upgrade(connect_from(source, address).await).await
    }

    /// A client whose system takes next to nothing on its behalf, for those that do not read.
    pub(crate) async fn open_narrow(address: SocketAddr) -> Self {
        Self::open_narrow_at(address, "/chat").await
    }

    pub(crate) async fn open_narrow_at(address: SocketAddr, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a valid size");
        let stream = socket.connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP stream");
        Self::upgrade_with(stream, request(path, [])).await
    }

    /// A client that offers these extensions, which must be answered with those.
    pub(crate) async fn open_offering(address: SocketAddr, offer: &str, answer: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP stream");
        let mut raw = Self(BufReader::new(stream));
        let request = REQUEST.strip_suffix("\r\n").expect("the request ends");
        raw.say(format!("{request}Sec-WebSocket-Extensions: {offer}\r\n\r\n")).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let answered =
            head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
        assert_eq!(answered, Some(answer));
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) async fn upgrade(stream: S) -> Self {
        Self::upgrade_with(stream, REQUEST).await
    }

    /// A client with a request of its own.
    pub(crate) async fn upgrade_with(stream: S, request: impl AsRef<[u8]>) -> Self {
        let mut raw = Self(BufReader::new(stream));
        raw.say(request).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the server is there");
        // TLS may hold the rest when tokio makes this task yield.
        self.0.flush().await.expect("the server is there");
    }

    /// An HTTP head.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a whole head"));
        }
        String::from_utf8(head).expect("ASCII")
    }

    /// The next bytes must be these.
    pub(crate) async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let mut read = vec![0; bytes.as_ref().len()];
        self.0.read_exact(&mut read).await.expect("as many bytes as expected");
        assert_eq!(to_hex(&read), to_hex(bytes.as_ref()));
    }

    /// The next frame: its first byte and its payload.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let first = self.0.read_u8().await?;
            let length = match self.0.read_u8().await? {
                126 => self.0.read_u16().await?.into(),
                127 => self.0.read_u64().await?,
                length => length.into(),
            };
            // §5.1 of RFC 6455: a server masks nothing; a set mask bit shows as an absurd length.
            let mut payload = vec![0; usize::try_from(length).expect("64 bits")];
            self.0.read_exact(&mut payload).await?;
            io::Result::Ok((first, payload))
        };
        read.await.expect("a whole frame")
    }

    /// The server's end of the TCP connection must come next; answers whether without a reset. Ends ours.
    pub(crate) async fn hear_end(mut self) -> bool {
        match self.0.read_u8().await {
            Ok(byte) => panic!("{byte:#x} instead of the end"),
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        }
    }
}

pub(crate) async fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("it is ours");
    socket.connect(address).await.expect("the server listens")
}

/// Makes dropping the stream reset the connection.
pub(crate) fn reset_on_drop(stream: &TcpStream) {
    stream.set_zero_linger().expect("a TCP stream");
}

/// A frame of a server, in its shortest form (RFC 6455 §5.2).
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    with_length(first, 0, payload.as_ref())
}

/// A frame of a client. The key is all zeros, which is as legal as any and leaves the payload readable.
pub(crate) fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    with_length(first, 0x80, payload.as_ref())
}

fn with_length(first: u8, mask: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(mask | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(mask | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(mask | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    if mask != 0 {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

/// The payload of a Close frame (RFC 6455 §5.5.1).
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// The request of RFC 6455 §1.3, without what is optional.
pub(crate) const REQUEST: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// [`REQUEST`] for a path, with lines of headers.
pub(crate) fn request<'a>(path: &str, headers: impl IntoIterator<Item = &'a str>) -> String {
    let head = REQUEST.strip_suffix("\r\n").expect("the request ends");
    let mut request = head.replace("/chat?room=1", path);
    for line in headers {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request + "\r\n"
}

/// A request that asks for no WebSocket.
pub(crate) fn plain(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: server.example.com\r\n\r\n")
}

pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);
