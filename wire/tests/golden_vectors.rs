//! Every literal and hash of the profiles, against those that upstream's released binaries were seen to use.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

use std::collections::BTreeMap;

use mooncake_wire::literal::Literal;
use mooncake_wire::{Function, Profile, other_releases};
use serde_json::Value;

fn vectors(profile: Profile) -> BTreeMap<String, Value> {
    let text = match profile {
        Profile::V0_3_13 => include_str!("golden/struct_pack_0.3.13.json"),
        Profile::V0_3_11 => include_str!("golden/struct_pack_0.3.11.json"),
    };
    serde_json::from_str(text).expect("golden file")
}

fn hex(literal: &Literal) -> String {
    format!("{literal:?}")
}

fn hash(value: &Value) -> Option<u32> {
    value.as_str().map(|text| u32::from_str_radix(text, 16).expect("hash"))
}

#[test]
fn every_vector_of_both_profiles() {
    for (profile, count) in [(Profile::V0_3_13, 64), (Profile::V0_3_11, 59)] {
        let vectors = vectors(profile);
        assert_eq!(vectors.len(), count);
        for (name, vector) in &vectors {
            let function = *Function::ALL.iter().find(|function| function.name() == name).expect("function");
            assert_eq!(Some(function.id()), hash(&vector["fid"]), "{name}");
            assert_eq!(Function::from_id(function.id()), Some(function));
            let signature = profile.signature(function).unwrap_or_else(|| panic!("{profile} {name}"));
            let arguments = signature.arguments.as_ref().map(hex);
            assert_eq!(arguments.as_deref(), vector["arg_lit"].as_str(), "{profile} {name}");
            assert_eq!(signature.arguments_hash, hash(&vector["arg_hash"]), "{profile} {name}");
            assert_eq!(Some(hex(&signature.reply).as_str()), vector["resp_lit"].as_str(), "{profile} {name}");
            assert_eq!(Some(signature.reply_hash), hash(&vector["resp_hash"]), "{profile} {name}");
        }
        for function in Function::ALL {
            assert_eq!(
                profile.signature(*function).is_some(),
                vectors.contains_key(function.name()),
                "{function}"
            );
        }
    }
    assert_eq!(Function::from_id(0), None);
}

#[test]
fn a_hash_names_its_release() {
    let named = |function: Function, hash: u32| -> Vec<&'static str> {
        Profile::with_arguments(function, hash).map(Profile::release).collect()
    };
    assert_eq!(named(Function::PutStart, 0xe385_bd0e), ["0.3.13"]);
    assert_eq!(named(Function::PutStart, 0x5ddd_cc88), ["0.3.11"]);
    assert_eq!(named(Function::Ping, 0x3c6d_83e0), ["0.3.13", "0.3.11"]);
    assert!(named(Function::PutStart, 0x6920_ea5c).is_empty());
    assert_eq!(other_releases::release_of(Function::PutStart, 0x6920_ea5c), Some("0.3.12"));
    assert_eq!(other_releases::release_of(Function::PutStart, 0x786e_5846), Some("0.3.8 to 0.3.10"));
    assert_eq!(other_releases::release_of(Function::PutStart, 1), None);
    assert_eq!(Profile::from_release("0.3.13.post1"), Some(Profile::V0_3_13));
    assert_eq!(Profile::from_release("0.3.11"), Some(Profile::V0_3_11));
    assert_eq!(Profile::from_release("0.3.12"), None);
}
