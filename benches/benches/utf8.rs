//! Checking that a text is UTF-8 (RFC 6455 §8.1): [`Utf8Validator`] beside the standard library.
//!
//! It measures valid text of 64 KiB in three kinds of writing, whole and in pieces of 1 KiB, which
//! cut code points wherever they happen to. The standard library has no answer to a code point that
//! is cut, so there is nothing to set beside the pieces. It does not measure invalid text: that is
//! the last thing a connection receives.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ws_proto::Utf8Validator;

fn utf8(criterion: &mut Criterion) {
    for (name, sample) in SAMPLES {
        let text = text(sample);
        let mut group = criterion.benchmark_group(format!("utf8/{name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("std_whole", |bencher| {
            bencher.iter(|| std::str::from_utf8(black_box(text.as_bytes())).is_ok());
        });
        group.bench_function("validator_whole", |bencher| {
            bencher.iter(|| is_valid([black_box(text.as_bytes())]));
        });
        group.bench_function("validator_1KiB_pieces", |bencher| {
            bencher.iter(|| is_valid(black_box(text.as_bytes()).chunks(PIECE)));
        });
    }
}

fn is_valid<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let mut utf8 = Utf8Validator::default();
    pieces.into_iter().all(|piece| utf8.feed(piece).is_ok()) && utf8.finish().is_ok()
}

/// The sample, again and again.
fn text(sample: &str) -> String {
    let mut text = sample.repeat(LENGTH / sample.len() + 1);
    text.truncate(text.floor_char_boundary(LENGTH));
    text
}

const LENGTH: usize = 64 << 10;

/// About what a packet brings.
const PIECE: usize = 1 << 10;

/// One byte a character; one and two, mixed; three.
const SAMPLES: [(&str, &str); 3] = [
    (
        "ascii",
        r#"{"type":"message","room":"lobby","body":"The quick brown fox jumps over a dog."},"#,
    ),
    (
        "european",
        "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. \
         Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis. \
         Pchnąć w tę łódź jeża lub ośm skrzyń fig. \
         Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. \
         Съешь же ещё этих мягких французских булок, да выпей чаю. ",
    ),
    (
        "cjk",
        "天地玄黃,宇宙洪荒。日月盈昃,辰宿列張。\
         いろはにほへとちりぬるをわかよたれそつねならむ。\
         키스의고유조건은입술끼리만나야하고특별한기술은필요치않다。",
    ),
];

criterion_group!(benches, utf8);
criterion_main!(benches);
