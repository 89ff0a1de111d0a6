//! JSON as upstream's parser takes it: comments are allowed, and whatever follows the first value is ignored.
//!
//! The strict parser runs first; comments are looked for only when it fails, so that the common case costs
//! nothing. Nesting is limited by the parser (128 levels).

use serde::de::DeserializeOwned;

use crate::error::{Code, Error, Result, Stage};

/// The first JSON value in `bytes` as `T`.
///
/// # Errors
/// [`Code::MalformedJson`] when there is none or it is no `T`.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str, stage: Stage) -> Result<T> {
    let failed = match first(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if bytes.windows(2).any(|pair| pair == b"//" || pair == b"/*")
        && let Ok(value) = first(&without_comments(bytes))
    {
        return Ok(value);
    }
    Err(Error::new(Code::MalformedJson, stage, format!("{what} is not the JSON it should be: {failed}")))
}

fn first<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    T::deserialize(&mut deserializer)
}

/// `bytes` with each comment outside of strings replaced by a space.
fn without_comments(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut in_string = false;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if in_string {
            out.push(byte);
            match (byte, tail.split_first()) {
                (b'\\', Some((&escaped, after))) => {
                    out.push(escaped);
                    rest = after;
                }
                (b'"', _) => in_string = false,
                _ => {}
            }
            continue;
        }
        match (byte, tail.first()) {
            (b'/', Some(b'/')) => {
                let end = tail.iter().position(|byte| *byte == b'\n').unwrap_or(tail.len());
                rest = tail.get(end..).unwrap_or_default();
                out.push(b' ');
            }
            (b'/', Some(b'*')) => {
                let body = tail.get(1..).unwrap_or_default();
                let end = body.windows(2).position(|pair| pair == b"*/");
                rest = end.and_then(|end| body.get(end.saturating_add(2)..)).unwrap_or_default();
                out.push(b' ');
            }
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn taken(text: &str) -> Option<Value> {
        parse(text.as_bytes(), "text", Stage::Handshake).ok()
    }

    #[test]
    fn upstreams_tolerance() {
        assert_eq!(taken("{ \"a\" : 1 }\n"), Some(json!({"a": 1})));
        assert_eq!(taken("{} trailing garbage"), Some(json!({})));
        assert_eq!(
            taken("// note\n{/* x */\"a\": \"/* kept \\\" // kept */\"}"),
            Some(json!({"a": "/* kept \" // kept */"}))
        );
        assert_eq!(taken("null\n"), Some(Value::Null));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "   ", "garbage", "{\"a\":", "/* open", "//", "\"", "{\"a\":1,}"] {
            assert_eq!(taken(text), None, "{text}");
        }
        assert_eq!(taken(&"[".repeat(100_000)), None);
    }
}
