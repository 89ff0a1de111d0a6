//! Promise 19: a remote peer cannot make us touch memory that was not registered.
//!
//! Two rogues: one publishes descriptors with wild addresses, one is a peer with a good control connection that sends
//! wild, stale and out-of-order messages. The victim stays as it was: same bytes, same transfers, no thread, descriptor
//! or memory left behind. Frames and decoders have tests of their own (`handshake_listener`, `control_hostile`,
//! `handshake_descriptor`, `fuzz/`).
//!
//! Tried by taking the mechanism out: no single check is the last one here. With `ByteRange::contains` always true both
//! tests still pass, since the decoder refuses wild buffers, a peer without a control connection is not used for NPU
//! memory, and the vendor's own containment check stands behind ours. What these tests catch is a crash, a hang, a leak
//! or a changed byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mooncake::config::Config;
use mooncake::control::{
    ChannelKey, ChannelOffer, Connection, Control, Handler, Message, RankDevice, Region, RegionKind,
};
use mooncake::deadline::Deadline;
use mooncake::endpoint::Incarnation;
use mooncake::error::{Error, Result};
use mooncake::handshake;
use mooncake::memory::SharedFile;
use mooncake::segment::SegmentDescriptor;
use mooncake::transport::host::BoardPlace;
use mooncake_test_support::loopback;
use promise::{PAGE, Peer, moving, software_npu};

/// Serves one text after another as its descriptor, one per client.
struct Publisher {
    name: String,
    served: Arc<AtomicUsize>,
}

impl Publisher {
    fn start(descriptors: Vec<String>) -> Self {
        let listener = loopback::listen();
        let name = listener.local_addr().unwrap().to_string();
        let served = Arc::new(AtomicUsize::new(0));
        let (own, counter) = (name.clone(), Arc::clone(&served));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut head = [0; 8];
                if client.read_exact(&mut head).is_err() {
                    continue;
                }
                let mut rest = vec![0; usize::try_from(u64::from_le_bytes(head)).unwrap().min(1 << 20)];
                if client.read_exact(&mut rest).is_err() {
                    continue;
                }
                let place = counter.load(Ordering::Relaxed).min(descriptors.len() - 1);
                let json = descriptors[place].replace("NAME", &own);
                let mut frame = u64::try_from(json.len() + 1).unwrap().to_le_bytes().to_vec();
                frame.push(rest[0]);
                frame.extend_from_slice(json.as_bytes());
                counter.fetch_add(1, Ordering::Relaxed);
                // A client that left does not want it.
                let _ = client.write_all(&frame);
            }
        });
        Self { name, served }
    }
}

fn descriptor(buffers: &str) -> String {
    format!(
        r#"{{"name":"NAME","protocol":"ascend","buffers":[{buffers}],"rank_info":{{"rankId":1,"hostIp":"127.0.0.1","hostPort":1,"deviceLogicId":0,"devicePhyId":0,"deviceType":1,"deviceIp":"","devicePort":1,"pid":1}},"timestamp":"x"}}"#
    )
}

#[test]
fn descriptors_with_wild_addresses() {
    let npu = software_npu(2);
    let mut a = Peer::start(&npu, Some(0));
    let near = a.buffer(0, PAGE, 1);
    let most = u64::MAX;
    let buffers = [
        format!(r#"{{"name":"npu:0","addr":{most},"length":{most},"device_id":0}}"#),
        format!(r#"{{"name":"npu:0","addr":1,"length":{most},"device_id":0}}"#),
        format!(r#"{{"name":"npu:0","addr":{},"length":{},"device_id":-5}}"#, most - 4095, 4096),
        r#"{"name":"npu:999999999999","addr":4096,"length":4096,"device_id":2147483647}"#.to_owned(),
        r#"{"name":"npu:0","addr":0,"length":0,"device_id":0}"#.to_owned(),
        r#"{"name":"npu:0","addr":-1,"length":1e300,"device_id":0}"#.to_owned(),
        format!(
            r#"{{"name":"cpu:0","addr":{near},"length":{PAGE}}},{{"name":"cpu:0","addr":{near},"length":{PAGE}}}"#
        ),
        r#""text",7,null,[],{}"#.to_owned(),
    ];
    let mut before = None;
    for round in 0..3 {
        for text in &buffers {
            let rogue = Publisher::start(vec![descriptor(text)]);
            let name = rogue.name.clone();
            // Refused at once, or opened and refused at the transfer; never carried out.
            if a.ask(&format!("open {name}")).is_ok() {
                for remote in [near, 4096, most - 4095, 1, most] {
                    for direction in ["read", "write"] {
                        let words = moving(direction, near, &name, remote, 4096, 4096, 3000);
                        let failure = a.must_fail(&format!("transfer {words}"));
                        assert!(!failure.text("message").is_empty());
                    }
                }
            }
            assert!(rogue.served.load(Ordering::Relaxed) > 0);
        }
        assert!(a.holds(near, PAGE, 1), "our own memory was changed");
        let usage = a.must("usage");
        let number = |text: &str, place: usize| text.split(' ').nth(place).unwrap().parse::<u64>().unwrap();
        match &before {
            // The first round opens what stays open.
            None => before = Some(usage),
            Some(first) if round == 2 => {
                assert!(number(&usage, 0) <= number(first, 0) + 8, "descriptors: {first} then {usage}");
                assert!(
                    number(&usage, 2) < number(first, 2) + 64 * 1024,
                    "memory in KiB: {first} then {usage}"
                );
            }
            Some(_) => {}
        }
    }
    // A descriptor that says nonsense does not stand in the way of a peer that is right.
    let mut b = Peer::start(&npu, Some(1));
    let far = b.buffer(1, PAGE, 2);
    let name = b.name();
    a.must(&format!("transfer {}", moving("read", near, &name, far, PAGE, 4096, 0)));
    assert!(a.holds(near, PAGE, 2));
    a.quit();
    b.quit();
}

struct Nothing;

impl Handler for Nothing {
    fn request(&self, _from: &Arc<Connection>, _message: Message) -> Result<Message> {
        Ok(Message::Done)
    }

    fn lost(&self, _peer: &Incarnation, _why: &Error) {}
}

fn region(address: u64, length_bytes: u64) -> Region {
    Region { address, length_bytes, kind: RegionKind::Device }
}

#[test]
fn a_rogue_on_the_control_connection() {
    let npu = software_npu(3).variable("ASCEND_CONNECT_TIMEOUT", "1000");
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    let words = moving("write", near, &name, far, PAGE, 65536, 0);
    a.must(&format!("transfer {words}"));
    let prepared = b.count("HcclCommPrepare");
    let config = Config::default();
    let limit = || Deadline::after(Duration::from_secs(20));
    let published = handshake::fetch_descriptor(&name.parse().unwrap(), b"{}\n", &config, limit()).unwrap();
    let victim = SegmentDescriptor::decode(&published).unwrap().ours.unwrap();
    let own = Incarnation::new(None).unwrap();
    let control = Control::start(&config, own.clone(), "rogue:1", Arc::new(Nothing)).unwrap();
    let connection =
        control.connect(&loopback::host(), victim.control_port, &victim.incarnation, limit()).unwrap();
    let (lower, higher) = if own.id < victim.incarnation.id {
        (&own, &victim.incarnation)
    } else {
        (&victim.incarnation, &own)
    };
    let hex = |incarnation: &Incarnation| format!("{:032x}", incarnation.id);
    let offer = ChannelOffer {
        channel: "rogue".to_owned(),
        key: ChannelKey { lower: hex(lower), lower_device: 0, higher: hex(higher), higher_device: 0 },
        generation: (0, 0),
        attempt: 0,
        rank: RankDevice {
            server_id: "s".to_owned(),
            device_id: 0,
            device_ip: None,
            super_device_id: None,
            super_pod_id: None,
            device_port: None,
            version: "1.0".to_owned(),
            families: Vec::new(),
        },
        regions: vec![region(far, PAGE), region(u64::MAX, u64::MAX), region(0, 0), region(1, u64::MAX)],
        target_device: 1,
        timeout_ms: 500,
    };
    let changed = |change: &dyn Fn(&mut ChannelOffer)| {
        let mut offer = offer.clone();
        change(&mut offer);
        Message::OpenChannel(offer)
    };
    let stale = "0".repeat(32);
    let messages = [
        changed(&|_| {}),
        changed(&|offer| offer.target_device = i32::MIN),
        changed(&|offer| offer.target_device = i32::MAX),
        changed(&|offer| offer.generation = (u64::MAX, u64::MAX)),
        changed(&|offer| offer.attempt = u32::MAX),
        changed(&|offer| offer.timeout_ms = u64::MAX),
        changed(&|offer| offer.channel = "x".repeat(100_000)),
        changed(&|offer| offer.channel = String::new()),
        changed(&|offer| offer.rank.server_id = "\u{0}\"}],".repeat(50)),
        changed(&|offer| offer.rank.device_id = u32::MAX),
        changed(&|offer| offer.rank.version = "9.9".to_owned()),
        // Somebody else's incarnation, or one that is gone.
        changed(&|offer| offer.key.lower.clone_from(&stale)),
        changed(&|offer| offer.key.higher = "zz".to_owned()),
        changed(&|offer| offer.regions = (0..20_000).map(|place| region(place * 4096 + 1, 1)).collect()),
        Message::ChannelReady { channel: "never offered".to_owned() },
        Message::ChannelFailed { channel: "never offered".to_owned(), reason: "x".repeat(100_000) },
        Message::CloseChannel { channel: "never offered".to_owned() },
        Message::Withdraw { ranges: vec![(far, PAGE), (u64::MAX, u64::MAX), (0, 0)], epoch: 0 },
        Message::Withdraw { ranges: vec![(1, 1); 10_000], epoch: u64::MAX },
        Message::Withdrawn,
        Message::Pong,
        Message::Done,
        Message::Proof(BoardPlace {
            address: 1,
            file: SharedFile { descriptor: 1, inode: 1, length_bytes: 1 },
        }),
        Message::Prove { challenge: "not hexadecimal".to_owned() },
    ];
    for _ in 0..3 {
        for message in &messages {
            // Any answer is fine, as long as it comes or the connection ends.
            let _ = connection.request(message.clone(), Deadline::after(Duration::from_secs(5)));
            let _ = connection.send(message.clone());
        }
    }
    // A withdrawal of memory that is not the rogue's withdraws nothing.
    a.must(&format!("transfer {words}"));
    assert!(b.holds(far, PAGE, 1));
    b.must(&format!("transfer {}", moving("read", far, &a.name(), near, PAGE, 65536, 0)));
    let made = b.count("HcclCommPrepare") - prepared;
    assert!(made <= 12, "a rogue made the victim prepare {made} channels");
    drop(connection);
    control.shutdown();
    a.must(&format!("transfer {words}"));
    a.quit();
    b.quit();
}
