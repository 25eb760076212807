//! How fast calls begin, as the scheduler measures it from the senders' commits.

use std::collections::VecDeque;

use domain::conveyor::calls_begun;

use crate::world::{MILLI, Micros, SECOND};

#[derive(Default)]
pub struct Meter {
    /// Calls by partition at past moments, oldest first, since something was last idle.
    samples: VecDeque<(Micros, Vec<u64>)>,
    busy: bool,
    pace: Option<u64>,
}

impl Meter {
    pub fn sample(&mut self, calls: Vec<u64>, busy: bool, now: Micros) -> Option<u64> {
        if !self.busy {
            self.samples.clear();
        }
        self.busy = busy;
        while self.samples.len() > 1 && now - self.samples[1].0 >= SECOND {
            self.samples.pop_front();
        }
        if let Some((since, before)) = self.samples.front()
            && now - since >= 100 * MILLI
        {
            let pace = calls_begun(before, &calls) as f64 * SECOND as f64 / (now - since) as f64;
            // Calls that emptied the conveyor would have gone on.
            self.pace =
                if busy { Some(pace as u64) } else { self.pace.max(Some(pace as u64).filter(|pace| *pace > 0)) };
        }
        self.samples.push_back((now, calls));
        self.pace
    }
}
