//! What a run measured, and whether that is within what was asked of it.

mod limits;
mod outages;
mod phases;
mod takeovers;

use std::collections::BTreeMap;
use std::fmt;

use crate::evidence::{Evidence, Record};
use crate::ids::MessageId;
use crate::journal::Entry;
use crate::wire::StatusEvent;

const SECOND: i64 = 1_000_000;
/// A run misses a time only by this factor: machines are noisy.
const NOISE: f64 = 3.0;

/// What is asked of a run; what isn't asked is only measured.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Targets {
    /// Messages accepted again, as a share of the slots that the senders had open when they were killed.
    #[arg(long)]
    pub again: Option<f64>,
    /// Messages unknown, for each kill of a sender.
    #[arg(long)]
    pub unknown: Option<f64>,
    /// Seconds from the last act to the last settling status.
    #[arg(long)]
    pub done: Option<f64>,
    /// Seconds without a status in a partition in which messages wait.
    #[arg(long)]
    pub idle: Option<f64>,
    /// Seconds from a server's start to nine tenths of the run's rate.
    #[arg(long)]
    pub back: Option<f64>,
    /// Calls that begin while the provider refuses all.
    #[arg(long)]
    pub into_outage: Option<f64>,
    /// Messages given up because the provider refused all.
    #[arg(long)]
    pub exhausted: Option<f64>,
    /// Messages planned within 10 s while the provider refuses all.
    #[arg(long)]
    pub planned_meanwhile: Option<f64>,
    /// The rate in the first second of the provider's health, as a share of the full one.
    #[arg(long)]
    pub first_second: Option<f64>,
    /// What the rate lacks of the full one 30 s after the provider's health, as a share.
    #[arg(long)]
    pub lacking: Option<f64>,
    /// Seconds from the provider's health to the end of a mailing that came while it refused all.
    #[arg(long)]
    pub healed: Option<f64>,
    /// What isn't used of the provider's limit, as a share.
    #[arg(long)]
    pub unused: Option<f64>,
    /// Calls throttled by that limit, as a share.
    #[arg(long)]
    pub throttled: Option<f64>,
    /// Messages that succeeded with more than one attempt.
    #[arg(long)]
    pub spent: Option<f64>,
    /// What the rate of calls lacks while some calls fail: of those that aren't in the operator's lane that does, if it is one.
    #[arg(long)]
    pub slowed: Option<f64>,
    /// Messages held because a lane was closed.
    #[arg(long)]
    pub closed: Option<f64>,
    /// Seconds from one operator's health to the first call in its lane that is accepted.
    #[arg(long)]
    pub first_call: Option<f64>,
    /// Seconds from a mailing's end to its last status.
    #[arg(long)]
    pub expired: Option<f64>,
    /// Memory of the sender that followed the last killed one, as a multiple of that of the one that followed the first.
    #[arg(long)]
    pub taken_over: Option<f64>,
}

/// One thing measured.
#[derive(Debug)]
pub struct Figure {
    what: String,
    unit: &'static str,
    /// None if the run had no occasion for it.
    pub measured: Option<f64>,
    target: Option<f64>,
    limit: Option<f64>,
}

impl Figure {
    fn count(what: String, measured: Option<f64>, target: Option<f64>) -> Self {
        Self { what, unit: "", measured, target, limit: target }
    }

    fn time(what: &str, measured: Option<f64>, target: Option<f64>) -> Self {
        Self { what: what.to_owned(), unit: " s", measured, target, limit: target.map(|target| NOISE * target) }
    }

    /// Whether it is within what was asked, a time with three times the room.
    pub fn holds(&self) -> bool {
        self.limit.is_none_or(|limit| self.measured.is_some_and(|measured| measured <= limit))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = if self.holds() { "measured" } else { "MISSED  " };
        let figure = |figure: f64| format!("{}{}", (figure * 1_000.0).round() / 1_000.0, self.unit);
        write!(f, "{head}    {}: {}", self.what, self.measured.map_or("nothing".to_owned(), figure))?;
        self.target.map_or(Ok(()), |target| write!(f, " (asked: {})", figure(target)))
    }
}

/// Measures a run.
pub fn figures(evidence: &Evidence, targets: &Targets) -> Vec<Figure> {
    let kills: Vec<&Entry> = evidence
        .journal
        .iter()
        .filter(|entry| entry.event == "kill" && entry.role.as_deref() == Some("sender"))
        .collect();
    let open = kills.iter().filter_map(|kill| slots_open_at(evidence, kill)).fold(0.0, |sum, open| sum + open);
    let again = accepted_again(evidence);
    let unknown = evidence.rows.iter().filter(|row| row.status == "unknown").count() as f64;
    let per = |many: f64, of: f64| if many == 0.0 { Some(0.0) } else { (of > 0.0).then_some(many / of) };
    let mut settled: Vec<&Record<StatusEvent>> =
        evidence.status_events.iter().filter(|r| r.event.as_ref().is_some_and(StatusEvent::settles)).collect();
    settled.sort_by_key(|record| record.at);
    let mut figures = vec![
        Figure::count(
            format!("{again} accepted again, of {open} slots open at kills"),
            per(again, open),
            targets.again,
        ),
        Figure::count(
            format!("{unknown} unknown, for each of {} kills", kills.len()),
            per(unknown, kills.len() as f64),
            targets.unknown,
        ),
        Figure::time("from the last act to the last status", done(evidence, &settled), targets.done),
        idle(evidence, targets.idle),
        Figure::time("from a server's start to 90 % of the rate", back(evidence), targets.back),
    ];
    figures.extend(outages::figures(evidence, targets));
    figures.extend(limits::figures(evidence, targets));
    figures.extend(phases::figures(evidence, targets));
    figures.extend(takeovers::figures(evidence, targets));
    figures
}

fn accepted_again(evidence: &Evidence) -> f64 {
    let mut accepted: BTreeMap<MessageId, usize> = BTreeMap::new();
    evidence.calls.iter().filter(|call| call.accepted).for_each(|call| *accepted.entry(call.id).or_default() += 1);
    accepted.values().map(|times| times - 1).sum::<usize>() as f64
}

/// When the process began that this was done to, and where.
fn start_of<'a>(evidence: &'a Evidence, done: &Entry) -> Option<&'a Entry> {
    evidence.journal.iter().find(|entry| entry.event == "start" && entry.name == done.name)
}

/// What the process had open when it was last asked.
fn slots_open_at(evidence: &Evidence, kill: &Entry) -> Option<f64> {
    let started = start_of(evidence, kill)?;
    let of_it = |sample: &crate::sample::Sample| {
        let process = sample.processes.iter().find(|process| Some(&process.ops) == started.ops.as_ref());
        process.and_then(|process| process.open_slots)
    };
    let lived = evidence.samples.iter().filter(|sample| (started.at..=kill.at).contains(&sample.at));
    lived.filter_map(of_it).next_back()
}

fn done(evidence: &Evidence, settled: &[&Record<StatusEvent>]) -> Option<f64> {
    let last = settled.last()?.at;
    let acts = evidence.journal.iter().filter(|entry| entry.event != "mailing" && entry.at < last);
    acts.map(|act| act.at).max().map(|act| seconds(last - act))
}

/// The longest time in which a partition held planned messages that weren't settled, and none of its messages had a status.
fn idle(evidence: &Evidence, target: Option<f64>) -> Figure {
    enum What {
        Planned,
        Told { settles: bool },
    }
    let mut partitions: BTreeMap<i32, Vec<(i64, What)>> = BTreeMap::new();
    for record in evidence.message_events.iter().filter(|record| record.visible && record.event.is_some()) {
        partitions.entry(record.partition).or_default().push((record.at, What::Planned));
    }
    for record in &evidence.status_events {
        let settles = record.event.as_ref().is_some_and(StatusEvent::settles);
        partitions.entry(record.partition).or_default().push((record.at, What::Told { settles }));
    }
    let longest = |mut moments: Vec<(i64, What)>| {
        moments.sort_by_key(|(at, _)| *at);
        let (mut open, mut since, mut longest) = (0, 0, (0, 0));
        for (at, what) in moments {
            match what {
                What::Planned if open <= 0 => (open, since) = (1, at),
                What::Planned => open += 1,
                What::Told { settles } => {
                    longest = longest.max(if open > 0 { (at - since, since) } else { (0, 0) });
                    since = at;
                    open -= i64::from(settles);
                }
            }
        }
        longest
    };
    let longest = partitions.into_iter().map(|(partition, moments)| (longest(moments), partition)).max();
    let first = evidence.journal.first().map_or(0, |entry| entry.at);
    let where_and_when =
        longest.map_or(String::new(), |((_, since), number)| format!(" {number}, {:.1} s in", seconds(since - first)));
    let what = format!("messages waited without a status, at most, in partition{where_and_when}");
    Figure::time(&what, longest.map(|((longest, _), _)| seconds(longest)), target)
}

/// The rate of a run is that of its better seconds: the upper quartile of those in which a call was accepted.
fn full_rate(accepted: &[i64]) -> Option<f64> {
    let mut by_second: BTreeMap<i64, usize> = BTreeMap::new();
    accepted.iter().for_each(|at| *by_second.entry(at / SECOND).or_default() += 1);
    let mut rates: Vec<usize> = by_second.into_values().collect();
    rates.sort_unstable();
    rates.get(rates.len() * 3 / 4).map(|rate| *rate as f64)
}

fn back(evidence: &Evidence) -> Option<f64> {
    let mut begun: Vec<i64> = evidence.calls.iter().filter(|call| call.accepted).map(|call| call.begun_at).collect();
    begun.sort_unstable();
    let full = full_rate(&begun)? * 0.9;
    let of_server = |entry: &&Entry| {
        entry.event == "start"
            && matches!(entry.role.as_deref(), Some("kafka" | "postgres"))
            && entry.at < begun[begun.len() - 1]
    };
    let after = |start: &Entry| {
        let first = begun.partition_point(|at| *at < start.at);
        let full_from = (first..begun.len()).find(|&index| {
            let in_a_second = begun[index..].partition_point(|at| *at < begun[index] + SECOND);
            in_a_second as f64 >= full
        });
        seconds(full_from.map_or(begun[begun.len() - 1], |index| begun[index]) - start.at)
    };
    let times = evidence.journal.iter().filter(of_server).map(after);
    times.reduce(f64::max)
}

fn seconds(us: i64) -> f64 {
    us as f64 / SECOND as f64
}
