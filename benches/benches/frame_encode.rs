//! Sending: from a message to bytes ready for a vectored write (RFC 6455 §5.2, §5.3, §6.1).
//!
//! It measures [`Outbound::send`] and one [`Transmit`] with a transport that takes everything at
//! once. A server sends without masking, and its large payloads go by reference: beyond the size up
//! to which the queue copies, the time no longer depends on the length, and bytes per second mean
//! little. A client masks: in place if the payload is its own, otherwise in a copy.
//!
//! It does not measure system calls, nor how a payload comes to be.

use std::{hint::black_box, io::IoSlice, time::Instant};

use bytes::{Buf, Bytes};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ws_proto::{ChaChaKeys, Keepalive, Message, Outbound, Transmit};

fn server_to_client(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_encode/server_to_client");
    for (name, size) in SIZES {
        let mut server = server();
        let payload = payload(size);
        group.throughput(on_the_wire(&mut server, &payload));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| send(&mut server, payload.clone()));
        });
    }
}

fn client_to_server_shared(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_encode/client_to_server_shared");
    for (name, size) in SIZES {
        let mut client = client();
        let payload = payload(size);
        group.throughput(on_the_wire(&mut client, &payload));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| send(&mut client, payload.clone()));
        });
    }
}

fn client_to_server_owned(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_encode/client_to_server_owned");
    for (name, size) in SIZES {
        let mut client = client();
        group.throughput(on_the_wire(&mut client, &payload(size)));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            // Few at a time: a megabyte in each must not add up.
            let batch = BatchSize::NumIterations(16);
            bencher.iter_batched(|| payload(size), |payload| send(&mut client, payload), batch);
        });
    }
}

fn server() -> Outbound {
    Outbound::server(Keepalive::off(), Instant::now())
}

fn client() -> Outbound {
    // A seed that everybody knows is no seed; here it makes runs alike.
    let keys = ChaChaKeys::from_seed([7; 32]);
    Outbound::client(Keepalive::off(), Box::new(keys), Instant::now())
}

fn payload(size: usize) -> Bytes {
    Bytes::from(vec![0x5A; size])
}

/// Queues the payload as a binary message and writes all that is owed to nowhere.
fn send(outbound: &mut Outbound, payload: Bytes) {
    outbound.send(Message::Binary(payload)).expect("the connection is open");
    write_all(outbound);
}

fn write_all(outbound: &mut Outbound) {
    while let Some(Transmit::Data(queue)) = outbound.poll_transmit() {
        let mut slices = [IoSlice::new(&[]); 8];
        let used = queue.chunks_vectored(&mut slices);
        black_box(&slices[..used]);
        queue.advance(queue.remaining());
    }
}

/// Header and payload, so that an empty message counts for what it is: two bytes, or six.
fn on_the_wire(outbound: &mut Outbound, payload: &Bytes) -> Throughput {
    outbound.send(Message::Binary(payload.clone())).expect("the connection is open");
    let length = outbound.queued() as u64;
    write_all(outbound);
    Throughput::Bytes(length)
}

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

criterion_group!(benches, server_to_client, client_to_server_shared, client_to_server_owned);
criterion_main!(benches);
