//! Any bytes in front of a connection, cut at every place (HAProxy's `proxy-protocol.txt`): no panic,
//! nothing decided twice, and what is taken for a header is framed like one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ws_serve::proxy_protocol::{Decoded, MAX_HEADER, decode};

fuzz_target!(|wire: &[u8]| {
    let whole = decode(wire);
    for end in 0..=wire.len() {
        let outcome = decode(&wire[..end]);
        if outcome == Ok(Decoded::Incomplete) {
            assert!(end < MAX_HEADER, "waits for ever");
            continue;
        }
        // Once decided, it stays so; and a header is decided by its own last byte.
        assert_eq!(outcome, whole, "at {end}");
        if let Ok(Decoded::Done { source, destination, length }) = outcome {
            assert_eq!(length, end);
            assert_eq!(source.is_some(), destination.is_some());
            assert_framed(&wire[..length], source.is_some());
        }
        break;
    }
});

/// An oracle of its own.
fn assert_framed(header: &[u8], has_addresses: bool) {
    if let Some(line) = header.strip_prefix(b"PROXY ") {
        let text = line.strip_suffix(b"\r\n").expect("it ends in CRLF");
        assert!(header.len() <= 107 && !text.iter().any(|byte| b"\r\n".contains(byte)));
        assert_eq!(text.starts_with(b"TCP"), has_addresses);
        if has_addresses {
            let fields: Vec<_> = text.split(|byte| *byte == b' ').collect();
            assert!(fields.len() == 5 && fields.iter().all(|field| !field.is_empty()));
        }
    } else {
        let body = header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n").expect("the signature");
        let [command, family, high, low, body @ ..] = body else { panic!("no length") };
        assert_eq!(body.len(), usize::from(u16::from_be_bytes([*high, *low])));
        let told = *command == 0x21 && matches!(family, 0x11 | 0x12 | 0x21 | 0x22);
        assert_eq!(told, has_addresses);
    }
}
