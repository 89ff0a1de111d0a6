//! MD5 as a `const fn`: function ids and type hashes are its first four digest bytes, fixed at compile time.
//!
//! It identifies types, it protects nothing; messages longer than 4 KiB do not occur.

const SHIFTS: [u32; 64] = [
    7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 5, 9, 14, 20, 5, 9, 14, 20, 5, 9, 14, 20, 5,
    9, 14, 20, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 6, 10, 15, 21, 6, 10, 15, 21, 6,
    10, 15, 21, 6, 10, 15, 21,
];

const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// The byte at `index` of the message after padding.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a wrong index is a build error"
)]
const fn padded(message: &[u8], length: usize, total: usize, index: usize) -> u8 {
    if index < length {
        message[index]
    } else if index == length {
        0x80
    } else if index + 8 < total {
        0
    } else {
        let bits = (length as u64) * 8;
        bits.to_le_bytes()[index + 8 - total]
    }
}

/// The first four digest bytes of `message[..length]`, read as a big-endian number.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a wrong index is a build error"
)]
pub(crate) const fn first_word(message: &[u8], length: usize) -> u32 {
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let total = (length + 8) / 64 * 64 + 64;
    let mut block = 0;
    while block < total {
        let mut words = [0u32; 16];
        let mut word = 0;
        while word < 16 {
            let at = block + word * 4;
            words[word] = u32::from_le_bytes([
                padded(message, length, total, at),
                padded(message, length, total, at + 1),
                padded(message, length, total, at + 2),
                padded(message, length, total, at + 3),
            ]);
            word += 1;
        }
        let [mut a, mut b, mut c, mut d] = state;
        let mut round = 0;
        while round < 64 {
            let (mix, index) = if round < 16 {
                ((b & c) | (!b & d), round)
            } else if round < 32 {
                ((d & b) | (!d & c), (5 * round + 1) % 16)
            } else if round < 48 {
                (b ^ c ^ d, (3 * round + 5) % 16)
            } else {
                (c ^ (b | !d), (7 * round) % 16)
            };
            let sum = mix.wrapping_add(a).wrapping_add(SINES[round]).wrapping_add(words[index]);
            a = d;
            d = c;
            c = b;
            b = b.wrapping_add(sum.rotate_left(SHIFTS[round]));
            round += 1;
        }
        state = [
            state[0].wrapping_add(a),
            state[1].wrapping_add(b),
            state[2].wrapping_add(c),
            state[3].wrapping_add(d),
        ];
        block += 64;
    }
    state[0].swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::first_word;

    /// The digests of RFC 1321, appendix A.5, and one message for each side of the padding boundary.
    #[test]
    fn rfc_1321_vectors() {
        let cases: [(&[u8], u32); 6] = [
            (b"", 0xd41d_8cd9),
            (b"a", 0x0cc1_75b9),
            (b"abc", 0x9001_5098),
            (b"message digest", 0xf96b_697d),
            (b"abcdefghijklmnopqrstuvwxyz", 0xc3fc_d3d7),
            (
                b"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                0x57ed_f4a2,
            ),
        ];
        for (message, digest) in cases {
            assert_eq!(first_word(message, message.len()), digest);
        }
    }
}
