//! Who is let in, how long the others may take, and that every place is given back (T4, T6, T8).
//!
//! Not its business: the arithmetic of the counts (`gate.rs`), and limits on messages.

#[macro_use]
mod support;

#[cfg(feature = "tls")]
#[path = "../src/pki.rs"]
mod pki;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use support::{
    CLOSE, Exposed, REQUEST, Raw, Running, TEXT, WATCHDOG, Web, ask, close, connect_from, echo,
    eventually, exposed, frame, masked, plain, request, reset_on_drop, sender_from, server,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::{JoinSet, yield_now},
    time::{Instant, interval},
};
use ws_serve::{
    CloseCode, Limits, Monitor, Page, Rate, Route, Server, Socket, TrustedProxies, http::Response,
};

everywhere! {
    a_full_server_refuses_with_503_and_disturbs_nobody,
    an_address_with_too_many_is_refused_with_429,
    too_many_handshakes_at_once_are_refused_with_429,
    half_open_connections_count_for_their_address,
    half_open_connections_of_a_proxy_count_for_nobody,
    limits_are_replaced_while_the_server_runs,
    places_come_back_on_every_way_out,
    a_sender_that_is_kept_keeps_no_place,
    clients_that_vanish_before_the_answer_leave_nothing,
    heads_beyond_the_limits_are_refused_and_forgotten,
    a_head_that_drips_is_given_up,
}

/// A client at every address, which is served.
async fn talk(client: &mut Web) {
    client.say("still here").await;
    assert_eq!(client.hear().await, "still here");
}

async fn connections(monitor: &Monitor, count: usize) {
    eventually(|| monitor.stats().connections == count as u64).await;
}

/// T8: exact, and nobody who is in notices.
async fn a_full_server_refuses_with_503_and_disturbs_nobody(server: Server) {
    let server = server.limits(Limits::none().connections(5));
    let monitor = server.monitor();
    let running = Running::start(server.health("/health"), echo);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(running.client().await);
    }
    for round in 1..=10 {
        // Whatever it would have asked: it is not read.
        let probe = plain("GET", "/health");
        let answer = running.ask([REQUEST, "", &probe, "\u{16}"][round % 4]).await;
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("10")), "{answer:?}");
        assert_eq!(answer.body, "Too many connections.\n");
        assert_eq!(monitor.stats().refused, round as u64);
    }
    for client in &mut clients {
        talk(client).await;
    }
    for _ in 0..3 {
        clients.remove(0);
        connections(&monitor, 4).await;
        clients.push(running.client().await);
        assert_eq!(running.ask(REQUEST).await.status, 503);
    }
    for client in &mut clients {
        talk(client).await;
    }
    let stats = monitor.stats();
    assert_eq!((stats.connections, stats.addresses, stats.refused), (5, 1, 13));
}

/// T8: by address, and each has its own count.
async fn an_address_with_too_many_is_refused_with_429(server: Server) {
    let server = server.limits(Limits::none().connections_per_address(2));
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let mut clients = Vec::new();
    for last in [2, 3, 4] {
        for _ in 0..2 {
            clients.push(Raw::open_from([127, 0, 0, last], running.address).await);
        }
    }
    for last in [2, 3, 4] {
        let stream = connect_from([127, 0, 0, last], running.address).await;
        let answer = ask(stream, REQUEST).await;
        assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("10")), "{answer:?}");
        assert_eq!(answer.body, "Too many connections from your address.\n");
    }
    for client in &mut clients {
        client.say(masked(TEXT, "still here")).await;
        client.expect(frame(TEXT, "still here")).await;
    }
    // One of 127.0.0.2 leaves, and makes room for nobody else.
    clients.remove(0);
    connections(&monitor, 5).await;
    let stream = connect_from([127, 0, 0, 3], running.address).await;
    assert_eq!(ask(stream, REQUEST).await.status, 429);
    clients.push(Raw::open_from([127, 0, 0, 2], running.address).await);
    eventually(|| monitor.stats().connections == 6).await;
    assert_eq!(monitor.stats().addresses, 3);
    clients.clear();
    connections(&monitor, 0).await;
    assert_eq!(monitor.stats().addresses, 0);
}

/// T8: the burst, then the rate.
async fn too_many_handshakes_at_once_are_refused_with_429(server: Server) {
    let server = server.limits(Limits::none().handshakes(Rate::per_second(1).burst(5)));
    let start = Instant::now();
    let running = Running::start(server, echo);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(running.client().await);
    }
    let mut refused = 0;
    for _ in 0..20 {
        let answer = running.ask(plain("GET", "/")).await;
        if answer.status == 429 {
            refused += 1;
            assert_eq!(answer.header("Retry-After"), Some("1"));
            assert_eq!(answer.body, "Too many connections at once.\n");
        }
    }
    // One for every whole second that this took.
    let allowed = start.elapsed().as_secs();
    assert!((20 - allowed..=20).contains(&refused), "{refused}, {allowed}");
    for client in &mut clients {
        talk(client).await;
    }
    // Who was refused has used up nothing.
    while running.ask(plain("GET", "/")).await.status == 429 {}
    assert!(start.elapsed() >= Duration::from_secs(1));
}

/// A connection that says nothing yet.
async fn silent(source: [u8; 4], address: SocketAddr) -> Raw {
    Raw(BufReader::new(connect_from(source, address).await))
}

/// T4, T8: otherwise one address could take all places, if only for as long as a handshake may take.
async fn half_open_connections_count_for_their_address(server: Server) {
    let server = server.limits(Limits::none().connections_per_address(2));
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let (greedy, other) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let mut waiting = Vec::new();
    for count in 1..=2 {
        waiting.push(silent(greedy, running.address).await);
        connections(&monitor, count).await;
    }
    for asked in ["", REQUEST] {
        let answer = ask(connect_from(greedy, running.address).await, asked).await;
        assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("10")), "{answer:?}");
    }
    let mut client = Raw::open_from(other, running.address).await;
    client.say(masked(TEXT, "hello")).await;
    client.expect(frame(TEXT, "hello")).await;
    // And those who wait may go on.
    for raw in &mut waiting {
        raw.say(REQUEST).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
    }
}

/// For whom a proxy speaks is not known before it has said so.
async fn half_open_connections_of_a_proxy_count_for_nobody(server: Server) {
    let server = server
        .limits(Limits::none().connections_per_address(1))
        .trusted_proxies(TrustedProxies::new(["127.0.0.2"]).expect("an address"));
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let mut waiting = Vec::new();
    for count in 1..=5 {
        waiting.push(silent([127, 0, 0, 2], running.address).await);
        connections(&monitor, count).await;
    }
    assert_eq!(monitor.stats().addresses, 0);
    for (client, raw) in waiting.iter_mut().enumerate() {
        raw.say(request("/", [&*format!("X-Forwarded-For: 203.0.113.{client}")])).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
    }
    assert_eq!(monitor.stats().addresses, 5);
    let again = silent([127, 0, 0, 2], running.address).await;
    let asked = request("/", ["X-Forwarded-For: 203.0.113.4"]);
    assert_eq!(ask(again.0.into_inner(), asked).await.status, 429);
}

/// T8: [`ws_serve::Gate::set_limits`]: "Those who are in stay in".
async fn limits_are_replaced_while_the_server_runs(server: Server) {
    let (gate, monitor) = (server.gate(), server.monitor());
    let running = Running::start(server, echo);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(running.client().await);
    }
    for (limits, status) in [
        (Limits::none().connections(2), 503),
        (Limits::none().connections(0), 503),
        (Limits::none().connections_per_address(4), 429),
        (Limits::none().connections_per_address(0), 429),
    ] {
        gate.set_limits(limits);
        assert_eq!(running.ask(REQUEST).await.status, status, "{limits:?}");
        for client in &mut clients {
            talk(client).await;
        }
        connections(&monitor, 4).await;
    }
    gate.set_limits(Limits::none().connections(2));
    clients.truncate(2);
    connections(&monitor, 2).await;
    assert_eq!(running.ask(REQUEST).await.status, 503);
    clients.truncate(1);
    connections(&monitor, 1).await;
    clients.push(running.client().await);
    assert_eq!(running.ask(REQUEST).await.status, 503);
    gate.set_limits(Limits::none().handshakes(Rate::per_second(1).burst(1)));
    clients.push(running.client().await);
    while running.ask(plain("POST", "/")).await.status != 429 {}
    gate.set_limits(Limits::none());
    for _ in 0..10 {
        clients.push(running.client().await);
    }
    for client in &mut clients {
        talk(client).await;
    }
}

async fn obey(mut socket: Socket) -> Result<(), &'static str> {
    while let Ok(Some(order)) = socket.receive().await {
        match order.as_text() {
            Some("return") => return Ok(()),
            Some("fail") => return Err("on demand"),
            Some("panic") => panic!("on demand"),
            Some("close") => socket.close(CloseCode::POLICY_VIOLATION, ""),
            Some("give away") => drop(tokio::spawn(echo(socket))),
            _ => continue,
        }
        break;
    }
    Ok(())
}

/// T8. Each way is taken more often than there are places.
async fn places_come_back_on_every_way_out(server: Server) {
    const PLACES: usize = 2;
    let limits = Limits::none().connections(PLACES).connections_per_address(PLACES);
    let server = server
        .limits(limits)
        .handshake_timeout(Duration::from_millis(100))
        .health("/health")
        .route("/", Route::new(obey).max_connections(PLACES))
        .route("/number/{n}", Route::new(async |_: Socket, _: u8| {}).max_connections(PLACES))
        .route("/slash/", obey)
        .route("/full", Route::new(obey).max_connections(0))
        .page("/page", Page::text("a page\n"))
        .on_request(|request| match request.uri().path() {
            "/refused" => Some(Response::new(Bytes::from("refused\n"))),
            "/panic" => panic!("on demand"),
            _ => None,
        });
    let monitor = server.monitor();
    let running = Running::run(server);

    let evil = request("/", ["Origin: https://evil.example"]);
    let old = request("/", []).replace("Version: 13", "Version: 8");
    for (asked, status) in [
        (evil, 403),
        (old, 426),
        (plain("GET", "/"), 426),
        (plain("GET", "/page"), 200),
        (plain("DELETE", "/page"), 405),
        (plain("GET", "/health"), 200),
        (request("/nowhere", []), 404),
        (request("/number/x", []), 404),
        (request("/slash", []), 308),
        (request("/refused", []), 200),
        (request("/panic", []), 0),
        (request("/full", []), 503),
        ("no HTTP\r\n\r\n".to_owned(), 400),
    ] {
        for _ in 0..=PLACES {
            let answer = running.ask(&asked).await;
            assert_eq!(answer.status, status, "{asked}: {answer:?}");
            connections(&monitor, 0).await;
        }
    }
    // Nothing, a part, and a part with the end.
    for (said, ends) in [("", true), ("", false), ("GET / HT", true), ("GET / HT", false)] {
        for _ in 0..=PLACES {
            let mut raw = silent([127, 0, 0, 1], running.address).await;
            raw.say(said).await;
            if ends {
                raw.0.shutdown().await.expect("the server is there");
            }
            // Perhaps an answer; no 101.
            let mut answer = Vec::new();
            let _ = raw.0.read_to_end(&mut answer).await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
            connections(&monitor, 0).await;
        }
    }
    for (order, code) in
        [("return", 1000), ("fail", 1011), ("panic", 1011), ("close", 1008), ("give away", 1000)]
    {
        for _ in 0..=PLACES {
            let mut client = running.visit("/").await;
            client.say(order).await;
            assert_eq!(client.hear_end().await.0, code);
            drop(client);
            connections(&monitor, 0).await;
        }
    }
    for how in ["close", "end", "reset", "half a frame", "a violation"] {
        for _ in 0..=PLACES {
            let mut raw = silent([127, 0, 0, 1], running.address).await;
            raw.say(request("/", [])).await;
            raw.head().await;
            match how {
                "close" => {
                    raw.say(masked(CLOSE, close(1000, ""))).await;
                    raw.expect(frame(CLOSE, close(1000, ""))).await;
                }
                "half a frame" => raw.say(&masked(TEXT, "hello")[..3]).await,
                "a violation" => raw.say(frame(TEXT, "unmasked")).await,
                "reset" => reset_on_drop(raw.0.get_ref()),
                _ => {}
            }
            drop(raw);
            connections(&monitor, 0).await;
        }
    }
    assert_eq!(monitor.stats().addresses, 0);
    // The route's places, too.
    let mut clients = Vec::new();
    for _ in 0..PLACES {
        clients.push(running.visit("/").await);
    }
    assert_eq!(running.ask(REQUEST).await.status, 503);
}

/// T8: an application may keep senders for as long as it likes; "whoever still holds a sender holds no
/// file descriptor", and no place.
async fn a_sender_that_is_kept_keeps_no_place(server: Server) {
    let (handler, mut told) = exposed();
    let limits = Limits::none().connections(1).connections_per_address(1);
    let server = server.limits(limits).fallback(Route::new(handler).max_connections(1));
    let monitor = server.monitor();
    let running = Running::run(server);
    let mut kept = Vec::new();
    for _ in 0..5 {
        let mut client = Web::member(running.address, "t").await;
        kept.push(sender_from(&mut told).await);
        client.0.close(CloseCode::NORMAL, "").await;
        let Some(Exposed::Ended(_)) = told.recv().await else { panic!("no end") };
        connections(&monitor, 0).await;
    }
    assert_eq!(monitor.stats().addresses, 0);
    assert!(kept.iter().all(|sender| !sender.is_open()));
}

/// T7, in small: gone between the request and the 101.
async fn clients_that_vanish_before_the_answer_leave_nothing(server: Server) {
    const ROUNDS: usize = 1000;
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    for round in 0..ROUNDS {
        let mut stream = TcpStream::connect(running.address).await.expect("the server listens");
        stream.write_all(REQUEST.as_bytes()).await.expect("the server is there");
        if round % 2 == 0 {
            reset_on_drop(&stream);
        }
    }
    connections(&monitor, 0).await;
    assert_eq!(monitor.stats().addresses, 0);
    talk(&mut running.client().await).await;
}

/// T2, T3, B1, through the server; every way to be malformed is in ws-handshake's tests.
async fn heads_beyond_the_limits_are_refused_and_forgotten(server: Server) {
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let headers = |count| request("/", (0..count).map(|_| "X: y"));
    let long = |name: &str, filler: &str, length: usize| {
        let line = format!("{name}: a{},b", filler.repeat(length / filler.len()));
        request("/", [&*line])
    };
    for (asked, status) in [
        (headers(129 - 5), 431),
        (headers(2_000), 431),
        (headers(65_536), 431),
        (long("X", "x", 8_193), 431),
        (long("Sec-WebSocket-Protocol", " ", 64 << 10), 431),
        (long("Sec-WebSocket-Protocol", ",", 64 << 10), 431),
        (headers(100), 101),
        (request(&format!("/{}", "x".repeat(8_193)), []), 414),
        (request("/", []).replace("\r\n", "\n"), 400),
        (request("/", ["X: y", " folded"]), 400),
        (request("/", ["X: \0"]), 400),
        (request("/", ["Host: x"]), 400),
        (request("/", ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]), 400),
    ] {
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        let mut raw = Raw(BufReader::new(stream));
        raw.say(&asked).await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{asked:.200}\n{head}");
        drop(raw);
        connections(&monitor, 0).await;
    }
    // As many spaces and commas as a line may have.
    for filler in [" ", ",", ", "] {
        let asked = long("Sec-WebSocket-Protocol", filler, 8_000);
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        drop(Raw::upgrade_with(stream, asked).await);
    }
    running.end().await;
}

/// Says a little, and then a byte now and then until it is thrown out; answers how long after it
/// connected.
async fn drip(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    start: Instant,
    beginning: &[u8],
) -> Duration {
    let (mut answer, mut ticks) = ([0; 1000], interval(Duration::from_millis(20)));
    let mut rest = beginning.iter();
    loop {
        tokio::select! {
            // An answer, such as 408, would be as good as the end; there is none.
            read = stream.read(&mut answer) => match read {
                Ok(0) | Err(_) => return start.elapsed(),
                Ok(length) => panic!("{} instead of the end", answer[..length].escape_ascii()),
            },
            _ = ticks.tick() => {
                let byte = rest.next().unwrap_or(&b'x');
                if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                    return start.elapsed();
                }
            }
        }
    }
}

/// 500 at once, where the bar of T4 is 10 000.
const DRIPPING: usize = 500;
const SHORT: Duration = Duration::from_secs(1);

/// How long those who drip were served: not much longer than the deadline, though they never paused for
/// as long. The slack is the machine's.
fn assert_ended_in_time(after: &[Duration]) {
    for after in after {
        assert!((SHORT..SHORT * 10).contains(after), "{after:?}");
    }
}

/// T4: a deadline for all of the handshake, not for each byte; and good clients come in meanwhile.
async fn a_head_that_drips_is_given_up(server: Server) {
    let server = server.handshake_timeout(SHORT);
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let mut dripping = JoinSet::new();
    for number in 0..DRIPPING {
        let start = Instant::now();
        let stream = TcpStream::connect(running.address).await.expect("the server listens");
        let beginning: &[u8] = [REQUEST.as_bytes(), b"GET / HTTP/1.1\r\nX: "][number % 2];
        dripping.spawn(drip(stream, start, beginning));
    }
    let mut good = Vec::new();
    while !dripping.is_empty() && good.len() < 100 {
        let mut client = running.client().await;
        talk(&mut client).await;
        good.push(client);
        yield_now().await;
    }
    assert_ended_in_time(&dripping.join_all().await);
    connections(&monitor, good.len()).await;
    for client in &mut good {
        talk(client).await;
    }
}

#[cfg(feature = "tls")]
mod tls {
    use tokio_rustls::rustls::pki_types::ServerName;
    use ws_serve::Tls;

    use super::*;
    use crate::{
        pki::{Identity, connector},
        support::within,
    };

    /// Fewer have shaken hands, which costs more than all the rest.
    const HALF_OPEN: usize = 50;

    /// The first record of a client, which goes on for longer than the deadline.
    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

    everywhere! {
        a_tls_handshake_that_drips_is_given_up,
        a_head_that_drips_behind_tls_is_given_up,
        places_come_back_after_tls,
    }

    struct Secure {
        running: Running,
        monitor: Monitor,
        identity: Identity,
    }

    impl Secure {
        fn start(server: Server) -> Self {
            let identity = Identity::new();
            let tls = Tls::from_pem(identity.certificate.as_bytes(), identity.key.as_bytes());
            let server = server.handshake_timeout(SHORT).tls(tls.expect("it is our own"));
            let monitor = server.monitor();
            Self { running: Running::start(server, echo), monitor, identity }
        }

        async fn connect(&self) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
            let stream =
                TcpStream::connect(self.running.address).await.expect("the server listens");
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = connector(&[&self.identity], None, &["http/1.1"]);
            connector.connect(name, stream).await.expect("they trust each other")
        }

        /// A client that is served.
        async fn talk(&self) {
            let mut stream = self.connect().await;
            let said = [REQUEST.as_bytes(), &masked(TEXT, "hello")].concat();
            stream.write_all(&said).await.expect("the server is there");
            let mut heard = Vec::new();
            while !heard.ends_with(&frame(TEXT, "hello")) {
                heard.push(stream.read_u8().await.expect("an echo"));
            }
            assert!(heard.starts_with(b"HTTP/1.1 101 "));
        }
    }

    /// T4: "Same during TLS handshake."
    async fn a_tls_handshake_that_drips_is_given_up(server: Server) {
        let secure = Secure::start(server);
        let mut dripping = JoinSet::new();
        for _ in 0..DRIPPING {
            let start = Instant::now();
            let stream = TcpStream::connect(secure.running.address).await.expect("it listens");
            dripping.spawn(drip(stream, start, HELLO));
        }
        for _ in 0..10 {
            secure.talk().await;
        }
        assert_ended_in_time(&dripping.join_all().await);
        connections(&secure.monitor, 0).await;
    }

    /// T4: "Half-open after TLS: same."
    async fn a_head_that_drips_behind_tls_is_given_up(server: Server) {
        let secure = Secure::start(server);
        let mut dripping = JoinSet::new();
        for _ in 0..HALF_OPEN {
            let start = Instant::now();
            dripping.spawn(drip(secure.connect().await, start, REQUEST.as_bytes()));
        }
        for _ in 0..10 {
            secure.talk().await;
        }
        assert_ended_in_time(&dripping.join_all().await);
        connections(&secure.monitor, 0).await;
    }

    /// T8: garbage, plain HTTP, a handshake that is broken off; and who finds no place gets its end.
    async fn places_come_back_after_tls(server: Server) {
        let secure = Secure::start(server.limits(Limits::none().connections(1)));
        for said in [REQUEST.as_bytes(), b"\x16\x03\x01\x00\x01\xff", b"", HELLO] {
            let mut stream = TcpStream::connect(secure.running.address).await.expect("it listens");
            stream.write_all(said).await.expect("the server is there");
            if said.is_empty() {
                stream.shutdown().await.expect("the server is there");
            }
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
            connections(&secure.monitor, 0).await;
        }
        let first = secure.connect().await;
        let mut second = TcpStream::connect(secure.running.address).await.expect("it listens");
        assert_eq!(second.read(&mut [0]).await.unwrap_or_default(), 0);
        assert_eq!(secure.monitor.stats().refused, 1);
        drop(first);
        connections(&secure.monitor, 0).await;
        secure.talk().await;
    }

    #[tokio::test]
    async fn who_knows_no_tls_gets_no_upgrade() {
        let secure = Secure::start(server());
        within(async {
            let mut stream = TcpStream::connect(secure.running.address).await.unwrap();
            stream.write_all(REQUEST.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", answer.escape_ascii());
        })
        .await;
    }
}

/// T6, in a process of its own, whose limit on descriptors it is.
#[cfg(target_os = "linux")]
mod descriptors {
    use std::{
        env, fs,
        io::{self, BufRead, BufReader, Read, Write},
        net::{SocketAddr, TcpStream},
        process::{Child, Command, Stdio, exit},
        thread::{self, sleep},
        time::{Duration, Instant},
    };

    use tokio::runtime::Builder;

    use super::{REQUEST, Running, TEXT, WATCHDOG, echo, frame, masked, server};

    const SERVES: &str = "WS_SERVE_TEST_SERVES";
    const SAYS: &str = "listening on ";
    const DESCRIPTORS: usize = 64;

    /// The other process: serves until its input ends.
    fn serve(workers: usize) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let server = server().workers(workers).handshake_timeout(WATCHDOG * 10);
            let running = Running::start(server, echo);
            writeln!(io::stdout(), "{SAYS}{}", running.address).expect("somebody reads");
            thread::spawn(|| {
                let _ = io::stdin().read(&mut [0]);
                exit(0);
            });
            running.serving.await.expect("no panic").expect("nothing that a client does ends it");
        });
    }

    struct Process {
        child: Child,
        address: SocketAddr,
    }

    impl Process {
        /// Runs a test in another process, where it [serves](serve).
        fn start(test: &str) -> Self {
            let script = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
            let mut child = Command::new("sh")
                .args(["-c", &script])
                .arg(env::current_exe().expect("it runs"))
                .args(["--exact", test, "--nocapture"])
                .env(SERVES, "")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("there is a shell");
            let output = BufReader::new(child.stdout.take().expect("piped"));
            let address = output
                .lines()
                .map_while(Result::ok)
                .find_map(|line| Some(line.split_once(SAYS)?.1.parse().expect("an address")));
            Self { child, address: address.expect("it says where") }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.address).expect("the server listens");
            stream.set_read_timeout(Some(WATCHDOG)).expect("not zero");
            stream
        }

        fn client(&self) -> TcpStream {
            let mut stream = self.connect();
            stream.write_all(REQUEST.as_bytes()).expect("the server is there");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a head");
                head.extend(byte);
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
            stream
        }

        fn descriptors(&self) -> usize {
            let path = format!("/proc/{}/fd", self.child.id());
            fs::read_dir(path).map_or(0, Iterator::count)
        }

        /// User's and system's, in hundredths of a second.
        fn processor_time(&self) -> u64 {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
            let stat = stat.expect("it runs");
            // proc(5): the name, in parentheses, is the only field that may have spaces.
            let (_, fields) = stat.rsplit_once(") ").expect("a name");
            let times = fields.split(' ').skip(11).take(2);
            times.map(|time| time.parse::<u64>().expect("a number")).sum()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn talk(client: &mut TcpStream) {
        client.write_all(&masked(TEXT, "hello")).expect("the server is there");
        let expected = frame(TEXT, "hello");
        let mut heard = vec![0; expected.len()];
        client.read_exact(&mut heard).expect("an echo");
        assert_eq!(heard, expected);
    }

    /// EMFILE ends nothing, costs nothing, and is over as soon as its cause.
    fn survives_without_descriptors(test: &str, workers: usize) {
        const MEASURED: Duration = Duration::from_secs(2);
        if env::var_os(SERVES).is_some() {
            return serve(workers);
        }
        let process = Process::start(test);
        let mut client = process.client();
        talk(&mut client);
        for _ in 0..2 {
            let crowd: Vec<_> = (0..2 * DESCRIPTORS).map(|_| process.connect()).collect();
            let start = Instant::now();
            while process.descriptors() < DESCRIPTORS {
                assert!(start.elapsed() < WATCHDOG, "{} descriptors", process.descriptors());
                thread::yield_now();
            }
            let before = process.processor_time();
            sleep(MEASURED); // tidy: allow-sleep(it is what the processor time is a part of)
            let spent = process.processor_time() - before;
            assert!(spent < 5 * MEASURED.as_secs(), "{spent} hundredths in {MEASURED:?}");
            assert!(process.descriptors() >= DESCRIPTORS);
            talk(&mut client);

            let start = Instant::now();
            drop(crowd);
            talk(&mut process.client());
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            talk(&mut client);
        }
    }

    #[test]
    fn a_server_survives_without_descriptors() {
        survives_without_descriptors("descriptors::a_server_survives_without_descriptors", 0);
    }

    #[test]
    fn workers_survive_without_descriptors() {
        survives_without_descriptors("descriptors::workers_survive_without_descriptors", 2);
    }
}
