//! Contents that tell where they belong: every 8-byte word is a function of a seed and of its position.
//!
//! A block that landed in the wrong place, a stale one, a torn one and a shifted one all differ from what
//! their place should hold. Positions count from the start of a buffer, so that two processes agree on them
//! without exchanging addresses.

const WORD_BYTES: usize = 8;

/// Makes seeds that differ in one bit differ in all of them.
fn spread(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The word at `index` (position divided by 8) of the buffer with this spread seed.
fn word(seed: u64, index: u64) -> [u8; WORD_BYTES] {
    let mixed = index.wrapping_add(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).to_le_bytes()
}

/// The index of the word that holds `position`, and how far into that word it is.
fn split(position: u64) -> (u64, usize) {
    let word_bytes = WORD_BYTES as u64;
    let within = usize::try_from(position % word_bytes).unwrap_or(0);
    (position / word_bytes, within)
}

/// Fills `buffer`, which lies at `position` of the whole, with its contents.
pub fn fill(buffer: &mut [u8], seed: u64, position: u64) {
    let seed = spread(seed);
    let (mut index, within) = split(position);
    let head_bytes = if within == 0 { 0 } else { (WORD_BYTES - within).min(buffer.len()) };
    let (head, body) = buffer.split_at_mut(head_bytes);
    if !head.is_empty() {
        for (byte, expected) in head.iter_mut().zip(word(seed, index).iter().skip(within)) {
            *byte = *expected;
        }
        index += 1;
    }
    let mut words = body.chunks_exact_mut(WORD_BYTES);
    for chunk in words.by_ref() {
        chunk.copy_from_slice(&word(seed, index));
        index += 1;
    }
    for (byte, expected) in words.into_remainder().iter_mut().zip(word(seed, index)) {
        *byte = expected;
    }
}

/// Where and how often `buffer` differs from its contents: the number of differing bytes and the first one's
/// distance from the start of `buffer`.
#[must_use]
pub fn compare(buffer: &[u8], seed: u64, position: u64) -> Option<(u64, usize)> {
    let seed = spread(seed);
    let (mut index, within) = split(position);
    let head_bytes = if within == 0 { 0 } else { (WORD_BYTES - within).min(buffer.len()) };
    let (head, body) = buffer.split_at(head_bytes);
    let mut difference = Difference::default();
    if !head.is_empty() {
        let expected = word(seed, index);
        difference.add(0, head, expected.get(within..).unwrap_or_default());
        index += 1;
    }
    let words = body.chunks_exact(WORD_BYTES);
    let tail = words.remainder();
    let mut at = head_bytes;
    for chunk in words {
        let expected = word(seed, index);
        if chunk != expected {
            difference.add(at, chunk, &expected);
        }
        at += WORD_BYTES;
        index += 1;
    }
    difference.add(at, tail, &word(seed, index));
    difference.first.map(|first| (difference.count, first))
}

#[derive(Default)]
struct Difference {
    count: u64,
    first: Option<usize>,
}

impl Difference {
    fn add(&mut self, at: usize, actual: &[u8], expected: &[u8]) {
        for (distance, (left, right)) in actual.iter().zip(expected).enumerate() {
            if left != right {
                self.count += 1;
                self.first.get_or_insert(at + distance);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(seed: u64, position: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0; length];
        fill(&mut buffer, seed, position);
        buffer
    }

    #[test]
    fn a_part_is_the_same_as_that_part_of_the_whole() {
        let whole = contents(7, 0, 100);
        for start in 0..20 {
            for length in 0..40 {
                let part = contents(7, start as u64, length);
                assert_eq!(part, whole[start..start + length], "start {start}, length {length}");
                assert_eq!(compare(&part, 7, start as u64), None);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        for at in 0..37 {
            let mut buffer = contents(3, 5, 37);
            buffer[at] ^= 0x10;
            assert_eq!(compare(&buffer, 3, 5), Some((1, at)));
        }
    }

    #[test]
    fn a_block_in_another_place_differs() {
        let block = contents(3, 4096, 4096);
        let (count, first) = compare(&block, 3, 0).unwrap();
        assert!(count > 3500, "only {count} bytes differ");
        assert!(first < 8);
        for other in [2, 3 ^ (1 << 63), 3 + (1 << 32)] {
            let (count, _) = compare(&contents(other, 0, 4096), 3, 0).unwrap();
            assert!(count > 3500, "seed {other:#x}: only {count} bytes differ");
        }
    }
}
