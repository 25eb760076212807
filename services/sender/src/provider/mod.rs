//! The provider: the call, the gate before it, what its answer means, and what operators hear of it.

mod client;
mod complaint;
mod contract;
mod gate;
#[cfg(test)]
mod tests;

pub(crate) use client::{Call, Provider, Request};
