//! Masking (RFC 6455 §5.3): [`apply_mask`] in place, by length and by where the bytes lie.
//!
//! It measures the XOR over memory that was touched just before, so the cache decides beyond its
//! size. It does not measure masking keys, nor the copy that a shared payload needs.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ws_proto::apply_mask;

fn by_length(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("masking/by_length");
    for (name, length) in LENGTHS {
        let mut memory = Memory::new(length);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| apply_mask(black_box(memory.at(0)), black_box(KEY), 0));
        });
    }
}

/// Behind a header of 6, 8 or 14 bytes a payload lies anywhere.
fn by_alignment(criterion: &mut Criterion) {
    for (name, length) in [("125", 125), ("4KiB", 4 << 10), ("64KiB", 64 << 10)] {
        let mut group = criterion.benchmark_group(format!("masking/by_alignment/{name}"));
        let mut memory = Memory::new(length);
        group.throughput(Throughput::Bytes(length as u64));
        for alignment in [0, 1, 3, 6, 7, 31] {
            group.bench_function(BenchmarkId::from_parameter(alignment), |bencher| {
                bencher.iter(|| apply_mask(black_box(memory.at(alignment)), black_box(KEY), 0));
            });
        }
    }
}

/// A payload that goes on in the middle of the key, as one does that comes in pieces.
fn by_offset(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("masking/by_offset");
    let mut memory = Memory::new(4 << 10);
    group.throughput(Throughput::Bytes(4 << 10));
    for offset in 0..4 {
        group.bench_function(BenchmarkId::from_parameter(offset), |bencher| {
            bencher.iter(|| apply_mask(black_box(memory.at(0)), black_box(KEY), offset));
        });
    }
}

/// Room for a payload at a known distance from the beginning of a cache line.
struct Memory {
    bytes: Vec<u8>,
    length: usize,
}

impl Memory {
    fn new(length: usize) -> Self {
        Self { bytes: vec![0x5A; length + 2 * CACHE_LINE], length }
    }

    /// The payload, `alignment` bytes behind the beginning of a cache line.
    fn at(&mut self, alignment: usize) -> &mut [u8] {
        let start = self.bytes.as_ptr().align_offset(CACHE_LINE) + alignment;
        &mut self.bytes[start..start + self.length]
    }
}

/// Of the machines that servers run on, most.
const CACHE_LINE: usize = 64;

/// The key of §5.7.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const LENGTHS: [(&str, usize); 7] = [
    ("16", 16),
    ("64", 64),
    ("256", 256),
    ("1KiB", 1 << 10),
    ("4KiB", 4 << 10),
    ("64KiB", 64 << 10),
    ("1MiB", 1 << 20),
];

criterion_group!(benches, by_length, by_alignment, by_offset);
criterion_main!(benches);
