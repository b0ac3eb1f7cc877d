//! Clients and servers over real sockets and in memory: what goes in comes out.

mod support;

use std::{io, time::Duration};

use futures_util::{SinkExt, StreamExt};
use support::{Trickle, frame, pair, read, server_and_peer, write};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
};
use ws_conn::{
    Client, CloseCode, Config, Error, HandshakeError, Message, PreparedMessage, Server, Step,
    WebSocket,
    handshake::http::{Response, StatusCode},
    proto::bytes::{Bytes, BytesMut},
};

/// Accepts one connection and echoes until it ends.
async fn echo_once(listener: TcpListener, server: Server) -> Result<(), Error> {
    let (stream, _) = listener.accept().await.map_err(Error::Connect)?;
    let mut ws = server.accept(stream).await?;
    while let Some(message) = ws.receive().await? {
        ws.send(message).await?;
    }
    Ok(())
}

async fn listen(host: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((host, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

#[tokio::test]
async fn every_size_comes_back_over_tcp() {
    let (listener, port) = listen("127.0.0.1").await;
    let config = Config::default().max_message_size(8 << 20);
    let server = tokio::spawn(echo_once(listener, Server::new().config(config.clone())));
    // A name with several addresses, of which one listens.
    let url = format!("ws://localhost:{port}/path?query");
    let mut ws = Client::new(&url).expect("a URL").config(config).connect().await.expect("open");
    for size in [0, 1, 125, 126, 4096, 4097, 8192, 8193, 65_535, 65_536, 1 << 20, 5 << 20] {
        let binary = Message::binary((0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        ws.send(binary.clone()).await.expect("open");
        assert!(ws.receive().await.expect("open") == Some(binary), "{size}");
        let text = Message::text("ä".repeat(size / 2));
        ws.send(text.clone()).await.expect("open");
        assert!(ws.receive().await.expect("open") == Some(text), "{size}");
    }
    assert!(ws.close(CloseCode::NORMAL, "done").await.is_clean());
    server.await.expect("no panic").expect("clean");
}

#[tokio::test]
async fn a_thousand_pipelined_messages_come_back_in_order() {
    let (mut server, mut client) = pair(&Config::default());
    let echo = async {
        while let Some(message) = server.receive().await.expect("open") {
            server.feed(message).await.expect("open");
        }
    };
    let talk = async {
        for i in 0..1000 {
            client.feed(i.to_string()).await.expect("open");
        }
        client.flush().await.expect("open");
        for i in 0..1000 {
            let message = client.receive().await.expect("open");
            assert_eq!(message, Some(Message::text(i.to_string())));
        }
        client.close(CloseCode::NORMAL, "").await;
    };
    tokio::join!(echo, talk);
}

/// B9 in small: a large message through a small pipe, one way at a time.
#[tokio::test]
async fn a_message_of_64_mib_goes_through_a_pipe_of_4_kib() {
    let config = Config::default().max_message_size(64 << 20);
    let (mut server, mut client) = pair(&config);
    let large = Bytes::from(vec![7; 64 << 20]);
    let (sent, received) = tokio::join!(client.send(large.clone()), server.receive());
    sent.expect("open");
    assert!(received.expect("open") == Some(Message::Binary(large)));
}

#[tokio::test]
async fn one_byte_at_a_time_is_enough() {
    let (ours, theirs) = duplex(1 << 16);
    let config = Config::default();
    let mut server = WebSocket::server_on(Trickle::new(ours), BytesMut::new(), &config);
    let mut client =
        WebSocket::client_on(Trickle::new(theirs), BytesMut::new(), &config).expect("randomness");
    let echo = async {
        while let Some(message) = server.receive().await.expect("open") {
            server.send(message).await.expect("open");
        }
    };
    let talk = async {
        for text in ["", "a", "κόσμε", &"long ".repeat(200)] {
            client.send(text).await.expect("open");
            assert_eq!(client.receive().await.expect("open"), Some(Message::text(text)));
        }
        client.send_chunk("in ", false).await.expect("open");
        client.send_chunk("pieces", true).await.expect("open");
        assert_eq!(client.receive().await.expect("open"), Some(Message::text("in pieces")));
        client.send_prepared(&PreparedMessage::new("framed")).await.expect("open");
        assert_eq!(client.receive().await.expect("open"), Some(Message::text("framed")));
        client.close(CloseCode::NORMAL, "").await
    };
    let ((), closed) = tokio::join!(echo, talk);
    assert!(closed.is_clean());
}

#[tokio::test]
async fn a_websocket_is_a_stream_and_a_sink() {
    let (server, mut client) = pair(&Config::default());
    let (sink, stream) = server.split();
    let echo = async move {
        let mut stream = stream;
        while let Some(Ok(message)) = stream.next().await {
            sink.send(message).await.expect("open");
        }
    };
    let talk = async move {
        SinkExt::send(&mut client, Message::text("hello")).await.expect("open");
        assert_eq!(client.next().await.expect("open").expect("open"), Message::text("hello"));
        SinkExt::close(&mut client).await.expect("open");
        assert!(client.next().await.is_none());
    };
    tokio::join!(echo, talk);
}

/// B25: halves in different tasks, all of which wait for the same transport.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloned_senders_in_tasks_of_their_own_lose_nothing() {
    let (server, mut client) = pair(&Config::default());
    let (sender, mut receiver) = server.split();
    for task in 0..8 {
        let sender = sender.clone();
        tokio::spawn(async move {
            for i in 0..500 {
                sender.send(format!("{task} {i} {}", "x".repeat(i % 300))).await.expect("open");
            }
        });
    }
    let reader = tokio::spawn(async move { receiver.receive().await });
    let mut next = [0; 8];
    for _ in 0..4000 {
        let received = tokio::time::timeout(Duration::from_secs(30), client.receive());
        let message = received.await.expect("no lost wake-up").expect("open").expect("open");
        let mut words = message.as_text().expect("text").split(' ');
        let mut number =
            || words.next().and_then(|word| word.parse::<usize>().ok()).expect("a number");
        let (task, i) = (number(), number());
        assert_eq!(i, next[task], "in order within a task");
        next[task] += 1;
    }
    client.close(CloseCode::NORMAL, "").await;
    assert!(reader.await.expect("no panic").expect("clean").is_none());
}

#[tokio::test(start_paused = true)]
async fn ping_tells_the_latency() {
    let (mut ws, mut peer) = server_and_peer(&Config::default());
    let pong = ws.ping().await.expect("open");
    let answer = async {
        let ping = read(&mut peer, 10).await;
        tokio::time::sleep(Duration::from_millis(250)).await; // tidy: allow-sleep(the clock is stopped)
        write(&mut peer, &frame(0x8A, &ping[2..])).await;
    };
    let receive = async { while ws.receive().await.expect("open").is_some() {} };
    let latency = tokio::select! {
        (latency, ()) = async { tokio::join!(pong, answer) } => latency,
        () = receive => panic!("closed"),
    };
    assert_eq!(latency, Some(Duration::from_millis(250)));
}

/// B32: a client need not wait for the 101 before it sends its first frames.
#[tokio::test]
async fn frames_behind_the_request_are_delivered() {
    let (ours, mut peer) = duplex(1 << 16);
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    write(&mut peer, &[&request[..], &frame(0x81, b"early")].concat()).await;
    let mut ws = Server::new().accept(ours).await.expect("accepted");
    assert_eq!(ws.receive().await.expect("open"), Some(Message::text("early")));
}

#[tokio::test]
async fn a_client_learns_why_it_was_refused() {
    let (listener, port) = listen("::1").await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let upgrade = Server::new().receive_request(stream).await.expect("a request");
        assert_eq!(upgrade.request().uri().path(), "/");
        assert!(upgrade.is_upgrade());
        let refusal = HandshakeError::reject(StatusCode::UNAUTHORIZED, "who are you?\n");
        upgrade.reject::<()>(refusal).await
    });
    let error = Client::new(&format!("ws://[::1]:{port}")).expect("a URL").connect().await;
    let Err(Error::Handshake(HandshakeError::Rejected(response))) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::UNAUTHORIZED, &b"who are you?\n"[..])
    );
    assert!(server.await.expect("no panic").is_err());
}

/// T2 on the wire: the refusal arrives although the client is still sending.
#[tokio::test]
async fn a_refused_head_of_65536_headers_gets_its_answer() {
    let (listener, port) = listen("127.0.0.1").await;
    let server = tokio::spawn(echo_once(listener, Server::new()));
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65_536));
    let (mut reader, mut writer) = client.split();
    let mut answer = String::new();
    let (_, read) =
        tokio::join!(writer.write_all(head.as_bytes()), reader.read_to_string(&mut answer));
    read.expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(matches!(server.await.expect("no panic"), Err(Error::Handshake(_))));
}

#[tokio::test]
async fn plain_http_is_answered_on_the_same_stream() {
    for (method, ends_with) in [("GET", "\r\n\r\npage"), ("HEAD", "Content-Length: 4\r\n\r\n")] {
        let (ours, mut peer) = duplex(1 << 16);
        write(&mut peer, format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
        let serve = async {
            let upgrade = Server::new().receive_request(ours).await.expect("a request");
            assert!(!upgrade.is_upgrade());
            upgrade.respond(Response::new(Bytes::from_static(b"page"))).await.expect("written");
        };
        let mut answer = String::new();
        let client = async {
            peer.read_to_string(&mut answer).await.expect("text");
            drop(peer);
        };
        tokio::join!(serve, client);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(ends_with),
            "{answer}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_shakes_hands_is_given_up() {
    let (ours, _peer) = duplex(64);
    assert!(matches!(Server::new().accept(ours).await, Err(Error::TimedOut(Step::Handshake))));
    let (ours, _peer) = duplex(1 << 10);
    let opened = Client::new("ws://h/").expect("a URL").connect_over(ours).await;
    assert!(matches!(opened, Err(Error::TimedOut(Step::Handshake))));
}

#[tokio::test]
async fn what_cannot_be_connected_says_so() {
    let secure = Client::new("wss://localhost/").expect("a URL").connect().await;
    assert!(matches!(secure, Err(Error::TlsUnavailable)));
    let (listener, port) = listen("127.0.0.1").await;
    drop(listener);
    let refused = Client::new(&format!("ws://127.0.0.1:{port}")).expect("a URL").connect().await;
    match refused {
        Err(Error::Connect(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
}
