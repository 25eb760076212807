//! The routes. Each is registered by `routes!`, so none exists that the document doesn't show.

mod clients;
mod counts;
mod import;
mod mailing_form;
mod mailings;
mod messages;

use std::future::Future;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::problem::ApiError;

pub(crate) fn all() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(clients::create_client, clients::list_clients))
        .routes(routes!(import::import_clients))
        .routes(routes!(clients::get_client, clients::update_client, clients::delete_client))
        .routes(routes!(mailings::create_mailing, mailings::list_mailings))
        .routes(routes!(mailings::get_mailing, mailings::update_mailing, mailings::delete_mailing))
        .routes(routes!(messages::list_messages))
        .routes(routes!(messages::get_message))
        .routes(routes!(mailings::statistics))
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The page.
    items: Vec<T>,
    /// Where the next one begins; null: there is none.
    next_cursor: Option<String>,
}

/// Does a request's work on Postgres in a task of its own: a caller who leaves must not break it off. sqlx returns a
/// connection whose `begin` was cancelled to its pool inside a transaction (sqlx#4385).
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    // Without the error's text: it quotes the panic's message, which may quote personal data.
    tokio::spawn(work).await.map_err(|_| ApiError::Internal(anyhow::anyhow!("a handler's task panicked")))?
}
