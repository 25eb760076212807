//! The routes. Each is registered by `routes!`, so none exists that the document doesn't show.

mod clients;
mod counts;
mod import;
mod mailing_form;
mod mailings;
mod messages;
mod sending;
mod waiting;

use std::future::Future;

use serde::Serialize;
use tokio::sync::oneshot;
use tracing::Instrument;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::ApiError;
use crate::{Api, DATABASE_TIMEOUT, timed_out};

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
        .routes(routes!(sending::get_sending))
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The page.
    items: Vec<T>,
    /// Where the next one begins; null: there is none.
    next_cursor: Option<String>,
}

/// Does a request's work on Postgres in a task of its own, which goes on when the caller leaves, or is answered 503 because
/// it has taken [`DATABASE_TIMEOUT`]: sqlx returns a connection whose `begin` was cancelled to its pool inside a
/// transaction (sqlx#4385).
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let (tell, told) = oneshot::channel();
    let work = async move {
        if let Err(Err(error)) = tell.send(work.await) {
            error.log_unheard();
        }
    };
    tokio::spawn(work.in_current_span());
    match tokio::time::timeout(DATABASE_TIMEOUT, told).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ApiError::Internal(anyhow::anyhow!("a handler's task panicked"))),
        Err(_) => Err(timed_out().into()),
    }
}
