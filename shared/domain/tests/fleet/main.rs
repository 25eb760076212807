//! Herald played by its own rules on a virtual clock: partitions, senders, a planner, a projector and a provider, without Kafka.
//!
//! `FLEET_SEED=7 cargo test -p domain --test fleet` plays one history again.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod histories;
mod invariants;
mod log;
mod meter;
mod network;
mod planner;
mod provider;
mod random;
mod rows;
mod scenarios;
mod sender;
mod world;
