//! Compressing and decompressing whole messages (RFC 7692), with contexts and without.
//!
//! It measures sending into a queue that is emptied at once, and receiving from a buffer. It does not
//! measure system calls, nor memory; `deflate_table.rs` does that.

mod corpus;

use std::{hint::black_box, time::Instant};

use bytes::{Buf, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ws_proto::{
    AgreedDeflate, ChaChaKeys, Config, Connection, Deflate, Event, Keepalive, PreparedMessage,
    Transmit,
};

fn deflate(criterion: &mut Criterion) {
    for (setting, agreed) in settings() {
        let mut group = criterion.benchmark_group(format!("deflate/{setting}"));
        for (name, size) in SIZES {
            let messages = corpus::json(MESSAGES, size);
            let mut server =
                Connection::server(&config(), Instant::now()).with_deflate(Some(&agreed));
            let mut turn = messages.iter().cycle();
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    let message = turn.next().expect("a cycle has no end").as_str();
                    server.send(message).expect("the connection is open");
                    while let Some(Transmit::Data(queue)) = server.poll_transmit() {
                        black_box(queue.chunk());
                        queue.advance(queue.remaining());
                    }
                });
            });
        }
    }
}

fn inflate(criterion: &mut Criterion) {
    for (setting, agreed) in settings() {
        let mut group = criterion.benchmark_group(format!("inflate/{setting}"));
        for (name, size) in SIZES {
            let wires = wires(&agreed, &corpus::json(MESSAGES, size));
            group.throughput(Throughput::Bytes((size * MESSAGES) as u64));
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    // Contexts start anew with each round, so all of its messages belong together.
                    let keys = ChaChaKeys::from_seed([7; 32]);
                    let mut client = Connection::client(&config(), keys, Instant::now())
                        .with_deflate(Some(&agreed));
                    for wire in &wires {
                        let mut input = BytesMut::from(&wire[..]);
                        let event = client.poll_event(&mut input);
                        assert!(matches!(event, Some(Event::Message(_))));
                        black_box(event);
                    }
                });
            });
        }
    }
}

fn prepared(criterion: &mut Criterion) {
    let (_, agreed) = settings()[0];
    let message = corpus::json(1, 1024).remove(0);
    criterion.bench_function("deflate/prepared/1KiB", |bencher| {
        bencher.iter(|| {
            let prepared = PreparedMessage::new(message.as_str());
            black_box(prepared.frame_for(Some(&agreed)).len())
        });
    });
}

/// What a server sends.
fn wires(agreed: &AgreedDeflate, messages: &[String]) -> Vec<Vec<u8>> {
    let mut server = Connection::server(&config(), Instant::now()).with_deflate(Some(agreed));
    let mut wire = |message: &str| {
        server.send(message).expect("the connection is open");
        let mut bytes = Vec::new();
        while let Some(Transmit::Data(queue)) = server.poll_transmit() {
            bytes.extend_from_slice(&queue.copy_to_bytes(queue.remaining()));
        }
        bytes
    };
    messages.iter().map(|message| wire(message)).collect()
}

fn settings() -> [(&'static str, AgreedDeflate); 2] {
    [("default", Deflate::default()), ("best_ratio", Deflate::best_ratio())]
        .map(|(name, settings)| (name, settings.agree(settings.sending(), settings.receiving())))
}

fn config() -> Config {
    Config::default().max_message_size(2 << 20).keepalive(Keepalive::off())
}

/// So many different messages take their turns, or the branch predictor would learn them by heart.
const MESSAGES: usize = 64;

/// From what is barely worth compressing to a snapshot.
const SIZES: [(&str, usize); 4] =
    [("256", 256), ("1KiB", 1 << 10), ("16KiB", 16 << 10), ("256KiB", 256 << 10)];

criterion_group!(benches, deflate, inflate, prepared);
criterion_main!(benches);
