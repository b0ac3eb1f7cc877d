//! Receiving: from the bytes of one read to messages (RFC 6455 §5.2, §5.3, §6.2).
//!
//! It measures [`Connection::poll_event`] over as many whole frames as one read of 64 KiB brings, or
//! over one frame if that is larger. A server unmasks; a client does not, and takes large payloads out
//! of the buffer by reference, so there bytes per second mean little.
//!
//! It does not measure reading, and neither UTF-8 (the messages are binary, see `utf8.rs`) nor
//! fragments.

use std::{hint::black_box, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use ws_proto::{ChaChaKeys, Config, Connection, Keepalive, Message, Transmit};

fn server_from_client(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_decode/server_from_client");
    for (name, size) in SIZES {
        decode(&mut group, name, &read_from(client(), size), server());
    }
}

fn client_from_server(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_decode/client_from_server");
    for (name, size) in SIZES {
        decode(&mut group, name, &read_from(server(), size), client());
    }
}

fn decode(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    read: &Read,
    mut receiver: Connection,
) {
    let bytes = read.bytes.len() as u64;
    group.throughput(Throughput::ElementsAndBytes { elements: read.frames, bytes });
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter_batched_ref(
            || BytesMut::from(&read.bytes[..]),
            |input| {
                let mut frames = 0;
                while let Some(event) = receiver.poll_event(input) {
                    black_box(event);
                    frames += 1;
                }
                assert_eq!(frames, read.frames, "each frame is a message");
            },
            // Few at a time: a buffer as warm as after a read.
            BatchSize::NumIterations(16),
        );
    });
}

/// What one read brings.
struct Read {
    bytes: Vec<u8>,
    frames: u64,
}

/// Lets `sender` send messages of this size until a read is full.
fn read_from(mut sender: Connection, size: usize) -> Read {
    let payload = Bytes::from(vec![0x5A; size]);
    let mut read = Read { bytes: Vec::new(), frames: 0 };
    loop {
        sender.send(Message::Binary(payload.clone())).expect("the connection is open");
        let mut frame = Vec::new();
        while let Some(Transmit::Data(queue)) = sender.poll_transmit() {
            frame.extend_from_slice(&queue.copy_to_bytes(queue.remaining()));
        }
        if read.frames > 0 && read.bytes.len() + frame.len() > READ {
            return read;
        }
        read.bytes.append(&mut frame);
        read.frames += 1;
    }
}

fn server() -> Connection {
    Connection::server(&config(), Instant::now())
}

fn client() -> Connection {
    // A seed that everybody knows is no seed; here it makes runs alike.
    Connection::client(&config(), ChaChaKeys::from_seed([7; 32]), Instant::now())
}

fn config() -> Config {
    Config::default().keepalive(Keepalive::off())
}

/// As much as `ws-conn` reads at once.
const READ: usize = 64 << 10;

/// Both sides of where the length field grows (§5.2), the sizes of a page and of a read buffer, and
/// the default limit of a message.
const SIZES: [(&str, usize); 6] = [
    ("0", 0),
    ("125", 125),
    ("126", 126),
    ("4KiB", 4 << 10),
    ("64KiB", 64 << 10),
    ("1MiB", 1 << 20),
];

criterion_group!(benches, server_from_client, client_from_server);
criterion_main!(benches);
