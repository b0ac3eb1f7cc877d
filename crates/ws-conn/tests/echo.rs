//! Client and server over real sockets and in memory: messages of all sizes and in all ways, and the
//! opening handshake as each end sees it (RFC 6455 §4, §5.6).
#![allow(clippy::unwrap_used, reason = "tests state their expectations by panicking")]

#[macro_use]
mod support;

use std::{io, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, stream};
use support::{
    Slow, connected, endpoint, frame, hex, masked, poll_once, settle, websocket, within,
    within_a_minute,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
    time::Instant,
};
use ws_conn::{
    Client, CloseCode, Config, Error, HandshakeError, Message, PreparedMessage, Server, Step,
    WebSocket,
    handshake::{
        accept_token,
        http::{HeaderValue, Response, StatusCode, header},
    },
    proto::{Role, SendError},
};

/// A listener on a port of its own, and the URL of it.
async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
    (listener, url)
}

/// A server that echoes on one connection and answers with how that ended.
async fn echo_server(server: Server) -> (String, JoinHandle<Result<(), Error>>) {
    let (listener, url) = listen().await;
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client comes");
        echo(server.accept(stream).await?).await
    });
    (url, serving)
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut ws: WebSocket<S>) -> Result<(), Error> {
    while let Some(message) = ws.receive().await? {
        ws.send(message).await?;
    }
    Ok(())
}

/// Text of so many bytes, in which code points of two bytes lie across every even boundary.
fn text(size: usize) -> String {
    let mut text = "ä".repeat(size.saturating_sub(1) / 2);
    text.insert_str(0, if size == 0 { "" } else { "x" });
    text.push_str(&"y".repeat(size - text.len()));
    text
}

#[tokio::test]
async fn messages_of_all_sizes_come_back() {
    let config = Config::default().max_message_size(5 << 20);
    let (url, serving) = echo_server(Server::new().config(config.clone())).await;
    within_a_minute(async {
        let mut ws = Client::new(&url).unwrap().config(config).connect().await.unwrap();
        for size in [
            0,
            1,
            125,
            126,
            4096,
            4097,
            8192,
            8193,
            65_535,
            65_536,
            (1 << 20) - 1,
            1 << 20,
            5 << 20,
        ] {
            let binary: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            for message in [Message::from(text(size)), Message::from(binary)] {
                assert_eq!(message.len(), size);
                // Both at once, because no socket buffer takes five mebibytes.
                let (mut sink, mut stream) = StreamExt::split(&mut ws);
                let (sent, back) = tokio::join!(sink.send(message.clone()), stream.next());
                sent.unwrap();
                assert!(back.unwrap().unwrap() == message, "{size} bytes");
            }
        }
        let closed = ws.close(CloseCode::NORMAL, "").await;
        assert!(closed.is_clean(), "{closed}");
        serving.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_thousand_pipelined_messages_come_back_in_order() {
    let (url, serving) = echo_server(Server::new()).await;
    within_a_minute(async {
        let mut ws = Client::new(&url).unwrap().connect().await.unwrap();
        for i in 0..1000 {
            ws.feed(i.to_string()).await.unwrap();
        }
        ws.flush().await.unwrap();
        for i in 0..1000 {
            assert_eq!(ws.receive().await.unwrap(), Some(i.to_string().into()));
        }
        ws.close(CloseCode::GOING_AWAY, "").await;
        serving.await.unwrap().unwrap();
    })
    .await;
}

/// What was fed leaves in one write: by flush, by send, and by receive when it has to wait.
async fn many_messages_make_one_write(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    for round in 1..=3 {
        for i in 0..999 {
            ws.feed(format!("{i:03}")).await.unwrap();
        }
        match round {
            1 => ws.flush().await.unwrap(),
            2 => ws.send("last").await.unwrap(),
            _ => assert!(poll_once(ws.receive()).await.is_none()),
        }
        assert_eq!(peer.writes(), round);
        let received = peer.received();
        assert_eq!(received[7], "8103303037");
        assert_eq!(received.len(), if round == 2 { 1000 } else { 999 });
    }
}

/// A payload that is not copied rides along in the same write.
async fn a_large_message_and_small_ones_make_one_write(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    ws.feed("before").await.unwrap();
    ws.feed(vec![0; 20_000]).await.unwrap();
    ws.feed("after").await.unwrap();
    ws.flush().await.unwrap();
    assert_eq!((peer.writes(), peer.received().len()), (1, 3));
}

/// Feeding waits when more than the limit is queued, and not before.
async fn feeding_waits_at_the_write_limit(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default().write_limit(100));
    peer.take_only(0);
    let mut fed = 0;
    while poll_once(ws.feed("0123456789")).await.is_some() {
        fed += 1;
    }
    let frame = if role == Role::Server { 12 } else { 16 };
    assert_eq!(fed, 100 / frame + 1);
    peer.take_only(usize::MAX);
    ws.feed("last").await.unwrap();
    ws.flush().await.unwrap();
    assert_eq!(peer.received().len(), fed + 1);
}

/// A message in chunks is one message to the peer, prepared ones are messages like others.
async fn chunks_and_prepared_messages_arrive(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    ws.send_chunk("a", false).await.unwrap();
    assert!(matches!(ws.send("x").await, Err(Error::Send(SendError::MessageUnderWay))));
    ws.send_chunk("b", true).await.unwrap();
    ws.send_prepared(&PreparedMessage::new("c")).await.unwrap();
    assert_eq!(peer.received(), ["010161", "800162", "810163"]);
}

/// Chunks of what comes: cut where the bytes were cut, text between code points.
async fn a_message_is_received_in_chunks(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default().max_message_size(2));
    // "aä" "€" over two frames, a Ping between them; then binary.
    peer.send("0103 61c3a4 8900 8003 e282ac 8203 010203");
    let mut chunks = Vec::new();
    while chunks.len() < 3 {
        let chunk = ws.receive_chunk().await.unwrap().unwrap();
        chunks.push((chunk.data, chunk.last));
    }
    let expected = [("aä".into(), false), ("€".into(), true), (Message::from(vec![1, 2, 3]), true)];
    assert_eq!(chunks, expected);
    // The next one is whole again, and limited.
    peer.send("8203 010203");
    assert!(poll_once(ws.receive()).await.is_none());
    let received = peer.received();
    assert_eq!((&received[0][..], &received[1][..2], &received[1][4..8]), ("8a00", "88", "03f1"));
}

/// The latency is what the clock says; a later Pong answers earlier Pings, and the end answers none.
async fn ping_latency_is_exact(role: Role) {
    let (mut ws, peer) = endpoint(role, &Config::default());
    let first = ws.ping().await.unwrap();
    tokio::time::advance(Duration::from_millis(100)).await;
    let second = ws.ping().await.unwrap();
    assert_eq!(peer.received(), ["89080000000000000000", "89080000000000000001"]);
    tokio::time::advance(Duration::from_millis(20)).await;
    // Neither an unsolicited Pong nor a future one counts (§5.5.3).
    peer.send("8a00 8a08 0000000000000007 8a08 0000000000000001");
    let third = ws.ping().await.unwrap();
    assert!(poll_once(ws.receive()).await.is_none());
    assert_eq!(first.await, Some(Duration::from_millis(120)));
    assert_eq!(second.await, Some(Duration::from_millis(20)));
    peer.fin();
    assert!(ws.receive().await.is_err());
    assert_eq!(third.await, None);
}

both! {
    many_messages_make_one_write,
    a_large_message_and_small_ones_make_one_write,
    feeding_waits_at_the_write_limit,
    chunks_and_prepared_messages_arrive,
    a_message_is_received_in_chunks,
    ping_latency_is_exact,
}

/// B9: large messages through a small pipe cost what their bytes cost, once.
#[tokio::test]
async fn a_message_of_64_mib_through_4_kib_is_linear() {
    const SIZE: usize = 64 << 20;
    let config = Config::default().max_message_size(SIZE as u64);
    let (mut client, mut server) = connected(4 << 10, &config);
    within_a_minute(async {
        let message = Bytes::from(vec![7; SIZE]);
        let (sent, received) = tokio::join!(client.send(message.clone()), server.receive());
        sent.unwrap();
        assert!(received.unwrap().unwrap().as_bytes() == message);
        let (sent, received) = tokio::join!(server.send(message.clone()), client.receive());
        sent.unwrap();
        assert!(received.unwrap().unwrap().as_bytes() == message);
    })
    .await;
}

#[tokio::test]
async fn a_stream_forwarded_into_its_sink_echoes_until_the_end() {
    let (client, server) = connected(64, &Config::default());
    let echoing = tokio::spawn(async move {
        let (sink, stream) = StreamExt::split(server);
        stream.forward(sink).await
    });
    within_a_minute(async {
        let (mut sink, stream) = StreamExt::split(client);
        let messages: Vec<_> = (0..100).map(|i| Message::from("x".repeat(i * 7))).collect();
        let sending = async {
            sink.send_all(&mut stream::iter(messages.clone()).map(Ok)).await.unwrap();
            sink
        };
        let receiving = stream.take(messages.len()).map(Result::unwrap).collect::<Vec<_>>();
        let (mut sink, received) = tokio::join!(sending, receiving);
        assert!(received == messages);
        sink.close().await.unwrap();
        assert!(sink.send("too late".into()).await.unwrap_err().closed().unwrap().is_clean());
        echoing.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_work_from_two_tasks() {
    let (url, serving) = echo_server(Server::new()).await;
    within_a_minute(async {
        let ws = Client::new(&url).unwrap().connect().await.unwrap();
        let (sender, mut receiver) = ws.split();
        let sending = tokio::spawn(async move {
            for i in 0..1000 {
                sender.send(i.to_string()).await.unwrap();
            }
            sender
        });
        for i in 0..1000 {
            assert_eq!(receiver.receive().await.unwrap(), Some(i.to_string().into()));
        }
        sending.await.unwrap().close(CloseCode::NORMAL, "done").await.unwrap();
        assert_eq!(receiver.next().await.transpose().unwrap(), None);
        assert!(receiver.closed().is_clean());
        serving.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_several_senders_arrive_whole_and_in_their_order() {
    const SENDERS: usize = 4;
    let (client, mut server) = connected(1000, &Config::default());
    within_a_minute(async {
        let (sender, mut receiver) = client.split();
        let receiving = tokio::spawn(async move { receiver.receive().await.unwrap() });
        for id in 0..SENDERS {
            let sender = sender.clone();
            tokio::spawn(async move {
                for i in 0..1000 {
                    let padding = "-".repeat(i * 37 % 300);
                    sender.send(format!("{id} {i} {padding}")).await.unwrap();
                }
            });
        }
        let mut next = [0; SENDERS];
        for _ in 0..SENDERS * 1000 {
            let message = server.receive().await.unwrap().unwrap();
            let text = str::from_utf8(message.as_bytes()).unwrap();
            let mut words = text.split(' ');
            let id: usize = words.next().unwrap().parse().unwrap();
            let i = next[id];
            assert_eq!(words.next(), Some(i.to_string().as_str()));
            assert_eq!(words.next(), Some("-".repeat(i * 37 % 300).as_str()));
            next[id] += 1;
        }
        assert_eq!(next, [1000; SENDERS]);
        server.close(CloseCode::NORMAL, "").await;
        assert_eq!(receiving.await.unwrap(), None);
        assert!(!sender.is_open());
    })
    .await;
}

#[tokio::test]
async fn both_ends_know_the_subprotocol() {
    let (listener, url) = listen().await;
    within_a_minute(async {
        let client = Client::new(&url).unwrap().subprotocols(["v2.chat", "v1.chat"]);
        let server = async {
            let server = Server::new().subprotocols(["v0.chat", "v1.chat"]);
            server.accept(listener.accept().await.unwrap().0).await.unwrap()
        };
        let (client, server) = tokio::join!(client.connect(), server);
        assert_eq!(client.unwrap().subprotocol(), Some("v1.chat"));
        assert_eq!(server.subprotocol(), Some("v1.chat"));
    })
    .await;
}

/// B38.
#[tokio::test]
async fn a_url_may_hold_an_ipv6_address() {
    // A machine without IPv6 has nothing to test.
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let url = format!("ws://[::1]:{}/", listener.local_addr().unwrap().port());
    within_a_minute(async {
        let client = Client::new(&url).unwrap();
        let server = async {
            let upgrade = Server::new().receive_request(listener.accept().await.unwrap().0).await;
            let upgrade = upgrade.unwrap();
            assert!(upgrade.is_upgrade() && upgrade.get_ref().peer_addr().unwrap().is_ipv6());
            assert!(upgrade.request().headers()[header::HOST].as_bytes().starts_with(b"[::1]:"));
            upgrade.accept().await.unwrap()
        };
        let (client, _server) = tokio::join!(client.connect(), server);
        assert!(client.unwrap().is_open());
    })
    .await;
}

/// `localhost` is `::1` first on most machines, where nobody listens.
#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let (listener, url) = listen().await;
    let url = url.replace("127.0.0.1", "localhost");
    within_a_minute(async {
        let client = Client::new(&url).unwrap();
        let server = async { Server::new().accept(listener.accept().await.unwrap().0).await };
        let (client, server) = tokio::join!(client.connect(), server);
        assert!(client.unwrap().is_open() && server.unwrap().is_open());
    })
    .await;
}

/// B38: without TLS a `wss:` URL is an error, never plaintext.
#[tokio::test]
async fn wss_without_tls_does_not_even_connect() {
    let (listener, url) = listen().await;
    let client = Client::new(&url.replace("ws:", "wss:")).unwrap();
    assert!(matches!(client.connect().await, Err(Error::TlsUnavailable)));
    // Who connects is in the backlog at once: this one is the first.
    let (near, client) =
        tokio::join!(listener.accept(), TcpStream::connect(&url[5..url.len() - 1]));
    assert_eq!(near.unwrap().1, client.unwrap().local_addr().unwrap());
}

#[tokio::test]
async fn a_refused_connection_is_an_error_of_connecting() {
    // Bound and not listening: nobody else gets the port, and nobody answers.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("ws://{}/", socket.local_addr().unwrap());
    match within_a_minute(Client::new(&url).unwrap().connect()).await {
        Err(Error::Connect(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_never_answers_uses_up_the_open_timeout() {
    let (listener, url) = listen().await;
    let connecting = tokio::spawn(async move { Client::new(&url).unwrap().connect().await });
    let (mut stream, _) = within_a_minute(listener.accept()).await.unwrap();
    // The request has come, so the client waits for the answer.
    assert_ne!(stream.read(&mut [0; 1000]).await.unwrap(), 0);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    let error = within(connecting).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::TimedOut(Step::Handshake)), "{error:?}");
    assert_eq!(error.to_string(), "timed out while waiting for the opening handshake");
}

/// T4: one limit for the whole handshake, however the peer trickles.
#[tokio::test(start_paused = true)]
async fn a_trickling_peer_does_not_stretch_the_open_timeout() {
    for as_server in [true, false] {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let trickling = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await; // tidy: allow-sleep(the clock is stopped)
                if far.write_all(b"x").await.is_err() {
                    break;
                }
            }
        });
        let start = Instant::now();
        let error = if as_server {
            Server::new().accept(near).await.unwrap_err()
        } else {
            Client::new("ws://h/").unwrap().connect_over(near).await.unwrap_err()
        };
        assert!(matches!(error, Error::TimedOut(Step::Handshake)), "{error:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        within(trickling).await.unwrap();
    }
}

/// A time limit that nobody lives to see is a common way to say "none".
#[tokio::test(start_paused = true)]
async fn a_time_limit_may_be_as_long_as_can_be() {
    let config = Config::default().open_timeout(Duration::MAX).close_timeout(Duration::MAX);
    let (near, far) = tokio::io::duplex(1 << 10);
    let client = Client::new("ws://h/").unwrap().config(config.clone());
    let server = Server::new().config(config);
    let (client, server) = tokio::join!(client.connect_over(near), server.accept(far));
    let (mut client, _) = client.unwrap();
    let mut server = server.unwrap();
    let (closed, ended) =
        within(async { tokio::join!(client.close(CloseCode::NORMAL, ""), server.receive()) }).await;
    assert!(closed.is_clean());
    assert_eq!(ended.unwrap(), None);
}

/// Reads a request from a raw stream and answers with the 101 that belongs to it.
async fn switching_protocols<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut request = BytesMut::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.expect("a request comes"), 0);
    }
    let request = String::from_utf8(request.to_vec()).expect("a request is ASCII");
    let (_, key) = request.split_once("Sec-WebSocket-Key: ").expect("it has a key");
    let accept = accept_token(&key.as_bytes()[..24]);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Node: 7\r\n\r\n"
    )
    .into_bytes()
}

/// A request that any server accepts, with the sample key of §1.3.
const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// B32.
#[tokio::test]
async fn frames_glued_to_the_response_are_delivered() {
    let (near, mut far) = tokio::io::duplex(1 << 10);
    let client = Client::new("ws://h/").unwrap();
    let serving = async {
        let mut answer = switching_protocols(&mut far).await;
        answer.extend(hex("8105 48656c6c6f 8900 8203 0102")); // the last one without its end
        far.write_all(&answer).await.unwrap();
        far
    };
    within_a_minute(async {
        let (opened, mut far) = tokio::join!(client.connect_over(near), serving);
        let (mut ws, response) = opened.unwrap();
        assert_eq!(response.headers()["x-node"], "7");
        assert_eq!(ws.receive().await.unwrap(), Some("Hello".into()));
        far.write_all(&[3]).await.unwrap();
        assert_eq!(ws.receive().await.unwrap(), Some(vec![1, 2, 3].into()));
    })
    .await;
}

/// B32, and the same one byte at a time.
#[tokio::test]
async fn frames_glued_to_the_request_are_delivered() {
    let frames = [frame(0x81, "Hello"), frame(0x82, vec![7; 20_000])].concat();
    let wire = [REQUEST.as_bytes(), &masked(&frames)].concat();
    for fast in [true, false] {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(&wire).await.unwrap();
        if fast {
            within_a_minute(accept_two(near)).await;
        } else {
            within_a_minute(accept_two(Slow::stuttering(near))).await;
        }
    }

    async fn accept_two(stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut ws = Server::new().accept(stream).await.unwrap();
        assert_eq!(ws.receive().await.unwrap(), Some("Hello".into()));
        assert_eq!(ws.receive().await.unwrap().unwrap().len(), 20_000);
    }
}

/// B27: both ends see an answer that a transport keeps until it is flushed.
#[tokio::test]
async fn the_handshake_is_flushed() {
    let (near, far) = tokio::io::duplex(1 << 10);
    let near = tokio::io::BufWriter::new(near);
    let far = tokio::io::BufWriter::new(far);
    within_a_minute(async {
        let client = Client::new("ws://h/").unwrap();
        let server = Server::new();
        let (client, server) = tokio::join!(client.connect_over(near), server.accept(far));
        let (mut client, mut server) = (client.unwrap().0, server.unwrap());
        client.send("a").await.unwrap();
        assert_eq!(server.receive().await.unwrap(), Some("a".into()));
        server.feed("b").await.unwrap();
        let (ended, received) = tokio::join!(poll_once(server.receive()), client.receive());
        assert!(ended.is_none());
        assert_eq!(received.unwrap(), Some("b".into()));
    })
    .await;
}

#[tokio::test]
async fn the_client_sees_why_it_was_refused() {
    let (listener, url) = listen().await;
    let serving = tokio::spawn(async move {
        let upgrade = Server::new().receive_request(listener.accept().await.unwrap().0).await;
        let upgrade = upgrade.unwrap();
        assert_eq!(upgrade.request().uri().path(), "/");
        let mut response = Response::new(Bytes::from("come back later"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("120"));
        upgrade.reject::<()>(HandshakeError::Rejecting(Box::new(response))).await
    });
    within_a_minute(async {
        match Client::new(&url).unwrap().connect().await {
            Err(Error::Handshake(HandshakeError::Rejected(response))) => {
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(response.headers()[header::RETRY_AFTER], "120");
                assert_eq!(response.body(), "come back later");
            }
            other => panic!("{other:?}"),
        }
        let error = serving.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "rejected with status 503 Service Unavailable");
    })
    .await;
}

/// Sends bytes over a real socket and answers with all that comes back, which a reset would cut short.
async fn ask(request: &[u8], serve: impl AsyncFnOnce(TcpStream)) -> String {
    let (listener, url) = listen().await;
    within_a_minute(async {
        let asking = async {
            let mut stream =
                TcpStream::connect(&url[5..url.len() - 1]).await.expect("a server listens");
            stream.write_all(request).await.expect("the server reads, or lingers");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("no reset");
            answer
        };
        let serving = async { serve(listener.accept().await.expect("a client comes").0).await };
        tokio::join!(asking, serving).0
    })
    .await
}

/// Answers whatever is asked with a page and this status.
fn page(status: u16) -> impl AsyncFnOnce(TcpStream) {
    async move |stream| {
        let upgrade = Server::new().receive_request(stream).await.expect("it is HTTP");
        assert!(!upgrade.is_upgrade());
        let mut response = Response::new(Bytes::from("<p>Hello</p>"));
        *response.status_mut() = StatusCode::from_u16(status).expect("a legal status");
        upgrade.respond(response).await.expect("the client takes it");
    }
}

#[tokio::test]
async fn a_request_can_be_answered_with_a_page() {
    let got = ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", page(200)).await;
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(head.to_lowercase().matches("content-length: 12").count(), 1);
    assert!(head.to_lowercase().contains("connection: close"));
    assert_eq!(body, "<p>Hello</p>");
    // RFC 9110 §9.3.2: the same head, no body.
    let got = ask(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", page(200)).await;
    assert_eq!(got, format!("{head}\r\n\r\n"));
}

/// RFC 9110 §8.6: a server "MUST NOT" send a length with 204.
#[tokio::test]
async fn an_answer_that_has_no_body_announces_none() {
    let got = ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", page(204)).await;
    assert!(got.starts_with("HTTP/1.1 204 ") && got.ends_with("\r\n\r\n"), "{got}");
    assert!(!got.to_lowercase().contains("content-length"), "{got}");
}

/// T2, B1: the status fits, and the answer arrives although most of the request was never read.
#[tokio::test]
async fn bad_requests_get_their_answer_over_a_real_socket() {
    let headers = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    for (request, status) in [
        ("\x16\x03\x01\x02\0\n".to_owned(), 400), // a TLS client
        (REQUEST.replace("\r\n", "\n"), 400),
        (REQUEST.replace("Host: h\r\n", ""), 400),
        (REQUEST.replace("Upgrade: w", " Upgrade: w"), 400),
        (REQUEST.replace("GET", "POST"), 405),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), 414),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
        (REQUEST.replace("13", "8"), 426),
        (headers(129), 431),
        (headers(65_536), 431),
        (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), 505),
    ] {
        let answer = ask(request.as_bytes(), async |stream| {
            let error = Server::new().accept(stream).await.unwrap_err();
            assert!(matches!(error, Error::Handshake(_)), "{error:?}");
        })
        .await;
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{first} to {request:.80}");
        assert!(answer.contains("close\r\n") && answer.ends_with(".\n"), "{answer}");
    }
}

/// A server that has no room says so before it knows what is asked.
#[tokio::test]
async fn a_server_can_refuse_before_it_reads() {
    let refusal = HandshakeError::reject(StatusCode::SERVICE_UNAVAILABLE, "full\n");
    let answer = ask(REQUEST.as_bytes(), async |stream| {
        Server::new().refuse(stream, &refusal).await.unwrap();
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("full\n"), "{answer}");
}

/// Who makes the opening handshake elsewhere hands over the stream and what was read beyond it.
#[tokio::test(start_paused = true)]
async fn a_connection_can_begin_behind_somebody_elses_handshake() {
    let (near, far) = tokio::io::duplex(64);
    let early = BytesMut::from(&masked(&frame(0x81, "early"))[..]);
    let mut server = WebSocket::server_on(near, early, &Config::default());
    let mut client = WebSocket::client_on(far, BytesMut::new(), &Config::default()).unwrap();
    assert_eq!(server.receive().await.unwrap(), Some("early".into()));
    let mut receiving = pin!(server.receive());
    client.send("later").await.unwrap();
    assert_eq!(within(receiving.as_mut()).await.unwrap(), Some("later".into()));
}

/// §5.3: each connection takes keys of its own from the system, each frame a fresh one (B42).
#[tokio::test]
async fn masking_keys_differ_between_frames_and_connections() {
    let mut keys = Vec::new();
    for _ in 0..2 {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut ws = WebSocket::client_on(near, BytesMut::new(), &Config::default()).unwrap();
        for _ in 0..10 {
            ws.send("").await.unwrap();
            let mut frame = [0; 6];
            far.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame[..2], [0x81, 0x80]);
            keys.push(frame[2..].to_vec());
        }
    }
    keys.sort();
    keys.dedup();
    // Two of twenty keys agree by chance once in 22 million runs.
    assert_eq!(keys.len(), 20);
}

/// Nothing runs behind the application's back: what is dropped is gone.
#[tokio::test]
async fn a_dropped_connection_leaves_no_task_and_ends_the_transport() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (near, mut far) = tokio::io::duplex(64);
    let mut ws = websocket(Role::Server, near, &Config::default());
    assert!(poll_once(ws.receive()).await.is_none());
    let (sender, receiver) = ws.split();
    drop(receiver);
    sender.send("still open").await.unwrap();
    drop(sender);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, frame(0x81, "still open"));
    settle().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
}
