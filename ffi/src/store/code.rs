//! Names and sentences of the store's codes.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

use mooncake::store::ErrorCode;

use crate::last_error::c_text;

/// Name and sentence of every code, closed by NUL; made once.
fn texts() -> &'static BTreeMap<c_int, (CString, CString)> {
    static TEXTS: OnceLock<BTreeMap<c_int, (CString, CString)>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        ErrorCode::ALL.iter().map(|code| (code.0, (c_text(code.name()), c_text(code.sentence())))).collect()
    })
}

export! {
    /// Name of a code.
    fn mooncake_transfer_store_code_name(code: c_int) -> *const c_char,
    failure |_| c"UNKNOWN".as_ptr(), {
        Ok(texts().get(&code).map_or(c"UNKNOWN".as_ptr(), |(name, _)| name.as_ptr()))
    }
}

export! {
    /// Sentence of a code.
    fn mooncake_transfer_store_code_text(code: c_int) -> *const c_char,
    failure |_| c"".as_ptr(), {
        Ok(texts().get(&code).map_or(c"".as_ptr(), |(_, sentence)| sentence.as_ptr()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../../include/mooncake_transfer.h");

    /// Number by name, and the comment before it.
    fn declared() -> BTreeMap<String, (c_int, String)> {
        let body = HEADER.split("enum mooncake_transfer_store_code {").nth(1).unwrap();
        let body = body.split("};").next().unwrap();
        let mut codes = BTreeMap::new();
        let mut sentence = String::new();
        for line in body.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("/** ") {
                sentence = comment.trim_end_matches(" */").to_owned();
            } else if let Some((name, number)) = line.split_once(" = ") {
                let name = name.strip_prefix("MOONCAKE_TRANSFER_STORE_").unwrap().to_owned();
                let number = number.trim_end_matches(',').parse().unwrap();
                codes.insert(name, (number, std::mem::take(&mut sentence)));
            }
        }
        codes
    }

    #[test]
    fn the_header_has_the_codes_and_their_sentences() {
        let known: BTreeMap<String, (c_int, String)> = ErrorCode::ALL
            .iter()
            .map(|code| (code.name().to_owned(), (code.0, code.sentence().to_owned())))
            .collect();
        assert_eq!(declared(), known);
    }
}
