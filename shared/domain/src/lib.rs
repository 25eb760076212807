//! Herald's rules, as pure functions and types: no IO, no clock, no randomness, no async.
//!
//! What may be written ([`client`], [`mailing`]), what is planned next ([`planning`], [`conveyor`]), whether a message is
//! called ([`decision`]), whether the provider may be ([`pace`], [`lane`], [`traffic`]), what follows from a call's outcome
//! ([`delivery`]), which status of a message stands ([`status`]), how much garbage a reader may pass ([`garbage`]), whether Postgres is to be trusted ([`mark`]), and what is planned again after a loss
//! ([`replan`]).

pub mod client;
pub mod conveyor;
pub mod decision;
pub mod delivery;
pub mod garbage;
pub mod ids;
pub mod lane;
pub mod mailing;
pub mod mark;
pub mod pace;
pub mod planning;
pub mod replan;
pub mod status;
pub mod traffic;
mod window;
mod wire_text;
