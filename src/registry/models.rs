//! Models of pins and removal, run by loom over every interleaving; see `sync` for the command.

use std::sync::Arc;

use loom::thread;

use super::Region;
use crate::memory::{ByteRange, Location, MemoryKind};
use crate::sync::{AtomicU32, Ordering, explore};

fn region() -> Arc<Region> {
    let range = ByteRange::new(0x1000, 64).unwrap();
    let region = Region::shut(range, Location::Any, MemoryKind::Host, 0, 1);
    region.open();
    Arc::new(region)
}

/// While a pin is held no removal succeeds, and after one has succeeded no pin is held or given.
#[test]
fn loom_a_removed_region_is_not_used() {
    explore(|| {
        let region = region();
        let users = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (region, users) = (Arc::clone(&region), Arc::clone(&users));
                thread::spawn(move || {
                    if let Some(pin) = region.pin() {
                        users.fetch_add(1, Ordering::Relaxed);
                        users.fetch_sub(1, Ordering::Relaxed);
                        drop(pin);
                    }
                })
            })
            .collect();
        let removed = region.shut_idle().is_ok();
        if removed {
            assert_eq!(users.load(Ordering::Relaxed), 0, "removed while in use");
            assert!(region.pin().is_none());
        }
        for user in threads {
            user.join().unwrap();
        }
        assert_eq!(region.in_flight(), 0);
        assert_eq!(region.shut_idle().is_ok(), !removed);
    });
}

/// Of two removals one wins.
#[test]
fn loom_one_removal_wins() {
    explore(|| {
        let region = region();
        let other = thread::spawn({
            let region = Arc::clone(&region);
            move || region.shut_idle().is_ok()
        });
        let here = region.shut_idle().is_ok();
        assert!(here != other.join().unwrap());
    });
}

/// A removal that is given up leaves the region as it was.
#[test]
fn loom_a_region_opens_again() {
    explore(|| {
        let region = region();
        let user = thread::spawn({
            let region = Arc::clone(&region);
            move || drop(region.pin())
        });
        if region.shut_idle().is_ok() {
            region.open();
        }
        user.join().unwrap();
        assert_eq!(region.in_flight(), 0);
        assert!(region.pin().is_some());
    });
}

/// At the end of the engine no pin is given any more, and those that were given can be waited for.
#[test]
fn loom_the_end_keeps_new_pins_out() {
    explore(|| {
        let region = region();
        let user = thread::spawn({
            let region = Arc::clone(&region);
            move || drop(region.pin())
        });
        region.shut_in_use();
        assert!(region.pin().is_none(), "a pin after the end");
        assert!(region.shut_idle().is_err() && !region.is_open());
        user.join().unwrap();
        assert_eq!(region.in_flight(), 0);
    });
}
