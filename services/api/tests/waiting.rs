//! What waits, for what, and until when.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use common::App;
use domain::ids::MessageId;
use serde_json::{Value, json};
use sqlx::PgPool;

/// The newest mailing holds a message for each of these reasons, client by client, due at these seconds past noon.
async fn hold(pool: &PgPool, waits: &[(&str, i64)]) -> Vec<String> {
    let number: i64 = sqlx::query_scalar("SELECT max(mailing_no) FROM mailings").fetch_one(pool).await.unwrap();
    let mut ids = vec![];
    for (client_no, (reason, seconds)) in (1i64..).zip(waits) {
        for statement in [
            "INSERT INTO messages VALUES ($1, $2, gen_random_uuid(), 'held', $3, 1, 1, 2, NULL, NULL,
                 timestamptz '2026-05-01T12:00:00Z' + $4 * interval '1 s', '2026-05-01T11:00:00Z', '2026-05-01T11:30:00Z')",
            "INSERT INTO held VALUES ($1, $2, 1, $3, timestamptz '2026-05-01T12:00:00Z' + $4 * interval '1 s', 916)",
            "INSERT INTO held_counts VALUES ($1, mod(($2 + 0 * $4)::bigint, 2), $3, 1)
             ON CONFLICT (mailing_no, partition, reason) DO UPDATE SET n = held_counts.n + 1",
            "INSERT INTO mailing_counts VALUES ($1, mod(($2 + 0 * $4)::bigint, 2), CASE WHEN $3 = '' THEN '' ELSE 'held' END, 1)
             ON CONFLICT (mailing_no, partition, status) DO UPDATE SET n = mailing_counts.n + 1",
        ] {
            let statement = sqlx::query(statement).bind(number).bind(client_no).bind(*reason).bind(*seconds as f64);
            statement.execute(pool).await.unwrap();
        }
        ids.push(MessageId::new(number.into(), client_no.into()).unwrap().to_string());
    }
    ids
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_mailing_says_how_many_wait_for_what_and_until_when(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let place = app.create_mailing().await;
    assert_eq!(app.get(&place).await.body["waiting"], json!([]));

    let ids = hold(&pool, &[("outage", 30), ("throttled", 9), ("outage", 20), ("paused", 0)]).await;
    let mailing = app.get(&place).await.body;
    assert_eq!(
        mailing["waiting"],
        json!([
            {"reason": "outage", "messages": 2, "until": "2026-05-01T12:00:20.000000Z"},
            {"reason": "paused", "messages": 1, "until": null},
            {"reason": "throttled", "messages": 1, "until": "2026-05-01T12:00:09.000000Z"},
        ])
    );
    let waiting: i64 = mailing["waiting"].as_array().unwrap().iter().map(|one| one["messages"].as_i64().unwrap()).sum();
    assert_eq!(mailing["counts"]["held"], waiting);
    assert_eq!(app.get("/api/v1/mailings").await.body["items"][0]["waiting"], mailing["waiting"]);

    let until = async |id: &String| app.get(&format!("/api/v1/messages/{id}")).await.body["until"].clone();
    assert_eq!(until(&ids[0]).await, "2026-05-01T12:00:30.000000Z");
    assert_eq!(until(&ids[3]).await, Value::Null);

    // None of a reason is left: it isn't told.
    sqlx::query("UPDATE held_counts SET n = 0 WHERE reason <> 'outage'").execute(&pool).await.unwrap();
    assert_eq!(app.get(&place).await.body["waiting"].as_array().unwrap().len(), 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_message_tells_its_whole_story_in_order(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    app.create_mailing().await;
    let ids = hold(&pool, &[("outage", 30)]).await;
    let number = ids[0].parse::<MessageId>().unwrap().mailing_no().get();
    sqlx::query(
        "INSERT INTO steps VALUES
             ($1, 1, 0, 7, 1, 1, 'retrying', 'provider_error', 500, 48, '2026-05-01T11:00:02Z', 'try later', '2026-05-01T11:00:01Z'),
             ($1, 1, 0, 12, 1, 1, 'retrying', 'throttled', 429, 5, '2026-05-01T11:00:05Z', NULL, '2026-05-01T11:00:02Z'),
             ($1, 1, 0, 30, 1, 1, 'held', 'outage', NULL, NULL, '2026-05-01T12:00:30Z', NULL, '2026-05-01T11:30:00Z')",
    )
    .bind(number)
    .execute(&pool)
    .await
    .unwrap();
    let story = app.get(&format!("/api/v1/messages/{}", ids[0])).await.body;
    assert_eq!((&story["status"], &story["reason"], &story["attempts"]), (&json!("held"), &json!("outage"), &json!(2)));
    assert_eq!(
        story["steps"][0],
        json!({
            "round": 1, "attempt": 1, "status": "retrying", "reason": "provider_error", "code": 500, "latency_ms": 48,
            "until": "2026-05-01T11:00:02.000000Z", "detail": "try later", "occurred_at": "2026-05-01T11:00:01.000000Z",
        })
    );
    let told: Vec<_> =
        story["steps"].as_array().unwrap().iter().map(|step| (&step["reason"], &step["attempt"])).collect();
    let one = json!(1);
    assert_eq!(told, [(&json!("provider_error"), &one), (&json!("throttled"), &one), (&json!("outage"), &one)]);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn sending_sums_over_live_mailings_and_says_when_kafka_is_away(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let idle = app.get("/api/v1/sending").await;
    assert_eq!((idle.status, &idle.body["held"], &idle.body["oldest_held"]), (200, &json!([]), &Value::Null));
    assert_eq!(idle.body["senders"], Value::Null);
    assert!(idle.body["senders_unknown"].as_str().unwrap().starts_with("Kafka can't be asked"), "{idle:?}");

    app.create_mailing().await;
    hold(&pool, &[("outage", -99), ("contract", 0)]).await;
    sqlx::query("UPDATE mailings SET state = 'cancelled'").execute(&pool).await.unwrap();
    let mut places = vec![];
    for waits in [[("outage", 30), ("outage", 40)], [("throttled", 5), ("outage", 20)]] {
        places.push(app.create_mailing().await);
        hold(&pool, &waits).await;
    }
    let sending = app.get("/api/v1/sending").await.body;
    assert_eq!(
        sending["held"],
        json!([
            {"reason": "outage", "messages": 3, "until": "2026-05-01T12:00:20.000000Z"},
            {"reason": "throttled", "messages": 1, "until": "2026-05-01T12:00:05.000000Z"},
        ])
    );
    let oldest = &sending["oldest_held"];
    assert_eq!(oldest["mailing_id"].as_str().unwrap(), places[1].rsplit_once('/').unwrap().1);
    assert_eq!(oldest["reason"], "throttled");
    assert_eq!(oldest["held_at"], "2026-05-01T11:30:00.000000Z");
    assert_eq!(oldest["until"], "2026-05-01T12:00:05.000000Z");
}
