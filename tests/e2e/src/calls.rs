use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

/// The provider's own log of calls, by message id: the judge of every test.
pub struct Calls {
    /// By message id, each in the order of its calls.
    pub by_message: BTreeMap<i64, Vec<Call>>,
}

/// One call. Times are µs since the epoch by the provider's clock.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its head had arrived.
    pub begun_at: i64,
    /// Its fate was decided.
    pub decided_at: i64,
    /// The port that it came to: its sender's own.
    pub sender: u16,
    /// Whom it was for.
    pub phone: i64,
    /// What it said.
    pub text: String,
    /// Whether the provider took it.
    pub accepted: bool,
    /// Whether a whole answer was handed to the connection.
    pub answered: bool,
    /// How long the answer told the sender to wait, s.
    pub retry_after: Option<i64>,
    /// What became of it, see the simulator.
    pub outcome: String,
}

impl Calls {
    pub(crate) fn read(path: &Path) -> Self {
        let mut by_message: BTreeMap<i64, Vec<Call>> = BTreeMap::new();
        let mut texts: HashMap<i64, String> = HashMap::new();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let number = |name: &str| line[name].as_i64().unwrap();
            match line["begun_at"].as_i64() {
                Some(begun_at) => {
                    let text = line["text_no"].as_i64().map(|number| texts[&number].clone());
                    by_message.entry(number("id")).or_default().push(Call {
                        begun_at,
                        decided_at: number("decided_at"),
                        sender: u16::try_from(number("sender")).unwrap(),
                        phone: number("phone"),
                        text: text.unwrap_or_default(),
                        accepted: line["accepted"].as_bool().unwrap(),
                        answered: line["answered"].as_bool().unwrap(),
                        retry_after: line["retry_after"].as_i64(),
                        outcome: line["outcome"].as_str().unwrap().to_owned(),
                    });
                }
                None => {
                    texts.insert(number("text_no"), line["text"].as_str().unwrap().to_owned());
                }
            }
        }
        for calls in by_message.values_mut() {
            calls.sort_by_key(|call| call.begun_at);
        }
        Self { by_message }
    }

    /// Messages accepted more than once.
    pub fn doubled(&self) -> Vec<i64> {
        let accepted = |calls: &[Call]| calls.iter().filter(|call| call.accepted).count();
        self.by_message.iter().filter(|(_, calls)| accepted(calls) > 1).map(|(id, _)| *id).collect()
    }

    /// Whether a message was accepted at least once.
    pub fn accepted(&self, message: i64) -> bool {
        self.by_message.get(&message).is_some_and(|calls| calls.iter().any(|call| call.accepted))
    }

    /// All calls.
    pub fn all(&self) -> impl Iterator<Item = &Call> {
        self.by_message.values().flatten()
    }
}
