//! Durations and sizes as flags spell them.

/// Milliseconds of `10s`, `5 m`, `1h`, `250ms` or plain `250`; case does not matter.
#[must_use]
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let (digits, unit) = split_number(text.trim())?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Bytes of `4 GB`, `512m`, `1024`; powers of 1024.
#[must_use]
pub fn parse_size_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = split_number(text.trim())?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        "t" | "tb" => 1u64 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    (!digits.is_empty()).then_some((digits, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::{parse_duration_ms, parse_size_bytes};

    #[test]
    fn durations() {
        for (text, ms) in
            [("500", 500), ("500ms", 500), ("10s", 10_000), ("2 M", 120_000), (" 1h ", 3_600_000), ("0", 0)]
        {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for text in ["", "s", "10x", "-1", "1.5s", "99999999999999999999", "18446744073709551615h"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size_bytes("4 GB"), Some(4 << 30));
        assert_eq!(parse_size_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_size_bytes("7"), Some(7));
        assert_eq!(parse_size_bytes("50%"), None);
    }
}
