//! Where a server is, and where its clients are: proxies that speak before HTTP or in it, Unix sockets,
//! IPv6, several addresses, listeners that were handed in.
//!
//! Not its business: the grammars (`proxy_protocol.rs`, `forwarded.rs`), and binding (`listener.rs`).

#[macro_use]
mod support;

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use support::{
    Answer, REQUEST, Raw, Running, TEXT, ask, connect_from, echo, eventually, frame, masked,
    request,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};
use ws_serve::{Error, ForwardingHeader, Limits, Server, Socket, TrustedProxies};

everywhere! {
    a_proxy_header_tells_the_peer_address,
    what_follows_a_proxy_header_is_delivered,
    a_proxy_that_speaks_for_itself_is_the_peer,
    a_proxy_header_of_a_stranger_is_refused,
    what_is_no_proxy_header_is_refused,
    half_a_proxy_header_runs_into_the_deadline,
    an_unexpected_proxy_header_is_a_bad_request,
    limits_go_by_the_address_that_the_proxy_header_tells,
    forwarded_addresses_are_believed_of_trusted_proxies_only,
    only_the_header_that_the_proxies_set_is_read,
    limits_go_by_the_address_that_the_proxy_forwards,
    a_proxy_header_and_a_forwarded_address_add_up,
    a_server_listens_at_several_addresses,
    a_server_takes_listeners_that_are_bound,
}

/// Says who the handler takes its client for.
async fn who(socket: Socket) -> Result<(), Error> {
    let ip = socket.client_ip().map_or_else(|| "nobody".to_owned(), |ip| ip.to_string());
    socket.send(format!("{} {ip}", socket.peer_addr())).await?;
    echo(socket).await
}

const PROXY: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];

fn proxies() -> TrustedProxies {
    TrustedProxies::new(["127.0.0.2", "10.0.0.0/8"]).expect("addresses")
}

async fn connect(source: [u8; 4], running: &Running) -> Raw {
    Raw(BufReader::new(connect_from(source, running.address).await))
}

/// What [`who`] says to these bytes, which have a request in them.
async fn hear(mut raw: Raw, said: impl AsRef<[u8]>) -> String {
    raw.say(said).await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (first, payload) = raw.frame().await;
    assert_eq!(first, TEXT);
    String::from_utf8(payload).expect("text")
}

/// A header of version 2 (section 2.2 of the specification).
fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, addresses].concat()
}

/// 203.0.113.9:50000, who connected to 192.0.2.1:443.
const IPV4: &[u8] = &[203, 0, 113, 9, 192, 0, 2, 1, 0xC3, 0x50, 0x01, 0xBB];

/// [2001:db8::9]:50000, who connected to [2001:db8::1]:443.
fn ipv6() -> Vec<u8> {
    let ips = [9, 1].map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).octets());
    [&ips.concat()[..], &IPV4[8..]].concat()
}

/// All kinds of header, and the client that each is about.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    // A custom TLV (type 0xE0), and as many bytes as a header may have.
    let extra = [IPV4, &[0xE0, 0, 2, 1, 2]].concat();
    let largest = [IPV4, &[0; 4096 - 16 - 12]].concat();
    let lines = [
        ("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n", "203.0.113.9:50000"),
        ("PROXY TCP6 2001:db8::9 2001:db8::1 50000 443\r\n", "[2001:db8::9]:50000"),
        ("PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 50000 443\r\n", "203.0.113.9:50000"),
        ("PROXY TCP4 1.1.1.1 1.1.1.2 0 65535\r\n", "1.1.1.1:0"),
    ];
    let lines = lines.map(|(line, peer)| (line.as_bytes().to_vec(), peer));
    let binaries = [
        (binary(1, 0x11, IPV4), "203.0.113.9:50000"),
        (binary(1, 0x21, &ipv6()), "[2001:db8::9]:50000"),
        (binary(1, 0x11, &extra), "203.0.113.9:50000"),
        (binary(1, 0x11, &largest), "203.0.113.9:50000"),
    ];
    lines.into_iter().chain(binaries).collect()
}

async fn a_proxy_header_tells_the_peer_address(server: Server) {
    let server = server.proxy_protocol(true).trusted_proxies(proxies());
    let running = Running::start(server, who);
    for (header, peer) in headers() {
        let ip = peer.parse::<SocketAddr>().expect("an address").ip();
        let expected = format!("{peer} {ip}");
        let wire = [&header, REQUEST.as_bytes()].concat();
        assert_eq!(hear(connect(PROXY, &running).await, &wire).await, expected);
        // B32: the same in two pieces, wherever it is cut.
        for cut in [1, 14, 15, 16, header.len() - 1, header.len(), header.len() + 1] {
            let mut raw = connect(PROXY, &running).await;
            raw.0.get_ref().set_nodelay(true).expect("a TCP stream");
            raw.say(&wire[..cut]).await;
            assert_eq!(hear(raw, &wire[cut..]).await, expected, "{cut}");
        }
    }
}

/// T7: nothing that is not the header's is taken for it.
async fn what_follows_a_proxy_header_is_delivered(server: Server) {
    let server = server.proxy_protocol(true).trusted_proxies(proxies());
    let running = Running::start(server, echo);
    for (header, _) in headers() {
        let mut raw = connect(PROXY, &running).await;
        let frames = [masked(TEXT, "one"), masked(TEXT, "two")].concat();
        raw.say([&header, REQUEST.as_bytes(), &frames].concat()).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
        raw.expect([frame(TEXT, "one"), frame(TEXT, "two")].concat()).await;
    }
}

/// Health checks of the proxy's own.
async fn a_proxy_that_speaks_for_itself_is_the_peer(server: Server) {
    let server = server.proxy_protocol(true).trusted_proxies(proxies());
    let running = Running::start(server, who);
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        binary(0, 0, &[]),
        // What comes with LOCAL is to be ignored.
        binary(0, 0x11, IPV4),
        binary(1, 0x00, &[]),
    ] {
        let raw = connect(PROXY, &running).await;
        let local = raw.0.get_ref().local_addr().expect("an address");
        let heard = hear(raw, [&header, REQUEST.as_bytes()].concat()).await;
        assert_eq!(heard, format!("{local} 127.0.0.2"));
    }
}

/// The end of a connection that was told nothing, however it comes.
async fn is_refused(mut raw: Raw, said: &[u8]) {
    // The end may come while we still speak.
    let _ = raw.0.write_all(said).await;
    let mut answer = Vec::new();
    let _ = raw.0.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", answer.escape_ascii());
}

/// T8: "whoever may choose to send one chooses its address".
async fn a_proxy_header_of_a_stranger_is_refused(server: Server) {
    let server = server.proxy_protocol(true).trusted_proxies(proxies());
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    for (header, _) in headers() {
        is_refused(connect(STRANGER, &running).await, &[&header, REQUEST.as_bytes()].concat())
            .await;
    }
    is_refused(connect(STRANGER, &running).await, REQUEST.as_bytes()).await;
    eventually(|| monitor.stats().connections == 0).await;
    // And if nobody is trusted, nobody may.
    let nobody = Running::start(support::server().proxy_protocol(true), echo);
    let said = [&headers()[0].0[..], REQUEST.as_bytes()].concat();
    is_refused(connect(PROXY, &nobody).await, &said).await;
}

/// T8, also of a trusted proxy: that one which is expected to send a header does not is no client's
/// chance to be taken for the proxy.
async fn what_is_no_proxy_header_is_refused(server: Server) {
    let server = server.proxy_protocol(true).trusted_proxies(proxies());
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    for said in [
        REQUEST.as_bytes().to_vec(),
        b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\n".repeat(2),
        b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::9 2001:db8::1 50000 443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.09 192.0.2.1 50000 443\r\n".to_vec(),
        b"PROXY UDP4 203.0.113.9 192.0.2.1 50000 443\r\n".to_vec(),
        b"proxy tcp4 203.0.113.9 192.0.2.1 50000 443\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(),
        vec![0; 1000],
        vec![0xFF; 1000],
        binary(2, 0x11, IPV4),
        binary(1, 0x11, &IPV4[..11]),
        binary(1, 0x41, IPV4),
        binary(1, 0x13, IPV4),
        binary(1, 0x11, &[0; 4096 - 16 + 1]),
        [b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c", IPV4].concat(),
    ] {
        let said = [&said, REQUEST.as_bytes()].concat();
        is_refused(connect(PROXY, &running).await, &said).await;
    }
    eventually(|| monitor.stats().connections == 0).await;
}

/// T4: the deadline is for all of the opening.
async fn half_a_proxy_header_runs_into_the_deadline(server: Server) {
    let server = server
        .proxy_protocol(true)
        .trusted_proxies(proxies())
        .handshake_timeout(Duration::from_millis(200));
    let monitor = server.monitor();
    let running = Running::start(server, who);
    let mut waiting = JoinSet::new();
    for (header, _) in headers() {
        for end in [0, 1, 15, header.len() - 1, header.len()] {
            let (raw, header, start) =
                (connect(PROXY, &running).await, header.clone(), Instant::now());
            waiting.spawn(async move {
                is_refused(raw, &header[..end]).await;
                start.elapsed()
            });
        }
    }
    for after in waiting.join_all().await {
        // The server's clock may have started before ours.
        assert!(after > Duration::from_millis(100), "{after:?}");
    }
    eventually(|| monitor.stats().connections == 0).await;
}

async fn an_unexpected_proxy_header_is_a_bad_request(server: Server) {
    let running = Running::start(server.trusted_proxies(proxies()), echo);
    for (header, _) in headers() {
        let stream = connect_from(PROXY, running.address).await;
        let answer = ask(stream, [&header, REQUEST.as_bytes()].concat()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
}

/// T8.
async fn limits_go_by_the_address_that_the_proxy_header_tells(server: Server) {
    let server = server
        .proxy_protocol(true)
        .trusted_proxies(proxies())
        .limits(Limits::none().connections_per_address(2));
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let from = |last: u8| format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 50000 443\r\n{REQUEST}");
    let mut clients = Vec::new();
    for last in [1, 2, 1, 2] {
        let mut raw = connect(PROXY, &running).await;
        raw.say(from(last)).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
        clients.push(raw);
    }
    assert_eq!(monitor.stats().addresses, 2);
    for last in [1, 2] {
        let answer = ask(connect_from(PROXY, running.address).await, from(last)).await;
        assert_eq!((answer.status, answer.header("Retry-After")), (429, Some("10")));
    }
    let mut third = connect(PROXY, &running).await;
    third.say(from(3)).await;
    assert!(third.head().await.starts_with("HTTP/1.1 101 "));
}

fn forwarded(name: &str, values: &[&str]) -> String {
    let lines: Vec<_> = values.iter().map(|value| format!("{name}: {value}")).collect();
    request("/", lines.iter().map(|line| &**line))
}

/// T8: anybody can send these headers.
async fn forwarded_addresses_are_believed_of_trusted_proxies_only(server: Server) {
    let running = Running::start(server.trusted_proxies(proxies()), who);
    for (source, values, expected) in [
        (PROXY, &[][..], "127.0.0.2"),
        (PROXY, &["203.0.113.9"], "203.0.113.9"),
        // What is left of the first that is not trusted may be forged.
        (PROXY, &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (PROXY, &["1.1.1.1, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        (PROXY, &["1.1.1.1", "203.0.113.9", "10.1.2.3"], "203.0.113.9"),
        (PROXY, &["10.1.2.3"], "10.1.2.3"),
        (PROXY, &["2001:db8::9"], "2001:db8::9"),
        (PROXY, &["nonsense"], "127.0.0.2"),
        (PROXY, &["203.0.113.9, nonsense"], "127.0.0.2"),
        (STRANGER, &["203.0.113.9"], "127.0.0.3"),
        (STRANGER, &["127.0.0.2"], "127.0.0.3"),
        (STRANGER, &["203.0.113.9, 10.1.2.3"], "127.0.0.3"),
    ] {
        let raw = connect(source, &running).await;
        // The peer is who is at the other end, whatever is said.
        let peer = raw.0.get_ref().local_addr().expect("an address");
        let heard = hear(raw, forwarded("X-Forwarded-For", values)).await;
        assert_eq!(heard, format!("{peer} {expected}"), "{values:?}");
    }
}

async fn only_the_header_that_the_proxies_set_is_read(server: Server) {
    let proxies = proxies().header(ForwardingHeader::Forwarded);
    let running = Running::start(server.trusted_proxies(proxies), who);
    for (name, value, expected) in [
        ("X-Forwarded-For", "203.0.113.9", "127.0.0.2"),
        ("X-Real-IP", "203.0.113.9", "127.0.0.2"),
        ("Forwarded", "for=203.0.113.9;proto=https", "203.0.113.9"),
        ("Forwarded", "for=\"[2001:db8::9]:443\"", "2001:db8::9"),
    ] {
        let heard = hear(connect(PROXY, &running).await, forwarded(name, &[value])).await;
        assert_eq!(heard.split_once(' ').expect("two").1, expected, "{name}: {value}");
    }
}

/// T8: clients behind a proxy have limits of their own, and nobody escapes them by a header.
async fn limits_go_by_the_address_that_the_proxy_forwards(server: Server) {
    let limits = Limits::none().connections_per_address(1);
    let server = server.trusted_proxies(proxies()).limits(limits);
    let monitor = server.monitor();
    let running = Running::start(server, echo);
    let ask_from = async |source, value: &str| -> Answer {
        let stream = connect_from(source, running.address).await;
        ask(stream, forwarded("X-Forwarded-For", &[value])).await
    };
    let mut clients = Vec::new();
    for value in ["203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8:0:1::1"] {
        let stream = connect_from(PROXY, running.address).await;
        clients.push(Raw::upgrade_with(stream, forwarded("X-Forwarded-For", &[value])).await);
    }
    assert_eq!(monitor.stats().addresses, 4);
    for value in ["203.0.113.1", "9.9.9.9, 203.0.113.2", "::ffff:203.0.113.1", "2001:db8::2"] {
        assert_eq!(ask_from(PROXY, value).await.status, 429, "{value}");
    }
    let stream = connect_from(STRANGER, running.address).await;
    clients.push(Raw::upgrade_with(stream, forwarded("X-Forwarded-For", &["9.9.9.9"])).await);
    assert_eq!(ask_from(STRANGER, "8.8.8.8").await.status, 429);
    clients.clear();
    eventually(|| monitor.stats().connections == 0 && monitor.stats().addresses == 0).await;
}

/// A balancer of TCP in front of a proxy of HTTP: each vouches for its neighbour.
async fn a_proxy_header_and_a_forwarded_address_add_up(server: Server) {
    let server = server.proxy_protocol(true).trusted_proxies(proxies());
    let running = Running::start(server, who);
    for (neighbour, expected) in [
        ("10.0.0.1", "10.0.0.1:50000 203.0.113.9"),
        // Who came through the balancer directly is nobody's proxy.
        ("198.51.100.1", "198.51.100.1:50000 198.51.100.1"),
    ] {
        let header = format!("PROXY TCP4 {neighbour} 192.0.2.1 50000 443\r\n");
        let said = header + &forwarded("X-Forwarded-For", &["203.0.113.9"]);
        assert_eq!(hear(connect(PROXY, &running).await, said).await, expected);
    }
}

async fn a_server_listens_at_several_addresses(server: Server) {
    let server = server
        .listen("127.0.0.5:0")
        .and_then(|server| server.listen("[::1]:0"))
        .expect("all of 127.0.0.0/8 and ::1 are this machine");
    let addresses: Vec<_> = server.local_addrs().collect();
    let ips: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
    let expected =
        ["127.0.0.1", "127.0.0.5", "::1"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    assert_eq!(ips, expected);
    assert!(addresses.iter().all(|address| address.port() != 0));
    assert_eq!(server.local_addr(), Some(addresses[0]));

    let running = Running::start(server, who);
    for _ in 0..5 {
        for address in &addresses {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let local = stream.local_addr().expect("an address");
            let heard = hear(Raw(BufReader::new(stream)), REQUEST).await;
            assert_eq!(heard, format!("{local} {}", local.ip()));
        }
    }
    running.end().await;
    for address in addresses {
        TcpStream::connect(address).await.expect_err("nobody listens any more");
    }
}

/// As a test, a supervisor or a re-executed process hands them over: blocking, with options of its own.
async fn a_server_takes_listeners_that_are_bound(server: Server) {
    let given = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = given.local_addr().expect("it is bound");
    let again = given.try_clone().expect("a descriptor");
    let own = server.local_addr().expect("it is bound");
    let server = server.listener(given);
    assert_eq!(server.local_addrs().collect::<Vec<_>>(), [own, address]);
    let running = Running::start(server, echo);
    for address in [own, address, own, address] {
        let mut raw = Raw::open(address).await;
        raw.say(masked(TEXT, "hello")).await;
        raw.expect(frame(TEXT, "hello")).await;
    }
    running.end().await;
    // It is still ours: the next server takes up where this one left.
    let running = Running::start(Server::new().listener(again), echo);
    assert_eq!(running.address, address);
    Raw::open(address).await;
}

#[cfg(unix)]
mod unix {
    use std::{
        env, fs,
        os::unix::{fs::PermissionsExt, net::UnixListener},
        path::PathBuf,
        process,
    };

    use tokio::{io::AsyncReadExt, net::UnixStream, task::JoinHandle};
    use ws_serve::{Shutdown, conn::Client};

    use super::*;

    everywhere! {
        a_unix_socket_is_served,
        a_unix_socket_is_served_beside_tcp,
        a_unix_socket_that_is_handed_in_keeps_its_file,
        a_proxy_over_a_unix_socket_is_believed_if_trusted,
    }

    /// The path of a socket, which goes with the test.
    struct Path(PathBuf);

    impl Path {
        fn new(name: &str) -> Self {
            let thread = format!("{:?}", std::thread::current().id());
            let name =
                format!("ws-serve-{}-{name}-{}", process::id(), thread.replace(['(', ')'], ""));
            Self(env::temp_dir().join(name))
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(&self.0).await.expect("the server listens")
        }

        /// What [`who`] says to a client with this header.
        async fn hear(&self, said: impl AsRef<[u8]>) -> String {
            let mut stream = self.connect().await;
            stream.write_all(said.as_ref()).await.expect("the server is there");
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                heard.push(stream.read_u8().await.expect("a head"));
            }
            assert!(heard.starts_with(b"HTTP/1.1 101 "), "{}", heard.escape_ascii());
            assert_eq!(stream.read_u8().await.expect("a frame"), TEXT);
            let mut text = vec![0; stream.read_u8().await.expect("a length").into()];
            stream.read_exact(&mut text).await.expect("a frame");
            String::from_utf8(text).expect("text")
        }
    }

    impl Drop for Path {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// A server that need not have a TCP address.
    fn run(server: Server) -> (Shutdown, JoinHandle<std::io::Result<()>>) {
        (server.shutdown_handle(), tokio::spawn(server.fallback(who).run()))
    }

    async fn a_unix_socket_is_served(_: Server) {
        for mode in [0o600, 0o666] {
            let path = Path::new("only");
            let server = Server::new().workers(2).listen_unix(&path.0, Some(mode));
            let server =
                server.expect("a new path").limits(Limits::none().connections_per_address(1));
            assert_eq!(server.local_addr(), None);
            let permissions = fs::metadata(&path.0).expect("it is there").permissions();
            assert_eq!(permissions.mode() & 0o777, mode);
            let (monitor, (shutdown, serving)) = (server.monitor(), run(server));

            let client = Client::new("ws://localhost/").expect("a valid URL");
            let mut clients = Vec::new();
            // Who has no address has no limit by address.
            for _ in 0..3 {
                let (mut ws, _) =
                    client.clone().connect_over(path.connect().await).await.expect("it is open");
                assert_eq!(ws.receive().await.expect("a message"), Some("unix nobody".into()));
                ws.send("hello").await.expect("it is open");
                assert_eq!(ws.receive().await.expect("a message"), Some("hello".into()));
                clients.push(ws);
            }
            assert_eq!((monitor.stats().connections, monitor.stats().addresses), (3, 0));
            let refused = ask(path.connect().await, "nonsense\r\n\r\n").await;
            assert_eq!(refused.status, 400);
            drop(clients);
            shutdown.start();
            serving.await.expect("no panic").expect("nothing that a client does ends it");
            assert!(!path.0.exists());
        }
    }

    async fn a_unix_socket_is_served_beside_tcp(server: Server) {
        let path = Path::new("beside");
        let server = server.listen_unix(&path.0, None).expect("a new path");
        let address = server.local_addr().expect("it has one");
        assert_eq!(server.local_addrs().count(), 1);
        let (shutdown, serving) = run(server);
        assert_eq!(path.hear(REQUEST).await, "unix nobody");
        let raw = Raw(BufReader::new(TcpStream::connect(address).await.expect("it listens")));
        assert!(hear(raw, REQUEST).await.ends_with(" 127.0.0.1"));
        shutdown.start();
        serving.await.expect("no panic").expect("nothing that a client does ends it");
        assert!(!path.0.exists());
    }

    async fn a_unix_socket_that_is_handed_in_keeps_its_file(server: Server) {
        let path = Path::new("given");
        let listener = UnixListener::bind(&path.0).expect("a new path");
        let (shutdown, serving) = run(server.unix_listener(listener));
        assert_eq!(path.hear(REQUEST).await, "unix nobody");
        shutdown.start();
        serving.await.expect("no panic").expect("nothing that a client does ends it");
        assert!(path.0.exists());
    }

    async fn a_proxy_over_a_unix_socket_is_believed_if_trusted(_: Server) {
        let request = forwarded("X-Forwarded-For", &["203.0.113.9"]);
        let line = "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n";
        for (trusted, heard) in [(&["unix"][..], "unix 203.0.113.9"), (&[], "unix nobody")] {
            let path = Path::new("proxy");
            let proxies = TrustedProxies::new(trusted).expect("proxies");
            let server = Server::new().listen_unix(&path.0, None).expect("a new path");
            let (shutdown, serving) = run(server.trusted_proxies(proxies.clone()));
            assert_eq!(path.hear(&request).await, heard);
            shutdown.hurry();
            serving.await.expect("no panic").expect("nothing that a client does ends it");

            let server = Server::new().listen_unix(&path.0, None).expect("a new path");
            let server = server.trusted_proxies(proxies).proxy_protocol(true);
            let (shutdown, serving) = run(server);
            if trusted.is_empty() {
                let mut stream = path.connect().await;
                let _ = stream.write_all(format!("{line}{REQUEST}").as_bytes()).await;
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                assert!(answer.is_empty(), "{}", answer.escape_ascii());
            } else {
                let heard = path.hear(format!("{line}{REQUEST}")).await;
                assert_eq!(heard, "203.0.113.9:50000 203.0.113.9");
                let heard = path.hear(format!("PROXY UNKNOWN\r\n{REQUEST}")).await;
                assert_eq!(heard, "unix nobody");
            }
            shutdown.hurry();
            serving.await.expect("no panic").expect("nothing that a client does ends it");
        }
    }
}
