//! The judge: whether a run of Herald kept its promises, by what the run left behind. It shares no code with Herald, so that
//! a mistake can't excuse itself.
//!
//! [`sampler`] looks at a run while it lasts, [`collect`] gathers the rest of the evidence after its end, [`judge`] holds
//! the rules against it, [`figures`] says what it measured. The judge has no model of a run: what Herald did is read from
//! records, rows and the provider's log, and what excuses it from the conductor's [`journal`].

mod case;
pub mod collect;
pub mod evidence;
mod faults;
pub mod figures;
pub mod ids;
pub mod journal;
mod rules;
pub mod sample;
pub mod sampler;
pub mod wire;

pub use rules::{Verdict, judge};
