//! What a program says about the schema that it finds.

use sqlx::PgPool;
use store::{MIGRATOR, SchemaError, check_schema};

#[sqlx::test(migrations = false)]
async fn an_empty_database_is_older(pool: PgPool) {
    let answer = check_schema(&mut pool.acquire().await.unwrap()).await;
    assert!(matches!(answer, Err(SchemaError::Older)), "{answer:?}");
    assert!(answer.unwrap_err().to_string().contains("herald migrate"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_schema_must_have_all_migrations_and_may_have_more(pool: PgPool) {
    let mut db = pool.acquire().await.unwrap();
    check_schema(&mut db).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET version = version + 100").execute(&mut *db).await.unwrap();
    check_schema(&mut db).await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .execute(&mut *db)
        .await
        .unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET version = version - 100").execute(&mut *db).await.unwrap();
    assert!(matches!(check_schema(&mut db).await, Err(SchemaError::Older)));
}
