//! A server that speaks TLS: the same protocol on top of it, whose ciphertext may wait where no queue of
//! ours sees it; certificates that change; and clients that never get as far as the WebSocket.
//!
//! Not its business: what TLS settings are accepted, which `src/tls.rs` checks.
#![cfg(feature = "tls")]

#[macro_use]
mod support;

#[path = "../src/directory.rs"]
mod directory;
#[path = "../src/pki.rs"]
mod pki;

use std::{
    fs,
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use directory::Directory;
use pki::{Identity, connector};
use support::{
    BINARY, CLOSE, Exposed, REQUEST, Raw, Running, TEXT, Web, close, echo, eventually, exposed,
    frame, masked, sender_from, server,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::mpsc::UnboundedReceiver,
    task::{JoinSet, yield_now},
    time::{self, pause, sleep},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::CertificateDer};
use ws_serve::{
    CloseCode, Config, Counts, Handler, Keepalive, Sender, Server, SlowConsumer, Socket, Tls, Topic,
};

everywhere! {
    messages_of_all_sizes_come_back,
    pieces_of_a_handshake_and_of_messages_are_put_together,
    the_closing_handshake_ends_with_close_notify,
    an_end_without_close_notify_is_clean_if_the_websocket_closed,
    an_end_without_a_close_is_not_clean,
    a_message_that_tls_took_reaches_a_client_that_goes_on_reading,
    a_message_that_was_offered_reaches_a_client_that_goes_on_reading,
    what_a_handler_sent_reaches_a_client_that_reads_in_sips,
    a_slow_member_is_disconnected_and_the_others_get_all,
    a_slow_member_misses_the_newest_and_the_others_get_all,
    a_slow_member_misses_the_oldest_and_the_others_get_all,
    a_slow_member_gets_the_last_values_and_the_others_get_all,
    what_is_queued_leaves_before_the_close,
    a_new_certificate_is_for_new_connections,
    only_clients_with_a_certificate_are_let_in,
    a_plain_client_is_dropped_without_an_answer,
    half_open_handshakes_keep_nobody_waiting_and_end_at_the_deadline,
    a_shutdown_does_not_wait_for_a_handshake_of_tls,
    a_hurry_ends_connections_over_tls,
}

type Secure = TlsStream<TcpStream>;

const HOUR: Duration = Duration::from_secs(3600);

/// A server with a certificate, and a way to it.
struct Site {
    running: Running,
    told: UnboundedReceiver<Exposed>,
    connector: TlsConnector,
}

fn tls_of(identity: &Identity) -> Tls {
    Tls::from_pem(identity.certificate.as_bytes(), identity.key.as_bytes()).expect("they match")
}

impl Site {
    /// An [`exposed`] handler.
    fn start(server: Server) -> Self {
        Self::hasten(server.handshake_timeout(HOUR))
    }

    /// As [`start`](Self::start), with the server's own patience for handshakes.
    fn hasten(server: Server) -> Self {
        let (handler, told) = exposed();
        Self::serve(server, handler, told)
    }

    fn echo(server: Server) -> Self {
        Self::serve(server.handshake_timeout(HOUR), echo, exposed().1)
    }

    /// As [`start`](Self::start), at an address where the system takes next to nothing on behalf of
    /// the server, either.
    fn narrow(server: Server) -> Self {
        let (handler, told) = exposed();
        Self::serve_narrow(server, handler, told)
    }

    fn serve_narrow(
        server: Server,
        handler: impl Handler<()>,
        told: UnboundedReceiver<Exposed>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let socket = socket2::SockRef::from(&listener);
        // What is accepted inherits it.
        socket.set_send_buffer_size(16 << 10).expect("a valid size");
        socket.listen(1024).expect("it is bound");
        let address = listener.local_addr().expect("it is bound");
        let server = server.listener(listener).handshake_timeout(HOUR);
        let mut site = Self::serve(server, handler, told);
        site.running.address = address;
        site
    }

    fn serve(server: Server, handler: impl Handler<()>, told: UnboundedReceiver<Exposed>) -> Self {
        let identity = Identity::new();
        // On a busy machine no Ping comes in between.
        let config = Config::default().keepalive(Keepalive::off()).max_message_size(16 << 20);
        let running = Running::start(server.config(config).tls(tls_of(&identity)), handler);
        Self { running, told, connector: connector(&[&identity], None, &["http/1.1"]) }
    }

    async fn web(&self) -> Web<Secure> {
        Web::open_over(connect(&self.connector, self.running.address).await).await
    }

    async fn raw(&self) -> Raw<Secure> {
        Raw::upgrade(connect(&self.connector, self.running.address).await).await
    }

    /// A client on whose behalf its system takes next to nothing, for those that do not read.
    async fn deaf(&self) -> Raw<Secure> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a valid size");
        let stream = socket.connect(self.running.address).await.expect("the server listens");
        let stream = shake_hands(&self.connector, stream).await.expect("a trusted server");
        Raw::upgrade(stream).await
    }

    /// The sender of the next connection, whatever becomes of former ones meanwhile.
    async fn next_sender(&mut self) -> Sender {
        loop {
            match self.told.recv().await {
                Some(Exposed::Sender(sender)) => return sender,
                Some(Exposed::Ended(_)) => {}
                other => panic!("{other:?} instead of a sender"),
            }
        }
    }

    /// Without ceremony, for tests that are not about the end.
    async fn end(self) {
        self.running.shutdown.hurry();
        self.running.end().await;
    }
}

async fn shake_hands(connector: &TlsConnector, stream: TcpStream) -> io::Result<Secure> {
    stream.set_nodelay(true)?;
    connector.connect("localhost".try_into().expect("a valid name"), stream).await
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> Secure {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    shake_hands(connector, stream).await.expect("a trusted server")
}

async fn join(raw: &mut Raw<Secure>, topic: &str) {
    raw.say(masked(TEXT, format!("+{topic}"))).await;
    raw.expect(frame(TEXT, format!("+{topic}"))).await;
}

/// Whether the server ended the TLS stream, and not only the TCP connection (RFC 8446 §6.1). Ends ours.
async fn hears_close_notify(mut raw: Raw<Secure>) -> bool {
    match raw.0.read(&mut [0]).await {
        Ok(0) => true,
        Ok(_) => panic!("a byte instead of the end"),
        Err(_) => false,
    }
}

async fn messages_of_all_sizes_come_back(server: Server) {
    let site = Site::echo(server);
    let mut client = site.web().await;
    // A record of TLS has up to 16 KiB.
    for size in [0, 1, 125, 126, 16_000, 16_384, 16_385, 65_535, 65_536, 1 << 20, 5 << 20] {
        let message: Vec<u8> = (0..size).map(|index: u32| (index % 251) as u8).collect();
        client.say(message.clone()).await;
        assert!(client.hear_message().await.as_bytes() == message, "{size} bytes");
    }
    // Many in one go, too.
    let mut raw = site.raw().await;
    let many: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
    raw.say(many.iter().flat_map(|text| masked(TEXT, text)).collect::<Vec<_>>()).await;
    raw.expect(many.iter().flat_map(|text| frame(TEXT, text)).collect::<Vec<_>>()).await;
    site.end().await;
}

/// T7: what comes in one record with the request, and what comes in as many as it has bytes.
async fn pieces_of_a_handshake_and_of_messages_are_put_together(server: Server) {
    let site = Site::echo(server);
    let said = [REQUEST.as_bytes(), &masked(TEXT, "early"), &masked(TEXT, "words")].concat();
    for size in [said.len(), 1, 7] {
        let stream = connect(&site.connector, site.running.address).await;
        let mut raw = Raw(BufReader::new(stream));
        for piece in said.chunks(size) {
            raw.say(piece).await;
        }
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
        raw.expect([frame(TEXT, "early"), frame(TEXT, "words")].concat()).await;
    }
    site.end().await;
}

async fn the_closing_handshake_ends_with_close_notify(server: Server) {
    let mut site = Site::start(server);
    let mut raw = site.raw().await;
    drop(sender_from(&mut site.told).await);
    raw.say(masked(CLOSE, close(1000, "bye"))).await;
    raw.expect(frame(CLOSE, close(1000, "bye"))).await;
    assert!(hears_close_notify(raw).await, "cut off");
    let Some(Exposed::Ended(closed)) = site.told.recv().await else { panic!("no end") };
    assert!(closed.is_clean(), "{closed}");
    site.end().await;
}

/// B30: the WebSocket's own handshake proves that nothing was cut, whoever closes, and however TCP ends.
async fn an_end_without_close_notify_is_clean_if_the_websocket_closed(server: Server) {
    let mut site = Site::start(server);
    for server_begins in [false, true] {
        let mut raw = site.raw().await;
        let sender = site.next_sender().await;
        if server_begins {
            sender.close(CloseCode::NORMAL, "bye");
            raw.expect(frame(CLOSE, close(1000, "bye"))).await;
        }
        raw.say(masked(CLOSE, close(1000, "bye"))).await;
        // TCP's end right behind it, below TLS.
        raw.0.get_mut().get_mut().0.shutdown().await.expect("the server is there");
        if !server_begins {
            raw.expect(frame(CLOSE, close(1000, "bye"))).await;
        }
        hears_close_notify(raw).await;
        let Some(Exposed::Ended(closed)) = site.told.recv().await else { panic!("no end") };
        assert_eq!((closed.is_clean(), closed.code()), (true, 1000), "{closed}");
    }
    site.end().await;
}

/// B30: with a `close_notify` or without, the WebSocket was not closed.
async fn an_end_without_a_close_is_not_clean(server: Server) {
    let mut site = Site::start(server);
    for with_notify in [true, false] {
        let mut raw = site.raw().await;
        drop(sender_from(&mut site.told).await);
        match with_notify {
            true => raw.0.get_mut().shutdown().await.expect("the server is there"),
            false => raw.0.get_mut().get_mut().0.shutdown().await.expect("the server is there"),
        }
        let Some(Exposed::Ended(closed)) = site.told.recv().await else { panic!("no end") };
        assert_eq!((closed.is_clean(), closed.code()), (false, 1006), "{closed}");
    }
    site.end().await;
}

/// T16: TLS takes plaintext while its ciphertext waits for the client, and nothing is queued on our side
/// then. Whatever is left there must leave when the client reads, without any other message that moves it.
async fn a_message_that_tls_took_reaches_a_client_that_goes_on_reading(server: Server) {
    let mut site = Site::narrow(server.max_queue(64 << 20));
    let topic = site.running.topics.get("t");
    // The sizes lead to different remainders in the buffer of TLS.
    for size in [100, 5000, 16_384, 30_000, 70_000] {
        let mut raw = site.deaf().await;
        let sender = site.next_sender().await;
        join(&mut raw, "t").await;
        let before = topic.counts();
        let mut published = 0;
        // Up to the first message that is queued; all those before TLS has taken.
        while topic.counts().waiting == before.waiting && sender.queued() == 0 {
            topic.publish(numbered(published, size));
            published += 1;
            eventually(|| topic.counts().sent == before.sent + u64::from(published)).await;
        }
        for number in 0..published {
            assert!(raw.frame().await == (BINARY, numbered(number, size)), "{number} of {size}");
        }
        assert_eq!(sender.queued(), 0);
        topic.publish("one more");
        raw.expect(frame(TEXT, "one more")).await;
        raw.say(masked(TEXT, "-t")).await;
        raw.expect(frame(TEXT, "-t")).await;
    }
    site.end().await;
}

fn numbered(number: u32, size: usize) -> Vec<u8> {
    let mut message = vec![number as u8; size];
    message[..4].copy_from_slice(&number.to_be_bytes());
    message
}

/// As above, with nothing behind the last message: not a byte is queued on our side, and no write comes
/// that would push.
async fn a_message_that_was_offered_reaches_a_client_that_goes_on_reading(server: Server) {
    let mut site = Site::narrow(server);
    for size in [100, 1000, 4000, 9000] {
        // How many fit into the system and TLS, on a connection like the ones to come.
        let raw = site.deaf().await;
        let sender = site.next_sender().await;
        let mut fit = 0;
        while sender.queued() == 0 {
            sender.try_send(numbered(fit, size)).expect("there is room");
            fit += 1;
        }
        drop(raw);
        // TLS holds 64 KiB, and so some of the last of them.
        for fewer in [1, 2, 4, 7] {
            let mut raw = site.deaf().await;
            let sender = site.next_sender().await;
            let mut sent = 0;
            while sent < fit - fewer && sender.queued() == 0 {
                sender.try_send(numbered(sent, size)).expect("there is room");
                sent += 1;
            }
            for number in 0..sent {
                assert!(raw.frame().await == (BINARY, numbered(number, size)), "{number}, {size}");
            }
            assert_eq!(sender.queued(), 0);
        }
    }
    site.end().await;
}

/// As above, with what the session writes and nobody offers: the client goes on reading and stops again,
/// many times, so that at some point our queue is empty and TLS still holds the rest.
async fn what_a_handler_sent_reaches_a_client_that_reads_in_sips(server: Server) {
    const COUNT: u32 = 60;
    let handler = |mut socket: Socket| async move {
        let Some(order) = socket.receive().await? else { return Ok(()) };
        for number in 0..COUNT {
            socket.send(numbered(number, order.len())).await?;
        }
        socket.receive().await.map(drop)
    };
    let site = Site::serve_narrow(server, handler, exposed().1);
    for size in [2999, 7001] {
        let mut raw = site.deaf().await;
        raw.say(masked(BINARY, vec![0; size])).await;
        for number in 0..COUNT {
            assert!(raw.frame().await == (BINARY, numbered(number, size)), "{number} of {size}");
            for _ in 0..50 {
                yield_now().await;
            }
        }
    }
    site.end().await;
}

/// Members of a topic over TLS, of which one does not read. The others get all, in order.
struct Crowd {
    site: Site,
    topic: Topic,
    slow: Raw<Secure>,
    sender: Sender,
    fast: JoinSet<u32>,
    heard: Arc<AtomicU64>,
    published: u32,
}

const CROWD: u64 = 49;
const SIZE: usize = 20_000;
const KEYS: u32 = 7;

impl Crowd {
    async fn gather(server: Server, policy: SlowConsumer) -> Self {
        let mut site = Site::narrow(server.max_queue(256 << 10));
        let topic = site.running.topics.get("t");
        topic.set_slow_consumer(policy);
        let heard = Arc::new(AtomicU64::new(0));
        let mut fast = JoinSet::new();
        for _ in 0..CROWD {
            let mut raw = site.raw().await;
            join(&mut raw, "t").await;
            drop(sender_from(&mut site.told).await);
            let heard = Arc::clone(&heard);
            fast.spawn(async move {
                for number in 0.. {
                    match raw.frame().await {
                        (BINARY, payload) => assert!(payload == numbered(number, SIZE)),
                        _ => return number,
                    }
                    heard.fetch_add(1, Ordering::Relaxed);
                }
                0
            });
        }
        let mut slow = site.deaf().await;
        let sender = site.next_sender().await;
        join(&mut slow, "t").await;
        Self { site, topic, slow, sender, fast, heard, published: 0 }
    }

    /// Publishes at the pace of those who read.
    async fn publish_until(&mut self, enough: impl Fn(&Counts) -> bool) {
        while !enough(&self.sender.counts()) {
            let key = (self.published % KEYS).to_string();
            self.topic.publish_keyed(&key, numbered(self.published, SIZE));
            self.published += 1;
            let due = CROWD * u64::from(self.published);
            eventually(|| self.heard.load(Ordering::Relaxed) == due).await;
        }
    }

    /// What the slow one gets when it reads at last: the numbers of all that was not dropped, exactly.
    async fn read_all(&mut self) -> Vec<u32> {
        let counts = self.sender.counts();
        let mut numbers = Vec::new();
        for _ in 0..counts.sent - counts.dropped() {
            let (first, payload) = self.slow.frame().await;
            assert_eq!((first, payload.len()), (BINARY, SIZE));
            let number = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
            assert!(payload == numbered(number, SIZE));
            numbers.push(number);
        }
        numbers
    }

    /// Nothing is stranded, and a last word reaches all.
    async fn end(mut self) {
        eventually(|| self.topic.counts().waiting == 0).await;
        self.topic.publish("end");
        for heard in self.fast.join_all().await {
            assert_eq!(heard, self.published);
        }
        if self.sender.is_open() {
            self.slow.expect(frame(TEXT, "end")).await;
        }
        self.site.end().await;
    }
}

async fn a_slow_member_is_disconnected_and_the_others_get_all(server: Server) {
    let mut crowd = Crowd::gather(server, SlowConsumer::default()).await;
    let sender = crowd.sender.clone();
    crowd.publish_until(|_| !sender.is_open()).await;
    let numbers = crowd.read_all().await;
    assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "{numbers:?}");
    crowd.slow.expect(frame(CLOSE, close(1013, "too slow"))).await;
    crowd.slow.say(masked(CLOSE, close(1013, ""))).await;
    assert_eq!(crowd.slow.0.read(&mut [0]).await.expect("a close_notify"), 0);
    assert_eq!(crowd.sender.counts().delivered(), numbers.len() as u64);
    crowd.end().await;
}

async fn a_slow_member_misses_the_newest_and_the_others_get_all(server: Server) {
    let mut crowd = Crowd::gather(server, SlowConsumer::DropNewest).await;
    crowd.publish_until(|counts| counts.dropped_full == 30).await;
    let numbers = crowd.read_all().await;
    assert!(numbers.iter().copied().eq(0..crowd.published - 30), "{numbers:?}");
    crowd.end().await;
}

async fn a_slow_member_misses_the_oldest_and_the_others_get_all(server: Server) {
    let mut crowd = Crowd::gather(server, SlowConsumer::DropOldest).await;
    crowd.publish_until(|counts| counts.dropped_full == 30).await;
    let numbers = crowd.read_all().await;
    let first = numbers.iter().zip(0..).take_while(|(number, place)| *number == place).count();
    let rest = &numbers[first..];
    assert_eq!(rest.first(), Some(&(first as u32 + 30)), "{numbers:?}");
    assert!(rest.iter().copied().eq(rest[0]..crowd.published), "{numbers:?}");
    crowd.end().await;
}

/// T18.
async fn a_slow_member_gets_the_last_values_and_the_others_get_all(server: Server) {
    let mut crowd = Crowd::gather(server, SlowConsumer::Conflate).await;
    crowd.publish_until(|counts| counts.dropped_conflated >= 30).await;
    let numbers = crowd.read_all().await;
    assert!(numbers.is_sorted(), "{numbers:?}");
    let last = &numbers[numbers.len() - KEYS as usize..];
    assert!(last.iter().copied().eq(crowd.published - KEYS..crowd.published), "{numbers:?}");
    crowd.end().await;
}

/// T28: what our queue and TLS hold, and what is behind it all.
async fn what_is_queued_leaves_before_the_close(server: Server) {
    let mut site = Site::start(server);
    let mut raw = site.deaf().await;
    let sender = site.next_sender().await;
    let mut accepted = 0;
    while sender.try_send(numbered(accepted, SIZE)).is_ok() {
        accepted += 1;
    }
    site.running.shutdown.start();
    eventually(|| !sender.is_open()).await;
    for number in 0..accepted {
        assert!(raw.frame().await == (BINARY, numbered(number, SIZE)), "{number}");
    }
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(hears_close_notify(raw).await, "cut off");
    site.running.end().await;
}

/// The certificate that the server showed.
fn shown(stream: &Secure) -> CertificateDer<'static> {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.expect("it showed one")[0].clone().into_owned()
}

async fn still_echoes(raw: &mut Raw<Secure>) {
    raw.say(masked(TEXT, "still here")).await;
    raw.expect(frame(TEXT, "still here")).await;
}

/// T30.
async fn a_new_certificate_is_for_new_connections(server: Server) {
    let (old, new) = (Identity::new(), Identity::new());
    let directory = Directory::new();
    let (certificate, key) = (directory.path("cert.pem"), directory.path("key.pem"));
    let write = |path: &Path, text: &str| fs::write(path, text).expect("our own directory");
    write(&certificate, &old.certificate);
    write(&key, &old.key);
    let tls = Tls::from_files(&certificate, &key).expect("they match");
    let running = Running::start(server.tls(tls.clone()), echo);
    // The same client, which would resume its session if it could.
    let connector = connector(&[&old, &new], None, &["http/1.1"]);
    let open = async |expected: &Identity| {
        let stream = connect(&connector, running.address).await;
        assert_eq!(shown(&stream), expected.der());
        Raw::upgrade(stream).await
    };
    let mut first = open(&old).await;

    // Half renewed, broken, gone: what was there stays.
    write(&certificate, &new.certificate);
    tls.reload().expect_err("the key is the old one");
    let mut second = open(&old).await;
    write(&key, "no key at all");
    tls.reload().expect_err("there is no key");
    let mut third = open(&old).await;
    fs::remove_file(&key).expect("it is there");
    tls.reload().expect_err("there is no file");
    let mut fourth = open(&old).await;

    write(&key, &new.key);
    tls.reload().expect("they match");
    let mut fifth = open(&new).await;
    for raw in [&mut first, &mut second, &mut third, &mut fourth, &mut fifth] {
        still_echoes(raw).await;
    }
    running.shutdown.hurry();
    running.end().await;
}

async fn only_clients_with_a_certificate_are_let_in(server: Server) {
    let (own, friend, stranger) = (Identity::new(), Identity::new(), Identity::new());
    let tls = tls_of(&own).client_certificates(friend.certificate.as_bytes()).expect("PEM");
    let (handler, mut told) = exposed();
    let running = Running::start(server.tls(tls), handler);
    for identity in [None, Some(&stranger)] {
        let connector = connector(&[&own], identity, &["http/1.1"]);
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        // In TLS 1.3 the client is done before the server has looked.
        let Ok(mut stream) = shake_hands(&connector, stream).await else { continue };
        let _ = stream.write_all(REQUEST.as_bytes()).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect_err("an alert");
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
    }
    let connector = connector(&[&own], Some(&friend), &["http/1.1"]);
    let mut raw = Raw::upgrade(connect(&connector, running.address).await).await;
    drop(sender_from(&mut told).await);
    join(&mut raw, "t").await;
    assert!(told.try_recv().is_err(), "somebody else came in");
    running.shutdown.hurry();
    running.end().await;
}

async fn a_plain_client_is_dropped_without_an_answer(server: Server) {
    let mut site = Site::start(server);
    for said in [REQUEST, "GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"] {
        let mut stream = TcpStream::connect(site.running.address).await.expect("it listens");
        stream.write_all(said.as_bytes()).await.expect("the server is there");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        // RFC 8446 §6: nothing, or an alert.
        assert!(answer.is_empty() || answer[0] == 21, "{}", answer.escape_ascii());
    }
    let mut raw = site.raw().await;
    drop(sender_from(&mut site.told).await);
    join(&mut raw, "t").await;
    assert!(site.told.try_recv().is_err(), "somebody else came in");
    site.end().await;
}

/// The beginning of a record with a ClientHello of 512 bytes (RFC 8446 §5.1, §4.1.2).
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7];

/// T4: before TLS, in the middle of it, and after it; silent, and a byte at a time.
async fn half_open_handshakes_keep_nobody_waiting_and_end_at_the_deadline(server: Server) {
    const DEADLINE: Duration = Duration::from_secs(4);
    let server = server.handshake_timeout(DEADLINE);
    let monitor = server.monitor();
    let site = Site::hasten(server);
    let start = Instant::now();
    let mut half_open = JoinSet::new();
    for _ in 0..4 {
        for said in [&[][..], HALF_A_HELLO] {
            let stream = TcpStream::connect(site.running.address).await.expect("it listens");
            half_open.spawn(dawdle(stream, said, &[0]));
        }
        for said in [&[][..], &REQUEST.as_bytes()[..60]] {
            let stream = connect(&site.connector, site.running.address).await;
            half_open.spawn(dawdle(stream, said, b"x"));
        }
    }
    let mut good = Vec::new();
    for _ in 0..10 {
        let mut raw = site.raw().await;
        join(&mut raw, "t").await;
        good.push(raw);
    }
    assert!(half_open.try_join_next().is_none(), "the good ones had to wait");
    while let Some(ended) = half_open.join_next().await {
        let (ended, answer) = ended.expect("no panic");
        assert!(ended.duration_since(start) >= DEADLINE, "{:?}", ended.duration_since(start));
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    }
    eventually(|| monitor.stats().connections == good.len() as u64).await;
    for raw in &mut good {
        join(raw, "u").await;
    }
    site.end().await;
}

/// Says something, and then one more byte every now and then, or nothing if it has said nothing; answers
/// when the end came, and what came before it.
async fn dawdle<S>(stream: S, said: &[u8], more: &[u8]) -> (Instant, Vec<u8>)
where
    S: AsyncRead + AsyncWrite,
{
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let dawdling = async {
        let said_it = async {
            writing.write_all(said).await?;
            writing.flush().await
        };
        if said_it.await.is_err() || said.is_empty() {
            return pending().await;
        }
        loop {
            sleep(Duration::from_millis(20)).await; // tidy: allow-sleep(a slow client is what this is)
            if writing.write_all(more).await.is_err() || writing.flush().await.is_err() {
                return pending().await;
            }
        }
    };
    tokio::select! {
        _ = reading.read_to_end(&mut answer) => {}
        () = dawdling => {}
    }
    (Instant::now(), answer)
}

/// T4: it counts from the beginning, whatever has been achieved since.
#[tokio::test]
async fn tls_and_the_request_have_one_deadline() {
    let site = Site::start(server().handshake_timeout(HOUR));
    let checked = time::timeout(24 * HOUR, async {
        let mut streams = Vec::new();
        for _ in 0..2 {
            streams.push(TcpStream::connect(site.running.address).await.expect("it listens"));
        }
        // A listener accepts in order, so that the clocks of the two run now.
        drop(site.web().await);
        spend(HOUR - Duration::from_secs(60)).await;
        let mut opening = Vec::new();
        for stream in streams {
            let stream = shake_hands(&site.connector, stream).await.expect("there is time left");
            let mut raw = Raw(BufReader::new(stream));
            raw.say(&REQUEST[..60]).await;
            opening.push(raw);
        }
        opening[0].say(&REQUEST[60..]).await;
        assert!(opening[0].head().await.starts_with("HTTP/1.1 101 "));
        spend(Duration::from_secs(120)).await;
        let mut answer = Vec::new();
        let _ = opening[1].0.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", answer.escape_ascii());
    });
    checked.await.expect("done within a virtual day");
}

/// Moves the clock, and lets it run again.
async fn spend(duration: Duration) {
    pause();
    time::advance(duration).await;
    time::resume();
}

/// Who has not said a word of HTTP cannot be answered by it; who has begun to is.
async fn a_shutdown_does_not_wait_for_a_handshake_of_tls(server: Server) {
    let site = Site::start(server.handshake_timeout(HOUR).drain_timeout(HOUR));
    let mut waiting = Vec::new();
    for said in [&[][..], HALF_A_HELLO] {
        let mut stream = TcpStream::connect(site.running.address).await.expect("it listens");
        stream.write_all(said).await.expect("the server is there");
        waiting.push(stream);
    }
    let mut raw = site.raw().await;
    join(&mut raw, "t").await;
    site.running.shutdown.start();
    raw.expect(frame(CLOSE, close(1001, "server is shutting down"))).await;
    for mut stream in waiting {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
    }
    raw.say(masked(CLOSE, close(1001, ""))).await;
    assert!(hears_close_notify(raw).await, "cut off");
    site.running.end().await;
}

async fn a_hurry_ends_connections_over_tls(server: Server) {
    let mut site = Site::start(server.handshake_timeout(HOUR).drain_timeout(HOUR));
    let mut stalled = site.deaf().await;
    let sender = site.next_sender().await;
    while sender.try_send(vec![0; SIZE]).is_ok() {}
    let handshaking = TcpStream::connect(site.running.address).await.expect("it listens");
    site.running.shutdown.start();
    eventually(|| !sender.is_open()).await;
    assert!(!site.running.serving.is_finished());
    site.running.shutdown.hurry();
    site.end().await;
    let _ = stalled.0.read_to_end(&mut Vec::new()).await;
    drop(handshaking);
}
