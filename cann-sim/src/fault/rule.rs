//! The language of fault rules: one rule as text, and which calls it means.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::board;
use crate::settings;
use crate::status::acl;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// With this number.
    Fail(i32),
    /// Later by this; an abort ends the wait.
    Delay(Duration),
    /// Later by this, and no abort helps.
    Stuck(Duration),
    /// The bytes come after this, whatever became of the stream.
    Late(Duration),
    /// The stream is dead from here on; its work fails with this number.
    Kill(i32),
    /// The peer cannot be reached.
    Down,
    /// At most so many bytes a second.
    Slow(u64),
    /// So much device memory is taken away.
    Take(u64),
}

/// Where a call, a task or a copy happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a device, by user id; none is current.
    Device(Option<u32>),
    /// Between two NPUs, by physical id.
    Link(u32, u32),
}

/// Which places a rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everywhere,
    /// This device, or links of this NPU.
    One(u32),
    /// The link between two NPUs, in either direction.
    Pair(u32, u32),
}

impl Scope {
    fn holds(self, place: Place) -> bool {
        match (self, place) {
            (Self::Everywhere, _) => true,
            (Self::One(id), Place::Device(device)) => device == Some(id),
            (Self::One(id), Place::Link(one, other)) => id == one || id == other,
            (Self::Pair(..), Place::Device(_)) => false,
            (Self::Pair(one, other), Place::Link(first, second)) => {
                (one, other) == (first, second) || (one, other) == (second, first)
            }
        }
    }
}

/// What counts the calls that a rule has seen.
#[derive(Debug)]
enum Counter {
    Own(AtomicU64),
    /// Shared by all processes of the namespace that have a rule of the same text.
    Shared(String),
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    name: String,
    scope: Scope,
    /// What goes wrong.
    pub action: Action,
    first: u64,
    last: u64,
    counter: Counter,
}

impl Rule {
    /// Whether the rule is about `name` at `place`, whatever was called before.
    pub fn is_about(&self, name: &str, place: Place) -> bool {
        self.name == name && self.scope.holds(place)
    }

    /// Counts one call of what the rule is about; whether the rule means this very one.
    pub fn counts_and_means(&self) -> bool {
        let number = 1 + match &self.counter {
            Counter::Own(seen) => seen.fetch_add(1, Ordering::Relaxed),
            Counter::Shared(text) => board::count(text),
        };
        (self.first..=self.last).contains(&number)
    }

    /// Whether the rule means every call.
    pub fn stands(&self) -> bool {
        (self.first, self.last) == (1, u64::MAX)
    }
}

/// Rules as text, joined by `;`.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(parse_rule).collect()
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let wrong = || format!("\"{text}\" is no NAME[/WHERE]=ACTION[@[all:]N[+]]");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (name, scope) = match name.trim().split_once('/') {
        None => (name.trim(), Scope::Everywhere),
        Some((name, place)) => (name, parse_scope(place).ok_or_else(wrong)?),
    };
    let (action, which) = rest.split_once('@').map_or((rest, None), |(action, which)| (action, Some(which)));
    let mut counter = Counter::Own(AtomicU64::new(0));
    let (first, last) = match which {
        None => (1, u64::MAX),
        Some(which) => {
            let which = match which.strip_prefix("all:") {
                None => which,
                Some(which) => {
                    counter = Counter::Shared(text.to_owned());
                    which
                }
            };
            let (digits, last) =
                which.strip_suffix('+').map_or((which, None), |digits| (digits, Some(u64::MAX)));
            let first: u64 = digits.parse().ok().filter(|first| *first > 0).ok_or_else(wrong)?;
            (first, last.unwrap_or(first))
        }
    };
    let (verb, number) = match action.trim().split_once(':') {
        None => (action.trim(), None),
        Some((verb, number)) => (verb, Some(number)),
    };
    let code = |text: &str| text.parse().ok().filter(|code| *code != 0).ok_or_else(wrong);
    let duration = || number.unwrap_or("0").parse().map(Duration::from_millis).map_err(|_| wrong());
    let bytes = || {
        let bytes = number.and_then(settings::size).ok_or_else(wrong)?;
        u64::try_from(bytes).map_err(|_| wrong())
    };
    let action = match verb {
        "fail" => Action::Fail(code(number.unwrap_or_default())?),
        "delay" => Action::Delay(duration()?),
        "stuck" => Action::Stuck(duration()?),
        "late" => Action::Late(duration()?),
        "kill" => Action::Kill(number.map_or(Ok(acl::DEVICE_INTERNAL_ERROR), code)?),
        "down" if number.is_none() => Action::Down,
        "slow" => Action::Slow(bytes()?),
        "take" => Action::Take(bytes()?),
        _ => return Err(wrong()),
    };
    if !["link", "memory", "transfer", "copy", "task"].contains(&name) && !is_function(name) {
        return Err(format!("\"{text}\": the vendor's libraries have no function {name}"));
    }
    if !fits(name, action, scope) {
        return Err(format!("\"{text}\": this action does not fit this name"));
    }
    Ok(Rule { name: name.to_owned(), scope, action, first, last, counter })
}

fn parse_scope(text: &str) -> Option<Scope> {
    match text.split_once('-') {
        None => text.parse().ok().map(Scope::One),
        Some((one, other)) => Some(Scope::Pair(one.parse().ok()?, other.parse().ok()?)),
    }
}

/// Whether the vendor's libraries have a function of this name, in any release. Those that answer no error
/// number are not disturbed, but a rule for one is a mistake that no list can tell from a wish.
fn is_function(name: &str) -> bool {
    let lines = include_str!("../../symbols.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().nth(2)).any(|known| known == name)
}

/// Whether an action means anything for a name: a rule that can never do anything is a mistake.
fn fits(name: &str, action: Action, scope: Scope) -> bool {
    let pair = matches!(scope, Scope::Pair(..));
    match name {
        "link" => matches!(action, Action::Down | Action::Slow(_)),
        "memory" => !pair && matches!(action, Action::Take(_)),
        "transfer" | "copy" => {
            !pair && matches!(action, Action::Fail(_) | Action::Delay(_) | Action::Stuck(_) | Action::Late(_))
        }
        "task" => {
            !pair && matches!(action, Action::Fail(_) | Action::Delay(_) | Action::Stuck(_) | Action::Kill(_))
        }
        _ => !pair && matches!(action, Action::Fail(_) | Action::Delay(_)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: Place = Place::Device(None);

    #[test]
    fn rules_pick_the_calls_they_name() {
        let rules = parse("aclrtFree=fail:15@2; aclrtMalloc=delay:7@3+ ;link=down").unwrap();
        let calls = |rule: &Rule, name| {
            (0..5).map(|_| rule.is_about(name, ANYWHERE) && rule.counts_and_means()).collect()
        };
        let picked: Vec<bool> = calls(&rules[0], "aclrtFree");
        assert_eq!(picked, [false, true, false, false, false]);
        let picked: Vec<bool> = calls(&rules[1], "aclrtFree");
        assert_eq!(picked, [false; 5]);
        let picked: Vec<bool> = calls(&rules[1], "aclrtMalloc");
        assert_eq!(picked, [false, false, true, true, true]);
        assert_eq!(rules[0].action, Action::Fail(15));
        assert_eq!(rules[1].action, Action::Delay(Duration::from_millis(7)));
        assert!(rules[2].stands() && !rules[1].stands());
    }

    #[test]
    fn rules_keep_to_their_place() {
        let rules = parse("aclrtFree/3=fail:1; link/2-5=slow:3M; link/4=down; task/0=kill; memory/1=take:1G")
            .unwrap();
        assert!(rules[0].is_about("aclrtFree", Place::Device(Some(3))));
        assert!(!rules[0].is_about("aclrtFree", Place::Device(Some(2))));
        assert!(!rules[0].is_about("aclrtFree", ANYWHERE));
        assert_eq!(rules[1].action, Action::Slow(3 << 20));
        assert!(rules[1].is_about("link", Place::Link(5, 2)));
        assert!(!rules[1].is_about("link", Place::Link(5, 3)));
        assert!(rules[2].is_about("link", Place::Link(4, 1)) && rules[2].is_about("link", Place::Link(0, 4)));
        assert_eq!(rules[3].action, Action::Kill(acl::DEVICE_INTERNAL_ERROR));
        assert_eq!(rules[4].action, Action::Take(1 << 30));
    }

    #[test]
    fn nonsense_is_refused_with_the_rule() {
        for text in [
            "x",
            "aclrtFree=",
            "aclrtFree=fail",
            "aclrtFree=fail:0",
            "aclrtFree=delay:y",
            "aclrtFree=fail:1@",
            "aclrtFree=fail:1@0",
            "link=down@z",
            "aclrtFree/y=fail:1",
            "aclrtFree=fail:1@all",
            "link=fail:1",
            "link=slow",
            "memory=down",
            "HcclBatchPut=late:5",
            "aclrtFree/1-2=fail:1",
            "=down",
            "aclrtfree=fail:1",
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(text), "{why}");
        }
    }
}
