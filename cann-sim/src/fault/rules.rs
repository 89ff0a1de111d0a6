//! The rules that stand in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::rule::{Action, Place, Rule};

static RULES: RwLock<Vec<Arc<Rule>>> = RwLock::new(Vec::new());
/// There are rules: what every call looks at.
static ANY: AtomicBool = AtomicBool::new(false);

/// Puts new rules in the place of the old ones.
pub fn replace(new: Vec<Rule>) {
    let mut rules = RULES.write();
    *rules = new.into_iter().map(Arc::new).collect();
    ANY.store(!rules.is_empty(), Ordering::Release);
}

/// Puts rules behind those that stand.
pub fn add(new: Vec<Rule>) {
    let mut rules = RULES.write();
    rules.extend(new.into_iter().map(Arc::new));
    ANY.store(!rules.is_empty(), Ordering::Release);
}

/// What the rules say of this call. Every rule about it counts it; the first one that means it decides.
pub fn find(name: &str, place: impl FnOnce() -> Place) -> Option<Action> {
    if !ANY.load(Ordering::Acquire) {
        return None;
    }
    let place = place();
    RULES.read().iter().filter(|rule| rule.is_about(name, place)).fold(None, |found, rule| {
        let means = rule.counts_and_means();
        found.or(means.then_some(rule.action))
    })
}

/// The first action that stands for `name` without counting calls, if `wanted` says that it is one of
/// interest.
pub fn standing(name: &str, place: Place, wanted: impl Fn(Action) -> bool) -> Option<Action> {
    if !ANY.load(Ordering::Acquire) {
        return None;
    }
    let rules = RULES.read();
    let mut about = rules.iter().filter(|rule| rule.stands() && rule.is_about(name, place));
    about.find(|rule| wanted(rule.action)).map(|rule| rule.action)
}
