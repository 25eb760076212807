//! Clients, one by one and by import.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use common::App;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sqlx::PgPool;

async fn highest_client_no(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT COALESCE(max(client_no), 0) FROM clients").fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_client_is_registered_read_and_changed(pool: PgPool) {
    let app = App::new(pool).await;
    let created = app.post("/api/v1/clients", &json!({"phone_number": "79161234567"})).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.body["mobile_operator_code"], 916);
    assert_eq!((&created.body["tag"], &created.body["time_zone"]), (&Value::Null, &json!("UTC")));
    let place = created.headers["location"].to_str().unwrap();
    assert_eq!(place, format!("/api/v1/clients/{}", created.body["id"].as_str().unwrap()));
    assert_eq!(app.get(place).await.body, created.body);

    let change = json!({"mobile_operator_code": 999, "tag": "readers", "time_zone": "Europe/Moscow"});
    let changed = app.patch(place, &change).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    for (name, value) in change.as_object().unwrap() {
        assert_eq!(&changed.body[name], value);
    }
    assert_eq!(changed.body["phone_number"], "79161234567");

    let cleared = app.patch(place, &json!({"mobile_operator_code": null, "tag": null, "time_zone": null})).await;
    assert_eq!(cleared.body["mobile_operator_code"], 916);
    assert_eq!((&cleared.body["tag"], &cleared.body["time_zone"]), (&Value::Null, &json!("UTC")));

    let refused = app.patch(place, &json!({"phone_number": null, "colour": 1})).await;
    assert_eq!(refused.bad_fields().len(), 2);
    assert_eq!(app.get(place).await.body, cleared.body);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_derived_operator_code_follows_the_phone_number_and_a_given_one_stays(pool: PgPool) {
    let app = App::new(pool).await;
    let derived = app.post("/api/v1/clients", &json!({"phone_number": "79161234567"})).await;
    let place = derived.headers["location"].to_str().unwrap();
    let changed = app.patch(place, &json!({"phone_number": "79261234567"})).await;
    assert_eq!(changed.body["mobile_operator_code"], 926);

    let ported = json!({"phone_number": "79161234567", "mobile_operator_code": 901});
    let ported = app.post("/api/v1/clients", &ported).await;
    let place = ported.headers["location"].to_str().unwrap();
    let changed = app.patch(place, &json!({"phone_number": "79261234567"})).await;
    assert_eq!(changed.body["mobile_operator_code"], 901);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_deleted_client_is_gone_and_keeps_only_its_number(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let created = app.post("/api/v1/clients", &json!({"phone_number": "79161234567", "tag": "readers"})).await;
    let place = created.headers["location"].to_str().unwrap();
    assert_eq!(app.delete(place).await.status, 204);
    assert_eq!(app.get(place).await.status, 404);
    assert_eq!(app.patch(place, &json!({"tag": "a"})).await.status, 404);
    assert_eq!(app.delete(place).await.status, 404);
    assert_eq!(app.get("/api/v1/clients").await.body["items"], json!([]));
    let (erased, row): (bool, String) =
        sqlx::query_as("SELECT deleted_at IS NOT NULL, row_to_json(clients)::text FROM clients")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(erased && !row.contains("79161234567") && !row.contains("readers"), "{row}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn clients_are_listed_in_pages_and_by_filter(pool: PgPool) {
    let app = App::new(pool).await;
    let csv: String = (0..25).map(|i| format!("79{}00000{i:02},{}\n", 16 + i % 2, ["a", "b", "c"][i % 3])).collect();
    let answer = app.import("text/csv", format!("phone_number,tag\n{csv}")).await;
    assert_eq!(answer.body["imported"], 25, "{answer:?}");

    let phones = |items: &[Value]| items.iter().map(|item| item["phone_number"].as_str().unwrap().to_owned()).collect();
    let all: Vec<String> = phones(&app.pages("/api/v1/clients?", 1_000).await);
    assert_eq!(all.len(), 25);
    for limit in [1, 5, 7, 25] {
        let paged: Vec<String> = phones(&app.pages("/api/v1/clients?", limit).await);
        assert_eq!(paged, all, "limit {limit}");
    }
    assert_eq!(app.pages("/api/v1/clients?tag=a&", 4).await.len(), 9);
    assert_eq!(app.pages("/api/v1/clients?mobile_operator_code=916&", 4).await.len(), 13);
    assert_eq!(app.pages("/api/v1/clients?tag=a&mobile_operator_code=916&", 4).await.len(), 5);
    assert_eq!(app.pages("/api/v1/clients?phone_number=79160000000&", 4).await.len(), 1);
    assert_eq!(app.pages("/api/v1/clients?tag=none&", 4).await.len(), 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn good_lines_of_a_csv_are_imported_beside_bad_ones(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let long = "x".repeat(64 * 1024);
    let csv = format!(
        "\u{feff}tag,time_zone,\"phone_number\",mobile_operator_code\r\n\
         readers,Europe/Moscow,79160000001,901\r\n\
         ,,79160000002,\n\
         \n\
         \"with, a \"\"comma\"\"\",,79160000003,\n\
         a,,12,\n\
         a,Mars,79160000004,\n\
         a,,79160000005,abc\n\
         a,,79160000006\n\
         {long},,79160000007,\n\
         \"open,,79160000008,\n\
         я,,79160000009,\n\
         a\u{0},,79160000010,\n\
         cr\rcr,,79160000011,\n\
         last,,79160000012,"
    );
    let answer = app.import("text/csv; charset=utf-8", csv).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((&answer.body["imported"], &answer.body["rejected"]), (&json!(5), &json!(8)), "{answer:?}");
    let errors: Vec<(u64, Option<&str>)> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["field"].as_str()))
        .collect();
    let expected = [
        (6, Some("phone_number")),
        (7, Some("time_zone")),
        (8, Some("mobile_operator_code")),
        (9, None),
        (10, None),
        (11, None),
        (13, Some("tag")),
        (14, None),
    ];
    assert_eq!(errors, expected, "{answer:?}");
    assert!(!answer.body.to_string().contains("791600000"), "{answer:?}");
    assert_eq!(highest_client_no(&pool).await, 5, "rejected lines draw no numbers");

    let clients = app.pages("/api/v1/clients?", 100).await;
    let told: Vec<_> =
        clients.iter().map(|c| (c["tag"].as_str(), c["mobile_operator_code"].as_i64().unwrap())).collect();
    let expected =
        [(Some("readers"), 901), (None, 916), (Some("with, a \"comma\""), 916), (Some("я"), 916), (Some("last"), 916)];
    assert_eq!(told, expected);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn good_lines_of_ndjson_are_imported_beside_bad_ones(pool: PgPool) {
    let app = App::new(pool).await;
    let body = [
        r#"{"phone_number":"79160000001","tag":"two\nlines","mobile_operator_code":901}"#,
        r#"{"phone_number":"79160000002","colour":1}"#,
        r#"{"phone_number":"79160000002","tag":"a","tag":"b"}"#,
        "",
        "[1]",
        "{",
        r#"{"phone_number":"79160000003","tag":"\ud800"}"#,
        r#"{"phone_number":"79160000004"}"#,
    ]
    .join("\n");
    let answer = app.import("application/x-ndjson", body).await;
    assert_eq!((&answer.body["imported"], &answer.body["rejected"]), (&json!(2), &json!(5)), "{answer:?}");
    let lines: Vec<u64> =
        answer.body["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 5, 6, 7]);
    assert_eq!(app.import("application/x-ndjson", "").await.body["imported"], 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_csv_without_a_fit_header_is_refused_whole(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    for csv in [
        "",
        "\n\n",
        "tag\na\n",
        "phone_number,phone_number\n",
        "phone_number,colour\n",
        "79160000001,a\n",
        "\"phone_number\n",
    ] {
        let answer = app.import("text/csv", csv).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid_header"), "{csv:?}");
        assert!(!answer.body.to_string().contains("79160000001"), "{answer:?}");
    }
    assert_eq!(highest_client_no(&pool).await, 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn only_the_first_thousand_errors_are_told(pool: PgPool) {
    let answer = App::new(pool).await.import("text/csv", format!("phone_number\n{}", "1\n".repeat(1_500))).await;
    assert_eq!(answer.body["rejected"], 1_500);
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 1_000);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_large_import_arrives_whole_however_it_is_cut(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let mut csv = "phone_number,tag\n".to_owned();
    for i in 0..20_500 {
        csv.push_str(&format!("7916{i:07},many\n"));
    }
    let chunks: Vec<_> = csv.as_bytes().chunks(997).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let answer = app.import("text/csv", Body::from_stream(stream::iter(chunks))).await;
    assert_eq!((&answer.body["imported"], &answer.body["rejected"]), (&json!(20_500), &json!(0)), "{answer:?}");
    let phones: Vec<i64> = sqlx::query_scalar("SELECT phone_number FROM clients").fetch_all(&pool).await.unwrap();
    assert_eq!(phones.iter().collect::<BTreeSet<_>>().len(), 20_500);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_import_that_breaks_off_says_how_many_were_imported(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let mut csv = "phone_number\n".to_owned();
    for i in 0..1_234 {
        csv.push_str(&format!("7916{i:07}\n"));
    }
    csv.push_str("7916");
    let body = stream::iter([Ok(csv.into_bytes()), Err(std::io::Error::other("reset"))]);
    let answer = app.import("text/csv", Body::from_stream(body)).await;
    assert_eq!((answer.status, answer.problem()), (400, "body_broke_off"));
    assert_eq!(answer.body["imported"], 1_234, "{answer:?}");
    assert_eq!(highest_client_no(&pool).await, 1_234);
}

fn lines(count: usize) -> std::io::Result<Vec<u8>> {
    Ok("{\"phone_number\":\"79160000001\"}\n".repeat(count).into_bytes())
}

async fn imported(pool: &PgPool, count: i64) {
    while highest_client_no(pool).await < count {
        tokio::task::yield_now().await;
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_import_waits_for_a_connection_once_lines_are_in(pool: PgPool) {
    let only = pool.options().clone().max_connections(1).acquire_timeout(Duration::from_millis(200));
    let only = only.connect_with((*pool.connect_options()).clone()).await.unwrap();
    let app = App::new(only.clone()).await;
    let rest = stream::once(async {
        imported(&pool, 1_000).await;
        let held = only.acquire().await.unwrap();
        tokio::spawn(async move {
            // Longer than the import's first wait for it.
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(held);
        });
        lines(1_500)
    });
    let body = stream::iter([lines(1_000)]).chain(rest);
    let (send, receive) = futures::channel::mpsc::unbounded();
    let feed = body.map(Ok).forward(send);
    let (answer, fed) = tokio::join!(app.import("application/x-ndjson", Body::from_stream(receive)), feed);
    fed.unwrap();
    assert_eq!((answer.status, &answer.body["imported"]), (200, &json!(2_500)), "{answer:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_import_that_loses_postgres_says_how_many_were_imported_and_not_to_try_again(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let (send, receive) = futures::channel::mpsc::unbounded();
    let feed = async {
        send.unbounded_send(lines(1_000)).unwrap();
        imported(&pool, 1_000).await;
        let mut holder = pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE clients IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
        send.unbounded_send(lines(1_000)).unwrap();
        holder
    };
    let (answer, _holder) = tokio::join!(app.import("application/x-ndjson", Body::from_stream(receive)), feed);
    assert_eq!((answer.status, answer.problem()), (503, "unavailable"), "{answer:?}");
    assert_eq!(answer.body["imported"], 1_000);
    assert!(!answer.headers.contains_key("retry-after"), "{answer:?}");
}
