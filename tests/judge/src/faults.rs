//! What was done to a run, as the reasons it gives.

use std::ops::Range;

use crate::journal::Entry;

const SECOND: i64 = 1_000_000;
/// The journal's clock against the provider's and the brokers', and the time from an entry to its effect.
const SLACK: i64 = SECOND / 5;
/// How long a sender that is cut off may go on calling (5 s), and a second for what it has begun.
const LEASE: i64 = 6 * SECOND;
/// Later than the end of every run.
const NEVER: i64 = i64::MAX / 2;

/// When something was done by which a call's answer or its status may have been lost.
///
/// A sender's death is a moment, not an interval: what another one does while the first lies stopped is excused by nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// SIGKILL and SIGSTOP of senders.
    deaths: Vec<Death>,
    kafka: Vec<Away>,
    provider: Vec<Away>,
    offsets: Vec<i64>,
    /// When the provider refused or answered nobody.
    pub(crate) down: Vec<Range<i64>>,
    /// Senders without Kafka.
    pub(crate) cut_off: Vec<CutOff>,
    /// When a sender lay stopped or had no good way to Kafka: what it writes late, others know nothing of.
    late: Vec<Away>,
}

#[derive(Clone, Debug)]
struct Death {
    at: i64,
    sender: Option<u16>,
}

/// When something was away, and for whom; for all if none.
#[derive(Clone, Debug)]
struct Away {
    from: i64,
    until: i64,
    sender: Option<u16>,
}

/// A sender that nothing reached from Kafka, or nothing in time, but that could call the provider.
#[derive(Clone, Debug)]
pub(crate) struct CutOff {
    pub(crate) name: String,
    from: i64,
    pub(crate) until: i64,
    pub(crate) ops: Option<String>,
    pub(crate) sender: Option<u16>,
}

impl CutOff {
    /// When nothing may be begun: the proof of its board was good for a second, thrice that is a verdict.
    pub(crate) fn forbidden(&self) -> Range<i64> {
        self.from + 3 * SECOND..self.until
    }
}

impl Away {
    fn meets(&self, from: i64, to: i64) -> bool {
        self.from <= to + SLACK && from - SLACK <= self.until
    }
}

impl Faults {
    pub(crate) fn of(journal: &[Entry]) -> Self {
        let mut journal: Vec<&Entry> = journal.iter().collect();
        journal.sort_by_key(|entry| entry.at);
        let mut faults = Self::default();
        for (index, entry) in journal.iter().enumerate() {
            let start = || journal[..index].iter().rfind(|start| start.event == "start" && start.name == entry.name);
            let until = |ends: &[&str]| {
                let of_it = |later: &&&Entry| later.role == entry.role && later.name == entry.name;
                let end = journal[index..].iter().filter(of_it).find(|later| ends.contains(&later.event.as_str()));
                end.map_or(NEVER, |end| end.at)
            };
            let sender = start().and_then(|start| start.port).filter(|_| entry.role.as_deref() == Some("sender"));
            let away = |until: i64| Away { from: entry.at, until, sender };
            if entry.is("sender", &["kill", "stop"]) {
                faults.deaths.push(Death { at: entry.at, sender });
                if entry.event == "stop" {
                    faults.late.push(away(until(&["cont", "kill"]) + LEASE));
                }
            } else if entry.is("kafka", &["kill", "stop", "term"]) {
                // Statuses of before are still on their way when it is back.
                faults.kafka.push(away(until(&["start", "cont"]) + LEASE));
            } else if entry.is("kafka", &["cut"]) || entry.is("sender", &["cut"]) {
                faults.kafka.push(away(entry.at + LEASE));
                faults.late.push(away(until(&["heal"]) + LEASE));
                if let Some(name) = entry.name.as_ref().filter(|_| entry.is("sender", &["cut"])) {
                    let ops = start().and_then(|start| start.ops.clone());
                    let (name, from, until) = (name.clone(), entry.at, until(&["heal"]));
                    faults.cut_off.push(CutOff { name, from, until, ops, sender });
                }
            } else if entry.is("kafka", &["slow"]) || entry.is("sender", &["slow"]) {
                faults.kafka.push(away(until(&["heal"]) + LEASE));
                faults.late.push(away(until(&["heal"]) + LEASE));
            } else if entry.is("provider", &["kill", "stop", "term", "cut", "slow"]) {
                let until = until(&["start", "cont", "heal"]);
                faults.provider.push(away(until + SECOND));
                if entry.event != "slow" {
                    faults.down.push(entry.at..until);
                }
            } else if entry.is("provider", &["fault"]) && entry.note.as_deref().is_some_and(refuses_all) {
                let over = |later: &&&Entry| {
                    later.is("provider", &["fault"]) && !later.note.as_deref().is_some_and(refuses_all)
                };
                faults.down.push(entry.at..journal[index..].iter().find(over).map_or(NEVER, |end| end.at));
            } else if entry.is("kafka", &["fault"]) {
                faults.offsets.push(entry.at);
            }
        }
        faults
    }

    /// Whether the answer to this sender's call, or its status, may have been lost while it was under way from `from` to `to`.
    /// Any sender's fault is one of a caller that isn't known.
    pub(crate) fn meet(&self, sender: Option<u16>, from: i64, to: i64) -> bool {
        self.lose_sender(sender, from, to) || self.provider_meets(from, to)
    }

    /// Whether this sender died from `from` to `to`, or couldn't reach Kafka.
    pub(crate) fn lose_sender(&self, sender: Option<u16>, from: i64, to: i64) -> bool {
        let died = |death: &Death| may_be(death.sender, sender) && (from - SLACK..=to + SLACK).contains(&death.at);
        let cut = |away: &Away| may_be(away.sender, sender) && away.meets(from, to);
        self.deaths.iter().any(died) || self.kafka.iter().any(cut)
    }

    /// Whether Kafka, or some sender's way to it, was away.
    pub(crate) fn kafka_meets(&self, from: i64, to: i64) -> bool {
        self.kafka.iter().any(|away| away.meets(from, to))
    }

    /// Whether the provider, or the way to it, was away.
    pub(crate) fn provider_meets(&self, from: i64, to: i64) -> bool {
        self.provider.iter().any(|away| away.meets(from, to))
    }

    /// Whether a status of this instant may be that of a sender which had lost its partition long before.
    pub(crate) fn may_be_late(&self, at: i64) -> bool {
        self.late.iter().any(|away| away.meets(at, at))
    }

    /// Whether committed offsets were changed by hand.
    pub(crate) fn offsets_touched(&self, from: i64, to: i64) -> bool {
        self.offsets.iter().any(|at| (from - SLACK..=to + SLACK).contains(at))
    }

    /// Whether the provider refused or answered nobody at an instant, or its lanes may still have been closed by that.
    pub(crate) fn in_trouble(&self, at: i64, closed_for: i64) -> bool {
        self.down.iter().any(|down| down.start - SLACK <= at && at <= down.end + closed_for)
    }
}

/// Whether a fault of one may be that of the other: both are unknown, or the same.
fn may_be(one: Option<u16>, other: Option<u16>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Whether these fault rules of the simulator let no call succeed.
fn refuses_all(rules: &str) -> bool {
    let rules: serde_json::Value = serde_json::from_str(rules).unwrap_or_default();
    let refuses = |rule: &serde_json::Value| {
        let fault = &rule["fault"];
        let refusal = matches!(fault.as_str(), Some("outage" | "hang" | "reset_before"));
        let status = fault["status"].as_i64().is_some_and(|status| status >= 500);
        let for_all =
            rule.as_object().is_some_and(|rule| rule.keys().all(|key| key == "fault" || key == "probability"));
        (refusal || status) && for_all && rule["probability"].as_f64().is_none_or(|share| share >= 1.0)
    };
    rules.as_array().is_some_and(|rules| rules.iter().any(refuses))
}
