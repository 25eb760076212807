//! The counters: what a test believes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use crate::call::{Call, Outcome};
use crate::draw::mix;

/// So that growing a table of millions stalls one call in 64 for a 64th of the time.
const SHARDS: usize = 64;

/// A message called more often keeps the first calls and the counts: memory must not grow with retries.
const CALLS_KEPT: usize = 8;

/// Counts since the start or the last reset, of one instant. `calls` counts a call from its begin, all else from its
/// end: with nothing in flight they are exact, and the log has `calls` − `in_flight` of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Calls begun.
    pub calls: u64,
    /// Calls that the provider took.
    pub accepted: u64,
    /// Messages taken at least once.
    pub distinct_accepted: u64,
    /// Messages taken more than once.
    pub duplicates: u64,
    /// Calls not ended now.
    pub in_flight: u64,
    /// The most calls open at once.
    pub max_in_flight: u64,
    /// When the first call began, RFC 3339 with µs.
    pub first_call_at: Option<String>,
    /// When the last call began, RFC 3339 with µs.
    pub last_call_at: Option<String>,
    /// Ended calls by outcome.
    pub by_outcome: BTreeMap<String, u64>,
}

/// What is known of every call.
#[derive(Debug)]
pub struct Book {
    shards: Vec<Mutex<Shard>>,
    /// Changed under some shard's lock, so all locks together give one instant.
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    generation: u32,
    messages: HashMap<i64, Message>,
    calls: u64,
    accepted: u64,
    distinct_accepted: u64,
    duplicates: u64,
    first_call_at: Option<i64>,
    last_call_at: Option<i64>,
    by_outcome: BTreeMap<Outcome, u64>,
}

#[derive(Debug, Default)]
struct Message {
    calls: u32,
    accepted: u32,
    ended: Vec<Call>,
}

/// A call's number, and the generation of counters that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) call: u32,
    generation: u32,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            in_flight: AtomicU64::new(0),
            max_in_flight: AtomicU64::new(0),
        }
    }

    pub(crate) fn begin(&self, id: i64, begun_at: i64) -> Ticket {
        let mut shard = self.shard(id);
        let in_flight = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.max_in_flight.fetch_max(in_flight, Relaxed);
        shard.calls += 1;
        shard.first_call_at = Some(shard.first_call_at.map_or(begun_at, |at| at.min(begun_at)));
        shard.last_call_at = shard.last_call_at.max(Some(begun_at));
        let generation = shard.generation;
        let message = shard.messages.entry(id).or_default();
        message.calls += 1;
        Ticket { call: message.calls, generation }
    }

    pub(crate) fn end(&self, ticket: Ticket, call: Call) {
        let mut shard = self.shard(call.id);
        self.in_flight.fetch_sub(1, Relaxed);
        if shard.generation != ticket.generation {
            return;
        }
        let shard = &mut *shard;
        *shard.by_outcome.entry(call.outcome).or_default() += 1;
        let message = shard.messages.entry(call.id).or_default();
        if call.accepted {
            shard.accepted += 1;
            message.accepted += 1;
            match message.accepted {
                1 => shard.distinct_accepted += 1,
                2 => shard.duplicates += 1,
                _ => {}
            }
        }
        if message.ended.len() < CALLS_KEPT {
            // A push would make room for four, and most messages are called once.
            message.ended.reserve_exact(1);
            message.ended.push(call);
        }
    }

    /// The first 8 ended calls of a message, by number.
    pub fn calls(&self, id: i64) -> Vec<Call> {
        let mut calls = self.shard(id).messages.get(&id).map(|message| message.ended.clone()).unwrap_or_default();
        calls.sort_by_key(|call| call.call);
        calls
    }

    /// The first 8 ended calls of every message, by their begin.
    pub fn all_calls(&self) -> Vec<Call> {
        let shards = self.all();
        let messages = shards.iter().flat_map(|shard| shard.messages.values());
        let mut calls: Vec<Call> = messages.flat_map(|message| message.ended.iter().cloned()).collect();
        calls.sort_by_key(|call| call.begun_at);
        calls
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let shards = self.all();
        let mut by_outcome = BTreeMap::new();
        for (outcome, count) in shards.iter().flat_map(|shard| &shard.by_outcome) {
            *by_outcome.entry(outcome.to_string()).or_default() += count;
        }
        let sum = |field: fn(&Shard) -> u64| shards.iter().map(|shard| field(shard)).sum();
        Stats {
            calls: sum(|shard| shard.calls),
            accepted: sum(|shard| shard.accepted),
            distinct_accepted: sum(|shard| shard.distinct_accepted),
            duplicates: sum(|shard| shard.duplicates),
            in_flight: self.in_flight.load(Relaxed),
            max_in_flight: self.max_in_flight.load(Relaxed),
            first_call_at: shards.iter().filter_map(|shard| shard.first_call_at).min().and_then(rfc3339),
            last_call_at: shards.iter().filter_map(|shard| shard.last_call_at).max().and_then(rfc3339),
            by_outcome,
        }
    }

    /// Calls in flight stay in `in_flight` and are in no other count of the new generation.
    pub(crate) fn reset(&self) {
        let mut shards = self.all();
        for shard in &mut shards {
            **shard = Shard { generation: shard.generation + 1, ..Shard::default() };
        }
        self.max_in_flight.store(self.in_flight.load(Relaxed), Relaxed);
    }

    fn shard(&self, id: i64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[mix(id as u64) as usize % SHARDS])
    }

    fn all(&self) -> Vec<MutexGuard<'_, Shard>> {
        self.shards.iter().map(lock).collect()
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rfc3339(micros: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(micros)?.to_rfc3339_opts(SecondsFormat::Micros, true))
}
