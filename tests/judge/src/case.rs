//! The evidence, ordered by what it is about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use crate::evidence::{Call, Client, Evidence, Mailing, Record, Row};
use crate::faults::Faults;
use crate::ids::{ClientNo, MailingNo, MessageId};
use crate::wire::{MailingEvent, MessageEvent, StatusEvent};

/// How long a call may take, µs.
pub(crate) const CALL_TIMEOUT: i64 = 5_000_000;
/// How much of that a busy machine may take for the connection, before the provider sees the call, µs.
pub(crate) const CONNECTING: i64 = 2_000_000;
/// How long after its call's beginning a status may still be unacknowledged, µs.
const UNACKNOWLEDGED: i64 = 6_000_000;
/// From a status' timestamp to its acknowledgement, µs.
const ACKNOWLEDGE: i64 = 1_000_000;
/// From a mailing event's timestamp until no call may begin by the one before, µs: its commit, a proof of the board (1 s), and
/// a moment. A sender that can't read has a lease of 5 s more.
const TAKES_EFFECT: i64 = 2_000_000;
const LEASE: i64 = 5_000_000;
/// Between two looks of the sampler, on a busy machine, µs.
const LOOK: i64 = 2_000_000;
/// How long after the provider's trouble lanes may still be closed, µs.
const CLOSED_FOR: i64 = 40_000_000;

pub(crate) struct Case<'a> {
    pub(crate) evidence: &'a Evidence,
    pub(crate) mailings: BTreeMap<MailingNo, &'a Mailing>,
    pub(crate) clients: BTreeMap<ClientNo, &'a Client>,
    pub(crate) clients_by_id: HashMap<Uuid, &'a Client>,
    pub(crate) rows: BTreeMap<MessageId, &'a Row>,
    /// Message records that count, in partition order.
    pub(crate) planned: BTreeMap<MessageId, Vec<&'a Record<MessageEvent>>>,
    /// Rounds that the planner settled without a message record.
    pub(crate) unrecorded: BTreeMap<MessageId, BTreeSet<i32>>,
    /// Status records, in partition order.
    pub(crate) statuses: HashMap<MessageId, Vec<&'a Record<StatusEvent>>>,
    /// In the order in which they began.
    pub(crate) calls: BTreeMap<MessageId, Vec<&'a Call>>,
    /// When senders were seen to say that lanes were closed, in order.
    lanes_closed: Vec<i64>,
    orders: BTreeMap<MailingNo, Vec<&'a Record<MailingEvent>>>,
    pub(crate) faults: Faults,
}

/// Whom a mailing is for.
#[derive(Default)]
pub(crate) struct Audience {
    /// Who must be planned.
    pub(crate) must: BTreeSet<ClientNo>,
    /// Who may have been another when their page was read: changed or deleted since the mailing's start.
    pub(crate) may: BTreeSet<ClientNo>,
}

impl<'a> Case<'a> {
    pub(crate) fn of(evidence: &'a Evidence) -> Self {
        let mut planned: BTreeMap<MessageId, Vec<_>> = BTreeMap::new();
        for (record, event) in seen(&evidence.message_events) {
            planned.entry(event.message_id).or_default().push(record);
        }
        let mut statuses: HashMap<MessageId, Vec<_>> = HashMap::new();
        for (record, event) in seen(&evidence.status_events) {
            statuses.entry(event.message_id).or_default().push(record);
        }
        let mut calls: BTreeMap<MessageId, Vec<_>> = BTreeMap::new();
        for call in &evidence.calls {
            calls.entry(call.id).or_default().push(call);
        }
        let mut orders: BTreeMap<MailingNo, Vec<_>> = BTreeMap::new();
        for (record, event) in seen(&evidence.mailing_events) {
            orders.entry(event.mailing_no).or_default().push(record);
        }
        planned.values_mut().for_each(|records| records.sort_by_key(|record| record.place()));
        statuses.values_mut().for_each(|records| records.sort_by_key(|record| record.place()));
        calls.values_mut().for_each(|calls| calls.sort_by_key(|call| call.begun_at));
        let unrecorded = unrecorded(evidence, &planned);
        Self {
            evidence,
            mailings: evidence.mailings.iter().map(|mailing| (mailing.mailing_no, mailing)).collect(),
            clients: evidence.clients.iter().map(|client| (client.client_no, client)).collect(),
            clients_by_id: evidence.clients.iter().map(|client| (client.id, client)).collect(),
            rows: evidence.rows.iter().map(|row| (row.id(), row)).collect(),
            planned,
            unrecorded,
            statuses,
            calls,
            lanes_closed: lanes_closed(evidence),
            orders,
            faults: Faults::of(&evidence.journal),
        }
    }

    pub(crate) fn rounds_of(&self, id: MessageId) -> &[&'a Record<MessageEvent>] {
        self.planned.get(&id).map_or(&[][..], Vec::as_slice)
    }

    pub(crate) fn statuses_of(&self, id: MessageId) -> &[&'a Record<StatusEvent>] {
        self.statuses.get(&id).map_or(&[][..], Vec::as_slice)
    }

    pub(crate) fn calls_of(&self, id: MessageId) -> &[&'a Call] {
        self.calls.get(&id).map_or(&[][..], Vec::as_slice)
    }

    /// Each status that settles a round, with its record.
    pub(crate) fn settled(&self) -> impl Iterator<Item = (&'a Record<StatusEvent>, &'a StatusEvent)> {
        seen(&self.evidence.status_events).filter(|(_, event)| event.settles())
    }

    /// The mailing's messages, each with its rounds: those that have records and those that the planner settled without.
    pub(crate) fn planned_of(&self, mailing: MailingNo) -> BTreeMap<MessageId, BTreeSet<i32>> {
        let ids = MessageId::all_of(mailing);
        let mut rounds: BTreeMap<MessageId, BTreeSet<i32>> = BTreeMap::new();
        for (id, records) in self.planned.range(ids.clone()) {
            let of_records = records.iter().filter_map(|record| Some(record.event.as_ref()?.round));
            rounds.entry(*id).or_default().extend(of_records);
        }
        for (id, without) in self.unrecorded.range(ids) {
            rounds.entry(*id).or_default().extend(without);
        }
        rounds
    }

    /// Whether this run's Herald plans messages again and says so; one that doesn't promises nothing of waiting.
    pub(crate) fn plans_again(&self) -> bool {
        seen(&self.evidence.progress).any(|(_, event)| event.again.is_some())
    }

    /// The highest client number of the mailing's audience, as its last progress says.
    fn audience_max(&self, mailing: MailingNo) -> ClientNo {
        let events = seen(&self.evidence.progress).filter(|(_, event)| event.mailing_no == mailing);
        ClientNo(events.map(|(_, event)| event.audience_max).last().unwrap_or(0))
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

    /// The orders that a sender may go by at an instant: the newest that had taken effect, and those on their way.
    pub(crate) fn orders_in_force(&self, mailing: MailingNo, at: i64) -> Vec<&'a MailingEvent> {
        let orders = self.orders.get(&mailing).map_or(&[][..], Vec::as_slice);
        let cut_off = self.faults.kafka_meets(at - TAKES_EFFECT - LEASE, at);
        let effective = at - TAKES_EFFECT - if cut_off { LEASE } else { 0 };
        let events = |from, to| {
            let within = orders.iter().filter(move |record| from <= record.at && record.at <= to);
            within.filter_map(|record| record.event.as_ref())
        };
        let newest = events(0, effective).max_by_key(|event| event.version);
        newest.into_iter().chain(events(effective + 1, at)).collect()
    }

    /// Whether a call was refused while the lanes were closed, or by that closed them: such a call costs no attempt.
    pub(crate) fn may_be_probe(&self, call: &Call) -> bool {
        let seen = self.lanes_closed.partition_point(|at| *at < call.begun_at - LOOK);
        let seen = self.lanes_closed.get(seen).is_some_and(|at| *at <= call.decided_at + LOOK);
        call.is_refusal() && (seen || self.faults.in_trouble(call.decided_at, CLOSED_FOR))
    }

    /// Whether a call's answer, or the status that it led to, may have been lost before `until`: then Herald couldn't know of
    /// it. `until` is when the next call began.
    pub(crate) fn may_be_lost(&self, call: &Call, until: i64) -> bool {
        if call.outcome == "reset_after" || self.may_be_untold(call, until, StatusEvent::settles) {
            return true;
        }
        // Given up by the sender's clock: the time must really have passed.
        let mut reasons = self.statuses_after(call, until).filter_map(|event| event.1.reason());
        until - call.begun_at >= CALL_TIMEOUT - CONNECTING
            && reasons.any(|reason| matches!(reason, "timeout" | "exhausted"))
    }

    /// Whether a fault may have kept from the log what came of a call, up to the first status of a kind that is there.
    pub(crate) fn may_be_untold(&self, call: &Call, until: i64, told: impl Fn(&StatusEvent) -> bool) -> bool {
        let status = self.statuses_after(call, until).find(|(_, event)| told(event));
        let known = status.map_or(i64::MAX, |(at, _)| at + ACKNOWLEDGE);
        self.faults.meet(call.sender, call.begun_at, until.min(known).min(call.begun_at + UNACKNOWLEDGED))
    }

    fn statuses_after(&self, call: &Call, until: i64) -> impl Iterator<Item = (i64, &'a StatusEvent)> {
        let begun_at = call.begun_at;
        // Kafka's timestamps are ms.
        let after = move |record: &&&Record<StatusEvent>| record.at + 1_000 >= begun_at && record.at <= until;
        self.statuses_of(call.id).iter().filter(after).filter_map(|record| Some((record.at, record.event.as_ref()?)))
    }
}

/// The records that a read-committed reader sees and can decode.
pub(crate) fn seen<T>(records: &[Record<T>]) -> impl Iterator<Item = (&Record<T>, &T)> {
    records.iter().filter(|record| record.visible).filter_map(|record| Some((record, record.event.as_ref()?)))
}

fn unrecorded(
    evidence: &Evidence,
    planned: &BTreeMap<MessageId, Vec<&Record<MessageEvent>>>,
) -> BTreeMap<MessageId, BTreeSet<i32>> {
    let recorded: HashSet<(MessageId, i32)> = planned
        .values()
        .flatten()
        .filter_map(|record| record.event.as_ref())
        .map(|event| (event.message_id, event.round))
        .collect();
    let mut rounds: BTreeMap<MessageId, BTreeSet<i32>> = BTreeMap::new();
    let without = seen(&evidence.status_events).filter(|(_, event)| event.settles() && event.has_no_record());
    for (_, event) in without.filter(|(_, event)| !recorded.contains(&(event.message_id, event.round))) {
        rounds.entry(event.message_id).or_default().insert(event.round);
    }
    rounds
}

fn lanes_closed(evidence: &Evidence) -> Vec<i64> {
    let says = |closed: &str| !matches!(closed, "" | "-");
    let samples = evidence.samples.iter();
    let closed = samples.filter(|s| s.committed.iter().flatten().any(|commit| commit.word("closed").is_some_and(says)));
    closed.map(|sample| sample.at).collect()
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
