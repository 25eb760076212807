//! Points at which tests let a process die: at the n-th passing, as by SIGKILL.
//!
//! `FAILPOINTS="send::answered=99*off->return"` lets the hundredth passing die. They cost nothing and can't be armed unless
//! the `fail` crate's `failpoints` feature is on, which only the end-to-end tests turn on.

pub use fail::fail_point;

/// Reads `FAILPOINTS`.
pub fn arm() {
    // For as long as the process lives.
    std::mem::forget(fail::FailScenario::setup());
}

/// A point at which the process may die.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash::fail_point!($name, |_| std::process::abort())
    };
}
