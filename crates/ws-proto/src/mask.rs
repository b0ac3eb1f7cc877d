//! Masking (RFC 6455 §5.3): the XOR, and where a client's masking keys come from.
//!
//! Not its business: who must mask, which `frame.rs` knows. No `unsafe`: the compiler vectorises the loop over 32-byte blocks.

use std::fmt;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// Masks or unmasks `data`, which begins `offset` bytes into its frame's payload (RFC 6455 §5.3).
///
/// ```
/// let mut data = *b"Hello";
/// ws_proto::apply_mask(&mut data, [0x37, 0xfa, 0x21, 0x3d], 0);
/// assert_eq!(data, [0x7f, 0x9f, 0x4d, 0x51, 0x58]); // §5.7
/// ```
#[inline]
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let key = u32::from_ne_bytes([
        key[offset & 3],
        key[(offset + 1) & 3],
        key[(offset + 2) & 3],
        key[(offset + 3) & 3],
    ]);
    let wide = (u64::from(key) << 32) | u64::from(key);
    let (blocks, rest) = data.as_chunks_mut::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    let rest = match rest.split_first_chunk_mut::<4>() {
        Some((word, rest)) => {
            *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
            rest
        }
        None => rest,
    };
    for (byte, key) in rest.iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Where a client takes a fresh masking key for each frame.
///
/// §5.3 and §10.3 demand keys that those who supply the data cannot predict. Implement this to bring
/// your own source, or for reproducible tests; otherwise use [`ChaChaKeys`].
pub trait MaskingKeys: Send {
    /// The next key.
    fn next_key(&mut self) -> [u8; 4];
}

/// Masking keys from a ChaCha8 stream: unpredictable given an unpredictable seed, and no system call per frame.
#[derive(Clone)]
pub struct ChaChaKeys(ChaCha8Rng);

impl ChaChaKeys {
    /// Keys from a seed, which must come from a cryptographically secure source and be used once.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }
}

impl MaskingKeys for ChaChaKeys {
    fn next_key(&mut self) -> [u8; 4] {
        self.0.next_u32().to_ne_bytes()
    }
}

impl fmt::Debug for ChaChaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The stream's position would let a reader of logs predict keys.
        f.debug_struct("ChaChaKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentence of §5.3, byte by byte: octet i is XORed with key octet i modulo 4.
    fn by_the_book(data: &mut [u8], key: [u8; 4], offset: usize) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte ^= key[(offset + i) % 4];
        }
    }

    #[test]
    fn agrees_with_the_rfc_at_every_length_alignment_and_offset() {
        let key = [0x12, 0x34, 0x56, 0x78];
        let lengths = if cfg!(miri) { 70 } else { 300 };
        let source: Vec<u8> = (0..400u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in 0..=lengths {
            for alignment in 0..8 {
                let mut expected = source[alignment..alignment + len].to_vec();
                by_the_book(&mut expected, key, alignment + 1);
                let mut data = source.clone();
                apply_mask(&mut data[alignment..alignment + len], key, alignment + 1);
                assert_eq!(data[alignment..alignment + len], expected, "{len} {alignment}");
                assert_eq!(data[..alignment], source[..alignment]);
                assert_eq!(data[alignment + len..], source[alignment + len..]);
            }
        }
    }

    #[test]
    fn two_connections_do_not_share_a_sequence() {
        let mut a = ChaChaKeys::from_seed([1; 32]);
        let mut b = ChaChaKeys::from_seed([2; 32]);
        let keys = |source: &mut ChaChaKeys| (0..64).map(|_| source.next_key()).collect::<Vec<_>>();
        let (a, b) = (keys(&mut a), keys(&mut b));
        assert_ne!(a, b);
        assert!(a.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
