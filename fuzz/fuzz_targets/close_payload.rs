//! Any payload of a Close frame, to either role: it is echoed as it came, or earns 1002 or 1007
//! (RFC 6455 §5.5.1, §7.4).

#![no_main]

use std::time::Instant;

use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use ws_proto::{
    ChaChaKeys, CloseCode, Config, Connection, Event, FrameHeader, Opcode, ProtocolError, Role,
    State, Transmit, apply_mask,
};

fuzz_target!(|payload: &[u8]| {
    // Longer ones are no Close frame's (§5.5).
    let payload = &payload[..payload.len().min(125)];
    let (now, config) = (Instant::now(), Config::default());
    let client = Connection::client(&config, ChaChaKeys::from_seed([0; 32]), now);
    check(Connection::server(&config, now), Role::Server, payload);
    check(client, Role::Client, payload);
});

fn check(mut connection: Connection, role: Role, payload: &[u8]) {
    let mask = (role == Role::Server).then_some([1, 2, 3, 4]);
    let length = payload.len() as u64;
    let header = FrameHeader { fin: true, rsv1: false, opcode: Opcode::Close, mask, length };
    let mut input = BytesMut::from(&header.encode()[..]);
    let body = input.len();
    input.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut input[body..], key, 0);
    }

    let event = connection.poll_event(&mut input);
    assert_eq!(connection.state(), State::Draining);
    let answer = answer(&mut connection, role);
    let closed = connection.closed();
    // An oracle of its own.
    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    let legal = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    let reason = payload.get(2..).map(std::str::from_utf8);
    match (code, reason) {
        (None, _) if payload.is_empty() => assert_eq!(closed.code(), 1005),
        (None, _) => assert_eq!(closed.cause, Some(ProtocolError::CloseFrameTooShort)),
        (Some(code), _) if !legal(code) => {
            assert_eq!(closed.cause, Some(ProtocolError::InvalidCloseCode(code)));
        }
        (Some(code), Some(Ok(reason))) => {
            assert_eq!((closed.code(), closed.reason()), (code, reason));
        }
        _ => assert!(matches!(closed.cause, Some(ProtocolError::InvalidCloseReason(_)))),
    }
    match &closed.cause {
        None => {
            assert_eq!(event, closed.received.map(Event::Closing));
            assert_eq!(answer, payload);
        }
        Some(cause) => {
            assert_eq!(event, None);
            assert!(answer.starts_with(&cause.close_code().value().to_be_bytes()));
            let codes = [CloseCode::PROTOCOL_ERROR, CloseCode::INVALID_DATA];
            assert!(codes.contains(&cause.close_code()));
        }
    }
}

/// The payload of the one Close frame that is owed, unmasked.
fn answer(connection: &mut Connection, role: Role) -> Vec<u8> {
    let Some(Transmit::Data(queue)) = connection.poll_transmit() else { panic!("no answer") };
    let frame = queue.copy_to_bytes(queue.len());
    let peer = if role == Role::Server { Role::Client } else { Role::Server };
    let (header, size) = FrameHeader::decode(&frame, peer, false).unwrap().unwrap();
    assert_eq!((header.opcode, size + header.length as usize), (Opcode::Close, frame.len()));
    let mut payload = frame[size..].to_vec();
    apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
    payload
}
