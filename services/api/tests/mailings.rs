//! Mailings: the row and its event in one transaction, counts of one snapshot, messages.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::App;
use domain::ids::{MessageId, Version};
use domain::mailing::State;
use events::{MailingEvent, decode};
use serde_json::{Value, json};
use sqlx::PgPool;

fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

/// The outbox in its order, with each row's shard.
async fn outbox(pool: &PgPool) -> Vec<(i32, MailingEvent)> {
    let rows: Vec<(i32, String, String)> =
        sqlx::query_as("SELECT shard, key, payload FROM outbox ORDER BY id").fetch_all(pool).await.unwrap();
    rows.into_iter()
        .map(|(shard, key, payload)| {
            let event: MailingEvent = decode(Some(payload.as_bytes())).unwrap();
            assert_eq!(key, event.mailing_id.to_string());
            (shard, event)
        })
        .collect()
}

async fn mailing_no(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT max(mailing_no) FROM mailings").fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_mailing_is_written_with_its_event(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let before = Utc::now();
    let answer = app.post("/api/v1/mailings", &json!({"text": "hello", "filter": "readers"})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let mailing = &answer.body;
    let place = answer.headers["location"].to_str().unwrap();
    assert_eq!(place, format!("/api/v1/mailings/{}", mailing["id"].as_str().unwrap()));
    assert_eq!(&app.get(place).await.body, mailing);
    assert_eq!(mailing["state"], "scheduled");
    assert_eq!(mailing["filter"], json!({"mobile_operator_codes": [], "tags": ["readers"]}));
    assert!(instant(&mailing["starts_at"]) >= before - TimeDelta::milliseconds(1));
    assert_eq!(instant(&mailing["ends_at"]) - instant(&mailing["starts_at"]), TimeDelta::days(1));

    let [(shard, event)] = &outbox(&pool).await[..] else { panic!("one event") };
    assert_eq!(*shard, event.mailing_no.shard(6).get());
    assert_eq!(event.mailing_no.get(), mailing_no(&pool).await);
    assert_eq!((event.text.as_str(), &event.state), ("hello", &State::Scheduled));
    assert_eq!(event.filter.tags, ["readers"]);
    assert_eq!(json!(event.mailing_id), mailing["id"]);
    assert_eq!(event.starts_at.timestamp_micros(), instant(&mailing["starts_at"]).timestamp_micros());
    assert!(event.version.get() >= before.timestamp_micros() - 1_000_000);
    let (version, shard): (i64, i32) =
        sqlx::query_as("SELECT version, shard FROM mailings").fetch_one(&pool).await.unwrap();
    assert_eq!((version, shard), (event.version.get(), event.mailing_no.shard(6).get()));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_mailing_waits_for_its_start_only_while_that_lies_ahead(pool: PgPool) {
    let app = App::new(pool).await;
    let later = app.create_mailing().await;
    assert_eq!(app.get(&later).await.body["waiting_for"], "start");
    let now = app.post("/api/v1/mailings", &json!({"text": "hello", "filter": "readers"})).await;
    assert_eq!(now.body["waiting_for"], "publishing");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_short_filter_is_a_code_or_a_tag(pool: PgPool) {
    let app = App::new(pool).await;
    let cases = [
        (json!("916"), json!({"mobile_operator_codes": [916], "tags": []})),
        (json!("916a"), json!({"mobile_operator_codes": [], "tags": ["916a"]})),
        (json!({"tags": ["916"]}), json!({"mobile_operator_codes": [], "tags": ["916"]})),
        (
            json!({"tags": ["b", "a", "b"], "mobile_operator_codes": [917, 916]}),
            json!({"mobile_operator_codes": [916, 917], "tags": ["a", "b"]}),
        ),
    ];
    for (filter, expected) in cases {
        let answer = app.post("/api/v1/mailings", &json!({"text": "hello", "filter": filter})).await;
        assert_eq!((answer.status, &answer.body["filter"]), (201, &expected), "{answer:?}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn each_change_is_a_higher_version_and_an_event(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let place = app.create_mailing().await;
    let created = app.get(&place).await.body;
    // As if the database's clock had been ahead.
    sqlx::query("UPDATE mailings SET version = version + 3600000000").execute(&pool).await.unwrap();

    let changed = app.patch(&place, &json!({"text": "good-bye"})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    for name in ["filter", "starts_at", "ends_at", "created_at", "id"] {
        assert_eq!(changed.body[name], created[name], "{name}");
    }
    let filter = app.patch(&place, &json!({"filter": {"mobile_operator_codes": [916]}})).await;
    assert_eq!(filter.body["filter"], json!({"mobile_operator_codes": [916], "tags": []}));
    assert_eq!(app.delete(&place).await.status, 204);
    assert_eq!(app.get(&place).await.status, 404);
    assert_eq!(app.delete(&place).await.status, 404);

    let events = outbox(&pool).await;
    let texts: Vec<_> = events.iter().map(|(_, event)| (event.text.as_str(), event.state.as_str())).collect();
    let expected =
        [("hello", "scheduled"), ("good-bye", "scheduled"), ("good-bye", "scheduled"), ("good-bye", "cancelled")];
    assert_eq!(texts, expected);
    let versions: Vec<Version> = events.iter().map(|(_, event)| event.version).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert!(events.iter().all(|(shard, event)| *shard == event.mailing_no.shard(6).get()));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_is_refused_changes_nothing(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let place = app.create_mailing().await;
    let before = app.get(&place).await.body;
    let starts_at = instant(&before["starts_at"]);
    for change in [
        json!({"text": ""}),
        json!({"colour": null}),
        json!({"ends_at": starts_at}),
        json!({"starts_at": instant(&before["ends_at"])}),
        json!({"filter": {}}),
    ] {
        let answer = app.patch(&place, &change).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid_fields"), "{change}");
    }
    assert_eq!(app.get(&place).await.body, before);
    assert_eq!(outbox(&pool).await.len(), 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_mailing_that_has_started_stays_as_it_is(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    for sql in [
        "UPDATE mailings SET starts_at = now() - interval '1 second'",
        "UPDATE mailings SET starts_at = now() + interval '1 hour', state = 'running'",
        "UPDATE mailings SET starts_at = now() + interval '1 hour', state = 'finished'",
    ] {
        let place = app.create_mailing().await;
        sqlx::query(sql).execute(&pool).await.unwrap();
        for answer in [app.patch(&place, &json!({"text": "new"})).await, app.delete(&place).await] {
            assert_eq!((answer.status, answer.problem()), (409, "mailing_started"), "{sql}");
        }
        assert_eq!(app.get(&place).await.body["text"], "hello");
    }
    assert_eq!(outbox(&pool).await.len(), 3);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn changes_at_the_same_time_keep_the_order_of_versions(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let place = app.create_mailing().await;
    let changes = (0..20).map(|i| {
        let (app, place) = (&app, &place);
        async move { app.patch(place, &json!({"text": format!("change {i}")})).await }
    });
    let answers = futures::future::join_all(changes).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let events = outbox(&pool).await;
    assert_eq!(events.len(), 21);
    assert!(events.is_sorted_by(|(_, a), (_, b)| a.version < b.version));
    assert_eq!(app.get(&place).await.body["text"], events.last().unwrap().1.text.as_str());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn mailings_are_listed_newest_first_also_in_the_statistics(pool: PgPool) {
    let app = App::new(pool).await;
    let mut places = Vec::new();
    for _ in 0..5 {
        places.push(app.create_mailing().await);
    }
    places.reverse();
    let ids: Vec<&str> = places.iter().map(|place| place.rsplit_once('/').unwrap().1).collect();
    for limit in [1, 2, 5, 100] {
        let mailings = app.pages("/api/v1/mailings?", limit).await;
        assert_eq!(mailings.iter().map(|mailing| mailing["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
        let statistics = app.pages("/api/v1/statistics?", limit).await;
        assert_eq!(statistics.iter().map(|item| item["mailing_id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    }
}

async fn count(pool: &PgPool, status: &str, by_partition: [i64; 2]) {
    for (partition, n) in by_partition.into_iter().enumerate() {
        sqlx::query(
            "INSERT INTO mailing_counts SELECT max(mailing_no), $1, $2, $3 FROM mailings
             ON CONFLICT (mailing_no, partition, status) DO UPDATE SET n = EXCLUDED.n",
        )
        .bind(i32::try_from(partition).unwrap())
        .bind(status)
        .bind(n)
        .execute(pool)
        .await
        .unwrap();
    }
}

async fn mirror(pool: &PgPool, planned: i64, complete: bool, estimate: Option<i64>) {
    sqlx::query(
        "INSERT INTO mailing_progress (mailing_no, planned, complete, audience_estimate)
         SELECT max(mailing_no), $1, $2, $3 FROM mailings
         ON CONFLICT (mailing_no) DO UPDATE SET planned = $1, complete = $2, audience_estimate = $3",
    )
    .bind(planned)
    .bind(complete)
    .bind(estimate)
    .execute(pool)
    .await
    .unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn planned_is_the_sum_of_the_others_in_each_answer(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let place = app.create_mailing().await;
    let counts = async || {
        let counts = app.get(&place).await.body["counts"].clone();
        let n = |name: &str| counts[name].as_i64().unwrap();
        let sum: i64 = ["created", "retrying", "held", "succeeded", "failed", "expired", "cancelled", "unknown"]
            .iter()
            .map(|name| n(name))
            .sum();
        assert_eq!(n("planned"), sum, "{counts}");
        assert!(counts["audience"].as_i64().is_none_or(|audience| audience >= sum), "{counts}");
        assert_eq!(app.get("/api/v1/statistics").await.body["items"][0]["counts"], counts);
        counts
    };
    assert_eq!(counts().await["audience"], Value::Null);
    mirror(&pool, 10, false, Some(90)).await;
    let found = counts().await;
    assert_eq!((&found["audience"], &found["planned"], &found["created"]), (&json!(90), &json!(10), &json!(10)));

    count(&pool, "succeeded", [3, 4]).await;
    count(&pool, "retrying", [5, -1]).await;
    let found = counts().await;
    // Rows are ahead of the mirror.
    assert_eq!((&found["planned"], &found["created"]), (&json!(11), &json!(0)));
    assert_eq!((&found["succeeded"], &found["retrying"]), (&json!(7), &json!(4)));

    count(&pool, "bounced", [1, 1]).await;
    assert_eq!(counts().await["unknown"], 2);
    mirror(&pool, 100, true, Some(90)).await;
    let found = counts().await;
    assert_eq!((&found["audience"], &found["planned"]), (&json!(100), &json!(100)));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn messages_are_listed_by_status_and_read_with_their_steps(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let place = app.create_mailing().await;
    let number = mailing_no(&pool).await;
    sqlx::query(
        "INSERT INTO messages SELECT $1, n, gen_random_uuid(), CASE WHEN n % 4 = 0 THEN 'failed' ELSE 'succeeded' END,
             NULL, 1, 1, 1, 200, 7, NULL, now(), now() FROM generate_series(1, 50) AS n",
    )
    .bind(number)
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO steps SELECT $1, 4, 0, n, 1, n, 'retrying', 'timeout', NULL, 5000, NULL, NULL, now() FROM generate_series(1, 3) AS n",
    )
    .bind(number)
    .execute(&pool)
    .await
    .unwrap();

    let ids: Vec<String> = (1..=50).map(|n| MessageId::new(number.into(), n.into()).unwrap().to_string()).collect();
    for limit in [1, 7, 50, 1_000] {
        let listed = app.pages(&format!("{place}/messages?"), limit).await;
        assert_eq!(listed.iter().map(|m| m["message_id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
        assert_eq!(app.pages(&format!("{place}/messages?status=failed&"), limit).await.len(), 12);
        assert_eq!(app.pages(&format!("{place}/messages?status=held&"), limit).await.len(), 0);
    }
    let message = app.get(&format!("/api/v1/messages/{}", ids[3])).await.body;
    assert_eq!((&message["status"], &message["attempts"]), (&json!("failed"), &json!(1)));
    assert_eq!(message["mailing_id"].as_str().unwrap(), place.rsplit_once('/').unwrap().1);
    let attempts: Vec<_> = message["steps"].as_array().unwrap().iter().map(|a| &a["attempt"]).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!(app.get(&format!("/api/v1/messages/{}", ids[0])).await.body["steps"], json!([]));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_mailing_chooses_what_to_risk(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let starts_at = Utc::now() + TimeDelta::hours(1);
    let create = |delivery: Value| json!({"text": "hello", "filter": "readers", "starts_at": starts_at.to_rfc3339(), "delivery": delivery});
    let answer = app.post("/api/v1/mailings", &create(json!("at_most_once"))).await;
    assert_eq!((answer.status, &answer.body["delivery"]), (201, &json!("at_most_once")), "{answer:?}");
    let place = answer.headers["location"].to_str().unwrap().to_owned();
    let answer = app.patch(&place, &json!({"text": "bye"})).await;
    assert_eq!(answer.body["delivery"], "at_most_once", "a change of something else leaves it");
    let answer = app.patch(&place, &json!({"delivery": "at_least_once"})).await;
    assert_eq!((answer.status, &answer.body["delivery"]), (200, &json!("at_least_once")), "{answer:?}");
    let told: Vec<String> =
        outbox(&pool).await.into_iter().map(|(_, event)| event.delivery.as_str().to_owned()).collect();
    assert_eq!(told, ["at_most_once", "at_most_once", "at_least_once"]);

    let answer = app.post("/api/v1/mailings", &create(json!("exactly_once"))).await;
    assert_eq!((answer.status, &answer.body["errors"][0]["pointer"]), (422, &json!("/delivery")), "{answer:?}");
    assert_eq!(app.post("/api/v1/mailings", &create(Value::Null)).await.body["delivery"], "at_least_once");
}
