//! The conductor's journal: what was done to the run, and therefore what it may be excused by.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A line of the journal. Its instant, µs since the epoch, is read just before the thing is done.
///
/// | event | means |
/// |---|---|
/// | `mailing` | the run has this mailing (`id`) |
/// | `kill` | SIGKILL, also by the process's own hand at a failpoint |
/// | `term` | an orderly end was asked for |
/// | `stop`, `cont` | SIGSTOP and SIGCONT |
/// | `start` | it was started (again); `ops` is where, and `port` the provider's that only it calls, if it calls |
/// | `cut`, `heal` | connections to it (its `role`) were cut, and let through again; with the `name` of the one cut off, if not all are |
/// | `slow` | likewise, but something comes through |
/// | `fault` | anything else. Of the role `kafka`: committed offsets were deleted or moved by hand. Of the role `provider`: other fault rules |
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: i64,
    /// What.
    pub event: String,
    /// To whom: `api`, `scheduler`, `sender`, `projector`, `kafka`, `postgres` or `provider`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its ops address, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<String>,
    /// The port by which nobody else calls the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The mailing's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

impl Entry {
    fn is(&self, role: &str, events: &[&str]) -> bool {
        self.role.as_deref() == Some(role) && events.contains(&self.event.as_str())
    }
}

const SECOND: i64 = 1_000_000;
/// The journal's clock against the provider's and the brokers', and the time from an entry to its effect.
const SLACK: i64 = SECOND / 5;
/// How long a sender that is cut off may go on calling (5 s), and a second for what it has begun.
const LEASE: i64 = 6 * SECOND;

/// When something was done by which a call's answer or its status may have been lost.
///
/// A sender's death is a moment, not an interval: what another one does while the first lies stopped is excused by nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    senders: Vec<i64>,
    kafka: Vec<(i64, i64)>,
    provider: Vec<(i64, i64)>,
    offsets: Vec<i64>,
    /// Senders without Kafka.
    pub(crate) cut_off: Vec<CutOff>,
}

/// A sender that nothing reached from Kafka, or nothing in time, but that could call the provider.
#[derive(Clone, Debug)]
pub(crate) struct CutOff {
    pub(crate) name: String,
    from: i64,
    pub(crate) until: i64,
    pub(crate) ops: Option<String>,
    pub(crate) port: Option<u16>,
}

impl CutOff {
    /// When nothing may be begun: the proof of its board was good for a second, thrice that is a verdict.
    pub(crate) fn forbidden(&self) -> Range<i64> {
        self.from + 3 * SECOND..self.until
    }
}

impl Faults {
    pub(crate) fn of(journal: &[Entry]) -> Self {
        let mut journal: Vec<&Entry> = journal.iter().collect();
        journal.sort_by_key(|entry| entry.at);
        let mut faults = Self::default();
        for (index, entry) in journal.iter().enumerate() {
            let until = |ends: &[&str]| {
                let of_it = |later: &&&Entry| later.role == entry.role && later.name == entry.name;
                let end = journal[index..].iter().filter(of_it).find(|later| ends.contains(&later.event.as_str()));
                end.map_or(i64::MAX / 2, |end| end.at)
            };
            if entry.is("sender", &["kill", "stop"]) {
                faults.senders.push(entry.at);
            } else if entry.is("kafka", &["kill", "stop", "term"]) {
                // Statuses of before are still on their way when it is back.
                faults.kafka.push((entry.at, until(&["start", "cont"]) + LEASE));
            } else if entry.is("kafka", &["cut"]) || entry.is("sender", &["cut"]) {
                faults.kafka.push((entry.at, entry.at + LEASE));
                if let Some(name) = entry.name.as_ref().filter(|_| entry.is("sender", &["cut"])) {
                    let is_start = |start: &&&Entry| start.event == "start" && start.name == entry.name;
                    let start = journal[..index].iter().rfind(is_start);
                    faults.cut_off.push(CutOff {
                        name: name.clone(),
                        from: entry.at,
                        until: until(&["heal"]),
                        ops: start.and_then(|start| start.ops.clone()),
                        port: start.and_then(|start| start.port),
                    });
                }
            } else if entry.is("kafka", &["slow"]) || entry.is("sender", &["slow"]) {
                faults.kafka.push((entry.at, until(&["heal"]) + LEASE));
            } else if entry.is("provider", &["kill", "stop", "term", "cut", "slow"]) {
                faults.provider.push((entry.at, until(&["start", "cont", "heal"]) + SECOND));
            } else if entry.is("kafka", &["fault"]) {
                faults.offsets.push(entry.at);
            }
        }
        faults
    }

    /// Whether an answer or a status that was under way from `from` to `to` may have been lost.
    pub(crate) fn meet(&self, from: i64, to: i64) -> bool {
        meets_moment(&self.senders, from, to) || self.kafka_meets(from, to) || self.provider_meets(from, to)
    }

    /// Whether Kafka, or somebody's way to it, was away.
    pub(crate) fn kafka_meets(&self, from: i64, to: i64) -> bool {
        meets_interval(&self.kafka, from, to)
    }

    /// Whether the provider, or the way to it, was away.
    pub(crate) fn provider_meets(&self, from: i64, to: i64) -> bool {
        meets_interval(&self.provider, from, to)
    }

    /// Whether committed offsets were changed by hand.
    pub(crate) fn offsets_touched(&self, from: i64, to: i64) -> bool {
        meets_moment(&self.offsets, from, to)
    }
}

fn meets_moment(moments: &[i64], from: i64, to: i64) -> bool {
    moments.iter().any(|moment| (from - SLACK..=to + SLACK).contains(moment))
}

fn meets_interval(intervals: &[(i64, i64)], from: i64, to: i64) -> bool {
    intervals.iter().any(|(begin, end)| *begin <= to + SLACK && from - SLACK <= *end)
}
