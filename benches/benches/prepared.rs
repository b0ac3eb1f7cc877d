//! One message to many: framed for each receiver, or framed once as a [`PreparedMessage`].
//!
//! It measures the framing by itself, and sending to as many servers' [`Outbound`]s as there are
//! receivers, with a transport that takes everything at once; what is prepared is prepared within
//! the measurement. It does not measure who is subscribed, nor system calls, which in a real
//! broadcast are the greater part.

use std::{hint::black_box, io::IoSlice, time::Instant};

use bytes::{Buf, Bytes};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ws_proto::{Keepalive, Message, Outbound, PreparedMessage, Transmit};

fn new(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prepared/new");
    for (name, size) in SIZES {
        let message = message(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| PreparedMessage::new(message.clone()));
        });
    }
}

fn to_many(criterion: &mut Criterion) {
    for (name, size) in SIZES {
        let mut group = criterion.benchmark_group(format!("prepared/to_many/{name}"));
        let message = message(size);
        for receivers in [1, 10, 1000] {
            let mut servers: Vec<Outbound> = (0..receivers).map(|_| server()).collect();
            group.throughput(Throughput::Elements(receivers));
            group.bench_function(BenchmarkId::new("send", receivers), |bencher| {
                bencher.iter(|| {
                    for server in &mut servers {
                        server.send(message.clone()).expect("the connection is open");
                        write_all(server);
                    }
                });
            });
            group.bench_function(BenchmarkId::new("send_prepared", receivers), |bencher| {
                bencher.iter(|| {
                    let prepared = PreparedMessage::new(message.clone());
                    for server in &mut servers {
                        server.send_prepared(&prepared).expect("the connection is open");
                        write_all(server);
                    }
                });
            });
        }
    }
}

fn server() -> Outbound {
    Outbound::server(Keepalive::off(), Instant::now())
}

fn message(size: usize) -> Message {
    Message::Binary(Bytes::from(vec![0x5A; size]))
}

/// Writes all that is owed to nowhere.
fn write_all(outbound: &mut Outbound) {
    while let Some(Transmit::Data(queue)) = outbound.poll_transmit() {
        let mut slices = [IoSlice::new(&[]); 8];
        let used = queue.chunks_vectored(&mut slices);
        black_box(&slices[..used]);
        queue.advance(queue.remaining());
    }
}

/// A line of chat, which the send queue copies, and a picture, which goes by reference.
const SIZES: [(&str, usize); 2] = [("128", 128), ("16KiB", 16 << 10)];

criterion_group!(benches, new, to_many);
criterion_main!(benches);
