//! Lists of messages at a size at which they must not be scanned whole.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use domain::ids::ClientNo;
use domain::status::Status;
use sqlx::{PgConnection, PgPool};
use store::{MIGRATOR, messages};

async fn client_nos(db: &mut PgConnection, status: Status, limit: i64) -> (Vec<i64>, usize) {
    let (mut found, mut after, mut pages) = (vec![], ClientNo::default(), 0);
    loop {
        let (rows, next) = messages::list(db, 1.into(), Some(&status), after, limit).await.unwrap();
        assert!(rows.len() as i64 <= limit);
        found.extend(rows.iter().map(|row| row.client_no.get()));
        pages += 1;
        match next {
            Some(next) => {
                assert!(next > after, "a page goes on behind the one before");
                after = next;
            }
            None => return (found, pages),
        }
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_status_that_is_rare_is_found_page_by_page(pool: PgPool) {
    let mut db = pool.acquire().await.unwrap();
    // Numbers with gaps; one row in 30,000 failed, the last one too.
    sqlx::query(
        "INSERT INTO messages SELECT 1, n * 3, gen_random_uuid(), CASE WHEN n % 30000 = 0 THEN 'failed' ELSE 'succeeded' END,
             NULL, 1, 1, 1, 200, 7, NULL, now(), now() FROM generate_series(1, 120000) AS n",
    )
    .execute(&mut *db)
    .await
    .unwrap();
    let rare = [90_000, 180_000, 270_000, 360_000];
    let (found, pages) = client_nos(&mut db, Status::Failed, 100).await;
    assert_eq!((&found[..], pages), (&rare[..], 3), "50,000 rows are looked at for a page");
    for limit in [1, 2, 4] {
        assert_eq!(client_nos(&mut db, Status::Failed, limit).await.0, rare, "limit {limit}");
    }
    assert_eq!(client_nos(&mut db, Status::Held, 100).await, (vec![], 3));
    let (found, _) = client_nos(&mut db, Status::Succeeded, 1_000).await;
    assert_eq!(found.len(), 119_996);
}
