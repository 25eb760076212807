//! How sending goes, over all mailings.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use domain::ids::MessageId;
use domain::lane::Closed;
use serde::Serialize;
use store::held::{self, FirstDue};
use utoipa::ToSchema;
use uuid::Uuid;

use super::clients::rfc3339;
use super::detached;
use super::waiting::{Waiting, until};
use crate::Api;
use crate::problem::{ApiError, Problem};
use crate::senders::Look;

/// How sending goes.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sending {
    /// What the senders do. Null: Kafka can't be asked.
    senders: Option<SendersView>,
    /// Why `senders` is null.
    senders_unknown: Option<String>,
    /// What the held messages of all live mailings wait for.
    held: Vec<Waiting>,
    /// The one of them that is due first.
    oldest_held: Option<HeldMessage>,
}

/// What the senders do, as they committed it a moment ago.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SendersView {
    /// How many partitions they share.
    partitions: usize,
    /// Those of which a sender has told.
    told: usize,
    /// Messages planned and not taken in yet.
    unread: i64,
    /// Messages taken in and not settled.
    open: u64,
    /// How many of them are being called.
    calling: u64,
    /// Calls that began, a second, since somebody last asked. Null: nobody has in the last minute.
    calls_per_second: Option<f64>,
    /// The pace that senders keep because the provider throttles. Null: none does.
    pace: Option<Pace>,
    /// The lanes that senders have closed. What is planned for one waits, but for a probe a second.
    closed_lanes: Vec<ClosedLane>,
}

/// What senders keep to while the provider throttles.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Pace {
    /// The sum over the partitions of those that do.
    calls_per_second: u64,
    /// How many partitions those own.
    partitions: usize,
}

/// A lane that is closed: the calls of one operator code.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ClosedLane {
    /// Null: all lanes.
    #[schema(example = 916)]
    operator_code: Option<i16>,
    /// For how many of the partitions: each sender has its own lanes.
    partitions: usize,
}

/// A message that waits to be planned again.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeldMessage {
    /// A decimal string: the number passes 2^53.
    #[schema(example = "8589934593")]
    message_id: String,
    mailing_id: Uuid,
    /// What it waits for.
    #[schema(example = "outage")]
    reason: String,
    /// Since when.
    #[schema(format = DateTime)]
    held_at: String,
    /// It is planned again no earlier. Null: that has no time, somebody must resume.
    #[schema(format = DateTime)]
    until: Option<String>,
}

impl From<Look> for SendersView {
    fn from(look: Look) -> Self {
        let mut view = Self {
            partitions: look.partitions.len(),
            told: 0,
            unread: 0,
            open: 0,
            calling: 0,
            pace: None,
            calls_per_second: look.calls_per_second.map(|calls| (calls * 10.0).round() / 10.0),
            closed_lanes: vec![],
        };
        let mut closed: BTreeMap<Option<i16>, usize> = BTreeMap::new();
        for partition in look.partitions.iter() {
            let Some((_, told)) = partition.checkpoint() else {
                view.unread += partition.end - partition.low;
                continue;
            };
            view.told += 1;
            view.unread += (partition.end - told.position.0).max(0);
            view.open += told.open;
            view.calling += told.calling;
            if let Some(part) = told.pace {
                let pace = view.pace.get_or_insert(Pace { calls_per_second: 0, partitions: 0 });
                pace.calls_per_second += part;
                pace.partitions += 1;
            }
            match told.closed {
                Closed::All => *closed.entry(None).or_default() += 1,
                Closed::Codes(codes) => {
                    for code in codes {
                        *closed.entry(Some(code.get())).or_default() += 1;
                    }
                }
            }
        }
        let lane = |(operator_code, partitions)| ClosedLane { operator_code, partitions };
        view.closed_lanes = closed.into_iter().map(lane).collect();
        view
    }
}

impl TryFrom<FirstDue> for HeldMessage {
    type Error = ApiError;

    fn try_from(first: FirstDue) -> Result<Self, ApiError> {
        Ok(Self {
            message_id: MessageId::new(first.mailing_no, first.client_no).map_err(anyhow::Error::from)?.to_string(),
            mailing_id: first.mailing_id,
            until: until(Some(first.reason.as_str()), Some(first.not_before)),
            reason: first.reason.into(),
            held_at: rfc3339(first.held_at),
        })
    }
}

/// Tells how sending goes: what the senders do, and what is held for what.
#[utoipa::path(
    get, path = "/sending", tag = "sending", operation_id = "sending_get",
    responses(
        (status = 200, body = Sending),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_sending(State(api): State<Api>) -> Result<Json<Sending>, ApiError> {
    let senders = api.senders.look().await;
    let (sums, first) = detached(async move {
        let mut db = api.db().await?;
        Ok((held::sums(&mut db).await?, held::first_due(&mut db).await?))
    })
    .await?;
    Ok(Json(Sending {
        senders_unknown: senders.as_ref().err().cloned(),
        senders: senders.ok().map(SendersView::from),
        held: sums.into_iter().map(Waiting::from).collect(),
        oldest_held: first.map(HeldMessage::try_from).transpose()?,
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka::CommittedPartition;

    use super::*;

    #[test]
    fn what_senders_have_committed_is_summed_and_the_rest_is_unread() {
        let partition = |low, end, committed: Option<(i64, &str)>| CommittedPartition {
            low,
            end,
            committed: committed.map(|(offset, metadata)| (offset, metadata.to_owned())),
        };
        let partitions = vec![
            partition(
                0,
                100,
                Some((40, "v2 bookmark=7 position=60 open=15 calling=4 calls=70 pace=20 closed=916,917")),
            ),
            partition(0, 10, Some((10, "v2 bookmark=7 position=10 open=0 calling=0 calls=9 pace=25 closed=916"))),
            partition(0, 10, Some((10, "v2 bookmark=7 position=10 open=1 calling=0 calls=9 pace=- closed=all"))),
            partition(10, 30, None),
            partition(0, 5, Some((9, "v2 bookmark=7 position=9 open=0 calling=0 calls=1 pace=- closed=-"))),
        ];
        let lane = |operator_code, partitions| ClosedLane { operator_code, partitions };
        assert_eq!(
            SendersView::from(Look { partitions: Arc::new(partitions), calls_per_second: Some(12.345) }),
            SendersView {
                partitions: 5,
                told: 3,
                unread: 40 + 20 + 5,
                open: 16,
                calling: 4,
                pace: Some(Pace { calls_per_second: 45, partitions: 2 }),
                calls_per_second: Some(12.3),
                closed_lanes: vec![lane(None, 1), lane(Some(916), 2), lane(Some(917), 1)],
            }
        );
    }
}
