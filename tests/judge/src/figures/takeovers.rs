//! What a takeover takes.

use super::{Figure, Targets, start_of};
use crate::evidence::Evidence;
use crate::journal::Entry;

/// A sender has read what it must have read by then, µs after its start.
const TAKEN_OVER: i64 = 30_000_000;

pub(super) fn figures(evidence: &Evidence, targets: &Targets) -> Vec<Figure> {
    let kills = evidence.journal.iter().filter(|entry| entry.is("sender", &["kill"]));
    let taken: Vec<f64> = kills.filter_map(|kill| memory_after(evidence, kill)).collect();
    let grown = match taken[..] {
        [first, .., last] => Some(last / first),
        _ => None,
    };
    if grown.is_none() && targets.taken_over.is_none() {
        return vec![];
    }
    let megabytes: Vec<String> = taken.iter().map(|bytes| format!("{:.0}", bytes / 1e6)).collect();
    let what = format!("memory of the last sender that took over, of that of the first ({} MB)", megabytes.join(", "));
    vec![Figure::count(what, grown, targets.taken_over)]
}

/// The most that the process took which followed the one that was killed, within its first half minute.
fn memory_after(evidence: &Evidence, kill: &Entry) -> Option<f64> {
    let ops = &start_of(evidence, kill)?.ops;
    let follows = |entry: &&Entry| entry.event == "start" && entry.at >= kill.at && entry.ops == *ops;
    let start = evidence.journal.iter().find(follows)?.at;
    let samples = evidence.samples.iter().filter(|sample| (start..start + TAKEN_OVER).contains(&sample.at));
    let of_it = samples.flat_map(|sample| &sample.processes).filter(|process| Some(&process.ops) == ops.as_ref());
    of_it.filter_map(|process| process.memory).reduce(f64::max)
}
