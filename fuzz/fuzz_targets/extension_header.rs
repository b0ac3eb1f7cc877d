//! Any `Sec-WebSocket-Extensions` (RFC 7692 §5, §7.1), offered to a server and answered to a client: no
//! panic; and whatever a server of ours answers to a client of ours, both then mean the same.

#![no_main]

use arbitrary::Arbitrary;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use ws_handshake::{
    ClientConfig, ClientHandshake, HandshakeError, Negotiated, ServerConfig, ServerHandshake,
    WsUri, encode_response, http,
};
use ws_proto::{AgreedDeflate, Context, Deflate};

#[derive(Arbitrary, Debug)]
struct Input {
    client: Settings,
    server: Settings,
    /// Lines of the header, as parts or as any bytes.
    offer: Vec<Line>,
    answer: Vec<Line>,
}

#[derive(Arbitrary, Debug)]
struct Settings {
    send: (bool, u8),
    receive: (bool, u8),
}

#[derive(Arbitrary, Debug)]
enum Line {
    Parts(Vec<Part>),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Part {
    Name,
    ServerNoContext,
    ClientNoContext,
    ServerWindow,
    ClientWindow,
    Is(u8),
    IsQuoted(u8),
    Semicolon,
    Comma,
    Other(String),
}

fuzz_target!(|input: Input| {
    let (ours, theirs) = (input.client.deflate(), input.server.deflate());
    let client_config = ClientConfig::default().deflate(ours);
    let server_config = ServerConfig::default().deflate(theirs);
    let uri: WsUri = "ws://example.com/".parse().expect("a URI");
    let client = || {
        ClientHandshake::new(&uri, &client_config, *b"the sample nonce").expect("a configuration")
    };
    let serve = |config: &ServerConfig, request: &[u8]| {
        let mut input = BytesMut::from(request);
        let request = ServerHandshake::new(config).poll_request(&mut input)?.expect("it is whole");
        let accepted = config.accept(&request)?;
        Ok::<_, HandshakeError>((accepted.negotiated, encode_response(&accepted.response)))
    };

    // Any offer.
    let plain = ClientHandshake::new(&uri, &ClientConfig::default(), *b"the sample nonce")
        .expect("a configuration");
    let request = with_lines(plain.request(), &input.offer);
    if let Ok((negotiated, response)) = serve(&server_config, &request) {
        let answered = response.windows(NAME.len()).any(|name| name == NAME);
        assert_eq!(negotiated.deflate.is_some(), answered);
        if let Some(agreed) = negotiated.deflate {
            assert_legal(&agreed, &theirs);
        }
    }
    // §5: without the setting, offers are declined and not looked at.
    if let Ok((negotiated, _)) = serve(&ServerConfig::default(), &request) {
        assert_eq!(negotiated.deflate, None);
    }

    // Any answer, in the place of what a server without the extension says.
    let (_, response) = serve(&ServerConfig::default(), plain.request()).expect("our request");
    let response = with_lines(&response, &input.answer);
    if let Ok(negotiated) = hear(client(), &response) {
        if let Some(agreed) = negotiated.deflate {
            assert_legal(&agreed, &ours);
        }
    }
    if let Ok(negotiated) = hear(plain, &response) {
        assert_eq!(negotiated.deflate, None);
    }

    // Our own answer to our own offer.
    let (at_server, response) = serve(&server_config, client().request()).expect("our offer");
    let at_client = hear(client(), &response).expect("our answer");
    let (one, other) = (at_client.deflate, at_server.deflate);
    let (one, other) = (one.expect("it was offered"), other.expect("it was accepted"));
    assert_legal(&one, &ours);
    assert_legal(&other, &theirs);
    assert_eq!((one.send, one.receive), (other.receive, other.send));
});

fn hear(mut client: ClientHandshake, response: &[u8]) -> Result<Negotiated, HandshakeError> {
    let mut input = BytesMut::from(response);
    match client.poll_response(&mut input)? {
        Some((negotiated, _)) => Ok(negotiated),
        None => Err(client.handle_eof()),
    }
}

/// §7.1: nobody does more than it wants to.
fn assert_legal(agreed: &AgreedDeflate, settings: &Deflate) {
    let within = |agreed: Context, setting: Context| {
        assert!((8..=15).contains(&agreed.window_bits), "{agreed:?}");
        assert!(agreed.takeover <= setting.takeover, "{agreed:?} for {setting:?}");
    };
    within(agreed.send, settings.sending());
    within(agreed.receive, settings.receiving());
    assert!(agreed.send.window_bits <= settings.sending().window_bits, "{agreed:?}");
}

/// A head with more lines; those that are no header values are left out.
fn with_lines(head: &[u8], lines: &[Line]) -> Vec<u8> {
    let mut bytes = head.strip_suffix(b"\r\n").expect("a head").to_vec();
    for line in lines {
        let value = line.bytes();
        if http::HeaderValue::from_bytes(&value).is_ok() {
            bytes.extend_from_slice(b"Sec-WebSocket-Extensions: ");
            bytes.extend(value);
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

impl Settings {
    fn deflate(&self) -> Deflate {
        Deflate::default()
            .context_takeover(self.send.0)
            .window_bits(self.send.1)
            .peer_context_takeover(self.receive.0)
            .peer_window_bits(self.receive.1)
    }
}

impl Line {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Parts(parts) => parts.iter().map(Part::text).collect::<String>().into_bytes(),
        }
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Name => "permessage-deflate".to_owned(),
            Self::ServerNoContext => "; server_no_context_takeover".to_owned(),
            Self::ClientNoContext => "; client_no_context_takeover".to_owned(),
            Self::ServerWindow => "; server_max_window_bits".to_owned(),
            Self::ClientWindow => "; client_max_window_bits".to_owned(),
            Self::Is(bits) => format!("={}", bits % 18),
            Self::IsQuoted(bits) => format!("=\"{}\"", bits % 18),
            Self::Semicolon => ";".to_owned(),
            Self::Comma => ", ".to_owned(),
            Self::Other(text) => text.clone(),
        }
    }
}

const NAME: &[u8] = b"permessage-deflate";
