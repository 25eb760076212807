//! The evidence, ordered by what it is about.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::evidence::{Call, Client, Evidence, Mailing, Record, Row};
use crate::journal::Faults;
use crate::wire::{MessageEvent, StatusEvent};

/// How long a call may take, µs.
pub(crate) const CALL_TIMEOUT: i64 = 5_000_000;
/// How much of that a busy machine may take for the connection, before the provider sees the call, µs.
const CONNECTING: i64 = 2_000_000;
/// How long after its call's beginning a status may still be unacknowledged, µs.
const UNACKNOWLEDGED: i64 = 6_000_000;
/// From a status' timestamp to its acknowledgement, µs.
const ACKNOWLEDGE: i64 = 1_000_000;

pub(crate) struct Case<'a> {
    pub(crate) evidence: &'a Evidence,
    pub(crate) mailings: BTreeMap<i64, &'a Mailing>,
    pub(crate) clients: BTreeMap<i64, &'a Client>,
    pub(crate) clients_by_id: HashMap<Uuid, &'a Client>,
    pub(crate) rows: BTreeMap<i64, &'a Row>,
    /// Message records that count, by message id, in partition order.
    pub(crate) planned: BTreeMap<i64, Vec<&'a Record<MessageEvent>>>,
    /// Status records by message id, in partition order.
    pub(crate) statuses: HashMap<i64, Vec<&'a Record<StatusEvent>>>,
    /// By message id, in the order in which they began.
    pub(crate) calls: BTreeMap<i64, Vec<&'a Call>>,
    pub(crate) faults: Faults,
}

/// Whom a mailing is for.
#[derive(Default)]
pub(crate) struct Audience {
    /// Who must be planned.
    pub(crate) must: BTreeSet<i64>,
    /// Who may have been another when their page was read: changed or deleted since the mailing's start.
    pub(crate) may: BTreeSet<i64>,
}

impl<'a> Case<'a> {
    pub(crate) fn of(evidence: &'a Evidence) -> Self {
        let mut planned: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for record in evidence.message_events.iter().filter(|record| record.visible) {
            if let Some(event) = &record.event {
                planned.entry(event.message_id).or_default().push(record);
            }
        }
        let mut statuses: HashMap<i64, Vec<_>> = HashMap::new();
        for record in evidence.status_events.iter().filter(|record| record.visible) {
            if let Some(event) = &record.event {
                statuses.entry(event.message_id).or_default().push(record);
            }
        }
        let mut calls: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for call in &evidence.calls {
            calls.entry(call.id).or_default().push(call);
        }
        planned.values_mut().for_each(|records| records.sort_by_key(|record| (record.partition, record.offset)));
        statuses.values_mut().for_each(|records| records.sort_by_key(|record| (record.partition, record.offset)));
        calls.values_mut().for_each(|calls| calls.sort_by_key(|call| call.begun_at));
        Self {
            evidence,
            mailings: evidence.mailings.iter().map(|mailing| (mailing.mailing_no, mailing)).collect(),
            clients: evidence.clients.iter().map(|client| (client.client_no, client)).collect(),
            clients_by_id: evidence.clients.iter().map(|client| (client.id, client)).collect(),
            rows: evidence.rows.iter().map(|row| (row.id(), row)).collect(),
            planned,
            statuses,
            calls,
            faults: Faults::of(&evidence.journal),
        }
    }

    /// The message events of a mailing.
    pub(crate) fn planned_of(&self, mailing_no: i64) -> impl Iterator<Item = (i64, &[&'a Record<MessageEvent>])> {
        self.planned.range(mailing_no << 33..(mailing_no + 1) << 33).map(|(id, records)| (*id, records.as_slice()))
    }

    /// The highest client number of the mailing's audience, as its last progress says.
    pub(crate) fn audience_max(&self, mailing_no: i64) -> i64 {
        let events = self.evidence.progress.iter().filter(|record| record.visible).filter_map(|r| r.event.as_ref());
        events.filter(|event| event.mailing_no == mailing_no).map(|event| event.audience_max).next_back().unwrap_or(0)
    }

    /// The audience, by the table of clients alone.
    pub(crate) fn audience(&self, mailing: &Mailing) -> Audience {
        let mut audience = Audience::default();
        for client in self.clients.range(..=self.audience_max(mailing.mailing_no)).map(|(_, client)| *client) {
            if changed_since_start(client, mailing) {
                audience.may.insert(client.client_no);
            } else if matches(client, mailing) {
                audience.must.insert(client.client_no);
            }
        }
        audience
    }

    /// Whether a call's answer, or the status that it led to, may have been lost before `until`: then Herald couldn't know of
    /// it. `until` is when the next call began.
    pub(crate) fn may_be_lost(&self, call: &Call, until: i64) -> bool {
        if call.outcome == "reset_after" {
            return true;
        }
        let statuses = self.statuses.get(&call.id).map_or(&[][..], Vec::as_slice);
        let after_call = statuses.iter().filter(|record| record.at + 1_000 >= call.begun_at && record.at <= until);
        let settled = after_call.clone().find(|record| record.event.as_ref().is_some_and(StatusEvent::settles));
        let known = settled.map_or(i64::MAX, |record| record.at + ACKNOWLEDGE);
        if self.faults.meet(call.begun_at, until.min(known).min(call.begun_at + UNACKNOWLEDGED)) {
            return true;
        }
        // Given up by the sender's clock: the time must really have passed.
        let mut reasons = after_call.filter_map(|record| record.event.as_ref()?.reason.as_deref());
        until - call.begun_at >= CALL_TIMEOUT - CONNECTING
            && reasons.any(|reason| matches!(reason, "timeout" | "exhausted"))
    }
}

pub(crate) fn matches(client: &Client, mailing: &Mailing) -> bool {
    let code = client.operator_code.is_some_and(|code| mailing.operator_codes.contains(&code));
    let tag = client.tag.as_ref().is_some_and(|tag| mailing.tags.contains(tag));
    let erased = client.phone.is_none();
    !erased && (mailing.operator_codes.is_empty() || code) && (mailing.tags.is_empty() || tag)
}

/// The row may not say what the planner read.
pub(crate) fn changed_since_start(client: &Client, mailing: &Mailing) -> bool {
    mailing.started_at.is_some_and(|started_at| client.updated_at >= started_at)
}
