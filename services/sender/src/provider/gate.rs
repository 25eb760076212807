//! The line between "not sent" and "nobody knows": a request body that asks before the first byte is written.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// What the gate answered when it was asked.
#[derive(Clone, Copy)]
pub(super) enum Gate {
    Opened(Instant),
    Closed,
}

impl Gate {
    pub(super) fn opened_at(self) -> Option<Instant> {
        match self {
            Self::Opened(at) => Some(at),
            Self::Closed => None,
        }
    }
}

/// A request body whose first poll, which hyper makes when it holds a connection and before it flushes the head, asks
/// the gate. A closed gate fails the body, and hyper drops the connection with nothing written.
pub(super) struct GatedBody {
    gate: Option<Box<dyn FnOnce() -> bool + Send + Sync>>,
    bytes: Option<Bytes>,
    begun: Arc<Mutex<Option<Gate>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the gate is closed")]
pub(super) struct GateClosed;

impl GatedBody {
    /// The body, and where it tells how the gate stood: none while it wasn't asked.
    pub(super) fn new(
        bytes: Bytes,
        may_begin: impl FnOnce() -> bool + Send + Sync + 'static,
    ) -> (Self, Arc<Mutex<Option<Gate>>>) {
        let begun = Arc::new(Mutex::new(None));
        (Self { gate: Some(Box::new(may_begin)), bytes: Some(bytes), begun: Arc::clone(&begun) }, begun)
    }
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = GateClosed;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GateClosed>>> {
        if let Some(gate) = self.gate.take() {
            let open = gate();
            let state = if open { Gate::Opened(Instant::now()) } else { Gate::Closed };
            *self.begun.lock().expect("not poisoned") = Some(state);
            if !open {
                return Poll::Ready(Some(Err(GateClosed)));
            }
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
